"""One lane at the server: a DTLS association with a client, and the session it has joined."""

from collections.abc import Callable

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
from turnlane.proto.path_mtu import largest_datagram
from turnlane.relay.listener import ServerPort
from turnlane.relay.server_session import ServerSession
from turnlane.relay.workspace import Workspace

LAYOUT = RecordLayout(channel=None, padded=False, framed=True, most=MAX_PAYLOAD)
"""Of what comes; what is sent is bounded by the path."""

MEASURE_INTERVAL = 30.0
"""Seconds after which the system is asked again what it knows of the path."""


class ServerLane:
    """Drives the session protocol of one association and moves its payload.

    `on_too_large` hears how many datagrams were refused, and the size of the largest.
    """

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
        on_too_large: Callable[["ServerLane", int, int], None],
        now: float,
    ) -> None:
        self.address = address
        self.association = association
        self.session: ServerSession | None = None
        self.index = 0
        self.too_large = 0
        """Datagrams that the path does not bear."""
        self.max_datagram = MAX_PAYLOAD - HEADER_SIZE
        """Bytes of the largest datagram that is sent."""
        self._on_too_large = on_too_large
        self._layout = LAYOUT
        self._measure_at = now
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
                self.too_large += count
                self._measure(self._workspace.clock())
                self._on_too_large(self, count, max(batch.sizes[first:stop]))
        health = self._protocol.health
        if health is not None and sent:
            health.note_sent(sent, self._workspace.clock())

    def flush(self) -> None:
        """Send what the protocol has to say."""
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

    def _follow_path(self) -> None:
        """Begin to look for the path's MTU when the client does; keep to what is known."""
        path = self._protocol.path
        if path is None or (path.agreed and path.peer_limit is None):
            return
        now = self._workspace.clock()
        if now >= self._measure_at:
            self._measure(now)
        if path.max_datagram != self.max_datagram:
            self._go_by(path.max_datagram)

    def _measure(self, now: float) -> None:
        """Ask the system what the way to the relay bears, and go by it."""
        path = self._protocol.path
        assert path is not None
        self._measure_at = now + MEASURE_INTERVAL
        bound = MAX_PAYLOAD - HEADER_SIZE
        payload = self._port.largest_payload(self.address)
        if payload is not None:
            record = self.association.overhead
            fits = largest_datagram(payload, channel=False, record=record, framed=True)
            bound = min(bound, fits)
        if path.begun:
            path.bound(bound, now)
        else:
            path.begin(bound, now)
        self._go_by(path.max_datagram)

    def _go_by(self, max_datagram: int) -> None:
        self.max_datagram = max_datagram
        most = max_datagram + HEADER_SIZE
        if most != self._layout.most:
            self._layout = RecordLayout(channel=None, padded=False, framed=True, most=most)

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
