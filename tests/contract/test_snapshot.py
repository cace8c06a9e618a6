"""The contract does not move by accident.

When this fails, the contract has changed. If a plugin written before still works as it is, raise
`CONTRACT_MINOR`; if not, raise `CONTRACT_MAJOR`, which also needs a new entry-point group. Say what
changed in `docs/contract-changes.md`, then store the new snapshot beside the old ones:

    python tests/contract/store_snapshot.py
"""

import itertools
import json
from pathlib import Path
from typing import Any

from turnlane.api import CONTRACT_MAJOR, CONTRACT_MINOR
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
    """Say what of `old` is missing or different in `new`; what `new` adds is no matter."""
    if isinstance(old, dict) and isinstance(new, dict):
        missing = [f"{place}.{key}" for key in old.keys() - new.keys()]
        return missing + [
            found
            for key in old.keys() & new.keys()
            for found in removed(old[key], new[key], f"{place}.{key}")
        ]
    return [] if old == new else [place]


def test_within_a_major_version_nothing_is_taken_away() -> None:
    stored = (HERE / "snapshots").glob(f"{CONTRACT_MAJOR}.*.json")
    by_minor = sorted(stored, key=lambda path: int(path.stem.split(".")[1]))
    versions = [json.loads(each.read_text()) for each in by_minor]
    for older, newer in itertools.pairwise(versions):
        assert removed(older, newer) == []


def test_what_is_taken_away_is_noticed() -> None:
    old = snapshot()
    for name in ("Provider", "Stage", "Resolution"):
        new = snapshot()
        del new["names"][name]
        assert removed(old, new) == [f".names.{name}"]
    new = snapshot()
    new["names"]["Resolution"]["fields"]["renewal"]["default"] = "required"
    assert removed(old, new) == [".names.Resolution.fields.renewal.default"]
