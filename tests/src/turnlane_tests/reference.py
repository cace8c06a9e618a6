"""The reference of the contract, made from its docstrings, and that of the shipped providers.

`python -m turnlane_tests.reference` writes `docs/reference/contract.md` and
`docs/reference/providers.md` anew.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import turnlane.api
from turnlane.api import AdapterDescriptor, PlatformTunnelDescriptor, ProviderDescriptor
from turnlane.plugins.manager import PluginManager
from turnlane.plugins.settings import describe
from turnlane_tests.clean import ROOT

API = Path(turnlane.api.__file__).parent
REFERENCE = ROOT / "docs" / "reference"

ORDER = {
    "hooks": "Hooks",
    "descriptors": "Descriptors",
    "provider": "Providers",
    "credentials": "Relay credentials",
    "authority": "Host and port",
    "settings": "Settings",
    "challenge": "Challenges",
    "artifact": "Artifacts",
    "errors": "Errors",
    "stages": "Stages",
    "secrets": "Secrets",
    "version": "Version",
    "deprecation": "Deprecations",
    "adapters": "Adapters",
    "batch": "Batches of datagrams",
    "streams": "Streams",
    "tunnels": "Platform tunnels",
}
"""The modules of the contract in the order of the page; one that is not here comes last."""

PROVISIONAL = {
    "2026-11-22": {
        "adapters",
        "batch",
        "streams",
        "tunnels",
        "AdapterDescriptor",
        "Direction",
        "PlatformTunnelDescriptor",
        "TrafficClass",
        "turnlane_egress_adapters",
        "turnlane_ingress_adapters",
        "turnlane_platform_tunnels",
    }
}
"""What may still change within a major version: modules and names, by the date of the notice."""

_INTRODUCTION = """\
# The contract, name by name

All that a plugin may import from `turnlane.api` {version}. The [guide](../plugins.md) tells
how it goes together, the page of [stages and codes](errors.md) what operators meet. This page is
made from the docstrings by `python -m turnlane_tests.reference`; do not edit it.

