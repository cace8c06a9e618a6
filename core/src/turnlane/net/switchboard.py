"""The switchboard: one epoll for all data sockets of a loop, which the loop watches as one file.

An event loop spends some four microseconds of Python on each wake-up. Where datagrams come often
enough, the switchboard waits for the next ones itself, for `HOLD` at most, and the loop has its
turn in between.
"""

import select
from collections.abc import Callable
from typing import Final, Protocol

from turnlane.net.moderation import Moderation

HOLD: Final = 1e-3
"""Seconds after which the loop has its turn, and for which the next datagrams are waited for."""

_MOST: Final = 64


class Loop(Protocol):
    """What an event loop does for a switchboard."""

    def time(self) -> float:
        """Return the time in seconds."""
        ...

    def add_reader(self, fd: int, callback: Callable[[], None]) -> object:
        """Call `callback` whenever `fd` is readable."""
        ...

    def remove_reader(self, fd: int) -> object:
        """Call it no more."""
        ...


class Switchboard:
    """Calls the function of each socket that has something to read; they return how many it was."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._functions: dict[int, Callable[[], int]] = {}
        self._moderation = Moderation(loop.time)
        self._watched = False

    def add(self, descriptor: int, function: Callable[[], int]) -> None:
        """Call `function` from now on, which never raises."""
        self._functions[descriptor] = function
        self._epoll.register(descriptor, select.EPOLLIN)
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._epoll.fileno(), self._ready)

    def remove(self, descriptor: int) -> None:
        """Call nothing for it any more; unknown ones are ignored."""
        if self._functions.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)
        if not self._functions and self._watched:
            self._watched = False
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    @property
    def closed(self) -> bool:
        """Whether its last socket has gone, and it with it."""
        return self._epoll.closed

    def _ready(self) -> None:
        moderation, functions = self._moderation, self._functions
        moderation.take_nap()
        events = self._epoll.poll(0, _MOST)
        until = self._loop.time() + HOLD
        while events:
            count = 0
            for descriptor, _ in events:
                function = functions.get(descriptor)
                if function is not None:
                    count += function()
            moderation.note(count)
            if not moderation.stay or self.closed or self._loop.time() >= until:
                return
            events = self._epoll.poll(HOLD, _MOST)
            if events:
                moderation.take_nap()
