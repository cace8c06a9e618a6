"""The search for a path's MTU: two ends on a virtual clock, and what each of them says."""

from collections.abc import Iterable
from random import Random

import pytest

from turnlane.proto.frames import (
    COUNTER_MASK,
    HEADER_SIZE,
    MIN_PROBE,
    Probe,
    ProbeAnswer,
    parse_untrusted,
)
from turnlane.proto.path_mtu import BASE_DATAGRAM, MIN_DATAGRAM
from turnlane.proto.path_probe import (
    ATTEMPTS,
    CONFIRM_INTERVAL,
    MAX_ANSWERS,
    MAX_PEER_CHANGES,
    MAX_TIMEOUT,
    PARALLEL,
    RAISE_INTERVAL,
    PathProbe,
)
from turnlane.testing.network import Conditions, Delivery, Place, SimulatedNetwork, run

BOUND = 1427


class End:
    """One end, which carries payload at every moment unless it is `quiet`."""

    def __init__(self, place: str, peer: str, *, agreed: bool = True) -> None:
        self.probe = PathProbe(agreed=agreed)
        self.place: Place = place
        self.quiet = False
        self.sizes: list[int] = []
        self.follows: int | None = None
        """The bound to begin with when the peer has."""
        self._peer = peer

    def receive(self, data: bytes, source: Place, now: float) -> None:
        match parse_untrusted(data):
            case Probe() as frame:
                self.probe.receive_probe(frame, now)
                if self.follows is not None and not self.probe.begun:
                    self.probe.begin(self.follows, now)
            case ProbeAnswer() as frame:
                self.probe.receive_answer(frame, now)

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:
        records = self.probe.records_to_send()
        self.sizes += [
            len(record) for record in records if isinstance(parse_untrusted(record), Probe)
        ]
        return [(record, self._peer) for record in records]

    def get_timer(self) -> float | None:
        return self.probe.get_timer()

    def handle_timer(self, now: float) -> None:
        self.probe.handle_timer(now, 0.0 if self.quiet else now)


class Lane:
    """Two ends, and for each the size of the largest datagram that arrives from it."""

    def __init__(self, up: int, down: int, *, loss: float = 0.0, seed: int = 1) -> None:
        self.client = End("client", "server")
        self.server = End("server", "client")
        self.largest: dict[Place, int] = {"client": up, "server": down}
        self.network = SimulatedNetwork(seed, Conditions(loss=loss))
        self.network.drop = self._too_large
        self.now = 0.0

    @property
    def ends(self) -> tuple[End, End]:
        return self.client, self.server

    def begin(self, bound: int = BOUND, server_bound: int | None = None) -> None:
        self.client.probe.begin(bound, self.now)
        self.server.follows = server_bound or bound

    def settle(self, limit: float = 30.0) -> None:
        self.now = run(
            self.network,
            self.ends,
            until=lambda: all(end.probe.settled for end in self.ends),
            now=self.now,
            limit=limit,
        )

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        alarm = End("alarm", "")
        alarm.get_timer = lambda: until if self.now < until else None  # type: ignore[method-assign]

        def over(now: float) -> None:
            self.now = now

        alarm.handle_timer = over  # type: ignore[method-assign]
        run(
            self.network,
            [*self.ends, alarm],
            until=lambda: self.now >= until,
            now=self.now,
            limit=seconds + 1,
        )

    def found(self) -> tuple[int, int]:
        return self.client.probe.max_datagram, self.server.probe.max_datagram

    def _too_large(self, delivery: Delivery) -> bool:
        return len(delivery.data) > self.largest[delivery.source] + HEADER_SIZE


def test_a_path_that_bears_what_the_first_hop_does_is_known_after_one_exchange() -> None:
    lane = Lane(BOUND, BOUND)
    lane.begin()
    assert lane.client.probe.max_datagram == BOUND, "nothing is refused that has not failed"
    lane.settle()
    assert lane.found() == (BOUND, BOUND)
    assert lane.now <= 0.07
    assert lane.client.probe.probes_sent == 1 + PARALLEL + 1 + 1, "bounds, sizes, base, findings"
    assert max(lane.client.sizes) == BOUND + HEADER_SIZE