**Provisional** parts may change in a minor version, until what builds on them has landed. All
others stay as they are for as long as the major version lives.
"""

_Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module


class Page:
    """The reference of the contract, gathered from the sources."""

    def __init__(self) -> None:
        self._public = set(turnlane.api.__all__)
        self._lines: list[str] = []
        self.missing: list[str] = []
        """What has no documentation, as `module.name`."""
        version = f"{turnlane.api.CONTRACT_MAJOR}.{turnlane.api.CONTRACT_MINOR}"
        self._add(_INTRODUCTION.format(version=version))
        found = {path.stem: ast.parse(path.read_text()) for path in sorted(API.glob("*.py"))}
        del found["__init__"]
        # What is provisional stands after what is not.
        groups = {
            name: sorted(self._documented(tree), key=lambda each: bool(_notice(each[0])))
            for name, tree in found.items()
        }
        names = sorted(
            (name for name, members in groups.items() if members),
            key=lambda name: ([*ORDER, name].index(name), name),
        )
        for name in names:
            title = _title(name)
            listed = ", ".join(f"[`{each}`](#{_anchor(each)})" for each, _, _ in groups[name])
            self._add(f"- **[{title}](#{_anchor(title)})**{_notice(name)}: {listed}")
        for name in names:
            self._module(name, found[name], groups[name])

    def __str__(self) -> str:
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip() + "\n"

    def _add(self, text: str) -> None:
        self._lines.append(text)

    def _documented(self, tree: ast.Module) -> Iterator[tuple[str, ast.stmt, str]]:
        """Return the public names of a module, what each is, and its docstring."""
        for node, text in _with_docstrings(tree.body):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                if node.name in self._public or node.name.startswith("turnlane_"):
                    yield node.name, node, ast.get_docstring(node) or ""
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name in self._public:
                    yield name, node, text

    def _module(
        self, module: str, tree: ast.Module, members: list[tuple[str, ast.stmt, str]]
    ) -> None:
        self._add(f"\n## {_title(module)}\n")
        if since := _notice(module):
            self._add(f"*{since.strip(' ()').capitalize()}.*\n")
        self._text(ast.get_docstring(tree) or "", module)
        for name, node, text in members:
            self._add(f"\n### `{name}`\n")
            if not _notice(module) and (since := _notice(name)):
                self._add(f"*{since.strip(' ()').capitalize()}.*\n")
            self._head(node)
            self._text(text, f"{module}.{name}", own=name)
            if isinstance(node, ast.ClassDef):
                self._class(node, f"{module}.{name}")

    def _head(self, node: ast.stmt) -> None:
        match node:
            case ast.ClassDef(name=name, bases=bases):
                told = ", ".join(ast.unparse(base).removeprefix("msgspec.") for base in bases)
                init = next((each for each in _methods(node) if each.name == "__init__"), None)
                called = _arguments(init) if init else ""
                head = f"class {name}({told})" if told else f"class {name}"
                self._add(f"```python\n{head}")
                self._add(f"{name}{called}\n```\n" if called else "```\n")
            case ast.FunctionDef(name=name):
                self._add(f"```python\n{name}{_arguments(node)}\n```\n")
            case ast.Assign(value=ast.Constant() | ast.Subscript()):
                self._add(f"```python\n{ast.unparse(node.targets[0])} = {_code(node.value)}\n```\n")

    def _class(self, node: ast.ClassDef, place: str) -> None:
        bases = {_code(base) for base in node.bases}
        is_struct = "msgspec.Struct" in bases
        rows = []
        for each, text in _with_docstrings(node.body):
            cells: list[str] = []
            if isinstance(each, ast.AnnAssign):
                cells = [_code(each.target), _code(each.annotation)]
                if is_struct:
                    cells.append("" if each.value is None else _code(each.value))
            elif isinstance(each, ast.Assign) and "StrEnum" in bases:
                cells = [_code(each.targets[0]), str(ast.literal_eval(each.value))]
            if cells:
                self._missing(text, f"{place}.{cells[0]}")
                shown = [f"`{_cell(cell)}`" if cell else "required" for cell in cells]
                rows.append([*shown, _cell(self._linked(" ".join(text.split())))])
        if rows:
            columns = ["member", "value"] if "StrEnum" in bases else ["name", "type"]
            columns += ["default", "meaning"] if is_struct else ["meaning"]
            for row in (columns, ["---"] * len(columns), *rows):
                self._add(f"| {' | '.join(row)} |")
        self._add("")
        for method in _methods(node):
            if not method.name.startswith("_"):
                self._method(method, f"{place}.{method.name}")

    def _method(self, node: ast.FunctionDef | ast.AsyncFunctionDef, place: str) -> None:
        decorators = {ast.unparse(each) for each in node.decorator_list}
        if "property" in decorators:
            returned = ast.unparse(node.returns) if node.returns else ""
            head = f"{node.name}: {returned}"
        else:
            prefix = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
            head = f"{prefix}{node.name}{_arguments(node)}"
        self._add(f"- **`{head}`**\n")
        text = ast.get_docstring(node) or ""
        self._missing(text, place)
        for line in text.splitlines():
            self._add(f"  {self._linked(line)}" if line else "")
        self._add("")

    def _text(self, text: str, place: str, own: str = "") -> None:
        self._missing(text, place)
        for line in text.splitlines():
            self._add(line if line.startswith("    ") else self._linked(line, own))
        self._add("")

    def _missing(self, text: str, place: str) -> None:
        if not text:
            self.missing.append(place)

    def _linked(self, text: str, own: str = "") -> str:
        def link(found: re.Match[str]) -> str:
            name = found[1].partition(".")[0]
            if name not in self._public or name == own:
                return found[0]
            return f"[{found[0]}](#{_anchor(name)})"

        return re.sub(r"`([A-Za-z_.]+)`", link, text)


Descriptor = ProviderDescriptor | AdapterDescriptor | PlatformTunnelDescriptor


def shipped(manager: PluginManager) -> list[Descriptor]:
    """Return the descriptors of this tree's plugins: providers first, in the order of their ids."""
    offered: list[Descriptor] = [
        *manager.providers().values(),
        *manager.ingress_adapters().values(),
        *manager.egress_adapters().values(),
        *manager.platform_tunnels().values(),
    ]
    own = [each for each in offered if folder(each).exists()]
    return sorted(own, key=lambda each: (not isinstance(each, ProviderDescriptor), each.id))


