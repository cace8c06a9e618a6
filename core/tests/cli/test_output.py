"""Standard output: lines, JSON, tables."""

import json

import pytest

from turnlane.cli import output
from turnlane.cli.failures import printable
from turnlane.telemetry import REDACTOR


def test_a_table_in_a_pipe_keeps_each_row_on_one_line(capsys) -> None:
    output.write_table(("A", "B"), [("x" * 300, "y"), ("z", "w")], empty="none")
    assert [line.split() for line in capsys.readouterr().out.splitlines()[2:]] == [
        ["x" * 300, "y"],
        ["z", "w"],
    ]


def test_a_table_without_rows_says_so(capsys) -> None:
    output.write_table(("A",), [], empty="Nothing.")
    assert capsys.readouterr().out == "Nothing.\n"


def test_a_ready_line_is_one_line_for_people_and_for_programs(capsys) -> None:
    output.write_ready({"a": 1, "b": "c"}, as_json=False)
    output.write_ready({"a": 1, "b": "c"}, as_json=True)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "ready a=1 b=c"
    assert json.loads(second) == {"event": "ready", "a": 1, "b": "c"}


def test_fields_that_say_nothing_are_left_out(capsys) -> None:
    output.write_fields({"id": "x", "long_name": ["a", "b"], "none": None, "empty": "", "on": True})
    assert capsys.readouterr().out == ("id         x\nlong name  a\n           b\non         yes\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202edcba", "\\u202edcba"), ("é…", "é…")],
)
def test_controls_are_escaped(text, shown) -> None:
    assert printable(text) == shown


def test_known_secrets_are_not_printable() -> None:
    from turnlane.api import Secret

    secret = Secret("a-secret-of-this-test")
    REDACTOR.add(secret)
    try:
        assert printable("see a-secret-of-this-test!") == "see ***!"
    finally:
        REDACTOR.remove(secret)
