"""`--strict-plugins`: nothing starts beside a plugin that is not what it should be."""

import pytest

CLIENT = (
    "client",
    "--provider",
    "planted",
    "--link",
    "x",
    "--peer",
    "192.0.2.1:1",
    "--insecure-peer",
)
COMMANDS = {
    "client": CLIENT,
    "server": ("server", "--connect", "192.0.2.9:13", "--no-token"),
    "probe": ("probe", "--provider", "planted", "--link", "planted://fine"),
}


@pytest.fixture
def broken(planted):
    """Plant a plugin that fails and one that is incompatible beside the good one."""
    declared = "[turnlane.plugins.v1]\nraises = broken_raises\n"
    planted.plant("turnlane-raises", declared, broken_raises="raise ValueError('\x1b[1mno')")
    planted.plant("turnlane-newer", "[turnlane.plugins.v9]\nnewer = broken_newer\n")
    return planted


@pytest.mark.parametrize("command", COMMANDS)
def test_every_plugin_is_told_and_the_command_exits_with_3(run, broken, blocked, command) -> None:
    finished = run(*COMMANDS[command], "--strict-plugins")
    assert (finished.code, finished.out) == (3, "")
    *records, last = finished.err.splitlines()[-len(blocked) - 4 :]
    assert last == (
        "stage=policy_validate code=plugins_not_loaded: "
        f"2 of {len(blocked) + 3} plugins failed or are incompatible; "
        "mend or block them, or leave --strict-plugins out"
    )
    assert "  plugin planted (turnlane-planted 1.2) loaded" in records
    told = [line for line in records if line.startswith("  plugin raises (turnlane-raises 1.2) ")]
    assert told == [told[0]]
    assert told[0].endswith("failed: importing it failed: ValueError: ?[1mno")
    assert any(line.startswith("  plugin newer (turnlane-newer 1.2) incomp") for line in records)
    assert len([line for line in records if " blocked: " in line]) == len(blocked)


def test_without_it_the_others_work(run, broken) -> None:
    assert run(*COMMANDS["probe"]).code == 0


def test_it_passes_where_the_others_are_blocked(run, broken, monkeypatch) -> None:
    monkeypatch.setenv("TURNLANE_PLUGINS", "planted")
    monkeypatch.setenv("TURNLANE_DISABLE_PLUGINS", "")
    assert run(*COMMANDS["probe"], "--strict-plugins").code == 0


def test_a_chosen_plugin_that_is_not_there_is_a_failure(run, planted, monkeypatch) -> None:
    monkeypatch.setenv("TURNLANE_PLUGINS", "planted,nope")
    monkeypatch.setenv("TURNLANE_PROBE_STRICT_PLUGINS", "true")
    finished = run(*COMMANDS["probe"])
    assert finished.code == 3
    assert "  plugin nope failed: TURNLANE_PLUGINS names it, but no plugin has that name\n" in (
        finished.err
    )
    monkeypatch.setenv("TURNLANE_PROBE_STRICT_PLUGINS", "false")
    assert run(*COMMANDS["probe"]).code == 0
