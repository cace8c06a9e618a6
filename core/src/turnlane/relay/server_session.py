"""Sessions at the server: lanes come and go, the upstream sees one stable source per flow."""

from collections.abc import Callable

from anyio.abc import TaskGroup

from turnlane.api.adapters import DatagramEgress
from turnlane.api.batch import Batch
from turnlane.api.errors import AdapterError
from turnlane.api.secrets import Secret
from turnlane.relay.flows import FlowTable
from turnlane.relay.scheduler import Carrier, FlowSticky, dispatch
from turnlane.relay.workspace import Workspace

MAX_FLOWS = 1024
"""Upstream sockets of one session; beyond, the flow unused for longest is closed."""

MAX_RETURNS = 2 * MAX_FLOWS
"""Flows of which a session remembers the lane that their replies leave by."""


class ServerSession:
    """What all lanes of one session share: its secret, its flows, and who replies over what.

    Replies to a flow begin to leave by the lane that brought the flow's last packet. From then on
    the same scheduler as the client's has the say, by what this end measures.
    """

    def __init__(
        self,
        session_id: bytes,
        secret: Secret[bytes],
        tasks: TaskGroup,
        egress: DatagramEgress,
        *,
        on_failure: Callable[[int, AdapterError], None],
        workspace: Workspace,
        now: float,
    ) -> None:
        self.session_id = session_id
        self._workspace = workspace
        self.secret = secret
        self.resumable = False
        """Whether a client is known to have the secret: without it nobody can come back."""
        self.lanes: dict[int, Carrier] = {}
        self.last_payload_at = now
        self.without_lanes_since: float | None = now
        self.unsent = 0
        self.too_large = 0
        """Replies that the path of their lane does not bear."""
        self.next_hint = 0.0
        """When, in monotonic seconds, that may be told again."""
        self._return_lane: dict[int, Carrier] = {}
        self._scheduler = FlowSticky(self.lanes.values(), self._return_lane.get)
        self.flows = FlowTable(
            tasks,
            egress,
            deliver=self._deliver,
            on_failure=on_failure,
            replies=workspace.received,
            limit=MAX_FLOWS,
        )

    def attach(self, index: int, lane: Carrier) -> Carrier | None:
        """Take a lane in; return the one whose index it takes over, if there was one."""
        replaced = self.lanes.get(index)
        self.lanes[index] = lane
        self.without_lanes_since = None
        self._scheduler.review()
        if replaced is not None:
            self._forget_returns(replaced)
        return replaced

    def detach(self, index: int, lane: Carrier, now: float) -> None:
        """Let a lane go, unless its index is another's by now."""
        self._forget_returns(lane)
        if self.lanes.get(index) is lane:
            del self.lanes[index]
            if not self.lanes:
                self.without_lanes_since = now

    def forward(self, lane: Carrier, batch: Batch, now: float) -> None:
        """Send payload of the client upstream."""
        self.last_payload_at = now
        flows, count = batch.flows, batch.count
        start = 0
        while start < count:
            flow = flows[start]
            stop = start + 1
            while stop < count and flows[stop] == flow:
                stop += 1
            self._remember_lane(flow, lane)
            self.flows.send(flow, batch if stop - start == count else batch.part(start, stop))
            start = stop

    def close(self) -> None:
        """Close all upstream sockets."""
        self.flows.close()
        self.lanes.clear()
        self._return_lane.clear()

    def _deliver(self, batch: Batch) -> None:
        now = self.last_payload_at = self._workspace.clock()
        self.unsent += dispatch(self._scheduler, batch, now)

    def _remember_lane(self, flow: int, lane: Carrier) -> None:
        if self._return_lane.get(flow) is not lane:
            if len(self._return_lane) >= MAX_RETURNS:
                del self._return_lane[next(iter(self._return_lane))]
            self._return_lane[flow] = lane

    def _forget_returns(self, lane: Carrier) -> None:
        self._scheduler.review()
        for flow in [flow for flow, used in self._return_lane.items() if used is lane]:
            del self._return_lane[flow]
