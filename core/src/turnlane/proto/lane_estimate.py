"""What one direction of a lane bears: its delay, its rate, and what waits at its narrowest place.

The sender keeps a model of the bottleneck: a queue that empties at `rate` bytes a second and that
every byte sent enters. A ping travels through the same queue, so each pong says how long the real
one was when its ping came to it; the model is corrected by the difference. What one sample cannot
tell, noise from change, the next ones do: nothing here needs to be exact, only to be right soon.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

from turnlane.proto.frames import COUNTER_MASK

QUEUE_SEEN: Final = 0.005
"""Seconds of waiting that are a queue; less is how hosts and relays take turns."""

QUEUE_BYTES: Final = 3000
"""Bytes that wait where there is a queue: a few packets. Hosts that are late make no rate known."""

FULL_LOSS: Final = 0.1
"""The part of an interval's frames whose loss says by itself that the lane is full."""

LEAST_RATE: Final = 1000.0
"""Bytes per second that every lane has at least: where all was lost, that was not its rate."""

INTERVAL_FRAMES: Final = 8
"""Frames that must have been sent between two pings for their pongs to tell a rate."""

LONGEST_INTERVAL: Final = 1.0
"""Seconds between two pings beyond which their pongs tell no rate: the lane may have been idle."""

LOSS_FRAMES: Final = 128
"""Frames over which loss is averaged."""

LOSS_FADES: Final = 0.9
"""What is left of the loss at a pong of a lane that nothing was sent over: it may be better now."""

GAIN: Final = 0.5
"""The part of a difference between the real queue and the model that corrects the model."""

GROWTH: Final = 2.0
"""What a rate grows by at the most, once in a round trip, when the queue is none as modelled."""

MINIMUM_WINDOW: Final = 30.0
"""Seconds of the two windows whose smallest delay is that of an empty lane."""

SILENCE: Final = 0.5
"""Seconds without a pong, beside some round trips, after which a lane that was asked is suspect."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What was known when a ping left."""

    time: float
    frames: int
    size: int
    queue: float
    corrected: float


@dataclass(frozen=True, slots=True)
class _Answer:
    mark: Mark
    received: int
    arrived: float
    waited: float


class RecentMinimum:
    """The smallest of the samples of the last one to two windows; infinite before the first."""

    def __init__(self) -> None:
        self.value = inf
        self._before = inf
        self._since = -inf

    def add(self, sample: float, now: float) -> None:
        """Take one sample."""
        if now - self._since > MINIMUM_WINDOW:
            self._before = sample if now - self._since > 2 * MINIMUM_WINDOW else self.value
            self._since, self.value = now, sample
        self.value = min(self.value, sample)

    @property
    def smallest(self) -> float:
        """The minimum."""
        return min(self.value, self._before)


