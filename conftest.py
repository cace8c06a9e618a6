"""What every test run has in common: what tests send signals to heeds them."""

import signal
from types import FrameType

import pytest


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001 - pytest hands it in
    """Heed the signals that a shell has its background jobs ignore, and `nohup` its command.

    Programs started by tests would inherit that, and ignore, as they should, what they are sent.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, _let_be)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _let_be(number: int, frame: FrameType | None) -> None:
    """Go on after a hangup, as `nohup` wants; unlike SIG_IGN, children do not inherit this."""
