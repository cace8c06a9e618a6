"""Which lane carries which packet: flows stay on a lane as long as it lives."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from turnlane.api.batch import Batch

MAX_FLOWS = 8192
"""Flows whose lane is remembered; beyond, the one silent for longest is assigned anew."""


class Carrier(Protocol):
    """A lane as the scheduler sees it."""

    @property
    def ready(self) -> bool:
        """Whether packets may be sent now."""
        ...

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send the packets `start` to `stop - 1` of `batch`."""
        ...


class Scheduler(Protocol):
    """Chooses the lane of each packet; `sticky` when packets of one flow may share one choice."""

    sticky: bool

    def pick(self, flow: int) -> Carrier | None:
        """Return the lane for the next packet of `flow`, or None when no lane is ready."""
        ...


class FlowSticky:
    """Keeps a flow on one lane, so that its packets stay in order; new flows go where few are."""

    sticky = True

    def __init__(self, lanes: Sequence[Carrier]) -> None:
        self._lanes = lanes
        self._assigned: OrderedDict[int, Carrier] = OrderedDict()
        self._load: dict[int, int] = {}

    def pick(self, flow: int) -> Carrier | None:
        """Return the flow's lane; a flow whose lane is down moves to the least loaded one."""
        lane = self._assigned.get(flow)
        if lane is not None and lane.ready:
            self._assigned.move_to_end(flow)
            return lane
        if lane is not None:
            self._forget(flow)
        ready = [candidate for candidate in self._lanes if candidate.ready]
        if not ready:
            return None
        lane = min(ready, key=lambda candidate: self._load.get(id(candidate), 0))
        if len(self._assigned) >= MAX_FLOWS:
            self._forget(next(iter(self._assigned)))
        self._assigned[flow] = lane
        self._load[id(lane)] = self._load.get(id(lane), 0) + 1
        return lane

    def _forget(self, flow: int) -> None:
        lane = self._assigned.pop(flow)
        self._load[id(lane)] -= 1


class RoundRobin:
    """Gives each packet to the next ready lane, as the Go prototypes do; reorders flows."""

    sticky = False

    def __init__(self, lanes: Sequence[Carrier]) -> None:
        self._lanes = lanes
        self._next = 0

    def pick(self, flow: int) -> Carrier | None:  # noqa: ARG002 - the turn decides, not the flow
        """Return the next ready lane."""
        for step in range(len(self._lanes)):
            lane = self._lanes[(self._next + step) % len(self._lanes)]
            if lane.ready:
                self._next = (self._next + step + 1) % len(self._lanes)
                return lane
        return None


def dispatch(scheduler: Scheduler, batch: Batch) -> int:
    """Send every packet of `batch` by `scheduler`; return how many found no lane."""
    unsent = 0
    start = 0
    count = len(batch)
    while start < count:
        lane = scheduler.pick(batch.flows[start])
        stop = start + 1
        if scheduler.sticky:
            while stop < count and batch.flows[stop] == batch.flows[start]:
                stop += 1
        if lane is None:
            unsent += stop - start
        else:
            lane.send(batch, start, stop)
        start = stop
    return unsent
