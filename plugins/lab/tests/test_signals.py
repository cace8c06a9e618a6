"""Signals: the first ends a block in order, at once before it is ready."""

import os
import signal

import anyio
import pytest

from turnlane_lab.signals import ENDING, heeded_signals

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def usual_handlers():
    """The handlers are again what they were, whatever a test did."""
    before = [signal.getsignal(number) for number in ENDING]
    yield
    assert [signal.getsignal(number) for number in ENDING] == before


@pytest.mark.parametrize("number", ENDING)
async def test_a_signal_cancels_a_block_that_is_not_ready(number):
    async with heeded_signals() as signals:
        os.kill(os.getpid(), number)
        await anyio.sleep_forever()
    assert signals.first is number
    assert not signals.are_in_order
    assert signals.exit_code == 128 + number


async def test_a_signal_tells_a_block_that_is_ready_and_leaves_the_ending_to_it():
    ended = False
    async with heeded_signals() as signals:
        signals.in_order()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.wait_unless(anyio.sleep_forever)
        await anyio.lowlevel.checkpoint()
        ended = True
    assert ended
    assert signals.are_in_order


async def test_a_block_that_ends_by_itself_saw_no_signal():
    async with heeded_signals() as signals:
        signals.in_order()
        await signals.wait_unless(anyio.lowlevel.checkpoint)
    assert signals.first is None


async def test_after_the_first_signal_the_next_does_what_it_always_does():
    async with heeded_signals() as signals:
        signals.in_order()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.came.wait()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_what_the_parent_had_us_ignore_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with heeded_signals() as signals:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signals.first is None
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_failure_of_what_is_waited_for_goes_through():
    async def fail():
        raise ZeroDivisionError

    with pytest.RaisesGroup(pytest.RaisesGroup(ZeroDivisionError)):
        async with heeded_signals() as signals:
            signals.in_order()
            await signals.wait_unless(fail)
