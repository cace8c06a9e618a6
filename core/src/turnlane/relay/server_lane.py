"""One lane at the server: a DTLS association with a client, and the session it has joined."""

from turnlane.api.batch import Batch
from turnlane.api.secrets import Secret
from turnlane.net.dtls import MAX_PAYLOAD, AssociationStateError, DtlsAssociation
from turnlane.net.record_layout import RecordLayout
from turnlane.net.system import SocketAddress
from turnlane.proto.frames import HEADER_SIZE, ByeCode, datagram_flow
from turnlane.proto.hello import EXPORTER_LABEL, EXPORTER_SIZE, WelcomeTerms
from turnlane.proto.lane_estimate import LaneEstimate
from turnlane.proto.lane_events import ServerEvent
from turnlane.proto.lane_server import LaneServer, SessionDirectory
from turnlane.relay.listener import ServerPort
from turnlane.relay.server_session import ServerSession
from turnlane.relay.workspace import Workspace

LAYOUT = RecordLayout(channel=None, padded=False, framed=True, most=MAX_PAYLOAD)


class ServerLane:
    """Drives the session protocol of one association and moves its payload."""

    def __init__(
        self,
        address: SocketAddress,
        association: DtlsAssociation,
        *,
        token: Secret[bytes] | None,
        directory: SessionDirectory,
        terms: WelcomeTerms,
        hello_timeout: float,
        port: ServerPort,
        workspace: Workspace,
        now: float,
    ) -> None:
        self.address = address
        self.association = association
        self.session: ServerSession | None = None
        self.index = 0
        self._port = port
        self._target = port.target(address)
        self._workspace = workspace
        self._protocol = LaneServer(
            exporter=association.export(EXPORTER_LABEL, EXPORTER_SIZE),
            token=token,
            directory=directory,
            terms=terms,
            timeout=hello_timeout,
        )
        self._protocol.start(now)

    @property
    def confirmed(self) -> bool:
        """Whether the client is known to have been let in: before that it drops payload."""
        return self._protocol.confirmed

    @property
    def ready(self) -> bool:
        """Whether payload may be sent to the client now."""
        return self.session is not None and self._protocol.confirmed

    @property
    def estimate(self) -> LaneEstimate | None:
        """What is known of the way to the client; None before the lane is established."""
        health = self._protocol.health
        return None if health is None else health.estimate

    @property
    def backlog(self) -> int:
        """Nothing waits here: the relay sends datagrams."""
        return 0

    def probe(self, now: float) -> None:
        """Ping the client to measure the way there."""
        if self._protocol.health is not None:
            self._protocol.health.probe(now)
            self.flush()

    def carry(self, batch: Batch, now: float) -> None:
        """Take payload of the client: it goes upstream once the lane has joined a session."""
        session, health = self.session, self._protocol.health
        if session is None or health is None:
            for index in range(batch.count):
                self._protocol.receive(_whole(batch, index), now)
            return
        # Before a ping that may follow it: its pong counts what came before.
        health.note_received(batch.count, now)
        session.forward(self, batch, now)

    def receive(self, records: list[bytes], now: float) -> None:
        """Take records that are something else, or came in unusual company."""
        opened = self._workspace.opened
        for record in records:
            flow = datagram_flow(record) if self.session is not None else -1
            if flow < 0:
                self._protocol.receive(record, now)
            else:
                opened.append(memoryview(record)[HEADER_SIZE:], flow)
                self.carry(opened, now)
                opened.clear()

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
        """Send what the protocol has to say."""
        try:
            for record in self._protocol.records_to_send():
                self._port.send(self.association.encrypt(record), self.address)
        except AssociationStateError:
            pass  # the association has just ended; its event is on the way
        for datagram in self.association.datagrams_to_send():
            self._port.send(datagram, self.address)

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due."""
        return self._protocol.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._protocol.handle_timer(now)
        self.flush()

    def next_event(self) -> ServerEvent | None:
        """Give up the next event of the protocol."""
        return self._protocol.next_event()

    def drain(self, deadline: float, now: float) -> None:
        """Tell the client that the server ends at `deadline`."""
        self._protocol.drain(deadline, now)
        self.flush()

    def close(self, code: ByeCode, now: float) -> None:
        """Say bye, end the association and leave the session."""
        self._protocol.leave(code)
        self.flush()
        self.association.close()
        self.flush()
        if self.session is not None:
            self.session.detach(self.index, self, now)
            self.session = None


def _whole(batch: Batch, index: int) -> bytes:
    """Return the record that a packet of `batch` was opened from."""
    start = batch.starts[index]
    return bytes(batch.view[start - HEADER_SIZE : start + batch.sizes[index]])
