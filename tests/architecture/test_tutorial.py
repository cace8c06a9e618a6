"""The tutorial of docs/plugins.md does what it says, command by command."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import turnlane.api
from turnlane.scaffold.names import read_name
from turnlane.scaffold.project import Kind, render, write
from turnlane_tests import tutorial
from turnlane_tests.clean import CONSTRAINTS, ROOT, run, wheels

GUIDE = ROOT / "docs" / "plugins.md"
BLOCKS = tutorial.blocks(GUIDE)


def test_the_code_of_the_guide_names_what_the_contract_has() -> None:
    code = [text for language, text in BLOCKS if language == "python"]
    assert len(code) >= 4
    for text in code:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "turnlane.api":
                assert {alias.name for alias in node.names} <= set(turnlane.api.__all__)


def test_the_code_of_the_tutorial_conforms_and_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "acme-turn"
    write(render(read_name("acme-turn"), Kind.PROVIDER), project)
    places = []
    for language, text in BLOCKS:
        named = tutorial.place(text)
        if language == "python" and named is not None:
            target = project / named
            target.write_text(tutorial.put(text, target.read_text()))
            places.append(named)
    assert places == ["src/acme_turn/provider.py", "tests/test_provider.py"]
    monkeypatch.setenv("PYTHONPATH", "src")
    monkeypatch.setenv("MYPYPATH", f"src:{ROOT / 'core' / 'src'}")
    for tool in (
        ["pytest", "-q", "-p", "no:cacheprovider"],
        ["mypy", "--cache-dir", str(ROOT / ".mypy_cache")],
        ["ruff", "check", "--no-cache", "."],
    ):
        check(project, tool)


ALONE = [text for language, text in BLOCKS if language == "python" and not tutorial.place(text)]
# "tests/test_kit.py of acme-udp, made with --kind egress."
BESIDE_A_SCAFFOLD = re.compile(r'"""(\S+) of (\S+), made with --kind (\S+)\."""\n')


def test_the_code_of_the_guide_that_stands_alone_is_typed_and_runs(tmp_path: Path) -> None:
    alone = [text for text in ALONE if not BESIDE_A_SCAFFOLD.match(text)]
    assert len(alone) >= 2
    for number, text in enumerate(alone):
        module = tmp_path / f"block_{number}.py"
        module.write_text(f'"""From the guide."""\n\n{text}')
        check(tmp_path, ["mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), module.name])
        check(tmp_path, ["runpy", module.stem])


def test_the_conformance_kits_of_the_guide_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "src")
    kinds = []
    for text in ALONE:
        if made := BESIDE_A_SCAFFOLD.match(text):
            place, name, kind = made.groups()
            project = tmp_path / name
            write(render(read_name(name), Kind(kind)), project)
            (project / place).write_text(text)
            check(project, ["pytest", "-q", "-p", "no:cacheprovider", place])
            kinds.append(kind)
    assert kinds == ["egress", "platform-tunnel"]


def check(folder: Path, tool: list[str]) -> None:
    command = [sys.executable, "-m", *tool]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_code_goes_where_its_names_are() -> None:
    source = (
        '"""Doc."""\n\nimport re\n\nA = 1\n\n\nclass C:\n    @x\n    def f(self):\n        pass\n'
    )
    block = "import abc\n\nA = 2\n\n\ndef f(self):\n    return A\n"
    assert tutorial.put(block, source) == (
        '"""Doc."""\n\nimport abc\nimport re\n\nA = 2\n\n\nclass C:\n'
        "    def f(self):\n        return A\n"
    )
    with pytest.raises(LookupError, match="g"):
        tutorial.put("def g(): ...\n", source)


@pytest.mark.real
def test_the_tutorial_leads_from_nothing_to_a_wheel_that_works(tmp_path: Path) -> None:
    built = wheels(tmp_path / "wheels", "core")
    # "turnlane" is the wheel of this repository, whatever a registry has under that name.
    pinned = tmp_path / "pinned.txt"
    pinned.write_text(f"turnlane @ {built['core'].as_uri()}\n")
    work = tmp_path / "work"
    work.mkdir()
    finished = run(
        "bash", "-c", tutorial.script(GUIDE),
        cwd=work,
        PIP_CONSTRAINT=f"{CONSTRAINTS} {pinned}",
        HOME=str(tmp_path),
        XDG_CONFIG_HOME=str(tmp_path / "config"),
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert len(re.findall(r"^=+ \d+ passed.* in ", finished.stdout, re.MULTILINE)) == 2
    assert re.search(r"^acme-turn 0\.1\.0 .*: \d+ passed, 0 failed", finished.stdout, re.MULTILINE)
    # Listed from its sources, then from its wheel; the probe mints from the link.
    listed = [line.split()[0] for line in finished.stdout.splitlines() if "Acme Turn  " in line]
    assert listed == ["acme-turn", "acme-turn"]
    assert "turn.example.org:3478 (udp)" in finished.stdout
    assert list(work.glob("artifacts/acme-turn/*.json"))
