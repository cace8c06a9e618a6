"""Log lines: their fields, their two formats, and that nothing is injected or leaks."""

import io
import json
import logging
import math
import re
import time
from collections.abc import Iterator
from enum import IntEnum
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import ProviderCapabilities, RelayTransport, Secret, Stage
from turnlane.telemetry import log_event
from turnlane.telemetry.logging import (
    LOGGER,
    MAX_VALUE,
    ConsoleFormatter,
    EventFormatter,
    JsonFormatter,
    configure,
)
from turnlane.telemetry.redaction import Redactor, find_leaks


class Answer(IntEnum):
    YES = 42


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def record(event: str = "lane_ready", **fields: object) -> logging.LogRecord:
    entry = logging.LogRecord("turnlane.test", logging.INFO, __file__, 1, event, (), None)
    entry.turnlane_fields = fields
    entry.created = 1_700_000_000.25
    return entry


def console(entry: logging.LogRecord, redactor: Redactor | None = None) -> str:
    formatter = ConsoleFormatter(redactor or Redactor())
    formatter.converter = time.gmtime
    return formatter.format(entry)


def as_json(entry: logging.LogRecord, redactor: Redactor | None = None) -> dict[str, object]:
    line = JsonFormatter(redactor or Redactor()).format(entry)
    assert "\n" not in line
    decoded: dict[str, object] = json.loads(line)
    return decoded


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    handlers, level = LOGGER.handlers[:], LOGGER.level
    yield io.StringIO()
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)


def test_a_console_line_is_time_level_event_and_fields_in_their_stable_order() -> None:
    line = console(record(peer="10.0.0.1:5", lane=2, stage=Stage.TURN_DIAL, session_id="s1"))

    assert line == (
        "22:13:20 info    lane_ready session_id=s1 stage=turn_dial lane=2 peer=10.0.0.1:5"
    )


def test_a_json_line_has_time_in_utc_level_event_and_typed_fields() -> None:
    entry = as_json(record(ready_lanes=3, result=True, backoff=0.2, other=None))

    assert entry == {
        "ts": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "event": "lane_ready",
        "result": True,
        "ready_lanes": 3,
        "backoff": 0.2,
    }
    assert list(entry) == ["ts", "level", "event", "result", "ready_lanes", "backoff"]


def test_a_field_cannot_replace_the_time_or_the_level() -> None:
    fields = {"ts": "never", "level": "fatal"}

    entry = as_json(record(**fields))

    assert (entry["ts"], entry["level"]) == ("2023-11-14T22:13:20.250Z", "info")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("\x1b[31mred", '"\\x1b[31mred"'),
        ("right\u202eleft", '"right\\u202eleft"'),
        ("größe", "größe"),
        (True, "true"),
        (7, "7"),
        (0.5, "0.5"),
        (math.inf, "inf"),
        (Answer.YES, "42"),
        (RelayTransport.TLS, "tls"),
        (Secret("hunter22"), "***"),
        (("a", 1, None), '["a", 1, null]'),
        (ProviderCapabilities(browser=True), None),
        ({"token": Secret("hunter22")}, '{"token": "***"}'),
        (ValueError("bad thing"), '"bad thing"'),
        (Unshowable(), "<Unshowable>"),
        ([Unshowable()], '["<Unshowable>"]'),
    ],
)
def test_odd_values_are_quoted_and_escaped(value: object, shown: str | None) -> None:
    line = console(record(value=value))

    assert line.isprintable()
    if shown is not None:
        assert line == f"22:13:20 info    lane_ready value={shown}"
    else:
        assert '"browser": true' in line


@given(st.text(), st.text())
def test_no_value_forges_a_line_or_a_field(event: str, value: str) -> None:
    line = console(record(event, value=value))
    quoted = line.split("value=", 1)[1] if not event else line

    assert line.isprintable()
    assert event or re.fullmatch(r'[^\s="\']+|"(?:[^"\\]|\\.)*"', quoted)
    decoded = JsonFormatter(Redactor()).format(record(event, value=value))
    assert decoded.isascii()
    assert decoded.isprintable()
    assert json.loads(decoded)["value"] == value or len(value) > MAX_VALUE


