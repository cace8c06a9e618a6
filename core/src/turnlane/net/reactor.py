"""The one file that knows the event loop: a function called whenever a socket is readable.

On asyncio it hangs on the loop's own reader callback, which costs less than half of a task that
waits and is woken (measured: docs/adr/0008-data-plane.md); on trio a task waits.
"""

import asyncio  # noqa: TID251 this is the place for it
import socket
import time
from collections.abc import Callable
from math import inf
from typing import NoReturn

import anyio
from anyio.lowlevel import RunVar

from turnlane.net import native

SAMPLE = 32
"""Wake-ups after which the nap is thought over."""

LONGEST_NAP = 100e-6
"""Seconds that a datagram waits at most for company."""

_SMALL = 4
"""Datagrams a wake-up, on average: above, batches are good without a nap."""

_FREQUENT = 9_000.0
"""Wake-ups a second below which a nap of `LONGEST_NAP` finds hardly anything more."""

_SHARP_NAP, _BLUNT_NAP = 70e-6, 40e-6
"""What is asked for, so that waking included it is no longer: with a sharp timer, and without."""


def loop_clock() -> Callable[[], float]:
    """Return the clock of the running loop, in seconds: what `anyio.current_time` gives, faster."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        return anyio.current_time


class Rest:
    """When the loop last ended a nap: a nap of one socket is one of all."""

    def __init__(self) -> None:
        self.ended = -inf


_rest: RunVar[Rest] = RunVar("turnlane_rest")


class Moderation:
    """Decides how long to nap before a wake-up's datagrams are read, so that more come together.

    A nap pays when wake-ups are many and each brings little: it saves wake-ups, and adds at most
    `LONGEST_NAP` to the way of a datagram. At lower rates there is none. All sockets of a loop
    share `rest`.
    """

    def __init__(
        self, clock: Callable[[], float], rest: Rest, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.nap = 0.0
        self._length = _SHARP_NAP if native.sharpen_timer() else _BLUNT_NAP
        self._clock = clock
        self._rest = rest
        self._sleep = sleep
        self._wakeups = 0
        self._datagrams = 0
        self._since = clock()

    def take_nap(self) -> None:
        """Sleep for `nap` seconds, unless the loop has just done so for another socket."""
        if self._clock() - self._rest.ended >= LONGEST_NAP:
            self._sleep(self.nap)
            self._rest.ended = self._clock()

    def note(self, datagrams: int) -> None:
        """Take note of a wake-up and of what it brought."""
        self._wakeups += 1
        self._datagrams += datagrams
        if self._wakeups >= SAMPLE:
            self._think()

    def _think(self) -> None:
        now = self._clock()
        elapsed = max(now - self._since, 1e-6)
        few = self._datagrams < _SMALL * self._wakeups
        # While napping the wake-ups are fewer because of it: then the datagrams' rate decides.
        rate = (self._datagrams if self.nap else self._wakeups) / elapsed
        self.nap = self._length if few and rate > _FREQUENT else 0.0
        self._wakeups = self._datagrams = 0
        self._since = now


class Readiness:
    """Calls `on_readable` whenever `opened` has something to read.

    `on_readable` never waits; it returns how many datagrams there were.
    """

    def __init__(self, opened: socket.socket, on_readable: Callable[[], int]) -> None:
        self._socket = opened
        self._on_readable = on_readable
        self._future: asyncio.Future[None] | None = None
        self._waiting: anyio.CancelScope | None = None
        self._ended: BaseException | None = None

    async def run(self) -> NoReturn:
        """Call until cancelled; raises what `on_readable` raised, and what `end` was given."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            await self._run_waiting()
        await self._run_on(loop)

    def end(self, error: BaseException) -> None:
        """Make `run` raise `error`, unless it has ended; the socket may be closed at once."""
        if self._ended is not None:
            return
        self._ended = error
        if self._future is not None:
            # Also where it was cancelled and whoever waits has not run since.
            self._future.get_loop().remove_reader(self._socket)
            if not self._future.done():
                self._future.set_exception(error)
        if self._waiting is not None:
            self._waiting.cancel()

    async def _run_on(self, loop: asyncio.AbstractEventLoop) -> NoReturn:
        if self._ended is not None:
            raise self._ended
        future: asyncio.Future[None] = loop.create_future()
        self._future = future
        loop.add_reader(self._socket, self._called(loop.time))
        try:
            await future
        finally:
            self._future = None
            if self._ended is None:
                loop.remove_reader(self._socket)
        raise AssertionError("only an exception ends the wait")

    def _called(self, clock: Callable[[], float]) -> Callable[[], None]:
        rest = _rest.get(None)
        if rest is None:
            rest = Rest()
            _rest.set(rest)
        moderation = Moderation(clock, rest)
        on_readable = self._on_readable

        def called() -> None:
            if moderation.nap:
                moderation.take_nap()
            try:
                moderation.note(on_readable())
            except Exception as error:
                self.end(error)

        return called

    async def _run_waiting(self) -> NoReturn:
        with anyio.CancelScope() as self._waiting:
            while self._ended is None:
                await anyio.wait_readable(self._socket)
                self._on_readable()
        assert self._ended is not None
        raise self._ended
