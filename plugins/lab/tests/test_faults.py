"""Faults by seed and on a virtual clock."""

import pytest

from turnlane_lab.faults import MAX_HELD, REORDER_WINDOW, Direction, Faults, Impairment

UP = Direction.CLIENT_TO_RELAY
DOWN = Direction.RELAY_TO_CLIENT


def pass_through(faults, count, *, direction=UP, now=0.0):
    out = []
    for number in range(count):
        out += faults.admit(direction, b"", number, now)
    return out


def test_without_faults_no_direction_is_active_and_everything_passes():
    faults = Faults()
    assert not any(faults.active(direction) for direction in Direction)
    assert pass_through(faults, 3) == [0, 1, 2]
    assert faults.get_timer() is None


def test_the_same_seed_gives_the_same_faults():
    def run(seed):
        faults = Faults(seed)
        faults.impair(impairment=Impairment(drop=0.3, duplicate=0.2, jitter=0.1, reorder=0.2))
        out = pass_through(faults, 200)
        return out, faults.due(10.0), faults.lost

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_packets_are_lost_with_their_probability():
    faults = Faults(3)
    faults.impair(UP, impairment=Impairment(drop=0.25))
    assert faults.active(UP)
    assert not faults.active(DOWN)
    passed = pass_through(faults, 4000)
    assert 0.7 < len(passed) / 4000 < 0.8
    assert faults.lost == 4000 - len(passed)


def test_the_next_packets_are_lost_by_number():
    faults = Faults()
    faults.lose(UP)
    faults.lose(UP)
    assert faults.active(UP)
    assert pass_through(faults, 4) == [2, 3]
    assert not faults.active(UP)


def test_a_predicate_loses_what_it_names():
    faults = Faults()
    faults.drop_if = lambda direction, data: direction is UP and data == b"x"
    assert faults.admit(UP, b"x", 1, 0.0) == []
    assert faults.admit(UP, b"y", 2, 0.0) == [2]
    assert faults.admit(DOWN, b"x", 3, 0.0) == [3]


def test_a_delayed_packet_is_due_when_its_time_has_come():
    faults = Faults()
    faults.impair(UP, impairment=Impairment(delay=0.5))
    assert faults.admit(UP, b"", "first", 1.0) == []
    assert faults.admit(UP, b"", "second", 1.2) == []
    assert faults.get_timer() == 1.5
    assert faults.due(1.4) == []
    assert faults.due(1.5) == [(UP, "first")]
    assert faults.get_timer() == 1.7
    assert faults.due(1.7) == [(UP, "second")]


def test_jitter_delays_within_its_bound():
    faults = Faults(5)
    faults.impair(UP, impairment=Impairment(delay=0.1, jitter=0.1))
    pass_through(faults, 100)
    assert faults.due(0.1) == []
    late = faults.due(0.2)
    assert len(late) == 100
    assert [packet for _, packet in late] != sorted(packet for _, packet in late)


def test_a_packet_held_back_goes_after_the_next_one():
    faults = Faults()
    faults.impair(UP, impairment=Impairment(reorder=1.0))
    assert pass_through(faults, 4) == [1, 0, 3, 2]


def test_a_packet_that_nothing_overtakes_goes_after_a_while():
    faults = Faults()
    faults.impair(UP, impairment=Impairment(reorder=1.0))
    assert faults.admit(UP, b"", "only", 1.0) == []
    assert faults.get_timer() == 1.0 + REORDER_WINDOW
    assert faults.due(1.0 + REORDER_WINDOW) == [(UP, "only")]
    assert faults.get_timer() is None


def test_a_packet_held_back_leaves_also_after_the_fault_was_cleared():
    faults = Faults()
    faults.impair(UP, impairment=Impairment(reorder=1.0))
    assert faults.admit(UP, b"", "late", 1.0) == []
    faults.clear()
    assert faults.active(UP)
    assert faults.admit(UP, b"", "next", 1.0) == ["next", "late"]
    assert not faults.active(UP)


def test_directions_do_not_mix():
    faults = Faults()
    faults.impair(impairment=Impairment(reorder=1.0))
    assert faults.admit(UP, b"", "up", 0.0) == []
    assert faults.admit(DOWN, b"", "down", 0.0) == []
    assert faults.admit(UP, b"", "up 2", 0.0) == ["up 2", "up"]


def test_what_is_held_back_is_bounded():
    faults = Faults()
    faults.impair(UP, impairment=Impairment(delay=1.0))
    pass_through(faults, MAX_HELD + 5)
    assert faults.lost == 5
    assert len(faults.due(1.0)) == MAX_HELD


def test_forgetting_loses_what_is_held_back():
    faults = Faults()
    faults.impair(UP, impairment=Impairment(delay=1.0))
    faults.impair(DOWN, impairment=Impairment(reorder=1.0))
    faults.admit(UP, b"", 1, 0.0)
    faults.admit(DOWN, b"", 2, 0.0)
    faults.forget()
    assert faults.lost == 2
    assert faults.get_timer() is None
    assert faults.due(9.0) == []


@pytest.mark.parametrize(
    "settings", [{"drop": 1.1}, {"duplicate": -0.1}, {"reorder": 2}, {"delay": -1}, {"jitter": -1}]
)
def test_an_impairment_that_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError):
        Impairment(**settings)
