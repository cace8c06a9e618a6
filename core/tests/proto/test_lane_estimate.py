"""What a sender learns about a lane from its pongs, and what no peer can make it believe."""

from math import inf, isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.proto.lane_estimate import (
    GROWTH,
    LEAST_RATE,
    MINIMUM_WINDOW,
    SILENCE,
    LaneEstimate,
    Mark,
    RecentMinimum,
)

RATE = 100_000.0
DELAY = 0.02
AHEAD = 500.0
"""How far the peer's clock is ahead."""


class Bottleneck:
    """A lane that passes on `rate` bytes per second, driven by hand."""

    def __init__(self, rate: float = RATE, *, dated: bool = True) -> None:
        self.estimate = LaneEstimate()
        self.rate = rate
        self.now = 100.0
        self._dated = dated
        self._free_at = 0.0
        self._received = 0

    def send(self, frames: int, size: int = 1000) -> None:
        self.estimate.sent(frames, frames * size, self.now)
        self._free_at = max(self.now, self._free_at) + frames * size / self.rate
        self._received += frames

    def ping(self) -> tuple[Mark, int, float]:
        mark = self.estimate.asked(self.now)
        return mark, self._received, max(self.now, self._free_at) + DELAY

    def pong(self, asked: tuple[Mark, int, float]) -> None:
        mark, received, arrived = asked
        told = arrived + AHEAD if self._dated else None
        self.now = arrived + DELAY
        self.estimate.answered(mark, received, told, self.now)

    def measure(self) -> None:
        """Ping and let time pass until the pong is there, before anything else is sent."""
        self.pong(self.ping())


@pytest.mark.parametrize("dated", [True, False])
def test_a_lane_that_was_never_full_has_no_bounds(dated: bool) -> None:
    lane = Bottleneck(rate=1e9, dated=dated)
    for _ in range(20):
        lane.send(10)
        lane.measure()
    assert lane.estimate.rate == inf
    assert lane.estimate.busy_until <= lane.now
    assert lane.estimate.round_trip == pytest.approx(2 * DELAY, rel=0.01)


def test_the_delay_is_one_way_on_the_peers_clock_or_half_of_the_round_trip() -> None:
    dated, undated = Bottleneck(), Bottleneck(dated=False)
    dated.measure()
    undated.measure()
    assert dated.estimate.base == pytest.approx(AHEAD + DELAY)
    assert undated.estimate.base == pytest.approx(DELAY)


@pytest.mark.parametrize("dated", [True, False])
def test_a_queue_before_and_after_says_what_the_bottleneck_passes_on(dated: bool) -> None:
    lane = Bottleneck(dated=dated)
    lane.measure()
    lane.send(20)
    first = lane.ping()
    lane.now += 0.1
    lane.send(20)
    second = lane.ping()
    lane.pong(first)
    assert lane.estimate.rate == inf, "one pong is none"
    lane.pong(second)
    assert lane.estimate.rate == pytest.approx(RATE)


def test_what_is_late_without_anything_waiting_makes_no_rate_known() -> None:
    lane = Bottleneck(rate=1e9)
    lane.measure()
    for _ in range(20):
        lane.send(10, size=80)
        mark, received, arrived = lane.ping()
        lane.pong((mark, received, arrived + 0.03))
    assert lane.estimate.rate == inf


def test_the_model_is_corrected_by_what_pings_have_waited() -> None:
    lane = Bottleneck()
    lane.estimate.assume(RATE)
    lane.measure()
    lane.send(20)
    lane._free_at += 0.2  # what others sent
    for _ in range(8):
        asked = lane.ping()
        lane.now += 0.001
        before = lane.estimate.busy_until
        lane.estimate.answered(asked[0], asked[1], asked[2] + AHEAD, asked[2] + DELAY)
        assert lane.estimate.busy_until >= before - 1e-9
    assert lane.estimate.busy_until == pytest.approx(lane._free_at, abs=0.07)


