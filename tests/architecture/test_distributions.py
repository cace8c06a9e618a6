"""Wheels in a clean environment: core alone, core with each plugin alone, all together."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from turnlane_tests.real import missing

ROOT = Path(__file__).parents[2]
PROVIDERS = {
    "plugins/exec": ["exec"],
    "plugins/generic_turn": ["generic-turn"],
    "plugins/http": ["http"],
    "plugins/pool": ["pool"],
}
"""The plugins that offer providers, and their ids."""

PAIRS = {"plugins/adapters": [("udp", "udp")]}
PLUGINS = sorted(f"plugins/{each.parent.name}" for each in ROOT.glob("plugins/*/pyproject.toml"))
FOLDERS = ["core", *PLUGINS]

pytestmark = pytest.mark.real

IMPORT_ALL = """
import importlib, pkgutil, sys, turnlane
for found in pkgutil.walk_packages(turnlane.__path__, "turnlane."):
    if found.name != "turnlane.telemetry.setup":  # needs the extra `telemetry`
        importlib.import_module(found.name)
assert not [name for name in sys.modules if name.startswith("turnlane_")], "core imports a plugin"
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TURNLANE_", "PYTHON", "COV", "COVERAGE"))
    }
    environment["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


class CleanEnvironment:
    """A virtual environment that knows this product by its wheels only."""

    def __init__(self, folder: Path, wheels: dict[str, Path]) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        self.wheels = wheels

    def install(self, *folders: str) -> None:
        self.pip("install", *(str(self.wheels[folder]) for folder in folders))

    def uninstall(self, *distributions: str) -> None:
        self.pip("uninstall", "--yes", *distributions)

    def pip(self, *arguments: str) -> None:
        result = run(self.bin / "python", "-m", "pip", "--quiet", *arguments)
        assert result.returncode == 0, result.stderr

    def turnlane(self, *arguments: str) -> list[dict[str, object]]:
        result = run(self.bin / "turnlane", *arguments, "--json")
        assert result.returncode == 0, result.stderr
        listed: list[dict[str, object]] = json.loads(result.stdout)
        return listed


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    built = tmp_path_factory.mktemp("wheels")
    wheels = {}
    for folder in FOLDERS:
        target = built / folder.replace("/", "-")
        result = run(
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
            "--wheel-dir", target, ROOT / folder,
        )  # fmt: skip
        if result.returncode != 0:
            missing(f"no wheel of {folder} (is the package registry reachable?): {result.stderr}")
        (wheels[folder],) = target.glob("*.whl")
    return CleanEnvironment(tmp_path_factory.mktemp("clean") / "venv", wheels)


def test_core_works_without_any_plugin_and_each_plugin_is_found_alone(
    clean: CleanEnvironment,
) -> None:
    clean.install("core")
    imported = run(clean.bin / "python", "-W", "error", "-c", IMPORT_ALL)
    assert imported.returncode == 0, imported.stderr
    assert clean.turnlane("providers", "list") == []
    assert clean.turnlane("plugins", "list") == []

    for folder in PLUGINS:
        clean.install(folder)
        assert [each["status"] for each in clean.turnlane("plugins", "list")] == ["loaded"]
        offered = [each["id"] for each in clean.turnlane("providers", "list")]
        assert offered == PROVIDERS.get(folder, [])
        pairs = [(each["ingress"], each["egress"]) for each in clean.turnlane("pairs")]
        assert pairs == PAIRS.get(folder, [])
        clean.uninstall(f"turnlane-{Path(folder).name.replace('_', '-')}")

    clean.install("plugins/lab")
    lonely = run(clean.bin / "turnlane", "demo")
    assert lonely.returncode == 3, lonely.stderr
    assert "stage=policy_validate" in lonely.stderr

    clean.install(*(folder for folder in PLUGINS if folder != "plugins/lab"))
    records = clean.turnlane("plugins", "list")
    assert {each["status"] for each in records} == {"loaded"}
    assert len(records) == len(PLUGINS)
    together = run(clean.bin / "turnlane", "demo", "--json", "--count", "20")
    assert together.returncode == 0, together.stderr
    assert json.loads(together.stdout)["result"] == "ok"
