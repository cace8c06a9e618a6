"""Who is not let in: each refusal has its own code at the client and in the server's events."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest
from OpenSSL import SSL

from turnlane.api import Secret, Stage, TurnlaneError
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.identity import Identity
from turnlane.proto.frames import Drain, SessionProtocolError, parse_untrusted
from turnlane.proto.hello import (
    EXPORTER_LABEL,
    EXPORTER_SIZE,
    Reject,
    Welcome,
    WelcomeTerms,
    build_welcome,
    token_key,
)
from turnlane.proto.lane_client import LaneClient
from turnlane.proto.refusals import RejectCode
from turnlane.runtime.events import Event, PeerAccepted, PeerRefused
from turnlane.runtime.peer_link import PeerLink, new_token
from turnlane.runtime.profiles import PeerMode
from turnlane.telemetry.redaction import find_leaks
from turnlane_lab.stand import Stand
from turnlane_tests.local_peers import EventLog, local_peers
from turnlane_tests.stranger import stranger
from turnlane_tests.timeouts import shorten

pytestmark = pytest.mark.anyio

LIMIT = 10.0
"""Seconds that anything may take here."""

NO_EXTENDED_MASTER_SECRET = 0x1
"""OpenSSL's SSL_OP_NO_EXTENDED_MASTER_SECRET, which pyOpenSSL does not name."""

CIPHERS = b"ECDHE-ECDSA-AES128-GCM-SHA256"

VERSION_OFFSET = 8
"""Where the version stands in a hello, after `turnlane`."""


def link_of(stand: Stand) -> PeerLink:
    return PeerLink.parse(stand.peer)


def key_of(stand: Stand) -> Secret[bytes]:
    token = link_of(stand).token
    assert token is not None
    return token_key(token)


def secrets_of(stand: Stand) -> list[Secret[str]]:
    token = link_of(stand).token
    known = [stand.peer, stand.link, *stand.relay.config.users.values()]
    return known if token is None else [*known, token]


async def refused_client(stand: Stand, **overrides: Any) -> TurnlaneError:
    """Start a client that is expected to fail and return its error."""
    with anyio.fail_after(LIMIT), pytest.raises(TurnlaneError) as caught:
        await stand.connect(**overrides)
    return caught.value


async def server_refusal(stand: Stand, log: EventLog) -> PeerRefused:
    """Return the one refusal that the server tells; no secret is in any event."""
    event = await log.wait_for(lambda event: isinstance(event, PeerRefused), timeout=LIMIT)
    refusals = log.of(PeerRefused)
    assert refusals == [event]
    assert isinstance(event, PeerRefused)
    for told in (repr(log.events), event.message):
        assert find_leaks(told, secrets_of(stand)) == []
    return event


def assert_no_leak(stand: Stand, error: TurnlaneError) -> None:
    assert find_leaks(f"{error} {error!r}", secrets_of(stand)) == []
    assert error.message
    assert error.advice


async def assert_serves(stand: Stand) -> None:
    """Show that the server still takes a client that has all it needs."""
    client = await stand.connect()
    async with local_peers(client.listen, "ann") as [peer]:
        await peer.echoed(peer.send())
    await client.stop()


# What a client of ours is told, through a relay and DTLS, and what the server tells of it.


async def test_a_server_of_another_pin_is_refused_and_sees_the_alert(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand:
        wrong = replace(link_of(stand), pin=Identity.generate(0.0).pin)
        error = await refused_client(stand, peer=wrong)
        assert (error.stage, error.code) == (Stage.DTLS_HANDSHAKE, "pin_mismatch")
        assert str(stand.server.pin) in error.message
        assert_no_leak(stand, error)
        event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.DTLS_HANDSHAKE, "peer_alert")
        assert "unknown_ca" in event.message
        assert stand.server.sessions == 0
        await assert_serves(stand)


