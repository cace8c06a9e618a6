"""Which lane carries which packet: chunks of flows, each by the lane that delivers it earliest.

A flow stays on its lane until another would deliver it earlier by more than its traffic can be
expected to bear out of order (`slack`). As every lane's queue is modelled (`LaneEstimate`), a
chunk that moves on arrives about when it would have, had it waited: see docs/adr/0010-scheduler.md.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from math import inf
from typing import Final, Protocol

from turnlane.api.batch import Batch
from turnlane.proto.lane_estimate import LaneEstimate

MAX_FLOWS = 8192
"""Flows whose lane is remembered; beyond, the one silent for longest is assigned anew."""

REVIEW_INTERVAL: Final = 0.02
"""Seconds between two looks at what lanes are there and whether they are to be measured."""

PROBE_BUSY: Final = 0.05
PROBE_IDLE: Final = 1.0
PROBE_SILENT: Final = 0.25
"""Seconds between two measurements of a lane that carries much, of any other, of a suspect one.

One that something waits in carries much, whether it does or the estimate is wrong.
"""

PROBE_FRAMES: Final = 16
"""Frames that a lane carries between two measurements, if it is not idle."""

MIN_SLACK: Final = 0.002
MAX_SLACK: Final = 0.025
"""Seconds within which deliveries count as simultaneous; between them, an eighth of a round trip.

TCP's own tolerance (RFC 8985, section 6.2) begins at a quarter of a round trip.
"""

LOSS_COST: Final = 0.5
"""Seconds of delay that a lane is avoided for if it loses everything; in proportion if less."""

UNKNOWN_RATE: Final = 125_000.0
"""Bytes per second of a lane that has shown no rate, where its own backlog says that it has one."""


class Carrier(Protocol):
    """A lane as the scheduler sees it."""

    @property
    def ready(self) -> bool:
        """Whether packets may be sent now."""
        ...

    @property
    def estimate(self) -> LaneEstimate | None:
        """What is known of the lane; None where nothing is measured."""
        ...

    @property
    def backlog(self) -> int:
        """Bytes that wait here because the lane's connection does not take them."""
        ...

    def probe(self, now: float) -> None:
        """Measure the lane."""
        ...

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send the packets `start` to `stop - 1` of `batch`."""
        ...


class Scheduler(Protocol):
    """Chooses lanes."""

    def choose(self, batch: Batch, start: int, now: float) -> tuple[Carrier | None, int]:
        """Return the lane for packet `start` of `batch`, and the first packet that is not for it.

        None when no lane is ready.
        """
        ...


class _Path:
    """One ready lane between two reviews."""

    __slots__ = ("carrier", "cost", "estimate", "flows", "usable")

    def __init__(self, carrier: Carrier, estimate: LaneEstimate) -> None:
        self.carrier = carrier
        self.estimate = estimate
        self.cost = 0.0
        """Seconds to the peer when nothing waits, and what loss adds; on the session's scale."""
        self.flows = 0
        self.usable = True

    def delivery(self, now: float) -> float:
        """Return in how many seconds what is sent now would be there."""
        waits = self.estimate.busy_until - now
        delivery = self.cost + waits if waits > 0 else self.cost
        backlog = self.carrier.backlog
        if backlog:
            rate = self.estimate.rate if self.estimate.rate < inf else UNKNOWN_RATE
            delivery = max(delivery, self.cost + backlog / rate)
        return delivery


