"""Sessions at the server: lanes come and go, the upstream sees one stable source per flow."""

from collections.abc import Callable
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from turnlane.api.adapters import DatagramEgress
from turnlane.api.batch import Batch
from turnlane.api.errors import AdapterError
from turnlane.api.secrets import Secret
from turnlane.relay.flows import FlowTable, Forwarder

MAX_FLOWS = 1024
"""Upstream sockets of one session; beyond, the flow unused for longest is closed."""


class ReplyLane(Protocol):
    """A lane as its session sees it."""

    @property
    def usable(self) -> bool:
        """Whether the client is believed to hear this lane."""
        ...

    @property
    def last_heard(self) -> float:
        """When the client was last heard on it, in monotonic seconds."""
        ...

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send packets of `batch` to the client."""
        ...


class ServerSession:
    """What all lanes of one session share: its secret, its flows, and who replies over what.

    Replies to a flow leave by the lane that brought the flow's last packet, as long as that lane is
    usable; so a client spreads the replies by spreading its own packets.
    """

    def __init__(
        self,
        session_id: bytes,
        secret: Secret[bytes],
        tasks: TaskGroup,
        egress: DatagramEgress,
        *,
        on_failure: Callable[[int, AdapterError], None],
        replies: Batch,
        now: float,
    ) -> None:
        self.session_id = session_id
        self.secret = secret
        self.resumable = False
        """Whether a client is known to have the secret: without it nobody can come back."""
        self.lanes: dict[int, ReplyLane] = {}
        self.last_payload_at = now
        self.without_lanes_since: float | None = now
        self.unsent = 0
        self._return_lane: dict[int, ReplyLane] = {}
        self.flows = FlowTable(
            tasks,
            egress,
            deliver=self._deliver,
            on_failure=on_failure,
            replies=replies,
            limit=MAX_FLOWS,
        )

    def attach(self, index: int, lane: ReplyLane) -> ReplyLane | None:
        """Take a lane in; return the one whose index it takes over, if there was one."""
        replaced = self.lanes.get(index)
        self.lanes[index] = lane
        self.without_lanes_since = None
        if replaced is not None:
            self._forget_returns(replaced)
        return replaced

    def detach(self, index: int, lane: ReplyLane, now: float) -> None:
        """Let a lane go, unless its index is another's by now."""
        self._forget_returns(lane)
        if self.lanes.get(index) is lane:
            del self.lanes[index]
            if not self.lanes:
                self.without_lanes_since = now

    def forward(
        self, forwarder: Forwarder, lane: ReplyLane, flow: int, payload: memoryview
    ) -> None:
        """Send one packet of the client upstream."""
        if self._return_lane.get(flow) is not lane:
            if len(self._return_lane) >= 2 * MAX_FLOWS:
                del self._return_lane[next(iter(self._return_lane))]
            self._return_lane[flow] = lane
        forwarder.add(self.flows, flow, payload)

    def close(self) -> None:
        """Close all upstream sockets."""
        self.flows.close()
        self.lanes.clear()
        self._return_lane.clear()

    def _deliver(self, batch: Batch) -> None:
        self.last_payload_at = anyio.current_time()
        start = 0
        count = len(batch)
        while start < count:
            flow = batch.flows[start]
            stop = start + 1
            while stop < count and batch.flows[stop] == flow:
                stop += 1
            lane = self._lane_for(flow)
            if lane is None:
                self.unsent += stop - start
            else:
                lane.send(batch, start, stop)
            start = stop

    def _lane_for(self, flow: int) -> ReplyLane | None:
        lane = self._return_lane.get(flow)
        if lane is not None and lane.usable:
            return lane
        usable = [candidate for candidate in self.lanes.values() if candidate.usable]
        if not usable:
            return None
        lane = max(usable, key=lambda candidate: candidate.last_heard)
        self._return_lane[flow] = lane
        return lane

    def _forget_returns(self, lane: ReplyLane) -> None:
        for flow in [flow for flow, used in self._return_lane.items() if used is lane]:
            del self._return_lane[flow]
