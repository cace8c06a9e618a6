"""UDP sockets that take and send batches: for the local ends, and for a server's listening port."""

import socket
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NoReturn

import anyio
from anyio.lowlevel import checkpoint

from turnlane.api.adapters import DatagramSocket
from turnlane.api.batch import Batch
from turnlane.api.errors import AdapterError, TransportError
from turnlane.api.stages import Stage
from turnlane.net.datagrams import datagrams_of
from turnlane.net.path_mtu import largest_payload_to
from turnlane.net.reactor import Readiness
from turnlane.net.shared_port import open_port
from turnlane.net.system import SocketAddress, plain_address, reason

MAX_PEERS = 4096
"""Peers that one socket remembers; beyond, the one silent for longest is forgotten."""

MAX_FLOW = 0xFFFFFF
"""A flow's number has 24 bits on the wire."""


class PeerTable:
    """Numbers the peers of a socket: source to flow and back, bounded, least recent out first.

    Numbers grow and are not given again before 2^24 others were, so that a late reply to a
    forgotten peer never reaches another. Sources are what `turnlane.net.datagrams` takes for one.
    """

    def __init__(self, limit: int = MAX_PEERS) -> None:
        self.limit = limit
        self.evicted = 0
        self._flows: OrderedDict[Hashable, int] = OrderedDict()
        self._sources: dict[int, Hashable] = {}
        self._next = 1
        self._last: Hashable = None
        self._last_flow = 0

    def __len__(self) -> int:
        return len(self._flows)

    def flow(self, source: Hashable) -> int:
        """Return the number of `source`, giving it one if it is new."""
        if source == self._last:
            return self._last_flow
        flow = self._flows.get(source)
        if flow is None:
            flow = self._add(source)
        else:
            self._flows.move_to_end(source)
        self._last, self._last_flow = source, flow
        return flow

    def _add(self, source: Hashable) -> int:
        if len(self._flows) >= self.limit:
            _, oldest = self._flows.popitem(last=False)
            del self._sources[oldest]
            self.evicted += 1
        while self._next in self._sources:
            self._next = self._next % MAX_FLOW + 1
        flow = self._next
        self._next = flow % MAX_FLOW + 1
        self._flows[source] = flow
        self._sources[flow] = source
        return flow

    def source(self, flow: int) -> Hashable | None:
        """Return the source numbered `flow`, or None when it is unknown or forgotten."""
        return self._sources.get(flow)


