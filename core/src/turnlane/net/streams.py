"""TCP for the local ends: connections that are offered, connections that are opened."""

import errno
import socket
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint

from turnlane.api.errors import AdapterError, TransportError, TurnlaneError
from turnlane.api.stages import Stage
from turnlane.api.streams import ByteStream, StreamDestination, StreamListener, StreamOffer
from turnlane.net.system import (
    SocketAddress,
    family_of,
    is_address,
    is_path_error,
    literal_address,
    open_socket,
    plain_address,
    reason,
    resolve,
)

CONNECT_TIMEOUT = 10.0
"""Seconds in which a connection must be open, the name resolved included."""

STAGGER = 0.25
"""Seconds until the next of a name's addresses is tried beside the last (RFC 8305, section 5)."""

BACKLOG = 128
"""Connections that wait in the system for `accept`."""

PAUSE = 0.1
"""Seconds of no accepting where the system has no file or memory left for a connection."""

_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class TcpStream:
    """A TCP connection (`turnlane.api.ByteStream`).

    It reads only when it is asked to, so that what a peer sends before waits in the system.
    """

    def __init__(self, opened: socket.socket) -> None:
        opened.setblocking(False)
        with suppress(OSError):  # some systems refuse it once the peer has reset the connection
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = opened
        self._closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return the next bytes; raises as the contract says."""
        await checkpoint()
        while True:
            self._check_open()
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except OSError as error:
                raise anyio.BrokenResourceError from error
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        """Send all of `item`; raises as the contract says."""
        await checkpoint()
        left = memoryview(item)
        while left:
            self._check_open()
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """End this side's half."""
        await checkpoint()
        self._check_open()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def aclose(self) -> None:
        """Release the connection; who waits in it gets `anyio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)
            self._socket.close()
        await checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError


class TcpOffer:
    """A TCP connection that was taken (`turnlane.api.StreamOffer`): it names no destination."""

    destination: StreamDestination | None = None

    def __init__(self, stream: TcpStream) -> None:
        self._stream = stream

    async def accept(self) -> ByteStream:
        """Return the stream; nothing is told, for TCP has no words for it.

        It does not wait, so that a cancellation cannot come between the connection and its owner.
        """
        return self._stream

    async def refuse(self, error: TurnlaneError) -> None:  # noqa: ARG002 TCP has no words for it
        """Release the connection."""
        await self._stream.aclose()


class TcpListener:
    """A listening TCP socket (`turnlane.api.StreamListener`)."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._closed = False
        self.local_address = plain_address(opened.getsockname())

    async def accept(self) -> StreamOffer:
        """Wait for a connection; raises `AdapterError` at `forwarding_loop`."""
        await checkpoint()
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            try:
                taken, _ = self._socket.accept()
                return TcpOffer(TcpStream(taken))
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except OSError as error:
                if error.errno in _SHORT:
                    await anyio.sleep(PAUSE)
                elif not is_path_error(error):  # else only that one connection was lost
                    raise AdapterError(
                        Stage.FORWARDING_LOOP,
                        "local_socket_failed",
                        f"accepting: {reason(error)}",
                        "check that the network is up and that memory is left",
                    ) from None

    async def aclose(self) -> None:
        """Stop listening; a waiting `accept` ends with `anyio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)
            self._socket.close()
        await checkpoint()


async def listen_tcp(host: str, port: int) -> StreamListener:
    """Listen for TCP connections; raises `AdapterError` at `local_bind`."""
    try:
        family, address = await resolve(
            host, port, socket.SOCK_STREAM, stage=Stage.LOCAL_BIND, code="listen_name_unresolved"
        )
    except TransportError as error:
        raise AdapterError(error.stage, error.code, error.message, error.advice) from None
    try:
        return TcpListener(_listening(family, address))
    except OSError as error:
        raise AdapterError(
            Stage.LOCAL_BIND,
            "local_bind_failed",
            f"cannot listen on {host} port {port}: {reason(error)}",
            "choose another address, or stop what uses this one",
        ) from None


async def connect_tcp(host: str, port: int) -> ByteStream:
    """Open a TCP connection to the first of a name's addresses that answers.

    Raises `AdapterError` at `upstream_dial`, also when it takes longer than `CONNECT_TIMEOUT`.
    """
    failure = "no answer in time"
    with anyio.move_on_after(CONNECT_TIMEOUT):
        addresses = await _addresses(host, port)
        try:
            return TcpStream(await _race(addresses))
        except OSError as error:
            failure = reason(error)
    raise AdapterError(
        Stage.UPSTREAM_DIAL,
        "upstream_unreachable",
        f"cannot connect to the upstream: {failure}",
        "check that it listens there, and the routes to it",
    )


def _listening(family: socket.AddressFamily, address: SocketAddress) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        # Connections of an earlier listener that are not quite over do not keep the address.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


async def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    if is_address(host):
        return [(family_of(host), literal_address(host, port))]
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    known: list[tuple[socket.AddressFamily, SocketAddress]] = [
        (family, address) for family, _, _, _, address in found
    ]
    if not known:
        raise AdapterError(
            Stage.UPSTREAM_DIAL,
            "upstream_name_unresolved",
            f"the name {host} has no address",
            "check the name and the DNS",
        )
    return known


async def _race(addresses: list[tuple[socket.AddressFamily, SocketAddress]]) -> socket.socket:
    """Return the first connection that opens, one address started after the other; else OSError."""
    won: list[socket.socket] = []
    lost: list[OSError] = []

    async def attempt(
        family: socket.AddressFamily, address: SocketAddress, over: anyio.Event
    ) -> None:
        try:
            won.append(await _connect(family, address))
        except OSError as error:
            lost.append(error)
        else:
            tasks.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with anyio.create_task_group() as tasks:
            for family, address in addresses:
                over = anyio.Event()
                tasks.start_soon(attempt, family, address, over)
                with anyio.move_on_after(STAGGER):
                    await over.wait()
        if not won:
            raise lost[0]
        return won.pop(0)
    finally:
        for opened in won:
            opened.close()


async def _connect(family: socket.AddressFamily, address: SocketAddress) -> socket.socket:
    opened = open_socket(family, socket.SOCK_STREAM)
    try:
        failed = opened.connect_ex(address)
        if failed in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            await anyio.wait_writable(opened)
            failed = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, "connect")
    except BaseException:
        opened.close()
        raise
    return opened
