"""What the tests of this distribution share: an endpoint of their own, over HTTPS and HTTP."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from turnlane.api import Challenge, ChallengeAnswer, ProviderError, Resolution, Secret
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.profiles import ProviderProfile
from turnlane.runtime.resolver import Resolver
from turnlane.telemetry.redaction import find_leaks
from turnlane_http import plugin

NOW = 1_700_000_000.75
"""What the provider's clock says."""

PATIENCE = 20
"""Seconds for threads to meet; nothing waits that long unless it has failed."""

DOCUMENT = {
    "username": "1700003600:planted-user",
    "password": "planted-turn-password",
    "ttl": 3600,
    "uris": ["turn:turn.example.org:3478?transport=udp"],
}


SECRETS = {
    "bearer_token": "planted-bearer",
    "api_key": "planted-api-key",
    "request_body": '{"ttl": 600, "secret": "planted-body"}',
}
PLANTED = [
    "planted-path",
    "planted-query",
    "planted-bearer",
    "planted-api-key",
    "planted-body",
    "planted-basic-user",
    "planted-basic-password",
    "planted-user",
    "planted-turn-password",
    "planted-unknown-field",
    "planted-header",
]


class Authority:
    """A throw-away certificate authority."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        today = datetime.now(UTC)
        certificate = (
            self._builder(self._name, today - timedelta(days=1), today + timedelta(days=1))
            .public_key(self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def context(self, kind: str) -> ssl.SSLContext:
        """Return a server's side of TLS; `kind` is `good`, `expired`, `early` or `stranger`."""
        key = ec.generate_private_key(ec.SECP256R1())
        today = datetime.now(UTC)
        start, end = {
            "expired": (today - timedelta(days=3), today - timedelta(days=2)),
            "early": (today + timedelta(days=2), today + timedelta(days=3)),
        }.get(kind, (today - timedelta(days=1), today + timedelta(days=1)))
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(IPv4Address("127.0.0.1")),
        ]
        if kind == "stranger":
            names = [x509.DNSName("elsewhere.example")]
        certificate = (
            self._builder(x509.Name([]), start, end)
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{kind}.pem"
        file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _builder(self, subject: x509.Name, start: datetime, end: datetime) -> Any:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Endpoint:
    """A server in a thread, which answers as `script` says, and keeps what it saw."""

    tls: ssl.SSLContext | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = json.dumps(DOCUMENT).encode()
    script: Callable[["Handler"], None] | None = None
    seen: list[Seen] = field(default_factory=list)
    arrived: Event = field(default_factory=Event)
    gone: Event = field(default_factory=Event)
    port: int = 0

    @property
    def link(self) -> str:
        """Return a link to it, with a key in its path and query."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://localhost:{self.port}/planted-path/turn?key=planted-query"

    def answer(self, document: object) -> None:
        """Answer with JSON from now on."""
        self.body = json.dumps(document).encode()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    @property
    def endpoint(self) -> Endpoint:
        return cast("Server", self.server).endpoint

    def setup(self) -> None:
        if self.endpoint.tls is not None:
            self.request = self.endpoint.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.request.close()

    def answer(self) -> None:
        endpoint = self.endpoint
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        endpoint.seen.append(seen)
        endpoint.arrived.set()
        if endpoint.script is not None:
            endpoint.script(self)
            return
        self.send_response(endpoint.status)
        for name, value in endpoint.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(endpoint.body)))
        self.end_headers()
        self.wfile.write(endpoint.body)

    do_GET = do_POST = do_CONNECT = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def wait_for_the_end(self) -> None:
        """Wait until the client has closed the connection."""
        with suppress(OSError):
            while self.request.recv(4096):
                continue
        self.endpoint.gone.set()
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Takes connections for an endpoint."""

    # Threads are waited for at the end, so that no test leaves a socket to the next.
    daemon_threads = False
    block_on_close = True

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        super().__init__(("127.0.0.1", 0), Handler)
        endpoint.port = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients of these tests break off on purpose."""


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    server = Server(endpoint)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


class NoChallenges:
    """Fails when it is asked anything."""

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        raise AssertionError(challenge.kind)


@dataclass
class Client:
    """Resolves links through the runtime, as a session does."""

    authority: Authority
    now: float = NOW
    secrets: dict[str, str] = field(default_factory=SECRETS.copy)
    planted: list[str] = field(default_factory=PLANTED.copy)

    async def resolve(self, link: str, **settings: Any) -> Resolution:
        resolver = Resolver(
            PluginManager.from_modules([plugin]),
            NoChallenges(),
            lambda: self.now,
            self.authority.file.parent,
        )
        if link.startswith("https://"):
            settings.setdefault("ca_file", self.authority.file.name)
        profile = ProviderProfile(provider="http", link=Secret(link), settings=settings)
        return await resolver.resolve(profile)

    async def failing(self, link: str, **settings: Any) -> ProviderError:
        """Return the error of a resolution, after checking what holds for all of them."""
        with pytest.raises(ProviderError) as caught:
            await self.resolve(link, **settings)
        error = caught.value
        assert error.message
        assert error.advice
        assert error.artifact is not None
        assert error.artifact.outcome.provider_error is not None
        assert error.artifact.outcome.provider_error.code == error.code
        assert error.artifact.outcome.provider_error.stage == error.provider_stage
        assert error.artifact.stages[-1].name == error.provider_stage
        assert error.artifact.stages[-1].outcome.error_code == error.code
        told = f"{error} {error!r} {error.args}".encode() + msgspec.json.encode(error.artifact)
        assert find_leaks(told, self.planted) == []
        assert (error.__cause__, error.__context__) == (None, None)
        return error


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run an async test on both backends."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy of the machine that runs the tests take part in them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> ssl.SSLContext:
    return authority.context("good")


@pytest.fixture
def endpoint(server_tls: ssl.SSLContext) -> Iterator[Endpoint]:
    """Return an HTTPS endpoint with a good certificate."""
    with serving(Endpoint(server_tls)) as served:
        yield served


@pytest.fixture
def plain_endpoint() -> Iterator[Endpoint]:
    """Return an endpoint without TLS."""
    with serving(Endpoint()) as served:
        yield served


@pytest.fixture
def badly_certified(authority: Authority) -> Iterator[Callable[[str], Endpoint]]:
    """Make HTTPS endpoints whose certificates are of a kind."""
    with _stack() as enter:
        yield lambda kind: enter(serving(Endpoint(authority.context(kind))))


@contextmanager
def _stack() -> Iterator[Callable[[Any], Endpoint]]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def client(authority: Authority) -> Client:
    return Client(authority)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port on which nobody listens: it is bound, so that nobody else takes it."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
