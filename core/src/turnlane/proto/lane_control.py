"""What an established lane says besides payload: pings and pongs, drain, bye. Both ends use it."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from turnlane.proto.frames import (
    COUNTER_MASK,
    Bye,
    ByeCode,
    Datagram,
    Drain,
    Ping,
    Pong,
    Probe,
    ProbeAnswer,
    Record,
    SessionProtocolError,
    UnknownFrame,
    parse_untrusted,
)
from turnlane.proto.lane_events import PeerDraining, PeerLeft
from turnlane.proto.lane_health import HealthSettings, LaneDead, LaneHealth
from turnlane.proto.path_probe import PathProbe

DRAIN_INTERVAL: Final = 1.0
"""Seconds between two drains; any of them may be lost."""


@dataclass
class LaneStatistics:
    """What a lane's machine ignored, each kind counted. Payload is counted by `LaneHealth`."""

    early_frames: int = 0
    """Frames that came before the welcome: not payload, since nothing is proven."""
    repeats: int = 0
    """Handshake messages that came again, as they do when one is lost or late."""
    unexpected: int = 0
    """What the protocol allows, but not from this peer or not now."""
    unknown: int = 0
    """Kinds of frames and types of control frames that this version does not know."""
    malformed: int = 0
    """Records that are nothing."""


class LaneControl:
    """The control frames of one established lane. It ends with a bye, from either end.

    `probes` says that both ends have agreed on probes of the path; who drives the lane begins them.
    """

    def __init__(
        self,
        settings: HealthSettings,
        statistics: LaneStatistics,
        now: float,
        *,
        ping_at_once: bool,
        probes: bool,
    ) -> None:
        self.health = LaneHealth(settings, now, ping_at_once=ping_at_once)
        self.path = PathProbe(agreed=probes)
        self.ended = False
        self._statistics = statistics
        self._peer_drains = False
        self._drain_deadline: float | None = None
        self._next_drain: float | None = None
        self._outgoing: deque[bytes] = deque()
        self._events: deque[PeerDraining | PeerLeft | LaneDead] = deque()

    def receive(self, record: Record, now: float) -> None:
        """Take one record of a lane that has not ended; count and ignore what is of no use."""
        self.health.note_alive(now)
        try:
            frame = parse_untrusted(record)
        except SessionProtocolError:
            self._statistics.malformed += 1
            return
        match frame:
            case Ping():
                self.health.receive_ping(frame, now)
            case Pong():
                self.health.receive_pong(frame, now)
            case Drain():
                if not self._peer_drains:
                    self._peer_drains = True
                    self._events.append(PeerDraining(now + frame.deadline_ms / 1000))
            case Bye():
                self._end()
                self._events.append(PeerLeft(frame.code))
            case Probe() if self.path.agreed:
                self.path.receive_probe(frame, now)
            case ProbeAnswer() if self.path.agreed:
                self.path.receive_answer(frame, now)
            case UnknownFrame():
                self._statistics.unknown += 1
            case Datagram() | Probe() | ProbeAnswer():
                self._statistics.unexpected += 1

    def drain(self, deadline: float, now: float) -> None:
        """Tell the peer, now and every `DRAIN_INTERVAL` until it leaves, when this end ends."""
        if self.ended:
            return
        self._drain_deadline = deadline
        self._next_drain = now
        self._tell_drain(now)

    def leave(self, code: ByeCode) -> None:
        """Say bye; nothing else is said on this lane."""
        if self.ended:
            return
        self._end()
        self._outgoing.append(Bye(code).encode())

    def records_to_send(self) -> list[bytes]:
        """Give up what is to be sent."""
        records = list(self._outgoing)
        self._outgoing.clear()
        if self.ended:
            return records
        return records + self.health.records_to_send() + self.path.records_to_send()

    def get_timer(self) -> float | None:
        """Say when `handle_timer` wants to be called, or None."""
        if self.ended:
            return None
        timers = (self.health.get_timer(), self.path.get_timer(), self._next_drain)
        return min((timer for timer in timers if timer is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        if self.ended:
            return
        self._tell_drain(now)
        self.path.handle_timer(now, self.health.last_payload_at)
        self.health.handle_timer(now)
        dead = self.health.next_event()
        if dead is not None:
            # The way there may work where the way back does not.
            self.leave(ByeCode.LANE_DEAD)
            self._events.append(dead)

    def next_event(self) -> PeerDraining | PeerLeft | LaneDead | None:
        """Give up the next event, or None."""
        return self._events.popleft() if self._events else None

    def _tell_drain(self, now: float) -> None:
        if self._drain_deadline is None or self._next_drain is None or now < self._next_drain:
            return
        remaining = max(0.0, self._drain_deadline - now)
        self._outgoing.append(Drain(min(round(remaining * 1000), COUNTER_MASK)).encode())
        self._next_drain = now + DRAIN_INTERVAL if remaining else None

    def _end(self) -> None:
        self.ended = True
        self._outgoing.clear()
