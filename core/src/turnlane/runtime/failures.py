"""Exceptions that went through task groups: what they come down to, and whose they are."""

from collections.abc import Iterator

from turnlane.api import InternalError, Stage, TurnlaneError


def innermost(error: BaseException) -> BaseException:
    """Return the failure inside an exception group, ours before any other; else `error` itself."""
    leaves = list(_leaves(error))
    ours = [leaf for leaf in leaves if isinstance(leaf, TurnlaneError)]
    return (ours or leaves or [error])[0]


def is_again(raised: BaseException, error: BaseException | None) -> bool:
    """Whether `raised` is `error` once more, by itself or in a group of its own.

    A context manager that was left with `error` returns False then, so that it reaches the caller
    as it was. Raised from there it could become its own context, which no event loop bears.
    """
    return raised is error or (
        isinstance(raised, BaseExceptionGroup) and raised.exceptions == (error,)
    )


def crashed(stage: Stage, error: BaseException) -> TurnlaneError:
    """Return what is told of an exception that nobody expected; its cause keeps the traceback."""
    failure = innermost(error)
    if isinstance(failure, TurnlaneError):
        return failure
    told = InternalError(stage, failure)
    told.__cause__ = failure
    return told


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
