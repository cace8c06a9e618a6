"""What hangs on the event loop: readiness told to a function, and the nap that moderates it."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio
import pytest

from turnlane.net.moderation import LONGEST_NAP, SAMPLE, Moderation
from turnlane.net.reactor import Readiness

SOON = 5.0
"""Seconds within which what must happen on loopback happens."""


class SpokenError(Exception):
    """What a test has somebody raise."""


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two connected datagram sockets that do not block."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def taking(opened: socket.socket, taken: list[bytes]) -> Callable[[], int]:
    """Return what reads all that is there."""

    def on_readable() -> int:
        count = 0
        try:
            while True:
                taken.append(opened.recv(100))
                count += 1
        except BlockingIOError:
            return count

    return on_readable


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(SOON):
        while not holds():
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_function_is_called_whenever_there_is_something_to_read() -> None:
    taken: list[bytes] = []
    with pair() as (near, far):
        readiness = Readiness(near, taking(near, taken))
        far.send(b"before")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(readiness.run)
            await until(lambda: taken == [b"before"])
            for number in range(5):
                far.send(b"%d" % number)
                await until(lambda number=number: taken[-1] == b"%d" % number)  # type: ignore[misc]
            tasks.cancel_scope.cancel()
        far.send(b"nobody listens any more")
        await anyio.wait_all_tasks_blocked()
        assert taken == [b"before", b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.anyio
async def test_what_is_not_read_at_once_is_told_again() -> None:
    taken: list[bytes] = []
    with pair() as (near, far):
        for number in range(3):
            far.send(b"%d" % number)

        def one() -> int:
            taken.append(near.recv(100))
            return 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Readiness(near, one).run)
            await until(lambda: taken == [b"0", b"1", b"2"])
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_the_function_raises_reaches_whoever_runs_it() -> None:
    calls = 0
    with pair() as (near, far):

        def on_readable() -> int:
            nonlocal calls
            calls += 1
            raise SpokenError("first") if calls == 1 else SpokenError("again")

        readiness = Readiness(near, on_readable)
        far.send(b"x")
        with anyio.fail_after(SOON), pytest.raises(SpokenError, match="first"):
            await readiness.run()
        await anyio.wait_all_tasks_blocked()
        assert calls == 1, "nobody is called after the end, though there is something to read"


@pytest.mark.anyio
async def test_an_end_before_it_runs_is_not_lost() -> None:
    with pair() as (near, far):
        far.send(b"x")
        readiness = Readiness(near, lambda: pytest.fail("it has ended"))
        readiness.end(SpokenError())
        with anyio.fail_after(SOON), pytest.raises(SpokenError):
            await readiness.run()


@pytest.mark.anyio
async def test_an_end_while_nothing_comes_is_told_at_once() -> None:
    with pair() as (near, _):
        readiness = Readiness(near, lambda: 0)

        async def end() -> None:
            await anyio.wait_all_tasks_blocked()
            readiness.end(SpokenError())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            with anyio.fail_after(SOON), pytest.raises(SpokenError):
                await readiness.run()


@pytest.mark.anyio
async def test_the_function_may_end_it_itself_and_the_first_reason_counts() -> None:
    with pair() as (near, far):

        def on_readable() -> int:
            readiness.end(SpokenError("first"))
            readiness.end(SpokenError("second"))
            return 1

        readiness = Readiness(near, on_readable)
        far.send(b"x")
        with anyio.fail_after(SOON), pytest.raises(SpokenError, match="first"):
            await readiness.run()
        readiness.end(SpokenError("too late"))


@pytest.mark.anyio
@pytest.mark.parametrize("order", ["end", "cancel and end", "cancel"])
async def test_the_socket_may_be_closed_at_once_and_its_number_be_another_sockets(
    order: str,
) -> None:
    """What is left registered under a number would fail, or read for, the next socket with it."""
    with pair() as (near, far):
        number = near.fileno()
        with anyio.fail_after(SOON):
            async with anyio.create_task_group() as tasks:

                async def run() -> None:
                    with suppress(anyio.ClosedResourceError):
                        await readiness.run()

                readiness = Readiness(near, lambda: pytest.fail("nothing was sent"))
                tasks.start_soon(run)
                await anyio.wait_all_tasks_blocked()
                if "cancel" in order:
                    tasks.cancel_scope.cancel()
                if "end" in order:
                    readiness.end(anyio.ClosedResourceError())
                    anyio.notify_closing(near)
                    near.close()
                    far.close()
        near.close()
        far.close()
        with pair() as ends:
            (again,) = (end for end in ends if end.fileno() == number)
            (other,) = (end for end in ends if end is not again)
            taken: list[bytes] = []
            other.send(b"for the next")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Readiness(again, taking(again, taken)).run)
                await until(lambda: taken == [b"for the next"])
                tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_broken_socket_is_told_by_reading() -> None:
    with pair() as (near, far):

        def on_readable() -> int:
            raise OSError(errno.ENETDOWN, "down")

        far.send(b"x")
        with anyio.fail_after(SOON), pytest.raises(OSError, match="down"):
            await Readiness(near, on_readable).run()


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Traffic:
    """A moderation that hears of wake-ups as evenly as the test has them come."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.moderation = Moderation(self.clock)
        self.naps: set[float] = set()

    def comes(self, wakeups_a_second: float, datagrams: int, wakeups: int = 3 * SAMPLE) -> float:
        """Let wake-ups come; return the nap after them."""
        for _ in range(wakeups):
            self.clock.now += 1 / wakeups_a_second
            self.moderation.note(datagrams)
            self.naps.add(self.moderation.nap)
        return self.moderation.nap


