"""Timeouts that a test need not sit out."""

from collections.abc import Callable
from typing import Any

import pytest


def shorten(patch: pytest.MonkeyPatch, function: Callable[..., Any], **seconds: float) -> None:
    """Change defaults of keyword-only parameters of `function` until the test ends."""
    plain: Any = getattr(function, "__func__", function)
    defaults = plain.__kwdefaults__ or {}
    for name, value in seconds.items():
        assert name in defaults, f"{plain.__qualname__} has no default for {name}"
        patch.setitem(defaults, name, value)
