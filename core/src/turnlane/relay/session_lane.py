"""A lane of the server, wherever its association is: the session protocol and what it decides."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable

from turnlane.api.batch import Batch
from turnlane.net.dtls import MAX_PAYLOAD
from turnlane.net.record_layout import RecordLayout
from turnlane.net.system import SocketAddress
from turnlane.proto.frames import HEADER_SIZE, ByeCode, datagram_flow, datagram_header
from turnlane.proto.hello import Hello
from turnlane.proto.lane_estimate import LaneEstimate
from turnlane.proto.lane_events import ServerEvent
from turnlane.proto.lane_server import LaneServer
from turnlane.proto.path_mtu import largest_datagram
from turnlane.relay.listener import ServerPort, shown
from turnlane.relay.server_session import ServerSession
from turnlane.relay.workspace import Workspace

LAYOUT = RecordLayout(channel=None, padded=False, framed=True, most=MAX_PAYLOAD)
"""Of what comes; what is sent is bounded by the path."""

MEASURE_INTERVAL = 30.0
"""Seconds after which the system is asked again what it knows of the path."""


class PeerLane(ABC):
    """What a peer of the main port is to its port: somebody who sends, and who can be left.

    `key` is what it is found by, `name` how logs call it. `session` is the session that it has
    joined in this process, as lane `index`.
    """

    def __init__(self, key: Hashable, name: str) -> None:
        self.key = key
        self.name = name
        self.session: ServerSession | None = None
        self.index = 0

    @property
    def confirmed(self) -> bool:
        """Whether the client is known to have been let in: before that it drops payload."""
        return False

    @abstractmethod
    def carry(self, batch: Batch, now: float) -> None:
        """Take payload of the client."""

    @abstractmethod
    def receive(self, records: list[bytes], now: float) -> None:
        """Take records that are something else, or came in unusual company."""

    @abstractmethod
    def close(self, code: ByeCode, now: float) -> None:
        """Say bye, end the association and leave the session."""

    @abstractmethod
    def release(self) -> None:
        """Give back what the association holds; it is ended where it has not ended."""

    def greeting(self, record: bytes) -> Hello | None:  # noqa: ARG002 - for those that wait for one
        """Return the hello in `record` where the lane waits for one and would take this one."""
        return None

    def flush(self) -> None:  # noqa: B027 - for those that have what it is for
        """Send what there is to say."""

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due; None where nothing waits for time to pass."""
        return None

    def handle_timer(self, now: float) -> None:  # noqa: B027 - for those that have what it is for
        """Do what is due."""

    def next_event(self) -> ServerEvent | None:
        """Give up the next event of the protocol."""
        return None

    def drain(self, deadline: float, now: float) -> None:  # noqa: B027 - for those that have what it is for
        """Tell the client that the server ends at `deadline`."""


class SessionLane(PeerLane):
    """A lane whose protocol runs here; subclasses know the way to its client.

    `overhead` is how many bytes a record is longer than its payload; `on_too_large` hears how many
    datagrams were refused, and the size of the largest.
    """

    def __init__(
        self,
        key: Hashable,
        address: SocketAddress,
        protocol: LaneServer,
        *,
        overhead: int,
        port: ServerPort,
        workspace: Workspace,
        on_too_large: "RefusedReplies",
        now: float,
    ) -> None:
        super().__init__(key, shown(address))
        self.address = address
        self.too_large = 0
        """Datagrams that the path does not bear."""
        self.max_datagram = MAX_PAYLOAD - HEADER_SIZE
        """Bytes of the largest datagram that is sent."""
        self._overhead = overhead
        self._port = port
        self._workspace = workspace
        self._on_too_large = on_too_large
        self._measure_at = now
        self._protocol = protocol
        self._protocol.start(now)

    @abstractmethod
    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send packets of `batch` to the client."""

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
                header = datagram_header(batch.flows[index])
                self._protocol.receive(header + bytes(batch.packet(index)), now)
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

    def greeting(self, record: bytes) -> Hello | None:
        """Return the hello in `record` where the lane waits for one and would take this one."""
        return self._protocol.greeting(record)

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
        self.end()
        if self.session is not None:
            self.session.detach(self.index, self, now)
            self.session = None

    @abstractmethod
    def end(self) -> None:
        """End the association."""

    def refuse(self, count: int, size: int) -> None:
        """Take note of datagrams that the path does not bear, the largest of `size` bytes."""
        self.too_large += count
        if self._protocol.path is not None:
            self._measure(self._workspace.clock())
        self._on_too_large(self, count, size)

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
            fits = largest_datagram(payload, channel=False, record=self._overhead, framed=True)
            bound = min(bound, fits)
        if path.begun:
            path.bound(bound, now)
        else:
            path.begin(bound, now)
        self._go_by(path.max_datagram)

    def _go_by(self, max_datagram: int) -> None:
        self.max_datagram = max_datagram


RefusedReplies = Callable[[SessionLane, int, int], None]