@pytest.mark.parametrize("rate", [1, 100, 1000, 5200, 8000])
def test_below_a_rate_no_datagram_waits(rate: int) -> None:
    for datagrams in (0, 1, 2, 100):
        traffic = Traffic()
        traffic.comes(rate, datagrams)
        assert traffic.naps == {0.0}


def test_many_wakeups_that_bring_little_are_moderated_within_the_bound() -> None:
    traffic = Traffic()
    assert traffic.comes(50_000, 1, SAMPLE) > 0
    assert max(traffic.naps) < LONGEST_NAP == 100e-6


def test_a_nap_that_finds_no_company_is_not_taken_again_for_a_while() -> None:
    """As with questions that wait for their answers: each would only come later."""
    traffic = Traffic()
    napping = sum(traffic.comes(20_000, 1, 1) > 0 for _ in range(40_000))
    assert 0 < napping <= 4 * SAMPLE


def test_large_batches_are_good_without() -> None:
    traffic = Traffic()
    assert traffic.comes(50_000, 16) == 0
    assert traffic.naps == {0.0}


def test_a_nap_goes_on_while_the_datagrams_are_as_many_though_wakeups_are_fewer() -> None:
    traffic = Traffic()
    assert traffic.comes(20_000, 1, SAMPLE) > 0
    # The same datagrams, three at a time because of the nap.
    assert traffic.comes(20_000 / 3, 3) > 0


@pytest.mark.parametrize(("rate", "datagrams"), [(2_000, 1), (1, 1), (2_500, 3), (50_000, 10)])
def test_it_stops_when_there_is_less_to_do_or_batches_are_large(rate: int, datagrams: int) -> None:
    traffic = Traffic()
    assert traffic.comes(50_000, 1, SAMPLE) > 0
    assert traffic.comes(rate, datagrams, 2 * SAMPLE) == 0


def test_it_is_thought_over_only_now_and_then_and_survives_a_clock_that_stands() -> None:
    traffic = Traffic()
    assert traffic.comes(50_000, 1, SAMPLE - 1) == 0
    assert traffic.comes(50_000, 1, 1) > 0
    for _ in range(10 * SAMPLE):
        traffic.moderation.note(1)
    assert 0 <= traffic.moderation.nap < LONGEST_NAP