@pytest.mark.parametrize("bounds", [(16_380, 1231), (1231, 1431)])
def test_neither_end_asks_for_more_than_leaves_both_hosts_whole(bounds: tuple[int, int]) -> None:
    lane = Lane(16_380, 16_380)
    lane.begin(*bounds)
    lane.settle()
    assert lane.found() == (1231, 1231)
    assert lane.now <= 0.07
    assert max(lane.client.sizes + lane.server.sizes) == 1231 + HEADER_SIZE


@pytest.mark.parametrize("largest", [BOUND - 1, 1391, 1280, BASE_DATAGRAM, 1000, MIN_DATAGRAM])
def test_both_ends_find_the_exact_size(largest: int) -> None:
    lane = Lane(largest, largest)
    lane.begin()
    lane.settle()
    assert lane.found() == (largest, largest)
    rounds = 8
    # Where not even the base arrives, the first round does not know how long to wait.
    first = MAX_TIMEOUT if largest < BASE_DATAGRAM else 0.2
    assert lane.now < ATTEMPTS * (first + rounds * 0.2)
    for end in lane.ends:
        assert end.probe.probes_sent < rounds * ATTEMPTS * PARALLEL


@pytest.mark.parametrize(("up", "down"), [(1427, 1231), (1300, 1427), (1199, 1401)])
def test_both_ends_keep_to_the_narrower_direction(up: int, down: int) -> None:
    lane = Lane(up, down)
    lane.begin(16_380, 1431)
    lane.settle()
    assert (lane.client.probe.limit, lane.server.probe.limit) == (up, down)
    assert lane.found() == (min(up, down),) * 2


@pytest.mark.parametrize("block", range(10))
def test_random_paths_with_loss_are_never_thought_wider_than_they_are(block: int) -> None:
    exact = 0
    for seed in range(20 * block, 20 * block + 20):
        random = Random(seed)
        up, down = random.randint(600, 2000), random.randint(600, 2000)
        lane = Lane(up, down, loss=0.02, seed=seed)
        lane.begin(2000)
        lane.settle()
        for end, largest in ((lane.client, up), (lane.server, down)):
            assert end.probe.limit <= largest
            exact += end.probe.limit == largest
    assert exact >= 39, "of 40: loss may pass for size, seldom"


def test_what_the_platform_says_bounds_at_once_and_begins_a_search() -> None:
    lane = Lane(BOUND, BOUND)
    lane.begin()
    lane.settle()
    lane.client.probe.bound(1227, lane.now)
    assert lane.client.probe.max_datagram == 1227
    assert not lane.client.probe.settled
    lane.settle()
    assert lane.found() == (1227, 1227), "the other end is told"
    assert max(lane.client.sizes[PARALLEL + 3 :]) == 1227 + HEADER_SIZE

    asked = lane.client.probe.probes_sent
    lane.client.probe.bound(1227, lane.now)
    assert lane.client.probe.probes_sent == asked, "nothing new"

    lane.client.probe.bound(1400, lane.now)
    lane.settle()
    assert lane.found() == (1400, 1400)


def test_a_bound_that_falls_while_the_search_is_on_restarts_it() -> None:
    lane = Lane(1100, BOUND)
    lane.begin()
    lane.client.probe.bound(1200, lane.now)
    lane.settle()
    assert lane.client.probe.limit == 1100


def test_a_path_that_becomes_narrower_without_a_word_is_found_by_a_lane_in_use() -> None:
    lane = Lane(BOUND, BOUND)
    lane.begin()
    lane.settle()
    lane.largest = {"client": 1250, "server": 1250}
    lane.pass_time(CONFIRM_INTERVAL + 10.0)
    assert lane.found() == (1250, 1250)


def test_a_quiet_lane_is_not_probed() -> None:
    lane = Lane(BOUND, BOUND)
    lane.begin()
    lane.settle()
    for end in lane.ends:
        end.quiet = True
    asked = [end.probe.probes_sent for end in lane.ends]
    lane.pass_time(10 * CONFIRM_INTERVAL)
    assert [end.probe.probes_sent for end in lane.ends] == asked


