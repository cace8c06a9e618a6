"""The guide's tutorial as a program: its commands as written, its code put where it says.

`python -m turnlane_tests.tutorial GUIDE NUMBER` puts one block of code into the file that its first
line names, below the current folder.
"""

import ast
import re
import sys
import textwrap
from pathlib import Path

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"# (\S+\.py)\n")


def blocks(guide: Path) -> list[tuple[str, str]]:
    """Return the blocks of shell and of Python in the guide's text, each with its language."""
    return _BLOCK.findall(guide.read_text())


def place(block: str) -> str | None:
    """Return the file that a block of Python belongs to, if it names one."""
    found = _PLACE.match(block)
    return found[1] if found else None


def script(guide: Path) -> str:
    """Return a shell script that does what the guide says, from the top to the bottom."""
    steps = ["set -ex"]
    for number, (language, text) in enumerate(blocks(guide)):
        if language == "sh":
            steps.append(text)
        elif place(text) is not None:
            steps.append(f"'{sys.executable}' -m turnlane_tests.tutorial '{guide}' {number}")
    return "\n".join(steps)


def put(block: str, source: str) -> str:
    """Put what a block defines in the place of what `source` has under the same names.

    Imports go on top. Raises `LookupError` for a name that is not there.
    """
    lines = source.splitlines(keepends=True)
    imports = []
    replaced = []
    there = {
        name: node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt)
        for name in _names(node)
    }
    for node in ast.parse(block).body:
        text = "".join(block.splitlines(keepends=True)[_first(node) - 1 : node.end_lineno])
        if isinstance(node, ast.Import):
            imports.append(text)
            continue
        (name,) = _names(node)
        if name not in there:
            raise LookupError(name)
        replaced.append((there[name], text))
    # From the bottom up, so that what is above keeps its lines.
    for old, text in sorted(replaced, key=lambda each: -each[0].lineno):
        indented = textwrap.indent(text, " " * old.col_offset)
        lines[_first(old) - 1 : old.end_lineno] = [indented]
    first = next(n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom))
    return "".join(lines[: first.lineno - 1] + imports + lines[first.lineno - 1 :])


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    return []


def _first(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def main() -> None:
    """Put one block where it belongs."""
    guide, number = sys.argv[1:]
    _, block = blocks(Path(guide))[int(number)]
    named = place(block)
    if named is None:
        raise LookupError("the block names no file")
    target = Path(named)
    target.write_text(put(block, target.read_text()))


if __name__ == "__main__":
    main()
