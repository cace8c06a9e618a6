"""One worker as the server sees it, played by the test: how it starts, talks and ends."""

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio.testing

from turnlane.api import Stage, TurnlaneError
from turnlane.runtime import worker_process
from turnlane.runtime.worker_channel import (
    Channel,
    Counted,
    Failed,
    Failure,
    Released,
    Serving,
    Stop,
    read_by_worker,
)
from turnlane.runtime.worker_process import END_TIMEOUT, START_TIMEOUT, WorkerProcess

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on a clock that jumps to whatever is waited for."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0.01)}


class PaperProcess:
    """A process whose end of the channel is in the test's hands."""

    pid = 4711

    def __init__(self, command: list[str], inherited: int) -> None:
        self.command = command
        self.channel = Channel(socket.socket(fileno=inherited))
        self.returncode: int | None = None
        self._ended = anyio.Event()

    def exit(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self.channel.close()
            self._ended.set()

    def kill(self) -> None:
        self.exit(-signal.SIGKILL)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def aclose(self) -> None:
        await self._ended.wait()


class Bench:
    """A worker under test, the process that stands for it, and what came of it."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.worker = WorkerProcess(5, lambda _, message: self.told.append(message))
        self.process: PaperProcess | None = None
        self.ended: TurnlaneError | None = None

    async def run(self) -> None:
        self.ended = await self.worker.run()

    @property
    def child(self) -> PaperProcess:
        assert self.process is not None
        return self.process


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()

    async def open_process(command: list[str], *, pass_fds: list[int], **_: Any) -> PaperProcess:
        made.process = PaperProcess(command, socket.dup(pass_fds[0]))
        assert command[-1] == str(pass_fds[0])
        return made.process

    monkeypatch.setattr(worker_process.anyio, "open_process", open_process)
    return made


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[PaperProcess]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run)
        await anyio.wait_all_tasks_blocked()
        yield bench.child
        tasks.cancel_scope.cancel()


async def settled() -> None:
    """Let what was sent arrive."""
    await anyio.sleep(0.1)


async def test_what_it_tells_is_passed_on_and_what_it_is_told_arrives(bench: Bench) -> None:
    bench.worker.channel.send(Stop())  # waits for the process
    async with running(bench) as child:
        assert bench.worker.pid == child.pid
        assert (await child.channel.receive(read_by_worker))[0] == Stop()
        child.channel.send(Serving())
        child.channel.send(Counted({"dropped": 1}))
        await settled()
        assert bench.told == [Serving(), Counted({"dropped": 1})]
        assert bench.worker.serving_since is not None


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "SIGKILL"), (-33, "exit code -33"), (3, "exit code 3"), (0, "exit code 0")],
)
async def test_an_end_that_nobody_asked_for_is_told_with_its_stage(
    bench: Bench, code: int, words: str
) -> None:
    async with running(bench) as child:
        child.channel.send(Serving())
        await settled()
        child.channel.send(Released(b"last words"))
        child.exit(code)
        await settled()
    assert bench.told[-1] == Released(b"last words")
    assert bench.ended is not None
    assert (bench.ended.stage, bench.ended.code) == (Stage.ACCEPT, "worker_died")
    assert bench.ended.message == f"worker 5 ended with {words}"


async def test_one_that_ends_before_it_serves_has_not_been_accepting(bench: Bench) -> None:
    async with running(bench) as child:
        child.exit(1)
        await settled()
    assert bench.ended is not None
    assert (bench.ended.stage, bench.ended.code) == (Stage.SERVER_INIT, "worker_died")


async def test_its_own_failure_is_what_ended_it(bench: Bench) -> None:
    async with running(bench) as child:
        child.channel.send(Failed(Failure(Stage.LISTEN, "listen_socket_failed", "down", "up")))
        child.exit(0)
        await settled()
    assert bench.ended is not None
    assert (bench.ended.stage, bench.ended.code) == (Stage.LISTEN, "listen_socket_failed")
    assert (bench.ended.message, bench.ended.advice) == ("down", "up")


async def test_one_that_does_not_serve_in_time_is_killed(bench: Bench) -> None:
    async with running(bench) as child:
        await anyio.sleep(START_TIMEOUT - 1)
        assert bench.ended is None
        await anyio.sleep(END_TIMEOUT + 2)
        assert child.returncode == -signal.SIGKILL
    assert bench.ended is not None
    assert (bench.ended.stage, bench.ended.code) == (Stage.SERVER_INIT, "worker_timeout")


async def test_one_that_serves_has_all_the_time_there_is(bench: Bench) -> None:
    async with running(bench) as child:
        child.channel.send(Serving())
        await anyio.sleep(100 * START_TIMEOUT)
        assert bench.ended is None
        assert child.returncode is None


async def test_one_that_hangs_when_its_channel_is_closed_is_killed(bench: Bench) -> None:
    async with running(bench) as child:
        child.channel.send(Serving())
        await settled()
        child.channel.close()
        await anyio.sleep(END_TIMEOUT + 1)
        assert child.returncode == -signal.SIGKILL
        assert bench.ended is not None


async def test_cancelled_it_takes_the_process_with_it(bench: Bench) -> None:
    async with running(bench) as child:
        child.channel.send(Serving())
        await settled()
    assert child.returncode == -signal.SIGKILL
    assert bench.ended is None


async def test_a_system_that_starts_no_process_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(worker_process.anyio, "open_process", refused)
    await bench.run()
    assert bench.ended is not None
    assert (bench.ended.stage, bench.ended.code) == (Stage.SERVER_INIT, "worker_unstarted")
    assert "Resource temporarily unavailable" in bench.ended.message
    assert bench.worker.pid is None
