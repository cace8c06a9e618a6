"""Generator and sink: what one sent is what the other counts, and what is missing is lost."""

import socket
import struct
import time
from pathlib import Path

import pytest

from turnlane_lab.bench import peer as peer_module
from turnlane_lab.bench.measures import (
    BURST,
    Offer,
    carry,
    goodput,
    loaded_trips,
    saturating,
    steady,
    trips,
)
from turnlane_lab.bench.peer import Peer, Pinging, Sending
from turnlane_lab.bench.routes import Route, Site
from turnlane_lab.bench.wire import (
    HEADER,
    MAGIC,
    MIN_SIZE,
    MIXED,
    Inbox,
    Kind,
    Volley,
    datagram,
    framed,
    sizes_of,
)


@pytest.fixture(scope="module")
def route(tmp_path_factory):
    """A generator whose datagrams go straight to a sink."""
    with Site(tmp_path_factory.mktemp("bench")).direct() as opened:
        yield opened


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("size", ["200", "1200", "mixed"])
def test_what_is_sent_within_a_window_all_arrives(route, way, size):
    passed = carry(route, way, saturating(size, 0.02)).passed[way]
    assert passed.sent > 0
    assert (passed.received, passed.lost, passed.loss) == (passed.sent, 0, 0.0)
    sizes = sizes_of(size)
    if len(sizes) == 1 or passed.sent % len(sizes) == 0:
        assert passed.bytes == passed.sent * sum(sizes) // len(sizes)


def test_both_directions_at_once_are_counted_apart(route):
    load = carry(route, "both", saturating("600", 0.02))
    assert set(load.passed) == {"up", "down"}
    assert load.received == sum(each.sent for each in load.passed.values())
    assert load.mbit == pytest.approx(sum(each.mbit for each in load.passed.values()))


def test_a_steady_load_is_as_many_datagrams_as_its_rate_says(route):
    passed = carry(route, "up", steady(10, 0.1)).passed["up"]
    assert passed.sent <= 10e6 / 8 / 1200 * 0.1 + 1
    assert passed.received == passed.sent


def test_what_nobody_receives_is_lost(route):
    with Site(_folder(route)).direct() as other:
        crossed = Route(route.near, other.far, {})
        passed = carry(crossed, "up", Offer("200", 1000, 1, seconds=0.02)).passed["up"]
    assert passed.sent > 0
    assert (passed.received, passed.bytes, passed.loss) == (0, 0, 1.0)


def test_the_goodput_found_lost_less_than_a_hundredth(route):
    load = goodput(route, "up", "200", 0.02, start=2000)
    assert load.loss < 0.01
    assert load.rate > 2000


def test_where_nothing_arrives_no_goodput_is_claimed(route):
    with Site(_folder(route)).direct() as other:
        crossed = Route(route.near, other.far, {})
        assert goodput(crossed, "up", "200", 0.01, start=150).received == 0


def test_every_round_trip_is_returned_or_lost(route):
    found = trips(route, 50, 5.0, 100)
    assert (found.count > 0, found.count + found.lost) == (True, 50)
    assert 0 < found.p50_us <= found.p99_us


def test_round_trips_are_measured_beside_a_load(route, tmp_path):
    with Site(tmp_path).direct() as other:
        beside = Route(route.near, other.far, other.parts, pinger=other.near)
        found = loaded_trips(beside, Offer("200", 1000, seconds=0.1))
    assert found.count > 0


def _folder(route: Route) -> Path:
    return route.near._log.parent


# Its protocol, in this process


def test_a_process_that_says_nothing_sensible_is_told_with_what_it_said_last(route, tmp_path):
    from turnlane.api import TransportError

    with Site(tmp_path).direct() as other:
        with pytest.raises(
            TransportError, match=r"near peer: it has ended \(not a command: nonsense"
        ):
            other.near.ask("nonsense")
        with pytest.raises(TransportError, match="ended"):
            other.near.check()


def test_datagrams_of_another_run_or_of_strangers_are_not_counted():
    with Pair() as (ours, theirs):
        sink = Peer([theirs], None, None)
        assert sink._do(["expect", "7", "0"]) == {}
        for packet in (
            datagram(Kind.DATA, 7, 0, 100),
            datagram(Kind.DATA, 6, 0, 100),
            b"stranger" * 10,
            b"short",
            datagram(Kind.DATA, 7, 0, MIN_SIZE),
        ):
            ours.send(packet)
        sink._receive(theirs)
        assert sink._do(["count"]) == {"received": 2, "bytes": 100 + MIN_SIZE}


