"""Upstream flows: opened on first use, bounded, one failing flow harms no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from turnlane.api import AdapterError, Batch, DatagramSocket, Stage
from turnlane.relay import flows
from turnlane.relay.flows import FlowTable

pytestmark = pytest.mark.anyio


class LoopSocket:
    """An upstream that gives back what it gets."""

    local_address = ("192.0.2.1", 1)

    def __init__(self, flow: int) -> None:
        self.flow = flow
        self.taken: list[bytes] = []
        self.closed = False
        self.failure: AdapterError | None = None
        self._send, self._receive = anyio.create_memory_object_stream[bytes](1000)

    async def receive(self, batch: Batch) -> None:
        packet = await self._receive.receive()
        if self.failure is not None:
            raise self.failure
        batch.clear()
        batch.append(packet, self.flow)

    def send(self, batch: Batch) -> int:
        for packet in batch:
            self.taken.append(bytes(packet))
            self._send.send_nowait(bytes(packet))
        return len(batch)

    def close(self) -> None:
        self.closed = True
        self._send.close()
        self._receive.close()


class Upstream:
    """An egress whose sockets a test can see, hold back and have fail."""

    def __init__(self) -> None:
        self.sockets: dict[int, LoopSocket] = {}
        self.open = anyio.Event()
        self.open.set()
        self.failing = False
        self.attempts = 0

    async def prepare(self) -> None:
        """Nothing to prepare."""

    async def connect(self, flow: int) -> DatagramSocket:
        self.attempts += 1
        await self.open.wait()
        if self.failing:
            raise AdapterError(Stage.UPSTREAM_DIAL, "upstream_unreachable", "no")
        self.sockets[flow] = LoopSocket(flow)
        return self.sockets[flow]


class Bench:
    def __init__(self) -> None:
        self.upstream = Upstream()
        self.replies: list[tuple[int, bytes]] = []
        self.failures: list[tuple[int, str]] = []
        self.table: FlowTable

    def deliver(self, batch: Batch) -> None:
        self.replies += [(batch.flows[i], bytes(batch.packet(i))) for i in range(len(batch))]

    def on_failure(self, flow: int, error: AdapterError) -> None:
        self.failures.append((flow, error.code))

    def send(self, flow: int, *packets: bytes) -> None:
        batch = Batch()
        for packet in packets:
            batch.append(packet, flow)
        self.table.send(flow, batch)


@asynccontextmanager
async def running(limit: int = 4) -> AsyncIterator[Bench]:
    bench = Bench()
    async with anyio.create_task_group() as tasks:
        bench.table = FlowTable(
            tasks,
            bench.upstream,
            deliver=bench.deliver,
            on_failure=bench.on_failure,
            replies=Batch(),
            limit=limit,
        )
        yield bench
        bench.table.close()


async def test_packets_sent_before_the_upstream_is_open_arrive_in_order() -> None:
    async with running() as bench:
        bench.upstream.open = anyio.Event()
        bench.send(1, b"a", b"b")
        bench.send(1, b"c")
        bench.upstream.open.set()
        await anyio.wait_all_tasks_blocked()
        assert bench.upstream.sockets[1].taken == [b"a", b"b", b"c"]
        assert bench.replies == [(1, b"a"), (1, b"b"), (1, b"c")]


async def test_what_waits_for_an_upstream_is_bounded_and_counted() -> None:
    async with running() as bench:
        bench.upstream.open = anyio.Event()
        for _ in range(flows.MAX_QUEUED + 5):
            bench.send(1, b"x")
        assert bench.table.dropped == 5


async def test_the_bytes_that_wait_for_upstreams_are_bounded_over_all_flows() -> None:
    async with running(limit=100) as bench:
        bench.upstream.open = anyio.Event()
        large = bytes(60_000)
        for flow in range(20):
            bench.send(flow, large)
        fitting = flows.MAX_QUEUED_BYTES // len(large)
        assert bench.table.dropped == 20 - fitting
        # What was waited for, and what is given up, makes room again.
        bench.upstream.open.set()
        await anyio.wait_all_tasks_blocked()
        assert sum(len(socket.taken) for socket in bench.upstream.sockets.values()) == fitting
        assert bench.table._queued_bytes == 0
        bench.upstream.open = anyio.Event()
        bench.send(50, large)
        bench.table.close()
        assert bench.table._queued_bytes == 0


async def test_a_flow_that_gives_way_before_its_upstream_is_open_sends_nothing() -> None:
    async with running(limit=1) as bench:
        bench.send(1, b"too late")
        bench.send(2, b"in time")  # within the same turn: the first one's task has not begun
        await anyio.wait_all_tasks_blocked()
        assert bench.upstream.sockets[2].taken == [b"in time"]
        assert 1 not in bench.upstream.sockets or bench.upstream.sockets[1].taken == []
        assert len(bench.table) == 1


async def test_a_reply_that_is_under_way_when_its_flow_gives_way_is_not_delivered() -> None:
    async with running(limit=1) as bench:
        bench.send(1, b"a")
        await anyio.wait_all_tasks_blocked()
        bench.replies.clear()
        bench.send(1, b"b")  # its echo is there, and its flow's task has not run yet
        bench.send(2, b"c")
        await anyio.wait_all_tasks_blocked()
        assert bench.replies == [(2, b"c")]
        assert bench.upstream.sockets[1].closed


async def test_a_flow_whose_upstream_failed_is_tried_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as bench:
        bench.upstream.failing = True
        bench.send(1, b"lost")
        await anyio.wait_all_tasks_blocked()
        bench.upstream.failing = False
        bench.send(1, b"too soon")
        monkeypatch.setattr(flows, "RETRY_AFTER", 0.0)
        bench.send(1, b"again")
        await anyio.wait_all_tasks_blocked()
        assert bench.upstream.sockets[1].taken == [b"again"]
        assert (bench.table.dropped, len(bench.table)) == (2, 1)


async def test_an_upstream_that_breaks_is_told_and_opened_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flows, "RETRY_AFTER", 0.0)
    async with running() as bench:
        bench.send(1, b"a")
        await anyio.wait_all_tasks_blocked()
        broken = bench.upstream.sockets[1]
        broken.failure = AdapterError(Stage.FORWARDING_LOOP, "local_socket_failed", "down")
        bench.send(1, b"b")
        await anyio.wait_all_tasks_blocked()
        assert broken.closed
        assert bench.failures == [(1, "local_socket_failed")]
        bench.send(1, b"c")
        await anyio.wait_all_tasks_blocked()
        assert bench.upstream.sockets[1].taken == [b"c"]


async def test_each_flow_has_one_socket_of_its_own() -> None:
    async with running() as bench:
        for _ in range(3):
            bench.send(1, b"one")
            bench.send(2, b"two")
            await anyio.wait_all_tasks_blocked()
        assert bench.upstream.attempts == 2
        assert bench.upstream.sockets[1].taken == [b"one"] * 3


async def test_the_flow_unused_for_longest_makes_room() -> None:
    async with running(limit=2) as bench:
        for flow in (1, 2, 1, 3):
            bench.send(flow, b"x")
            await anyio.wait_all_tasks_blocked()
        assert bench.upstream.sockets[2].closed
        assert not bench.upstream.sockets[1].closed
        assert (len(bench.table), bench.table.evicted) == (2, 1)


async def test_a_failing_upstream_is_told_once_and_not_dialled_for_every_packet() -> None:
    async with running() as bench:
        bench.upstream.failing = True
        for _ in range(5):
            bench.send(1, b"x")
            await anyio.wait_all_tasks_blocked()
        bench.upstream.failing = False
        bench.send(2, b"fine")
        await anyio.wait_all_tasks_blocked()
        assert bench.failures == [(1, "upstream_unreachable")]
        assert bench.upstream.attempts == 2
        assert bench.table.dropped == 5
        assert bench.replies == [(2, b"fine")]


async def test_closing_the_table_closes_every_socket_and_ends_every_task() -> None:
    async with running() as bench:
        bench.send(1, b"x")
        bench.send(2, b"x")
        await anyio.wait_all_tasks_blocked()
    assert all(socket.closed for socket in bench.upstream.sockets.values())
    bench.send(3, b"late")
    assert bench.upstream.attempts == 2