def test_pings_that_were_under_way_together_correct_the_same_difference_once() -> None:
    lane = Bottleneck()
    lane.estimate.assume(RATE)
    lane.measure()
    lane.send(50)
    real = lane._free_at = lane._free_at - 0.3  # the bottleneck was faster for a while
    asked = [lane.ping() for _ in range(10)]
    for mark, received, arrived in asked:
        lane.estimate.answered(mark, received, arrived + AHEAD, arrived + DELAY)
    lane.now = asked[-1][2] + DELAY
    assert lane.estimate.busy_until >= real


def test_a_queue_that_is_only_modelled_raises_the_rate_once_in_a_round_trip() -> None:
    lane = Bottleneck(rate=1e9)
    lane.estimate.assume(1000.0)
    lane.measure()
    lane.send(5)
    together = [lane.ping() for _ in range(5)]
    for asked in together:
        lane.pong(asked)
    assert lane.estimate.rate == pytest.approx(GROWTH * 1000.0)


def test_an_assumed_rate_gives_way_to_the_first_that_is_measured() -> None:
    lane = Bottleneck()
    lane.estimate.assume(RATE / 5)
    lane.estimate.assume(RATE * 5)
    assert lane.estimate.rate == RATE / 5
    lane.measure()
    lane.send(20)
    first = lane.ping()
    lane.now += 0.05
    lane.send(20)
    second = lane.ping()
    lane.pong(first)
    lane.pong(second)
    assert lane.estimate.rate == pytest.approx(RATE)


def test_a_lane_that_has_lost_everything_for_a_while_still_has_a_rate() -> None:
    lane = Bottleneck(rate=1e9)
    lane.measure()
    lane.send(20)
    lane._received -= 20
    lane.measure()
    assert lane.estimate.rate == LEAST_RATE


def test_loss_without_a_queue_is_the_lanes_and_fades_when_nothing_tells_of_it() -> None:
    lane = Bottleneck(rate=1e9)
    lane.measure()
    for _ in range(200):
        lane.send(20)
        lane._received -= 1
        lane.measure()
    assert lane.estimate.loss == pytest.approx(0.05, abs=0.01)
    for _ in range(30):
        lane.now += 1.5
        lane.measure()
    assert lane.estimate.loss < 0.005


def test_a_lane_that_does_not_answer_is_silent_until_it_does() -> None:
    lane = Bottleneck()
    lane.measure()
    assert not lane.estimate.silent(lane.now + 1000)
    asked = lane.ping()
    patience = SILENCE + 4 * 2 * DELAY
    assert not lane.estimate.silent(lane.now + patience - 0.01)
    assert lane.estimate.silent(lane.now + patience + 0.01)
    lane.pong(asked)
    assert not lane.estimate.silent(lane.now)


def test_the_smallest_of_late_is_forgotten_in_time() -> None:
    minimum = RecentMinimum()
    minimum.add(1.0, 0.0)
    minimum.add(2.0, MINIMUM_WINDOW - 1)
    assert minimum.smallest == 1.0
    minimum.add(2.0, MINIMUM_WINDOW + 1)
    assert minimum.smallest == 1.0
    minimum.add(2.0, 2 * MINIMUM_WINDOW + 2)
    assert minimum.smallest == 2.0
    minimum.add(3.0, 9 * MINIMUM_WINDOW)
    assert minimum.smallest == 3.0


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 2.0),
            st.integers(0, 64),
            st.integers(0, 2**32 - 1),
            st.none() | st.integers(0, 2**64 - 1),
        ),
        max_size=40,
    )
)
def test_no_peer_makes_a_model_that_is_no_number(
    pongs: list[tuple[float, int, int, int | None]],
) -> None:
    estimate = LaneEstimate()
    now = 10.0
    longest = 0.0
    for passed, frames, received, arrived in pongs:
        estimate.sent(frames, frames * 1000, now)
        mark = estimate.asked(now)
        now += passed
        longest = max(longest, passed)
        estimate.answered(mark, received, None if arrived is None else arrived / 1e6, now)
        assert estimate.rate > 0
        assert estimate.base is not None
        assert isfinite(estimate.base)
        assert 0.0 <= estimate.loss <= 1.0
        assert isfinite(estimate.busy_until)
