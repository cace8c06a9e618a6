"""Values of options: durations, secrets, and which of two that exclude each other counts."""

from contextlib import suppress
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import Secret
from turnlane.cli import options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("1.5h", 5400.0), (" 2s ", 2)],
)
def test_a_duration_is_a_number_with_a_unit(text, seconds) -> None:
    assert options.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1d", "1 s", "1e3s", "١s", "1s2", "inf s"])
def test_anything_else_is_no_duration(text) -> None:
    with pytest.raises(typer.BadParameter, match="such as 30s"):
        options.parse_duration(text)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h"]))
def test_a_duration_is_the_number_times_its_unit(number, unit) -> None:
    factor = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]
    assert options.parse_duration(f"{number}{unit}") == pytest.approx(number * factor)


@given(st.text(max_size=8))
def test_no_text_makes_the_duration_parser_raise_anything_but_its_own_error(text) -> None:
    with suppress(typer.BadParameter):
        assert options.parse_duration(text) >= 0


def test_a_secret_is_stripped_and_never_refused() -> None:
    assert options.parse_secret("  a b\n") == Secret("a b")


def test_the_identity_is_in_the_users_data_folder_unless_told_otherwise(tmp_path) -> None:
    assert options.identity_folder(None) == tmp_path / "data" / "turnlane" / "server"
    assert options.identity_folder(Path("~/keys")) == tmp_path / "home" / "keys"


def client(run, *arguments):
    return run("client", "--provider", "planted", *arguments)


def test_two_options_that_exclude_each_other_are_refused(run) -> None:
    finished = client(run, "--link", "a", "--link-file", "b")
    assert finished.code == 2
    assert finished.err == (
        "stage=policy_validate code=conflicting_options: "
        "--link and --link-file exclude each other; give one of them\n"
    )


def test_two_such_variables_are_refused_as_well(run, monkeypatch) -> None:
    monkeypatch.setenv("TURNLANE_CLIENT_LINK", "a")
    monkeypatch.setenv("TURNLANE_CLIENT_LINK_FILE", "b")
    assert "code=conflicting_options" in client(run).err


def test_an_option_sets_its_rival_in_the_environment_aside(run, monkeypatch) -> None:
    monkeypatch.setenv("TURNLANE_CLIENT_LINK_FILE", "/missing")
    assert "code=missing_peer" in client(run, "--link", "a").err
    assert "code=unreadable_secret_file" in client(run).err


@pytest.mark.parametrize("name", ["link", "peer"])
def test_a_missing_secret_names_the_three_ways_to_give_it(run, name) -> None:
    given = () if name == "link" else ("--link", "a")
    assert client(run, *given).err == (
        f"stage=policy_validate code=missing_{name}: there is no {name}; "
        f"give --{name}, --{name}-file or TURNLANE_CLIENT_{name.upper()}\n"
    )


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_secret_counts_as_missing(run, text) -> None:
    assert "code=missing_link" in client(run, "--link", text).err


def test_a_secret_file_is_read_and_must_hold_one_line(run, tmp_path) -> None:
    file = tmp_path / "link"
    file.write_text("one\ntwo\n")
    assert "code=invalid_secret_file" in client(run, "--link-file", file).err
    file.write_text("one\n")
    assert "code=missing_peer" in client(run, "--link-file", file).err