def test_long_values_are_cut() -> None:
    entry = as_json(record(text="x" * 10_000, items=["y" * 3000, "z" * 3000]))

    assert entry["text"] == "x" * (MAX_VALUE - 1) + "…"
    assert isinstance(entry["items"], str)
    assert len(entry["items"]) == MAX_VALUE


@pytest.mark.parametrize("formatter", [ConsoleFormatter, JsonFormatter])
def test_a_planted_secret_appears_in_no_line(formatter: type[EventFormatter]) -> None:
    planted = 'to"ken/with odd+chars'
    redactor = Redactor()
    redactor.add(Secret(planted), Secret("12345678"))
    entry = record(
        text=f"link {planted}",
        nested={"deep": [planted, {planted: 1}], "port": 12345678},
        error=ValueError(planted),
        number=12345678,
        long=[planted] * 500,
        plain_secret=Secret(planted),
    )
    try:
        raise RuntimeError(f"failed with {planted}")
    except RuntimeError as error:
        entry.exc_info = (RuntimeError, error, error.__traceback__)

    line = formatter(redactor).format(entry)

    assert find_leaks(line, [planted, "12345678"]) == []
    assert "RuntimeError" in line
    if formatter is JsonFormatter:
        assert json.loads(line)["number"] == "***"


def test_a_traceback_is_indented_and_cannot_forge_a_line() -> None:
    entry = record()
    try:
        raise RuntimeError("first\n12:00:00 info forged\x1b[2J")
    except RuntimeError as error:
        entry.exc_info = (RuntimeError, error, error.__traceback__)

    first, *rest = console(entry).split("\n")

    assert first == "22:13:20 info    lane_ready"
    assert rest[0] == "  | Traceback (most recent call last):"
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)
    assert "Traceback" in str(as_json(entry)["exception"])


def test_a_message_of_another_kind_is_logged_as_such(stream: io.StringIO) -> None:
    configure("json", "warning", stream)

    logging.getLogger("turnlane.other").warning("lost %d of %d", 1, 2)

    entry = json.loads(stream.getvalue())
    assert (entry["event"], entry["message"]) == ("log", "lost 1 of 2")


def test_the_level_decides_what_is_written(stream: io.StringIO) -> None:
    configure("console", "warning", stream)
    log = partial(log_event, logging.getLogger("turnlane.client"), session_id="s1")

    log(logging.INFO, "lane_ready", lane=1)
    log(logging.ERROR, "lane_lost", lane=1)

    (line,) = stream.getvalue().splitlines()
    assert line.endswith("error   lane_lost session_id=s1 lane=1")


def test_structures_that_json_cannot_hold_are_shown_as_text() -> None:
    endless: list[object] = []
    endless.append(endless)

    entry = as_json(record(keys={("a", 1): 2}, secret_key={Secret("hunter22"): 1}, loop=endless))

    assert entry["keys"] == "{('a', 1): 2}"
    assert entry["secret_key"] == {"***": 1}
    assert entry["loop"] == "[[...]]"


def test_configuring_again_replaces_the_handler(stream: io.StringIO) -> None:
    first = io.StringIO()
    configure("console", "info", first)
    configure("console", "info", stream)

    log_event(LOGGER, logging.INFO, "started")

    assert first.getvalue() == ""
    assert stream.getvalue().count("started") == 1


def test_an_event_may_carry_a_traceback(stream: io.StringIO) -> None:
    configure("console", "debug", stream)

    log_event(LOGGER, logging.DEBUG, "plugin_failed", exc_info=ValueError("why"), name="acme")

    assert "debug   plugin_failed name=acme\n  | ValueError: why\n" in stream.getvalue()


def test_the_place_of_the_caller_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "turnlane"):
        log_event(LOGGER, logging.INFO, "started")

    assert caplog.records[0].funcName == "test_the_place_of_the_caller_is_kept"


@pytest.mark.parametrize(("log_format", "level"), [("xml", "info"), ("json", "loud")])
def test_an_unknown_format_or_level_changes_nothing(
    log_format: str, level: str, stream: io.StringIO
) -> None:
    configure("console", "info", stream)

    with pytest.raises(ValueError, match=r"xml|loud"):
        configure(log_format, level, io.StringIO())

    log_event(LOGGER, logging.INFO, "still_here")
    assert "still_here" in stream.getvalue()
