"""The two ends of a lane whose client arrives in one process and whose session lives in another."""

from turnlane.api.batch import Batch
from turnlane.net.dtls import AssociationStateError
from turnlane.proto.frames import Bye, ByeCode
from turnlane.proto.lane_server import LaneServer
from turnlane.relay.lane_link import LaneLink
from turnlane.relay.lane_messages import Kind
from turnlane.relay.listener import ServerPort
from turnlane.relay.server_lane import LAYOUT, ServerLane
from turnlane.relay.session_lane import PeerLane, SessionLane
from turnlane.relay.workspace import Workspace


class OwnedLane(SessionLane):
    """The owner's end: the protocol and the session are here, the association is elsewhere."""

    def __init__(
        self,
        link: LaneLink,
        number: int,
        name: str,
        protocol: LaneServer,
        *,
        workspace: Workspace,
        now: float,
    ) -> None:
        super().__init__((link, number), name, protocol, workspace, now)
        self._link = link
        self._number = number
        self._ended = False

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send packets of `batch` to the client."""
        sent = self._link.send_payload(Kind.SEND, self._number, batch, start, stop)
        health = self._protocol.health
        if health is not None and sent:
            health.note_sent(sent, self._workspace.clock())

    def flush(self) -> None:
        """Send what the protocol has to say."""
        for record in self._protocol.records_to_send():
            self._link.send(Kind.SAY, self._number, record)

    def end(self) -> None:
        """Have the holder end the association."""
        if not self._ended:
            self._ended = True
            self._link.send_surely(Kind.END, self._number)

    def release(self) -> None:
        """Have the holder end the association."""
        self.end()


class HeldLane(PeerLane):
    """The holder's end: the association is here, everything is decided elsewhere."""

    def __init__(
        self, lane: ServerLane, link: LaneLink, port: ServerPort, workspace: Workspace
    ) -> None:
        super().__init__(lane.key, lane.name)
        self.number = link.new_lane()
        self.link = link
        self._lane = lane
        self._port = port
        self._target = port.target(lane.address)
        self._sealed = workspace.sealed
        self._ended = False

    def join(self, exporter: bytes, hello: bytes) -> None:
        """Tell the owner of the lane."""
        self.link.send_surely(Kind.JOIN, self.number, exporter, self.name.encode(), hello)

    def carry(self, batch: Batch, now: float) -> None:  # noqa: ARG002 - the owner's clock counts
        """Pass payload of the client on."""
        self.link.send_payload(Kind.CARRIED, self.number, batch, 0, batch.count)

    def receive(self, records: list[bytes], now: float) -> None:  # noqa: ARG002
        """Pass other records of the client on."""
        for record in records:
            self.link.send(Kind.RECEIVED, self.number, record)

    def deliver(self, batch: Batch) -> None:
        """Send payload of the owner to the client."""
        start = 0
        try:
            while start < batch.count:
                start = self._lane.association.seal(LAYOUT, batch, start, batch.count, self._sealed)
                self._port.send_batch(self._sealed, self._target)
        except AssociationStateError:
            return  # the association has just ended; its event is on the way

    def say(self, *records: bytes) -> None:
        """Send other records of the owner to the client."""
        try:
            for record in records:
                self._port.send(self._lane.association.encrypt(record), self._lane.address)
        except AssociationStateError:
            return  # the association has just ended; its event is on the way

    def close(self, code: ByeCode, now: float) -> None:  # noqa: ARG002
        """Say bye to the client and end the association."""
        self.say(Bye(code).encode())
        self._lane.end()

    def end(self) -> None:
        """End the association, as the owner wants it: nothing more is told to the owner."""
        self._ended = True
        self._lane.end()

    def release(self) -> None:
        """Have the port forget the association, and tell the owner that it has ended."""
        self._lane.release()
        if not self._ended:
            self._ended = True
            self.link.send_surely(Kind.CLOSED, self.number)
