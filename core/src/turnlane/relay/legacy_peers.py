"""The peers of the legacy port: raw datagrams, one upstream socket each, nobody authenticated.

That is what the Go prototypes speak; docs/compatibility.md says what of it is served.
"""

from collections.abc import Callable

from anyio.abc import TaskGroup

from turnlane.api.adapters import DatagramEgress
from turnlane.api.batch import Batch
from turnlane.api.errors import AdapterError
from turnlane.net.dtls import MAX_PAYLOAD, AssociationStateError, DtlsAssociation
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.system import SocketAddress
from turnlane.relay.flows import FlowTable, Forwarder
from turnlane.relay.listener import ServerObserver, shown

FLOW = 1
"""The one flow of a legacy peer."""


class LegacyPeer:
    """One association and its upstream socket."""

    def __init__(
        self,
        association: DtlsAssociation,
        address: SocketAddress,
        transmit: Callable[[bytes, SocketAddress], None],
        now: float,
    ) -> None:
        self.association = association
        self.address = address
        self.last_heard = now
        self.unsendable = 0
        self.flows: FlowTable | None = None
        self._transmit = transmit

    def deliver(self, batch: Batch) -> None:
        """Send replies to the client, one datagram a record."""
        association = self.association
        try:
            for packet in batch:
                if 0 < len(packet) <= MAX_PAYLOAD:
                    self._transmit(association.encrypt(packet), self.address)
                else:
                    self.unsendable += 1
        except AssociationStateError:
            return  # the association has just ended; its event is on the way


class LegacyPeers:
    """Handles the peers of a legacy port (`turnlane.relay.listener.PeerHandler`)."""

    def __init__(
        self,
        dtls: DtlsServer,
        egress: DatagramEgress,
        tasks: TaskGroup,
        *,
        idle_timeout: float,
        transmit: Callable[[bytes, SocketAddress], None],
        observer: ServerObserver,
    ) -> None:
        self.peers: dict[SocketAddress, LegacyPeer] = {}
        self._dtls = dtls
        self._egress = egress
        self._tasks = tasks
        self._idle_timeout = idle_timeout
        self._transmit = transmit
        self._observer = observer
        self._forwarder = Forwarder()
        self._replies = Batch()

    def accepted(self, address: SocketAddress, association: DtlsAssociation, now: float) -> None:
        """Give a peer its upstream."""
        peer = LegacyPeer(association, address, self._transmit, now)

        def on_failure(flow: int, error: AdapterError) -> None:
            self._observer.flow_failed(f"legacy {shown(address)}", flow, error)

        peer.flows = FlowTable(
            self._tasks,
            self._egress,
            deliver=peer.deliver,
            on_failure=on_failure,
            replies=self._replies,
            limit=1,
        )
        self.peers[address] = peer
        self._observer.peer_accepted(shown(address), "legacy", 0, new_session=True, traceparent="")

    def received(self, address: SocketAddress, records: list[bytes], now: float) -> None:
        """Send each record upstream as one datagram."""
        peer = self.peers.get(address)
        if peer is None or peer.flows is None:
            return
        peer.last_heard = now
        for record in records:
            self._forwarder.add(peer.flows, FLOW, record)

    def closed(self, address: SocketAddress, reason: str, now: float) -> None:  # noqa: ARG002
        """Close the upstream of a peer that has gone."""
        peer = self.peers.pop(address, None)
        if peer is not None and peer.flows is not None:
            peer.flows.close()
            self._observer.peer_lost("legacy", 0, reason)

    def burst_ended(self) -> None:
        """Send on what the burst has left."""
        self._forwarder.flush()

    def tick(self, now: float) -> None:
        """End the peers that were silent for too long."""
        for address, peer in list(self.peers.items()):
            if now - peer.last_heard >= self._idle_timeout:
                self._dtls.drop(address)
                self.closed(address, "idle", now)

    def close(self, now: float) -> None:
        """End every peer."""
        for address in list(self.peers):
            self._dtls.drop(address)
            self.closed(address, "shutdown", now)
