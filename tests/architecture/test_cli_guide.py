"""docs/cli.md says what the command line does, no more and no less."""

import re
import tomllib
from pathlib import Path

import pytest

from turnlane.cli import config
from turnlane.cli.commands import BUILT_IN
from turnlane.cli.events import EVENTS

GUIDE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SHARED = {"json", "config", "log_format", "log_level"}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def options(command: str) -> set[str]:
    module, attribute = config.COMMANDS[command].split(":")
    function = getattr(__import__(module, fromlist=[attribute]), attribute)
    return set(config.option_types(function)) - SHARED


@pytest.mark.parametrize("command", ["client", "server", "probe"])
def test_a_commands_section_names_its_options_and_no_others(command: str) -> None:
    named = re.findall(r"--([a-z][a-z-]*)", section(f"`turnlane {command}`"))
    names = {name.replace("-", "_") for name in named} - SHARED
    # An option that is said again and again is a table in the file, and called after that.
    renamed = {f"{end}set": f"{end}settings" for end in ("", "ingress_", "egress_")}
    assert {renamed.get(name, name) for name in names} - {"no_dtls"} == options(command)


def test_every_command_is_named() -> None:
    assert {name for name in BUILT_IN if f"turnlane {name}" in GUIDE} == set(BUILT_IN)


def test_the_configuration_file_shown_is_one_that_is_taken(tmp_path: Path) -> None:
    shown = re.search(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert shown
    path = tmp_path / "turnlane.toml"
    path.write_text(shown[1])
    assert set(config.read(path)) == set(tomllib.loads(shown[1]))


def test_every_event_in_the_log_is_explained() -> None:
    rows = re.findall(r"^\| (`.*?) \|", section("Logs"), re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    named = {name for _, name in EVENTS.values()}
    assert explained == named | {"peer_link_incomplete", "stop_requested", "stop_forced"}
