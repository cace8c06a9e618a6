"""Failures as one line: groups taken apart, secrets and controls taken out, names kept."""

import pytest

from turnlane.api import InternalError, Secret, SessionError, Stage, TransportError
from turnlane.cli.failures import Interruption, report, staged
from turnlane.telemetry import REDACTOR

FAILURE = TransportError(Stage.TURN_DIAL, "turn_unreachable", "no way", "look")


def test_a_failure_is_its_line_and_its_exit_code(capsys) -> None:
    assert report(FAILURE) == 1
    assert capsys.readouterr().err == "stage=turn_dial code=turn_unreachable: no way; look\n"


def test_a_failure_of_ours_is_found_inside_groups_beside_others(capsys) -> None:
    inner = ExceptionGroup("tasks", [ValueError("x"), FAILURE])
    assert report(ExceptionGroup("host", [RuntimeError("y"), inner])) == 1
    assert capsys.readouterr().err.startswith("stage=turn_dial ")


def test_staged_takes_a_failure_out_of_its_groups_and_keeps_its_cause() -> None:
    failure = SessionError(Stage.SESSION_HELLO, "x", "y")
    failure.__cause__ = cause = ValueError("z")
    with pytest.raises(SessionError) as raised, staged(lambda: Stage.ACCEPT):
        raise ExceptionGroup("tasks", [failure])
    assert raised.value is failure
    assert raised.value.__cause__ is cause


def test_staged_gives_what_is_not_ours_a_stage() -> None:
    with pytest.raises(InternalError, match="stage=accept code=internal_error"):  # noqa: SIM117
        with staged(lambda: Stage.ACCEPT):
            raise ExceptionGroup("tasks", [ZeroDivisionError()])


def test_an_interruption_has_the_exit_code_of_its_signal(capsys) -> None:
    assert report(Interruption(Stage.TURN_DIAL, 15)) == 143
    assert capsys.readouterr().err == (
        "stage=turn_dial code=interrupted: SIGTERM came before it was ready\n"
    )


def test_a_failure_is_one_line_whatever_its_text_holds(capsys) -> None:
    report(TransportError(Stage.TURN_DIAL, "odd", "two\nlines\x1b[31m\r"))
    assert capsys.readouterr().err == "stage=turn_dial code=odd: two\\nlines\\x1b[31m\\r\n"


def test_a_password_that_is_a_word_is_hidden_in_the_text_but_not_in_stage_and_code(capsys) -> None:
    password = Secret("turn")
    REDACTOR.add(password)
    try:
        report(TransportError(Stage.TURN_DIAL, "turn_refused", "said turn"))
        report(TransportError(Stage.TURN_DIAL, "Not A Code: turn", "x"))
    finally:
        REDACTOR.remove(password)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "stage=turn_dial code=turn_refused: said ***"
    assert "turn" not in second


def test_a_standard_error_that_is_gone_changes_no_exit_code(monkeypatch) -> None:
    class Gone:
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    assert report(FAILURE) == 1
