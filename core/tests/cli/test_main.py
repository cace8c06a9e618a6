"""The entry: help, version, and what a failure looks like."""

import re

import pytest

from turnlane.cli import commands
from turnlane.cli import main as entry

LINE = re.compile(r"stage=[a-z_]+ code=[a-z0-9_]+: [^\n;]+(; [^\n]+)?\n")


def test_the_help_lists_every_command_of_ours_with_its_summary(run) -> None:
    finished = run("--help")
    assert finished.code == 0
    assert finished.err == ""
    for name, summary in commands.BUILT_IN.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", finished.out, re.MULTILINE)
    assert "TURNLANE_CLIENT_LISTEN" in finished.out
    assert "--install-completion" in finished.out


def test_without_a_command_the_help_goes_to_standard_error_and_the_exit_code_is_2(run) -> None:
    finished = run()
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == run("--help").out


def test_the_version_is_that_of_the_distribution(run) -> None:
    from importlib.metadata import version

    assert run("--version").out == f"turnlane {version('turnlane')}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clientt"], "No such command 'clientt'. Did you mean 'client'"),
        (["--nope"], "No such option: --nope"),
        (["client", "--listn", "x"], "(Possible options: --link, --listen, --set)"),
        (["client", "--listen"], "Option '--listen' requires an argument"),
        (["client"], "Missing option '--provider'"),
        (["probe", "--provider", "x", "stray"], "Got unexpected extra argument(s) (stray)"),
        (["providers"], "Missing command"),
        (["client", "--provider", "x", "--mode", "quic"], "'quic' is not one of 'auto'"),
        (["client", "--provider", "x", "--connections", "4x"], "'--connections'"),
        (["server", "--idle-timeout", "30"], "a duration is a number with ms, s, m or h"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(run, arguments, said) -> None:
    finished = run(*arguments)
    assert (finished.code, finished.out) == (2, "")
    assert LINE.fullmatch(finished.err)
    assert "code=invalid_usage" in finished.err
    assert said in finished.err
    assert "--help`" in finished.err


@pytest.mark.parametrize("command", ["client", "server", "probe"])
def test_the_help_of_a_command_names_its_variables_and_exit_codes(run, command) -> None:
    finished = run(command, "--help")
    assert finished.code == 0
    assert f"TURNLANE_{command.upper()}_<OPTION>" in finished.out
    assert "Exit codes: 0" in finished.out


CLIENT_OPTIONS = """
--provider --link --link-file --peer --peer-file --pin --token --token-file --insecure-peer
--legacy --listen --ingress --connections --dtls --no-dtls --mode --bind-interface --turn --port
--ca-file --scheduler --interactive-provider --config --log-format --log-level --json
"""
SERVER_OPTIONS = """
--listen --egress --connect --identity --token-file --no-token --legacy-listen --advertise
--handshake-timeout --idle-timeout --max-sessions --show-link --config --log-format --log-level
--json
"""
PROBE_OPTIONS = """
--provider --link --link-file --output-dir --interactive-provider --json --config --log-format
--log-level
"""


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("client", CLIENT_OPTIONS),
        ("server", SERVER_OPTIONS),
        ("probe", PROBE_OPTIONS),
        ("server link", "--identity --json --config"),
        ("identity show", "--identity --json --config"),
        ("identity new", "--identity --force --json --config"),
        ("providers list", "--json"),
        ("providers show", "--json"),
        ("adapters list", "--json"),
        ("pairs", "--json"),
        ("plugins list", "--json"),
    ],
)
def test_every_option_stands_in_the_help(run, command, names) -> None:
    finished = run(*command.split(), "--help")
    assert finished.code == 0
    shown = set(re.findall(r"--[a-z][a-z-]*", finished.out))
    assert set(names.split()) <= shown


def test_an_unexpected_exception_is_one_line_with_its_type_and_not_its_text(
    run, monkeypatch
) -> None:
    def explode(**_: object) -> None:
        raise RuntimeError("with-a-secret-inside")

    monkeypatch.setattr("turnlane.cli.output.write_json", explode)
    monkeypatch.setattr("turnlane.cli.catalog._manager", explode)
    finished = run("providers", "list", "--json")
    assert (finished.code, finished.out) == (1, "")
    assert finished.err == (
        "stage=policy_validate code=internal_error: an unexpected RuntimeError; "
        "run it again with --log-level debug, and report what it says\n"
    )


def test_at_log_level_debug_an_unexpected_exception_has_its_traceback_without_secrets(
    run, planted, monkeypatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("resolving planted://u:hunter2hunter2@h")

    monkeypatch.setattr("turnlane.runtime.host.Host.probe", explode)
    arguments = ("probe", "--provider", "planted", "--link", "planted://u:hunter2hunter2@h")
    assert "Traceback" not in run(*arguments).err
    finished = run(*arguments, "--log-level", "debug")
    assert finished.code == 1
    assert "Traceback" in finished.err
    assert "RuntimeError: resolving ***" in finished.err
    assert "hunter2" not in finished.output
    assert "code=internal_error: an unexpected RuntimeError" in finished.err.splitlines()[-1]


def test_ctrl_c_before_anything_runs_exits_with_130(run, monkeypatch) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("turnlane.cli.catalog._manager", interrupt)
    assert run("pairs").code == 130


@pytest.mark.parametrize(("raised", "code"), [(None, 0), (7, 7), ("text", 1)])
def test_sys_exit_in_a_command_keeps_its_code(run, monkeypatch, raised, code) -> None:
    def leave(**_: object) -> None:
        raise SystemExit(raised)

    monkeypatch.setattr("turnlane.cli.catalog._manager", leave)
    assert run("pairs").code == code


def test_run_exits_with_the_code_of_the_command_line(monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["turnlane", "nope"])
    with pytest.raises(SystemExit) as left:
        entry.run()
    assert left.value.code == 2
