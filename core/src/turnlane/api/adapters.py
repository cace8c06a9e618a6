"""The contract of the local ends for datagrams, and what the runtime hands to every local end."""

from typing import Protocol

from turnlane.api.batch import Batch
from turnlane.api.streams import ByteStream, StreamListener


class DatagramSocket(Protocol):
    """A batched UDP socket, handed out by `AdapterContext`.

    Bound sockets number their peers: `receive` writes each sender's number into `batch.flows`, and
    `send` sends each packet to the peer that its flow names. The table of peers is bounded; a peer
    that was silent for longest makes room for a new one. Connected sockets have one flow.
    """

    @property
    def local_address(self) -> tuple[str, int]:
        """Host and port this socket is bound to."""
        ...

    async def receive(self, batch: Batch) -> None:
        """Wait for at least one datagram, then fill `batch` with as many as are there.

        `batch` is cleared and filled between the last wait and the return: tasks that use what
        they were given before they wait again may share one batch.
        Raises `AdapterError` when the socket is broken for good, and
        `anyio.ClosedResourceError` once it is closed.
        """
        ...

    def send(self, batch: Batch) -> int:
        """Send every packet of `batch` now; return how many the system took.

        Never waits and never raises for a datagram that was lost: what the system does not take,
        or names a flow that is gone, is dropped and counted.
        """
        ...

    def close(self) -> None:
        """Release the socket; a second call does nothing. A waiting `receive` ends."""
        ...


class AdapterContext(Protocol):
    """What the runtime hands to an adapter."""

    async def bind_udp(self, host: str, port: int) -> DatagramSocket:
        """Bind a socket that numbers its peers; raises `AdapterError` at `local_bind`."""
        ...

    async def connect_udp(self, host: str, port: int, flow: int) -> DatagramSocket:
        """Connect a socket whose packets all belong to `flow`.

        Raises `AdapterError` at `upstream_dial`.
        """
        ...

    async def listen_tcp(self, host: str, port: int) -> StreamListener:
        """Listen for TCP connections, whose offers name no destination.

        Raises `AdapterError` at `local_bind`.
        """
        ...

    async def connect_tcp(self, host: str, port: int) -> ByteStream:
        """Open a TCP connection; raises `AdapterError` at `upstream_dial`."""
        ...


class DatagramIngress(Protocol):
    """A local end at the client for datagrams. Made as `Class(context, address, settings)`."""

    async def open(self) -> DatagramSocket:
        """Bind and return the socket the session forwards from and to.

        Raises `AdapterError` at `local_bind`. The session closes what it was given.
        """
        ...


class DatagramEgress(Protocol):
    """An upstream end at the server for datagrams. Made as `Class(context, address, settings)`."""

    async def prepare(self) -> None:
        """Check once, before the server is ready, that flows can be opened.

        Raises `AdapterError` at `upstream_dial`.
        """
        ...

    async def connect(self, flow: int) -> DatagramSocket:
        """Open the upstream socket of one flow; raises `AdapterError` at `upstream_dial`."""
        ...
