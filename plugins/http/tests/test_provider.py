"""The provider through the runtime, against an endpoint on this machine."""

import gc
import gzip
import itertools
import json
import logging
import socket
import ssl
import types
from base64 import b64encode
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from turnlane.api import (
    LinkError,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Renewal,
    SettingsError,
)
from turnlane.telemetry.redaction import find_leaks
from turnlane_http import plugin
from turnlane_http.exchange import MAX_BODY
from turnlane_http.link import parse_link
from turnlane_http.quiet import LOGGERS

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.75
PATIENCE = 20

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


async def failing(client: Any, link: str, **settings: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await client.resolve(link, **settings)
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
    assert find_leaks(told, PLANTED) == []
    assert (error.__cause__, error.__context__) == (None, None)
    return error


async def test_credentials_are_fetched_over_https(client: Any, endpoint: Any) -> None:
    resolution = await client.resolve(endpoint.link)

    credentials = resolution.credentials
    assert credentials.endpoints == (RelayEndpoint("turn.example.org", 3478, RelayTransport.UDP),)
    assert credentials.username.reveal() == "1700003600:planted-user"
    assert credentials.password.reveal() == "planted-turn-password"
    assert credentials.expires_at == NOW + 3600
    assert resolution.renewal is Renewal.RESOLVE
    (seen,) = endpoint.seen
    assert (seen.method, seen.body) == ("GET", b"")
    assert seen.target == "/planted-path/turn?key=planted-query"
    assert seen.headers == {
        "host": f"localhost:{endpoint.port}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "user-agent": "turnlane-http",
    }


async def test_an_endpoint_on_this_machine_may_do_without_tls(
    client: Any, plain_endpoint: Any
) -> None:
    resolution = await client.resolve(plain_endpoint.link)

    assert resolution.credentials.password.reveal() == "planted-turn-password"


@pytest.mark.parametrize("status", [200, 201])
async def test_a_post_carries_json_and_what_authenticates(
    client: Any, endpoint: Any, status: int
) -> None:
    endpoint.status = status

    await client.resolve(endpoint.link, method="POST", api_key_header="X-Api-Key", **SECRETS)

    (seen,) = endpoint.seen
    assert seen.method == "POST"
    assert seen.body == SECRETS["request_body"].encode()
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["authorization"] == "Bearer planted-bearer"
    assert seen.headers["x-api-key"] == "planted-api-key"


async def test_basic_authentication_and_a_post_without_a_body(client: Any, endpoint: Any) -> None:
    await client.resolve(endpoint.link, method="POST", user="zoë", password="a:b")

    (seen,) = endpoint.seen
    assert seen.headers["authorization"] == "Basic " + b64encode("zoë:a:b".encode()).decode()
    assert seen.headers["content-length"] == "0"
    assert "content-type" not in seen.headers


ICE = {
    "urls": ["stun:s", "turn:t?transport=tcp", "turns:t:443"],
    "username": "planted-user",
    "credential": "planted-turn-password",
}


@pytest.mark.parametrize(
    "document",
    [{"iceServers": ICE}, {"iceServers": [{"urls": "stun:s"}, ICE]}, {"ice_servers": [ICE]}, [ICE]],
)
async def test_lists_of_ice_servers_are_taken_too(
    client: Any, endpoint: Any, document: object
) -> None:
    endpoint.answer(document)

    resolution = await client.resolve(endpoint.link)

    assert resolution.credentials.endpoints == (
        RelayEndpoint("t", 3478, RelayTransport.TCP),
        RelayEndpoint("t", 443, RelayTransport.TLS),
    )
    assert resolution.credentials.username.reveal() == "planted-user"
    assert resolution.credentials.expires_at is None
    assert resolution.renewal is Renewal.RESOLVE
    assert resolution.artifact.resolution_method == "ice_servers"


@pytest.mark.parametrize(
    ("said", "settings", "expires_at"),
    [
        ({"username": "1700000600:u", "ttl": 60}, {}, NOW + 60),
        ({"username": "1500000000:u", "ttl": 60}, {}, NOW + 60),
        ({"username": "1700000600:u"}, {}, 1_700_000_600),
        ({"username": "1700000600"}, {}, 1_700_000_600),
        (
            {"username": "1700000600:u"},
            {"method": "POST", "request_body": '{"ttl": 9}'},
            1_700_000_600,
        ),
        ({"username": "u"}, {"method": "POST", "request_body": '{"ttl": 9}'}, NOW + 9),
        (
            {"username": "u", "ttl": "60"},
            {"method": "POST", "request_body": '{"ttl": 9}'},
            NOW + 60,
        ),
        ({"username": "u"}, {"method": "POST", "request_body": "{}"}, None),
        ({"username": "u"}, {}, None),
    ],
)
async def test_expiry_is_what_the_answer_says_else_what_was_asked_for(
    client: Any,
    endpoint: Any,
    said: dict[str, Any],
    settings: dict[str, Any],
    expires_at: float | None,
) -> None:
    endpoint.answer({**said, "password": "p", "uris": ["turn:h"]})

    resolution = await client.resolve(endpoint.link, **settings)

    assert resolution.credentials.expires_at == expires_at


async def test_credentials_that_have_expired_are_refused(client: Any, endpoint: Any) -> None:
    endpoint.answer({"username": "1699999999:u", "password": "p", "uris": ["turn:h"]})

    error = await failing(client, endpoint.link)

    assert (error.code, error.provider_stage) == ("expired_credentials", "parse_answer")


async def test_each_resolution_asks_anew(client: Any, endpoint: Any) -> None:
    first = await client.resolve(endpoint.link)
    client.now += 600
    second = await client.resolve(endpoint.link)

    assert second.credentials.expires_at == first.credentials.expires_at + 600
    assert len(endpoint.seen) == 2


async def test_the_artifact_has_two_stages_and_nothing_that_was_not_understood(
    client: Any, endpoint: Any
) -> None:
    endpoint.answer(
        {
            "username": "planted-user",
            "password": "planted-turn-password",
            "ttl": 60,
            "uris": ["turn:a", "stun:b"],
            "planted-unknown-field": {"planted-unknown-field": "planted-unknown-field"},
        }
    )
    endpoint.headers = {"Set-Cookie": "planted-header=planted-header"}

    resolution = await client.resolve(
        endpoint.link, method="POST", api_key_header="X-Api-Key", **SECRETS
    )

    encoded = msgspec.json.encode(resolution.artifact)
    sent = ["link", "bearer_token", "api_key", "request_body"]
    assert json.loads(encoded) == {
        "provider": "http",
        "resolution_method": "turn_rest_api",
        "input": {"link_redacted": f"https://localhost:{endpoint.port}/<redacted:path>"},
        "stages": [
            {
                "name": "http_request",
                "endpoint_id": "http_request",
                "request": {"method": "POST", "form_keys": sent, "redacted_fields": sent},
                "response": {"status_code": 200},
                "outcome": {"kind": "continue"},
            },
            {
                "name": "parse_answer",
                "endpoint_id": "parse_answer",
                "request": {"method": "PARSE", "form_keys": ["body"], "redacted_fields": ["body"]},
                "response": {
                    "body": {
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                        "ttl": 60.0,
                        "uris": ["turn:a:3478?transport=udp"],
                        "ignored": 1,
                    }
                },
                "outcome": {
                    "kind": "resolution",
                    "extracted": {
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                        "normalized_address": "a:3478",
                    },
                },
            },
        ],
        "outcome": {
            "result_kind": "resolution",
            "resolution": {
                "username_redacted": "<redacted:turn-username>",
                "password_redacted": "<redacted:turn-password>",
                "address": "a:3478",
            },
        },
    }
    assert find_leaks(encoded + repr(resolution).encode(), PLANTED) == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "http_status"),
        (401, "http_unauthorized"),
        (403, "http_unauthorized"),
        (404, "http_not_found"),
        (405, "http_method_refused"),
        (410, "http_not_found"),
        (418, "http_status"),
        (429, "rate_limited"),
        (500, "http_server_error"),
        (503, "http_server_error"),
        (599, "http_server_error"),
        (302, "redirect_refused"),
    ],
)
async def test_a_status_that_is_no_success_is_told_by_name(
    client: Any, endpoint: Any, status: int, code: str
) -> None:
    endpoint.status = status
    endpoint.body = json.dumps({"error": PLANTED}).encode()

    error = await failing(
        client, endpoint.link, method="POST", api_key_header="X-Api-Key", **SECRETS
    )

    assert (error.code, error.provider_stage) == (code, "http_request")
    assert str(status) in error.message
    assert error.artifact is not None
    assert error.artifact.stages[-1].response.status_code == status


