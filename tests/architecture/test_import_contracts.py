"""Every import contract holds, and every one of them breaks when it is violated."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = list((ROOT / "plugins").glob("*/pyproject.toml"))
SOURCES = ["core/src", *sorted(f"plugins/{each.parent.name}/src" for each in PLUGINS)]

APPLICATIONS = {"turnlane_lab", "turnlane_control"}
"""What stands on top and may import the runtime."""

VIOLATIONS = {
    "layers": ("turnlane/proto/planted.py", "import turnlane.runtime.policy"),
    "transport-knows-no-provider": (
        "turnlane/net/planted.py",
        "from turnlane.api.provider import Provider",
    ),
    "transport-names-submodules": ("turnlane/relay/planted.py", "from turnlane.api import Batch"),
    "sans-io": ("turnlane/proto/planted.py", "import time"),
    "one-stun-codec": ("turnlane/net/planted.py", "import aioice.stun"),
    "one-openssl": ("turnlane/telemetry/planted.py", "import OpenSSL.SSL"),
    "plugins-see-the-contract": (
        "turnlane_generic_turn/planted.py",
        "import turnlane.runtime.policy",
    ),
    "plugins-are-independent": ("turnlane_adapters/planted.py", "import turnlane_generic_turn"),
    "core-knows-no-plugin": ("turnlane/runtime/planted.py", "import turnlane_adapters.udp"),
}


def contract_names() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    prefix = "importlinter:contract:"
    return {
        section.removeprefix(prefix): parser[section]["name"]
        for section in parser.sections()
        if section.startswith(prefix)
    }


def lint(sources: list[Path], config: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(source) for source in sources)
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--config", config, "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=config.parent,
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def copied_sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    top = tmp_path_factory.mktemp("sources")
    copies = []
    for number, source in enumerate(SOURCES):
        copy = top / str(number)
        shutil.copytree(ROOT / source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        copies.append(copy)
    return copies


def test_every_contract_holds_and_has_a_violation_that_is_tried() -> None:
    result = lint([ROOT / source for source in SOURCES], ROOT / ".importlinter")
    assert result.returncode == 0, result.stdout
    assert set(contract_names()) == set(VIOLATIONS)


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "core/src"])
def test_every_plugin_is_held_to_the_contracts(source: str) -> None:
    (package,) = (path.name for path in (ROOT / source).glob("turnlane_*"))
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")

    def named(section: str, option: str) -> list[str]:
        return parser[section][option].split()

    prefix = "importlinter:contract:"
    assert package in named("importlinter", "root_packages")
    assert package in named(f"{prefix}plugins-are-independent", "modules")
    assert package in named(f"{prefix}core-knows-no-plugin", "forbidden_modules")
    held = package in named(f"{prefix}plugins-see-the-contract", "source_modules")
    assert held is (package not in APPLICATIONS)


@pytest.mark.parametrize("contract", sorted(VIOLATIONS))
def test_a_contract_breaks_when_it_is_violated(
    contract: str, copied_sources: list[Path], tmp_path: Path
) -> None:
    place, statement = VIOLATIONS[contract]
    target = next(copy / place for copy in copied_sources if (copy / place.split("/")[0]).is_dir())
    config = tmp_path / ".importlinter"
    shutil.copy(ROOT / ".importlinter", config)
    target.write_text(f"{statement}\n")
    try:
        result = lint(copied_sources, config)
    finally:
        target.unlink()
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract_names()[contract]} BROKEN" in result.stdout
