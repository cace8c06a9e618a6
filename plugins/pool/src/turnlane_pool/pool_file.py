"""The operator's file of pools, `pool.toml`: read, checked as a whole, refused with every reason.

    [pools.home]
    strategy = "ordered"            # or "weighted"
    backoff_first = 5               # seconds, the defaults
    backoff_last = 300

    [[pools.home.members]]
    name = "own"                    # the provider's id unless given
    provider = "generic-turn"
    link_file = "own.link"          # or link = "...", or link_env = "VARIABLE"
    settings = { }
    weight = 1                      # weighted pools only

Links and settings are secrets: no message repeats a value, and of keys only plain words.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from turnlane.api import ProviderError, Secret, Violation, ViolationCode
from turnlane_pool.link import PROVIDER_ID, is_name, pool_name
from turnlane_pool.local_files import LocalFileError, read_local

FILE_NAME = "pool.toml"
STAGE = "read_pool"
"""The provider's stage that every error here carries."""

MAX_SIZE = 256 * 1024
MAX_POOLS = 64
MAX_MEMBERS = 32
"""Bounds of what the file holds, and with it of what is remembered between resolutions."""

MAX_WEIGHT = 1000
BACKOFF_FIRST = 5.0
BACKOFF_LAST = 300.0
MAX_BACKOFF = 86400.0
"""Seconds."""

_SOURCES: tuple[Literal["link", "link_file", "link_env"], ...] = ("link", "link_file", "link_env")
_POOL_KEYS = ("strategy", "members", "backoff_first", "backoff_last")
_MEMBER_KEYS = ("provider", "name", "settings", "weight", *_SOURCES)

_WORD = re.compile(r"[a-z][a-z_]{0,23}")
_PROVIDER = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACE = re.compile(r"\(at (?:line \d+, column \d+|end of document)\)")


class Strategy(StrEnum):
    """How the next member is chosen."""

    ORDERED = "ordered"
    WEIGHTED = "weighted"


@dataclass(frozen=True)
class Member:
    """A configured provider in a pool.

    `value` is the link, the path of a file or the name of a variable, as `source` says: a slip may
    have put a link into any of them.
    """

    name: str
    provider: str
    source: Literal["link", "link_file", "link_env"]
    value: Secret[str]
    settings: Mapping[str, object] = field(default_factory=dict, repr=False)
    weight: int = 1


@dataclass(frozen=True)
class Pool:
    """An ordered or weighted set of members; back-off is in seconds."""

    name: str
    strategy: Strategy
    members: tuple[Member, ...]
    backoff_first: float = BACKOFF_FIRST
    backoff_last: float = BACKOFF_LAST


class PoolFileError(ProviderError):
    """The operator's file cannot be used (exit code 2); `violations` has all that is wrong in it.

    Its codes: `missing_pool_file`, `unreadable_pool_file`, `unsafe_pool_file` and
    `invalid_pool_file`.
    """

    exit_code = 2

    def __init__(
        self, code: str, message: str, advice: str, violations: tuple[Violation, ...] = ()
    ) -> None:
        super().__init__(code, message, advice, provider_stage=STAGE)
        self.violations = violations


def read_pools(config_dir: Path) -> dict[str, Pool]:
    """Return the pools of `config_dir / "pool.toml"` by name; raises `PoolFileError`."""
    path = config_dir / FILE_NAME
    document = _parse(path)
    checker = _Checker()
    pools = checker.pools(document)
    if checker.violations:
        violations = tuple(sorted(checker.violations))
        told = "; ".join(f"{each.field}: {each.message} ({each.code})" for each in violations)
        raise PoolFileError(
            "invalid_pool_file",
            f"{path} does not fit: {told}",
            "mend what is listed; nothing of the file is used until then",
            violations,
        )
    return pools


