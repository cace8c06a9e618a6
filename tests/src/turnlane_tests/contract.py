"""The contract as data: every public name of `turnlane.api` with what a plugin may rely on."""

import enum
import inspect
import re
import types
from typing import Any

import msgspec

import turnlane.api
from turnlane.api.deprecation import RENAMED

_KINDS: dict[object, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
}
_MODULES = re.compile(r"\b(?:typing|collections\.abc|contextlib|pathlib|turnlane\.api\.\w+)\.")


def snapshot() -> dict[str, Any]:
    """Return names, signatures, fields and defaults, in a form that can be compared and stored."""
    names = {name: name for name in turnlane.api.__all__}
    names |= {name: now.instead for name, now in RENAMED.items()}  # they are kept all the same
    described = {name: _describe(getattr(turnlane.api, now)) for name, now in names.items()}
    hooks = inspect.getmembers(turnlane.api.hooks, _is_hook)
    return {
        "names": dict(sorted(described.items())),
        "hooks": {name: _signature(hook) for name, hook in hooks},
    }


def _is_hook(member: object) -> bool:
    return inspect.isfunction(member) and member.__name__.startswith("turnlane_")


def _describe(value: Any) -> Any:
    if isinstance(value, type) and not hasattr(value, "__args__"):
        return _class(value)
    if inspect.isfunction(value):
        return {"function": _signature(value)}
    if hasattr(value, "__args__"):
        return {"alias": _type(value)}
    if isinstance(value, (int, str)):
        return {"value": value}
    return {"object": type(value).__name__}


def _class(value: type) -> dict[str, Any]:
    described: dict[str, Any] = {"bases": [base.__name__ for base in value.__bases__]}
    if issubclass(value, enum.Enum):
        described["members"] = {member.name: member.value for member in value}
        return described
    if issubclass(value, msgspec.Struct):
        described["options"] = _options(value)
        described["fields"] = {
            field.name: {
                "type": _type(field.type),
                "default": "required" if field.required else _default(field),
            }
            for field in msgspec.structs.fields(value)
        }
    else:
        described["attributes"] = _attributes(value)
    described["members"] = {
        name: _member(member)
        for name, member in sorted(vars(value).items())
        if _is_ours(name, member)
    }
    return {part: found for part, found in described.items() if found}


def _options(value: type[msgspec.Struct]) -> dict[str, Any]:
    """Return what the class was told beside its fields, as far as it is not the default."""
    plain, config = Plain.__struct_config__, value.__struct_config__
    names = [name for name in dir(config) if not name.startswith("_")]
    options = {
        name: getattr(config, name)
        for name in names
        if getattr(config, name) != getattr(plain, name)
    }
    keyword_only = [
        parameter.name
        for parameter in inspect.signature(value).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    return {**options, "kw_only": keyword_only} if keyword_only else options


class Plain(msgspec.Struct):
    """A struct that was told nothing."""


def _attributes(value: type) -> dict[str, Any]:
    """Return what instances and the class have beside methods: annotated, in slots, or constant."""
    found: dict[str, dict[str, Any]] = {}
    for name, annotation in inspect.get_annotations(value).items():
        found.setdefault(name, {})["type"] = _type(annotation)
    for name, member in vars(value).items():
        if isinstance(member, types.MemberDescriptorType):
            found.setdefault(name, {})["slot"] = True
        elif isinstance(member, (bool, int, float, str, tuple)):
            found.setdefault(name, {})["value"] = repr(member)
    return {name: each for name, each in sorted(found.items()) if not name.startswith("_")}


def _is_ours(name: str, member: Any) -> bool:
    """Whether a member was written for the contract: not private, not made by Python."""
    if name.startswith("_") and not name.startswith("__"):
        return False
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return inspect.isfunction(function) and function.__module__.startswith("turnlane.")


def _member(member: Any) -> dict[str, Any]:
    if isinstance(member, property) and member.fget is not None:
        returns = _type(inspect.signature(member.fget).return_annotation)
        return {"kind": "property" if member.fset is None else "settable property", "is": returns}
    if isinstance(member, (classmethod, staticmethod)):
        return {"kind": type(member).__name__, **_signature(member.__func__)}
    kind = "async method" if inspect.iscoroutinefunction(member) else "method"
    return {"kind": kind, **_signature(member)}


def _signature(function: Any) -> dict[str, Any]:
    """Return what a function takes, by name with place, type and default, and what it returns."""
    signature = inspect.signature(function)
    parameters = {}
    for number, parameter in enumerate(signature.parameters.values()):
        shown = _KINDS.get(parameter.kind) or f"{number}"
        if parameter.annotation is not parameter.empty:
            shown += f": {_type(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            shown += f" = {parameter.default!r}"
        parameters[parameter.name] = shown
    for old, new in getattr(function, "former_names", {}).items():
        parameters[old] = parameters[new]
    return {"parameters": parameters, "returns": _type(signature.return_annotation)}


def _type(annotation: Any) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return _MODULES.sub("", str(annotation))


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is not msgspec.NODEFAULT:
        return repr(field.default)
    return f"made by {field.default_factory!r}"
