"""How running commands end: signals, failures, and a second signal."""

import signal
from contextlib import suppress

import anyio
import pytest

from turnlane.api import InternalError, SessionError, Stage
from turnlane.cli.failures import Interruption, staged
from turnlane.cli.lifecycle import run_once, run_until_stopped

pytestmark = pytest.mark.anyio


class Session:
    """A handle that tells what was done to it."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.stops = 0
        self.ended = anyio.Event()
        self.release = anyio.Event()
        self.release.set()

    async def stop(self) -> None:
        self.stops += 1
        await self.release.wait()
        self.ended.set()

    async def wait(self) -> None:
        if self.failure is None:
            await self.ended.wait()
        else:
            raise self.failure


def stage() -> Stage:
    return Stage.TURN_DIAL


def never(code: int) -> None:
    raise AssertionError(f"forced with {code}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_after_readiness_stops_in_order(anyio_backend, number) -> None:
    session = Session()

    async def start() -> Session:
        return session

    def announce(handle: Session) -> None:
        assert handle is session
        signal.raise_signal(number)

    with anyio.fail_after(5):
        await run_until_stopped(start, announce, stage, force=never)
    assert session.stops == 1
    assert session.ended.is_set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_before_readiness_cancels_the_start(anyio_backend, number) -> None:
    released = []

    async def start() -> Session:
        signal.raise_signal(number)
        try:
            await anyio.sleep_forever()
        finally:
            released.append(True)
        raise AssertionError

    with anyio.fail_after(5), pytest.raises(Interruption) as raised, staged(stage):
        await run_until_stopped(start, never, stage, force=never)
    assert (raised.value.stage, raised.value.number) == (Stage.TURN_DIAL, number)
    assert released == [True]


async def test_a_start_that_finishes_under_the_signal_is_stopped_and_not_announced(
    anyio_backend,
) -> None:
    session = Session()

    async def start() -> Session:
        signal.raise_signal(signal.SIGTERM)
        with suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()
        return session

    with anyio.fail_after(5), pytest.raises(Interruption), staged(stage):
        await run_until_stopped(start, never, stage, force=never)
    assert session.stops == 1


async def test_a_second_signal_forces_the_end(anyio_backend) -> None:
    session = Session()
    session.release = anyio.Event()
    codes = []

    def force(code: int) -> None:
        codes.append(code)
        session.release.set()

    async def start() -> Session:
        return session

    async def insist() -> None:
        while not session.stops:
            await anyio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGTERM)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(insist)
            await run_until_stopped(
                start, lambda _: signal.raise_signal(signal.SIGINT), stage, force=force
            )
    assert codes == [128 + signal.SIGTERM]


async def test_a_failure_that_ends_a_session_is_raised_as_it_is(anyio_backend) -> None:
    failure = SessionError(Stage.SESSION_SUPERVISION, "lanes_exhausted", "all lanes are gone")

    async def start() -> Session:
        return Session(failure)

    with anyio.fail_after(5), pytest.raises(SessionError) as raised, staged(stage):
        await run_until_stopped(start, lambda _: None, stage, force=never)
    assert raised.value is failure


async def test_a_foreign_failure_is_told_as_internal_with_the_stage(anyio_backend) -> None:
    async def start() -> Session:
        raise ZeroDivisionError

    with anyio.fail_after(5), pytest.raises(InternalError) as raised, staged(stage):
        await run_until_stopped(start, never, stage, force=never)
    assert raised.value.stage is Stage.TURN_DIAL
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


async def test_a_signal_ends_work_that_is_done_once(anyio_backend) -> None:
    async def work() -> int:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()
        return 1

    with anyio.fail_after(5), pytest.raises(Interruption), staged(stage):
        await run_once(work, stage, force=never)


async def test_work_that_is_done_once_gives_its_result(anyio_backend) -> None:
    async def work() -> int:
        return 7

    assert await run_once(work, stage, force=never) == 7


async def test_signals_that_the_parent_had_us_ignore_stay_ignored(anyio_backend) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        session = Session()

        async def start() -> Session:
            signal.raise_signal(signal.SIGHUP)
            return session

        def announce(_: Session) -> None:
            assert session.stops == 0
            signal.raise_signal(signal.SIGTERM)

        with anyio.fail_after(5):
            await run_until_stopped(start, announce, stage, force=never)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
