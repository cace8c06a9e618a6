"""The contract as data: every public name of `turnlane.api` with what a plugin may rely on."""

import enum
import inspect
import re
from typing import Any

import msgspec

import turnlane.api

_KINDS = {
    int(inspect.Parameter.VAR_POSITIONAL): "*",
    int(inspect.Parameter.VAR_KEYWORD): "**",
    int(inspect.Parameter.KEYWORD_ONLY): "keyword ",
}
_MODULES = re.compile(r"\b(?:typing|collections\.abc|contextlib|pathlib|turnlane\.api\.\w+)\.")


def snapshot() -> dict[str, Any]:
    """Return names, signatures, fields and defaults, in a form that can be compared and stored."""
    described = {name: _describe(getattr(turnlane.api, name)) for name in turnlane.api.__all__}
    hooks = inspect.getmembers(turnlane.api.hooks, _is_hook)
    return {
        "names": dict(sorted(described.items())),
        "hooks": {name: _signature(hook) for name, hook in hooks},
    }


def _is_hook(member: object) -> bool:
    return inspect.isfunction(member) and member.__name__.startswith("turnlane_")


def _describe(value: Any) -> Any:
    if isinstance(value, type):
        return _class(value)
    if inspect.isfunction(value):
        return {"function": _signature(value)}
    if isinstance(value, (int, str)):
        return {"value": value}
    return {"object": type(value).__name__}


def _class(value: type) -> dict[str, Any]:
    described: dict[str, Any] = {"bases": [base.__name__ for base in value.__bases__]}
    if issubclass(value, enum.Enum):
        described["members"] = {member.name: member.value for member in value}
        return described
    if issubclass(value, msgspec.Struct):
        described["fields"] = {
            field.name: {
                "type": _type(field.type),
                "default": "required" if field.required else _default(field),
            }
            for field in msgspec.structs.fields(value)
        }
    methods = {
        name: _member(member)
        for name, member in vars(value).items()
        if not name.startswith("_") or (name == "__init__" and not _is_protocol(value))
        if inspect.isfunction(member) or isinstance(member, (property, classmethod))
    }
    if methods and not issubclass(value, msgspec.Struct):
        described["members"] = dict(sorted(methods.items()))
    return described


def _is_protocol(value: type) -> bool:
    return bool(getattr(value, "_is_protocol", False))


def _member(member: Any) -> str:
    if isinstance(member, property) and member.fget is not None:
        return "property -> " + _type(inspect.signature(member.fget).return_annotation)
    if isinstance(member, classmethod):
        return "classmethod " + _signature(member.__func__)
    prefix = "async " if inspect.iscoroutinefunction(member) else ""
    return prefix + _signature(member)


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parts = []
    for parameter in signature.parameters.values():
        shown = parameter.name
        if parameter.annotation is not parameter.empty:
            shown += f": {_type(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            shown += f" = {parameter.default!r}"
        parts.append(_KINDS.get(int(parameter.kind), "") + shown)
    return f"({', '.join(parts)}) -> {_type(signature.return_annotation)}"


def _type(annotation: Any) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return re.sub(
        r"\b(?:typing|collections\.abc|contextlib|turnlane\.api\.\w+)\.", "", str(annotation)
    )


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is not msgspec.NODEFAULT:
        return repr(field.default)
    return f"made by {field.default_factory!r}"
