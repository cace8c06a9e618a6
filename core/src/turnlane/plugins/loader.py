"""The loader: imports plugins one by one, checks what they declare and records what became of each.

Whatever one plugin does (it fails to import, raises, calls `sys.exit`) is recorded and never harms
the others: each is registered with a pluggy manager of its own. Only Ctrl-C ends the loading.
"""

import difflib
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import NoReturn, TypeVar

import msgspec
import pluggy

from turnlane.api import (
    CONTRACT_MAJOR,
    CONTRACT_MINOR,
    AdapterDescriptor,
    Direction,
    PlatformTunnelDescriptor,
    ProviderDescriptor,
    hooks,
)
from turnlane.plugins.deprecations import tolerated
from turnlane.plugins.discovery import (
    CHOOSE_VARIABLE,
    DISABLE_VARIABLE,
    Candidate,
    normalized,
)
from turnlane.plugins.records import PluginRecord, PluginStatus, describe, one_line
from turnlane.telemetry import log_event

MAX_DESCRIPTORS = 1000
"""A hook that returns more is taken for one that never ends."""

MAX_ID = 64
"""Characters of an id, which is also the name of a folder."""

_LOG = logging.getLogger(__name__)
_PREFIX = "turnlane_"
_IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_REFERENCE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")

Descriptor = ProviderDescriptor | AdapterDescriptor | PlatformTunnelDescriptor
T = TypeVar("T")
D = TypeVar("D", ProviderDescriptor, AdapterDescriptor, PlatformTunnelDescriptor)


class Kind(StrEnum):
    """The kinds of things a plugin offers; ids are unique within a kind."""

    PROVIDER = "provider"
    INGRESS = "ingress adapter"
    EGRESS = "egress adapter"
    PLATFORM_TUNNEL = "platform tunnel"


@dataclass(frozen=True)
class Offer:
    """What one plugin offers, checked."""

    providers: tuple[ProviderDescriptor, ...]
    ingress_adapters: tuple[AdapterDescriptor, ...]
    egress_adapters: tuple[AdapterDescriptor, ...]
    platform_tunnels: tuple[PlatformTunnelDescriptor, ...]

    def ids(self) -> Iterator[tuple[Kind, str]]:
        """Return the kind and id of everything."""
        for kind, descriptors in (
            (Kind.PROVIDER, self.providers),
            (Kind.INGRESS, self.ingress_adapters),
            (Kind.EGRESS, self.egress_adapters),
            (Kind.PLATFORM_TUNNEL, self.platform_tunnels),
        ):
            yield from ((kind, descriptor.id) for descriptor in descriptors)


@dataclass(frozen=True)
class Loaded:
    """A plugin that is loaded, and what it offers."""

    record: PluginRecord
    offer: Offer


class PluginError(Exception):
    """A plugin is not what it must be: `code` for scripts, `reason` in one line for people."""

    status = PluginStatus.FAILED

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = one_line(reason)


class NewerPluginError(PluginError):
    """A plugin needs a later minor version of the contract than this one."""

    status = PluginStatus.INCOMPATIBLE


def load_plugins(
    candidates: Iterable[Candidate],
    disabled: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
    *,
    judged: Iterable[PluginRecord] = (),
    before: Callable[[Candidate], None] | None = None,
) -> tuple[list[PluginRecord], list[Loaded]]:
    """Load what was discovered; return a record of each and the plugins that are loaded.

    `disabled` holds normalized names of entry points or distributions that are not imported,
    `only`, where it is given, those that are. Where two plugins want the same name or id, the one
    that comes first has it and the other fails. `judged` are records that stand: their plugins are
    not imported again. `before` is called with each plugin before it is imported.
    """
    candidates = list(candidates)
    records: list[PluginRecord] = []
    loaded: list[Loaded] = []
    standing = {_key(record): record for record in judged}
    speaking = {(each.distribution, each.name) for each in candidates if _speaks(each)}
    for candidate in candidates:
        if not _speaks(candidate) and (candidate.distribution, candidate.name) in speaking:
            continue  # the same plugin for another major version, beside the one for ours
        record = candidate.record(PluginStatus.LOADED)
        refusal = gate(candidate, disabled, only) or standing.get(_key(record))
        if refusal is None and before is not None:
            before(candidate)
        records.append(refusal or _load(candidate, candidate.load, loaded))
    known = {normalized(name) for each in candidates for name in (each.name, each.distribution)}
    for variable, named, status in (
        (DISABLE_VARIABLE, disabled, PluginStatus.BLOCKED),
        (CHOOSE_VARIABLE, only or frozenset(), PluginStatus.FAILED),
    ):
        for name in sorted(named - known):
            reason = f"{variable} names it, but no plugin has that name"
            records.append(PluginRecord(name, "", "", status, code="not_installed", reason=reason))
    return records, loaded


