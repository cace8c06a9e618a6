"""Every way out releases what was started: signals become exceptions, which unwind the blocks."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Signals:
    """What came while nothing may be interrupted."""

    def __init__(self) -> None:
        self.holds = False
        self.came: int | None = None


_SIGNALS = _Signals()


@contextmanager
def unwinding_signals() -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP raise `SystemExit` with the code that shells expect.

    Once one came, the rest are ignored until the block has ended: ending takes its time, and what
    ends it half-way would leave processes behind. What the parent had us ignore stays ignored.
    """
    ours = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        if _SIGNALS.holds:
            _SIGNALS.came = number
        else:
            raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal that comes within a short block raise at its end.

    A process is not to be forgotten between its start and its first mention.
    """
    _SIGNALS.holds = True
    try:
        yield
    finally:
        _SIGNALS.holds = False
        came, _SIGNALS.came = _SIGNALS.came, None
    if came is not None:
        raise SystemExit(128 + came)
