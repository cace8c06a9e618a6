"""The README: its examples work as they are written, and it names every error code."""

import ast
import re
from pathlib import Path

import pytest

from turnlane_exec.config import read_config
from turnlane_exec.output import parse_output_untrusted
from turnlane_exec.process import PATH, run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODES = {
    str(node.value)
    for path in (ROOT / "src" / "turnlane_exec").glob("*.py")
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(call, ast.Call)
    and isinstance(call.func, ast.Name)
    and call.func.id in {"LinkError", "ProviderError", "ViolationsError"}
    for node in call.args[:1]
    if isinstance(node, ast.Constant)
}


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return str(found[1])


def test_exactly_the_error_codes_that_there_are_are_explained() -> None:
    table = README.partition("## Errors")[2].partition("A field that is wrong")[0]
    rows = re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)

    assert {code for row in rows for code in re.findall(r"[a-z_]+", row)} == CODES


def test_the_answer_is_one() -> None:
    credentials = parse_output_untrusted(block("json").encode(), 1_700_000_000.0)

    assert [each.port for each in credentials.endpoints] == [3478, 5349]
    assert credentials.expires_at == 1_700_003_600
    assert f"`{PATH}`" in README


@pytest.mark.anyio
async def test_the_worked_example_prints_credentials(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    tools = tmp_path / "tools"
    tools.mkdir()
    scripts = {"pass": "echo north", "office-relay": block("sh").removeprefix("#!/bin/sh\n")}
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\nPATH={tools}:$PATH\n{script}\n")
        (tools / name).chmod(0o700)
    config = folder / "exec.toml"
    config.write_text(block("toml").replace("/usr/local/bin", str(tools)))
    config.chmod(0o600)

    ended = await run(read_config(folder)["office"], {})

    credentials = parse_output_untrusted(ended.stdout.reveal(), 1_700_000_000.0)
    assert [each.address for each in credentials.endpoints] == [
        "turn.example.org:3478",
        "turn.example.org:5349",
    ]
    assert credentials.username.reveal().endswith(":office")
    assert len(credentials.password.reveal()) == 28
    assert credentials.expires_at == 1_700_003_600