def load_modules(modules: Iterable[object]) -> tuple[list[PluginRecord], list[Loaded]]:
    """Load plugins that an embedding application or a test hands in, under the same checks."""
    records: list[PluginRecord] = []
    loaded: list[Loaded] = []
    for module in modules:
        name = str(getattr(module, "__name__", type(module).__qualname__))
        candidate = Candidate(name, hooks.PLUGIN_GROUP, name, "", "")
        records.append(_load(candidate, partial(_same, module), loaded))
    return records, loaded


def gate(
    candidate: Candidate,
    disabled: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
) -> PluginRecord | None:
    """Return the record of a plugin that must not even be imported, or None; imports nothing."""
    if candidate.named_in(disabled):
        reason = f"blocked by {DISABLE_VARIABLE}"
        return candidate.record(PluginStatus.BLOCKED, "blocked", reason)
    if only is not None and not candidate.named_in(only):
        reason = f"not among those that {CHOOSE_VARIABLE} names"
        return candidate.record(PluginStatus.BLOCKED, "not_chosen", reason)
    if candidate.problem:
        reason = f"its metadata cannot be read: {candidate.problem}"
        return candidate.record(PluginStatus.FAILED, "invalid_metadata", reason)
    if not _speaks(candidate):
        older = "the plugin" if candidate.major < CONTRACT_MAJOR else "Turnlane"
        return candidate.record(
            PluginStatus.INCOMPATIBLE,
            "incompatible_major",
            f"written for version {candidate.major} of the plugin contract, this Turnlane speaks "
            f"version {CONTRACT_MAJOR}; update {older}",
        )
    return None


def examine(plugin: object) -> Offer:
    """Check a plugin's hooks, call them and check what they return.

    Raises `PluginError`, or whatever the plugin itself raises.
    """
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    known = [name for name in vars(hooks) if name.startswith(_PREFIX)]
    unknown: PluginError | None = None
    for name in dir(plugin):
        unknown = _check_hook(manager, plugin, name, known) or unknown
    try:
        manager.register(plugin)
    except pluggy.PluginValidationError as error:
        raise PluginError("invalid_hook", str(error)) from error

    def call(hook: str, kind: type[D], direction: Direction | None = None) -> tuple[D, ...]:
        caller: pluggy.HookCaller = getattr(manager.hook, hook)
        if not caller.get_hookimpls():
            return ()
        return _descriptors(hook, caller(), kind, direction)

    offer = Offer(
        providers=call("turnlane_providers", ProviderDescriptor),
        ingress_adapters=call("turnlane_ingress_adapters", AdapterDescriptor, Direction.INGRESS),
        egress_adapters=call("turnlane_egress_adapters", AdapterDescriptor, Direction.EGRESS),
        platform_tunnels=call("turnlane_platform_tunnels", PlatformTunnelDescriptor),
    )
    if unknown is not None:  # told last: a hook that is new is no fault of a plugin that is newer
        raise unknown
    return offer


def _speaks(candidate: Candidate) -> bool:
    return candidate.group == hooks.PLUGIN_GROUP


def _load(candidate: Candidate, load: Callable[[], object], loaded: list[Loaded]) -> PluginRecord:
    """Load one plugin; when it is sound, append it to those that are loaded already."""
    try:
        _check_name(candidate, loaded)
        with tolerated(candidate.name):
            plugin = _guarded("import_failed", "importing it", load)
            offer = _guarded("hook_failed", "asking its hooks", partial(examine, plugin))
        _check_ids(offer, loaded)
    except PluginError as error:
        record = candidate.record(error.status, error.code, error.reason)
        log_event(
            _LOG,
            logging.DEBUG,
            "plugin_failed",
            exc_info=error,
            plugin=record.name,
            distribution=record.distribution,
            code=record.code,
        )
        return record
    record = candidate.record(PluginStatus.LOADED)
    loaded.append(Loaded(record, offer))
    return record


def _same(plugin: object) -> object:
    return plugin


