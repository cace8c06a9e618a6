"""The wires to a relay, on real sockets with a far end that does as it is told."""

import errno
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from turnlane.api import RelayEndpoint, RelayTransport, Stage, TransportError
from turnlane.net.identity import Identity
from turnlane.net.relay_wire import (
    MAX_BACKLOG,
    READ_LIMIT,
    BrokenWireError,
    StreamWire,
    TlsLayer,
    UdpWire,
    dial,
)
from turnlane.net.system import open_socket

pytestmark = pytest.mark.anyio

SMALL_BUFFER = 8 * 1024
"""Bytes of a socket's buffer, so that a modest burst overfills it."""

SOON = 5.0
"""Seconds within which what must happen on loopback happens."""


# UDP.


@contextmanager
def udp_pair() -> Iterator[tuple[UdpWire, socket.socket]]:
    """Give a wire and the socket of its relay."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(SOON)
        near = open_socket(socket.AF_INET, socket.SOCK_DGRAM, connect=far.getsockname())
        far.connect(near.getsockname())
        wire = UdpWire(near)
        try:
            yield wire, far
        finally:
            wire.close()


async def test_datagrams_go_both_ways_whole_and_a_busy_wire_leaves_some_for_later() -> None:
    with udp_pair() as (wire, far):
        for size in (0, 1, 65_507):
            assert wire.write(bytes(size))
            assert len(far.recv(65_535)) == size
        for number in range(READ_LIMIT + 3):
            far.send(bytes([number]))
        await wire.wait()
        assert wire.read() == [bytes([number]) for number in range(READ_LIMIT)]
        assert wire.read() == [bytes([READ_LIMIT + number]) for number in range(3)]
        assert wire.read() == []


async def test_a_relay_that_was_away_for_a_while_is_heard_again() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as away:
        away.bind(("127.0.0.1", 0))
        address = away.getsockname()
    near = open_socket(socket.AF_INET, socket.SOCK_DGRAM, connect=address)
    wire = UdpWire(near)
    try:
        assert wire.write(b"anybody there?")
        with anyio.fail_after(SOON):
            await wire.wait()
        assert wire.read() == []
        assert wire.refused == "Connection refused"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(address)
            back.sendto(b"back", near.getsockname())
            with anyio.fail_after(SOON):
                await wire.wait()
            assert wire.read() == [b"back"]
    finally:
        wire.close()


class TroubledSocket:
    """A socket whose calls come to what a test wants, one after the other."""

    def __init__(self, *outcomes: bytes | int) -> None:
        self._outcomes = list(outcomes)

    def recv(self, size: int) -> bytes:
        outcome = self._outcomes.pop(0) if self._outcomes else errno.EAGAIN
        if isinstance(outcome, int):
            raise OSError(outcome, "trouble")
        return outcome

    def send(self, data: bytes) -> int:
        return len(self.recv(0))


@pytest.mark.parametrize(
    "number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EMSGSIZE]
)
async def test_what_icmp_says_of_one_datagram_does_not_break_the_wire(number: int) -> None:
    wire = UdpWire(TroubledSocket(b"one", number, b"two", number))  # type: ignore[arg-type]
    assert wire.read() == [b"one"]
    assert wire.refused
    assert wire.read() == [b"two"]
    writing = UdpWire(TroubledSocket(number, b"x"))  # type: ignore[arg-type]
    assert not writing.write(b"x")
    assert writing.write(b"x")
    assert (writing.dropped, bool(writing.refused)) == (1, True)


async def test_a_socket_that_is_broken_for_good_breaks_the_wire() -> None:
    wire = UdpWire(TroubledSocket(b"one", errno.ENETDOWN))  # type: ignore[arg-type]
    with pytest.raises(BrokenWireError) as caught:
        wire.read()
    assert caught.value.code == "turn_socket_failed"
    assert "Network is down" in caught.value.message
    full = UdpWire(TroubledSocket(errno.EAGAIN, errno.ENOBUFS))  # type: ignore[arg-type]
    assert not full.write(b"x")
    assert not full.write(b"x")
    assert (full.dropped, full.refused) == (2, "")


# TCP.


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give both ends of a TCP connection with small buffers, neither of them blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        near.connect(listening.getsockname())
        far, _ = listening.accept()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


async def receive(opened: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        await anyio.wait_readable(opened)
        chunk = opened.recv(size)
        assert chunk, "the far end sees the end of the stream"
        received += chunk
    return received


async def test_what_a_stream_does_not_take_at_once_follows_without_anything_coming_back() -> None:
    with connection() as (near, far):
        wire = StreamWire(near)
        messages = [index.to_bytes(4, "big") * 300 for index in range(MAX_BACKLOG // 1200)]
        async with anyio.create_task_group() as tasks:

            async def drive() -> None:
                while True:
                    await wire.wait()
                    assert wire.read() == []

            tasks.start_soon(drive)
            await anyio.wait_all_tasks_blocked()
            # Written by another task than the one that waits, as the local end does.
            for message in messages:
                assert wire.write(message)
            with anyio.fail_after(SOON):
                received = await receive(far, sum(map(len, messages)))
            assert received == b"".join(messages)
            tasks.cancel_scope.cancel()


async def test_for_a_relay_that_stops_reading_a_bounded_backlog_is_kept() -> None:
    with connection() as (near, far):
        wire = StreamWire(near)
        accepted = []
        for index in range(2 * MAX_BACKLOG // 1200):
            message = index.to_bytes(4, "big") * 300
            if wire.write(message):
                accepted.append(message)
        assert wire.dropped == 2 * MAX_BACKLOG // 1200 - len(accepted) > 0
        assert 0 < wire.backlog <= MAX_BACKLOG
        # What keeps the allocation alive is not lost for that.
        assert wire.write(b"refresh", droppable=False)
        accepted.append(b"refresh")
        async with anyio.create_task_group() as tasks:
            returned = 0

            async def drive() -> None:
                nonlocal returned
                while wire._backlog:
                    await wire.wait()
                    returned += 1

            tasks.start_soon(drive)
            await anyio.wait_all_tasks_blocked()
            assert returned == 0, "there is nothing to do until the relay reads"
            # It hears the relay meanwhile.
            far.send(b"still there")
            with anyio.fail_after(SOON):
                while not returned:
                    await anyio.lowlevel.checkpoint()
            assert wire.read() == [b"still there"]
            with anyio.fail_after(SOON):
                received = await receive(far, sum(map(len, accepted)))
        assert received == b"".join(accepted)
        assert wire.backlog == 0


async def test_the_end_of_a_stream_is_told_after_its_last_bytes_and_ever_again() -> None:
    with connection() as (near, far):
        wire = StreamWire(near)
        far.send(b"last words")
        far.close()
        with anyio.fail_after(SOON):
            await wire.wait()
            assert wire.read() == [b"last words"]
            for _ in range(2):
                await wire.wait()
                with pytest.raises(BrokenWireError) as caught:
                    wire.read()
                assert caught.value.code == "turn_connection_closed"


async def test_a_connection_that_was_reset_takes_no_more_and_is_told_by_reading() -> None:
    with connection() as (near, far):
        wire = StreamWire(near)
        while wire._waiting == 0:
            wire.write(bytes(1200))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        with anyio.fail_after(SOON):
            await wire.wait()
        dropped = wire.dropped
        wire.write(b"into the void")  # may be what finds out
        assert not wire.write(b"into the void")
        assert wire.dropped > dropped
        assert wire._waiting == 0
        with pytest.raises(BrokenWireError) as caught:
            wire.read()
        assert caught.value.code in ("turn_socket_failed", "turn_connection_closed")


# TLS.


class FarTls:
    """The relay's end of a TLS connection."""

    def __init__(self, directory: Path, opened: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Identity.generate(0.0).save(directory))
        self.socket = opened
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def records(self, *messages: bytes) -> bytes:
        """Return the records of messages."""
        for message in messages:
            self.tls.write(message)
        return self.outgoing.read()

    def read(self, encrypted: bytes) -> bytes:
        """Return the plaintext in `encrypted`, and where TLS ends, `<end>`."""
        self.incoming.write(encrypted)
        plain = b""
        with suppress(ssl.SSLWantReadError):
            while chunk := self.tls.read(65_536):
                plain += chunk
            plain += b"<end>"
        return plain


