"""The one file that knows the event loop: a function called whenever a socket is readable.

On asyncio the sockets hang on a switchboard, which costs a third of a task that waits and is woken
(measured: docs/adr/0008-data-plane.md); where there is no epoll, on the loop's own reader callback;
on trio a task waits.
"""

import asyncio  # noqa: TID251 this is the place for it
import select
import socket
from collections.abc import Callable
from typing import NoReturn

import anyio
from anyio.lowlevel import RunVar

from turnlane.net.switchboard import Switchboard

_switchboard: RunVar[Switchboard] = RunVar("turnlane_switchboard")


def loop_clock() -> Callable[[], float]:
    """Return the clock of the running loop, in seconds: what `anyio.current_time` gives, faster."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        return anyio.current_time


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
        self._forget: Callable[[], object] = bool

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
            self._forget()
            if not self._future.done():
                self._future.set_exception(error)
        if self._waiting is not None:
            self._waiting.cancel()

    async def _run_on(self, loop: asyncio.AbstractEventLoop) -> NoReturn:
        if self._ended is not None:
            raise self._ended
        future: asyncio.Future[None] = loop.create_future()
        self._future = future
        self._forget = _watch(loop, self._socket, self._called)
        try:
            await future
        finally:
            self._future = None
            if self._ended is None:
                self._forget()
        raise AssertionError("only an exception ends the wait")

    def _called(self) -> int:
        try:
            return self._on_readable()
        except Exception as error:
            self.end(error)
            return 0

    async def _run_waiting(self) -> NoReturn:
        with anyio.CancelScope() as self._waiting:
            while self._ended is None:
                await anyio.wait_readable(self._socket)
                self._on_readable()
        assert self._ended is not None
        raise self._ended


def _watch(
    loop: asyncio.AbstractEventLoop, opened: socket.socket, function: Callable[[], int]
) -> Callable[[], object]:
    """Have `function` called when `opened` is readable; return what ends that."""
    descriptor = opened.fileno()
    if not hasattr(select, "epoll"):
        loop.add_reader(descriptor, function)
        return lambda: loop.remove_reader(descriptor)
    switchboard = _switchboard.get(None)
    if switchboard is None or switchboard.closed:
        switchboard = Switchboard(loop)
        _switchboard.set(switchboard)
    switchboard.add(descriptor, function)
    return lambda: switchboard.remove(descriptor)
