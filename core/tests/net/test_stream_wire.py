"""The wire to a relay over TCP and TLS, on real sockets with a far end that does as it is told."""

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import anyio
import pytest

from turnlane.api import Batch
from turnlane.net.datagrams import receive_batch
from turnlane.net.identity import Identity
from turnlane.net.relay_wire import (
    MAX_BACKLOG,
    BrokenWireError,
    StreamWire,
    TlsLayer,
)
from turnlane.proto.channel_data import HEADER_SIZE, FramingError, encode

pytestmark = pytest.mark.anyio

SMALL_BUFFER = 8 * 1024
"""Bytes of a socket's buffer, so that a modest burst overfills it."""

SOON = 5.0
"""Seconds within which what must happen on loopback happens."""


class SpokenError(Exception):
    """What a test has a wire interrupted with."""


def taken(wire: StreamWire) -> list[bytes]:
    """Return the messages that one read brings."""
    batch = receive_batch()
    count = wire.read(batch)
    assert count == len(batch)
    return [bytes(message) for message in batch]


def batch_of(*messages: bytes) -> Batch:
    """Return messages as they are sealed: from the beginning, without gaps."""
    batch = Batch(max(len(messages), 1), max(sum(map(len, messages)), 70_000))
    for index, message in enumerate(messages):
        batch.starts[index] = batch.end
        batch.sizes[index] = len(message)
        batch.buffer[batch.end : batch.end + len(message)] = message
        batch.end += len(message)
    batch.count = len(messages)
    return batch


def message_of(payload: bytes) -> bytes:
    """Return ChannelData as streams have it."""
    return encode(0x4001, payload, padded=True)


def without_padding(message: bytes) -> bytes:
    return message[: HEADER_SIZE + int.from_bytes(message[2:4])]


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
                    assert taken(wire) == []

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
        assert wire.backlog <= MAX_BACKLOG
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
            far.send(message_of(b"still there!"))
            with anyio.fail_after(SOON):
                while not returned:
                    await anyio.lowlevel.checkpoint()
            assert taken(wire) == [message_of(b"still there!")]
            with anyio.fail_after(SOON):
                received = await receive(far, sum(map(len, accepted)))
        assert received == b"".join(accepted)
        assert wire.backlog == 0


async def test_the_end_of_a_stream_is_told_after_its_last_bytes_and_ever_again() -> None:
    with connection() as (near, far):
        wire = StreamWire(near)
        far.send(message_of(b"last words!!") + b"\x40")
        far.close()
        with anyio.fail_after(SOON):
            await wire.wait()
            assert taken(wire) == [message_of(b"last words!!")]
            for _ in range(2):
                await wire.wait()
                with pytest.raises(BrokenWireError) as caught:
                    taken(wire)
                assert caught.value.code == "turn_connection_closed"


async def test_a_connection_that_was_reset_takes_no_more_and_is_told_by_reading() -> None:
    with connection() as (near, far):
        wire = StreamWire(near)
        while wire.backlog == 0:
            wire.write(bytes(1200))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        with anyio.fail_after(SOON):
            await wire.wait()
        dropped = wire.dropped
        wire.write(b"into the void")  # may be what finds out
        assert not wire.write(b"into the void")
        assert wire.dropped > dropped
        assert wire.backlog == 0
        with pytest.raises(BrokenWireError) as caught:
            taken(wire)
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
        messages = [message_of(b"%d" % number) for number in range(100)] + [
            message_of(bytes(20_000))
        ]
        records = far.records(*messages)
        received: list[bytes] = []
        for start in range(0, len(records), 1777):
            far.socket.send(records[start : start + 1777])
            with anyio.fail_after(SOON):
                await wire.wait()
            received += taken(wire)
        assert received == list(map(without_padding, messages))
        # One chunk of many records: all of them come out, as the socket will not say so again.
        few = [message_of(payload) for payload in (b"1234", b"", b"5678")]
        far.socket.send(far.records(*few))
        await wire.wait()
        assert taken(wire) == few


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
            far.tls.write(message_of(b"last words!!"))
            far.tls.unwrap()
        far.socket.send(far.outgoing.read())
        with anyio.fail_after(SOON):
            await wire.wait()
            assert taken(wire) == [message_of(b"last words!!")]
            for _ in range(2):
                await wire.wait()  # at once: the socket has nothing to say any more
                with pytest.raises(BrokenWireError) as caught:
                    taken(wire)
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
            taken(wire)
        assert caught.value.code == "turn_tls_failed"
        # On its way out the owner still says goodbye.
        assert not wire.write(b"a last word", droppable=False)
        assert wire.dropped == 1
        wire.close()


# Batches over streams, under TLS or not.