@pytest.mark.parametrize(
    ("given", "code"),
    [(new_token(), RejectCode.TOKEN_MISMATCH), (None, RejectCode.TOKEN_REQUIRED)],
    ids=["wrong", "none"],
)
async def test_a_client_without_the_token_is_refused(
    given: Secret[str] | None, code: RejectCode, event_log: EventLog
) -> None:
    async with Stand(on_event=event_log) as stand:
        error = await refused_client(stand, peer=replace(link_of(stand), token=given))
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, code.name.lower())
        assert_no_leak(stand, error)
        event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.SESSION_HELLO, code.name.lower())
        if given is not None:
            assert find_leaks(f"{error!r} {event_log.events!r}", [given]) == []
        assert stand.server.sessions == 0
        await assert_serves(stand)


async def test_an_open_server_refuses_a_client_that_has_a_token(event_log: EventLog) -> None:
    server = {"token": None, "open_access": True}
    async with Stand(on_event=event_log, server=server) as stand:
        token = new_token()
        error = await refused_client(stand, peer=replace(link_of(stand), token=token))
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "token_unexpected")
        assert find_leaks(f"{error!r} {event_log.events!r}", [token]) == []
        event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.SESSION_HELLO, "token_unexpected")
        await assert_serves(stand)


async def test_a_server_that_is_full_refuses_one_session_more(event_log: EventLog) -> None:
    async with Stand(on_event=event_log, server={"max_sessions": 1}) as stand:
        first = await stand.connect()
        error = await refused_client(stand)
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "session_limit")
        assert_no_leak(stand, error)
        event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.SESSION_HELLO, "session_limit")
        async with local_peers(first.listen, "ann") as [peer]:
            await peer.echoed(peer.send())
        await first.stop()
        await assert_serves(stand)


async def test_a_legacy_client_is_refused_on_the_main_port(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand:
        peer_link = replace(link_of(stand), token=None)
        client = await stand.connect(peer=peer_link, mode=PeerMode.LEGACY)
        async with local_peers(client.listen, "ann") as [peer]:
            peer.send()
            event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.SESSION_HELLO, "malformed")
        assert stand.echo.counters["received"] == 0
        assert stand.server.sessions == 0


async def test_a_session_client_is_not_served_on_the_legacy_port(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, LaneClient.__init__, timeout=0.5)
    server = {"legacy_listen": "127.0.0.1:0"}
    async with Stand(on_event=event_log, server=server) as stand:
        assert stand.server.legacy_listen is not None
        peer = replace(link_of(stand), port=stand.server.legacy_listen[1])
        error = await refused_client(stand, peer=peer)
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "hello_timeout")
        assert "--legacy" in error.advice
        assert_no_leak(stand, error)
        assert stand.server.sessions == 0


async def test_a_server_that_cannot_prove_the_token_is_refused(event_log: EventLog) -> None:
    """An unpinned client meets somebody in the middle, who welcomes it without the token."""
    async with Stand(on_event=event_log) as stand, impostor(b"\x01" * 32) as address:
        peer = replace(link_of(stand), host=address[0], port=address[1], pin=None)
        error = await refused_client(stand, peer=peer, insecure_peer=True)
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "server_proof_mismatch")
        assert_no_leak(stand, error)


