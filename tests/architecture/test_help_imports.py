"""`turnlane --help` is quick because it imports next to nothing; what counts is measured there."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPORT = """
import atexit, os, sys
atexit.register(lambda: os.write(2, " ".join(sys.modules).encode()))
sys.argv[0] = "turnlane"
from turnlane.cli.main import run
run()
"""

HEAVY = (
    "OpenSSL", "cryptography", "opentelemetry", "aioice", "anyio", "asyncio", "trio", "ssl",
    "msgspec", "pluggy", "pydantic", "rich", "turnlane.api", "turnlane.net", "turnlane.proto",
    "turnlane.relay", "turnlane.runtime", "turnlane.plugins", "turnlane.telemetry",
    "turnlane.cli.client", "turnlane.cli.catalog", "planted_plugin", "planted_command",
    "turnlane_adapters", "turnlane_generic_turn", "turnlane_lab",
)  # fmt: skip
PLUGIN_MODULES = ("planted_plugin", "planted_command", "turnlane_adapters", "turnlane_lab")


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    """Return a function that runs a command line beside a planted plugin and tells its modules."""
    metadata = tmp_path / "turnlane_planted-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: turnlane-planted\n")
    (metadata / "entry_points.txt").write_text(
        "[turnlane.plugins.v1]\nplanted = planted_plugin\n"
        "[turnlane.commands.v1]\nplanted = planted_command:app\n"
    )
    (tmp_path / "planted_plugin.py").write_text("")
    (tmp_path / "planted_command.py").write_text("import typer\napp = typer.Typer()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    def run(*arguments: str) -> set[str]:
        finished = subprocess.run(
            [sys.executable, "-c", REPORT, *arguments], capture_output=True, text=True, check=False
        )
        if arguments == ("--help",):
            assert "planted" in finished.stdout
        return set(finished.stderr.split())

    return run


def within(modules: set[str], packages: tuple[str, ...]) -> set[str]:
    """Return which of `modules` belong to one of `packages`."""
    return {
        module
        for module in modules
        if any(module == package or module.startswith(f"{package}.") for package in packages)
    }


def test_the_help_imports_neither_the_runtime_nor_any_plugin(
    imported: Callable[..., set[str]],
) -> None:
    modules = imported("--help")
    assert "turnlane.cli.main" in modules
    assert within(modules, HEAVY) == set()


@pytest.mark.parametrize("command", ["client", "server", "probe"])
def test_the_help_of_a_command_imports_neither_openssl_nor_telemetry_nor_a_plugin(
    imported: Callable[..., set[str]], command: str
) -> None:
    modules = imported(command, "--help")
    assert f"turnlane.cli.{command}" in modules
    unwanted = (*PLUGIN_MODULES, "OpenSSL", "cryptography", "opentelemetry", "aioice")
    assert within(modules, unwanted) == set()


def test_a_list_of_plugins_imports_neither_openssl_nor_a_plugin(
    imported: Callable[..., set[str]],
) -> None:
    for arguments in (("plugins", "list"), ("plugins", "list", "--json")):
        modules = imported(*arguments)
        assert "turnlane.plugins.inspect" in modules
        unwanted = ("OpenSSL", "cryptography", "aioice", "planted_plugin", "planted_command")
        assert within(modules, unwanted) == set()
        assert not [module for module in modules if module.startswith("turnlane_")]


def test_a_list_of_providers_imports_the_plugins_and_none_of_their_classes(
    imported: Callable[..., set[str]],
) -> None:
    modules = imported("providers", "list")
    assert within(modules, ("planted_plugin", "turnlane_generic_turn.plugin"))
    assert "planted_plugin" in modules  # such imports would be seen above
    assert within(modules, ("OpenSSL", "planted_command")) == set()
    ours = {module for module in modules if module.startswith("turnlane_")}
    entries = {module for module in ours if module.endswith(".plugin") or "." not in module}
    assert ours == entries