def test_channel_data_is_framed_on_the_way_out_and_unframed_on_the_way_in():
    with Pair() as (ours, theirs):
        peer = Peer([theirs], None, None, channel=0x4001)
        peer._do(["hello"])
        said = ours.recv(100)
        assert struct.unpack_from("!HH", said) == (0x4001, len(said) - 4)
        assert HEADER.unpack_from(said, 4)[:2] == (MAGIC, Kind.HELLO)
        peer._do(["expect", "1", "0"])
        ours.send(framed(datagram(Kind.DATA, 1, 0, 50), 0x4001))
        peer._receive(theirs)
        assert peer._do(["count"]) == {"received": 1, "bytes": 50}


def test_a_closed_window_opens_by_what_arrived_and_after_a_stall():
    with Pair() as (_, theirs):
        sending = Sending(Peer([theirs], None, None), 3, interval=0.0, seconds=60.0)
        sending.load([100], 4, 8)
        now = time.perf_counter()
        assert sending.work(now) is None
        assert sending.sent == 8
        assert sending.due(now) > now
        sending.acknowledge(2, 8)
        sending.work(now)
        assert sending.sent == 8
        sending.acknowledge(3, 4)
        sending.work(now)
        assert sending.sent == 12
        sending.work(sending.due(now) + 1)
        assert sending.sent == 20
        assert sending.work(now + 61) == {"sent": 20, "seconds": pytest.approx(61, abs=1)}


def test_a_schedule_that_is_far_behind_is_not_caught_up_with():
    with Pair() as (_, theirs):
        sending = Sending(Peer([theirs], None, None), 3, interval=0.01, seconds=60.0)
        sending.load([100], 1, 0)
        now = time.perf_counter()
        sending.work(now)
        assert (sending.sent, sending.due(now) > now) == (1, True)
        sending.work(now + 10)
        assert sending.sent == 2


def test_a_ping_that_does_not_return_is_lost_and_a_late_one_not_counted():
    with Pair() as (_, theirs):
        pinging = Pinging(Peer([theirs], None, None), 4, 2, 60.0, 100)
        now = time.perf_counter()
        pinging.work(now)
        assert pinging.work(now) is None
        pinging.work(now + 1)
        pinging.returned(4, 1)
        pinging.returned(4, 2)
        pinging.returned(4, 2)
        answer = pinging.work(now + 1)
    assert answer is not None
    assert answer["lost"] == 1
    assert len(answer["ns"]) == 1


def test_acknowledgements_are_followed_also_when_cut_in_two():
    ours, theirs = socket.socketpair()
    with ours, theirs, Pair() as (_, near):
        peer = Peer([near], None, theirs)
        peer._do(["send", "5", "0", "1", "1", "60", "100"])
        assert isinstance(peer._job, Sending)
        message = peer_module.ACK.pack(5, 1) + peer_module.ACK.pack(5, 2)
        ours.send(message[:20])
        peer._read_acks(theirs)
        assert peer._job.acknowledged == 1
        ours.send(message[20:])
        peer._read_acks(theirs)
        assert peer._job.acknowledged == 2


# The batches


def test_a_volley_leaves_as_it_was_loaded_whatever_its_sizes():
    packets = [bytes([index]) * size for index, size in enumerate((100, 100, 100, 50, 200, 200))]
    with Pair() as (ours, theirs):
        assert Volley(packets).send(ours) == len(packets)
        theirs.setblocking(False)
        assert [bytes(packet) for packet, _ in Inbox().take(theirs)] == packets


def test_a_volley_is_sent_singly_where_the_system_cannot_cut_it(monkeypatch):
    from turnlane_lab.bench import wire

    monkeypatch.setattr(wire, "_SEGMENT", 9999)
    with Pair() as (ours, theirs):
        assert Volley([b"x" * 20] * 3).send(ours) == 3
        assert len(list(Inbox().take(theirs))) == 3


def test_mixed_traffic_fills_a_burst():
    assert len(MIXED) == BURST
    assert sizes_of("mixed") == MIXED
    assert sizes_of("64") == (64,)


class Pair:
    """Two UDP sockets that are connected to each other."""

    def __enter__(self):
        self._sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
        for each in self._sockets:
            each.bind(("127.0.0.1", 0))
            each.setblocking(False)
        one, other = self._sockets
        one.connect(other.getsockname())
        other.connect(one.getsockname())
        return one, other

    def __exit__(self, *_):
        for each in self._sockets:
            each.close()
