"""One lane at the server whose DTLS association with the client is in this process."""

from turnlane.api.batch import Batch
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.dtls_state import AssociationStateError
from turnlane.net.record_layout import RecordLayout
from turnlane.net.system import SocketAddress
from turnlane.proto.frames import HEADER_SIZE
from turnlane.proto.lane_server import LaneServer
from turnlane.relay.listener import ServerPort
from turnlane.relay.session_lane import LAYOUT, RefusedReplies, SessionLane
from turnlane.relay.workspace import Workspace


class ServerLane(SessionLane):
    """Seals what goes to the client and sends it from the port."""

    def __init__(
        self,
        address: SocketAddress,
        association: DtlsAssociation,
        protocol: LaneServer,
        *,
        dtls: DtlsServer,
        port: ServerPort,
        workspace: Workspace,
        on_too_large: RefusedReplies,
        now: float,
    ) -> None:
        super().__init__(
            address,
            address,
            protocol,
            overhead=association.overhead,
            port=port,
            workspace=workspace,
            on_too_large=on_too_large,
            now=now,
        )
        self.association = association
        self._dtls = dtls
        self._target = port.target(address)
        self._layout = LAYOUT

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send packets of `batch` to the client."""
        sealed = self._workspace.sealed
        sent, first = 0, start
        refused = self._port.too_large + self.association.unsealed
        try:
            while start < stop:
                start = self.association.seal(self._layout, batch, start, stop, sealed)
                sent += self._port.send_batch(sealed, self._target)
        except AssociationStateError:
            return  # the association has just ended; its event is on the way
        if sent < stop - first:
            count = self._port.too_large + self.association.unsealed - refused
            if count:
                self.refuse(count, max(batch.sizes[first:stop]))
        health = self._protocol.health
        if health is not None and sent:
            health.note_sent(sent, self._workspace.clock())

    def flush(self) -> None:
        """Send what the protocol and DTLS have to say."""
        self._follow_path()
        refused = self._port.too_large
        try:
            for record in self._protocol.records_to_send():
                self._port.send(self.association.encrypt(record), self.address)
            if self._port.too_large > refused:
                # A probe: that the system knows better by now is what it was for.
                self._measure(self._workspace.clock())
                for record in self._protocol.records_to_send():
                    self._port.send(self.association.encrypt(record), self.address)
        except AssociationStateError:
            pass  # the association has just ended; its event is on the way
        for datagram in self.association.datagrams_to_send():
            self._port.send(datagram, self.address)

    def end(self) -> None:
        """End the association, telling the client at once."""
        self.association.close()
        self.flush()

    def release(self) -> None:
        """Have the port forget the association, unless another has its place by now."""
        if self._dtls.association(self.address) is self.association:
            self._dtls.drop(self.address)

    def _go_by(self, max_datagram: int) -> None:
        super()._go_by(max_datagram)
        most = max_datagram + HEADER_SIZE
        if most != self._layout.most:
            self._layout = RecordLayout(channel=None, padded=False, framed=True, most=most)
