"""The health of a lane: pings, liveness, round trip and loss, on a clock that is handed in.

Both ends measure. A lane that carries payload, or waits for an answer, is pinged every
`busy_interval`; a quiet one `quiet_interval` after it was last heard. The data path tells in whole
batches what it sent and received; the counters that pings and pongs carry count payload frames.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from turnlane.proto.frames import COUNTER_MASK, Ping, Pong
from turnlane.proto.lane_estimate import LaneEstimate, Mark

MAX_OUTSTANDING: Final = 64
"""Pings that are remembered until their pong comes; older ones are forgotten."""

MAX_PONGS: Final = 16
"""Pongs that wait to be sent; pings beyond that stay unanswered."""

_CLOCK_MASK: Final = 2**64 - 1

LOSS_SAMPLE: Final = 32
"""Payload frames that an interval must have for its loss to mean anything."""


@dataclass(frozen=True)
class HealthSettings:
    """When to ping and when to give a lane up. All in seconds, but for `dead_pings`.

    A lane is dead when nothing was received for `dead_after` and none of the last `dead_pings`
    pings was answered, the last of them within `busy_interval`. A quiet lane that breaks is found
    dead after at most `quiet_interval + dead_pings * busy_interval` or `dead_after`, whichever is
    later.
    """

    quiet_interval: float = 5.0
    busy_interval: float = 1.0
    dead_after: float = 6.0
    dead_pings: int = 4


CLIENT_HEALTH: Final = HealthSettings()

SERVER_HEALTH: Final = HealthSettings(quiet_interval=8.0)
"""Longer than the client's silence: a quiet lane is pinged by one end, unless that one is gone."""


@dataclass(frozen=True)
class LaneDead:
    """The lane has died; nothing was received for `silence` seconds."""

    silence: float


class RoundTrip:
    """Smoothed round-trip time as RFC 6298, section 2, in seconds; None before the first pong."""

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0
        self.minimum: float | None = None

    def add(self, sample: float) -> None:
        """Take one measured round trip."""
        if self.smoothed is None or self.minimum is None:
            self.smoothed = self.minimum = sample
            self.variation = sample / 2
            return
        self.variation += (abs(self.smoothed - sample) - self.variation) / 4
        self.smoothed += (sample - self.smoothed) / 8
        self.minimum = min(self.minimum, sample)


class Loss:
    """The part of payload frames lost in one direction, from 0 to 1; None before it is known.

    Fed with pairs of counters (sent, received) that were read at the same place in the stream of
    frames; each interval of at least `LOSS_SAMPLE` frames moves the estimate by a quarter.
    """

    def __init__(self) -> None:
        self.ratio: float | None = None
        self._sent = 0
        self._received = 0

    def add(self, sent: int, received: int) -> None:
        """Take one pair of counters, modulo 2**32; one that is older than the last is ignored."""
        interval = (sent - self._sent) & COUNTER_MASK
        if not LOSS_SAMPLE <= interval <= COUNTER_MASK // 2:
            return
        arrived = (received - self._received) & COUNTER_MASK
        sample = max(0.0, 1 - arrived / interval)
        self.ratio = sample if self.ratio is None else self.ratio + (sample - self.ratio) / 4
        self._sent, self._received = sent, received


