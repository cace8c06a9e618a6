"""Overload: who sends too much loses the newest of their own packets, and nobody else's."""

from typing import Any

import anyio
import pytest

from turnlane.relay.flows import MAX_QUEUED, MAX_QUEUED_BYTES

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("dataplane")]

FLOOD = 500
"""Datagrams that one client sends for each of the other's."""

ROUNDS = 20


def numbered(number: int) -> bytes:
    return number.to_bytes(4) + bytes(1196)


async def test_one_session_floods_and_the_other_gets_everything_through(open_port: Any) -> None:
    async with open_port() as port:
        loud = port.client(1).join(b"l" * 16)
        modest = port.client(2).join(b"m" * 16)
        for client in (loud, modest):
            client.send(1, b"open")
            await anyio.wait_all_tasks_blocked()
        upstreams = port.upstream.sockets
        for number in range(ROUNDS):
            for _ in range(10):
                loud.send(1, *[bytes(1200)] * (FLOOD // 10))
            modest.send(1, numbered(number))
            upstreams[1].say(numbered(number))
        await anyio.wait_all_tasks_blocked()
        modest.settle()
        assert upstreams[1].taken[1:] == [numbered(number) for number in range(ROUNDS)]
        assert [reply for _, reply in modest.payloads] == [numbered(n) for n in range(ROUNDS)]
        assert len(upstreams[0].taken) == 1 + ROUNDS * FLOOD


async def test_a_session_whose_upstream_does_not_open_loses_its_newest_packets_only(
    open_port: Any,
) -> None:
    async with open_port() as port:
        modest = port.client(2).join(b"m" * 16)
        modest.send(1, b"open")
        await anyio.wait_all_tasks_blocked()
        port.upstream.open = anyio.Event()
        loud = port.client(1).join(b"l" * 16)
        for number in range(ROUNDS):
            loud.send(1, *(numbered(number * 20 + index) for index in range(20)))
            modest.send(1, numbered(number))
        table = port.session(b"l" * 16).flows
        assert table.dropped == ROUNDS * 20 - MAX_QUEUED
        port.upstream.open.set()
        await anyio.wait_all_tasks_blocked()
        first, late = port.upstream.sockets
        assert late.taken == [numbered(number) for number in range(MAX_QUEUED)], "the oldest"
        assert first.taken[1:] == [numbered(number) for number in range(ROUNDS)]
        assert port.session(b"m" * 16).flows.dropped == 0


async def test_what_waits_for_all_upstreams_of_a_session_is_bounded_in_bytes(
    open_port: Any,
) -> None:
    async with open_port() as port:
        port.upstream.open = anyio.Event()
        loud = port.client(1).join(b"l" * 16)
        modest = port.client(2).join(b"m" * 16)
        size, sent = 8192, 0
        for flow in range(1, 20):
            for _ in range(MAX_QUEUED // 16):
                loud.send(flow, *[bytes(size)] * 16)
                sent += 16
        modest.send(1, b"modest")
        assert port.session(b"l" * 16).flows.dropped == sent - MAX_QUEUED_BYTES // size
        port.upstream.open.set()
        await anyio.wait_all_tasks_blocked()
        assert [b"modest"] in [upstream.taken for upstream in port.upstream.sockets]
