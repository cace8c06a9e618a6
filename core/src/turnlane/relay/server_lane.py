"""One lane at the server whose DTLS association with the client is in this process."""

from turnlane.api.batch import Batch
from turnlane.net.dtls import MAX_PAYLOAD, AssociationStateError, DtlsAssociation
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.record_layout import RecordLayout
from turnlane.net.system import SocketAddress
from turnlane.proto.lane_server import LaneServer
from turnlane.relay.listener import ServerPort, shown
from turnlane.relay.session_lane import SessionLane
from turnlane.relay.workspace import Workspace

LAYOUT = RecordLayout(channel=None, padded=False, framed=True, most=MAX_PAYLOAD)


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
        now: float,
    ) -> None:
        super().__init__(address, shown(address), protocol, workspace, now)
        self.address = address
        self.association = association
        self._dtls = dtls
        self._port = port
        self._target = port.target(address)

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send packets of `batch` to the client."""
        sealed = self._workspace.sealed
        sent = 0
        try:
            while start < stop:
                start = self.association.seal(LAYOUT, batch, start, stop, sealed)
                sent += self._port.send_batch(sealed, self._target)
        except AssociationStateError:
            return  # the association has just ended; its event is on the way
        health = self._protocol.health
        if health is not None and sent:
            health.note_sent(sent, self._workspace.clock())

    def flush(self) -> None:
        """Send what the protocol and DTLS have to say."""
        try:
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