@pytest.mark.parametrize(
    ("status", "told", "seconds"),
    [
        (429, "120", "120"),
        (429, "Tue, 14 Nov 2023 22:14:20 GMT", "59"),
        (429, "Tue, 14 Nov 2023 22:00:00 GMT", "0"),
        (429, "9" * 40, str(30 * 86400)),
        (503, "7", "7"),
    ],
)
async def test_how_long_an_endpoint_wants_to_be_left_alone_is_told(
    client: Any, endpoint: Any, status: int, told: str, seconds: str
) -> None:
    endpoint.status, endpoint.headers = status, {"Retry-After": told}

    error = await failing(client, endpoint.link)

    assert f"try again in {seconds} s" in error.advice
    assert error.artifact is not None
    assert error.artifact.stages[-1].outcome.extracted == {"retry_after": seconds}


@pytest.mark.parametrize("told", ["planted-header", "-1", "1.5", "٣", "Tue, 99 Nov", "x" * 99])
async def test_a_retry_after_that_cannot_be_read_is_left_out(
    client: Any, endpoint: Any, told: str
) -> None:
    endpoint.status = 429
    endpoint.headers = {"Retry-After": told.encode().decode("latin-1")}

    error = await failing(client, endpoint.link)

    assert "try again later" in error.advice


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["same host", "other port", "no TLS"])
async def test_no_redirect_is_followed(
    client: Any, endpoint: Any, plain_endpoint: Any, status: int, where: str
) -> None:
    target = {
        "same host": "/planted-header",
        "other port": "https://localhost:1/planted-header",
        "no TLS": plain_endpoint.link,
    }[where]
    endpoint.status, endpoint.headers = status, {"Location": target}

    error = await failing(client, endpoint.link, bearer_token="planted-bearer")

    assert error.code == "redirect_refused"
    assert "final URL" in error.advice
    assert len(endpoint.seen) == 1
    assert plain_endpoint.seen == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<html>planted-unknown-field</html>", "decode_response"),
        (b"planted-unknown-field", "decode_response"),
        (b"", "decode_response"),
        (b'{"error": "planted-unknown-field"}', "invalid_answer"),
        (b'{"uris": ["turn:h"]}', "missing_credentials"),
        (b'{"uris": ["stun:h"], "username": "planted-user", "password": "p"}', "no_relay"),
        (b'{"uris": ["turn:planted-unknown-field:x"]}', "invalid_turn_uri"),
    ],
)
async def test_an_answer_of_no_use_is_told_by_name(
    client: Any, endpoint: Any, body: bytes, code: str
) -> None:
    endpoint.body = body

    error = await failing(client, endpoint.link)

    assert (error.code, error.provider_stage) == (code, "parse_answer")
    assert error.artifact is not None
    assert [stage.name for stage in error.artifact.stages] == ["http_request", "parse_answer"]


