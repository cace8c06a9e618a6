"""The contract does not move by accident.

When this fails, the contract has changed. If a plugin written before still works as it is, raise
`CONTRACT_MINOR`; if not, raise `CONTRACT_MAJOR`, which also needs a new entry-point group. Say what
changed in `docs/contract-changes.md`, then store the new snapshot beside the old ones:

    python tests/contract/store_snapshot.py
"""

import itertools
import json
from inspect import get_annotations
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

import turnlane.api
from turnlane.api import (
    CONTRACT_MAJOR,
    CONTRACT_MINOR,
    AdapterError,
    Batch,
    Direction,
    InternalError,
    Kept,
    LinkError,
    PolicyError,
    Provider,
    ProviderError,
    RelayEndpoint,
    Secret,
    SessionError,
    SettingsError,
    Stage,
    TransportError,
    TurnlaneError,
    UnavailableError,
    ViolationCode,
)
from turnlane.api.deprecation import RENAMED, Renamed, renamed_parameter
from turnlane_tests.contract import snapshot

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STORED = HERE / "snapshots" / f"{CONTRACT_MAJOR}.{CONTRACT_MINOR}.json"


def test_the_contract_is_the_one_that_was_stored_for_its_version() -> None:
    assert STORED.exists(), __doc__
    assert snapshot() == json.loads(STORED.read_text()), __doc__


def test_every_version_of_the_contract_is_explained() -> None:
    changes = (ROOT / "docs" / "contract-changes.md").read_text()
    for stored in (HERE / "snapshots").glob("*.json"):
        assert f"\n## {stored.stem}" in changes


def removed(old: Any, new: Any, place: str = "") -> list[str]:
    """Say what of `old` is missing or different in `new`, and what `new` demands besides.

    What else `new` adds is no matter.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        missing = [f"{place}.{key}" for key in old.keys() - new.keys()]
        demanded = [f"{place}.{key}" for key in new.keys() - old.keys() if demands(place, new[key])]
        changed = [
            found
            for key in old.keys() & new.keys()
            for found in removed(old[key], new[key], f"{place}.{key}")
        ]
        return missing + demanded + changed
    return [] if old == new else [place]


def demands(place: str, added: Any) -> bool:
    if place.endswith(".parameters"):
        return "=" not in added and not added.startswith("*")
    return place.endswith(".fields") and added["default"] == "required"


def test_within_a_major_version_nothing_is_taken_away() -> None:
    stored = (HERE / "snapshots").glob(f"{CONTRACT_MAJOR}.*.json")
    by_minor = sorted(stored, key=lambda path: int(path.stem.split(".")[1]))
    versions = [json.loads(each.read_text()) for each in by_minor]
    for older, newer in itertools.pairwise(versions):
        assert removed(older, newer) == []


def lost(name: str, old: object, new: object) -> list[str]:
    """Say what the snapshot misses when the name of the contract means another object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turnlane.api, name, old)
        before = snapshot()
        patch.setattr(turnlane.api, name, new)
        return removed(before, snapshot())


def test_what_is_taken_away_is_noticed() -> None:
    old = snapshot()
    for name in ("Provider", "Stage", "Resolution"):
        new = snapshot()
        del new["names"][name]
        assert removed(old, new) == [f".names.{name}"]


