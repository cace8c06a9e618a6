"""What every test run has in common: signals are heeded, and the past costs no collections."""

import gc
import signal
from types import FrameType

import hypothesis  # noqa: F401 - what it keeps weak references to is not to be frozen first
import pytest


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001 - pytest hands it in
    """Heed the signals that a shell has its background jobs ignore, and `nohup` its command.

    Programs started by tests would inherit that, and ignore, as they should, what they are sent.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, _let_be)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="module")
def settled_past() -> None:
    """Leave what thousands of tests need out of the garbage collections that some tests ask for."""
    gc.collect()
    gc.freeze()


def _let_be(number: int, frame: FrameType | None) -> None:
    """Go on after a hangup, as `nohup` wants; unlike SIG_IGN, children do not inherit this."""
