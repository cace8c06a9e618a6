"""The two ends of a lane whose client arrives in one process and whose session lives in another."""

from turnlane.api.batch import Batch
from turnlane.net.dtls_state import AssociationStateError
from turnlane.proto.frames import Bye, ByeCode
from turnlane.proto.lane_server import LaneServer
from turnlane.relay.lane_link import LaneLink
from turnlane.relay.lane_messages import Joining, Kind, Refused
from turnlane.relay.listener import ServerPort
from turnlane.relay.server_lane import ServerLane
from turnlane.relay.session_lane import LAYOUT, PeerLane, RefusedReplies, SessionLane
from turnlane.relay.workspace import Workspace


class OwnedLane(SessionLane):
    """The owner's end: the protocol and the session are here, the association is elsewhere."""

    def __init__(
        self,
        link: LaneLink,
        number: int,
        joining: Joining,
        protocol: LaneServer,
        *,
        port: ServerPort,
        workspace: Workspace,
        on_too_large: RefusedReplies,
        now: float,
    ) -> None:
        super().__init__(
            (link, number),
            joining.address,
            protocol,
            overhead=joining.overhead,
            port=port,
            workspace=workspace,
            on_too_large=on_too_large,
            now=now,
        )
        self._link = link
        self._number = number
        self._ended = False

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send packets of `batch` to the client."""
        sizes, most = batch.sizes, self.max_datagram
        sent, large = 0, 0
        largest = max(sizes[start:stop], default=0)
        if largest > most:
            for index in range(start, stop):
                if sizes[index] > most:
                    sent += self._send(batch, start, index)
                    large += 1
                    start = index + 1
        sent += self._send(batch, start, stop)
        if large:
            self.refuse(large, largest)
        health = self._protocol.health
        if health is not None and sent:
            health.note_sent(sent, self._workspace.clock())

    def _send(self, batch: Batch, start: int, stop: int) -> int:
        return self._link.send_payload(Kind.SEND, self._number, batch, start, stop)

    def refused(self, refused: Refused) -> None:
        """Take note of what the holder could not send."""
        if refused.count:
            self.refuse(refused.count, refused.size)
        elif self._protocol.path is not None:
            # A probe: that the system knows better by now is what it was for.
            self._measure(self._workspace.clock())
        self.flush()

    def flush(self) -> None:
        """Send what the protocol has to say."""
        self._follow_path()
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
        joining = Joining(exporter, self._lane.address, self._lane.association.overhead, hello)
        self.link.send_surely(Kind.JOIN, self.number, *joining.records())

    def carry(self, batch: Batch, now: float) -> None:  # noqa: ARG002 - the owner's clock counts
        """Pass payload of the client on."""
        self.link.send_payload(Kind.CARRIED, self.number, batch, 0, batch.count)

    def receive(self, records: list[bytes], now: float) -> None:  # noqa: ARG002
        """Pass other records of the client on."""
        for record in records:
            self.link.send(Kind.RECEIVED, self.number, record)

    def deliver(self, batch: Batch) -> None:
        """Send payload of the owner to the client."""
        association, start, sent = self._lane.association, 0, 0
        refused = self._port.too_large + association.unsealed
        try:
            while start < batch.count:
                start = association.seal(LAYOUT, batch, start, batch.count, self._sealed)
                sent += self._port.send_batch(self._sealed, self._target)
        except AssociationStateError:
            return  # the association has just ended; its event is on the way
        if sent < batch.count:
            count = self._port.too_large + association.unsealed - refused
            if count:
                self._refuse(Refused(count, max(batch.sizes[: batch.count])))

    def say(self, *records: bytes) -> None:
        """Send other records of the owner to the client."""
        refused = self._port.too_large
        try:
            for record in records:
                self._port.send(self._lane.association.encrypt(record), self._lane.address)
        except AssociationStateError:
            return  # the association has just ended; its event is on the way
        if self._port.too_large > refused:
            self._refuse(Refused(0, 0))

    def _refuse(self, refused: Refused) -> None:
        self.link.send(Kind.REFUSED, self.number, refused.record())

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
