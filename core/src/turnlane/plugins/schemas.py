"""Settings schemas as they are read: what an annotation says of a value, in words for people."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from turnlane.api import Kept, Secret
from turnlane.api.settings import ViolationCode

_NAMES: dict[object, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    NoneType: "nothing",
    Any: "anything",
    Secret: "secret text",
}
_LISTS = (list, tuple, set, frozenset, Sequence)


class Shape:
    """An annotation taken apart: the type itself, the constraints on it, and what it is made of.

    `arms` are the alternatives of a union, without None, which `optional` says is one of them.
    """

    def __init__(self, kind: Any) -> None:
        metas: list[msgspec.Meta] = []
        bare = _peeled(kind, metas)
        self.optional = bare is NoneType or bare is None
        self.arms: tuple[Any, ...] = ()
        if get_origin(bare) in (Union, UnionType):
            arms = [arm for arm in get_args(bare) if arm is not NoneType]
            self.optional = len(arms) < len(get_args(bare))
            if len(arms) == 1:
                bare = _peeled(arms[0], metas)
            else:
                self.arms = tuple(arms)
        self.bare = bare
        self.origin: Any = get_origin(bare) or bare
        self.arguments = get_args(bare)
        self.metas = tuple(metas)

    @property
    def is_struct(self) -> bool:
        """Whether it has fields of its own."""
        return isinstance(self.origin, type) and issubclass(self.origin, msgspec.Struct)

    @property
    def is_mapping(self) -> bool:
        """Whether it is a table with keys of the operator's own."""
        return isinstance(self.origin, type) and issubclass(self.origin, Mapping)

    @property
    def is_list(self) -> bool:
        """Whether it is a sequence, set or tuple of items."""
        return self.origin in _LISTS

    @property
    def choices(self) -> list[Any]:
        """The values there are to choose from, for an enumeration or a `Literal`."""
        if self.origin is Literal:
            return list(self.arguments)
        if isinstance(self.origin, type) and issubclass(self.origin, Enum):
            return [member.value for member in self.origin]
        return []

    @property
    def name(self) -> str:
        """What people call it."""
        if self.arms:
            return " or ".join(Shape(arm).name for arm in self.arms)
        if choices := self.choices:
            return "one of " + ", ".join(str(choice) for choice in choices)
        if self.is_struct or self.is_mapping:
            return "table"
        if self.is_list:
            items = [Shape(item).name for item in self.arguments if item is not Ellipsis]
            return f"list of {' and '.join(dict.fromkeys(items))}" if items else "list"
        return _NAMES.get(self.origin) or str(getattr(self.origin, "__name__", self.origin))

    @property
    def description(self) -> str:
        """What the setting is for."""
        return next((meta.description for meta in self.metas if meta.description), "")

    @property
    def kept(self) -> Kept:
        """For how long a front end keeps the setting."""
        marks = [(meta.extra or {}).get("kept") for meta in self.metas]
        return Kept.EPHEMERAL if Kept.EPHEMERAL in marks else Kept.PROFILE

    @property
    def write_only(self) -> bool:
        """Whether the value is never shown again, which holds for all that has a secret in it."""
        return any((meta.extra or {}).get("write_only") for meta in self.metas) or _secret(self, ())

    def constraints(self) -> dict[str, Any]:
        """Return the constraints by the name that msgspec has for each."""
        found: dict[str, Any] = {}
        for name in ("pattern", "ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length"):
            for meta in self.metas:
                if getattr(meta, name) is not None:
                    found[name] = getattr(meta, name)
        return found

    @property
    def limits(self) -> list[str]:
        """The constraints in words."""
        bounds = self.constraints()
        pattern = bounds.pop("pattern", None)
        form = [] if pattern is None else [f"of the form {_form(pattern)}"]
        return form + list(_told(bounds))

    def broken(self, value: Any) -> Iterator[tuple[ViolationCode, str]]:
        """Say which constraints a value of the right type breaks."""
        bounds = self.constraints()
        pattern = bounds.pop("pattern", None)
        text = value.reveal() if isinstance(value, Secret) else value
        if pattern is not None and isinstance(text, str) and re.search(pattern, text) is None:
            yield "pattern", "it does not have the form that is wanted"
        if isinstance(value, float) and not isfinite(value):
            yield "range", "it is not finite"
        elif not all(_holds(name, bound, text) for name, bound in bounds.items()):
            yield "range", f"it is not {' and '.join(_told(bounds))}"


def _holds(name: str, bound: Any, value: Any) -> bool:
    try:
        match name:
            case "min_length" | "max_length":
                return bool(len(value) >= bound if name == "min_length" else len(value) <= bound)
            case "ge" | "gt":
                return bool(value >= bound if name == "ge" else value > bound)
            case "le" | "lt":
                return bool(value <= bound if name == "le" else value < bound)
            case _:
                return bool(value % bound == 0)
    except TypeError:
        return True  # a bound that is none for this type, as on one arm of a union


def _form(pattern: str) -> str:
    """Return a pattern without what `turnlane.api.setting` puts around it."""
    return pattern.removeprefix(r"\A(?:").removesuffix(r")\Z")


def _told(bounds: Mapping[str, Any]) -> Iterator[str]:
    words = {
        "ge": "at least {}",
        "gt": "more than {}",
        "le": "at most {}",
        "lt": "less than {}",
        "multiple_of": "a multiple of {}",
        "min_length": "at least {} long",
        "max_length": "at most {} long",
    }
    for name, bound in bounds.items():
        yield words[name].format(bound)


def _peeled(kind: Any, metas: list[msgspec.Meta]) -> Any:
    """Return the type under `Annotated`, `NewType` and aliases; put their marks into `metas`."""
    while True:
        if hasattr(kind, "__metadata__"):
            metas += [each for each in kind.__metadata__ if isinstance(each, msgspec.Meta)]
            kind = kind.__origin__
        elif hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        elif type(kind).__name__ == "TypeAliasType":
            kind = kind.__value__
        else:
            return kind


def _secret(shape: Shape, above: tuple[Any, ...]) -> bool:
    """Tell whether there is a secret in it; `above` are the schemas that it is inside of."""
    if shape.origin is Secret:
        return True
    if shape.is_struct:
        if shape.origin in above:
            return False
        inner = [field.type for field in msgspec.structs.fields(shape.origin)]
        above = (*above, shape.origin)
    else:
        inner = [*shape.arms, *(() if shape.origin is Literal else shape.arguments)]
    return any(_secret(Shape(kind), above) for kind in inner if kind is not Ellipsis)
