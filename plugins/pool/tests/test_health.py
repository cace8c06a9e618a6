"""Health and turns, without a provider: what rounds that overlap and clocks that jump leave."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import Secret
from turnlane_pool.health import Health, Round, known_members
from turnlane_pool.pool_file import Member, Pool, Strategy

NOW = 1_700_000_000.0


def pool(strategy: Strategy, *weights: int) -> Pool:
    members = (
        Member(f"m{number}", "plain", "link", Secret("x"), weight=weight)
        for number, weight in enumerate(weights)
    )
    return Pool("home", strategy, tuple(members))


def test_rounds_that_fail_together_count_once() -> None:
    two = pool(Strategy.ORDERED, 1, 1)
    (own, _) = members = known_members({}, two)
    rounds = [Round(two, members, NOW) for _ in range(2)]
    for each in rounds:
        assert each.next() is own
        each.failed(own, "down", NOW)

    for each in rounds:
        each.settle()

    assert (own.failures, own.pause) == (1, 5.0)


def test_a_clock_that_is_set_back_puts_nobody_aside() -> None:
    two = pool(Strategy.ORDERED, 1, 1)
    (own, _) = members = known_members({}, two)
    failing = Round(two, members, NOW)
    failing.next()
    failing.failed(own, "down", NOW)
    failing.settle()
    assert own.aside_for(NOW) == 5.0

    assert own.aside_for(NOW - 86400) == 0.0
    assert Round(two, members, NOW - 86400).next() is own


def test_many_failures_do_not_overflow_the_pause() -> None:
    one = pool(Strategy.ORDERED, 1)
    health = Health(one.members[0], failures=10**6)
    failing = Round(one, [health], NOW)
    failing.next()
    failing.failed(health, "down", NOW)

    failing.settle()

    assert (health.failures, health.pause) == (10**6 + 1, 300.0)


def test_the_least_bad_has_the_fewest_failures_then_comes_back_soonest() -> None:
    three = pool(Strategy.ORDERED, 1, 1, 1)
    members = known_members({}, three)
    for health, failures, pause in zip(members, (3, 2, 2), (10.0, 60.0, 30.0), strict=True):
        health.failures, health.since, health.pause = failures, NOW, pause
    asking = Round(three, members, NOW + 1)

    assert asking.left == 1
    assert asking.next() is members[2]
    assert asking.next() is None
    assert asking.aside == members[:2]


def test_what_somebody_else_left_in_the_memory_is_replaced() -> None:
    one = pool(Strategy.ORDERED, 1)
    memory: dict[str, object] = {"home": "no health"}

    (health,) = known_members(memory, one)

    assert known_members(memory, one) == [health]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.data())
def test_turns_are_as_the_weights_say_and_undone_ones_never_were(
    weights: list[int], data: Any
) -> None:
    weighted = pool(Strategy.WEIGHTED, *weights)
    members, twins = known_members({}, weighted), known_members({}, weighted)
    taken = dict.fromkeys(range(len(weights)), 0)
    for turn in range(1, 31):
        cancelled = [Round(weighted, members, NOW) for _ in range(data.draw(st.integers(0, 3)))]
        for each in cancelled:
            each.next()
        for each in data.draw(st.permutations(cancelled)):
            each.undo()
        chosen, twin = Round(weighted, members, NOW).next(), Round(weighted, twins, NOW).next()
        assert chosen is not None
        assert twin is not None
        assert chosen.member is twin.member
        taken[members.index(chosen)] += 1
        for number, weight in enumerate(weights):
            assert abs(taken[number] - turn * weight / sum(weights)) < len(weights)
