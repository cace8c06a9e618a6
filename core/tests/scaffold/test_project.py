"""The files of a new plugin: complete, valid, and written where nothing was."""

import ast
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from turnlane.api import PLUGIN_GROUP, PolicyError
from turnlane.scaffold.names import read_name
from turnlane.scaffold.project import Kind, render, write

NAMES = read_name("turnlane-acme-turn")
KINDS = list(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_is_a_whole_distribution(kind: Kind) -> None:
    contents = render(NAMES, kind)
    assert list(contents) == sorted(contents)
    assert set(contents) == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "src/turnlane_acme_turn/__init__.py",
        "src/turnlane_acme_turn/plugin.py",
        f"src/turnlane_acme_turn/{kind.module}.py",
        "src/turnlane_acme_turn/py.typed",
        f"tests/test_{kind.module}.py",
    }
    for path, text in contents.items():
        assert "$package" not in text
        if path.endswith(".py"):
            ast.parse(text, path)
    assert "${{ matrix.python }}" in contents[".github/workflows/ci.yml"]
    assert "the authors of turnlane-acme-turn" in contents["LICENSE"]
    count = 3 if kind is Kind.PLATFORM_TUNNEL else 2
    written = contents[f"src/turnlane_acme_turn/{kind.module}.py"]
    assert [f"# FILL IN, {n} of {count}:" in written for n in range(1, count + 1)] == [True] * count
    assert written.count("# FILL IN, ") == count


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_declares_its_entry_point_dependency_and_tests(kind: Kind) -> None:
    project = tomllib.loads(render(NAMES, kind)["pyproject.toml"])["project"]
    assert project["name"] == "turnlane-acme-turn"
    assert project["entry-points"] == {PLUGIN_GROUP: {"acme-turn": "turnlane_acme_turn.plugin"}}
    assert "turnlane>=0.1,<1" in project["dependencies"]
    assert any(each.startswith("pytest") for each in project["optional-dependencies"]["test"])


def test_every_template_is_used() -> None:
    templates = files("turnlane.scaffold") / "templates"
    there = {
        (folder.name, each.name.removesuffix(".tmpl"))
        for folder in templates.iterdir()
        for each in folder.iterdir()
    }
    assert {folder for folder, _ in there} == {"common", *KINDS}
    assert len(there) == 5 + 5 * len(KINDS)
    assert sum(len(render(NAMES, kind)) for kind in KINDS) == len(KINDS) * 10


def test_files_are_written_with_the_folders_above_them(tmp_path: Path) -> None:
    project = tmp_path / "new" / "acme"
    write({"LICENSE": "MIT\n", "src/acme/plugin.py": "x = 'ж'\n"}, project)
    assert (project / "LICENSE").read_text() == "MIT\n"
    assert (project / "src/acme/plugin.py").read_text(encoding="utf-8") == "x = 'ж'\n"


@pytest.mark.parametrize("what", ["folder", "file", "dangling link"])
def test_nothing_is_overwritten(tmp_path: Path, what: str) -> None:
    project = tmp_path / "acme"
    match what:
        case "folder":
            project.mkdir()
        case "file":
            project.write_text("mine")
        case _:
            project.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PolicyError) as caught:
        write({"LICENSE": ""}, project)
    assert caught.value.code == "project_exists"
    assert what != "folder" or list(project.iterdir()) == []
    assert what != "file" or project.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyError) as caught:
        write({"LICENSE": ""}, tmp_path / "file" / "acme")
    assert caught.value.code == "project_unwritable"


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    project = tmp_path / "acme"
    with pytest.raises(PolicyError) as caught:
        write({"LICENSE": "", "LICENSE/below-a-file": ""}, project)
    assert caught.value.code == "project_unwritable"
    assert not project.exists()
