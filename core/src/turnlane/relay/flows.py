"""Upstream flows at the server: one socket per flow, whatever lane its packets come over."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from turnlane.api.adapters import DatagramEgress, DatagramSocket
from turnlane.api.batch import Batch
from turnlane.api.errors import AdapterError
from turnlane.net.udp import pump

MAX_QUEUED = 64
"""Packets that wait while a flow's upstream is being opened; more are dropped and counted."""

MAX_QUEUED_BYTES = 1024 * 1024
"""Bytes that wait for all upstreams of one table; more are dropped and counted."""

RETRY_AFTER = 1.0
"""Seconds before a flow whose upstream failed is tried again; its packets are dropped meanwhile."""


@dataclass
class Flow:
    """One flow: its upstream socket once open, and what waits for it until then."""

    number: int
    scope: anyio.CancelScope
    socket: DatagramSocket | None = None
    queued: list[bytes] = field(default_factory=list)
    failed_at: float | None = None


class FlowTable:
    """The flows of one session (or of one legacy peer), bounded, least recently used out first.

    `deliver` is given each batch of replies, `on_failure` each flow whose upstream failed. All
    flows of all tables may share `replies`, which is used up before the next wait.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        egress: DatagramEgress,
        *,
        deliver: Callable[[Batch], None],
        on_failure: Callable[[int, AdapterError], None],
        replies: Batch,
        limit: int,
    ) -> None:
        self._tasks = tasks
        self._egress = egress
        self._deliver = deliver
        self._on_failure = on_failure
        self._replies = replies
        self._limit = limit
        self._flows: OrderedDict[int, Flow] = OrderedDict()
        self._queued_bytes = 0
        self._closed = False
        self.dropped = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._flows)

    def send(self, flow_number: int, batch: Batch) -> None:
        """Send a batch, all of it one flow's, upstream; opens the flow when it is new."""
        if self._closed:
            return
        flow = self._flows.get(flow_number)
        if flow is not None and flow.failed_at is not None:
            if anyio.current_time() - flow.failed_at < RETRY_AFTER:
                self.dropped += len(batch)
                return
            self._remove(flow)
            flow = None
        if flow is None:
            flow = self._open(flow_number)
        self._flows.move_to_end(flow_number)
        if flow.socket is not None:
            self.dropped += len(batch) - flow.socket.send(batch)
            return
        for packet in batch:
            size = len(packet)
            if len(flow.queued) >= MAX_QUEUED or self._queued_bytes + size > MAX_QUEUED_BYTES:
                self.dropped += 1
                continue
            flow.queued.append(bytes(packet))
            self._queued_bytes += size

    def close(self) -> None:
        """Close every flow; nothing is sent or delivered any more."""
        self._closed = True
        for flow in list(self._flows.values()):
            self._remove(flow)

    def _open(self, number: int) -> Flow:
        if len(self._flows) >= self._limit:
            self.evicted += 1
            self._remove(next(iter(self._flows.values())))
        flow = Flow(number, anyio.CancelScope())
        self._flows[number] = flow
        self._tasks.start_soon(self._run, flow)
        return flow

    def _remove(self, flow: Flow) -> None:
        if not self._is_gone(flow):
            del self._flows[flow.number]
        flow.scope.cancel()
        self._take_queue(flow)
        if flow.socket is not None:
            flow.socket.close()

    def _is_gone(self, flow: Flow) -> bool:
        return self._flows.get(flow.number) is not flow

    def _take_queue(self, flow: Flow) -> list[bytes]:
        queued, flow.queued = flow.queued, []
        self._queued_bytes -= sum(map(len, queued))
        return queued

    async def _run(self, flow: Flow) -> None:
        with flow.scope:
            try:
                opened = await self._egress.connect(flow.number)
                try:
                    await self._forward(flow, opened)
                finally:
                    opened.close()
            except AdapterError as error:
                flow.socket = None
                flow.failed_at = anyio.current_time()
                self.dropped += len(self._take_queue(flow))
                self._on_failure(flow.number, error)
            except anyio.ClosedResourceError:
                return

    async def _forward(self, flow: Flow, opened: DatagramSocket) -> None:
        if self._is_gone(flow):
            return  # which an upstream that opens at once does not notice
        flow.socket = opened
        waiting = self._replies
        waiting.clear()
        for packet in self._take_queue(flow):
            if not waiting.append(packet, flow.number):
                self.dropped += len(waiting) - opened.send(waiting)
                waiting.clear()
                waiting.append(packet, flow.number)
        if waiting:
            self.dropped += len(waiting) - opened.send(waiting)

        def deliver(batch: Batch) -> None:
            if not self._is_gone(flow):
                self._deliver(batch)

        await pump(opened, self._replies, deliver)
