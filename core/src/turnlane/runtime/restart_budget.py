"""When a lane may be tried again: deterministic backoff within a budget."""

from collections import deque

FIRST_BACKOFF = 0.2
LAST_BACKOFF = 10.0
MAX_RESTARTS = 10
WINDOW = 300.0
HEALTHY = 60.0
"""Seconds: backoff begins at 200 ms and doubles to 10 s; ten restarts in five minutes are allowed;
a lane that was up for a minute is forgiven everything."""


class RestartBudget:
    """The restarts of one lane. Time comes in as an argument, in monotonic seconds."""

    def __init__(self) -> None:
        self._restarts: deque[float] = deque()
        self._backoff = FIRST_BACKOFF

    def failed(self, now: float, healthy_for: float) -> float | None:
        """Note a failure after `healthy_for` seconds of service.

        Returns the seconds to wait before the next attempt, or None when the budget is spent.
        """
        if healthy_for >= HEALTHY:
            self._restarts.clear()
            self._backoff = FIRST_BACKOFF
        while self._restarts and now - self._restarts[0] > WINDOW:
            self._restarts.popleft()
        if len(self._restarts) >= MAX_RESTARTS:
            return None
        self._restarts.append(now)
        backoff = self._backoff
        self._backoff = min(backoff * 2, LAST_BACKOFF)
        return backoff