def find_cycle(pools: Mapping[str, Pool], start: str) -> tuple[str, ...] | None:
    """Return the names on a way from `start` that ends in a pool it has passed, or None.

    Only links that stand in the file itself are followed.
    """
    done: set[str] = set()

    def search(name: str, way: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in way:
            return (*way[way.index(name) :], name)
        if name in done or name not in pools:
            return None
        for member in pools[name].members:
            following = pool_name(member.value) if _is_inner_pool(member) else None
            found = search(following, (*way, name)) if following is not None else None
            if found is not None:
                return found
        done.add(name)
        return None

    return search(start, ())


def _is_inner_pool(member: Member) -> bool:
    return member.provider == PROVIDER_ID and member.source == "link"


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = read_local(path, MAX_SIZE)
    except LocalFileError as error:
        if error.kind == "missing":
            advice = "write it: the README of turnlane-pool shows an example"
        elif error.kind == "unsafe":
            advice = "make it yours, and chmod 600 it"
        else:
            advice = "check the path and its mode"
        raise PoolFileError(
            f"{error.kind}_pool_file", f"cannot use {path}: {error.told}", advice
        ) from None
    document, told = _decoded(data)
    # Not raised where it was caught: what the parser raises may carry the text with its links.
    if document is None:
        raise PoolFileError("invalid_pool_file", f"{path} is not TOML{told}", "mend it there")
    return document


def _decoded(data: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        return tomllib.loads(data.decode()), ""
    except UnicodeDecodeError:
        return None, ": it is not UTF-8 text"
    except (ValueError, RecursionError) as error:
        # Of the parser's text only the place is told: the rest may quote what stands there.
        place = _PLACE.search(str(error))
        return None, f" {place[0]}" if place is not None else ""


class _Checker:
    """Makes pools of a document and notes what is wrong, all of it."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def pools(self, document: Mapping[str, Any]) -> dict[str, Pool]:
        self._unknown(document, ("pools",), "")
        tables = document.get("pools")
        if tables is None:
            self._refuse("pools", "required", "there is no pool: write [pools.NAME]")
            return {}
        if not isinstance(tables, dict):
            self._refuse("pools", "type", "expected tables: write [pools.NAME]")
            return {}
        if not 1 <= len(tables) <= MAX_POOLS:
            self._refuse("pools", "range", f"at least 1 and at most {MAX_POOLS} pools")
        pools = {}
        for number, (name, table) in enumerate(tables.items()):
            place = f"pools.{name}"
            if not is_name(name):
                place = f"pools[{number}]"
                self._refuse(place, "pattern", "a name has letters, digits, _ . and - only")
            pools[name] = self._pool(name, table, place)
        return pools

    def _pool(self, name: str, table: object, place: str) -> Pool:
        if not isinstance(table, dict):
            self._refuse(place, "type", "expected a table")
            return Pool(name, Strategy.ORDERED, ())
        self._unknown(table, _POOL_KEYS, place)
        strategy = self._strategy(table, place)
        members = self._members(table, place, strategy)
        first = self._seconds(table, "backoff_first", BACKOFF_FIRST, place)
        last = self._seconds(table, "backoff_last", BACKOFF_LAST, place)
        if last < first:
            self._refuse(f"{place}.backoff_last", "range", "at least backoff_first")
        return Pool(name, strategy or Strategy.ORDERED, members, first, last)

    def _strategy(self, table: Mapping[str, Any], place: str) -> Strategy | None:
        given = table.get("strategy")
        place = f"{place}.strategy"
        listed = ", ".join(Strategy)
        if given is None:
            self._refuse(place, "required", f"one of {listed}")
        elif not isinstance(given, str):
            self._refuse(place, "type", "expected text")
        elif given not in list(Strategy):
            self._refuse(place, "enum", f"one of {listed}")
        else:
            return Strategy(given)
        return None

    def _members(
        self, table: Mapping[str, Any], place: str, strategy: Strategy | None
    ) -> tuple[Member, ...]:
        given = table.get("members")
        place = f"{place}.members"
        if given is None:
            self._refuse(place, "required", "there is no member")
            return ()
        if not isinstance(given, list):
            self._refuse(place, "type", "expected a list of tables")
            return ()
        if not 1 <= len(given) <= MAX_MEMBERS:
            self._refuse(place, "range", f"at least 1 and at most {MAX_MEMBERS} members")
        members: list[Member] = []
        for number, each in enumerate(given):
            member = self._member(each, f"{place}[{number}]", strategy)
            if member is not None and any(member.name == other.name for other in members):
                told = "another member has this name: give each its own"
                self._refuse(f"{place}[{number}].name", "enum", told)
            members += [member] if member is not None else []
        return tuple(members)

    def _member(self, table: object, place: str, strategy: Strategy | None) -> Member | None:
        if not isinstance(table, dict):
            self._refuse(place, "type", "expected a table")
            return None
        self._unknown(table, _MEMBER_KEYS, place)
        provider = self._text(table, "provider", place, required=True)
        if provider is not None and _PROVIDER.fullmatch(provider) is None:
            self._refuse(f"{place}.provider", "pattern", "expected the id of a provider")
            provider = None
        name = self._text(table, "name", place)
        if name is not None and not is_name(name):
            told = "a name has letters, digits, _ . and - only"
            self._refuse(f"{place}.name", "pattern", told)
        settings = table.get("settings", {})
        if not isinstance(settings, dict):
            self._refuse(f"{place}.settings", "type", "expected a table")
        weight = self._weight(table, place, strategy)
        source, value = self._source(table, place)
        if provider is None or source is None:
            return None
        return Member(name or provider, provider, source, Secret(value), settings, weight)

    def _source(
        self, table: Mapping[str, Any], place: str
    ) -> tuple[Literal["link", "link_file", "link_env"] | None, str]:
        given = [source for source in _SOURCES if source in table]
        listed = ", ".join(_SOURCES)
        if not given:
            self._refuse(f"{place}.link", "required", f"one of {listed}")
        texts = [self._text(table, source, place) for source in given]
        if len(given) > 1:
            told = f"it does not stand beside {given[0]}: exactly one of {listed}"
            self._refuse(f"{place}.{given[-1]}", "unknown", told)
        if len(given) != 1 or texts[0] is None:
            return None, ""
        if given[0] == "link_env" and _VARIABLE.fullmatch(texts[0]) is None:
            told = "expected the name of a variable"
            self._refuse(f"{place}.link_env", "pattern", told)
        return given[0], texts[0]

    def _text(
        self, table: Mapping[str, Any], key: str, place: str, *, required: bool = False
    ) -> str | None:
        given = table.get(key)
        if given is None:
            if required:
                self._refuse(f"{place}.{key}", "required", "it has no default")
        elif not isinstance(given, str):
            self._refuse(f"{place}.{key}", "type", "expected text")
        elif not given:
            self._refuse(f"{place}.{key}", "range", "it is empty")
        else:
            return given
        return None

    def _weight(self, table: Mapping[str, Any], place: str, strategy: Strategy | None) -> int:
        given = table.get("weight")
        place = f"{place}.weight"
        if given is None:
            return 1
        if type(given) is not int:  # True and False are int to Python
            self._refuse(place, "type", "expected whole number")
        elif not 1 <= given <= MAX_WEIGHT:
            self._refuse(place, "range", f"at least 1 and at most {MAX_WEIGHT}")
        elif strategy is Strategy.ORDERED:
            self._refuse(place, "unknown", "an ordered pool has no weights")
        else:
            return given
        return 1

    def _seconds(self, table: Mapping[str, Any], key: str, default: float, place: str) -> float:
        given = table.get(key, default)
        if type(given) not in (int, float):
            self._refuse(f"{place}.{key}", "type", "expected number")
        elif not 1 <= given <= MAX_BACKOFF:
            self._refuse(f"{place}.{key}", "range", f"at least 1 and at most {MAX_BACKOFF:.0f}")
        else:
            return float(given)
        return default

    def _unknown(self, table: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
        for key in table.keys() - set(known):
            shown = key if _WORD.fullmatch(key) else "?"
            told = f"there is no such key; known here: {', '.join(known)}"
            self._refuse(f"{place}.{shown}" if place else shown, "unknown", told)

    def _refuse(self, place: str, code: ViolationCode, message: str) -> None:
        self.violations.append(Violation(place, code, message))
