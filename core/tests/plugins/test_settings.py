"""Settings: every violation by field and code, all at once, and no value ever repeated."""

import sys
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NewType

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnlane.api import Kept, Secret, SettingsError, UnavailableError, Violation, setting
from turnlane.plugins import PluginManager
from turnlane.plugins.settings import describe, secrets, validate


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


Metres = NewType("Metres", int)


class Member(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    provider_id: Annotated[str, setting("Which.", pattern="[a-z]+")]
    weight: Annotated[int, setting("How much.", minimum=1, maximum=10)] = 1
    pass_word: Secret[str] | None = None


class Acme(msgspec.Struct, frozen=True, kw_only=True):
    region: Annotated[str, setting("Where to ask.", pattern="[a-z]{2}")]
    api_key: Annotated[Secret[str], setting("The key.", write_only=True, kept=Kept.EPHEMERAL)]
    lifetime: Annotated[int, setting("Seconds.", minimum=60, maximum=86400)] = 3600
    ratio: Annotated[float, setting("A share.", minimum=0, maximum=1)] = 0.5
    verbose: bool = False
    colour: Colour = Colour.RED
    mode: Literal["fast", "slow"] = "fast"
    level: Literal[1, 2] = 1
    note: str | None = None
    limit: Annotated[int, setting("At most.", minimum=0)] | None = None
    tags: Annotated[list[str], msgspec.Meta(max_length=3)] = []
    members: tuple[Member, ...] = ()
    first: Member | None = None
    headers: dict[str, int] = {}
    pair: tuple[int, str] = (0, "")
    either: int | Colour = 0
    height: Metres = Metres(0)
    any_thing: Any = msgspec.field(default=None, name="anyThing")


GOOD: dict[str, Any] = {"region": "eu", "api_key": "planted-key"}


def made(given: dict[str, Any], **options: Any) -> Any:
    return validate(Acme, {**GOOD, **given}, "the provider acme", **options)


def violations(given: dict[str, Any], schema: Any = None, **options: Any) -> list[tuple[str, str]]:
    given = {**GOOD, **given} if schema is None else given
    with pytest.raises(SettingsError) as caught:
        validate(schema or Acme, given, "the provider acme", **options)
    return [(each.field, each.code) for each in caught.value.violations]


def test_what_is_left_out_has_its_default_and_secrets_are_wrapped() -> None:
    assert made({}) == Acme(region="eu", api_key=Secret("planted-key"))


def test_values_of_every_type_are_taken() -> None:
    found = made(
        {
            "lifetime": 60,
            "ratio": 1,
            "verbose": True,
            "colour": "blue",
            "mode": "slow",
            "level": 2,
            "note": "hello",
            "limit": 0,
            "tags": ["a", "b", "c"],
            "members": [{"provider-id": "x", "weight": 10, "pass-word": "secret"}],
            "first": {"provider-id": "y", "pass-word": Secret("wrapped")},
            "headers": {"a": 1},
            "pair": [5, "x"],
            "either": "blue",
            "height": 3,
            "anyThing": {"x": [1]},
        }
    )
    assert found == Acme(
        region="eu",
        api_key=Secret("planted-key"),
        lifetime=60,
        ratio=1.0,
        verbose=True,
        colour=Colour.BLUE,
        mode="slow",
        level=2,
        note="hello",
        limit=0,
        tags=["a", "b", "c"],
        members=(Member(provider_id="x", weight=10, pass_word=Secret("secret")),),
        first=Member(provider_id="y", pass_word=Secret("wrapped")),
        headers={"a": 1},
        pair=(5, "x"),
        either=Colour.BLUE,
        height=Metres(3),
        any_thing={"x": [1]},
    )
    assert isinstance(found.members, tuple)
    assert isinstance(found.ratio, float)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("region", 5, "type"),
        ("region", Secret("eu"), "type"),
        ("region", "Europe", "pattern"),
        ("region", "eu\n", "pattern"),
        ("region", "", "pattern"),
        ("api_key", 5, "type"),
        ("api_key", None, "type"),
        ("api_key", Secret(b"x"), "type"),
        ("lifetime", "3600", "type"),
        ("lifetime", 60.0, "type"),
        ("lifetime", True, "type"),
        ("lifetime", None, "type"),
        ("lifetime", 59, "range"),
        ("lifetime", 86401, "range"),
        ("ratio", 1.01, "range"),
        ("ratio", float("nan"), "range"),
        ("ratio", float("-inf"), "range"),
        ("ratio", "half", "type"),
        ("verbose", 1, "type"),
        ("colour", "green", "enum"),
        ("colour", 5, "type"),
        ("mode", "medium", "enum"),
        ("mode", ["fast"], "type"),
        ("level", 3, "enum"),
        ("note", 5, "type"),
        ("limit", -1, "range"),
        ("tags", "a", "type"),
        ("tags", ["a"] * 4, "range"),
        ("first", "x", "type"),
        ("first", [], "type"),
        ("headers", [], "type"),
        ("pair", [1], "range"),
        ("either", 1.5, "type"),
        ("either", "green", "enum"),
        ("height", "x", "type"),
        ("nonsense", 1, "unknown"),
        ("any_thing", 1, "unknown"),
    ],
)
def test_each_fault_has_its_code(name: str, value: Any, code: str) -> None:
    assert violations({name: value}) == [(name, code)]


