"""One worker as the server sees it: a process, its channel, and its end."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import anyio
from anyio.abc import Process

from turnlane.api import Stage, TurnlaneError
from turnlane.runtime.worker_channel import (
    Channel,
    Failed,
    Serving,
    ToServer,
    channel_pair,
    read_by_server,
)

ENTRY = "turnlane.runtime.worker_entry"

START_TIMEOUT = 30.0
"""Seconds until a worker must serve."""

END_TIMEOUT = 5.0
"""Seconds that a process has to end once its channel is closed."""


class WorkerProcess:
    """Runs one process from its start to its end. `take` is given what it tells."""

    def __init__(self, index: int, take: Callable[["WorkerProcess", ToServer], None]) -> None:
        ours, self._theirs = channel_pair()
        self.index = index
        self.channel = Channel(ours)
        self.serving_since: float | None = None
        self.counters: dict[str, int] = {}
        self.lanes: Counter[tuple[str, int]] = Counter()
        """Session and number of each lane that it owns."""
        self._take = take
        self._process: Process | None = None
        self._failure: TurnlaneError | None = None
        self._starting = anyio.CancelScope()

    @property
    def pid(self) -> int | None:
        """The number of its process; None before it has one."""
        return None if self._process is None else self._process.pid

    async def run(self) -> TurnlaneError:
        """Start the process, and return why it ended; cancelled, it is killed.

        What it is told before that waits for it in the channel.
        """
        try:
            with self._theirs as theirs:
                self._process = await anyio.open_process(
                    # -P: a package of our name in the working directory is not ours.
                    [sys.executable, "-P", "-m", ENTRY, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=None,
                    pass_fds=[theirs.fileno()],
                )
            await self._converse()
            with anyio.move_on_after(END_TIMEOUT):
                await self._process.wait()
        except OSError as error:
            return self._failed("worker_unstarted", f"did not start: {error.strerror}")
        finally:
            self.channel.close()
            if self._process is not None:
                with anyio.CancelScope(shield=True):
                    if self._process.returncode is None:
                        self._process.kill()
                    await self._process.aclose()
        if self._failure is not None:
            return self._failure
        if self._starting.cancelled_caught:
            return self._failed("worker_timeout", f"did not serve within {START_TIMEOUT:g} seconds")
        return self._failed("worker_died", f"ended with {_told(self._process.returncode)}")

    async def _converse(self) -> None:
        """Take what the process tells until it ends, or for too long does not serve."""
        self._starting.deadline = anyio.current_time() + START_TIMEOUT
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.channel.run)
            with self._starting:
                await self._listen()
            tasks.cancel_scope.cancel()

    async def _listen(self) -> None:
        while True:
            try:
                message, _ = await self.channel.receive(read_by_server)
            except anyio.EndOfStream:
                return
            match message:
                case Serving():
                    self.serving_since = anyio.current_time()
                    self._starting.deadline = float("inf")
                    self._take(self, message)
                case Failed():
                    told = message.failure
                    self._failure = TurnlaneError(told.stage, told.code, told.message, told.advice)
                case _:
                    self._take(self, message)

    def _failed(self, code: str, what: str) -> TurnlaneError:
        return TurnlaneError(
            Stage.SERVER_INIT if self.serving_since is None else Stage.ACCEPT,
            code,
            f"worker {self.index} {what}",
            "see what it wrote last, and the system's log; --workers 1 does without",
        )


def _told(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