async def test_an_answer_without_content_is_told_as_that(client: Any, endpoint: Any) -> None:
    endpoint.status, endpoint.body = 204, b""

    assert (await failing(client, endpoint.link)).code == "decode_response"


async def test_the_largest_answer_is_taken_and_one_byte_more_is_not(
    client: Any, endpoint: Any
) -> None:
    endpoint.body = endpoint.body.ljust(MAX_BODY)
    assert (await client.resolve(endpoint.link)).credentials

    endpoint.body += b" "
    assert (await failing(client, endpoint.link)).code == "answer_too_large"


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

    assert (await failing(client, endpoint.link)).code == "answer_too_large"
    assert endpoint.gone.wait(PATIENCE)


async def test_a_compressed_answer_is_not_unfolded(client: Any, endpoint: Any) -> None:
    endpoint.headers = {"Content-Encoding": "gzip"}
    endpoint.body = gzip.compress(bytes(50_000_000))

    error = await failing(client, endpoint.link)

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

    error = await failing(client, endpoint.link, timeout=1)

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
                endpoint.link, method="POST", api_key_header="X-Api-Key", **SECRETS
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

    assert (await failing(client, endpoint.link)).code == "connection_lost"


async def test_a_port_on_which_nobody_listens_is_told_as_that(
    client: Any, closed_port: int
) -> None:
    error = await failing(client, f"https://127.0.0.1:{closed_port}/planted-path")

    assert error.code == "connect_failed"
    assert f"127.0.0.1:{closed_port}" in error.message


