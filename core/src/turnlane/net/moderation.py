"""Moderation: how the data plane meets many small wake-ups, going by what the last ones brought."""

import time
from collections.abc import Callable
from typing import Final

from turnlane.net import native

SAMPLE: Final = 32
"""Wake-ups after which everything is thought over."""

LONGEST_NAP: Final = 100e-6
"""Seconds that a datagram waits at most for company."""

_SMALL: Final = 4
"""Datagrams a wake-up, on average: above, batches are good without a nap."""

_FREQUENT: Final = 9_000.0
"""Wake-ups a second below which a nap of `LONGEST_NAP` finds hardly anything more."""

_COMPANY: Final = 1.5
"""Datagrams a wake-up, on average, without which a nap has found nobody to wait for."""

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 16.0
"""Seconds without naps after they were in vain; they double each time."""

_STEADY: Final = 2_500.0
"""Wake-ups a second from which the next one is worth waiting for at once."""

_SHARP_NAP: Final = 70e-6
_BLUNT_NAP: Final = 40e-6
"""What is asked for, so that waking included it is no longer: with a sharp timer, and without."""


class Moderation:
    """Decides whether to nap before a wake-up's datagrams are read, and whether to stay after them.

    A nap pays when wake-ups are many and each brings little: more come together, and none waits
    for more than `LONGEST_NAP`. Where it brings nothing together, as with questions that wait for
    their answers, there is none for a while. Staying pays as soon as the next wake-up is near. At
    lower rates there is neither.
    """

    def __init__(
        self, clock: Callable[[], float], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.nap = 0.0
        """Seconds to sleep before reading."""
        self.stay = False
        """Whether to wait for the next datagrams right where the last ones were read."""
        self._length = _SHARP_NAP if native.sharpen_timer() else _BLUNT_NAP
        self._clock = clock
        self._sleep = sleep
        self._wakeups = 0
        self._datagrams = 0
        self._since = clock()
        self._paused_until = self._since
        self._pause = _FIRST_PAUSE

    def take_nap(self) -> None:
        """Sleep for `nap` seconds."""
        if self.nap:
            self._sleep(self.nap)

    def note(self, datagrams: int) -> None:
        """Take note of a wake-up and of what it brought."""
        self._wakeups += 1
        self._datagrams += datagrams
        if self._wakeups >= SAMPLE:
            self._think()

    def _think(self) -> None:
        now = self._clock()
        elapsed = max(now - self._since, 1e-6)
        wakeups = self._wakeups / elapsed
        few = self._datagrams < _SMALL * self._wakeups
        # While napping the wake-ups are fewer because of it: then the datagrams' rate decides.
        rate = self._datagrams / elapsed if self.nap else wakeups
        if self.nap and self._datagrams < _COMPANY * self._wakeups:
            self._paused_until = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        elif self.nap:
            self._pause = _FIRST_PAUSE
        wanted = few and rate > _FREQUENT and now >= self._paused_until
        self.nap = self._length if wanted else 0.0
        self.stay = wakeups > _STEADY
        self._wakeups = self._datagrams = 0
        self._since = now
