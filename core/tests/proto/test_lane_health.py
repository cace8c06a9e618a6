"""A lane's health on a clock made of numbers: when it pings, when it dies, what it measures."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.proto.frames import Ping, Pong, parse_untrusted
from turnlane.proto.lane_health import (
    CLIENT_HEALTH,
    MAX_OUTSTANDING,
    MAX_PONGS,
    SERVER_HEALTH,
    LaneDead,
    LaneHealth,
    Loss,
    RoundTrip,
)


def client(now: float = 0.0) -> LaneHealth:
    return LaneHealth(CLIENT_HEALTH, now, ping_at_once=True)


def pings(health: LaneHealth) -> list[Ping]:
    frames = [parse_untrusted(record) for record in health.records_to_send()]
    return [frame for frame in frames if isinstance(frame, Ping)]


class Path:
    """The way to a peer that answers a ping of time t after `pong_after(t)` seconds, or never."""

    def __init__(
        self, health: LaneHealth, pong_after: Callable[[float], float | None] = lambda _: None
    ) -> None:
        self.health = health
        self.pong_after = pong_after
        self.now = 0.0
        self.answers: list[tuple[float, Pong]] = []
        self.pinged: list[float] = []

    def let_pass(self, until: float) -> list[float]:
        """Do all that is due up to `until`; return when pings were sent."""
        self.pinged = []
        while True:
            timer = self.health.get_timer()
            moments = [due for due, _ in self.answers] + ([] if timer is None else [timer])
            if not moments or min(moments) > until:
                self.now = until
                return self.pinged
            self.now = max(self.now, min(moments))
            while self.answers and self.answers[0][0] <= self.now:
                self.health.receive_pong(self.answers.pop(0)[1], self.now)
            self.health.handle_timer(self.now)
            for ping in pings(self.health):
                self.pinged.append(self.now)
                delay = self.pong_after(self.now)
                if delay is not None:
                    self.answers.append((self.now + delay, Pong(ping.sequence, 0)))


def death(health: LaneHealth, until: float = 1e9) -> tuple[float, LaneDead]:
    """Run the timers until the lane dies; return when, and the event."""
    while (timer := health.get_timer()) is not None and timer <= until:
        health.handle_timer(timer)
        event = health.next_event()
        if event is not None:
            return timer, event
    raise AssertionError("the lane lives")


def test_a_client_pings_at_once_and_a_quiet_lane_every_five_seconds() -> None:
    path = Path(client(), lambda _: 0.25)
    assert path.let_pass(21.0) == [0.0, 5.25, 10.5, 15.75, 21.0]


def test_the_first_ping_is_due_at_once() -> None:
    health = client(100.0)
    timer = health.get_timer()
    assert timer is not None
    assert timer <= 100.0
    health.handle_timer(100.0)
    assert pings(health) == [Ping(1, 0)]


def test_a_server_leaves_a_quiet_lane_to_its_client() -> None:
    server = LaneHealth(SERVER_HEALTH, 0.0, ping_at_once=False)
    for number in range(20):
        now = 5.25 * number
        assert Path(server).let_pass(now) == []
        server.receive_ping(Ping(number, 0), now)
    timer = server.get_timer()
    assert timer == pytest.approx(19 * 5.25 + 8)


def test_a_server_whose_client_is_gone_finds_its_quiet_lane_dead_in_time() -> None:
    server = LaneHealth(SERVER_HEALTH, 0.0, ping_at_once=False)
    assert death(server) == (12.0, LaneDead(12.0))


def test_a_lane_that_carries_payload_is_pinged_every_second() -> None:
    health = client()
    health.handle_timer(0.0)
    assert len(pings(health)) == 1
    health.receive_pong(Pong(1, 0), 0.1)
    pinged = []
    for tick in range(1, 50):
        now = tick / 10
        health.note_sent(10, now)
        health.note_received(10, now)
        pinged += Path(health).let_pass(now)
    assert pinged == pytest.approx([1.0, 2.0, 3.0, 4.0])


def test_payload_after_silence_is_followed_by_a_ping_at_once() -> None:
    health = client()
    health.handle_timer(0.0)
    pings(health)
    health.receive_pong(Pong(1, 0), 0.1)
    health.note_sent(1, 3.0)
    timer = health.get_timer()
    assert timer is not None
    assert timer <= 3.0
    health.handle_timer(3.0)
    assert pings(health) == [Ping(2, 1)]
    assert health.last_payload_at == 3.0


def test_an_unanswered_ping_is_followed_by_another_after_a_second() -> None:
    health = client()
    health.handle_timer(0.0)
    pings(health)
    assert Path(health).let_pass(3.0) == [1.0, 2.0, 3.0]


def test_a_quiet_lane_that_breaks_is_dead_after_nine_seconds() -> None:
    health = client()
    health.handle_timer(0.0)
    pings(health)
    health.receive_pong(Pong(1, 0), 0.0)
    assert death(health) == (9.0, LaneDead(9.0))
    assert health.pings_sent == 1 + 4


def test_a_busy_lane_that_breaks_is_dead_after_six_seconds() -> None:
    health = client()
    health.handle_timer(0.0)
    pings(health)
    health.note_received(1, 10.0)
    health.note_sent(1, 10.0)
    health.handle_timer(10.0)
    assert death(health) == (16.0, LaneDead(6.0))


def test_a_lane_dies_between_two_pings_if_its_time_is_up_then() -> None:
    health = client()
    health.note_received(1, 0.5)
    health.handle_timer(1.0)
    assert death(health) == (6.5, LaneDead(6.0))
    assert health.pings_sent == 6


def test_a_dead_lane_says_so_once_and_wants_no_timer() -> None:
    health = client()
    death(health)
    assert health.next_event() is None
    assert health.get_timer() is None
    pings(health)
    health.handle_timer(1e6)
    assert pings(health) == []
    assert health.next_event() is None


def test_whoever_wakes_late_asks_again_before_giving_up() -> None:
    health = client()
    for now in (0.0, 1.0, 2.0):
        health.handle_timer(now)
    health.handle_timer(3600.0)
    assert health.next_event() is None
    assert death(health) == (3601.0, LaneDead(3601.0))


def test_anything_heard_keeps_a_lane_alive() -> None:
    health = client()
    for second in range(60):
        health.handle_timer(float(second))
        health.note_alive(second + 0.5)
        assert health.next_event() is None
    assert not health.heard
    health.note_received(1, 60.0)
    assert health.heard


def test_measuring_often_makes_no_lane_dead_any_sooner() -> None:
    health = client()
    for tick in range(59):
        health.probe(tick / 10)
    health.handle_timer(5.9)
    assert len(pings(health)) == 60
    assert death(health) == (9.9, LaneDead(9.9))
    pings(health)
    health.probe(10.0)
    assert pings(health) == []


@given(
    broken=st.floats(0.0, 40.0),
    seed=st.integers(0, 2**32),
    round_trip=st.floats(0.001, 0.9),
    busy=st.booleans(),
)
def test_a_path_that_breaks_is_found_within_twelve_seconds_and_no_other_ever(
    broken: float, seed: int, round_trip: float, busy: bool
) -> None:
    random = Random(seed)
    health = client()
    path = Path(health, lambda now: round_trip if now + round_trip < broken else None)
    heard = 0.0
    while path.now < broken:
        path.let_pass(min(broken, path.now + random.expovariate(0.5)))
        assert health.next_event() is None
        if busy and path.now < broken:
            health.note_sent(3, path.now)
            health.note_received(2, path.now)
            heard = path.now
    when, event = death(health)
    assert event.silence >= 6.0 - 1e-6
    assert heard + 6.0 - 1e-6 <= when <= broken + 12.0


def test_round_trips_are_smoothed_as_in_rfc_6298() -> None:
    round_trip = RoundTrip()
    round_trip.add(0.1)
    assert round_trip.variation == 0.05
    round_trip.add(0.2)
    assert round_trip.variation == pytest.approx(0.75 * 0.05 + 0.25 * 0.1)
    assert round_trip.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * 0.2)
    round_trip.add(0.05)
    assert round_trip.minimum == 0.05


def test_a_pong_measures_the_round_trip_by_the_ping_it_answers() -> None:
    health = client()
    health.handle_timer(10.0)
    health.handle_timer(11.0)
    first, second = pings(health)
    health.receive_pong(Pong(second.sequence, 0), 11.05)
    health.receive_pong(Pong(first.sequence, 0), 11.08)
    assert health.round_trip.minimum == pytest.approx(0.05)
    assert health.round_trip.smoothed == pytest.approx(0.05 * 7 / 8 + 1.08 / 8)
    assert health.stale_pongs == 0


def test_pongs_that_answer_nothing_are_counted_and_measure_nothing() -> None:
    health = client()
    health.handle_timer(0.0)
    health.receive_pong(Pong(1, 0), 0.5)
    health.receive_pong(Pong(1, 0), 9.0)
    health.receive_pong(Pong(77, 1000), 9.0)
    assert health.heard
    assert health.stale_pongs == 2
    assert health.round_trip.smoothed == 0.5
    assert health.send_loss.ratio is None


def test_a_ping_forgotten_for_newer_ones_measures_nothing() -> None:
    health = client()
    for second in range(MAX_OUTSTANDING + 1):
        health.handle_timer(float(second))
        health.note_alive(float(second))
        health.note_sent(1, float(second))
    asked = pings(health)
    assert len(asked) == MAX_OUTSTANDING + 1
    for ping in asked:
        health.receive_pong(Pong(ping.sequence, 0), 20.0)
    assert health.stale_pongs == 1


def test_pongs_that_nobody_fetches_are_bounded() -> None:
    health = LaneHealth(SERVER_HEALTH, 0.0, ping_at_once=False)
    for number in range(MAX_PONGS + 5):
        health.receive_ping(Ping(number, 0), 0.0)
    assert len(health.records_to_send()) == MAX_PONGS
    assert health.dropped_pongs == 5


def test_a_pong_says_how_much_payload_had_arrived_and_when() -> None:
    health = LaneHealth(SERVER_HEALTH, 0.0, ping_at_once=False)
    health.note_received(7, 0.0)
    health.receive_ping(Ping(5, 9), 2.5)
    health.note_received(2, 3.0)
    assert health.records_to_send() == [Pong(5, 7, arrived=2_500_000).encode()]
    assert health.records_to_send() == []
    assert health.heard


def test_both_directions_of_loss_are_measured_over_a_pinged_lane() -> None:
    here, there = client(), LaneHealth(SERVER_HEALTH, 0.0, ping_at_once=False)
    for second in range(5):
        now = float(second)
        here.handle_timer(now)
        for ping in pings(here):
            there.receive_ping(ping, now)
        for record in there.records_to_send():
            pong = parse_untrusted(record)
            assert isinstance(pong, Pong)
            here.receive_pong(pong, now)
        here.note_sent(100, now)
        there.note_received(75, now)
    assert here.send_loss.ratio == pytest.approx(0.25)
    assert there.receive_loss.ratio == pytest.approx(0.25)
    assert here.receive_loss.ratio is None
    assert there.send_loss.ratio is None


def test_loss_moves_by_a_quarter_of_each_interval_large_enough() -> None:
    loss = Loss()
    loss.add(0, 0)
    loss.add(31, 0)
    assert loss.ratio is None
    loss.add(32, 24)
    assert loss.ratio == pytest.approx(0.25)
    loss.add(132, 124)
    assert loss.ratio == pytest.approx(0.25 * 0.75)


def test_loss_survives_counters_that_wrap() -> None:
    loss = Loss()
    for step in range(1, 5):
        loss.add(step * 2**30 & 0xFFFFFFFF, step * 2**29 & 0xFFFFFFFF)
    loss.add(2**30, 2**31 + 2**29)
    assert loss.ratio == pytest.approx(0.5)


def test_loss_ignores_what_is_older_and_never_leaves_its_range() -> None:
    loss = Loss()
    loss.add(200, 100)
    loss.add(100, 100)
    assert loss.ratio == pytest.approx(0.5)
    loss.add(300, 5000)
    assert loss.ratio == pytest.approx(0.375)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))))
def test_no_counters_of_a_peer_move_loss_out_of_its_range(counters: list[tuple[int, int]]) -> None:
    loss = Loss()
    for sent, received in counters:
        loss.add(sent, received)
        assert loss.ratio is None or 0.0 <= loss.ratio <= 1.0