def folder(descriptor: Descriptor) -> Path:
    """Return the folder of a plugin's distribution, which is there for those of this tree."""
    package = descriptor.implementation.partition(".")[0]
    return ROOT / "plugins" / package.removeprefix("turnlane_")


def providers() -> str:
    """Return the page of what the shipped plugins can do and can be told."""
    manager = PluginManager.load({})
    lines = [_PROVIDERS]
    for each in shipped(manager):
        if not isinstance(each, ProviderDescriptor) and each.settings is None:
            continue
        lines += [f"## `{each.id}`", "", f"{each.summary}.", ""]
        if isinstance(each, ProviderDescriptor):
            lines += [f"    {link}" for link in each.example_links]
            lines += ["", _capabilities(each), ""]
        if each.settings is not None:
            lines += [_COLUMNS, *_settings(describe(manager.load_settings(each.settings))), ""]
        else:
            lines += ["No settings.", ""]
        lines += [f"More: [its README](../../plugins/{folder(each).name}/README.md).", ""]
    return "\n".join(lines).strip() + "\n"


_PROVIDERS = """\
# What the shipped providers can do and be told

Made by `python -m turnlane_tests.reference` from their descriptors; `turnlane providers show ID`
tells the same of any provider that is installed. How to give settings:
[the command line](../cli.md#settings).
"""


_COLUMNS = "| setting | value | default | kept | meaning |\n|---|---|---|---|---|"


def _capabilities(provider: ProviderDescriptor) -> str:
    """Return the capabilities in one line."""
    told = []
    for name in provider.capabilities.__struct_fields__:
        value = getattr(provider.capabilities, name)
        shown = {True: "yes", False: "no", None: "none"}.get(value, str(value))
        told.append(f"`{name}` {shown}")
    return f"Capabilities: {', '.join(told)}."


def _settings(described: list[dict[str, Any]], prefix: str = "") -> Iterator[str]:
    for one in described:
        value = ", ".join((one["type"], *one.get("limits", ())))
        default = "required" if one["required"] else ""
        if one.get("default") not in (None, ""):
            default = f"`{one['default']}`"
        name = prefix + one["name"]
        cells = [f"`{name}`", _cell(value), default, one["kept"], _cell(one["description"])]
        yield f"| {' | '.join(cells)} |"
        inside = "." if one["type"] == "table" else "[]."
        yield from _settings(one.get("fields", []), name + inside)


def _title(module: str) -> str:
    return ORDER.get(module, module.replace("_", " ").capitalize())


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _notice(name: str) -> str:
    dates = [date for date, names in PROVISIONAL.items() if name in names]
    return f" (provisional since {dates[0]})" if dates else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return parameters and result as they are written, without a method's own parameter."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    shown = [
        _parameter(each, default)
        for each, default in zip(positional, defaults, strict=True)
        if each.arg not in ("self", "cls")
    ]
    if given.vararg:
        shown.append("*" + _parameter(given.vararg, None))
    elif given.kwonlyargs:
        shown.append("*")
    keywords = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    shown += [_parameter(each, default) for each, default in keywords]
    if given.kwarg:
        shown.append("**" + _parameter(given.kwarg, None))
    returned = "" if function.returns is None else _code(function.returns)
    return f"({', '.join(shown)})" + ("" if returned in ("", "None") else f" -> {returned}")


def _parameter(given: ast.arg, default: ast.expr | None) -> str:
    shown = given.arg if given.annotation is None else f"{given.arg}: {_code(given.annotation)}"
    return shown if default is None else f"{shown} = {_code(default)}"


def _code(node: ast.expr) -> str:
    """Return an expression as it is written here, with double quotes."""
    text = ast.unparse(node)
    return text if '"' in text else text.replace("'", '"')


def _with_docstrings(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Return statements, each with the docstring that follows it, if one does."""
    for number, node in enumerate(body):
        following = body[number + 1] if number + 1 < len(body) else None
        match following:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node, inspect.cleandoc(text)
            case _:
                yield node, ""


def pages() -> dict[Path, str]:
    """Return what stands in each of the pages."""
    return {REFERENCE / "contract.md": str(Page()), REFERENCE / "providers.md": providers()}


def main() -> None:
    """Write the pages."""
    REFERENCE.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
