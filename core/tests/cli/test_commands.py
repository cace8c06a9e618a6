"""Commands of plugins: listed from metadata, imported when called, harmless when broken."""

import re
import sys

import pytest

from turnlane.cli.commands import BUILT_IN, plugin_commands

COMMAND = """
import typer

app = typer.Typer()

@app.command()
def planted(name: str = "nobody"):
    typer.echo(f"hello {name}")
"""
GROUP = """
import typer

app = typer.Typer()

@app.callback()
def group():
    "A group."

@app.command()
def run(bind_address: str = "nowhere"):
    typer.echo(bind_address)
"""


def test_the_help_lists_a_plugins_command_without_importing_its_module(run, site) -> None:
    site.plant("turnlane-acme", "[turnlane.commands.v1]\nacme = acme_cli:app\n", acme_cli=COMMAND)
    finished = run("--help")
    assert re.search(r"^  acme +A command of turnlane-acme\.$", finished.out, re.MULTILINE)
    assert "acme_cli" not in sys.modules


def test_a_plugins_command_runs_with_its_arguments(run, site) -> None:
    site.plant("turnlane-acme", "[turnlane.commands.v1]\nacme = acme_cli:app\n", acme_cli=COMMAND)
    assert run("acme", "--name", "Ada").out == "hello Ada\n"
    assert "--install-completion" not in run("acme", "--help").out


def test_a_plugins_group_takes_options_from_the_environment(run, site, monkeypatch) -> None:
    site.plant("turnlane-acme", "[turnlane.commands.v1]\nacme = acme_cli:app\n", acme_cli=GROUP)
    monkeypatch.setenv("TURNLANE_ACME_RUN_BIND_ADDRESS", "192.0.2.1")
    assert run("acme", "run").out == "192.0.2.1\n"
    assert run("acme", "run", "--bind-address", "192.0.2.2").out == "192.0.2.2\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('no')", r"could not be imported \(ValueError\)"),
        ("import sys\nsys.exit(0)", r"could not be imported \(SystemExit\)"),
        ("import missing_module_of_acme", r"could not be imported \(ModuleNotFoundError\)"),
        ("app = 5", "is a int, not a typer application"),
        ("", r"could not be imported \(AttributeError\)"),
    ],
)
def test_a_broken_command_is_not_available_and_names_its_distribution(
    run, site, source, said
) -> None:
    site.plant("turnlane-acme", "[turnlane.commands.v1]\nacme = acme_cli:app\n", acme_cli=source)
    finished = run("acme")
    assert finished.code == 3
    assert re.fullmatch(
        rf"stage=policy_validate code=command_failed: the command acme {said}; "
        r"update or remove the distribution turnlane-acme\n",
        finished.err,
    )
    assert run("--help").code == 0


def test_a_plugin_never_takes_a_name_of_ours(run, site) -> None:
    declared = "[turnlane.commands.v1]\n" + "".join(f"{name} = acme_cli:app\n" for name in BUILT_IN)
    site.plant("turnlane-acme", declared, acme_cli=COMMAND)
    assert "acme" not in run("--help").out
    assert run("pairs", "--help").out.startswith("Usage: turnlane pairs")
    assert "acme_cli" not in sys.modules


def test_of_two_plugins_that_want_one_name_the_first_by_distribution_has_it(site) -> None:
    site.plant("turnlane-b", "[turnlane.commands.v1]\nacme = b_cli:app\n")
    site.plant("turnlane-a", "[turnlane.commands.v1]\nacme = a_cli:app\n")
    entry_point, distribution = plugin_commands()["acme"]
    assert (entry_point.value, distribution) == ("a_cli:app", "turnlane-a")


@pytest.mark.parametrize("blocked", ["acme", "turnlane-acme", "other, Turnlane_Acme"])
def test_a_blocked_plugin_has_no_command(run, site, monkeypatch, blocked) -> None:
    site.plant("turnlane-acme", "[turnlane.commands.v1]\nacme = acme_cli:app\n", acme_cli=COMMAND)
    assert "acme" in run("--help").out
    monkeypatch.setenv("TURNLANE_DISABLE_PLUGINS", blocked)
    assert "acme" not in run("--help").out
    assert run("acme").code == 2


@pytest.mark.parametrize(
    ("chosen", "there"), [("", False), ("lab", False), ("Turnlane_Acme", True)]
)
def test_only_the_chosen_plugins_have_commands(run, site, monkeypatch, chosen, there) -> None:
    site.plant("turnlane-acme", "[turnlane.commands.v1]\nacme = acme_cli:app\n", acme_cli=COMMAND)
    monkeypatch.setenv("TURNLANE_PLUGINS", chosen)
    assert ("acme" in run("--help").out) is there
    assert run("acme").code == (0 if there else 2)


def test_broken_metadata_of_one_distribution_does_not_hide_the_others(run, site) -> None:
    site.plant("turnlane-broken", "[turnlane.commands.v1\nnonsense = = \n")
    broken = site.folder / "turnlane_worse-1.0.dist-info"
    broken.mkdir()
    (broken / "entry_points.txt").write_bytes(b"turnlane.commands.v1 \xff\xfe")
    site.plant("turnlane-acme", "[turnlane.commands.v1]\nacme = acme_cli:app\n", acme_cli=COMMAND)
    assert run("acme").out == "hello nobody\n"


def test_the_shell_is_offered_commands_and_options_without_imports(run, site, monkeypatch) -> None:
    site.plant("turnlane-acme", "[turnlane.commands.v1]\nacme = acme_cli:app\n", acme_cli=COMMAND)
    monkeypatch.setenv("_TURNLANE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "turnlane ")
    monkeypatch.setenv("COMP_CWORD", "1")
    offered = run().out.split()
    assert set(offered) >= {*BUILT_IN, "acme"}
    assert "acme_cli" not in sys.modules
    monkeypatch.setenv("COMP_WORDS", "turnlane client --mode ")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert run().out.split() == ["auto", "udp", "tcp", "tls"]


def test_completion_does_not_read_the_configuration_file(run, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TURNLANE_CONFIG", str(tmp_path / "missing.toml"))
    monkeypatch.setenv("_TURNLANE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "turnlane client --lo")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert run().out.split() == ["--log-format", "--log-level"]
