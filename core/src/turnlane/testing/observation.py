"""Observation: everything that a program shows while a block runs, for the search for secrets."""

import io
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import msgspec

from turnlane.api import Artifact, TurnlaneError


class Shown:
    """What was shown, by the place where it was."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def add(self, place: str, *texts: str) -> None:
        """Note texts."""
        self.texts += [(place, text) for text in texts]

    def add_artifact(self, place: str, artifact: Artifact) -> None:
        """Note an artifact, as JSON where it can be."""
        try:
            text = msgspec.json.encode(artifact).decode()
        except (TypeError, ValueError, NotImplementedError, RecursionError):
            text = ""  # what cannot be encoded is not shown; the print below is
        self.add(place, text, repr(artifact))

    def add_error(self, place: str, error: TurnlaneError) -> None:
        """Note an error: its text, its traceback with causes, and its artifact."""
        self.add(place, str(error), repr(error), "".join(traceback.format_exception(error)))
        artifact = getattr(error, "artifact", None)
        if artifact is not None:
            self.add_artifact(f"the artifact of {place}", artifact)


class _Records(logging.Handler):
    """Notes records as they are, before any formatter cleans them."""

    def __init__(self, shown: Shown) -> None:
        super().__init__(logging.DEBUG)
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        told = [record.getMessage(), repr(vars(record))]
        if record.exc_info:
            told.append("".join(traceback.format_exception(*record.exc_info)))
        self._shown.add(f"a log record of {record.name}", *told)


@contextmanager
def observed() -> Iterator[Shown]:
    """Note log records of all loggers at level debug, standard output and standard error."""
    shown = Shown()
    handler = _Records(shown)
    output, errors = io.StringIO(), io.StringIO()
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    # Beside loggers, the table has placeholders for the names between them.
    loggers = [each for each in known if isinstance(each, logging.Logger)]
    before = [(each, each.level, each.disabled) for each in loggers]
    disabled_below = logging.root.manager.disable
    own = [each for each in loggers if each is logging.root or not each.propagate]
    try:
        logging.disable(logging.NOTSET)
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
            logger.disabled = False
        for logger in own:
            logger.addHandler(handler)
        with redirect_stdout(output), redirect_stderr(errors):
            yield shown
    finally:
        for logger in own:
            logger.removeHandler(handler)
        for logger, level, disabled in before:
            logger.setLevel(level)
            logger.disabled = disabled
        logging.disable(disabled_below)
        shown.add("standard output", output.getvalue())
        shown.add("standard error", errors.getvalue())