class FarStream:
    """The relay's end of a stream, in plaintext."""

    def __init__(self, opened: socket.socket, tls: FarTls | None = None) -> None:
        self.socket = opened
        self._tls = tls

    def send(self, data: bytes) -> None:
        self.socket.send(data if self._tls is None else self._tls.records(data))

    async def receive(self, size: int) -> bytes:
        plain = b""
        while len(plain) < size:
            await anyio.wait_readable(self.socket)
            data = self.socket.recv(65_536)
            assert data, "the far end sees the end of the stream"
            plain += data if self._tls is None else self._tls.read(data)
        return plain


@contextmanager
def stream(kind: str, directory: Path) -> Iterator[tuple[StreamWire, FarStream]]:
    """Give a wire and the relay's end of it."""
    if kind == "tls":
        with tls_connection(directory) as (wire, far):
            yield wire, FarStream(far.socket, far)
    else:
        with connection() as (near, opened):
            yield StreamWire(near), FarStream(opened)


async def drive(wire: StreamWire) -> None:
    """Move what waits, as the one that pumps the wire does."""
    await wire.pump(lambda: len(taken(wire)))


both_streams = pytest.mark.parametrize("kind", ["tcp", "tls"])


@both_streams
async def test_of_a_batch_that_a_slow_relay_does_not_take_the_newest_part_is_shed(
    kind: str, tmp_path: Path
) -> None:
    messages = [message_of(index.to_bytes(4, "big") * 299) for index in range(64)]
    with stream(kind, tmp_path) as (wire, far):
        accepted = b""
        written = 0
        for _ in range(12):
            count = wire.write_batch(batch_of(*messages))
            accepted += b"".join(messages[:count])
            written += count
            assert wire.backlog <= MAX_BACKLOG + 40_000, "what TLS adds is not counted before"
        assert count == 0
        assert 0 < wire.dropped == 12 * 64 - written
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drive, wire)
            with anyio.fail_after(SOON):
                assert await far.receive(len(accepted)) == accepted
            tasks.cancel_scope.cancel()
        assert wire.backlog == 0
        assert wire.write_batch(batch_of(*messages)) == 64


@both_streams
async def test_a_stream_may_be_interrupted_though_a_backlog_is_stuck(
    kind: str, tmp_path: Path
) -> None:
    with stream(kind, tmp_path) as (wire, far):
        while wire.write(message_of(bytes(1200))):
            pass
        assert wire.backlog > 0
        heard: list[bytes] = []

        def on_readable() -> int:
            heard.extend(taken(wire))
            return len(heard)

        async with anyio.create_task_group() as tasks:

            async def interrupt() -> None:
                far.send(message_of(b"still there!"))
                with anyio.fail_after(SOON):
                    while not heard:
                        await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
                wire.interrupt(SpokenError())

            tasks.start_soon(interrupt)
            with anyio.fail_after(SOON), pytest.raises(SpokenError):
                await wire.pump(on_readable)
        assert heard == [message_of(b"still there!")]
        assert wire.backlog > 0


@both_streams
async def test_what_a_pumped_stream_cannot_follow_reaches_whoever_pumps_it(
    kind: str, tmp_path: Path
) -> None:
    with stream(kind, tmp_path) as (wire, far):
        far.send(b"SSH-2.0-OpenSSH\r\n")
        with anyio.fail_after(SOON), pytest.raises(FramingError):
            await drive(wire)


@both_streams
async def test_a_pump_that_is_cancelled_is_no_error_and_may_be_started_again(
    kind: str, tmp_path: Path
) -> None:
    with stream(kind, tmp_path) as (wire, far):
        for expected in (b"once", b"more"):
            received: list[bytes] = []

            def on_readable(received: list[bytes] = received) -> int:
                received.extend(taken(wire))
                return len(received)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wire.pump, on_readable)
                far.send(message_of(expected))
                with anyio.fail_after(SOON):
                    while not received:
                        await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert received == [message_of(expected)]


@both_streams
async def test_however_a_stream_is_cut_the_messages_are_whole(kind: str, tmp_path: Path) -> None:
    random = Random(7)
    messages = [message_of(random.randbytes(random.choice((0, 1, 5, 300)))) for _ in range(40)]
    data = b"".join(messages)
    received: list[bytes] = []
    with stream(kind, tmp_path) as (wire, far):
        position = 0
        while position < len(data):
            following = position + random.choice((1, 2, 3, 4, 5, 50, 700))
            far.send(data[position:following])
            position = following
            with anyio.fail_after(SOON):
                await wire.wait()
            received += taken(wire)
    assert received == list(map(without_padding, messages))


async def test_more_messages_than_a_batch_is_for_are_not_lost() -> None:
    with connection() as (near, far):
        wire = StreamWire(near)
        batch = Batch(capacity=4)
        far.send(message_of(b"") * 100)
        received: list[bytes] = []
        with anyio.fail_after(SOON):
            while len(received) < 100:
                await wire.wait()
                while wire.read(batch):
                    assert all(
                        len(of) >= batch.count for of in (batch.starts, batch.sizes, batch.flows)
                    )
                    received += map(bytes, batch)
        assert received == [message_of(b"")] * 100
