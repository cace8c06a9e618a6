"""Signals for the lab's commands: the first ends them in order, a second one at once."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskStatus

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """What came. `first` is the first signal, or None.

    It cancels the block of `heeded_signals`; once `in_order` was called it sets `came` instead.
    """

    def __init__(self, block: anyio.CancelScope) -> None:
        self.first: signal.Signals | None = None
        self.came = anyio.Event()
        self._block: anyio.CancelScope | None = block

    def in_order(self) -> None:
        """Leave it to the block to end when `came` is set."""
        self._block = None

    @property
    def are_in_order(self) -> bool:
        """Whether the block came so far that a signal ends it in order."""
        return self._block is None

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended before it was ready."""
        assert self.first is not None, "only after a signal"
        return 128 + self.first

    async def wait_unless(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait for `wait` to return, or raise, unless a signal comes first; after `in_order`."""
        async with anyio.create_task_group() as race:

            async def give_up() -> None:
                await self.came.wait()
                race.cancel_scope.cancel()

            race.start_soon(give_up)
            await wait()
            race.cancel_scope.cancel()

    async def watch(self, *, task_status: TaskStatus[None]) -> None:
        """Wait for the first signal; when this returns, signals do again what they always do."""
        # What the parent had us ignore (`nohup`) stays ignored.
        heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as received:
            task_status.started()
            async for number in received:
                self.first = number
                break
        if self._block is None:
            self.came.set()
        else:
            self._block.cancel()


@asynccontextmanager
async def heeded_signals() -> AsyncIterator[Signals]:
    """Heed SIGINT, SIGTERM and SIGHUP while the block lasts.

    What the block raises may arrive in an exception group.
    """
    async with anyio.create_task_group() as tasks:
        signals = Signals(tasks.cancel_scope)
        await tasks.start(signals.watch)
        yield signals
        tasks.cancel_scope.cancel()
