"""What a task group's exceptions come down to: one failure, with the stage that it ended."""

from collections.abc import Iterator

from turnlane.api import InternalError, Stage, TurnlaneError


def innermost(error: BaseException) -> BaseException:
    """Return the failure inside an exception group, ours before any other; else `error` itself."""
    leaves = list(_leaves(error))
    ours = [leaf for leaf in leaves if isinstance(leaf, TurnlaneError)]
    return (ours or leaves or [error])[0]


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