class BatchSocket(ABC):
    """What the sockets of this module share: reading in batches, and being closed while they do."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._datagrams = datagrams_of(opened)
        self._closed = False
        self._readiness: Readiness | None = None
        self.local_address = plain_address(opened.getsockname())

    @property
    def dropped(self) -> int:
        """Datagrams that the system did not take."""
        return self._datagrams.dropped

    @property
    def too_large(self) -> int:
        """Those among them that were larger than the path bears."""
        return self._datagrams.too_large

    @property
    def refused(self) -> int:
        """How often the network said of something sent earlier that it did not arrive."""
        return self._datagrams.refused

    async def pump(self, batch: Batch, consume: Callable[[Batch], None]) -> NoReturn:
        """Call `consume` with every batch that comes, until the socket is closed.

        `batch` holds what one read may bring (`turnlane.net.datagrams.receive_batch`).

        What costs the least on the loop there is; otherwise as calling `receive` for ever.
        """
        read, flow = self._datagrams.read, self._flow

        def on_readable() -> int:
            try:
                count = read(batch, flow)
            except OSError as error:
                raise self._broken(error) from None
            if count:
                consume(batch)
            return count

        self._check_open()
        self._readiness = Readiness(self._socket, on_readable)
        try:
            await self._readiness.run()
        finally:
            self._readiness = None

    async def receive(self, batch: Batch) -> None:
        """Wait for at least one datagram, then fill `batch` with as many as are there."""
        await checkpoint()
        while True:
            self._check_open()
            if count := self._read(batch, self._flow):
                batch.end = batch.starts[count - 1] + batch.sizes[count - 1]
                return
            await anyio.wait_readable(self._socket)

    def close(self) -> None:
        """Release the socket; who waits for it gets `anyio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            if self._readiness is not None:
                self._readiness.end(anyio.ClosedResourceError())
            anyio.notify_closing(self._socket)
            self._socket.close()

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    def _read(self, batch: Batch, flow: int | Callable[[Hashable], int]) -> int:
        try:
            return self._datagrams.read(batch, flow)
        except OSError as error:
            raise self._broken(error) from None

    @property
    @abstractmethod
    def _flow(self) -> int | Callable[[Hashable], int]:
        """What numbers the datagrams that come."""

    def _broken(self, error: OSError) -> AdapterError | TransportError:
        return AdapterError(
            Stage.FORWARDING_LOOP,
            "local_socket_failed",
            f"receiving: {reason(error)}",
            "check that the network is up and that memory is left",
        )


class BoundUdpSocket(BatchSocket):
    """A bound socket that numbers its peers (`turnlane.api.DatagramSocket`)."""

    def __init__(self, opened: socket.socket, max_peers: int = MAX_PEERS) -> None:
        super().__init__(opened)
        self.peers = PeerTable(max_peers)
        self._unknown = 0

    @property
    def dropped(self) -> int:
        """Datagrams that the system did not take, or whose peer is forgotten."""
        return super().dropped + self._unknown

    def send(self, batch: Batch) -> int:
        """Send each packet to the peer its flow names; return how many the system took."""
        if self._closed:
            return 0
        sent = start = 0
        flows, count = batch.flows, batch.count
        while start < count:
            flow = flows[start]
            stop = start + 1
            while stop < count and flows[stop] == flow:
                stop += 1
            peer = self.peers.source(flow)
            if peer is None:
                self._unknown += stop - start
            else:
                sent += self._datagrams.send(batch, start, stop, peer)
            start = stop
        return sent

    @property
    def _flow(self) -> Callable[[Hashable], int]:
        return self.peers.flow


class ConnectedUdpSocket(BatchSocket):
    """A connected socket whose packets belong to one flow (`turnlane.api.DatagramSocket`)."""

    def __init__(self, opened: socket.socket, flow: int) -> None:
        super().__init__(opened)
        self.flow = flow

    def send(self, batch: Batch) -> int:
        """Send every packet to the peer; return how many the system took."""
        return 0 if self._closed else self._datagrams.send(batch, 0, batch.count)

    @property
    def _flow(self) -> int:
        return self.flow


class ListeningUdpSocket(BatchSocket):
    """The socket of a server: it numbers its peers, and says what address is behind a number."""

    def __init__(self, opened: socket.socket) -> None:
        super().__init__(opened)
        self._peers = PeerTable()
        self._single = Batch()
        self._last_number = 0
        self._last_address: SocketAddress = ("", 0)

    @classmethod
    async def bind(cls, host: str, port: int) -> "ListeningUdpSocket":
        """Bind to an address; raises `TransportError` at `listen`."""
        (opened,) = await open_port(host, port)
        return cls(opened)

    def address(self, number: int) -> SocketAddress:
        """Return the address of the peer that a batch that was just read calls `number`."""
        if number != self._last_number:
            source = self._peers.source(number)
            assert source is not None
            self._last_address = self._datagrams.address(source)
            self._last_number = number
        return self._last_address

    def send(self, data: bytes, address: SocketAddress) -> None:
        """Send one datagram now; what the system does not take is dropped and counted."""
        self._single.clear()
        self._single.append(data)
        self.send_batch(self._single, self.target(address))

    def target(self, address: SocketAddress) -> Hashable:
        """Return what `send_batch` takes for an address."""
        return self._datagrams.target(address)

    def largest_payload(self, address: SocketAddress) -> int | None:
        """Return the bytes of the largest datagram for an address, as far as the system knows."""
        return largest_payload_to(self._socket.family, address)

    def send_batch(self, batch: Batch, target: Hashable) -> int:
        """Send a batch to one peer; return how many datagrams the system took."""
        return 0 if self._closed else self._datagrams.send(batch, 0, batch.count, target)

    @property
    def _flow(self) -> Callable[[Hashable], int]:
        return self._peers.flow

    def _broken(self, error: OSError) -> TransportError:
        return TransportError(
            Stage.LISTEN,
            "listen_socket_failed",
            f"receiving: {reason(error)}",
            "check that the network is up and that memory is left",
        )


async def pump(opened: DatagramSocket, shared: Batch, consume: Callable[[Batch], None]) -> NoReturn:
    """Call `consume` with every batch that comes from `opened`, whoever made that.

    `shared` is used for sockets of this module alone: a plugin's own may wait between filling a
    batch and returning, and gets one of its own.
    """
    if isinstance(opened, BatchSocket):
        await opened.pump(shared, consume)
    own = Batch()
    while True:
        await opened.receive(own)
        consume(own)
