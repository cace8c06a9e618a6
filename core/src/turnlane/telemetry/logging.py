"""Structured logs over the standard library's: one event a line, stable fields, no secrets.

Everything logs to children of the logger `turnlane` through `log_event`. Nothing logs per packet.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import TextIO

import msgspec

from turnlane.api.secrets import Secret
from turnlane.telemetry.redaction import REDACTED, REDACTOR, Redactor, enc_hook

LOGGER = logging.getLogger("turnlane")

STABLE_FIELDS = (
    "runtime",
    "session_id",
    "provider",
    "turn_mode",
    "peer_mode",
    "stage",
    "code",
    "result",
    "lane",
    "ready_lanes",
    "restart",
    "backoff",
)
"""Fields that keep their names and stand in this order, before all others of an event."""

MAX_VALUE = 2000
"""Characters of one value; what is longer is cut and marked with an ellipsis."""

_FIELDS = "turnlane_fields"


class LogFormat(StrEnum):
    """How a line looks."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def log_event(
    logger: logging.Logger,
    level: int,
    event: str,
    /,
    *,
    exc_info: BaseException | None = None,
    **fields: object,
) -> None:
    """Log `event` (snake_case, in the past tense) with `fields`; None means "has no such field".

    `exc_info` adds the traceback of an exception: for what is not expected, at level debug.
    `functools.partial(log_event, logger, session_id=...)` is a log that knows its session.
    """
    if logger.isEnabledFor(level):
        logger.log(level, event, exc_info=exc_info, extra={_FIELDS: fields}, stacklevel=2)


def configure(
    log_format: LogFormat | str = LogFormat.CONSOLE,
    level: LogLevel | str = LogLevel.INFO,
    stream: TextIO | None = None,
    *,
    redactor: Redactor = REDACTOR,
) -> None:
    """Write the `turnlane` loggers' events to `stream` (standard error unless given).

    Replaces what an earlier call configured and touches no other logger. Raises `ValueError` for
    an unknown format or level.
    """
    formatter = _FORMATTERS[LogFormat(log_format)](redactor)
    number = logging.getLevelNamesMapping()[LogLevel(level).upper()]
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(formatter)
    for old in [known for known in LOGGER.handlers if isinstance(known, _Handler)]:
        LOGGER.removeHandler(old)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(number)


class EventFormatter(logging.Formatter):
    """What both formats share: the fields of a record, cleaned of secrets, in a stable order."""

    def __init__(self, redactor: Redactor = REDACTOR) -> None:
        super().__init__()
        self._redactor = redactor

    def event(self, record: logging.LogRecord) -> str:
        """Return the name of the event; a record that did not come from `log_event` is a `log`."""
        return record.getMessage() if hasattr(record, _FIELDS) else "log"

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Return the fields as plain JSON values, without those that are None."""
        given: Mapping[str, object] | None = getattr(record, _FIELDS, None)
        if given is None:
            given = {"message": record.getMessage()}
        ordered = [name for name in STABLE_FIELDS if name in given]
        ordered += [name for name in given if name not in STABLE_FIELDS]
        return {name: self._plain(given[name]) for name in ordered if given[name] is not None}

    def exception(self, record: logging.LogRecord) -> str:
        """Return the traceback of a record that has one, cleaned of secrets, else an empty text."""
        if not record.exc_info:
            return ""
        return self._redactor.redact(self.formatException(record.exc_info))

    def _plain(self, value: object) -> object:
        match value:
            case None | bool():
                return value
            case Secret():
                return REDACTED
            case Enum():
                # The names that this program chose: no secret, though one may be the same word.
                return value.value
            case int() | float():
                text = str(value)
                shown = self._redactor.redact(text)
                return value if shown == text and math.isfinite(value) else shown
            case str():
                return self._shortened(value)
            case msgspec.Struct() | Mapping() | list() | tuple() | set() | frozenset():
                return self._nested(value)
            case _:
                return self._shortened(_text(value))

    def _nested(self, value: object) -> object:
        try:
            builtins = msgspec.to_builtins(value, str_keys=True, enc_hook=_show)
            # A structure is bounded as a whole: it becomes a text once it is longer than one.
            text = json.dumps(builtins)
        except (TypeError, ValueError, RecursionError):
            return self._shortened(_text(value))
        return self._cleaned(builtins) if len(text) <= MAX_VALUE else self._shortened(text)

    def _cleaned(self, value: object) -> object:
        if isinstance(value, dict):
            return {self._redactor.redact(key): self._cleaned(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._cleaned(item) for item in value]
        return self._plain(value)

    def _shortened(self, text: str) -> str:
        shown = self._redactor.redact(text)
        return shown if len(shown) <= MAX_VALUE else shown[: MAX_VALUE - 1] + "…"


class ConsoleFormatter(EventFormatter):
    """`HH:MM:SS level event key=value …` in local time, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback's lines indented below it."""
        moment = time.strftime("%H:%M:%S", self.converter(record.created))
        words = [moment, f"{record.levelname.lower():<7}", _escaped(self.event(record))]
        words += [
            f"{_escaped(name)}={_quoted(value)}" for name, value in self.fields(record).items()
        ]
        trace = [f"  | {_escaped(line)}" for line in self.exception(record).splitlines()]
        return "\n".join([" ".join(words), *trace])


class JsonFormatter(EventFormatter):
    """One JSON object a line, in ASCII; `ts` is RFC 3339 in UTC, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fixed: dict[str, object] = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": self.event(record),
        }
        entry = {**fixed, **self.fields(record), **fixed}
        if trace := self.exception(record):
            entry["exception"] = trace
        # json escapes every control character but DEL.
        return json.dumps(entry, separators=(",", ":")).replace("\x7f", "\\u007f")


_FORMATTERS: dict[LogFormat, type[EventFormatter]] = {
    LogFormat.CONSOLE: ConsoleFormatter,
    LogFormat.JSON: JsonFormatter,
}


class _Handler(logging.StreamHandler[TextIO]):
    """Marks the handler that `configure` made, so that the next call finds it."""


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a value that cannot show itself must not end the program
        return f"<{type(value).__name__}>"


def _show(value: object) -> object:
    try:
        return enc_hook(value)
    except NotImplementedError:
        return _text(value)


def _quoted(value: object) -> str:
    if value is True or value is False:
        return str(value).lower()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    plain = text and text.isprintable() and not any(character in " \"'=\\" for character in text)
    if plain or not isinstance(value, str):
        return _escaped(text)
    return '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escaped(text: str) -> str:
    """Escape what is not printable: line breaks, terminal controls, bidirectional overrides."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
