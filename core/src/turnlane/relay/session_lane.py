"""A lane of the server, wherever its association is: the session protocol and what it decides."""

from abc import ABC, abstractmethod
from collections.abc import Hashable

from turnlane.api.batch import Batch
from turnlane.proto.frames import HEADER_SIZE, ByeCode, datagram_flow, datagram_header
from turnlane.proto.hello import Hello
from turnlane.proto.lane_estimate import LaneEstimate
from turnlane.proto.lane_events import ServerEvent
from turnlane.proto.lane_server import LaneServer
from turnlane.relay.server_session import ServerSession
from turnlane.relay.workspace import Workspace


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
    """A lane whose protocol runs here; subclasses know the way to its client."""

    def __init__(
        self, key: Hashable, name: str, protocol: LaneServer, workspace: Workspace, now: float
    ) -> None:
        super().__init__(key, name)
        self._workspace = workspace
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
