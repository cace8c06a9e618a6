"""The exchange: bounds, time-outs, cancellation, TLS and proxies."""

import gc
import gzip
import itertools
import socket
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from turnlane_http.exchange import MAX_BODY

pytestmark = pytest.mark.anyio

PATIENCE = 20


async def test_the_largest_answer_is_taken_and_one_byte_more_is_not(
    client: Any, endpoint: Any
) -> None:
    endpoint.body = endpoint.body.ljust(MAX_BODY)
    assert (await client.resolve(endpoint.link)).credentials

    endpoint.body += b" "
    assert (await client.failing(endpoint.link)).code == "answer_too_large"


@pytest.mark.parametrize("headers", ["Transfer-Encoding: chunked", "Connection: close"])
async def test_an_answer_without_end_is_broken_off(
    client: Any, endpoint: Any, headers: str
) -> None:
    def script(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + headers.encode() + b"\r\n\r\n")
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            while True:
                handler.wfile.write(piece)
        except OSError:
            endpoint.gone.set()
        handler.close_connection = True

    endpoint.script = script

    assert (await client.failing(endpoint.link)).code == "answer_too_large"
    assert endpoint.gone.wait(PATIENCE)


async def test_a_compressed_answer_is_not_unfolded(client: Any, endpoint: Any) -> None:
    endpoint.headers = {"Content-Encoding": "gzip"}
    endpoint.body = gzip.compress(bytes(50_000_000))

    error = await client.failing(endpoint.link)

    assert error.code == "unsupported_encoding"


def say_nothing(handler: Any) -> None:
    handler.wait_for_the_end()


def stop_in_the_headers(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Len")
    handler.wait_for_the_end()


def stop_in_the_body(handler: Any) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"username":')
    handler.wait_for_the_end()


@pytest.mark.parametrize("script", [say_nothing, stop_in_the_headers, stop_in_the_body])
async def test_an_answer_that_does_not_come_in_time_is_told_as_that(
    client: Any, endpoint: Any, script: Callable[[Any], None]
) -> None:
    endpoint.script = script

    error = await client.failing(endpoint.link, timeout=1)

    assert error.code == "http_timeout"
    assert "within 1 s" in error.message
    assert endpoint.gone.wait(PATIENCE)


@pytest.mark.parametrize("script", [say_nothing, stop_in_the_body])
async def test_a_cancelled_resolution_hangs_up(
    client: Any, endpoint: Any, script: Callable[[Any], None]
) -> None:
    endpoint.script = script

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.resolve, endpoint.link)
        assert await anyio.to_thread.run_sync(endpoint.arrived.wait, PATIENCE)
        tasks.cancel_scope.cancel()

    assert endpoint.gone.wait(PATIENCE)


@types.coroutine
def cancelled_at(
    steps: Coroutine[Any, Any, Any], number: int, scope: anyio.CancelScope
) -> Generator[Any, Any, None]:
    """Run `steps` and cancel `scope` when they wait for the `number`-th time."""
    resume: Callable[[Any], Any] = steps.send
    value: Any = None
    for count in itertools.count(1):
        try:
            waits_for = resume(value)
        except StopIteration:
            return
        if count == number:
            scope.cancel()
        try:
            resume, value = steps.send, (yield waits_for)
        except BaseException as error:
            resume, value = steps.throw, error


async def test_a_resolution_may_be_cancelled_wherever_it_waits(client: Any, endpoint: Any) -> None:
    for number in range(1, 200):
        with anyio.CancelScope() as scope:
            resolving = client.resolve(
                endpoint.link, method="POST", api_key_header="X-Api-Key", **client.secrets
            )
            await cancelled_at(resolving, number, scope)
        if not scope.cancel_called:
            break
    # What was left open complains when it is collected.
    gc.collect()
    assert not scope.cancel_called
    assert number > 5