class LaneEstimate:
    """The sending direction of one lane, as its sender sees it. Times in seconds, sizes in bytes.

    `rate` is infinite until a queue was seen. `busy_until` is when the bottleneck will have passed
    on all that was sent, on the sender's clock. `base` is the delay of the empty lane, on a scale
    that the lanes of one session share: the difference of both ends' clocks is in it, or half of
    the round trip is all there is when the peer tells no time. None before the first pong.
    """

    def __init__(self) -> None:
        self.rate = inf
        self.busy_until = -inf
        self.base: float | None = None
        self.round_trip = inf
        """The smallest round trip of late."""
        self.loss = 0.0
        """The part of the frames that is lost while nothing waits: not for want of rate."""
        self.frames = 0
        self.size = 0
        self.asked_at = -inf
        self.frames_at_asking = 0
        self._assumed = False
        self._corrected = 0.0
        self._unanswered_since: float | None = None
        self._delays = RecentMinimum()
        self._round_trips = RecentMinimum()
        self._last: _Answer | None = None
        self._newest = -inf
        self._grown_at = -inf
        self._answered_size = 0

    def sent(self, frames: int, size: int, now: float) -> None:
        """Take note of payload that enters the lane."""
        self.frames += frames
        self.size += size
        self.busy_until = max(now, self.busy_until) + size / self.rate

    def assume(self, rate: float) -> None:
        """Believe in a rate for as long as the lane has shown none of its own."""
        if self.rate == inf:
            self.rate = rate
            self._assumed = True

    def silent(self, now: float) -> bool:
        """Whether pings have gone unanswered for longer than the lane's round trips explain."""
        since = self._unanswered_since
        return since is not None and now - since > SILENCE + 4 * min(self.round_trip, 1.0)

    def asked(self, now: float) -> Mark:
        """Take note of a ping that leaves now; its mark is handed back with its pong."""
        self.asked_at = now
        self.frames_at_asking = self.frames
        if self._unanswered_since is None:
            self._unanswered_since = now
        queue = max(0.0, self.busy_until - now)
        return Mark(now, self.frames, self.size, queue, self._corrected)

    def answered(self, mark: Mark, received: int, arrived: float | None, now: float) -> None:
        """Learn from the pong to the ping of `mark`.

        `received` is the pong's counter of frames, `arrived` when the ping had come, on the peer's
        clock. Whatever a peer claims, no queue is longer than the round trip has become.
        """
        self._unanswered_since = now if mark.time < self.asked_at else None
        round_trip = now - mark.time
        self._round_trips.add(round_trip, now)
        self.round_trip = self._round_trips.smallest
        waited = round_trip - self.round_trip
        delay = round_trip / 2
        if arrived is not None:
            delay = arrived - mark.time
            self._delays.add(delay, now)
            waited = max(0.0, min(waited, delay - self._delays.smallest))
        else:
            self._delays.add(delay, now)
        self.base = self._delays.smallest
        if mark.time <= self._newest:
            return
        self._newest = mark.time
        known = self.rate < inf
        self._learn(_Answer(mark, received, now if arrived is None else arrived, waited))
        if known:
            self._grow(mark, waited, now)
        self._correct(mark, waited, now, known=known)

    def _learn(self, answer: _Answer) -> None:
        """Learn the rate from two pongs: what came in between, over the time in between."""
        last, mark = self._last, answer.mark
        if last is None or mark.time - last.mark.time > LONGEST_INTERVAL:
            self._last = answer
            self.loss *= LOSS_FADES
            return
        sent = mark.frames - last.mark.frames
        took = answer.arrived - last.arrived
        if sent < INTERVAL_FRAMES or took <= 0.0:
            return
        self._last = answer
        came = min((answer.received - last.received) & COUNTER_MASK, 2 * sent)
        delivered = max(LEAST_RATE, came * (mark.size - last.mark.size) / sent / took)
        queued = max(self._tolerance, QUEUE_BYTES / delivered)
        if min(answer.waited, last.waited) > queued or came < (1 - FULL_LOSS) * sent:
            # The bottleneck has worked all the time: what came is what it can do.
            if self.rate == inf or self._assumed:
                self.rate = delivered
                self._assumed = False
            else:
                self.rate += (delivered - self.rate) / 4
            return
        self.loss += (max(0.0, 1 - came / sent) - self.loss) * min(0.25, sent / LOSS_FRAMES)
        self.rate = max(self.rate, delivered)

    def _grow(self, mark: Mark, waited: float, now: float) -> None:
        """Raise a rate by which there would be a queue where there is none."""
        modelled = mark.queue + self._corrected - mark.corrected
        excess = modelled - waited - self._tolerance
        size, self._answered_size = mark.size - self._answered_size, mark.size
        if excess > 0 and size > 0 and mark.time > self._grown_at:
            # What was sent since the last pong has taken that much less time than was thought.
            self.rate /= 1 - min(excess * self.rate / size, 1 - 1 / GROWTH)
            self._grown_at = now

    @property
    def _tolerance(self) -> float:
        return max(QUEUE_SEEN, self.round_trip / 8)

    def _correct(self, mark: Mark, waited: float, now: float, *, known: bool) -> None:
        # All of it was sent after the ping, so that the bottleneck is not done before this.
        earliest = mark.time + waited + (self.size - mark.size) / self.rate
        if not known:
            self.busy_until = max(now, earliest)
            return
        # Corrections since the ping left have been made for the same difference.
        error = waited - mark.queue - (self._corrected - mark.corrected)
        before = max(now, self.busy_until)
        if error > 0 and before == now:
            self.busy_until = max(now, earliest)
        else:
            self.busy_until = max(now, before + GAIN * error)
        self._corrected += self.busy_until - before
