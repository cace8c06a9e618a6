"""Batched UDP sockets for the local ends: one wait, then as many datagrams as are there."""

import socket
from collections import OrderedDict

import anyio
from anyio.lowlevel import checkpoint

from turnlane.api.batch import MAX_DATAGRAM, Batch
from turnlane.api.errors import AdapterError, TransportError
from turnlane.api.stages import Stage
from turnlane.net.system import (
    SocketAddress,
    is_path_error,
    open_socket,
    plain_address,
    reason,
    resolve,
)

MAX_PEERS = 4096
"""Local peers that one bound socket remembers; beyond, the one silent for longest is forgotten."""

RECEIVE_LIMIT = 64
"""Datagrams taken per wake-up of a listening socket."""

MAX_FLOW = 0xFFFFFF
"""A flow's number has 24 bits on the wire."""


class PeerTable:
    """Numbers the peers of a socket: address to flow and back, bounded, least recent out first.

    Numbers grow and are not given again before 2^24 others were, so that a late reply to a
    forgotten peer never reaches another.
    """

    def __init__(self, limit: int = MAX_PEERS) -> None:
        self.limit = limit
        self.evicted = 0
        self._flows: OrderedDict[SocketAddress, int] = OrderedDict()
        self._addresses: dict[int, SocketAddress] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._flows)

    def flow(self, address: SocketAddress) -> int:
        """Return the number of `address`, giving it one if it is new."""
        flow = self._flows.get(address)
        if flow is not None:
            self._flows.move_to_end(address)
            return flow
        if len(self._flows) >= self.limit:
            _, oldest = self._flows.popitem(last=False)
            del self._addresses[oldest]
            self.evicted += 1
        while self._next in self._addresses:
            self._next = self._next % MAX_FLOW + 1
        flow = self._next
        self._next = flow % MAX_FLOW + 1
        self._flows[address] = flow
        self._addresses[flow] = address
        return flow

    def address(self, flow: int) -> SocketAddress | None:
        """Return the address numbered `flow`, or None when it is unknown or forgotten."""
        return self._addresses.get(flow)


class BatchSocket:
    """The part of `DatagramSocket` that bound and connected sockets share."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._closed = False
        self.local_address = plain_address(opened.getsockname())
        self.dropped = 0
        self.refused = 0

    async def receive(self, batch: Batch) -> None:
        """Wait for at least one datagram, then fill `batch` with as many as are there."""
        await checkpoint()
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            batch.clear()
            try:
                while not batch.full:
                    self._take(batch)
            except BlockingIOError:
                pass
            except OSError as error:
                if not is_path_error(error):
                    raise AdapterError(
                        Stage.FORWARDING_LOOP,
                        "local_socket_failed",
                        f"receiving: {reason(error)}",
                        "check that the network is up and that memory is left",
                    ) from None
                self.refused += 1
                if not batch.count:
                    continue
            if batch.count:
                return
            await anyio.wait_readable(self._socket)

    def close(self) -> None:
        """Release the socket; a waiting `receive` ends with `anyio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)
            self._socket.close()

    def _take(self, batch: Batch) -> None:
        raise NotImplementedError


class BoundUdpSocket(BatchSocket):
    """A bound socket that numbers its peers (`turnlane.api.DatagramSocket`)."""

    def __init__(self, opened: socket.socket, max_peers: int = MAX_PEERS) -> None:
        super().__init__(opened)
        self.peers = PeerTable(max_peers)

    def _take(self, batch: Batch) -> None:
        size, address = self._socket.recvfrom_into(batch.slot())
        batch.commit(size, self.peers.flow(address))

    def send(self, batch: Batch) -> int:
        """Send each packet to the peer its flow names; return how many the system took."""
        if self._closed:
            return 0
        sent = 0
        flows = batch.flows
        for index, packet in enumerate(batch):
            address = self.peers.address(flows[index])
            if address is None:
                self.dropped += 1
                continue
            try:
                self._socket.sendto(packet, address)
                sent += 1
            except OSError:
                self.dropped += 1
        return sent


class ConnectedUdpSocket(BatchSocket):
    """A connected socket whose packets belong to one flow (`turnlane.api.DatagramSocket`)."""

    def __init__(self, opened: socket.socket, flow: int) -> None:
        super().__init__(opened)
        self.flow = flow

    def _take(self, batch: Batch) -> None:
        batch.commit(self._socket.recv_into(batch.slot()), self.flow)

    def send(self, batch: Batch) -> int:
        """Send every packet to the peer; return how many the system took."""
        if self._closed:
            return 0
        sent = 0
        for packet in batch:
            try:
                self._socket.send(packet)
                sent += 1
            except OSError:
                self.dropped += 1
        return sent


class ListeningUdpSocket:
    """The socket of a server that tells its peers apart by address."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._closed = False
        self.local_address = plain_address(opened.getsockname())
        self.dropped = 0

    @classmethod
    async def bind(cls, host: str, port: int) -> "ListeningUdpSocket":
        """Bind to an address; raises `TransportError` at `listen`."""
        family, address = await resolve(
            host, port, socket.SOCK_DGRAM, stage=Stage.LISTEN, code="listen_name_unresolved"
        )
        try:
            return cls(open_socket(family, socket.SOCK_DGRAM, bind=address))
        except OSError as error:
            raise TransportError(
                Stage.LISTEN,
                "listen_failed",
                f"cannot listen on {host} port {port}: {reason(error)}",
                "choose another address with --listen, or stop what uses this one",
            ) from None

    async def receive(self) -> list[tuple[bytes, SocketAddress]]:
        """Wait for at least one datagram and return as many as are there, with their sources."""
        await checkpoint()
        taken: list[tuple[bytes, SocketAddress]] = []
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            try:
                while len(taken) < RECEIVE_LIMIT:
                    taken.append(self._socket.recvfrom(MAX_DATAGRAM))
            except BlockingIOError:
                pass
            except OSError as error:
                # What ICMP says of one peer says nothing about the others.
                if not is_path_error(error):
                    raise TransportError(
                        Stage.LISTEN,
                        "listen_socket_failed",
                        f"receiving: {reason(error)}",
                        "check that the network is up and that memory is left",
                    ) from None
                if not taken:
                    continue
            if taken:
                return taken
            await anyio.wait_readable(self._socket)

    def send(self, data: bytes, address: SocketAddress) -> None:
        """Send one datagram now; what the system does not take is dropped and counted."""
        try:
            self._socket.sendto(data, address)
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        """Release the socket; a waiting `receive` ends with `anyio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)
            self._socket.close()