def test_what_is_required_is_missed() -> None:
    assert violations({}, Acme) == [("api_key", "required"), ("region", "required")]


def test_every_violation_is_told_at_once_also_inside_lists_and_tables() -> None:
    found = violations(
        {
            "region": "Europe",
            "lifetime": "x",
            "tags": [1, "b", 2, "d"],
            "members": [
                {"weight": 0, "surplus": 1},
                {"provider-id": "x"},
                {"provider-id": "X", "weight": 1.5, "pass-word": 5},
                "x",
            ],
            "first": {"provider_id": "x"},
            "headers": {"a": "x", 5: 1},
            "pair": ["x", 1],
            "zzz": 1,
        }
    )
    assert found == [
        ("first.provider-id", "required"),
        ("first.provider_id", "unknown"),
        ("headers[key]", "type"),
        ("headers[…]", "type"),
        ("lifetime", "type"),
        ("members[0].provider-id", "required"),
        ("members[0].surplus", "unknown"),
        ("members[0].weight", "range"),
        ("members[2].pass-word", "type"),
        ("members[2].provider-id", "pattern"),
        ("members[2].weight", "type"),
        ("members[3]", "type"),
        ("pair[0]", "type"),
        ("pair[1]", "type"),
        ("region", "pattern"),
        ("tags[0]", "type"),
        ("tags[2]", "type"),
        ("zzz", "unknown"),
    ]


def test_messages_say_what_would_fit() -> None:
    with pytest.raises(SettingsError) as caught:
        made(
            {"lifetime": 5, "colour": "x", "mode": 5, "limit": -1, "tags": list("abcd")},
            advice="see there",
        )
    error = caught.value
    assert error.violations == (
        Violation("colour", "enum", "it is not one of red, blue"),
        Violation("lifetime", "range", "it is not at least 60 and at most 86400"),
        Violation("limit", "range", "it is not at least 0"),
        Violation("mode", "type", "expected one of fast, slow"),
        Violation("tags", "range", "it is not at most 3 long"),
    )
    assert (error.code, error.exit_code, error.advice) == ("invalid_settings", 2, "see there")
    assert error.message == (
        "the settings of the provider acme do not fit: colour, lifetime, limit, mode, tags"
    )
    assert error.details[1] == "lifetime: it is not at least 60 and at most 86400 (range)"


def test_texts_are_read_as_what_the_field_is() -> None:
    found = made(
        {
            "lifetime": "61",
            "ratio": "0.25",
            "verbose": "true",
            "colour": "blue",
            "level": "2",
            "note": "null",
            "limit": "7",
            "tags": '["a", "5"]',
            "members": '[{"provider-id": "x", "weight": 2}]',
            "headers": '{"a": 1}',
            "first": "null",
            "either": "5",
        },
        text=True,
    )
    assert (found.lifetime, found.ratio, found.verbose, found.level) == (61, 0.25, True, 2)
    assert (found.note, found.limit, found.tags, found.first) == ("null", 7, ["a", "5"], None)
    assert found.members == (Member(provider_id="x", weight=2),)
    assert (found.headers, found.either) == ({"a": 1}, 5)
    assert found.api_key == Secret("planted-key")


