"""The staged flow against a stand-in: every code at its stage, and nothing done twice."""

import gzip
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anyio
import httpcore
import pytest
from httpcore._backends.auto import AutoBackend

from turnlane.api import Renewal
from turnlane_tests.certificates import Authority
from turnlane_tests.vk_stand_in import ANONYM_TOKEN, JOIN, LOGIN, OK_LOGIN, Reply

pytestmark = pytest.mark.anyio

STAGED = [LOGIN, ANONYM_TOKEN, OK_LOGIN, JOIN]
HUGE = b'{"data": "' + b"x" * 300_000 + b'"}'


async def test_the_stages_lead_to_all_relays_with_their_expiry(client: Any) -> None:
    client.vk.turn_urls = ["turn:a.example:3478?transport=udp", "turns:b.example:443"]
    resolution = await client.resolve()
    credentials = resolution.credentials
    assert [each.address for each in credentials.endpoints] == ["a.example:3478", "b.example:443"]
    assert credentials.endpoints[1].server_name == "b.example"
    assert credentials.username.reveal() == client.vk.username
    assert credentials.password.reveal() == client.vk.planted.password
    assert credentials.expires_at == 4_102_444_700.0
    assert resolution.renewal is Renewal.RESOLVE
    assert resolution.artifact.resolution_method == "staged_http"
    assert client.vk.stages == STAGED


async def test_resolving_again_asks_again_as_another_device(client: Any) -> None:
    first, second = await client.resolve(), await client.resolve()
    assert first.artifact == second.artifact
    assert client.vk.stages == STAGED * 2
    logins = [each.form["session_data"] for each in client.vk.seen if each.stage == OK_LOGIN]
    assert logins[0] != logins[1]


async def test_the_bare_token_is_the_same_invite(client: Any) -> None:
    await client.resolve(client.vk.planted.join_token)
    await client.resolve(f"www.vk.com/call/join/{client.vk.planted.join_token}/x?y#z")
    assert client.vk.stages == STAGED * 2


async def test_a_bad_link_is_refused_before_anything_is_asked(client: Any) -> None:
    error = await client.failing(f"https://example.com/call/join/{client.vk.planted.join_token}")
    assert (error.code, error.provider_stage, error.exit_code) == (
        "wrong_host",
        "provider_resolve",
        2,
    )
    assert client.vk.seen == []


@pytest.mark.parametrize("stage", STAGED)
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(status=503, body=b"<html>"), "unexpected_status"),
        (Reply(status=404), "unexpected_status"),
        (Reply(status=302, headers={"Location": "https://example.com/"}), "unexpected_status"),
        (Reply(status=204, body=b""), "unexpected_status"),
        (Reply(body=b"<!doctype html><html>sign in"), "decode_response"),
        (Reply(body=b""), "decode_response"),
        (Reply(body=b'{"data":'), "decode_response"),
        (Reply(body=b"[" * 20_000), "decode_response"),
        (Reply([1]), "decode_response"),
        (Reply("text"), "decode_response"),
        (Reply(body=HUGE), "decode_response"),
        (Reply(status=429, body=HUGE), "rate_limited"),
        (Reply(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}), "decode_response"),
        (Reply(status=429), "rate_limited"),
        (Reply({"error": {"error_code": 29}}), "rate_limited"),
        (Reply({"error_code": 29}), "rate_limited"),
    ],
    ids=lambda value: getattr(value, "status", value) if isinstance(value, Reply) else str(value),
)
async def test_what_is_no_answer_fails_the_stage_that_got_it(
    client: Any, stage: str, reply: Reply, code: str
) -> None:
    client.vk.answer(stage, reply)
    error = await client.failing()
    assert (error.code, error.provider_stage) == (code, stage)
    assert client.vk.stages == STAGED[: STAGED.index(stage) + 1]
    last = error.artifact.stages[-1]
    assert (last.name, last.outcome.error_code) == (stage, code)
    assert last.response.status_code == reply.status


@pytest.mark.parametrize(
    ("stage", "document", "code"),
    [
        (LOGIN, {}, "missing_access_token"),
        (LOGIN, {"data": {"access_token": ""}}, "missing_access_token"),
        (LOGIN, {"data": {"access_token": 5}}, "missing_access_token"),
        (LOGIN, {"error": {"error_code": 14}}, "missing_access_token"),
        (ANONYM_TOKEN, {"response": []}, "missing_anonymous_token"),
        (ANONYM_TOKEN, {"error": {"error_code": 100}}, "missing_anonymous_token"),
        (OK_LOGIN, {"session_key": None}, "missing_session_key"),
        (OK_LOGIN, {"session_key": "a\r\nb"}, "missing_session_key"),
        (JOIN, {}, "missing_turn_username"),
        (JOIN, {"turn_server": {"username": "u"}}, "missing_turn_credential"),
        (JOIN, {"turn_server": {"username": "u", "credential": "p"}}, "missing_turn_url"),
        (
            JOIN,
            {"turn_server": {"username": "u", "credential": "p", "urls": ["turn:host"]}},
            "invalid_turn_url",
        ),
    ],
)
async def test_what_an_answer_lacks_is_named(
    client: Any, stage: str, document: object, code: str
) -> None:
    client.vk.answer(stage, Reply(document))
    error = await client.failing()
    assert (error.code, error.provider_stage) == (code, stage)


