"""`turnlane plugins new`: what it makes, what it says, what it refuses."""

from pathlib import Path

import pytest

from turnlane.cli.main import main


@pytest.mark.parametrize(
    ("kind", "listed", "module"),
    [
        ("provider", "providers", "provider"),
        ("ingress", "adapters", "ingress"),
        ("egress", "adapters", "egress"),
        ("platform-tunnel", "tunnels", "tunnel"),
    ],
)
def test_it_says_what_to_do_next(
    kind: str, listed: str, module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "with space"
    arguments = ["plugins", "new", "acme-turn", "--kind", kind, "--directory", str(folder)]
    assert main(arguments) == 0
    told = [line.strip() for line in capsys.readouterr().out.splitlines()]
    commands = told[2:6]
    assert commands == [
        f"cd '{folder / 'acme-turn'}'",
        "pip install -e '.[test]'",
        "pytest",
        f"turnlane {listed} list",
    ]
    assert told[-1].endswith(f"src/acme_turn/{module}.py.")
    assert "FILL IN" in (folder / f"acme-turn/src/acme_turn/{module}.py").read_text()


def test_the_folder_is_made_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "acme-turn", "--kind", "provider"]) == 0
    assert "\n    cd acme-turn\n" in capsys.readouterr().out
    assert (tmp_path / "acme-turn/pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (["Acme", "--kind", "provider"], 2, "invalid_plugin_name"),
        (["acme", "--kind", "pigeon"], 2, "usage"),
        (["acme"], 2, "usage"),
        (["there", "--kind", "egress"], 2, "project_exists"),
    ],
)
def test_what_it_refuses_leaves_nothing_behind(
    arguments: list[str],
    exit_code: int,
    code: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "there").mkdir()
    assert main(["plugins", "new", *arguments, "--directory", str(tmp_path)]) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert code in captured.err
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
