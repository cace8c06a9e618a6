"""The codes of errors as the sources have them, found without running anything.

A code is what is given to a parameter or a field that is called `code` and is a text. Whoever
passes its own parameter `code` on is followed to those who call it, and what reads `.code` from
something only passes it on. A code that the source does not spell out is found out as well.
"""

import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_TEXT = re.compile(r"str|ViolationCode|Literal\[.*\]")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Found:
    """What was found.

    `codes` has for each code what it is given to, as `Class` or `Class at stage` where the stage
    stands beside it. `hidden` has the expressions that give a code but do not say which, each as
    `file: expression`.
    """

    codes: dict[str, set[str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Source:
    """A file of the product: its place in the repository, and what is in it."""

    place: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """What it is called where it is imported."""
        name = self.place.partition("src/")[2] or self.place
        return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def reach(self) -> frozenset[str]:
        """The modules and packages whose names it can use: itself and what it imports."""
        found = {self.module}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return frozenset(found)

    def reaches(self, module: str) -> bool:
        """Tell whether it can use what `module` has; a package gives on what its modules have."""
        return bool({module, module.rpartition(".")[0]} & self.reach)


@dataclass(frozen=True)
class _Call:
    """A call: the names of what may be called, and the functions that it stands in."""

    source: Source
    node: ast.Call
    names: tuple[str, ...]
    inside: tuple[_Function, ...]


@dataclass(frozen=True)
class _Taker:
    """What takes a code when it is called: as which argument, None for by keyword alone.

    `private` is what nobody calls from outside of its module.
    """

    module: str
    position: int | None
    private: bool


def product(root: Path) -> list[Source]:
    """Return the sources of every distribution below `root`."""
    paths = [*root.glob("core/src/**/*.py"), *root.glob("plugins/*/src/**/*.py")]
    return [
        Source(path.relative_to(root).as_posix(), ast.parse(path.read_text()))
        for path in sorted(paths)
    ]


def find(sources: Iterable[Source]) -> Found:
    """Find every code in `sources`."""
    return _Search(list(sources)).run()


class _Search:
    """One search, with what all of it needs to know."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources
        self._calls = [call for source in sources for call in _calls(source)]
        self._classes: dict[str, list[tuple[Source, ast.ClassDef]]] = {}
        self._takers: dict[str, list[_Taker]] = {}
        self._constants: dict[str, str] = {}
        for source in sources:
            self._constants |= _constants(source.tree)
            for node, owner in _definitions(source.tree):
                if isinstance(node, ast.ClassDef):
                    self._classes.setdefault(node.name, []).append((source, node))
                elif node.name != "__init__" and _takes(node):
                    self._add(node.name, source, _position(node, "code"), owner)
        for name, definitions in self._classes.items():
            for source, definition in definitions:
                for position in self._class_position(definition):
                    self._add(name, source, position, name)

    def _add(self, name: str, source: Source, position: int | None, owner: str) -> None:
        private = name.startswith("_") or owner.startswith("_")
        self._takers.setdefault(name, []).append(_Taker(source.module, position, private))

    def run(self) -> Found:
        found = Found()
        for call in self._calls:
            given = self._given(call)
            if given is None or (_is_name(given, "code") and any(map(_takes, call.inside))):
                continue
            values = self._values(given, call.source, call.inside)
            if values is None:
                found.hidden.add(f"{call.source.place}: {ast.unparse(given)}")
            for value in filter(None, values or ()):
                found.codes.setdefault(value, set()).add(_told(call))
        for source in self._sources:
            for node in ast.walk(source.tree):
                # A property makes a code out of something else.
                if isinstance(node, ast.FunctionDef) and node.name == "code":
                    found.hidden.add(f"{source.place}: def code")
        return found

    def _given(self, call: _Call) -> ast.expr | None:
        """Return the code that a call gives; nothing where what is called takes none."""
        for keyword in call.node.keywords:
            if keyword.arg == "code":
                return keyword.value
        for taker in (each for name in call.names for each in self._takers.get(name, ())):
            own = call.source.module == taker.module
            reached = own or (call.source.reaches(taker.module) and not taker.private)
            if reached and taker.position is not None:
                return _argument(call.node, taker.position)
        return None

    def _class_position(self, node: ast.ClassDef) -> list[int | None]:
        """Return where the class takes a code; nothing where it takes none."""
        for each in node.body:
            if isinstance(each, _FUNCTIONS) and each.name == "__init__":
                return [_position(each, "code")] if _takes(each) else []
        bases = [base for name in map(_name, node.bases) for _, base in self._classes.get(name, ())]
        for number, each in enumerate(self._fields(node)):
            if each in node.body and _is_name(each.target, "code") and _is_text(each.annotation):
                return [number]
        return [position for base in bases for position in self._class_position(base)][:1]

    def _fields(self, node: ast.ClassDef) -> list[ast.AnnAssign]:
        above = [base for name in map(_name, node.bases) for _, base in self._classes.get(name, ())]
        inherited = [each for base in above[:1] for each in self._fields(base)]
        return inherited + [each for each in node.body if isinstance(each, ast.AnnAssign)]

    def _values(
        self, given: ast.expr, source: Source, inside: tuple[_Function, ...]
    ) -> set[str] | None:
        """Return what an expression can be: nothing where it only passes on what something has.

        None where the source does not say.
        """
        match given:
            case ast.Constant(value=str(value)):
                return {value}
            case ast.Attribute(attr="code"):
                return set()
            case ast.IfExp(body=first, orelse=second):
                return self._all([first, second], source, inside)
            case ast.FormattedValue(value=value):
                return self._values(value, source, inside)
            case ast.JoinedStr(values=parts):
                known = [self._values(part, source, inside) for part in parts]
                texts = [part for part in known if part is not None]
                if len(texts) < len(known):
                    return None
                return {"".join(each) for each in itertools.product(*texts)}
            case ast.Call(
                func=ast.Attribute(value=inner, attr="replace"),
                args=[ast.Constant(value=str(old)), ast.Constant(value=str(new))],
            ):
                values = self._values(inner, source, inside)
                return None if values is None else {value.replace(old, new) for value in values}
            case ast.Starred(value=ast.Call(func=ast.Name(id=name))):
                return self._all(_returned(source.tree, name), source, inside)
            case ast.Name(id=name):
                return self._named(name, source, inside)
        return None

    def _named(self, name: str, source: Source, inside: tuple[_Function, ...]) -> set[str] | None:
        for function in reversed(inside):
            if assigned := list(_assigned(function, name)):
                return self._all(assigned, source, inside)
            position = _position(function, name)
            if position is not None:
                calls = [
                    each
                    for each in self._calls
                    if function.name in each.names and each.source.reaches(source.module)
                ]
                found: set[str] = set()
                for call in calls:
                    argument = _argument(call.node, position)
                    if argument is None:
                        return None
                    values = self._values(argument, call.source, call.inside)
                    if values is None:
                        return None
                    found |= values
                return found if calls else None
        constant = _constants(source.tree).get(name) or self._constants.get(name)
        return None if constant is None else {constant}

    def _all(
        self, given: Iterable[ast.expr], source: Source, inside: tuple[_Function, ...]
    ) -> set[str] | None:
        known = [self._values(each, source, inside) for each in given]
        texts = [values for values in known if values is not None]
        return set().union(*texts) if known and len(texts) == len(known) else None


def _told(call: _Call) -> str:
    """Return what a code is given to, and the stage beside it."""
    match call.node.args:
        case [ast.Attribute(value=ast.Name(id="Stage"), attr=stage), *_]:
            return f"{call.names[0]} at {stage.lower()}"
    return call.names[0]


def _calls(source: Source) -> Iterator[_Call]:
    waiting: list[tuple[ast.AST, tuple[str, ...], tuple[_Function, ...]]] = [(source.tree, (), ())]
    while waiting:
        node, bases, inside = waiting.pop()
        if isinstance(node, ast.ClassDef):
            bases = tuple(_name(base) for base in node.bases)
        elif isinstance(node, _FUNCTIONS):
            inside = (*inside, node)
        elif isinstance(node, ast.Call):
            above = ast.unparse(node.func) == "super().__init__"
            yield _Call(source, node, bases if above else (_name(node.func),), inside)
        waiting += [(each, bases, inside) for each in ast.iter_child_nodes(node)]


def _definitions(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | _Function, str]]:
    """Return classes and functions, each with the name of the class that it stands in."""
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, owner = waiting.pop()
        if isinstance(node, (ast.ClassDef, *_FUNCTIONS)):
            yield node, owner
        if isinstance(node, ast.ClassDef):
            owner = node.name
        waiting += [(each, owner) for each in ast.iter_child_nodes(node)]


def _argument(call: ast.Call, position: int) -> ast.expr | None:
    for number, argument in enumerate(call.args[: position + 1]):
        if number == position or isinstance(argument, ast.Starred):
            return argument
    return None


def _positional(function: _Function) -> list[ast.arg]:
    """Return the parameters that may be given by position, without a method's own."""
    given = [*function.args.posonlyargs, *function.args.args]
    return given[1:] if given and given[0].arg in ("self", "cls") else given


def _takes(function: _Function) -> bool:
    parameters = [*_positional(function), *function.args.kwonlyargs]
    return any(each.arg == "code" and _is_text(each.annotation) for each in parameters)


def _position(function: _Function, name: str) -> int | None:
    names = [each.arg for each in _positional(function)]
    return names.index(name) if name in names else None


def _assigned(function: _Function, name: str) -> Iterator[ast.expr]:
    """Return what a function assigns to a variable of its own."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[target], value=value):
                yield from _matching(target, value, name)
            case ast.For(target=target, iter=ast.Tuple(elts=values)):
                for value in values:
                    yield from _matching(target, value, name)


def _matching(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    if _is_name(target, name):
        yield value
    elif isinstance(target, ast.Tuple) and any(_is_name(each, name) for each in target.elts):
        number = next(n for n, each in enumerate(target.elts) if _is_name(each, name))
        # What is no tuple to look into stands for itself, and is told as hidden.
        yield value.elts[number] if isinstance(value, ast.Tuple) else value


def _returned(tree: ast.Module, name: str) -> Iterator[ast.expr]:
    """Return the first of what a function returns, of those that return several."""
    for function in ast.walk(tree):
        if isinstance(function, _FUNCTIONS) and function.name == name:
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    yield node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value


def _constants(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_text(annotation: ast.expr | None) -> bool:
    return annotation is not None and _TEXT.fullmatch(ast.unparse(annotation)) is not None


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
