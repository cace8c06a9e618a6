"""The README names every code and every setting."""

import ast
from pathlib import Path

import msgspec
import pytest

import turnlane_http
from turnlane_http.settings import HttpSettings

HERE = Path(__file__).parents[1]
README = (HERE / "README.md").read_text()
RAISERS = {"AnswerError", "ExchangeError", "ProviderError", "LinkError", "_refusal"}


def codes() -> set[str]:
    """Return the codes in the sources: first arguments of errors, and what `code` is set to."""
    found: set[str] = set()
    for module in Path(turnlane_http.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in RAISERS and node.args:
                    found |= _texts(node.args[0])
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    found |= _set_code(target, node.value)
    return found


def _set_code(target: ast.expr, value: ast.expr) -> set[str]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=True)
        return set().union(*(_set_code(left, right) for left, right in pairs))
    return _texts(value) if isinstance(target, ast.Name) and target.id == "code" else set()


def _texts(node: ast.expr) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def test_the_codes_are_found() -> None:
    assert {"plain_http", "rate_limited", "http_status", "decode_response"} <= codes()


@pytest.mark.parametrize("code", sorted(codes()))
def test_every_code_stands_in_the_readme(code: str) -> None:
    assert f"`{code}`" in README


@pytest.mark.parametrize(
    "name", [each.encode_name for each in msgspec.structs.fields(HttpSettings)]
)
def test_every_setting_stands_in_the_readme(name: str) -> None:
    assert f"| `{name}` |" in README
