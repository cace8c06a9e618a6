"""Software that is not ours: found, or the test is skipped (in CI: fails) with the reason."""

import os
import shutil

import pytest

REQUIRE_REAL = "TURNLANE_REQUIRE_REAL"


def missing(reason: str) -> None:
    """Skip the running test because of `reason`; fail it where the real thing is required."""
    if os.environ.get(REQUIRE_REAL) == "1":
        pytest.fail(f"{reason}, and {REQUIRE_REAL}=1 forbids skipping")
    pytest.skip(reason)


def require(*programs: str) -> None:
    """Go on only when every one of `programs` is on PATH."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        missing(f"not installed: {', '.join(absent)}")
