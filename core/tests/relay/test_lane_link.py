"""A link between two processes of one server: what is shed, what never is, and how it ends."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest

from turnlane.api import Batch
from turnlane.relay import lane_link
from turnlane.relay.lane_link import LaneLink, link_pair
from turnlane.relay.lane_messages import Kind, Message

pytestmark = pytest.mark.anyio

SOON = 5.0

JOIN = (b"a", b"b", b"c", b"d")


def payload(*packets: bytes) -> Batch:
    batch = Batch(4096, 1024 * 1024)
    for packet in packets:
        assert batch.append(packet, 7)
    return batch


class End:
    """One end: what came, and the link."""

    def __init__(self, opened: socket.socket) -> None:
        self.link = LaneLink(opened, Batch(4096, 512 * 1024))
        self.came: list[tuple[Kind, int, tuple[bytes, ...]]] = []
        self.more = anyio.Event()
        self.ended = anyio.Event()

    async def run(self) -> None:
        await self.link.run(self.take)
        self.ended.set()

    def take(self, message: Message, batch: Batch) -> None:
        self.came.append((message.kind, message.lane, message.records or tuple(map(bytes, batch))))
        self.more.set()

    async def has(self, count: int) -> None:
        with anyio.fail_after(SOON):
            while len(self.came) < count:
                self.more = anyio.Event()
                await self.more.wait()


@contextmanager
def ends() -> Iterator[tuple[End, End]]:
    near, far = map(End, link_pair())
    try:
        yield near, far
    finally:
        near.link.close()
        far.link.close()


@asynccontextmanager
async def running(end: End) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end.run)
        yield
        tasks.cancel_scope.cancel()


async def test_messages_arrive_in_order_with_their_payload() -> None:
    with ends() as (near, far):
        near.link.send_surely(Kind.JOIN, 1, *JOIN)
        assert near.link.send_payload(Kind.CARRIED, 1, payload(b"x", b"", b"yz"), 0, 3) == 3
        near.link.send(Kind.RECEIVED, 1, b"ping")
        near.link.send_surely(Kind.CLOSED, 1)
        async with running(far):
            await far.has(4)
        assert far.came == [
            (Kind.JOIN, 1, JOIN),
            (Kind.CARRIED, 1, (b"x", b"", b"yz")),
            (Kind.RECEIVED, 1, (b"ping",)),
            (Kind.CLOSED, 1, ()),
        ]
        assert near.link.dropped == 0


async def test_what_a_full_link_takes_not_is_shed_and_counted_but_lanes_still_open_and_close() -> (
    None
):
    with ends() as (near, far):
        burst = payload(*[bytes(1200)] * 50)
        sent = 50
        while sent == 50:
            sent = near.link.send_payload(Kind.CARRIED, 1, burst, 0, 50)
        while near.link.dropped < 200:  # to the last message that still fits
            near.link.send(Kind.RECEIVED, 1, bytes(100))
        shed = near.link.dropped
        near.link.send_surely(Kind.CLOSED, 1)
        near.link.send_surely(Kind.JOIN, 2, *JOIN)
        assert near.link.send_payload(Kind.CARRIED, 2, burst, 0, 1) == 0
        assert near.link.dropped == shed + 1
        async with running(far):
            with anyio.fail_after(SOON):
                while not near.link.flush():
                    await anyio.lowlevel.checkpoint()
            near.link.send(Kind.RECEIVED, 2, b"last")
            while far.came[-1:] != [(Kind.RECEIVED, 2, (b"last",))]:
                await far.has(len(far.came) + 1)
        assert [came for came in far.came if came[0] in (Kind.CLOSED, Kind.JOIN)] == [
            (Kind.CLOSED, 1, ()),
            (Kind.JOIN, 2, JOIN),
        ]


async def test_an_end_that_never_reads_is_given_up_before_memory_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_link, "MAX_WAITING", 10)
    with ends() as (near, far):
        for lane in range(1_000_000):
            near.link.send_surely(Kind.JOIN, lane, bytes(8000))
            if near.link.ended:
                break
        assert near.link.ended
        near.link.send_surely(Kind.JOIN, 1)
        near.link.send(Kind.RECEIVED, 1)
        assert near.link.send_payload(Kind.CARRIED, 1, payload(b"x"), 0, 1) == 0
        assert near.link.dropped == 2
        async with running(far):
            with anyio.fail_after(SOON):
                await far.ended.wait()


async def test_a_link_ends_where_the_other_end_closes_or_talks_nonsense() -> None:
    with ends() as (near, far):
        async with running(far):
            near.link.close()
            with anyio.fail_after(SOON):
                await far.ended.wait()
            assert far.link.ended
    opened, other = link_pair()
    with opened:
        end = End(other)
        async with running(end):
            opened.send(b"nonsense")
            with anyio.fail_after(SOON):
                await end.ended.wait()
        assert (end.came, end.link.ended) == ([], True)


async def test_a_link_that_is_closed_here_stops_running() -> None:
    with ends() as (near, _):
        async with running(near):
            await anyio.wait_all_tasks_blocked()
            near.link.close()
            near.link.close()
            with anyio.fail_after(SOON):
                await near.ended.wait()
        await near.link.run(near.take)  # and does not begin again


async def test_lanes_of_a_link_have_numbers_of_their_own() -> None:
    with ends() as (near, _):
        assert len({near.link.new_lane() for _ in range(100)}) == 100
