"""Settings made into their schema, with every violation told by field and code."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, get_args, get_origin

import msgspec

from turnlane.api import Secret, SettingsError, Violation
from turnlane.api.settings import ViolationCode


def validate(
    schema: type[msgspec.Struct],
    given: Mapping[str, Any],
    owner: str,
    *,
    text: bool = False,
    advice: str = "",
) -> msgspec.Struct:
    """Return an instance of `schema` made of `given`.

    `owner` says whose settings they are. With `text`, values are texts as an option or a variable
    of the environment gives them, and numbers and truth values are read from them. Raises
    `SettingsError` with all violations at once; none repeats a value.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(schema)}
    violations = [
        Violation(name, "unknown", "there is no such setting") for name in given.keys() - fields
    ]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in given:
            if field.required:
                violations.append(Violation(name, "required", "it has no default"))
            continue
        try:
            values[field.name] = msgspec.convert(
                given[name], field.type, strict=not text, dec_hook=_decode
            )
        except msgspec.ValidationError as error:
            violations.append(_violation(name, field.type, str(error)))
    if violations:
        raise SettingsError(owner, tuple(sorted(violations)), advice)
    return schema(**values)


def describe(schema: type[msgspec.Struct]) -> list[dict[str, Any]]:
    """Return what a front end shows of each field: name, type, marks and default.

    The default of what is `write_only` or a secret is left out.
    """
    described = []
    for field in msgspec.structs.fields(schema):
        meta = _meta(field.type)
        extra = (meta.extra or {}) if meta is not None else {}
        hidden = bool(extra.get("write_only")) or _bare(field.type) is Secret
        entry: dict[str, Any] = {
            "name": field.encode_name,
            "type": _type_name(field.type),
            "description": (meta.description or "") if meta is not None else "",
            "required": field.required,
            "kept": extra.get("kept", "profile"),
            "write_only": hidden,
        }
        if not field.required and not hidden:
            default = field.default
            if default is msgspec.NODEFAULT:
                default = field.default_factory()
            entry["default"] = msgspec.to_builtins(default)
        described.append(entry)
    return described


def _decode(kind: type, value: Any) -> Any:
    if kind is Secret or get_origin(kind) is Secret:
        if not isinstance(value, str):
            raise msgspec.ValidationError("Expected `str`")
        return Secret(value)
    raise NotImplementedError


def _violation(name: str, kind: Any, told: str) -> Violation:
    """Sort what msgspec says in one line; its text may quote the value, so ours is built anew."""
    inner, _, place = told.partition(" - at `$")
    field = name + place.rstrip("`")
    code: ViolationCode = "type"
    message = f"expected {_type_name(kind)}"
    if "enum value" in inner:
        code, message = "enum", f"one of {', '.join(_choices(kind)) or 'the allowed values'}"
    elif "matching regex" in inner:
        code, message = "pattern", "it does not have the form that is wanted"
    elif any(word in inner for word in (">=", "<=", " > ", " < ", "of length", "multiple of")):
        meta = _meta(kind)
        code, message = "range", _range(meta)
    elif "missing required field" in inner:
        code, message = "required", "a field in it is missing"
    elif "unknown field" in inner:
        code, message = "unknown", "a field in it is unknown"
    return Violation(field, code, message)


def _range(meta: msgspec.Meta | None) -> str:
    bounds = []
    if meta is not None:
        low = meta.ge if meta.ge is not None else meta.min_length
        high = meta.le if meta.le is not None else meta.max_length
        bounds = [f"at least {low}"] if low is not None else []
        bounds += [f"at most {high}"] if high is not None else []
    return " and ".join(bounds) or "it is out of range"


def _choices(kind: Any) -> list[str]:
    bare = _bare(kind)
    if isinstance(bare, type) and issubclass(bare, Enum):
        return [str(member.value) for member in bare]
    return [str(choice) for choice in get_args(_stripped(kind))]


def _type_name(kind: Any) -> str:
    bare = _bare(kind)
    if bare is Secret:
        return "secret text"
    if choices := _choices(kind) if _is_choice(kind) else []:
        return "one of " + ", ".join(choices)
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if isinstance(bare, type):
        return names.get(bare, bare.__name__)
    return str(bare)


def _is_choice(kind: Any) -> bool:
    bare = _bare(kind)
    stripped = _stripped(kind)
    literal = str(getattr(get_origin(stripped), "__name__", get_origin(stripped))) == "Literal"
    return literal or (isinstance(bare, type) and issubclass(bare, Enum))


def _stripped(kind: Any) -> Any:
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _bare(kind: Any) -> Any:
    stripped = _stripped(kind)
    origin = get_origin(stripped)
    return origin if isinstance(origin, type) else stripped


def _meta(kind: Any) -> msgspec.Meta | None:
    for each in getattr(kind, "__metadata__", ()):
        if isinstance(each, msgspec.Meta):
            return each
    return None
