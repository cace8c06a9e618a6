"""Wheels in a clean environment: core alone, core with each plugin alone, all together."""

import json
from pathlib import Path

import pytest

from turnlane_tests.clean import ROOT, CleanEnvironment, run, wheels

PROVIDERS = {
    "plugins/exec": ["exec"],
    "plugins/generic_turn": ["generic-turn"],
    "plugins/http": ["http"],
    "plugins/pool": ["pool"],
    "plugins/vk": ["vk"],
}
"""The plugins that offer providers, and their ids."""

PAIRS = {"plugins/adapters": [("udp", "udp")]}
PLUGINS = sorted(f"plugins/{each.parent.name}" for each in ROOT.glob("plugins/*/pyproject.toml"))
FOLDERS = ["core", *PLUGINS]

pytestmark = pytest.mark.real

IMPORT_ALL = """
import importlib, pkgutil, sys, turnlane
for found in pkgutil.walk_packages(turnlane.__path__, "turnlane."):
    # The first needs the extra `telemetry`, the kits' classes need pytest.
    if found.name != "turnlane.telemetry.setup" and not found.name.endswith("_pytest"):
        importlib.import_module(found.name)
assert not [name for name in sys.modules if name.startswith("turnlane_")], "core imports a plugin"
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    built = tmp_path_factory.mktemp("wheels")
    return CleanEnvironment(tmp_path_factory.mktemp("clean") / "venv", wheels(built, *FOLDERS))


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
