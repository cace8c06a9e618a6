"""Scaffolded plugins: clean by our own rules, and at work beside core's wheel, nothing changed."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from turnlane.scaffold.names import MAX_LENGTH, read_name
from turnlane.scaffold.project import Kind, render, write
from turnlane_tests.clean import ROOT, CleanEnvironment, run, wheel, wheels

KINDS = list(Kind)
LISTED = {Kind.PROVIDER: "providers", Kind.PLATFORM_TUNNEL: "tunnels"}
"""Which command lists it, where that is not `adapters`."""
LONGEST = "turnlane-" + "longest-" * 3 + "n4m"
NAMES = ["ab", "acme-turn", LONGEST]
"""Short, usual, and as long as can be: the length of a name moves line breaks."""


def scaffold(folder: Path, name: str, kind: Kind) -> Path:
    project = folder / name
    write(render(read_name(name), kind), project)
    return project


def tool(project: Path, name: str, *arguments: str | Path) -> None:
    command = [Path(sys.executable).with_name(name), *arguments]
    finished = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_longest_name_is_as_long_as_can_be() -> None:
    assert len(LONGEST) == MAX_LENGTH


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_clean_by_its_own_rules_and_by_ours(
    kind: Kind, name: str, tmp_path: Path
) -> None:
    project = scaffold(tmp_path, name, kind)
    tool(project, "ruff", "check", "--no-cache", ".")
    tool(project, "ruff", "format", "--no-cache", "--check", ".")

    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    rules = f"lint.select = {ours['select']}\nlint.ignore = {ours['ignore']}\n"
    tests = ours["per-file-ignores"]["**/tests/**"]
    rules += f"lint.per-file-ignores = {{'tests/**' = {tests}}}\n"
    rules += "lint.pydocstyle.convention = 'pep257'\nline-length = 100\n"
    (project / "ruff.toml").write_text(rules)
    tool(project, "ruff", "check", "--no-cache", ".")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_typed(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPYPATH", f"src:{ROOT / 'core' / 'src'}")
    tool(scaffold(tmp_path, "acme-turn", kind), "mypy", "--cache-dir", ROOT / ".mypy_cache")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    built = wheels(tmp_path_factory.mktemp("wheels"), "core")
    clean = CleanEnvironment(tmp_path_factory.mktemp("clean") / "venv", built)
    clean.install("core")
    return clean


@pytest.mark.real
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_works_as_a_wheel_beside_cores(
    kind: Kind, clean: CleanEnvironment, tmp_path: Path
) -> None:
    name = f"acme-{kind}"
    result = run(
        clean.bin / "turnlane", "plugins", "new", name, "--kind", kind, "--directory", tmp_path
    )
    assert result.returncode == 0, result.stderr
    built = wheel(tmp_path / name, tmp_path / "dist")
    clean.pip("install", f"{name}[test] @ {built.as_uri()}")

    # The installed package is tested, not the sources beside the tests.
    shutil.rmtree(tmp_path / name / "src")
    tests = run(clean.bin / "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path / name)
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert " passed" in tests.stdout

    listed = clean.turnlane(LISTED.get(kind, "adapters"), "list")
    (own,) = [each for each in listed if each["distribution"] == name]
    assert (own["id"], own["version"]) == (name, "0.1.0")
    assert own.get("direction") == (None if kind in LISTED else kind.value)
    statuses = {each["distribution"]: each["status"] for each in clean.turnlane("plugins", "list")}
    assert statuses[name] == "loaded"
    judged = clean.turnlane("plugins", "check", name)
    assert (judged["failed"], judged["distribution"]) == (0, name)
    assert judged["passed"]
