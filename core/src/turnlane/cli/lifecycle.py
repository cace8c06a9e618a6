"""How a command that keeps running ends: signals stop it in order, a second one at once."""

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol, TypeVar

import anyio
import anyio.abc

from turnlane.api import Stage
from turnlane.cli.failures import Interruption
from turnlane.telemetry import log_event

T = TypeVar("T")
CurrentStage = Callable[[], Stage]
Force = Callable[[int], object]

_LOG = logging.getLogger("turnlane.lifecycle")


class Handle(Protocol):
    """What the host gives for a session or a server that runs."""

    async def stop(self) -> None:
        """End it in order; return once it has released everything."""
        ...

    async def wait(self) -> None:
        """Wait for its end; raise the failure that ended it."""
        ...


H = TypeVar("H", bound=Handle)


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for anything."""
    sys.stderr.flush()
    os._exit(code)


class Signals:
    """The signals that came: the first cancels `startup` and sets `came`, the second forces."""

    def __init__(self, force: Force) -> None:
        self._force = force
        self.startup = anyio.CancelScope()
        self.came = anyio.Event()
        self.first: int | None = None

    async def watch(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Receive signals until cancelled."""
        with anyio.open_signal_receiver(*_heeded()) as received:
            task_status.started()
            async for number in received:
                if self.first is not None:
                    log_event(_LOG, logging.WARNING, "stop_forced", signal=number.name)
                    self._force(128 + number)
                    return
                self.first = number
                log_event(_LOG, logging.INFO, "stop_requested", signal=number.name)
                self.came.set()
                self.startup.cancel()


async def run_once(
    work: Callable[[], Awaitable[T]], stage: CurrentStage, *, force: Force = exit_now
) -> T:
    """Return what `work` gives; raises `Interruption` where a signal cancelled it."""
    signals = Signals(force)
    async with anyio.create_task_group() as tasks:
        await tasks.start(signals.watch)
        with signals.startup:
            result = await work()
        if signals.first is not None:
            raise Interruption(stage(), signals.first)
        tasks.cancel_scope.cancel()
    return result


async def run_until_stopped(
    start: Callable[[], Awaitable[H]],
    announce: Callable[[H], None],
    stage: CurrentStage,
    *,
    force: Force = exit_now,
) -> None:
    """Start something, announce it, and return when a signal has stopped it in order.

    Raises the failure that ended it, and `Interruption` where a signal came before it was ready.
    """
    signals = Signals(force)
    async with anyio.create_task_group() as tasks:
        await tasks.start(signals.watch)
        handle: H | None = None
        with signals.startup:
            handle = await start()
        if signals.first is not None:
            if handle is not None:
                await handle.stop()
            raise Interruption(stage(), signals.first)
        assert handle is not None
        announce(handle)
        await _wait(handle, signals)
        tasks.cancel_scope.cancel()


async def _wait(handle: Handle, signals: Signals) -> None:
    async def stop_when_asked() -> None:
        await signals.came.wait()
        await handle.stop()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_when_asked)
        await handle.wait()
        if signals.first is None:
            tasks.cancel_scope.cancel()


def _heeded() -> list[signal.Signals]:
    """Return the signals that end us, without those our parent had us ignore (`nohup`, `&`)."""
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in ending if signal.getsignal(number) is not signal.SIG_IGN]