@pytest.mark.parametrize(
    ("reply", "wait"),
    [
        (Reply(status=429, headers={"Retry-After": "17"}), 17),
        (Reply(status=429, headers={"Retry-After": "x"}), None),
        (Reply(status=429, headers={"Retry-After": "9" * 30}), 30 * 86400),
        (Reply({"error": {"error_code": 29, "retry_after": 4.6}}), 5),
        (Reply({"error": {"error_code": 29}, "retry_after": 8}), 8),
        (Reply({"error": {"error_code": 29}}, headers={"Retry-After": "3"}), 3),
        (Reply({"error": {"error_code": 29, "retry_after": -1}}), None),
    ],
)
async def test_being_asked_too_often_is_told_with_the_wait(
    client: Any, reply: Reply, wait: int | None
) -> None:
    client.vk.answer(ANONYM_TOKEN, reply)
    error = await client.failing()
    assert (error.code, error.retry_after) == ("rate_limited", wait)
    assert (f"in {wait} s" in error.advice) == (wait is not None)
    told = error.artifact.stages[-1].outcome.extracted
    assert told == (None if wait is None else {"retry_after": str(wait)})


async def test_a_wait_may_be_told_as_a_date(client: Any) -> None:
    client.now = 1_700_000_000.0
    date = formatdate(client.now + 90, usegmt=True)
    client.vk.answer(LOGIN, Reply(status=429, headers={"Retry-After": date}))
    assert (await client.failing()).retry_after == 90


async def test_an_answer_that_trickles_ends_in_time(client: Any) -> None:
    client.settings["timeout"] = 1
    client.vk.answer(OK_LOGIN, Reply({"session_key": "x"}, drip=True))
    error = await client.failing()
    assert (error.code, error.provider_stage) == ("request_failed", OK_LOGIN)
    assert "within 1 s" in error.message
    assert await anyio.to_thread.run_sync(client.vk.gone.wait, 10)


async def test_a_captcha_without_leave_to_ask_is_told(client: Any) -> None:
    client.vk.answer(ANONYM_TOKEN, Reply(client.vk.captcha()))
    error = await client.failing()
    assert (error.code, error.provider_stage) == ("captcha_required", ANONYM_TOKEN)
    assert "--interactive-provider" in error.advice
    assert (client.asked, client.browser.watched) == ([], [])
    assert client.vk.stages == STAGED[:2]


async def test_a_connection_that_was_never_made_is_tried_twice(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    connect = AutoBackend.connect_tcp

    async def refuse_first(self: AutoBackend, *arguments: Any, **options: Any) -> Any:
        tried.append(arguments)
        if len(tried) % 2:
            raise httpcore.ConnectError
        return await connect(self, *arguments, **options)

    monkeypatch.setattr(AutoBackend, "connect_tcp", refuse_first)
    await client.resolve()
    assert client.vk.stages == STAGED
    assert len(tried) == 2 * len(STAGED)


async def test_no_proxy_of_the_environment_is_asked(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    await client.resolve()
    assert client.vk.stages == STAGED


async def test_nobody_there_is_told_with_the_host(client: Any) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        client.settings["login_url"] = f"http://127.0.0.1:{port}/?act=get_anonym_token"
        error = await client.failing()
    assert (error.code, error.provider_stage) == ("request_failed", LOGIN)
    assert error.message.startswith("127.0.0.1: there is no connection")
    assert error.artifact.stages[-1].response.status_code is None


@contextmanager
def hanging_up(tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a port, read a request of each connection, and close it."""
    from threading import Thread

    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with suppress(OSError), connection:
                    if tls is not None:
                        tls.wrap_socket(connection, server_side=True)
                    requests.append(connection.recv(65536))

        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], requests
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


async def test_a_request_that_was_sent_is_not_sent_again(client: Any) -> None:
    with hanging_up() as (port, requests):
        client.settings["login_url"] = f"http://127.0.0.1:{port}/?act=get_anonym_token"
        error = await client.failing()
    assert (error.code, error.provider_stage) == ("request_failed", LOGIN)
    assert len(requests) == 1


async def test_no_tls_where_it_is_wanted_is_told(client: Any) -> None:
    client.settings["ok_url"] = client.vk.base.replace("http://", "https://") + "/fb.do"
    error = await client.failing()
    assert (error.code, error.provider_stage) == ("request_failed", OK_LOGIN)
    assert "no TLS" in error.message


@pytest.mark.parametrize(
    "headers",
    [
        {"Location": "https://[::zz]:99999999/"},
        {"Location": "\xff\xfe"},
        {"Retry-After": "Mon, 99 Foo 99999 99:99:99 +9999"},
        {"Content-Type": "text/html; charset=nonsense"},
        {"Content-Encoding": "nonsense"},
        {"Set-Cookie": "=;;; Expires=nonsense; Domain=[::"},
    ],
)
async def test_odd_headers_fail_the_stage_and_nothing_else(
    client: Any, headers: dict[str, str]
) -> None:
    client.vk.answer(LOGIN, Reply(status=302, headers=headers))
    error = await client.failing()
    assert error.code in ("unexpected_status", "request_failed")
    assert error.provider_stage == LOGIN


async def test_a_certificate_that_is_not_trusted_is_told(client: Any, tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("127.0.0.1")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    with hanging_up(tls) as (port, requests):
        client.settings["login_url"] = f"https://127.0.0.1:{port}/"
        error = await client.failing()
    assert (error.code, error.provider_stage) == ("request_failed", LOGIN)
    assert "certificate is not trusted" in error.message
    assert requests == []


async def test_the_browser_to_appear_as_can_be_told(client: Any) -> None:
    client.settings["user_agent"] = "Mozilla/5.0 (another)"
    await client.resolve()
    assert {each.headers["user-agent"] for each in client.vk.seen} == {"Mozilla/5.0 (another)"}