class LaneHealth:
    """Pings one lane and says when it is dead.

    A driver hands in what it has received before it calls `handle_timer`, and `note_received` for
    the payload that came before a ping before that ping: what waits in a socket's buffer is
    neither silence nor loss.
    """

    def __init__(self, settings: HealthSettings, now: float, *, ping_at_once: bool) -> None:
        self.settings = settings
        self.round_trip = RoundTrip()
        self.send_loss = Loss()
        """Of frames this end sent."""
        self.receive_loss = Loss()
        """Of frames the peer sent."""
        self.estimate = LaneEstimate()
        """What the lane bears of what this end sends; whoever spreads payload feeds it."""
        self.frames_sent = 0
        self.frames_received = 0
        self.last_payload_at = now
        """When payload was last carried, either way: what an idle timeout goes by."""
        self.heard = False
        """Whether a frame of the established lane has come from the peer."""
        self.pings_sent = 0
        self.stale_pongs = 0
        self.dropped_pongs = 0
        self._last_heard = now
        self._last_ping = now - settings.busy_interval if ping_at_once else now
        self._ping_wanted = ping_at_once
        self._unanswered = 0
        self._enough_unanswered_at = now
        self._sequence = 0
        self._outstanding: dict[int, tuple[Mark, int]] = {}
        self._pongs: deque[bytes] = deque()
        self._pings: deque[bytes] = deque()
        self._dead: LaneDead | None = None
        self._dead_told = False

    @property
    def busy(self) -> bool:
        """Whether payload has passed since the last ping, so that the next one comes soon."""
        return self._ping_wanted

    def note_sent(self, count: int, now: float) -> None:
        """Count payload frames that were sent."""
        self.frames_sent = (self.frames_sent + count) & COUNTER_MASK
        self.last_payload_at = now
        self._ping_wanted = True

    def note_received(self, count: int, now: float) -> None:
        """Count payload frames that were received."""
        self.frames_received = (self.frames_received + count) & COUNTER_MASK
        self.last_payload_at = now
        self._ping_wanted = True
        self.heard = True
        self.note_alive(now)

    def note_alive(self, now: float) -> None:
        """Take note that some record came from the peer, whatever it was."""
        self._last_heard = now
        self._unanswered = 0

    def receive_ping(self, ping: Ping, now: float) -> None:
        """Answer a ping."""
        self.heard = True
        self.note_alive(now)
        self.receive_loss.add(ping.frames_sent, self.frames_received)
        if len(self._pongs) == MAX_PONGS:
            self.dropped_pongs += 1
            return
        arrived = round(now * 1e6) & _CLOCK_MASK
        self._pongs.append(Pong(ping.sequence, self.frames_received, arrived).encode())

    def receive_pong(self, pong: Pong, now: float) -> None:
        """Measure by a pong; one that answers no outstanding ping is counted and ignored."""
        self.heard = True
        self.note_alive(now)
        asked = self._outstanding.pop(pong.sequence, None)
        if asked is None:
            self.stale_pongs += 1
            return
        mark, frames_sent = asked
        self.round_trip.add(now - mark.time)
        self.send_loss.add(frames_sent, pong.frames_received)
        arrived = None if pong.arrived is None else pong.arrived / 1e6
        self.estimate.answered(mark, pong.frames_received, arrived, now)

    def probe(self, now: float) -> None:
        """Ping only to measure: whether the lane lives is judged by the other pings."""
        if self._dead is None:
            self._ask(now)

    def records_to_send(self) -> list[bytes]:
        """Give up the pings and pongs to send."""
        records = [*self._pongs, *self._pings]
        self._pongs.clear()
        self._pings.clear()
        return records

    def get_timer(self) -> float | None:
        """Say when `handle_timer` wants to be called; None once the lane is dead."""
        if self._dead is not None:
            return None
        due = self._ping_due()
        if self._unanswered >= self.settings.dead_pings:
            return min(due, self._death_due())
        return due

    def handle_timer(self, now: float) -> None:
        """Ping, or give the lane up, if that is due at `now`."""
        if self._dead is not None:
            return
        if self._unanswered >= self.settings.dead_pings and now >= self._death_due():
            self._dead = LaneDead(now - self._last_heard)
        elif now >= self._ping_due():
            self._ping(now)

    def next_event(self) -> LaneDead | None:
        """Give up the one event there is, once."""
        if self._dead is None or self._dead_told:
            return None
        self._dead_told = True
        return self._dead

    def _ping_due(self) -> float:
        if self._ping_wanted or self._unanswered:
            return self._last_ping + self.settings.busy_interval
        return max(self._last_ping, self._last_heard) + self.settings.quiet_interval

    def _death_due(self) -> float:
        return max(
            self._last_heard + self.settings.dead_after,
            self._enough_unanswered_at + self.settings.busy_interval,
        )

    def _ask(self, now: float) -> None:
        self._sequence = (self._sequence + 1) & COUNTER_MASK
        if len(self._outstanding) == MAX_OUTSTANDING:
            del self._outstanding[next(iter(self._outstanding))]
        self._outstanding[self._sequence] = (self.estimate.asked(now), self.frames_sent)
        self._pings.append(Ping(self._sequence, self.frames_sent).encode())
        self.pings_sent += 1

    def _ping(self, now: float) -> None:
        self._ask(now)
        self._last_ping = now
        self._ping_wanted = False
        self._unanswered += 1
        if self._unanswered == self.settings.dead_pings:
            self._enough_unanswered_at = now
