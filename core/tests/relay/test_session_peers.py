"""The main port: who is let in, who gives way, when sessions end, and what nobody can break."""

from typing import Any

import anyio
import pytest

from turnlane.api import Batch, Stage
from turnlane.net.dtls import DtlsAssociation
from turnlane.proto.frames import ByeCode, Datagram, Ping, Pong, parse_untrusted
from turnlane.proto.lane_events import LaneRefused, PeerDraining, PeerLeft
from turnlane.proto.lane_server import LINGER as REFUSAL_LINGER
from turnlane.relay import server_session, session_peers

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("dataplane")]

ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))


def refusals(client: Any) -> list[str]:
    return [event.code for event in client.events if isinstance(event, LaneRefused)]


def byes(client: Any) -> list[str]:
    return [event.code for event in client.events if isinstance(event, PeerLeft)]


async def settled() -> None:
    """Let the upstream's tasks do what they have to do."""
    await anyio.wait_all_tasks_blocked()


# Joining.


async def test_a_client_that_joins_reaches_the_upstream_and_hears_it(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().join()
        client.send(7, b"one", b"two")
        await settled()
        (upstream,) = port.upstream.sockets
        assert (upstream.flow, upstream.taken) == (7, [b"one", b"two"])
        upstream.say(b"reply")
        await settled()
        client.settle()
        assert client.payloads == [(7, b"reply")]
        assert port.told.accepted == [((b"s" * 16).hex(), 0, True)]


async def test_an_association_that_ended_with_its_handshake_harms_nobody(open_port: Any) -> None:
    """The peer's Finished and its close_notify may come in one datagram."""
    async with open_port() as port:
        gone = DtlsAssociation.client(pin=None)
        gone.close()
        port.peers.accepted(("198.51.100.9", 9), gone, port.now)
        port.peers.closed(("198.51.100.9", 9), "close_notify", port.now)
        assert port.peers.lanes == {}
        port.client().join()
        assert len(port.peers.sessions) == 1


async def test_a_peer_that_says_no_hello_is_let_go_after_the_timeout(open_port: Any) -> None:
    async with open_port(hello_timeout=5.0) as port:
        client = port.client().handshake()
        port.tick(4.9)
        assert port.dtls.association_count == 1
        port.tick(0.2)
        client.settle()
        assert port.told.refused == [(Stage.SESSION_HELLO, "hello_timeout")]
        assert (port.dtls.association_count, port.peers.lanes) == (0, {})
        assert [end.reason for end in client.ends] == ["close_notify"]


async def test_a_refused_client_gets_the_same_answer_until_it_is_let_go(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().handshake().greet(token=None)
        assert refusals(client) == ["token_required"]
        port.tick(REFUSAL_LINGER - 1)
        assert port.dtls.association_count == 1
        port.tick(1)
        client.settle()
        assert (port.dtls.association_count, port.peers.lanes) == (0, {})
        assert [end.reason for end in client.ends] == ["close_notify"]
        assert port.told.refused == [(Stage.SESSION_HELLO, "token_required")]


async def test_peers_that_say_no_hello_give_way_to_newer_ones_and_never_to_sessions(
    open_port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_peers, "MAX_GREETING", 2)
    async with open_port() as port:
        first = port.client(1).join(ONE)
        silent = [port.client(number).handshake() for number in (2, 3, 4)]
        assert len(port.peers.lanes) == 3
        assert port.told.refused == [(Stage.SESSION_HELLO, "evicted")]
        for client in silent:
            client.settle()
        assert [bool(client.ends) for client in silent] == [True, False, False]
        port.client(5).join(TWO)
        assert len(port.peers.sessions) == 2
        first.send(1, b"still here")
        await settled()
        assert port.upstream.sockets[0].taken == [b"still here"]


async def test_another_lane_needs_the_sessions_secret(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client(1).join(ONE)
        stranger = port.client(2).handshake().greet(ONE, lane=1)
        assert refusals(stranger) == ["session_exists"]
        port.client(3).join(ONE, client.secret, lane=1)
        assert sorted(port.session(ONE).lanes) == [0, 1]


# Bursts.


async def test_flows_that_come_in_turns_keep_their_order(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().join()
        packets = [(flow, b"%d" % number) for number, flow in enumerate([1, 1, 2, 1, 3, 3, 2, 1])]
        for _ in range(2):
            client.send_raw(*(Datagram(flow, memoryview(data)).encode() for flow, data in packets))
            await settled()
        taken = {upstream.flow: upstream.taken for upstream in port.upstream.sockets}
        for flow in (1, 2, 3):
            assert taken[flow] == 2 * [data for of, data in packets if of == flow]


async def test_a_burst_of_several_clients_and_strangers_is_told_apart(open_port: Any) -> None:
    async with open_port() as port:
        clients = [port.client(number).join(bytes([number]) * 16) for number in (1, 2)]
        burst = []
        for number in range(6):
            client = clients[number % 2]
            record = Datagram(1, memoryview(b"%d" % number)).encode()
            burst.append((client.association.encrypt(record), client.address))
        forged = bytearray(burst[2][0])
        forged[-1] ^= 1
        burst[2:2] = [
            (bytes(forged), clients[0].address),
            (burst[1][0], clients[0].address),  # for another's keys
            (b"", clients[0].address),
            (burst[0][0], clients[0].address),  # again
            (b"\x17nonsense", ("203.0.113.9", 9)),
        ]
        port.take(*burst)
        await settled()
        # Flows open in any order.
        assert sorted(upstream.taken for upstream in port.upstream.sockets) == [
            [b"0", b"2", b"4"],
            [b"1", b"3", b"5"],
        ]


async def test_a_burst_larger_than_the_workspace_loses_nothing(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().join()
        client.send(1, b"open")
        await settled()
        payloads = [number.to_bytes(2, "big") * 7000 for number in range(100)]
        client.send(1, *payloads)
        assert port.upstream.sockets[0].taken == [b"open", *payloads]
        batch = Batch(capacity=100, size=2**21)
        for payload in payloads:
            batch.append(payload, 1)
        (lane,) = port.peers.lanes.values()
        lane.send(batch, 0, 100)
        client.settle()
        assert client.payloads == [(1, payload) for payload in payloads]


async def test_a_ping_in_a_burst_counts_what_came_before_it(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().join()
        record = Datagram(1, memoryview(b"x")).encode()
        ping = Ping(77, 3).encode()
        client.send_raw(record, record, record, ping, record)
        frames = map(parse_untrusted, client.raw)
        pongs = [frame for frame in frames if isinstance(frame, Pong)]
        assert (77, 3) in [(pong.sequence, pong.frames_received) for pong in pongs]


async def test_what_follows_the_end_of_an_association_in_a_burst_is_nobodys(
    open_port: Any,
) -> None:
    async with open_port() as port:
        client, other = port.client(1).join(ONE), port.client(2).join(TWO)
        before, after = (
            client.association.encrypt(Datagram(1, memoryview(data)).encode())
            for data in (b"before", b"after")
        )
        client.association.close()
        (farewell,) = client.association.datagrams_to_send()
        bystander = other.association.encrypt(Datagram(1, memoryview(b"other")).encode())
        port.take(
            (before, client.address),
            (farewell, client.address),
            (after, client.address),
            (bystander, other.address),
        )
        await settled()
        taken = sorted(upstream.taken for upstream in port.upstream.sockets)
        assert taken == [[b"before"], [b"other"]]
        assert port.told.lost == [(0, "close_notify")]


# One session, several lanes.


async def test_a_lane_that_comes_anew_takes_the_place_of_the_old_one(open_port: Any) -> None:
    async with open_port() as port:
        old = port.client(1).join(ONE)
        old.send(1, b"before")
        await settled()
        new = port.client(2).join(ONE, old.secret)
        old.settle()
        assert byes(old) == ["lane_replaced"]
        assert port.told.lost == [(0, "replaced")]
        assert len(port.peers.lanes) == port.dtls.association_count == 1
        port.upstream.sockets[0].say(b"reply")
        await settled()
        new.settle()
        assert new.payloads == [(1, b"reply")]
        # What the old one still has to say is for nobody.
        old.leave(ByeCode.SESSION_CLOSED)
        new.send(1, b"after")
        await settled()
        (upstream,) = port.upstream.sockets
        assert upstream.taken == [b"before", b"after"]


async def test_of_two_lanes_that_claim_an_index_the_last_one_has_it(open_port: Any) -> None:
    async with open_port() as port:
        first = port.client(1).join(ONE)
        racing = [port.client(number).handshake() for number in (2, 3)]
        for client in racing:
            client.greet(ONE, first.secret, lane=1)
        for client in racing:
            client.settle()
        assert [byes(client) for client in racing] == [["lane_replaced"], []]
        assert sorted(port.session(ONE).lanes) == [0, 1]
        assert port.dtls.association_count == 2


async def test_replies_leave_by_the_lane_that_brought_the_flow(open_port: Any) -> None:
    async with open_port() as port:
        one = port.client(1).join(ONE)
        two = port.client(2).join(ONE, one.secret, lane=1)
        one.send(1, b"x")
        two.send(2, b"x")
        await settled()
        for upstream in port.upstream.sockets:
            upstream.say(b"reply")
        await settled()
        one.settle()
        two.settle()
        assert (one.payloads, two.payloads) == ([(1, b"reply")], [(2, b"reply")])


async def test_replies_leave_a_lane_that_does_not_answer_for_one_that_does(open_port: Any) -> None:
    async with open_port() as port:
        one = port.client(1).join(ONE)
        two = port.client(2).join(ONE, one.secret, lane=1)
        one.send(1, b"x")
        await settled()
        estimate = port.session(ONE).lanes[0].estimate
        estimate.asked(port.now - 5)
        port.upstream.sockets[0].say(b"over two")
        await settled()
        one.settle()
        two.settle()
        assert (one.payloads, two.payloads) == ([], [(1, b"over two")])


async def test_a_lane_is_not_left_because_all_lanes_are_silent(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().join(ONE)
        client.send(1, b"x")
        await settled()
        port.session(ONE).lanes[0].estimate.asked(port.now - 5)
        port.upstream.sockets[0].say(b"reply")
        await settled()
        client.settle()
        assert client.payloads == [(1, b"reply")]


async def test_no_reply_leaves_by_a_lane_whose_client_may_not_know_of_its_welcome(
    open_port: Any,
) -> None:
    async with open_port() as port:
        one = port.client(1).join(ONE)
        one.send(1, b"x")
        # The welcome is on its way: the client has not answered it.
        two = port.client(2).handshake()
        two.greet(ONE, one.secret, lane=1)
        one.leave(ByeCode.LANE_CLOSED)
        await settled()
        session = port.session(ONE)
        port.upstream.sockets[0].say(b"too early")
        await settled()
        assert session.unsent == 1
        two.lane.handle_timer(port.now)
        two.settle()
        port.upstream.sockets[0].say(b"reply")
        await settled()
        two.settle()
        assert two.payloads == [(1, b"reply")]


async def test_the_lanes_that_replies_leave_by_are_remembered_within_a_bound(
    open_port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_session, "MAX_RETURNS", 3)
    async with open_port() as port:
        client = port.client().join(ONE)
        for flow in range(10):
            client.send(flow, b"x")
            await settled()
        session = port.session(ONE)
        assert sorted(session._return_lane) == [7, 8, 9]
        # A reply to a flow whose lane was forgotten still finds one, and brings nothing back in.
        # Flows open in any order.
        (upstream,) = (each for each in port.upstream.sockets if each.flow == 0)
        upstream.say(b"reply")
        await settled()
        client.settle()
        assert client.payloads == [(0, b"reply")]
        assert len(session._return_lane) == 3


# The end of sessions.


async def test_a_session_that_carries_nothing_ends_and_its_client_is_told(open_port: Any) -> None:
    async with open_port(idle_timeout=60.0) as port:
        client = port.client().join(ONE)
        client.send(1, b"x")
        await settled()
        for _ in range(11):
            port.tick(5.0)
            client.lane.handle_timer(port.now)
            client.settle()  # pings and pongs are no payload
        assert list(port.peers.sessions) == [ONE]
        port.tick(5.0)
        client.settle()
        assert port.peers.sessions == {}
        assert byes(client) == ["idle"]
        assert port.upstream.sockets[0].closed
        assert port.told.lost == [(0, "idle")]
        assert port.dtls.association_count == 0


async def test_a_session_that_carries_something_now_and_then_lives_on(open_port: Any) -> None:
    async with open_port(idle_timeout=10.0) as port:
        client = port.client().join(ONE)
        for _ in range(5):
            port.tick(9.0)
            client.settle()
            client.send(1, b"x")
        assert list(port.peers.sessions) == [ONE]
        assert port.told.lost == []


async def test_a_lane_that_falls_silent_is_let_go_and_its_session_waits(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().join(ONE)
        for _ in range(80):
            port.tick(0.2)
        assert port.told.lost == [(0, "silent")]
        assert (port.peers.lanes, port.dtls.association_count) == ({}, 0)
        back = port.client(2).join(ONE, client.secret)
        assert port.told.accepted[-1] == (ONE.hex(), 0, False)
        assert refusals(back) == []


async def test_a_session_without_lanes_is_kept_for_a_while(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client(1).join(ONE)
        client.send(1, b"x")
        client.leave(ByeCode.LANE_CLOSED)
        await settled()
        port.tick(session_peers.LINGER - 1)
        back = port.client(2).join(ONE, client.secret)
        back.send(1, b"y")
        await settled()
        (upstream,) = port.upstream.sockets
        assert upstream.taken == [b"x", b"y"]
        back.leave(ByeCode.LANE_CLOSED)
        port.tick(session_peers.LINGER)
        assert port.peers.sessions == {}
        assert upstream.closed
        late = port.client(3).handshake().greet(ONE, client.secret)
        assert refusals(late) == ["unknown_session"]


async def test_a_client_that_ends_its_session_ends_all_its_lanes(open_port: Any) -> None:
    async with open_port() as port:
        one = port.client(1).join(ONE)
        two = port.client(2).join(ONE, one.secret, lane=1)
        one.send(1, b"x")
        await settled()
        one.leave(ByeCode.SESSION_CLOSED)
        two.settle()
        assert byes(two) == ["session_closed"]
        assert (port.peers.sessions, port.peers.lanes) == ({}, {})
        assert port.upstream.sockets[0].closed


async def test_a_session_whose_secret_never_arrived_ends_with_its_lane(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().handshake()
        client.greet(ONE)  # the welcome is not confirmed
        client.association.close()
        client.settle()
        assert port.peers.sessions == {}


async def test_a_full_server_refuses_a_session_as_long_as_all_have_lanes(open_port: Any) -> None:
    async with open_port(max_sessions=2) as port:
        port.client(1).join(ONE)
        port.client(2).join(TWO)
        late = port.client(3).handshake().greet(THREE)
        assert refusals(late) == ["session_limit"]
        assert set(port.peers.sessions) == {ONE, TWO}


async def test_the_session_deserted_for_longest_makes_room(open_port: Any) -> None:
    async with open_port(max_sessions=2) as port:
        one, two = port.client(1).join(ONE), port.client(2).join(TWO)
        two.leave(ByeCode.LANE_CLOSED)
        port.tick(1.0)
        one.leave(ByeCode.LANE_CLOSED)
        port.client(3).join(THREE)
        assert set(port.peers.sessions) == {ONE, THREE}


async def test_a_session_that_ends_while_its_flow_is_being_opened_opens_none(
    open_port: Any,
) -> None:
    async with open_port() as port:
        port.upstream.open = anyio.Event()
        client = port.client().join(ONE)
        client.send(1, b"x")
        await settled()
        client.leave(ByeCode.SESSION_CLOSED)
        port.upstream.open.set()
        await settled()
        assert port.upstream.sockets == []
        assert port.told.failed == []


async def test_a_flow_that_fails_is_told_with_its_session(open_port: Any) -> None:
    async with open_port() as port:
        port.upstream.failing = True
        client = port.client().join(ONE)
        client.send(3, b"x")
        await settled()
        assert port.told.failed == [(3, "upstream_unreachable")]
        assert list(port.peers.sessions) == [ONE]


async def test_a_draining_server_tells_its_clients_and_lets_nobody_in(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client(1).join(ONE)
        port.peers.drain(port.now + 1.0, port.now)
        client.settle()
        assert [type(event) for event in client.events][-1] is PeerDraining
        late = port.client(2).handshake().greet(TWO)
        assert refusals(late) == ["draining"]
        assert not port.peers.left.is_set()
        port.tick(REFUSAL_LINGER)
        client.leave(ByeCode.SESSION_CLOSED)
        assert port.peers.left.is_set()


async def test_closing_says_bye_to_every_lane_and_closes_every_flow(open_port: Any) -> None:
    async with open_port() as port:
        clients = [port.client(1).join(ONE), port.client(2).join(TWO)]
        for client in clients:
            client.send(1, b"x")
        await settled()
        port.peers.close(port.now)
        port.listener.flush()
        for client in clients:
            client.settle()
        assert [byes(client) for client in clients] == [["shutdown"], ["shutdown"]]
        assert all(upstream.closed for upstream in port.upstream.sockets)
        assert port.dtls.association_count == 0
