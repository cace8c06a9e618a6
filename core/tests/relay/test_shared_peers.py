"""One session in two processes: decided where its first lane came, whoever holds the others."""

from typing import Any

import anyio
import pytest

from turnlane.api import Batch, Stage
from turnlane.proto.frames import ByeCode
from turnlane.proto.lane_events import LaneRefused, PeerDraining, PeerLeft

pytestmark = pytest.mark.anyio

ONE, TWO = b"1" * 16, b"2" * 16


def refusals(client: Any) -> list[str]:
    return [event.code for event in client.events if isinstance(event, LaneRefused)]


def byes(client: Any) -> list[str]:
    return [event.code for event in client.events if isinstance(event, PeerLeft)]


async def joined(shared: Any) -> tuple[Any, Any]:
    """Return two lanes of one session: its owner is port 0, the second is held by port 1."""
    first = await shared.join(shared.ports[0].client(), ONE)
    second = await shared.join(shared.ports[1].client(), ONE, first.secret, lane=1)
    return first, second


async def test_lanes_from_two_processes_share_one_upstream_and_get_its_replies(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, holder = shared.ports
        first, second = await joined(shared)
        assert [list(port.peers.sessions) for port in shared.ports] == [[ONE], []]
        assert owner.told.accepted == [(ONE.hex(), 0, True), (ONE.hex(), 1, False)]
        assert holder.told.accepted == []

        first.send(7, b"over the first")
        second.send(7, b"over the second", b"", b"again")
        await shared.until(lambda: owner.upstream.sockets, first, second)
        (upstream,) = owner.upstream.sockets
        await shared.until(lambda: len(upstream.taken) == 4, first, second)
        assert sorted(upstream.taken) == [b"", b"again", b"over the first", b"over the second"]
        assert holder.upstream.sockets == []

        second.send(8, b"a flow of its own")
        await shared.until(lambda: len(owner.upstream.sockets) == 2, second)
        owner.upstream.sockets[1].say(b"reply")
        await shared.until(lambda: second.payloads, first, second)
        assert (first.payloads, second.payloads) == ([], [(8, b"reply")])


async def test_a_session_with_all_its_lanes_in_one_process_concerns_no_other(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        first = await shared.join(shared.ports[1].client(1), ONE)
        await shared.join(shared.ports[1].client(2), ONE, first.secret, lane=1)
        assert (shared.owners, shared.census[0].asked) == ({ONE: 1}, [])
        assert shared.ports[0].peers.lanes == {}
        assert shared.ports[1].peers.sessions[ONE].lanes.keys() == {0, 1}


async def test_what_the_client_says_on_a_held_lane_is_decided_by_the_owner(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, holder = shared.ports
        first, second = await joined(shared)
        second.leave(ByeCode.LANE_CLOSED)
        await shared.until(lambda: not holder.peers.lanes, second)
        assert owner.told.lost == [(1, "lane_closed")]
        assert holder.dtls.association_count == 0
        third = await shared.join(holder.client(3), ONE, first.secret, lane=1)
        third.leave(ByeCode.SESSION_CLOSED)
        await shared.until(lambda: not shared.owners, third)
        assert (owner.peers.sessions, owner.peers.lanes) == ({}, {})
        first.settle()
        assert byes(first) == ["session_closed"]


async def test_a_held_lane_is_pinged_and_found_dead_by_the_owner(open_shared_ports: Any) -> None:
    async with open_shared_ports() as shared:
        owner, holder = shared.ports
        _, second = await joined(shared)
        owner.tick(10)
        holder.now = second.port.now = owner.now
        received = len(second.raw)
        await shared.until(lambda: len(second.raw) > received, second)
        for _ in range(30):
            owner.tick(1)
        await shared.until(lambda: not holder.peers.lanes)
        assert (1, "silent") in owner.told.lost
        second.settle()
        assert [end.reason for end in second.ends] == ["close_notify"]


async def test_an_association_that_ends_at_the_holder_leaves_the_session(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, holder = shared.ports
        _, second = await joined(shared)
        second.association.close()
        second.settle()
        await shared.until(lambda: owner.told.lost)
        assert owner.told.lost == [(1, "closed")]
        assert (holder.peers.lanes, owner.peers.sessions[ONE].lanes.keys()) == ({}, {0})


async def test_a_lane_that_takes_the_place_of_a_held_one_has_its_client_told(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, holder = shared.ports
        first, second = await joined(shared)
        await shared.join(owner.client(3), ONE, first.secret, lane=1)
        await shared.until(lambda: not holder.peers.lanes, second)
        assert byes(second) == ["lane_replaced"]


async def test_without_its_owner_the_clients_of_a_session_are_sent_back_at_once(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        _, holder = shared.ports
        _, second = await joined(shared)
        other = await shared.join(holder.client(5), TWO)
        shared.links[0, 1].close()
        await shared.until(lambda: len(holder.peers.lanes) == 1, second)
        assert byes(second) == ["shutdown"]
        assert [end.reason for end in second.ends] == ["close_notify"]
        other.send(1, b"goes on")
        await shared.until(lambda: holder.upstream.sockets, other)
        assert byes(other) == []


async def test_without_a_holder_the_session_goes_on_over_its_other_lanes(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, _ = shared.ports
        first, _ = await joined(shared)
        shared.links[1, 0].close()
        await shared.until(lambda: owner.told.lost)
        assert owner.told.lost == [(1, "worker_lost")]
        assert owner.peers.sessions[ONE].lanes.keys() == {0}
        first.send(1, b"goes on")
        await shared.until(lambda: owner.upstream.sockets, first)
        assert byes(first) == []


async def test_who_proves_nothing_is_refused_without_anybody_being_asked(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        client = shared.ports[0].client().handshake().greet(ONE, token=None)
        assert refusals(client) == ["token_required"]
        nonsense = shared.ports[0].client(2).handshake()
        nonsense.send_raw(b"nonsense")
        assert shared.ports[0].told.refused[1] == (Stage.SESSION_HELLO, "malformed")
        assert shared.census[0].asked == []


async def test_sessions_that_nobody_owns_are_refused_as_by_one_process(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        first = await shared.join(shared.ports[0].client(), ONE)
        unknown = shared.ports[1].client(2).handshake().greet(TWO, first.secret)
        assert refusals(unknown) == ["unknown_session"]
        shared.census[1].full = True
        late = shared.ports[1].client(3).handshake().greet(TWO)
        assert refusals(late) == ["session_limit"]
        again = shared.ports[1].client(4).handshake().greet(ONE)
        await shared.until(lambda: again.events, again)
        assert refusals(again) == ["session_exists"]
        assert shared.owners == {ONE: 0}


async def test_a_session_that_ended_on_the_way_to_its_owner_is_asked_for_anew(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        shared.owners[ONE] = 0  # its owner knows nothing of it any more
        client = shared.ports[1].client().handshake().greet(ONE)
        await shared.until(lambda: client.events, client)
        assert refusals(client) == ["session_exists"]  # the client takes another id
        assert shared.ports[0].peers.sessions == {}


async def test_a_hello_that_is_repeated_is_asked_about_once(open_shared_ports: Any) -> None:
    async with open_shared_ports() as shared:
        census = shared.census[0]
        census.held = []
        client = shared.ports[0].client().handshake().greet(ONE)
        assert client.lane is not None
        for _ in range(3):
            shared.ports[0].now += 1.5
            client.lane.handle_timer(client.port.now)
            client.settle()
        assert (census.asked, len(census.held), client.events) == ([(ONE, True)], 1, [])
        census.held.pop()()
        client.settle()
        assert client.secret is not None


async def test_an_answer_that_never_comes_leaves_nothing_behind(open_shared_ports: Any) -> None:
    async with open_shared_ports() as shared:
        port, census = shared.ports[0], shared.census[0]
        census.held = []
        port.client().handshake().greet(ONE)
        port.tick(5.1)
        assert port.told.refused == [(Stage.SESSION_HELLO, "hello_timeout")]
        late = port.client().handshake().greet(ONE)  # from the same address
        first, second = census.held
        first()
        assert late.events == []
        second()
        late.settle()
        assert late.secret is not None


async def test_a_claim_whose_client_is_gone_is_given_back(open_shared_ports: Any) -> None:
    async with open_shared_ports() as shared:
        census = shared.census[0]
        census.held = []
        client = shared.ports[0].client().handshake().greet(ONE)
        client.association.close()
        client.settle()
        census.held.pop()()
        assert (shared.owners, shared.ports[0].peers.lanes) == ({}, {})


async def test_a_hello_for_an_owner_that_is_gone_waits_for_its_repetition(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        first = await shared.join(shared.ports[0].client(), ONE)
        shared.links[1, 0].close()
        await anyio.wait_all_tasks_blocked()
        client = shared.ports[1].client(2).handshake().greet(ONE, first.secret, lane=1)
        assert client.events == []
        del shared.owners[ONE]
        shared.ports[1].now += 1.5
        assert client.lane is not None
        client.lane.handle_timer(client.port.now)
        client.settle()
        assert refusals(client) == ["unknown_session"]


async def test_a_drain_reaches_the_clients_of_held_lanes_and_waits_for_them(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, holder = shared.ports
        first, second = await joined(shared)
        for port in shared.ports:
            port.peers.drain(port.now + 1, port.now)
        await shared.until(
            lambda: all(
                any(isinstance(event, PeerDraining) for event in client.events)
                for client in (first, second)
            ),
            first,
            second,
        )
        assert not holder.peers.left.is_set()
        second.leave(ByeCode.LANE_CLOSED)
        first.leave(ByeCode.SESSION_CLOSED)
        await shared.until(
            lambda: owner.peers.left.is_set() and holder.peers.left.is_set(), first, second
        )


async def test_a_holder_that_ends_says_bye_itself(open_shared_ports: Any) -> None:
    async with open_shared_ports() as shared:
        _, second = await joined(shared)
        shared.ports[1].peers.close(shared.ports[1].now)
        second.settle()
        assert byes(second) == ["shutdown"]


async def test_deserted_sessions_are_told_and_end_when_they_shall_make_room(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, _ = shared.ports
        first, second = await joined(shared)
        second.leave(ByeCode.LANE_CLOSED)
        first.leave(ByeCode.LANE_CLOSED)
        await shared.until(lambda: not owner.peers.lanes, first, second)
        for _ in range(3):
            owner.tick(0.2)
        assert shared.census[0].told_deserted == [(ONE,)]
        owner.peers.end_session(ONE, owner.now)
        owner.peers.end_session(TWO, owner.now)
        assert (owner.peers.sessions, shared.owners) == ({}, {})
        owner.tick(0.2)
        assert shared.census[0].told_deserted == [(ONE,), ()]


async def test_what_a_full_link_sheds_is_counted_and_the_lane_lives(open_shared_ports: Any) -> None:
    async with open_shared_ports() as shared:
        _, holder = shared.ports
        _, second = await joined(shared)
        while not holder.peers.dropped:
            second.deliver(
                [second.association.encrypt(b"\x10\x00\x00\x01" + bytes(8000)) for _ in range(16)]
            )
        assert holder.peers.dropped <= 16
        assert len(holder.peers.lanes) == 1


async def test_what_the_path_of_a_held_lane_does_not_bear_is_known_to_the_owner(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, holder = shared.ports
        _, second = await joined(shared)
        second.send(8, b"hello")
        await shared.until(lambda: owner.upstream.sockets, second)
        (upstream,) = owner.upstream.sockets
        for port in shared.ports:  # the system of both has just heard of it
            port.wires.largest = 600
        fits = 600 - second.association.overhead - 4
        upstream.say(bytes(1000))
        await shared.until(lambda: owner.peers.too_large == 1, second)
        assert owner.told.too_large == [(1, 1000, fits, 1)]
        assert holder.wires.too_large == 1
        upstream.say(bytes(fits + 1))
        await shared.until(lambda: owner.peers.too_large == 2, second)
        assert holder.wires.too_large == 1  # it was not even passed on
        upstream.say(bytes(fits))
        await shared.until(lambda: second.payloads, second)
        assert second.payloads == [(8, bytes(fits))]


async def test_of_a_burst_to_a_held_lane_only_what_is_too_large_stays_behind(
    open_shared_ports: Any,
) -> None:
    async with open_shared_ports() as shared:
        owner, _ = shared.ports
        _, second = await joined(shared)
        (lane,) = [each for key, each in owner.peers.lanes.items() if key[0] is shared.links[0, 1]]
        lane.max_datagram = 100
        batch = Batch()
        for size in (101, 10, 100, 200, 300, 20):
            batch.append(bytes([size % 256]) * size, 3)
        lane.send(batch, 0, 5)
        await shared.until(lambda: len(second.payloads) == 2, second)
        assert [len(payload) for _, payload in second.payloads] == [10, 100]
        assert (lane.too_large, owner.peers.too_large) == (3, 3)
