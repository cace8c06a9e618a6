"""The wires to a relay, on real sockets with a far end that does as it is told."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest


from turnlane.net.identity import Identity
from turnlane.net.relay_wire import MAX_BACKLOG, BrokenWireError, StreamWire, TlsLayer

pytestmark = pytest.mark.anyio

SMALL_BUFFER = 8 * 1024
"""Bytes of a socket's buffer, so that a modest burst overfills it."""


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
            with anyio.fail_after(5):
                received = await receive(far, sum(map(len, messages)))
            assert received == b"".join(messages)
            tasks.cancel_scope.cancel()


@contextmanager
def tls_wire(directory: Path) -> Iterator[tuple[StreamWire, socket.socket]]:
    """Give a wire whose TLS is established, and the far end's bare socket."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(Identity.generate(0.0).save(directory))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    far_tls = server.wrap_bio(incoming, outgoing, server_side=True)
    layer = TlsLayer(client, "relay.example")
    established = layer.handshake(b"")
    while not established:
        incoming.write(layer.pending_output())
        with suppress(ssl.SSLWantReadError):
            far_tls.do_handshake()
        established = layer.handshake(outgoing.read())
    with connection() as (near, far):
        yield StreamWire(near, layer), far


async def test_a_tls_stream_that_was_spoilt_takes_no_more_and_raises_only_our_error(
    tmp_path: Path,
) -> None:
    with tls_wire(tmp_path) as (wire, far):
        assert wire.write(b"a message")
        far.send(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that nobody has encrypted
        await wire.wait()
        with pytest.raises(BrokenWireError) as caught:
            wire.read()
        assert caught.value.code == "turn_tls_failed"
        # On its way out the owner still says goodbye.
        assert not wire.write(b"a last word", droppable=False)
        assert wire.dropped == 1
