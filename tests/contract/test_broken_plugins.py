"""Seven kinds of broken plugins installed at once harm nobody but themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = ["exec", "generic-turn", "http", "pool", "vk"]

HEAD = "from turnlane.api import ProviderDescriptor, hookimpl\n"
OFFER = "ProviderDescriptor({id!r}, 'T', 'S.', 'nowhere:Nothing')"

BROKEN = {
    "absent": ("import a_module_that_nobody_has\n", "import_failed"),
    "exiting": ("raise SystemExit(3)\n", "exited"),
    "waiting": (HEAD + "@hookimpl\nasync def turnlane_providers(): return []\n", "async_hook"),
    "misspelt": (HEAD + "@hookimpl\ndef turnlane_provider(): return []\n", "unknown_hook"),
    "raising": (HEAD + "@hookimpl\ndef turnlane_providers(): raise OSError('no')\n", "hook_failed"),
    "mistyped": (
        HEAD + "@hookimpl\ndef turnlane_providers(): return ['x']\n",
        "invalid_descriptor",
    ),
    "colliding": (
        HEAD + f"@hookimpl\ndef turnlane_providers(): return [{OFFER.format(id='generic-turn')}]\n",
        "duplicate_id",
    ),
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Install all of them, and one of another major version, where a new process finds them."""
    for name, (source, _) in BROKEN.items():
        install(tmp_path, name, source, "turnlane.plugins.v1")
    install(tmp_path, "future", "", "turnlane.plugins.v2")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "300"}


def install(folder: Path, name: str, source: str, group: str) -> None:
    (folder / f"broken_{name}.py").write_text(source)
    metadata = folder / f"acme_{name}-7.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 7.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = broken_{name}\n")


def turnlane(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("turnlane")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, env=environment
    )


def test_the_providers_are_listed_whatever_else_is_broken(environment: dict[str, str]) -> None:
    listed = turnlane(environment, "providers", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [each["id"] for each in json.loads(listed.stdout)] == GOOD
    assert "Traceback" not in listed.stderr


def test_each_broken_plugin_is_told_in_one_line_with_distribution_and_cause(
    environment: dict[str, str],
) -> None:
    listed = turnlane(environment, "plugins", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    told = {each["distribution"]: each for each in json.loads(listed.stdout)}
    for name, (_, code) in BROKEN.items():
        record = told[f"acme-{name}"]
        assert (record["version"], record["status"], record["code"]) == ("7.0", "failed", code)
        assert record["reason"]
        assert "\n" not in record["reason"]
    assert told["acme-future"]["status"] == "incompatible"
    table = turnlane(environment, "plugins", "list").stdout.splitlines()
    for name in (*BROKEN, "future"):
        assert len([line for line in table if f"acme-{name} 7.0" in line]) == 1


def test_strict_plugins_refuse_to_start_and_name_them_all(environment: dict[str, str]) -> None:
    link = "generic-turn://user:password@127.0.0.1:3478"
    refused = turnlane(
        environment, "probe", "--provider", "generic-turn", "--link", link, "--strict-plugins"
    )
    assert refused.returncode == 3
    for name in (*BROKEN, "future"):
        assert f"acme-{name}" in refused.stderr