@pytest.mark.parametrize("host", ["nowhere.invalid", "xn--a", "xn--ls8h.invalid"])
async def test_a_host_that_does_not_exist_is_told_as_that(
    client: Any, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def unknown(*asked: object, **also: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    assert (await failing(client, f"https://{host}/planted-path")).code == "connect_failed"


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

    error = await failing(client, endpoint.link, bearer_token="planted-bearer")

    assert error.code == "tls_verification_failed"
    assert cause in error.message
    assert endpoint.seen == []


async def test_a_certificate_for_another_address_is_told_as_that(
    client: Any, badly_certified: Callable[[str], Any]
) -> None:
    endpoint = badly_certified("stranger")

    error = await failing(client, f"https://127.0.0.1:{endpoint.port}/")

    assert error.code == "tls_verification_failed"
    assert "for another address" in error.message


async def test_an_authority_that_is_not_named_is_not_trusted(client: Any, endpoint: Any) -> None:
    error = await failing(client, endpoint.link, ca_file=None)

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

    error = await failing(client, endpoint.link, ca_file=name)

    assert error.code == "ca_file_unusable"
    assert endpoint.seen == []


async def test_an_endpoint_without_tls_is_told_as_that(client: Any, plain_endpoint: Any) -> None:
    error = await failing(client, plain_endpoint.link.replace("http:", "https:"))

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

    error = await failing(
        client, "https://turn.invalid/planted-path", trust_env=True, bearer_token="planted-bearer"
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

    error = await failing(client, "https://turn.invalid/planted-path", trust_env=True)

    assert error.code == "proxy_failed"


async def test_a_request_to_this_machine_goes_to_no_proxy(
    client: Any, plain_endpoint: Any, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{closed_port}")

    assert (await client.resolve(plain_endpoint.link, trust_env=True)).credentials


async def test_a_malformed_link_fails_with_an_artifact_that_shows_none_of_it(client: Any) -> None:
    error = await failing(client, "http://planted-path.example/planted-query")

    assert isinstance(error, LinkError)
    assert error.code == "plain_http"
    assert error.artifact is not None
    assert error.artifact.input == {"link_redacted": "<redacted:link>"}
    assert [stage.name for stage in error.artifact.stages] == ["parse_link"]


async def test_settings_that_do_not_go_together_are_told_before_anything_is_sent(
    client: Any, endpoint: Any
) -> None:
    with pytest.raises(SettingsError) as caught:
        await client.resolve(
            endpoint.link, bearer_token="planted bearer", user="planted-basic-user"
        )

    assert [(each.field, each.code) for each in caught.value.violations] == [
        ("bearer_token", "pattern"),
        ("password", "required"),
        ("user", "unknown"),
    ]
    assert find_leaks(f"{caught.value} {caught.value!r}", ["planted bearer", *PLANTED]) == []
    assert endpoint.seen == []


class Keeper(logging.Handler):
    """Keeps all that is logged, and what it was made of."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(f"{record.name} {record.getMessage()} {record.args!r}")


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Any:
    keeper = Keeper()
    loggers = [logging.getLogger(name) for name in ("", "turnlane", "httpx", "httpcore", *LOGGERS)]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logging.DEBUG)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    logging.getLogger().addHandler(keeper)
    yield keeper
    logging.getLogger().removeHandler(keeper)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [200, 302, 401, 429])
async def test_nothing_of_a_request_is_logged_by_the_http_libraries(
    client: Any, endpoint: Any, keeper: Keeper, status: int
) -> None:
    endpoint.status = status
    endpoint.headers = {"Set-Cookie": "planted-header", "Location": "https://x/planted-header"}
    settings: dict[str, Any] = {"method": "POST", "api_key_header": "X-Api-Key", **SECRETS}

    if status == 200:
        await client.resolve(endpoint.link, **settings)
    else:
        await failing(client, endpoint.link, **settings)
        await failing(
            client, endpoint.link, user="planted-basic-user", password="planted-basic-password"
        )

    told = "\n".join(keeper.told)
    assert find_leaks(told, PLANTED) == []
    assert "httpx" not in told
    assert "httpcore" not in told


async def test_other_users_of_httpx_keep_their_logs(
    client: Any, plain_endpoint: Any, keeper: Keeper
) -> None:
    import httpx

    await client.resolve(plain_endpoint.link)
    async with httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False) as other:
        await other.get(f"http://localhost:{plain_endpoint.port}/theirs")

    assert any("httpx HTTP Request: GET" in line and "/theirs" in line for line in keeper.told)
    assert any("httpcore.http11" in line for line in keeper.told)
    assert find_leaks("\n".join(keeper.told), ["planted-path", "planted-query"]) == []


def test_the_plugin_offers_the_provider_with_links_that_can_be_read() -> None:
    from turnlane.api import Secret

    (descriptor,) = plugin.turnlane_providers()

    assert descriptor.id == "http"
    assert descriptor.capabilities.renewable
    assert [parse_link(Secret(link)).scheme for link in descriptor.example_links] == ["https"] * 3
