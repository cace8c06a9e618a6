"""A lane's restarts: deterministic backoff, a budget, forgiveness after a minute of health."""

from turnlane.runtime.restart_budget import RestartBudget


def test_backoff_doubles_from_200_ms_to_10_s_and_the_eleventh_failure_ends_it() -> None:
    budget = RestartBudget()
    backoffs = [budget.failed(float(second), healthy_for=0.0) for second in range(11)]
    assert backoffs == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 10.0, None]


def test_a_minute_of_health_forgives_everything() -> None:
    budget = RestartBudget()
    for second in range(10):
        budget.failed(float(second), healthy_for=0.0)
    assert budget.failed(100.0, healthy_for=60.0) == 0.2


def test_less_than_a_minute_of_health_forgives_nothing() -> None:
    budget = RestartBudget()
    for second in range(10):
        budget.failed(float(second), healthy_for=0.0)
    assert budget.failed(69.9, healthy_for=59.9) is None


def test_restarts_older_than_five_minutes_no_longer_count() -> None:
    budget = RestartBudget()
    for second in range(10):
        budget.failed(float(second), healthy_for=0.0)
    assert budget.failed(305.0, healthy_for=0.0) == 10.0
    assert [budget.failed(305.0, healthy_for=0.0) for _ in range(5)] == [10.0] * 4 + [None]
