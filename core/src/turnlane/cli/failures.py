"""Failures as the operator reads them: one line on standard error, and an exit code.

    stage=turn_allocate code=turn_unauthorized: what happened; what to do

Before it stands a line for each finding, where a failure has several.

0 is success, 1 a failure at run time, 2 bad input, 3 something that is not available; what a signal
ended before it was ready gives 128 and the signal's number.
"""

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import typer

from turnlane.api import InternalError, PolicyError, Stage, TurnlaneError
from turnlane.runtime.failures import innermost
from turnlane.telemetry import REDACTOR

MAX_ECHO = 20
"""Characters of the longest value that an error repeats: shorter than any token or link."""

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OPTION = re.compile(r"--?[a-z][a-z-]{0,30}")


class Interruption(TurnlaneError):  # noqa: N818 - it is no error
    """A signal ended a command before it was ready."""

    def __init__(self, stage: Stage, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(stage, "interrupted", f"{name} came before it was ready")
        self.number = number


def report(error: BaseException, arguments: Sequence[str] = ()) -> int:
    """Write `error` as one line (at log level debug with its traceback); return the exit code.

    `arguments` are what was typed: what in them may be a secret is not repeated.
    """
    told = _told(error, arguments)
    origin = error.__cause__ if isinstance(error, InternalError) else error
    debugging = logging.getLogger("turnlane").isEnabledFor(logging.DEBUG)
    if debugging and origin is not None and isinstance(told, InternalError):
        lines = "".join(traceback.format_exception(origin)).splitlines()
        _write("\n".join(f"  | {printable(line)}" for line in lines))
    for detail in told.details:
        _write(f"  {printable(detail)}")
    _write(_line(told))
    return 128 + told.number if isinstance(told, Interruption) else told.exit_code


def printable(text: str) -> str:
    """Return `text` without line breaks, terminal controls or the secrets that are known."""
    text = REDACTOR.redact(text)
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


@contextmanager
def staged(stage: Callable[[], Stage]) -> Iterator[None]:
    """Raise failures as `TurnlaneError`, without the groups that tasks wrap them in.

    What is not ours is told as an `InternalError` at the stage that `stage` gives.
    """
    try:
        yield
    except Exception as error:
        failure = innermost(error)
        if isinstance(failure, TurnlaneError):
            raise failure from failure.__cause__
        raise InternalError(stage(), failure) from failure


def _told(error: BaseException, arguments: Sequence[str]) -> TurnlaneError:
    if isinstance(error, typer.TyperException):
        return _usage(error, arguments)
    failure = innermost(error)
    if isinstance(failure, TurnlaneError):
        return failure
    return InternalError(Stage.POLICY_VALIDATE, failure)


def _line(told: TurnlaneError) -> str:
    head, text = f"stage={told.stage} code={told.code}: ", str(told)
    # Stage and code are names for scripts: a password that is an ordinary word leaves them alone.
    if _CODE.fullmatch(told.code) and text.startswith(head):
        return head + printable(text.removeprefix(head))
    return printable(text)


def _usage(error: typer.TyperException, arguments: Sequence[str]) -> PolicyError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "turnlane"
    # "Value error, " is what the validator behind typer puts before our own words.
    message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    typed = [*arguments, *_configured(context)]
    for value in sorted(_worth_hiding(typed), key=len, reverse=True):
        message = message.replace(value, "…")
    return PolicyError("invalid_usage", f"{message}{_origin(error)}", f"see `{path} --help`")


def _configured(context: object) -> Iterator[str]:
    for name, value in os.environ.items():
        if name.startswith("TURNLANE_"):
            yield value
    for value in (getattr(context, "default_map", None) or {}).values():
        if isinstance(value, str):
            yield value


def _worth_hiding(typed: Iterable[str]) -> Iterator[str]:
    for word in typed:
        if _OPTION.fullmatch(word):
            continue
        name, equals, value = word.partition("=")
        hidden = value if equals and _OPTION.fullmatch(name) else word
        if len(hidden) > MAX_ECHO or "://" in hidden or "@" in hidden:
            # What is shown is at times escaped, so that both spellings are looked for.
            yield from {hidden, repr(hidden)[1:-1]}


def _origin(error: typer.TyperException) -> str:
    """Return where a wrong value came from when it was not typed, so that it can be found."""
    context, option = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or option is None:
        return ""
    source = context.get_parameter_source(option.name)
    if source is not None and source.name == "ENVIRONMENT":
        return f" (from {option.envvar or f'{context.auto_envvar_prefix}_{option.name.upper()}'})"
    if source is not None and source.name == "DEFAULT_MAP":
        return f" (from {context.params.get('config') or 'the configuration file'})"
    return ""


def _write(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        return
