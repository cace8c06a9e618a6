"""Deprecations: what the contract advises against works as before, and says what to use instead.

A name that was given a better one stands in `RENAMED`. A field stays where it is and is moved by
`moved_field` in its struct's `__post_init__`; a parameter is moved by `renamed_parameter`. Whatever
else is deprecated calls `warn_deprecated`.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import msgspec

P = ParamSpec("P")
R = TypeVar("R")


class TurnlaneDeprecationWarning(DeprecationWarning):
    """A plugin uses what the contract advises against; it goes on working.

    Python shows it in tests and hides it from operators, who can do nothing about it.
    """


class Renamed(NamedTuple):
    """What became of a name of the contract."""

    instead: str
    """The name in `turnlane.api` to use instead, which means the same."""
    since: str
    """The version of the contract from which on that is so, such as `1.2`."""


RENAMED: dict[str, Renamed] = {}
"""Former names of `turnlane.api`; none goes before the next major version."""


def warn_deprecated(what: str, instead: str, since: str, *, stacklevel: int = 1) -> None:
    """Warn whoever called the function from which this is called.

    `stacklevel` counts further callers in between.
    """
    warnings.warn(
        f"{what} is deprecated since version {since} of the plugin contract: use {instead}",
        TurnlaneDeprecationWarning,
        stacklevel=stacklevel + 2,
    )


def present_name(name: str) -> str:
    """Return what a former name of `turnlane.api` is called now, with a warning.

    Raises `AttributeError` for one that it never had.
    """
    if name not in RENAMED:
        raise AttributeError(f"module 'turnlane.api' has no attribute {name!r}")
    instead, since = RENAMED[name]
    warn_deprecated(f"turnlane.api.{name}", f"turnlane.api.{instead}", since, stacklevel=2)
    return instead


def moved_field(made: msgspec.Struct, old: str, new: str, since: str) -> None:
    """Put the value of the field `old` into `new` where a plugin has set it, with a warning.

    Called in `__post_init__`; the default of `old` is None.
    """
    value = getattr(made, old)
    if value is None:
        return
    owner = type(made).__name__
    warn_deprecated(f"{owner}.{old}", f"{owner}.{new}", since, stacklevel=2)
    msgspec.structs.force_setattr(made, new, value)


def renamed_parameter(old: str, new: str, since: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take the argument `new` by its former name too, with a warning."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = kwargs
            if old in given:
                name = function.__qualname__
                warn_deprecated(f"{name}({old}=)", f"{name}({new}=)", since)
                given.setdefault(new, given.pop(old))
            return function(*args, **kwargs)

        # What is kept for plugins written before is part of the contract, as `RENAMED` is.
        former: dict[str, str] = getattr(function, "former_names", {})
        setattr(call, "former_names", {**former, old: new})  # noqa: B010 a function has no such
        return call

    return decorate