def test_a_path_that_becomes_wider_is_found_in_time_and_never_refuses_more_meanwhile() -> None:
    lane = Lane(1250, 1250)
    lane.begin()
    lane.settle()
    lane.largest = {"client": BOUND, "server": BOUND}
    lane.pass_time(RAISE_INTERVAL - 10.0)
    assert lane.found() == (1250, 1250)
    lane.pass_time(20.0)
    assert lane.found() == (BOUND, BOUND)


def test_a_path_that_is_gone_for_a_while_changes_nothing() -> None:
    lane = Lane(BOUND, BOUND)
    lane.begin()
    lane.settle()
    lane.largest = {"client": -1, "server": -1}
    lane.pass_time(2 * CONFIRM_INTERVAL)
    assert lane.found() == (BOUND, BOUND)
    lane.largest = {"client": 1300, "server": 1300}
    lane.pass_time(2 * CONFIRM_INTERVAL)
    assert lane.found() == (1300, 1300)


def test_a_path_that_is_in_use_costs_one_probe_per_interval() -> None:
    lane = Lane(BOUND, BOUND)
    lane.begin()
    lane.settle()
    asked = lane.client.probe.probes_sent
    lane.pass_time(20 * CONFIRM_INTERVAL)
    assert asked + 19 <= lane.client.probe.probes_sent <= asked + 20


def test_without_an_agreement_the_bound_is_the_limit_and_nothing_is_asked() -> None:
    probe = PathProbe(agreed=False)
    probe.begin(BOUND, 0.0)
    assert probe.settled
    assert probe.max_datagram == BOUND
    probe.bound(1200, 1.0)
    assert probe.max_datagram == 1200
    assert probe.get_timer() is None
    probe.handle_timer(1e6, 1e6)
    assert probe.records_to_send() == []


def test_before_the_beginning_probes_are_answered_and_none_are_sent() -> None:
    probe = PathProbe(agreed=True)
    probe.bound(1000, 0.0)
    assert probe.get_timer() is None
    probe.receive_probe(Probe(1, 1400, 1300, True, 1400), 0.0)
    assert probe.records_to_send() == [ProbeAnswer(1, 1400).encode()]
    assert not probe.settled
    assert probe.max_datagram == 1300


def test_answers_are_bounded_and_the_newest_probe_tells() -> None:
    probe = PathProbe(agreed=True)
    for sequence in range(MAX_ANSWERS + 3):
        probe.receive_probe(Probe(sequence, 1400, 1000 + sequence, False, MIN_PROBE), 0.0)
    assert len(probe.records_to_send()) == MAX_ANSWERS
    assert probe.dropped_answers == 3
    latest = probe.peer_limit
    probe.receive_probe(Probe(1, 600, 600, False, MIN_PROBE), 0.0)
    probe.receive_probe(Probe(COUNTER_MASK - 5, 601, 601, False, MIN_PROBE), 0.0)
    assert probe.peer_limit == latest == 1000 + MAX_ANSWERS + 2


def test_a_peer_that_keeps_changing_its_bound_has_us_send_no_more_than_some_searches() -> None:
    probe = PathProbe(agreed=True)
    probe.begin(BOUND, 0.0)
    for number in range(1000):
        probe.receive_probe(Probe(number, 1300 + number % 2, 1300, True, MIN_PROBE), 0.1)
        probe.records_to_send()
    assert probe.probes_sent <= 1 + MAX_PEER_CHANGES * (PARALLEL + 1)


def test_answers_that_nobody_asked_for_are_ignored() -> None:
    probe = PathProbe(agreed=True)
    probe.begin(BOUND, 0.0)
    asked = [parse_untrusted(record) for record in probe.records_to_send()]
    assert isinstance(asked[-1], Probe)
    probe.receive_answer(ProbeAnswer(77, 1400), 0.1)
    probe.receive_answer(ProbeAnswer(asked[-1].sequence, asked[-1].size + 1), 0.1)
    assert probe.searching
    assert probe.get_timer() == MAX_TIMEOUT, "no round trip is known yet"


def test_what_a_peer_tells_cannot_make_the_limit_useless() -> None:
    probe = PathProbe(agreed=True)
    probe.begin(0, 0.0)
    probe.receive_probe(Probe(1, 0, 0, False, MIN_PROBE), 0.0)
    assert probe.max_datagram == MIN_PROBE - HEADER_SIZE
