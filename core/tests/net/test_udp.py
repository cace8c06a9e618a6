"""Batched UDP sockets, on real loopback sockets and both backends."""

import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest

from turnlane.api import AdapterError, Batch, Stage
from turnlane.net.adapter_context import SocketContext
from turnlane.net.datagrams import receive_batch
from turnlane.net.system import open_socket
from turnlane.net.udp import (
    MAX_FLOW,
    BatchSocket,
    BoundUdpSocket,
    ConnectedUdpSocket,
    ListeningUdpSocket,
    PeerTable,
    pump,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("dataplane")]


SOON = 5.0
"""Seconds within which what must happen on loopback happens."""


@contextmanager
def pair() -> Iterator[tuple[ConnectedUdpSocket, socket.socket]]:
    """Give a connected socket of ours and its peer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        near = open_socket(socket.AF_INET, socket.SOCK_DGRAM, connect=far.getsockname())
        far.connect(near.getsockname())
        connected = ConnectedUdpSocket(near, 1)
        try:
            yield connected, far
        finally:
            connected.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_replies_reach_the_peer_that_a_flow_names(host: str) -> None:
    context = SocketContext()
    bound = await context.bind_udp(host, 0)
    peers = [await context.connect_udp(*bound.local_address, flow=9) for _ in range(2)]
    batch, outgoing = Batch(), Batch()
    try:
        for number, peer in enumerate(peers):
            outgoing.clear()
            outgoing.append(b"from %d" % number)
            assert peer.send(outgoing) == 1
        received: dict[int, bytes] = {}
        with anyio.fail_after(5):
            while len(received) < 2:
                await bound.receive(batch)
                received |= {batch.flows[i]: bytes(batch.packet(i)) for i in range(len(batch))}
        outgoing.clear()
        for flow, text in received.items():
            outgoing.append(b"to " + text, flow)
        assert bound.send(outgoing) == 2
        for number, peer in enumerate(peers):
            with anyio.fail_after(5):
                await peer.receive(batch)
            assert (bytes(batch.packet(0)), batch.flows[0]) == (b"to from %d" % number, 9)
    finally:
        for opened in (bound, *peers):
            opened.close()


async def test_many_datagrams_arrive_in_one_batch_empty_and_large_ones_too() -> None:
    context = SocketContext()
    bound = await context.bind_udp("127.0.0.1", 0)
    peer = await context.connect_udp(*bound.local_address, flow=1)
    sizes = [0, 1, 1200, 65_507, 3]
    outgoing, batch = Batch(), Batch()
    try:
        for size in sizes:
            assert outgoing.append(bytes(size))
        assert peer.send(outgoing) == len(sizes)
        with anyio.fail_after(SOON):
            await bound.receive(batch)
        assert [bytes(packet) for packet in batch] == list(map(bytes, sizes))
    finally:
        bound.close()
        peer.close()


async def test_closing_ends_a_receive_that_waits() -> None:
    bound = await SocketContext().bind_udp("127.0.0.1", 0)
    ended = anyio.Event()

    async def wait() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await bound.receive(Batch())
        ended.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            bound.close()
            bound.close()
    assert ended.is_set()


async def test_a_peer_that_refuses_does_not_break_the_socket() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    connected = await SocketContext().connect_udp(*address, flow=1)
    batch = Batch()
    batch.append(b"x")
    try:
        connected.send(batch)  # the ICMP answer to this is the error of a later call
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(address)
            back.connect(connected.local_address)
            back.send(b"here again")
            with anyio.fail_after(5):
                await connected.receive(batch)
        assert bytes(batch.packet(0)) == b"here again"
        assert connected.refused == 1
    finally:
        connected.close()


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.EMSGSIZE])
async def test_what_icmp_says_of_a_datagram_does_not_break_the_socket(
    number: int, trouble: Any
) -> None:
    with pair() as (connected, far):
        troubled = trouble(connected._socket)
        batch = Batch()
        for expected in (b"one", b"two"):
            troubled.reading.append(number)
            far.send(expected)
            with anyio.fail_after(SOON):
                await connected.receive(batch)
            assert [bytes(packet) for packet in batch] == [expected]
        assert connected.refused == 2


async def test_a_socket_that_is_broken_for_good_is_told_with_its_reason(trouble: Any) -> None:
    with pair() as (connected, far):
        troubled = trouble(connected._socket)
        for use in (connected.receive, lambda batch: connected.pump(batch, lambda _: None)):
            troubled.reading.append(errno.ENETDOWN)
            far.send(b"wake up")
            with anyio.fail_after(SOON), pytest.raises(AdapterError) as caught:
                await use(Batch())
            assert (caught.value.stage, caught.value.code) == (
                Stage.FORWARDING_LOOP,
                "local_socket_failed",
            )
            assert "Network is down" in caught.value.message


# Pumped, as the data plane does.


@asynccontextmanager
async def pumping(opened: BatchSocket) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Give what comes, as it comes."""
    received: list[tuple[int, bytes]] = []

    def consume(batch: Batch) -> None:
        received.extend((batch.flows[i], bytes(batch.packet(i))) for i in range(len(batch)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(opened.pump, receive_batch(), consume)
        yield received
        tasks.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(SOON):
        while not holds():
            await anyio.lowlevel.checkpoint()


async def test_a_pumped_socket_hands_on_what_comes_with_its_flow() -> None:
    context = SocketContext()
    bound = await context.bind_udp("127.0.0.1", 0)
    peers = [await context.connect_udp(*bound.local_address, flow=9) for _ in range(2)]
    outgoing = Batch()
    try:
        async with pumping(bound) as received, pumping(peers[1]) as replies:
            for turn in range(3):
                for number, peer in enumerate(peers):
                    outgoing.clear()
                    outgoing.append(b"%d of %d" % (turn, number))
                    assert peer.send(outgoing) == 1
                await until(lambda turn=turn: len(received) == 2 * (turn + 1))  # type: ignore[misc]
            flow = dict.fromkeys(flow for flow, _ in received)
            assert [data for _, data in received[:2]] == [b"0 of 0", b"0 of 1"]
            assert len(flow) == 2
            outgoing.clear()
            for number in range(20):
                outgoing.append(b"reply %d" % number, received[1][0])
            assert bound.send(outgoing) == 20
            await until(lambda: len(replies) == 20)
            assert replies == [(9, b"reply %d" % number) for number in range(20)]
    finally:
        for opened in (bound, *peers):
            opened.close()


async def test_a_pump_that_was_cancelled_leaves_a_socket_that_can_be_used() -> None:
    with pair() as (connected, far):
        async with pumping(connected) as received:
            far.send(b"one")
            await until(lambda: bool(received))
        far.send(b"two")
        batch = Batch()
        with anyio.fail_after(SOON):
            await connected.receive(batch)
        assert bytes(batch.packet(0)) == b"two"
        async with pumping(connected) as received:
            far.send(b"three")
            await until(lambda: bool(received))
            assert received == [(1, b"three")]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_closing_ends_a_pump_and_leaves_its_number_to_the_next_socket(
    cancelled: bool,
) -> None:
    """As flows do that give way: they are cancelled and closed in the same turn."""
    with pair() as (connected, _):
        number = connected._socket.fileno()
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                with pytest.raises((anyio.ClosedResourceError, anyio.get_cancelled_exc_class())):
                    await connected.pump(receive_batch(), lambda _: None)

            tasks.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            if cancelled:
                tasks.cancel_scope.cancel()
            connected.close()
            connected.close()
        with pytest.raises(anyio.ClosedResourceError):
            await connected.pump(receive_batch(), lambda _: None)
    with pair() as (after, far):
        assert number in (after._socket.fileno(), far.fileno())
        async with pumping(after) as received:
            far.send(b"for the next")
            await until(lambda: received == [(1, b"for the next")])


async def test_what_a_consumer_raises_ends_the_pump_and_not_the_socket() -> None:
    def consume(_: Batch) -> None:
        raise ZeroDivisionError

    with pair() as (connected, far):
        far.send(b"x")
        with anyio.fail_after(SOON), pytest.raises(ZeroDivisionError):
            await connected.pump(receive_batch(), consume)
        far.send(b"y")
        with anyio.fail_after(SOON):
            await connected.receive(Batch())


async def test_a_refusal_while_it_is_pumped_is_counted_and_no_end() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    connected = await SocketContext().connect_udp(*address, flow=1)
    batch = Batch()
    batch.append(b"x")
    try:
        async with pumping(connected) as received:
            connected.send(batch)
            await until(lambda: connected.refused == 1)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
                back.bind(address)
                back.sendto(b"here again", connected.local_address)
                await until(lambda: received == [(1, b"here again")])
    finally:
        connected.close()


async def test_a_socket_that_is_not_ours_is_pumped_by_its_receive() -> None:
    class Foreign:
        """A plugin's own."""

        local_address = ("192.0.2.1", 1)

        def __init__(self) -> None:
            self.left = [b"one", b"two"]

        async def receive(self, batch: Batch) -> None:
            await anyio.lowlevel.checkpoint()
            if not self.left:
                raise anyio.ClosedResourceError
            batch.clear()
            batch.append(self.left.pop(0), 4)

        def send(self, batch: Batch) -> int:
            return len(batch)

        def close(self) -> None:
            """Nothing to close."""

    received: list[bytes] = []
    with pytest.raises(anyio.ClosedResourceError):
        await pump(Foreign(), Batch(), lambda batch: received.extend(map(bytes, batch)))
    assert received == [b"one", b"two"]


async def test_what_is_appended_to_a_batch_that_was_received_overwrites_nothing() -> None:
    with pair() as (connected, far):
        for batch in (Batch(), receive_batch()):
            for number in range(3):
                far.send(b"%d" % number)
            with anyio.fail_after(SOON):
                await connected.receive(batch)
            assert batch.append(bytes(1000), 1)
            assert [bytes(packet) for packet in batch] == [b"0", b"1", b"2", bytes(1000)]


async def test_errors_name_the_stage_and_what_to_do() -> None:
    context = SocketContext()
    bound = await context.bind_udp("127.0.0.1", 0)
    try:
        with pytest.raises(AdapterError) as caught:
            await context.bind_udp(*bound.local_address)
        assert (caught.value.stage, caught.value.code) == (Stage.LOCAL_BIND, "local_bind_failed")
        assert caught.value.advice
    finally:
        bound.close()
    with pytest.raises(AdapterError) as caught:
        await context.connect_udp("no-such-host.invalid", 1, flow=1)
    assert (caught.value.stage, caught.value.code) == (
        Stage.UPSTREAM_DIAL,
        "upstream_name_unresolved",
    )


async def test_a_listening_socket_returns_sources_and_answers_them() -> None:
    listening = await ListeningUdpSocket.bind("127.0.0.1", 0)
    peer = await SocketContext().connect_udp(*listening.local_address, flow=1)
    batch, received = Batch(), receive_batch()
    batch.append(b"hello")
    try:
        peer.send(batch)
        with anyio.fail_after(5):
            await listening.receive(received)
            assert [bytes(packet) for packet in received] == [b"hello"]
            source = listening.address(received.flows[0])
            assert source == peer.local_address
            listening.send(b"welcome", source)
            await peer.receive(batch)
        assert bytes(batch.packet(0)) == b"welcome"
    finally:
        listening.close()
        peer.close()


def test_peers_keep_their_number_and_forgotten_ones_are_not_mixed_up() -> None:
    table = PeerTable(limit=2)
    first, second = table.flow(("a", 1)), table.flow(("b", 1))
    assert table.flow(("a", 1)) == first != second
    third = table.flow(("c", 1))
    assert table.source(second) is None
    assert table.flow(("b", 1)) not in (first, second, third)
    assert (len(table), table.evicted) == (2, 2)


def test_numbers_wrap_within_24_bits_and_skip_those_in_use() -> None:
    table = PeerTable(limit=3)
    table._next = MAX_FLOW
    assert table.flow(("a", 1)) == MAX_FLOW
    assert table.flow(("b", 1)) == 1
    table._next = 1
    assert table.flow(("c", 1)) not in (1, MAX_FLOW)


def test_a_flow_without_a_peer_is_dropped_and_counted() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        bound = BoundUdpSocket(opened)
        batch = Batch()
        batch.append(b"x", 77)
        assert bound.send(batch) == 0
        assert bound.dropped == 1
