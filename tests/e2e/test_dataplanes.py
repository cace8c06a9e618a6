"""A client and a server on different data planes, over each transport to the relay."""

import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from anyio.streams.tls import TLSListener

from turnlane.api import RelayTransport
from turnlane.net import native
from turnlane.net.dtls import MAX_PAYLOAD
from turnlane.proto.frames import HEADER_SIZE
from turnlane_lab.stand import Stand
from turnlane_tests.certificates import Authority
from turnlane_tests.programs import STEP, Shell

# The client chooses its backend itself; the stand beside it needs only one.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

PLANES = {"fast": "", "portable": "portable"}
SIZES = [0, 1, 3, 4, 200, 1199, 1200, 1200, 1200, 1200, 700, 9000, MAX_PAYLOAD - HEADER_SIZE]
BURSTS = 5


@asynccontextmanager
async def tls_front(stand: Stand, authority: Authority) -> AsyncIterator[int]:
    """Give the port of a TLS listener in front of the stand's relay."""
    issued = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    relay = stand.relay.endpoint(RelayTransport.TCP)

    async def copy(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream) -> None:
        async for data in source:
            await target.send(data)
        await target.send_eof()

    async def serve(near: anyio.abc.ByteStream) -> None:
        async with (
            near,
            await anyio.connect_tcp(relay.host, relay.port) as far,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(copy, far, near)
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await copy(near, far)
            tasks.cancel_scope.cancel()

    listeners = await anyio.create_tcp_listener(local_host="127.0.0.1")
    front = TLSListener(listeners, context, standard_compatible=False)
    async with front, anyio.create_task_group() as tasks:
        tasks.start_soon(front.serve, serve)
        yield listeners.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def exchange(listen: str) -> None:
    """Send bursts of many sizes and get each datagram back, once and as it was."""
    host, _, port = listen.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.connect((host, int(port)))
        for burst in range(BURSTS):
            sent = [(b"%d:%d:" % (burst, size) * size)[:size] for size in SIZES]
            for data in sent:
                opened.send(data)
            received: list[bytes] = []
            with anyio.fail_after(STEP):
                while len(received) < len(sent):
                    await anyio.wait_readable(opened)
                    received.append(opened.recv(65_535))
            assert Counter(received) == Counter(sent)


@pytest.mark.parametrize("transport", list(RelayTransport))
@pytest.mark.parametrize(("near", "far"), [("fast", "portable"), ("portable", "fast")])
async def test_ends_on_different_data_planes_understand_each_other(
    near: str,
    far: str,
    transport: RelayTransport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(native.DATAPLANE_VARIABLE, PLANES[far])
    shell = Shell(tmp_path)
    authority = Authority(tmp_path)
    async with Stand() as stand, tls_front(stand, authority) as tls_port:
        link = stand.relay_link(
            RelayTransport.TCP if transport is RelayTransport.TLS else transport
        ).reveal()
        if transport is RelayTransport.TLS:
            relay = stand.relay.endpoint(RelayTransport.TCP)
            link = link.replace(f":{relay.port}?", f":{tls_port}?").replace("=tcp", "=tls")
        async with shell.start(
            "client", "--provider", "generic-turn",
            "--link-file", shell.write("link", link),
            "--peer-file", shell.write("peer", stand.peer.reveal()),
            "--listen", "127.0.0.1:0", "--connections", 2, "--ca-file", authority.ca_file,
            "--json", "--log-format", "json",
            environment={native.DATAPLANE_VARIABLE: PLANES[near]},
        ) as program:  # fmt: skip
            await exchange((await program.ready())["listen"])
            program.process.terminate()
            assert await program.ended() == 0
            assert "Traceback" not in program.err
