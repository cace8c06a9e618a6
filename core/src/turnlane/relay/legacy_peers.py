"""The peers of the legacy port: raw datagrams, one upstream socket each, nobody authenticated.

That is what the Go prototypes speak; docs/compatibility.md says what of it is served.
"""

from anyio.abc import TaskGroup

from turnlane.api.adapters import DatagramEgress
from turnlane.api.batch import Batch
from turnlane.api.errors import AdapterError
from turnlane.net.dtls import MAX_PAYLOAD, DtlsAssociation
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.dtls_state import AssociationStateError
from turnlane.net.record_layout import RecordLayout
from turnlane.net.system import SocketAddress
from turnlane.relay.flows import FlowTable
from turnlane.relay.listener import ServerObserver, ServerPort, shown
from turnlane.relay.workspace import Workspace

FLOW = 1
"""The one flow of a legacy peer."""

LAYOUT = RecordLayout(channel=None, padded=False, framed=False, most=MAX_PAYLOAD)


class LegacyPeer:
    """One association and its upstream socket."""

    def __init__(
        self,
        association: DtlsAssociation,
        address: SocketAddress,
        port: ServerPort,
        workspace: Workspace,
        now: float,
    ) -> None:
        self.association = association
        self.last_heard = now
        self.flows: FlowTable | None = None
        self._port = port
        self._target = port.target(address)
        self._sealed = workspace.sealed

    def deliver(self, batch: Batch) -> None:
        """Send replies to the client, one datagram a record."""
        start = 0
        try:
            while start < batch.count:
                start = self.association.seal(LAYOUT, batch, start, batch.count, self._sealed)
                self._port.send_batch(self._sealed, self._target)
        except AssociationStateError:
            return  # the association has just ended; its event is on the way


class LegacyPeers:
    """Handles the peers of a legacy port (`turnlane.relay.listener.PeerHandler`)."""

    layout = LAYOUT

    def __init__(
        self,
        dtls: DtlsServer,
        egress: DatagramEgress,
        tasks: TaskGroup,
        *,
        idle_timeout: float,
        port: ServerPort,
        workspace: Workspace,
        observer: ServerObserver,
    ) -> None:
        self.peers: dict[SocketAddress, LegacyPeer] = {}
        self._dtls = dtls
        self._egress = egress
        self._tasks = tasks
        self._idle_timeout = idle_timeout
        self._port = port
        self._workspace = workspace
        self._observer = observer

    def accepted(self, address: SocketAddress, association: DtlsAssociation, now: float) -> None:
        """Give a peer its upstream."""
        peer = LegacyPeer(association, address, self._port, self._workspace, now)

        def on_failure(flow: int, error: AdapterError) -> None:
            self._observer.flow_failed(f"legacy {shown(address)}", flow, error)

        peer.flows = FlowTable(
            self._tasks,
            self._egress,
            deliver=peer.deliver,
            on_failure=on_failure,
            replies=self._workspace.received,
            limit=1,
        )
        self.peers[address] = peer
        self._observer.peer_accepted(shown(address), "legacy", 0, new_session=True, traceparent="")

    def carried(self, address: SocketAddress, batch: Batch, now: float) -> None:
        """Send payload upstream."""
        peer = self.peers.get(address)
        if peer is not None and peer.flows is not None:
            peer.last_heard = now
            peer.flows.send(FLOW, batch)

    def received(self, address: SocketAddress, records: list[bytes], now: float) -> None:
        """Send each record upstream as one datagram: there are no others."""
        opened = self._workspace.opened
        for record in records:
            opened.append(record)
            self.carried(address, opened, now)
            opened.clear()

    def closed(self, address: SocketAddress, reason: str, now: float) -> None:  # noqa: ARG002
        """Close the upstream of a peer that has gone."""
        peer = self.peers.pop(address, None)
        if peer is not None and peer.flows is not None:
            peer.flows.close()
            self._observer.peer_lost("legacy", 0, reason)

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
