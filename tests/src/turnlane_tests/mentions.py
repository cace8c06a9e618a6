"""What the tests name: texts, attributes and keywords, as they stand in the test files."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

_CODE = re.compile(r"\bcode=([a-z][a-z0-9_]*)")


@dataclass
class Mentions:
    """What test files name.

    `texts` are whole string literals and what stands in one after `code=`, but for the arguments of
    errors: what a test raises itself it has not brought about. `attributes` are `owner.name`, where
    the owner is a plain name; `keywords` names of arguments, by themselves and as `called.name`;
    `functions` the names of functions that are defined, as a plugin's hooks are.
    """

    texts: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    keywords: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def add(self, tree: ast.AST) -> None:
        """Add what one file names."""
        planted = {
            argument
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error")
            for argument in (*node.args, *(keyword.value for keyword in node.keywords))
        }
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str(text)) if node not in planted:
                    self.texts |= {text, *_CODE.findall(text)}
                case ast.Attribute(value=ast.Name(id=owner), attr=name):
                    self.attributes.add(f"{owner}.{name}")
                case ast.Call(func=ast.Name(id=called), keywords=keywords):
                    self.keywords |= {f"{called}.{each.arg}" for each in keywords}
                case ast.keyword(arg=str(name)):
                    self.keywords.add(name)
                case ast.FunctionDef(name=name):
                    self.functions.add(name)


def files_of_tests(root: Path) -> list[Path]:
    """Return the files of tests of every distribution, and those that cross them."""
    patterns = ("core/tests/**/*.py", "plugins/*/tests/**/*.py", "tests/*/**/*.py")
    found = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(path for path in found if root / "tests" / "src" not in path.parents)


def mentions(paths: list[Path]) -> Mentions:
    """Return what these files name."""
    found = Mentions()
    for path in paths:
        found.add(ast.parse(path.read_text()))
    return found