def _guarded(code: str, doing: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except (KeyboardInterrupt, PluginError):
        raise
    except SystemExit as error:
        raise PluginError("exited", f"{doing} called sys.exit({error.code!r})") from error
    except BaseException as error:
        raise PluginError(code, f"{doing} failed: {describe(error)}") from error


def _check_name(candidate: Candidate, earlier: Sequence[Loaded]) -> None:
    for other in earlier:
        if candidate.distribution and normalized(other.record.name) == normalized(candidate.name):
            raise PluginError(
                "duplicate_name",
                f"{_owner(other.record)} is loaded under the same name; "
                f"block one of the two distributions with {DISABLE_VARIABLE}",
            )


def _check_ids(offer: Offer, earlier: Sequence[Loaded]) -> None:
    taken = {key: other.record for other in earlier for key in other.offer.ids()}
    own: set[tuple[Kind, str]] = set()
    for kind, identifier in offer.ids():
        if (kind, identifier) in own:
            raise PluginError("duplicate_id", f"it offers the {kind} {identifier!r} twice")
        own.add((kind, identifier))
        if (kind, identifier) in taken:
            owner = _owner(taken[kind, identifier])
            raise PluginError(
                "duplicate_id",
                f"{owner} already offers the {kind} {identifier!r}; "
                f"block one of the two with {DISABLE_VARIABLE}",
            )


def _check_hook(
    manager: pluggy.PluginManager, plugin: object, name: str, known: Sequence[str]
) -> PluginError | None:
    """Raise what is wrong with a hook; return it where the hook is only one that is not known."""
    options = manager.parse_hookimpl_opts(plugin, name)
    if options is None:
        if name.startswith(_PREFIX) and inspect.isroutine(getattr(plugin, name)):
            raise PluginError("unmarked_hook", f"{name} is not marked with @hookimpl")
        return None
    hook = options.get("specname") or name
    if hook not in known:
        if options.get("optionalhook"):
            return None
        similar = difflib.get_close_matches(hook, known, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        return PluginError("unknown_hook", f"{hook} is not a hook{hint}")
    function = getattr(plugin, name)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        _refuse_async(hook)
    if options.get("wrapper") or options.get("hookwrapper"):
        raise PluginError("invalid_hook", f"{hook} wraps the hook instead of implementing it")
    return None


def _descriptors(
    hook: str, results: list[object], kind: type[D], direction: Direction | None
) -> tuple[D, ...]:
    # pluggy leaves out None, the result of a function that forgot to return.
    result = results[0] if results else None
    if inspect.iscoroutine(result):
        result.close()
        _refuse_async(hook)
    if hasattr(result, "__aiter__") or inspect.isawaitable(result):
        _refuse_async(hook)
    if not isinstance(result, Iterable) or isinstance(result, str | bytes):
        found = type(result).__name__
        raise _invalid(hook, f"returned {found}, not a list")
    given = list(islice(result, MAX_DESCRIPTORS + 1))
    if len(given) > MAX_DESCRIPTORS:
        raise _invalid(hook, f"returned over {MAX_DESCRIPTORS} items")
    return tuple(_descriptor(hook, value, kind, direction) for value in given)


def _descriptor(hook: str, value: object, kind: type[D], direction: Direction | None) -> D:
    if not isinstance(value, kind):
        raise _invalid(hook, f"{type(value).__name__} is no {kind.__name__}")
    # First of all: what follows may not understand what a later version means.
    if type(value.contract_minor) is int and value.contract_minor > CONTRACT_MINOR:
        raise NewerPluginError(
            "incompatible_minor",
            f"{value.id!r} needs version {CONTRACT_MAJOR}.{value.contract_minor} of the plugin "
            f"contract, this Turnlane speaks version {CONTRACT_MAJOR}.{CONTRACT_MINOR}; "
            "update Turnlane",
        )
    # The constructors of msgspec check nothing: the types are checked by a round trip.
    try:
        checked: D = msgspec.convert(msgspec.to_builtins(value), kind)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _invalid(hook, f"{value.id!r}: {error}") from error
    _check_descriptor(hook, checked, direction)
    return checked


def _check_descriptor(hook: str, descriptor: Descriptor, direction: Direction | None) -> None:
    identifier = descriptor.id
    if _IDENTIFIER.fullmatch(identifier) is None or len(identifier) > MAX_ID:
        raise _invalid(hook, f"the id {identifier!r} is not made of lower-case words and hyphens")
    if descriptor.contract_minor < 0:
        raise _invalid(hook, f"the contract_minor of {identifier!r} is negative")
    references = [descriptor.implementation]
    if descriptor.settings is not None:
        references.append(descriptor.settings)
    for reference in references:
        if _REFERENCE.fullmatch(reference) is None:
            raise _invalid(hook, f"{identifier!r}: {reference!r} is not of the form module:Class")
    if isinstance(descriptor, AdapterDescriptor) and descriptor.direction is not direction:
        raise _invalid(hook, f"the direction of {identifier!r} is not {direction}")


def _invalid(hook: str, reason: str) -> PluginError:
    return PluginError("invalid_descriptor", f"{hook}: {reason}")


def _refuse_async(hook: str) -> NoReturn:
    raise PluginError("async_hook", f"{hook} is asynchronous; hooks return descriptors at once")


def _key(record: PluginRecord) -> tuple[str, str, str]:
    return record.distribution, record.name, record.module


def _owner(record: PluginRecord) -> str:
    return f"{record.distribution} ({record.name})" if record.distribution else record.name