@pytest.mark.parametrize(
    ("owner", "name", "place"),
    [
        (TurnlaneError, "exit_code", "attributes.exit_code.value"),
        (TurnlaneError, "details", "attributes.details.value"),
        (Batch, "flows", "attributes.flows.slot"),
        (Batch, "__len__", "members.__len__"),
        (Batch, "__iter__", "members.__iter__"),
        (Batch, "full", "members.full"),
        (Secret, "reveal", "members.reveal"),
        (Secret, "__repr__", "members.__repr__"),
        (Provider, "resolve", "members"),
        (RelayEndpoint, "address", "members"),
    ],
)
def test_a_constant_a_slot_a_method_and_a_property_are_missed(
    owner: type, name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot()
    monkeypatch.delattr(owner, name)
    assert removed(before, snapshot()) == [f".names.{owner.__name__}.{place}"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (TurnlaneError, "stage"),
        (TurnlaneError, "advice"),
        (ProviderError, "artifact"),
        (SettingsError, "violations"),
    ],
)
def test_an_attribute_of_instances_is_missed(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot()
    monkeypatch.delitem(owner.__annotations__, name)
    (missed,) = removed(before, snapshot())
    place = f".names.{owner.__name__}.attributes.{name}"
    assert place.startswith(missed)


def test_whatever_an_instance_has_is_declared_by_its_class() -> None:
    instances = [
        TurnlaneError(Stage.LISTEN, "code", "message"),
        PolicyError("code", "message"),
        UnavailableError("code", "message"),
        ProviderError("code", "message"),
        LinkError("code", "message"),
        TransportError(Stage.LISTEN, "code", "message"),
        SessionError(Stage.LISTEN, "code", "message"),
        AdapterError(Stage.LISTEN, "code", "message"),
        InternalError(Stage.LISTEN, ValueError()),
        SettingsError("acme", ()),
    ]
    public = [getattr(turnlane.api, name) for name in turnlane.api.__all__]
    classes = {
        each for each in public if isinstance(each, type) and issubclass(each, TurnlaneError)
    }
    assert {type(each) for each in instances} == classes
    for each in instances:
        declared = {name for kind in type(each).mro() for name in get_annotations(kind)}
        assert vars(each).keys() <= declared
    assert get_annotations(Batch).keys() == set(Batch.__slots__)


class Loose(msgspec.Struct):
    """A struct as plain as can be."""

    first: int
    second: int = 0


class Frozen(msgspec.Struct, frozen=True, order=True):
    first: int
    second: int = 0


class ByKeyword(msgspec.Struct, kw_only=True):
    first: int
    second: int = 0


class Shorter(msgspec.Struct):
    first: int


class Stricter(msgspec.Struct):
    first: int
    second: int


@pytest.mark.parametrize(
    ("old", "new", "places"),
    [
        (Frozen, Loose, ["options"]),
        (ByKeyword, Loose, ["options"]),
        (Loose, Shorter, ["fields.second"]),
        (Loose, Stricter, ["fields.second.default"]),
        (ViolationCode, Literal["required"], ["alias"]),
        (3, 4, ["value"]),
        (lambda one, two: None, lambda one: None, ["function.parameters.two"]),
        (Kept, Direction, ["members.PROFILE", "members.EPHEMERAL"]),
        (SettingsError, ValueError, ["attributes", "bases", "members"]),
    ],
)
def test_options_fields_and_what_else_a_name_means_are_missed(
    old: object, new: object, places: list[str]
) -> None:
    assert set(lost("Kept", old, new)) == {f".names.Kept.{place}" for place in places}


def test_what_a_function_takes_by_keyword_defaults_to_or_demands_is_noticed() -> None:
    def loose(one: int, two: int = 0) -> None: ...
    def by_keyword(one: int, *, two: int = 0) -> None: ...
    def stricter(one: int, two: int) -> None: ...
    def longer(one: int, two: int = 0, *, three: int = 0) -> None: ...
    def demanding(one: int, two: int = 0, *, three: int) -> None: ...
    def other(one: int, two: int = 0) -> int: ...

    place = ".names.setting.function"
    assert lost("setting", loose, by_keyword) == [f"{place}.parameters.two"]
    assert lost("setting", loose, stricter) == [f"{place}.parameters.two"]
    assert lost("setting", loose, demanding) == [f"{place}.parameters.three"]
    assert lost("setting", loose, other) == [f"{place}.returns"]
    assert lost("setting", longer, loose) == [f"{place}.parameters.three"]
    assert lost("setting", loose, longer) == []


def test_a_field_that_is_added_and_demanded_is_noticed() -> None:
    class Longer(msgspec.Struct):
        first: int
        third: int
        second: int = 0

    assert lost("Kept", Loose, Longer) == [".names.Kept.fields.third"]


def test_former_names_are_part_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    def before(one: int, two: int = 0) -> None: ...
    def after(one: int, second: int = 0) -> None: ...

    assert lost("setting", before, renamed_parameter("two", "second", "1.1")(after)) == []
    stored = snapshot()
    monkeypatch.setitem(RENAMED, "Keeping", Renamed("Kept", "1.1"))
    renamed = snapshot()
    assert renamed["names"]["Keeping"] == stored["names"]["Kept"]
    assert removed(renamed, stored) == [".names.Keeping"]


def test_what_is_added_takes_nothing_away() -> None:
    assert lost("Kept", Shorter, Loose) == []
