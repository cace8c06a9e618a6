"""Findings: what each check of a conformance kit found of a case."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

C = TypeVar("C")


class CheckFailedError(AssertionError):
    """The provider does not do what the check asks for; the text says what."""


class NotJudgedError(Exception):
    """A check does not apply to the provider, or cannot be judged before another one passes."""


def fail(message: str) -> NoReturn:
    """Raise `CheckFailedError`."""
    raise CheckFailedError(message)


def require(condition: object, message: str) -> None:
    """Raise `CheckFailedError` with `message` unless `condition` holds."""
    if not condition:
        fail(message)


@dataclass(frozen=True)
class Finding:
    """What one check found.

    `message` says what is wrong, or why the check was not judged: it does not apply, or another
    one that did not pass must pass before. A check that was not judged counts as passed.
    """

    check: str
    passed: bool
    message: str = ""
    judged: bool = True


async def findings(checks: Iterable[Callable[[C], Awaitable[None]]], case: C) -> list[Finding]:
    """Run checks on the backend that is running; return a finding of each, in order."""
    return [await _find(check, case) for check in checks]


async def _find(check: Callable[[C], Awaitable[None]], case: C) -> Finding:
    name: str = getattr(check, "__name__")  # noqa: B009 the type of a function has none
    try:
        await check(case)
    except CheckFailedError as error:
        return Finding(name, False, str(error))
    except NotJudgedError as error:
        return Finding(name, True, str(error), judged=False)
    except Exception as error:
        # Neither the kit's nor an expected fault of a plugin; its text may hold anything.
        return Finding(name, False, f"the check ended with an unexpected {type(error).__name__}")
    return Finding(name, True)


def takes(function: Callable[..., Any], count: int) -> bool:
    """Say whether `function` can be called with `count` arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True
