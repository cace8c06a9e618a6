"""Discovery: which plugins and commands the installed distributions declare.

Reads metadata only; no plugin is imported here.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata

from turnlane.api import COMMAND_GROUP, PLUGIN_GROUP
from turnlane.plugins.records import PluginRecord, PluginStatus, describe

DISABLE_VARIABLE = "TURNLANE_DISABLE_PLUGINS"
"""Environment variable with the names of entry points or distributions to block, by commas."""

CHOOSE_VARIABLE = "TURNLANE_PLUGINS"
"""Environment variable with the names of the only ones to load; set but empty, none is loaded."""

_PLUGIN_GROUPS = re.compile(r"turnlane\.plugins\.v([0-9]{1,6})")
_PREFIX = "turnlane-"


@dataclass(frozen=True)
class Candidate:
    """An entry point of an installed distribution.

    `problem` says why the declaration cannot be used; then `name` and `value` are empty.
    """

    name: str
    group: str
    value: str
    distribution: str
    version: str
    problem: str = ""
    entry_point: metadata.EntryPoint | None = field(default=None, repr=False, compare=False)

    @property
    def major(self) -> int:
        """The major version of the contract that a plugin's group names; 0 for a command."""
        found = _PLUGIN_GROUPS.fullmatch(self.group)
        return int(found[1]) if found else 0

    def named_in(self, names: frozenset[str]) -> bool:
        """Tell whether `names` (normalized) holds the entry point's or the distribution's name."""
        return bool({normalized(self.name), normalized(self.distribution)} & names)

    def record(self, status: PluginStatus, code: str = "", reason: str = "") -> PluginRecord:
        """Return the record of what became of it."""
        return PluginRecord(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            status=status,
            module=self.value,
            code=code,
            reason=reason,
        )

    def load(self) -> object:
        """Import what the entry point names. Raises whatever the import raises."""
        if self.entry_point is None:
            raise ImportError(self.problem)
        return self.entry_point.load()


def normalized(name: str) -> str:
    """Return a name as packaging compares it: lower case, runs of `-_.` as one hyphen."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def disabled_names(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the normalized names that `TURNLANE_DISABLE_PLUGINS` blocks."""
    return _names(environ.get(DISABLE_VARIABLE, ""))


def chosen_names(environ: Mapping[str, str]) -> frozenset[str] | None:
    """Return the normalized names that `TURNLANE_PLUGINS` chooses, None where it is not set."""
    chosen = environ.get(CHOOSE_VARIABLE)
    return None if chosen is None else _names(chosen)


def discover_plugins(path: list[str] | None = None) -> tuple[Candidate, ...]:
    """Return the plugins that are declared for any major version of the contract.

    Ordered by distribution and name, those named `turnlane-…` before others: where two want the
    same id the first has it, and nobody takes an id over by an early name. `path` replaces
    `sys.path` as the place to look.
    """
    return _discover(lambda group: _PLUGIN_GROUPS.fullmatch(group) is not None, path)


def discover_commands(
    disabled: frozenset[str] = frozenset(),
    path: list[str] | None = None,
    *,
    only: frozenset[str] | None = None,
) -> tuple[Candidate, ...]:
    """Return the commands that plugins declare, without those that `disabled` blocks.

    Where `only` is given, without those that it does not name.
    """
    found = _discover(lambda group: group == COMMAND_GROUP, path)
    return tuple(
        each
        for each in found
        if not each.problem
        and not each.named_in(disabled)
        and (only is None or each.named_in(only))
    )


def _names(listed: str) -> frozenset[str]:
    return frozenset(normalized(name) for name in listed.split(",") if name.strip())


def _discover(wanted: Callable[[str], bool], path: list[str] | None) -> tuple[Candidate, ...]:
    search = sys.path if path is None else path
    found: dict[tuple[str, str, str], Candidate] = {}
    for distribution in metadata.distributions(path=search):
        for candidate in _declared(distribution, wanted, search):
            key = (normalized(candidate.distribution), candidate.group, candidate.name)
            found.setdefault(key, candidate)
    return tuple(
        found[key] for key in sorted(found, key=lambda key: (not key[0].startswith(_PREFIX), key))
    )


def _declared(
    distribution: metadata.Distribution, wanted: Callable[[str], bool], search: list[str]
) -> Iterator[Candidate]:
    # The file is looked at before it is parsed, and the distribution's name is asked only where it
    # matters: reading all metadata of a large environment takes longer than the rest of `--help`.
    name = version = ""
    try:
        text = distribution.read_text("entry_points.txt") or ""
        if "turnlane." not in text:
            return
        name, version = str(distribution.metadata["Name"]), str(distribution.version)
        # An installed distribution hides others of its name that come later on the path.
        first = next(iter(metadata.distributions(name=name, path=search)))
        if first.read_text("entry_points.txt") != text:
            return
        entry_points = [each for each in distribution.entry_points if wanted(each.group)]
    except Exception as error:  # one distribution's broken metadata must not hide the others
        yield Candidate("", PLUGIN_GROUP, "", name, version, problem=describe(error))
        return
    for each in entry_points:
        yield Candidate(each.name, each.group, each.value, name, version, entry_point=each)