@pytest.mark.parametrize(
    ("name", "value", "field", "code"),
    [
        ("lifetime", "soon", "lifetime", "type"),
        ("lifetime", "9" * 5000, "lifetime", "type"),
        ("lifetime", "5", "lifetime", "range"),
        ("ratio", "nan", "ratio", "range"),
        ("ratio", "inf", "ratio", "range"),
        ("verbose", "maybe", "verbose", "type"),
        ("level", "3", "level", "enum"),
        ("tags", "a,b", "tags", "type"),
        ("tags", '{"a": 1}', "tags", "type"),
        ("tags", "[" * 5000, "tags", "type"),
        ("headers", '{"a": "1"}', "headers[…]", "type"),
    ],
)
def test_texts_that_cannot_be_read_are_told(name: str, value: str, field: str, code: str) -> None:
    assert violations({name: value}, text=True) == [(field, code)]


WORD = Annotated[str, setting("A word.", pattern="[a-z]+")]
FEW = Annotated[int, setting("A few.", minimum=1, maximum=5)]
KEY = Annotated[Secret[str], setting("A key.", pattern="[a-z]+", write_only=True)]


class Inside(msgspec.Struct):
    word: WORD | None = None


@pytest.mark.parametrize(
    ("kind", "good", "bad", "found"),
    [
        (WORD | None, "a", "A", ("value", "pattern")),
        (
            Annotated[str | None, setting("A word.", pattern="[a-z]+")],
            "a",
            "A",
            ("value", "pattern"),
        ),
        (Annotated[FEW | None, msgspec.Meta(description="Some.")], 5, 6, ("value", "range")),
        (KEY | None, "a", "A", ("value", "pattern")),
        (WORD | FEW | None, "a", "A", ("value", "pattern")),
        (WORD | FEW | None, 1, 0, ("value", "range")),
        (list[WORD] | None, ["a"], ["a", "A"], ("value[1]", "pattern")),
        (list[FEW | None], [None, 1], [None, 6], ("value[1]", "range")),
        (list[KEY], ["a"], ["A"], ("value[0]", "pattern")),
        (tuple[FEW, ...], [1], [0], ("value[0]", "range")),
        (tuple[WORD, FEW], ["a", 1], ["a", 6], ("value[1]", "range")),
        (frozenset[WORD] | None, ["a"], ["A"], ("value[0]", "pattern")),
        (Sequence[FEW], [1], [0], ("value[0]", "range")),
        (dict[WORD, int], {"a": 9}, {"A": 9}, ("value[key]", "pattern")),
        (dict[str, WORD | None] | None, {"A": "a"}, {"A": "A"}, ("value[…]", "pattern")),
        (dict[str, list[FEW]], {"A": [1]}, {"A": [6]}, ("value[…][0]", "range")),
        (Inside | None, {"word": "a"}, {"word": "A"}, ("value.word", "pattern")),
        (list[Inside], [{"word": "a"}], [{"word": "A"}], ("value[0].word", "pattern")),
        (
            dict[str, Inside],
            {"A": {"word": "a"}},
            {"A": {"word": "A"}},
            ("value[…].word", "pattern"),
        ),
    ],
)
def test_constraints_hold_inside_of_what_may_be_none_and_of_containers(
    kind: Any, good: Any, bad: Any, found: tuple[str, str]
) -> None:
    schema = msgspec.defstruct("Schema", [("value", kind)])
    validate(schema, {"value": good}, "acme")
    assert violations({"value": bad}, schema) == [found]


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        (WORD | None, "A", ("value", "pattern")),
        (FEW | None, "6", ("value", "range")),
        (list[FEW | None], "[null, 6]", ("value[1]", "range")),
        (dict[str, WORD], '{"A": "A"}', ("value[…]", "pattern")),
    ],
)
def test_they_hold_for_texts_too(kind: Any, text: str, found: tuple[str, str]) -> None:
    schema = msgspec.defstruct("Schema", [("value", kind)])
    assert violations({"value": text}, schema, text=True) == [found]


