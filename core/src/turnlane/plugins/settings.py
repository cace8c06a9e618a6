"""Settings made into their schema, with every violation told by field and code.

msgspec stops at the first fault and its text may quote the value; here each part is asked for by
itself, and what is said of it is made from the schema alone.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from turnlane.api import Secret, SettingsError, Violation, ViolationCode
from turnlane.plugins.records import one_line
from turnlane.plugins.schemas import Shape

TOGETHER = "*"
"""The field of a violation that no single field has: the values do not go together."""

MAX_NAME = 64
"""Characters of a name that is repeated although the schema does not know it."""

MAX_DEPTH = 16
"""Schemas inside schemas that are described."""


def validate(
    schema: type[msgspec.Struct],
    given: Mapping[str, Any],
    owner: str,
    *,
    text: bool | Collection[str] = False,
    advice: str = "",
) -> msgspec.Struct:
    """Return an instance of `schema` made of `given`.

    `owner` says whose settings they are. With `text`, values are texts as an option or a variable
    of the environment gives them, or those of the names in it: numbers and truth values are read
    from them, and lists and tables as JSON. Raises `SettingsError` with all violations at once;
    none repeats a value.
    """
    check = _Check()
    texts = frozenset(given if text else ()) if isinstance(text, bool) else frozenset(text)
    made = check.table(schema, given, "", texts)
    if check.violations:
        raise SettingsError(owner, tuple(sorted(set(check.violations))), advice)
    assert isinstance(made, msgspec.Struct)
    return made


def describe(schema: type[msgspec.Struct]) -> list[dict[str, Any]]:
    """Return what a front end shows of each field: name, type, marks, constraints and default.

    The default of what is `write_only` or has a secret in it is left out. `limits` are the
    constraints in words; `fields` describes a table inside, or the tables that a list is of.
    Raises `TypeError` for a constraint in a place where it would never be looked at.
    """
    return _described(schema, MAX_DEPTH)


def secrets(settings: object) -> Iterator[Secret[str]]:
    """Return every secret among settings that were made, wherever it is."""
    if isinstance(settings, Secret):
        yield settings
    elif isinstance(settings, msgspec.Struct):
        yield from secrets(msgspec.structs.astuple(settings))
    elif isinstance(settings, Mapping):
        yield from secrets(list(settings.values()))
    elif isinstance(settings, list | tuple | set | frozenset):
        for each in settings:
            yield from secrets(each)


def _described(schema: type[msgspec.Struct], depth: int) -> list[dict[str, Any]]:
    described = []
    for field in msgspec.structs.fields(schema):
        shape = Shape(field.type)
        entry: dict[str, Any] = {
            "name": field.encode_name,
            "type": shape.name,
            "description": shape.description,
            "required": field.required,
            "kept": shape.kept.value,
            "write_only": shape.write_only,
        }
        if shape.choices:
            entry["choices"] = shape.choices
        if constraints := shape.constraints():
            _check_place(field.encode_name, shape, constraints)
            entry["constraints"] = constraints
            entry["limits"] = shape.limits
        inner = _inner(shape)
        if inner is not None and depth:
            entry["fields"] = _described(inner, depth - 1)
        if not field.required and not shape.write_only:
            default = field.default
            if default is msgspec.NODEFAULT:
                default = field.default_factory()
            entry["default"] = msgspec.to_builtins(default, enc_hook=str)
        described.append(entry)
    return described


def _check_place(name: str, shape: Shape, constraints: Collection[str]) -> None:
    if not (shape.is_list or shape.is_mapping or shape.is_struct):
        return
    misplaced = sorted(set(constraints) - {"min_length", "max_length"})
    if misplaced:
        told = f"{name}: {', '.join(misplaced)} on a {shape.name}; put it on what is inside"
        raise TypeError(told)


def _inner(shape: Shape) -> type[msgspec.Struct] | None:
    if shape.is_struct:
        schema: type[msgspec.Struct] = shape.origin
        return schema
    items = [Shape(kind) for kind in shape.arguments if kind is not Ellipsis]
    tables = [item for item in items if item.is_struct]
    if len(tables) == 1 and (shape.is_list or shape.is_mapping):
        return _inner(tables[0])
    return None


class _Check:
    """Collects the violations of one set of settings."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, field: str, code: ViolationCode, message: str) -> None:
        self.violations.append(Violation(field or TOGETHER, code, message))

    def table(
        self,
        schema: type[msgspec.Struct],
        given: Mapping[Any, Any],
        place: str,
        texts: frozenset[str] = frozenset(),
    ) -> Any:
        """Make an instance of `schema`; `place` is where it stands, `texts` name what is text."""
        before = len(self.violations)
        inside = f"{place}." if place else ""
        fields = {field.encode_name: field for field in msgspec.structs.fields(schema)}
        for name in given:
            if name not in fields:
                shown = one_line(str(name), MAX_NAME)
                self.add(inside + shown, "unknown", "there is no such setting")
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in given:
                value = given[name]
                values[field.name] = self.value(field.type, value, inside + name, name in texts)
            elif field.required:
                self.add(inside + name, "required", "it has no default")
        if len(self.violations) > before:
            return None
        try:
            return schema(**values)
        except SettingsError as error:
            # The schema's own words for what it finds; they are about its own fields.
            for each in error.violations:
                self.add(inside + each.field, each.code, each.message)
        except (Exception, SystemExit):
            # What a schema raises besides may quote a value.
            self.add(inside + TOGETHER, "range", "the values do not go together")
        return None

    def value(self, kind: Any, value: Any, place: str, text: bool) -> Any:
        """Make a value of the type `kind`."""
        shape = Shape(kind)
        if shape.optional and value is None:
            return None
        if shape.arms:
            return self._union(shape, value, place, text)
        if shape.is_struct or shape.is_mapping or shape.is_list:
            return self._container(shape, value, place, text)
        before = len(self.violations)
        made = self._leaf(shape, value, place, text)
        return self._constrained(shape, made, place) if len(self.violations) == before else None

    def _constrained(self, shape: Shape, value: Any, place: str) -> Any:
        for code, message in shape.broken(value):
            self.add(place, code, message)
        return value

    def _leaf(self, shape: Shape, value: Any, place: str, text: bool) -> Any:
        if shape.origin is Secret:
            inner = value.reveal() if isinstance(value, Secret) else value
            if isinstance(inner, str):
                return Secret(inner)
        else:
            try:
                return msgspec.convert(value, shape.bare, strict=not text)
            except (Exception, SystemExit):  # a type of the plugin's own may raise anything
                kinds = {type(choice) for choice in shape.choices}
                if kinds and (text or type(value) in kinds):
                    self.add(place, "enum", f"it is not {shape.name}")
                    return None
        self.add(place, "type", f"expected {shape.name}")
        return None

    def _union(self, shape: Shape, value: Any, place: str, text: bool) -> Any:
        """Make what the first arm takes; else tell the constraints of the one that came nearest."""
        nearest: list[Violation] = []
        for arm in shape.arms:
            trial = _Check()
            made = trial.value(arm, value, place, text)
            if not trial.violations:
                return self._constrained(shape, made, place)
            if all(each.code != "type" or each.field != place for each in trial.violations):
                nearest = nearest or trial.violations
        if nearest:
            self.violations += nearest
        else:
            self.add(place, "type", f"expected {shape.name}")
        return None

    def _container(self, shape: Shape, value: Any, place: str, text: bool) -> Any:
        if text and isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except (ValueError, RecursionError):
                self.add(place, "type", f"expected {shape.name}, as JSON")
                return None
        if shape.optional and value is None:
            return None
        if shape.is_struct and isinstance(value, Mapping):
            return self.table(shape.origin, value, place)
        wanted = Mapping if shape.is_mapping else (list, tuple, set, frozenset)
        if shape.is_struct or not isinstance(value, wanted):
            self.add(place, "type", f"expected {shape.name}")
            return None
        before = len(self.violations)
        items = self._items(shape, value, place)
        if len(self.violations) > before:
            return None
        try:
            made = msgspec.convert(items, shape.origin)
        except (Exception, SystemExit):  # such as a set of what cannot be in one
            self.add(place, "type", f"expected {shape.name}")
            return None
        return self._constrained(shape, made, place)

    def _items(self, shape: Shape, value: Any, place: str) -> Any:
        arguments = shape.arguments or (Any, Any)
        if shape.is_mapping:
            made = {}
            for key, item in value.items():
                # The keys are the operator's own words: they are not repeated.
                inner = self.value(arguments[0], key, f"{place}[key]", text=False)
                made[inner] = self.value(arguments[1], item, f"{place}[…]", text=False)
            return made
        kinds: list[Any] = [arguments[0]] * len(value)
        if shape.origin is tuple and shape.arguments and shape.arguments[-1] is not Ellipsis:
            kinds = list(shape.arguments)
            if len(kinds) != len(value):
                self.add(place, "range", f"it is not {len(kinds)} long")
                return None
        items = enumerate(zip(kinds, value, strict=True))
        return [
            self.value(kind, item, f"{place}[{number}]", text=False)
            for number, (kind, item) in items
        ]