@asynccontextmanager
async def impostor(guess: bytes) -> AsyncIterator[tuple[str, int]]:
    """Serve one DTLS client and welcome its hello with a proof made from `guess`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.bind(("127.0.0.1", 0))
        association = DtlsAssociation.server(Identity.generate(0.0))

        def answer(hello: bytes) -> bytes:
            return build_welcome(
                WelcomeTerms(max_datagram=1200, idle_timeout=60.0),
                hello=hello,
                exporter=association.export(EXPORTER_LABEL, EXPORTER_SIZE),
                token=Secret(guess),
                session_secret=Secret(b"\x02" * 32),
            )

        async def serve() -> None:
            association.start(anyio.current_time())
            while True:
                await anyio.wait_readable(opened)
                data, address = opened.recvfrom(65_535)
                for record in association.receive_datagram(data, anyio.current_time()):
                    opened.sendto(association.encrypt(answer(record)), address)
                for datagram in association.datagrams_to_send():
                    opened.sendto(datagram, address)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            yield opened.getsockname()
            tasks.cancel_scope.cancel()


# What a stranger is told who speaks the protocol, but not as our client would.


async def test_a_lane_for_the_session_of_another_is_refused(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand:
        client = await stand.connect()
        [accepted] = event_log.of(PeerAccepted)
        assert isinstance(accepted, PeerAccepted)
        session_id = bytes.fromhex(accepted.client_session)
        for secret, code in (
            (None, RejectCode.SESSION_EXISTS),
            (Secret(b"guessed!" * 4), RejectCode.SESSION_PROOF_MISMATCH),
        ):
            async with stranger(stand) as made:
                answer = await made.ask(made.hello(session_id, token=key_of(stand), secret=secret))
                assert isinstance(answer, Reject)
                assert answer.code == code
                await event_log.wait_for(refused_with(code))
        assert stand.server.sessions == 1
        assert len(event_log.of(PeerAccepted)) == 1
        async with local_peers(client.listen, "ann") as [peer]:
            await peer.echoed(peer.send())
        assert find_leaks(repr(event_log.events), secrets_of(stand)) == []


async def test_a_session_that_the_server_does_not_know_is_refused(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand, stranger(stand) as made:
        answer = await made.ask(made.hello(token=key_of(stand), secret=Secret(b"expired!" * 4)))
        assert isinstance(answer, Reject)
        assert answer.code == RejectCode.UNKNOWN_SESSION
        assert (await server_refusal(stand, event_log)).code == "unknown_session"
        assert stand.server.sessions == 0


async def test_a_hello_replayed_on_another_association_is_refused(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand:
        async with stranger(stand) as victim, stranger(stand) as thief:
            hello = victim.hello(token=key_of(stand))
            assert isinstance(await victim.ask(hello), Welcome)
            answer = await thief.ask(hello)
        assert isinstance(answer, Reject)
        assert answer.code == RejectCode.ASSOCIATION_MISMATCH
        event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.SESSION_HELLO, "association_mismatch")


async def test_the_same_hello_on_its_own_association_gets_the_same_answer_again(
    event_log: EventLog,
) -> None:
    async with Stand(on_event=event_log) as stand, stranger(stand) as made:
        hello = made.hello(token=key_of(stand))
        first, second = await made.ask(hello), await made.ask(hello)
        assert isinstance(first, Welcome)
        assert first == second
        assert len(event_log.of(PeerAccepted)) == stand.server.sessions == 1


@pytest.mark.parametrize("version", [0, 2, 255])
async def test_an_unknown_version_is_refused_and_never_taken_for_legacy(
    version: int, event_log: EventLog
) -> None:
    async with Stand(on_event=event_log) as stand, stranger(stand) as made:
        hello = bytearray(made.hello(token=key_of(stand)))
        hello[VERSION_OFFSET] = version
        answer = await made.ask(bytes(hello))
        assert isinstance(answer, Reject)
        assert (answer.code, answer.version) == (RejectCode.UNSUPPORTED_VERSION, 1)
        event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.SESSION_HELLO, "unsupported_version")
        made.say(b"a raw datagram")
        assert await made.ask(bytes(hello)) == answer
        assert stand.echo.counters["received"] == 0


@pytest.mark.parametrize("record", [b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"turnlane", bytes(1100)])
async def test_a_first_record_that_is_no_hello_is_refused(
    record: bytes, event_log: EventLog
) -> None:
    async with Stand(on_event=event_log) as stand, stranger(stand) as made:
        answer = await made.ask(record)
        assert isinstance(answer, Reject)
        assert answer.code == RejectCode.MALFORMED
        assert (await server_refusal(stand, event_log)).code == "malformed"
        assert stand.echo.counters["received"] == 0


async def test_payload_before_the_hello_reaches_nobody(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand, stranger(stand) as made:
        answer = await made.ask(b"\x00\x00\x00\x01payload")
        assert isinstance(answer, Reject)
        late = await made.ask(b"\x00\x00\x00\x01payload")
        assert late == answer
        assert stand.echo.counters["received"] == 0


async def test_a_server_that_drains_refuses_new_lanes(event_log: EventLog) -> None:
    async with (
        Stand(on_event=event_log) as stand,
        stranger(stand) as staying,
        stranger(stand) as late,
        anyio.create_task_group() as tasks,
    ):
        assert isinstance(await staying.ask(staying.hello(token=key_of(stand))), Welcome)
        tasks.start_soon(stand.server.stop)
        await staying.hear(is_drain)
        answer = await late.ask(late.hello(b"late" * 4, token=key_of(stand)))
        assert isinstance(answer, Reject)
        assert answer.code == RejectCode.DRAINING
        event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.SESSION_HELLO, "draining")
        staying.close()


def refused_with(code: RejectCode) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, PeerRefused) and event.code == code.name.lower()


def is_drain(record: bytes) -> bool:
    try:
        return isinstance(parse_untrusted(record), Drain)
    except SessionProtocolError:
        return False


# Without the extended master secret there is nothing that a proof could be bound to.


async def test_a_client_without_extended_master_secret_is_refused(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand:
        with anyio.fail_after(LIMIT), pytest.raises(SSL.Error) as caught:
            await shake_hands_without_extended_master_secret(stand.server.listen)
        assert "insufficient security" in str(caught.value)
        event = await server_refusal(stand, event_log)
        assert (event.stage, event.code) == (Stage.DTLS_HANDSHAKE, "no_extended_master_secret")
        assert stand.server.sessions == 0
        await assert_serves(stand)


async def test_a_server_without_extended_master_secret_is_refused(event_log: EventLog) -> None:
    identity = Identity.generate(0.0)
    async with Stand(on_event=event_log) as stand, plain_server(identity) as address:
        peer = replace(link_of(stand), host=address[0], port=address[1], pin=identity.pin)
        error = await refused_client(stand, peer=peer)
        assert (error.stage, error.code) == (Stage.DTLS_HANDSHAKE, "no_extended_master_secret")
        assert_no_leak(stand, error)


def plain_connection(method: int, identity: Identity | None = None) -> SSL.Connection:
    """Make an end of DTLS 1.2 that does not know RFC 7627."""
    context = SSL.Context(method)
    context.set_options(SSL.OP_NO_QUERY_MTU | NO_EXTENDED_MASTER_SECRET)
    context.set_cipher_list(CIPHERS)
    if identity is not None:
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
    connection = SSL.Connection(context, None)
    connection.set_ciphertext_mtu(1200)
    return connection


def flight_of(connection: SSL.Connection) -> list[bytes]:
    """Return what the connection wants to send, one record a datagram."""
    data = b""
    try:
        while True:
            data += connection.bio_read(65_536)
    except SSL.WantReadError:
        pass
    datagrams = []
    while data:
        size = 13 + int.from_bytes(data[11:13], "big")
        datagrams.append(data[:size])
        data = data[size:]
    return datagrams


async def shake_hands_without_extended_master_secret(server: tuple[str, int]) -> None:
    connection = plain_connection(SSL.DTLS_CLIENT_METHOD)
    connection.set_connect_state()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.connect(server)
        while True:
            try:
                connection.do_handshake()
                connection.recv(65_535)
            except SSL.WantReadError:
                pass
            for datagram in flight_of(connection):
                opened.send(datagram)
            await anyio.wait_readable(opened)
            connection.bio_write(opened.recv(65_535))


@asynccontextmanager
async def plain_server(identity: Identity) -> AsyncIterator[tuple[str, int]]:
    """Serve one DTLS client without the extended master secret."""
    connection = plain_connection(SSL.DTLS_SERVER_METHOD, identity)
    connection.set_accept_state()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.bind(("127.0.0.1", 0))

        async def serve() -> None:
            while True:
                await anyio.wait_readable(opened)
                data, address = opened.recvfrom(65_535)
                connection.bio_write(data)
                with suppress(SSL.WantReadError):
                    connection.do_handshake()
                for datagram in flight_of(connection):
                    opened.sendto(datagram, address)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            yield opened.getsockname()
            tasks.cancel_scope.cancel()