@pytest.mark.parametrize("kind", [list[str], dict[str, str], tuple[str, ...] | None, Inside])
def test_a_constraint_where_it_would_never_be_looked_at_is_a_fault_of_the_schema(kind: Any) -> None:
    marked = Annotated[kind, setting("Words.", pattern="[a-z]+")]
    with pytest.raises(TypeError, match=r"value: pattern on a .*; put it on what is inside"):
        describe(msgspec.defstruct("Schema", [("value", marked)]))


def test_only_some_of_the_values_may_be_texts() -> None:
    assert made({"lifetime": "61", "limit": 5}, text={"lifetime"}).lifetime == 61
    assert violations({"lifetime": "61", "limit": "5"}, text={"lifetime"}) == [("limit", "type")]


def test_a_schema_that_refuses_what_it_is_made_of_is_a_violation() -> None:
    class Refusing(msgspec.Struct):
        kind: str = "value"

        def __post_init__(self) -> None:
            if self.kind == "exit":
                raise SystemExit(self.kind)
            if self.kind == "own":
                found = Violation("kind", "enum", "it is not one of ours")
                raise SettingsError("acme", (found,))
            raise {"value": ValueError, "type": TypeError, "key": KeyError}[self.kind](self.kind)

    class Outer(msgspec.Struct):
        inner: Refusing

    for kind in ("value", "type", "key", "exit"):
        assert violations({"kind": kind}, Refusing) == [("*", "range")]
    assert violations({}, Refusing) == [("*", "range")]
    assert violations({"kind": "own"}, Refusing) == [("kind", "enum")]
    assert violations({"inner": {"kind": "own"}}, Outer) == [("inner.kind", "enum")]
    assert violations({"inner": {"kind": "key"}}, Outer) == [("inner.*", "range")]


def test_a_type_of_the_plugins_own_that_raises_is_a_violation() -> None:
    class Broken(StrEnum):
        ONE = "one"

        @classmethod
        def _missing_(cls, value: object) -> Any:
            raise RuntimeError(value)

    class Schema(msgspec.Struct):
        broken: Broken = Broken.ONE
        after: timedelta = timedelta(0)
        odd: set[str] = set()

    assert violations({"broken": "x", "after": "soon", "odd": [["x"]]}, Schema) == [
        ("after", "type"),
        ("broken", "enum"),
        ("odd[0]", "type"),
    ]


@pytest.mark.parametrize(
    "options", [{}, {"frozen": True}, {"kw_only": True}, {"rename": "camel"}, {"tag": True}]
)
def test_structs_of_every_style_are_made(options: dict[str, Any]) -> None:
    schema = msgspec.defstruct("Styled", [("some_name", str), ("other", int, 5)], **options)
    name = "someName" if "rename" in options else "some_name"
    found: Any = validate(schema, {name: "x"}, "acme")
    assert (found.some_name, found.other) == ("x", 5)
    assert violations({"SOME": 1}, schema) == [("SOME", "unknown"), (name, "required")]


def test_names_that_are_not_known_are_repeated_in_part_and_harmlessly() -> None:
    fields = [field for field, _ in violations({"x" * 500: 1, "a\x1b[31m\nb": 2, 5: 3}, Acme)]  # type: ignore[dict-item]
    assert fields[:2] == ["5", "a?[31m b"]
    assert "x" * 63 + "…" in fields
    assert max(map(len, fields)) == 64


PLANTED = "planted-4711-value"
HOSTILE = [PLANTED, f"{PLANTED} - at `$.x`", f"x` - at `$[0].{PLANTED}`", f"'{PLANTED}'", 4711]


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([field.encode_name for field in msgspec.structs.fields(Acme)]),
        st.recursive(
            st.sampled_from(HOSTILE),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from([PLANTED, "provider-id", "weight", "pass-word"]), inner
                )
            ),
            max_leaves=5,
        ),
    ),
    st.booleans(),
)
def test_no_value_is_ever_repeated(given: dict[str, Any], text: bool) -> None:
    told: tuple[Violation, ...] = ()
    try:
        found: Any = validate(Acme, given, "acme", text=text)
    except SettingsError as error:
        found, told = None, error.violations
    assert isinstance(found, Acme) or told
    fields = [one.field for one in told if one.code != "unknown"]
    assert "4711" not in f"{fields} {[one.message for one in told]}"
    assert all(one.message for one in told)