class FlowSticky:
    """Keeps a flow on a lane while that is about as good as any; new flows go where few are.

    `lanes` may change; what is no longer in it gets nothing once it is not ready. `prefer` names
    the lane that a new flow begins on, if none is clearly better.
    """

    def __init__(
        self,
        lanes: Collection[Carrier],
        prefer: Callable[[int], Carrier | None] = lambda _: None,
    ) -> None:
        self._lanes = lanes
        self._prefer = prefer
        self._paths: dict[int, _Path] = {}
        self._usable: list[_Path] = []
        self._alone: Carrier | None = None
        """The only lane there is: then there is nothing to choose, nor to remember."""
        self._assigned: OrderedDict[int, _Path] = OrderedDict()
        self._review_at = -inf
        self._least_cost = 0.0
        self._slack = MIN_SLACK

    def review(self) -> None:
        """Look at the lanes anew with the next packet: one has come or gone."""
        self._review_at = -inf

    def choose(self, batch: Batch, start: int, now: float) -> tuple[Carrier | None, int]:
        """Return the flow's lane and the end of the chunk that it is to carry."""
        if now >= self._review_at:
            self._review(now)
        alone = self._alone
        if alone is not None and alone.ready:
            return alone, batch.count
        flow = batch.flows[start]
        path = self._assigned.get(flow)
        if path is None or not path.usable or not path.carrier.ready:
            path = self._assign(flow, now)
            if path is None:
                return None, _chunk(batch, start, inf)[0]
        else:
            self._assigned.move_to_end(flow)
        due = path.delivery(now)
        limit = self._least_cost + self._slack
        if due > limit:
            path, due, limit = self._move(flow, path, due, now)
        estimate = path.estimate
        room = (limit - due) * estimate.rate if estimate.rate < inf else inf
        stop, size = _chunk(batch, start, room)
        estimate.sent(stop - start, size, now)
        return path.carrier, stop

    def _move(self, flow: int, path: _Path, due: float, now: float) -> tuple[_Path, float, float]:
        """Return the flow's lane from now on, when it delivers, and until when that will do."""
        best, least, second = path, due, inf
        for candidate in self._usable:
            if candidate is path:
                continue
            delivery = candidate.delivery(now)
            if delivery < least:
                best, least, second = candidate, delivery, least
            elif delivery < second:
                second = delivery
        if best is path:
            return path, due, second + self._slack
        if due <= least + self._slack:
            return path, due, least + self._slack
        path.flows -= 1
        best.flows += 1
        self._assigned[flow] = best
        return best, least, second + self._slack

    def _assign(self, flow: int, now: float) -> _Path | None:
        self._forget(flow)
        if not self._usable or not all(path.carrier.ready for path in self._usable):
            self._review(now)
        if not self._usable:
            return None
        delivery = [path.delivery(now) for path in self._usable]
        limit = min(delivery) + self._slack
        near = [path for path, due in zip(self._usable, delivery, strict=True) if due <= limit]
        preferred = self._prefer(flow)
        path = min(near, key=lambda each: (each.carrier is not preferred, each.flows))
        if len(self._assigned) >= MAX_FLOWS:
            self._forget(next(iter(self._assigned)))
        self._assigned[flow] = path
        path.flows += 1
        return path

    def _forget(self, flow: int) -> None:
        path = self._assigned.pop(flow, None)
        if path is not None:
            path.flows -= 1

    def _review(self, now: float) -> None:
        """See which lanes are there, what they cost, and measure those whose time it is."""
        self._review_at = now + REVIEW_INTERVAL
        ready = [lane for lane in self._lanes if lane.ready]
        paths: dict[int, _Path] = {}
        for lane in ready:
            estimate = lane.estimate
            path = self._paths.get(id(lane))
            if path is None or (estimate is not None and path.estimate is not estimate):
                path = _Path(lane, estimate or LaneEstimate())
            paths[id(lane)] = path
            if len(ready) > 1 and estimate is not None:
                _measure(lane, estimate, now)
        self._paths = paths
        self._alone = ready[0] if len(ready) == 1 else None
        heard = [path for path in paths.values() if not path.estimate.silent(now)]
        for path in self._usable:
            path.usable = False
        self._usable = heard or list(paths.values())
        for path in self._usable:
            path.usable = True
        self._weigh(self._usable)

    def _weigh(self, paths: list[_Path]) -> None:
        bases = [path.estimate.base for path in paths if path.estimate.base is not None]
        unknown = max(bases, default=0.0)
        rates = [path.estimate.rate for path in paths if path.estimate.rate < inf]
        for path in paths:
            base = path.estimate.base
            path.cost = (unknown if base is None else base) + path.estimate.loss * LOSS_COST
            if rates:
                path.estimate.assume(max(rates))
        self._least_cost = min((path.cost for path in paths), default=0.0)
        round_trip = min((path.estimate.round_trip for path in paths), default=0.0)
        self._slack = min(max(MIN_SLACK, round_trip / 8), MAX_SLACK)


def _chunk(batch: Batch, start: int, room: float) -> tuple[int, int]:
    """Return where the packets of one flow that fill `room` bytes end, and how many bytes it is."""
    flows, sizes, count = batch.flows, batch.sizes, len(batch)
    flow, size = flows[start], sizes[start]
    rest = flows[start:count]
    if rest.count(flow) == len(rest) and (whole := sum(sizes[start:count])) <= room:
        return count, whole  # as nearly always, and without a step for each packet
    stop = start + 1
    while stop < count and flows[stop] == flow and size < room:
        size += sizes[stop]
        stop += 1
    return stop, size


def _measure(lane: Carrier, estimate: LaneEstimate, now: float) -> None:
    since = now - estimate.asked_at
    fresh = estimate.frames - estimate.frames_at_asking
    if fresh >= PROBE_FRAMES or estimate.busy_until > now:
        due = PROBE_BUSY
    else:
        due = PROBE_SILENT if estimate.silent(now) else PROBE_IDLE
    if since >= due:
        lane.probe(now)


class RoundRobin:
    """Gives each packet to the next ready lane, as the Go prototypes do; reorders flows."""

    def __init__(self, lanes: Collection[Carrier]) -> None:
        self._lanes = lanes
        self._next = 0

    def choose(self, batch: Batch, start: int, now: float) -> tuple[Carrier | None, int]:  # noqa: ARG002 - only whose turn it is counts
        """Return the next ready lane."""
        lanes = list(self._lanes)
        for step in range(len(lanes)):
            lane = lanes[(self._next + step) % len(lanes)]
            if lane.ready:
                self._next = (self._next + step + 1) % len(lanes)
                return lane, start + 1
        return None, start + 1


def dispatch(scheduler: Scheduler, batch: Batch, now: float) -> int:
    """Send every packet of `batch` by `scheduler`; return how many found no lane."""
    unsent = 0
    start = 0
    count = len(batch)
    while start < count:
        lane, stop = scheduler.choose(batch, start, now)
        if lane is None:
            unsent += stop - start
        else:
            lane.send(batch, start, stop)
        start = stop
    return unsent