@pytest.mark.parametrize(
    "said",
    [b"", b"planted-header\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"\0" * 99],
    ids=["nothing", "no status line", "half a body", "zeros"],
)
async def test_an_endpoint_that_breaks_off_or_speaks_no_http_is_told_as_that(
    client: Any, endpoint: Any, said: bytes
) -> None:
    def script(handler: Any) -> None:
        handler.wfile.write(said)
        handler.close_connection = True

    endpoint.script = script

    assert (await client.failing(endpoint.link)).code == "connection_lost"


async def test_a_port_on_which_nobody_listens_is_told_as_that(
    client: Any, closed_port: int
) -> None:
    error = await client.failing(f"https://127.0.0.1:{closed_port}/planted-path")

    assert error.code == "connect_failed"
    assert f"127.0.0.1:{closed_port}" in error.message


@pytest.mark.parametrize("host", ["nowhere.invalid", "xn--a", "xn--ls8h.invalid"])
async def test_a_host_that_does_not_exist_is_told_as_that(
    client: Any, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def unknown(*asked: object, **also: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    assert (await client.failing(f"https://{host}/planted-path")).code == "connect_failed"


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("expired", "has expired"),
        ("early", "not valid yet"),
        ("stranger", "for another name"),
    ],
)
async def test_a_certificate_that_does_not_verify_is_told_with_the_cause(
    client: Any, badly_certified: Callable[[str], Any], kind: str, cause: str
) -> None:
    endpoint = badly_certified(kind)

    error = await client.failing(endpoint.link, bearer_token="planted-bearer")

    assert error.code == "tls_verification_failed"
    assert cause in error.message
    assert endpoint.seen == []


async def test_a_certificate_for_another_address_is_told_as_that(
    client: Any, badly_certified: Callable[[str], Any]
) -> None:
    endpoint = badly_certified("stranger")

    error = await client.failing(f"https://127.0.0.1:{endpoint.port}/")

    assert error.code == "tls_verification_failed"
    assert "for another address" in error.message


async def test_an_authority_that_is_not_named_is_not_trusted(client: Any, endpoint: Any) -> None:
    error = await client.failing(endpoint.link, ca_file=None)

    assert error.code == "tls_verification_failed"
    assert "ca_file" in error.advice
    assert endpoint.seen == []


async def test_an_authority_may_be_named_by_an_absolute_path(client: Any, endpoint: Any) -> None:
    resolution = await client.resolve(endpoint.link, ca_file=str(client.authority.file))

    assert resolution.credentials


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem", ".", "~nobody-of-that-name/x"])
async def test_an_authority_file_that_cannot_be_read_is_told_as_that(
    client: Any, endpoint: Any, name: str
) -> None:
    (client.authority.file.parent / "empty.pem").write_text("planted-header")

    error = await client.failing(endpoint.link, ca_file=name)

    assert error.code == "ca_file_unusable"
    assert endpoint.seen == []


async def test_an_endpoint_without_tls_is_told_as_that(client: Any, plain_endpoint: Any) -> None:
    error = await client.failing(plain_endpoint.link.replace("http:", "https:"))

    assert error.code == "tls_failed"
    assert plain_endpoint.seen == []


async def test_no_proxy_of_the_environment_is_used_unless_told(
    client: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://localhost:{closed_port}")

    assert (await client.resolve(endpoint.link)).credentials


async def test_a_proxy_of_the_environment_is_used_when_told_and_its_refusal_is_named(
    client: Any, plain_endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://planted-header:planted-header@127.0.0.1:{plain_endpoint.port}"
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    plain_endpoint.status = 407

    error = await client.failing(
        "https://turn.invalid/planted-path", trust_env=True, bearer_token="planted-bearer"
    )

    assert error.code == "proxy_failed"
    (seen,) = plain_endpoint.seen
    assert (seen.method, seen.target) == ("CONNECT", "turn.invalid:443")
    assert "planted" not in seen.headers.get("authorization", "")


@pytest.mark.parametrize("proxy", ["socks5://localhost:1", "nonsense://x", "http://[::1"])
async def test_a_proxy_that_cannot_be_used_is_told_as_that(
    client: Any, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    error = await client.failing("https://turn.invalid/planted-path", trust_env=True)

    assert error.code == "proxy_failed"


async def test_a_request_to_this_machine_goes_to_no_proxy(
    client: Any, plain_endpoint: Any, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{closed_port}")

    assert (await client.resolve(plain_endpoint.link, trust_env=True)).credentials