def test_a_secret_is_never_repeated_even_by_the_settings_themselves() -> None:
    assert "planted-key" not in repr(made({}))


def test_the_secrets_among_the_settings_are_found_wherever_they_are() -> None:
    assert set(secrets(made({}))) == {Secret("planted-key")}
    nested = made(
        {
            "members": [{"provider-id": "x", "pass-word": "second"}],
            "first": {"provider-id": "x", "pass-word": "third"},
            "anyThing": {"deep": [{"deeper": Secret("fourth")}]},
        }
    )
    names = ("planted-key", "second", "third", "fourth")
    assert set(secrets(nested)) == {Secret(name) for name in names}


def test_what_front_ends_show_of_a_schema() -> None:
    told = {entry["name"]: entry for entry in describe(Acme)}
    assert list(told) == [field.encode_name for field in msgspec.structs.fields(Acme)]
    assert told["region"] == {
        "name": "region",
        "type": "text",
        "description": "Where to ask.",
        "required": True,
        "kept": "profile",
        "write_only": False,
        "constraints": {"pattern": r"\A(?:[a-z]{2})\Z"},
        "limits": ["of the form [a-z]{2}"],
    }
    assert told["api_key"] == {
        "name": "api_key",
        "type": "secret text",
        "description": "The key.",
        "required": True,
        "kept": "ephemeral",
        "write_only": True,
    }
    assert told["lifetime"]["constraints"] == {"ge": 60, "le": 86400}
    assert told["lifetime"]["limits"] == ["at least 60", "at most 86400"]
    assert told["lifetime"]["default"] == 3600
    assert told["limit"]["description"] == "At most."
    assert (told["limit"]["constraints"], told["limit"]["default"]) == ({"ge": 0}, None)
    assert (told["colour"]["choices"], told["colour"]["default"]) == (["red", "blue"], "red")
    assert (told["level"]["choices"], told["level"]["type"]) == ([1, 2], "one of 1, 2")
    assert [told[name]["type"] for name in ("verbose", "ratio", "tags", "either", "pair")] == [
        "true or false",
        "number",
        "list of text",
        "whole number or one of red, blue",
        "list of whole number and text",
    ]
    for name in ("first", "members"):
        inside = [entry["name"] for entry in told[name]["fields"]]
        assert inside == ["provider-id", "weight", "pass-word"]
    assert "fields" not in told["headers"]
    assert msgspec.json.encode(list(told.values()))


def test_whatever_has_a_secret_in_it_is_not_shown() -> None:
    class Inner(msgspec.Struct):
        key: Secret[str] = Secret(PLANTED)
        again: "list[Inner]" = []

    globals()["Inner"] = Inner

    class Schema(msgspec.Struct):
        plain: Secret[str] = Secret(PLANTED)
        maybe: Secret[str] | None = Secret(PLANTED)
        many: list[Secret[str]] = msgspec.field(default_factory=lambda: [Secret(PLANTED)])
        inner: Inner = msgspec.field(default_factory=Inner)
        marked: Annotated[str, setting("Hidden.", write_only=True)] = PLANTED
        open: Any = Secret(PLANTED)

    told = describe(Schema)
    assert [entry["write_only"] for entry in told] == [True] * 5 + [False]
    assert told[-1]["default"] == "***"
    assert PLANTED not in repr(told)
    del globals()["Inner"]


@pytest.mark.parametrize("broken", ["annotation", "factory"])
def test_a_schema_that_cannot_be_read_is_the_plugins_fault(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    class Annotation(msgspec.Struct):
        field: "Missing" = 1  # type: ignore[name-defined]  # noqa: F821

    class Factory(msgspec.Struct):
        field: list[str] = msgspec.field(default_factory=lambda: [str(1 / 0)])

    module = SimpleNamespace(Schema=Annotation if broken == "annotation" else Factory)
    monkeypatch.setitem(sys.modules, "planted_schema", module)  # type: ignore[misc]
    with pytest.raises(UnavailableError) as caught:
        PluginManager.from_modules([]).load_settings("planted_schema:Schema")
    assert caught.value.code == "invalid_implementation"
    assert "planted_schema:Schema cannot be read: " in str(caught.value)
