"""The part of JSON Schema (draft 2020-12) that the schemas of this project use."""

import re
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
}
_KNOWN = {
    "$id", "$schema", "additionalProperties", "anyOf", "const", "enum", "format", "items",
    "maximum", "minItems", "minimum", "oneOf", "pattern", "properties", "required", "title", "type",
}  # fmt: skip


def violations(schema: dict[str, Any], value: Any, place: str = "$") -> Iterator[str]:
    """Say where `value` does not fit `schema`; raises `ValueError` for keywords unknown here."""
    unknown = set(schema) - _KNOWN
    if unknown:
        raise ValueError(f"unknown keywords: {sorted(unknown)}")
    if "type" in schema and not _is(value, schema["type"]):
        yield f"{place}: not of type {schema['type']}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{place}: not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: not one of {schema['enum']}"
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        yield f"{place}: does not match {schema['pattern']}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{place}: too small"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{place}: too large"
    for word, allowed in (("anyOf", range(1, 99)), ("oneOf", range(1, 2))):
        if word in schema:
            fitting = sum(not any(violations(each, value, place)) for each in schema[word])
            if fitting not in allowed:
                yield f"{place}: fits {fitting} of {word}"
    if isinstance(value, dict):
        yield from _in_object(schema, value, place)
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{place}: too short"
        for number, each in enumerate(value):
            yield from violations(schema.get("items", {}), each, f"{place}[{number}]")


def _in_object(schema: dict[str, Any], value: dict[str, Any], place: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    yield from (f"{place}: no {name}" for name in schema.get("required", ()) if name not in value)
    for name, each in value.items():
        if name in properties:
            yield from violations(properties[name], each, f"{place}.{name}")
        elif others is False:
            yield f"{place}: unknown {name}"
        elif isinstance(others, dict):
            yield from violations(others, each, f"{place}.{name}")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and not (name == "integer" and isinstance(value, bool))
