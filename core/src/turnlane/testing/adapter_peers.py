"""The other side of an adapter under test, on plain sockets: an application, or an upstream."""

import socket
from typing import Self

import anyio
import anyio.lowlevel

Address = tuple[str, int]

LOOPBACK = "127.0.0.1"


class UdpPeer:
    """A UDP socket on loopback."""

    def __init__(self, host: str = LOOPBACK, port: int = 0) -> None:
        self._socket = _open(host, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.address: Address = self._socket.getsockname()[:2]

    def send(self, data: bytes, address: Address) -> None:
        """Send one datagram."""
        self._socket.sendto(data, address)

    async def receive(self) -> tuple[bytes, Address]:
        """Return the next datagram and where it came from."""
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                data, address = self._socket.recvfrom(65_535)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except ConnectionError:
                continue  # an earlier datagram found nobody; that is not told twice
            else:
                return data, address[:2]

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()


class TcpPeer:
    """A TCP connection with the methods of `ByteStream`; it reads only when it is asked to."""

    def __init__(self, opened: socket.socket) -> None:
        opened.setblocking(False)
        self._socket = opened

    @classmethod
    async def connect(cls, address: Address) -> Self:
        """Connect to a listener on this machine; raises OSError."""
        opened = _open(address[0], socket.SOCK_STREAM)
        try:
            if opened.connect_ex(address):
                await anyio.wait_writable(opened)
                failed = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failed:
                    raise OSError(failed, "connect")
            return cls(opened)
        except BaseException:
            opened.close()
            raise

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return the next bytes; raises `EndOfStream` or `BrokenResourceError`."""
        await anyio.lowlevel.checkpoint()
        while True:
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
        """Send all of `item`; raises `BrokenResourceError`."""
        await anyio.lowlevel.checkpoint()
        left = memoryview(item)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """End this side's half."""
        await anyio.lowlevel.checkpoint()
        self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Release the connection."""
        self.close()

    def close(self) -> None:
        """Release the connection."""
        self._socket.close()


class TcpUpstream:
    """A TCP listener on loopback."""

    def __init__(self) -> None:
        self._socket = _open(LOOPBACK, socket.SOCK_STREAM)
        self._socket.bind((LOOPBACK, 0))
        self._socket.listen()
        self.address: Address = self._socket.getsockname()[:2]

    async def accept(self) -> TcpPeer:
        """Return the next connection."""
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                return TcpPeer(self._socket.accept()[0])
            except BlockingIOError:
                await anyio.wait_readable(self._socket)

    def drop_waiting(self) -> None:
        """Drop the connections that nobody has taken yet."""
        while True:
            try:
                self._socket.accept()[0].close()
            except BlockingIOError:
                return

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def silent_address() -> tuple[socket.socket, Address]:
    """Return a TCP address on loopback where nobody listens, as long as the socket is open."""
    held = _open(LOOPBACK, socket.SOCK_STREAM)
    held.bind((LOOPBACK, 0))
    return held, held.getsockname()[:2]


def free_port() -> int:
    """Return a port that was free a moment ago, for UDP and for TCP."""
    held, (_, port) = silent_address()
    held.close()
    return port


def _open(host: str, kind: socket.SocketKind) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    opened.setblocking(False)
    return opened