@contextmanager
def tls_connection(directory: Path) -> Iterator[tuple[StreamWire, FarTls]]:
    """Give a wire whose TLS is established, and the relay's end."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    layer = TlsLayer(client, "relay.example")
    with connection() as (near, opened):
        far = FarTls(directory, opened)
        established = layer.handshake(b"")
        while not established:
            far.incoming.write(layer.pending_output())
            with suppress(ssl.SSLWantReadError):
                far.tls.do_handshake()
            established = layer.handshake(far.outgoing.read())
        far.incoming.write(layer.pending_output())
        with suppress(ssl.SSLWantReadError):
            far.tls.do_handshake()
        yield StreamWire(near, layer), far


async def test_records_are_read_however_they_are_cut_and_nothing_is_left_in_between(
    tmp_path: Path,
) -> None:
    with tls_connection(tmp_path) as (wire, far):
        records = far.records(*(b"%d," % number for number in range(100)), bytes(20_000))
        received = b""
        for start in range(0, len(records), 1777):
            far.socket.send(records[start : start + 1777])
            with anyio.fail_after(SOON):
                await wire.wait()
            received += b"".join(wire.read())
        expected = b"".join(b"%d," % number for number in range(100)) + bytes(20_000)
        assert received == expected
        # One chunk of many records: all of them come out, as the socket will not say so again.
        far.socket.send(far.records(b"a", b"b", b"c"))
        await wire.wait()
        assert wire.read() == [b"a", b"b", b"c"]


async def test_what_a_slow_relay_takes_late_is_whole_under_tls_too(tmp_path: Path) -> None:
    with tls_connection(tmp_path) as (wire, far):
        accepted = b""
        for index in range(2 * MAX_BACKLOG // 1200):
            message = index.to_bytes(4, "big") * 300
            if wire.write(message):
                accepted += message
        assert wire.dropped > 0
        received = b""
        with anyio.fail_after(SOON):
            async with anyio.create_task_group() as tasks:

                async def drive() -> None:
                    while True:
                        await wire.wait()

                tasks.start_soon(drive)
                while len(received) < len(accepted):
                    await anyio.wait_readable(far.socket)
                    received += far.read(far.socket.recv(65_536))
                tasks.cancel_scope.cancel()
        assert received == accepted


async def test_a_relay_that_ends_tls_and_not_tcp_has_closed_the_connection(tmp_path: Path) -> None:
    with tls_connection(tmp_path) as (wire, far):
        with suppress(ssl.SSLWantReadError):
            far.tls.write(b"last words")
            far.tls.unwrap()
        far.socket.send(far.outgoing.read())
        with anyio.fail_after(SOON):
            await wire.wait()
            assert wire.read() == [b"last words"]
            for _ in range(2):
                await wire.wait()  # at once: the socket has nothing to say any more
                with pytest.raises(BrokenWireError) as caught:
                    wire.read()
                assert caught.value.code == "turn_connection_closed"


async def test_a_wire_that_is_closed_says_so_under_tls(tmp_path: Path) -> None:
    with tls_connection(tmp_path) as (wire, far):
        wire.write(b"goodbye")
        wire.close()
        assert far.read(far.socket.recv(65_536)) == b"goodbye<end>"


async def test_a_tls_stream_that_was_spoilt_takes_no_more_and_raises_only_our_error(
    tmp_path: Path,
) -> None:
    with tls_connection(tmp_path) as (wire, far):
        assert wire.write(b"a message")
        far.socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record nobody has encrypted
        await wire.wait()
        with pytest.raises(BrokenWireError) as caught:
            wire.read()
        assert caught.value.code == "turn_tls_failed"
        # On its way out the owner still says goodbye.
        assert not wire.write(b"a last word", droppable=False)
        assert wire.dropped == 1
        wire.close()


# Dialling.


def endpoint(port: int, transport: RelayTransport, **changes: str) -> RelayEndpoint:
    return RelayEndpoint("127.0.0.1", port, transport, **changes)


@contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def nobody_called(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return True
    return False


async def test_a_tls_relay_that_cannot_be_verified_is_not_even_called(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with listener() as listening:
        port = listening.getsockname()[1]
        for settings, ca_file, code in (
            ({}, str(tmp_path / "absent.pem"), "invalid_ca_file"),
            ({}, str(empty), "invalid_ca_file"),
            ({"server_name": ".example"}, None, "invalid_server_name"),
            ({"server_name": "a" * 300 + ".\N{SNOWMAN}"}, None, "invalid_server_name"),
        ):
            with pytest.raises(TransportError) as caught:
                await dial(endpoint(port, RelayTransport.TLS, **settings), ca_file=ca_file)
            assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, code)
        assert nobody_called(listening)


async def test_a_relay_that_says_nothing_under_tls_is_given_up() -> None:
    with listener() as listening:
        with pytest.raises(TransportError) as caught:
            await dial(endpoint(listening.getsockname()[1], RelayTransport.TLS), timeout=0.05)
        assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, "turn_dial_timeout")


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "turn_tls_failed"), (b"", "turn_unreachable")],
)
async def test_a_relay_that_speaks_no_tls_is_told_as_such(answer: bytes, code: str) -> None:
    with listener() as listening:
        async with anyio.create_task_group() as tasks:

            async def answer_once() -> None:
                await anyio.wait_readable(listening)
                accepted, _ = listening.accept()
                with accepted:
                    accepted.setblocking(False)
                    await anyio.wait_readable(accepted)
                    accepted.recv(65_536)
                    accepted.send(answer)

            tasks.start_soon(answer_once)
            with anyio.fail_after(SOON), pytest.raises(TransportError) as caught:
                await dial(endpoint(listening.getsockname()[1], RelayTransport.TLS))
        assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, code)


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_an_address_to_send_from_must_be_one_of_ours(transport: RelayTransport) -> None:
    with listener() as listening:
        relay = endpoint(listening.getsockname()[1], transport)
        for bind, code in (("192.0.2.1", "bind_failed"), ("::1", "bind_family_mismatch")):
            with pytest.raises(TransportError) as caught:
                await dial(relay, bind=bind)
            assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, code)
        wire = await dial(relay, bind="127.0.0.2")
        wire.close()
        assert transport is RelayTransport.UDP or not nobody_called(listening)


async def test_dialling_can_be_cancelled_and_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []

    def remember(*arguments: object, **named: object) -> socket.socket:
        made.append(open_socket(*arguments, **named))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr("turnlane.net.relay_wire.open_socket", remember)
    with listener() as listening:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dial, endpoint(listening.getsockname()[1], RelayTransport.TLS))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert [opened.fileno() for opened in made] == [-1]
