"""Timeouts that a test need not sit out."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest


def shorten(patch: pytest.MonkeyPatch, function: Callable[..., Any], **seconds: float) -> None:
    """Change the defaults of parameters of `function` until the test ends."""
    plain: Any = getattr(function, "__func__", function)
    parameters = inspect.signature(plain).parameters.values()
    known = {one.name: one.default for one in parameters if one.default is not one.empty}
    assert seconds.keys() <= known.keys(), f"{plain.__qualname__} has defaults for {list(known)}"
    known |= seconds
    by_place = [
        known[one.name]
        for one in parameters
        if one.name in known and one.kind is not one.KEYWORD_ONLY
    ]
    by_name = {
        one.name: known[one.name]
        for one in parameters
        if one.name in known and one.kind is one.KEYWORD_ONLY
    }
    patch.setattr(plain, "__defaults__", tuple(by_place) or None)
    patch.setattr(plain, "__kwdefaults__", by_name or None)
