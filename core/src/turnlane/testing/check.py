"""The check of a distribution: the fitting conformance kit on everything that it offers.

    for verdict in check(find("turnlane-acme", os.environ), Wishes()): ...

Where nobody says otherwise, a provider resolves its first example link, adapters are at an address
of this machine, and tunnels are looked at but not opened. What such a derived case cannot show is
not judged; it neither reaches the network nor changes this host.
"""

import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

import anyio
import msgspec

from turnlane.api import (
    AdapterDescriptor,
    Direction,
    PlatformTunnelDescriptor,
    PolicyError,
    ProviderDescriptor,
    Secret,
    TrafficClass,
    TurnlaneError,
    UnavailableError,
)
from turnlane.plugins.discovery import chosen_names, disabled_names, discover_plugins, normalized
from turnlane.plugins.loader import Kind, Loaded, load_plugins
from turnlane.plugins.manager import PluginManager
from turnlane.plugins.records import PluginRecord, PluginStatus
from turnlane.plugins.settings import secrets, validate
from turnlane.telemetry.redaction import MIN_LENGTH
from turnlane.testing import adapter_bench, adapter_checks, provider_checks, tunnel_checks
from turnlane.testing.adapter_bench import AdapterCase
from turnlane.testing.adapter_ends import closing_end, end_of
from turnlane.testing.findings import Finding, NotJudgedError, findings
from turnlane.testing.offline import offline
from turnlane.testing.provider_bench import CRASHED, ProviderCase, bench
from turnlane.testing.tunnel_bench import TunnelCase

Case = ProviderCase | AdapterCase | TunnelCase

PATIENCE = 120.0
"""Seconds that one check may take."""

ADDRESSES = {Direction.INGRESS: "127.0.0.1:0", Direction.EGRESS: "127.0.0.1:{port}"}
"""Where adapters are: at a free port, or at the upstream of the kit."""

BAD_ADDRESSES = ("no address", "127.0.0.1:65536")

LOADS = "plugin_loads"
"""The check that comes before all others."""

HARMLESS = (
    tunnel_checks.descriptor_is_complete,
    tunnel_checks.class_is_importable,
    tunnel_checks.capability_is_told,
    tunnel_checks.unavailable_is_refused,
    tunnel_checks.refuses_bad_settings,
)
"""The checks of a tunnel that open no device where one could be had."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_TALKING = (
    adapter_checks.descriptor_is_complete,
    adapter_checks.class_is_importable,
    adapter_checks.refuses_bad_addresses,
    adapter_checks.refuses_bad_settings,
)
"""The checks of an ingress that say nothing to it."""


@dataclass(frozen=True)
class Wishes:
    """What an operator says in place of what is derived.

    `link`, `bad_links` and `settings` (texts) are for the one provider of the distribution, and
    `cases` for whatever they name.
    """

    link: Secret[str] | None = None
    bad_links: tuple[str, ...] = ()
    settings: Mapping[str, Secret[str]] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()

    @property
    def for_provider(self) -> bool:
        """Whether anything is said about a provider."""
        return bool(self.link or self.bad_links or self.settings)


@dataclass(frozen=True)
class Installed:
    """A distribution, its plugins as they were loaded, and the modules of those that are."""

    distribution: str
    version: str
    records: tuple[PluginRecord, ...]
    loaded: tuple[tuple[Loaded, object], ...]

    def offers(self) -> Iterator[tuple[Kind, Any, object]]:
        """Return the kind, the descriptor and the plugin of everything that is offered."""
        for each, module in self.loaded:
            for kind, descriptors in (
                (Kind.PROVIDER, each.offer.providers),
                (Kind.INGRESS, each.offer.ingress_adapters),
                (Kind.EGRESS, each.offer.egress_adapters),
                (Kind.PLATFORM_TUNNEL, each.offer.platform_tunnels),
            ):
                for descriptor in descriptors:
                    yield kind, descriptor, module


@dataclass(frozen=True)
class Trial:
    """A case to run the kit on; `derived` says that nobody but the descriptor asks for it.

    Where there is a `reason`, only the checks of `judged` are run; the others are not judged for
    that reason.
    """

    kind: Kind
    identifier: str
    case: Case
    derived: bool = False
    judged: tuple[Any, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """What one check found of one thing, on one backend; `kind` is `plugin` for the loading."""

    kind: str
    identifier: str
    backend: str
    finding: Finding


def backends() -> tuple[str, ...]:
    """Return the backends that checks run on: asyncio, and trio where it is installed."""
    return ("asyncio", "trio") if find_spec("trio") is not None else ("asyncio",)


def find(distribution: str, environ: Mapping[str, str]) -> Installed:
    """Load the plugins of an installed distribution, and no others.

    Raises `UnavailableError`: `distribution_not_installed`, or `nothing_to_check` where it declares
    no plugin, or its plugins offer nothing.
    """
    own = [
        each
        for each in discover_plugins()
        if normalized(each.distribution) == normalized(distribution)
    ]
    if not own:
        try:
            found = metadata.version(distribution)
        except (metadata.PackageNotFoundError, ValueError):
            raise UnavailableError(
                "distribution_not_installed",
                f"there is no distribution {distribution!r} here",
                "`turnlane plugins list` names those that have plugins",
            ) from None
        raise _nothing(f"{distribution} {found} declares no plugin")
    records, loaded = load_plugins(own, disabled_names(environ), chosen_names(environ))
    named = {each.name: each for each in own}
    installed = Installed(
        own[0].distribution,
        own[0].version,
        tuple(record for record in records if record.distribution),
        tuple((each, named[each.record.name].load()) for each in loaded),
    )
    whole = all(record.status is PluginStatus.LOADED for record in installed.records)
    if whole and not list(installed.offers()):
        raise _nothing(f"the plugins of {installed.distribution} offer nothing")
    return installed


def plan(installed: Installed, wishes: Wishes) -> list[Trial]:
    """Return what to run the kits on.

    Raises `PolicyError` (`unknown_case`, `ambiguous_provider`, `unknown_setting`) and
    `SettingsError` for wishes that nothing here can fulfil.
    """
    offers = {(kind, descriptor.id): module for kind, descriptor, module in installed.offers()}
    given: dict[tuple[Kind, str], list[Case]] = {}
    for case in wishes.cases:
        if _key(case) not in offers:
            raise PolicyError(
                "unknown_case",
                f"{installed.distribution} offers no {' '.join(_key(case))}",
                f"it offers: {', '.join(' '.join(key) for key in offers) or 'nothing'}",
            )
        given.setdefault(_key(case), []).append(case)
    providers = [key for key in offers if key[0] is Kind.PROVIDER and key not in given]
    if wishes.for_provider and len(providers) != 1:
        raise PolicyError(
            "ambiguous_provider",
            f"a link or settings are given, and {len(providers)} providers could take them",
            "give --cases instead",
        )
    trials = []
    for kind, descriptor, module in installed.offers():
        cases = given.get((kind, descriptor.id))
        if cases is not None:
            trials += [Trial(kind, descriptor.id, case) for case in cases]
        else:
            trials.append(_derived(kind, descriptor, module, wishes))
    return trials


def check(installed: Installed, trials: Sequence[Trial]) -> Iterator[Verdict]:
    """Run every check of every trial on every backend.

    What plugins print goes to standard error.
    """
    for record in installed.records:
        judged = record.status is not PluginStatus.BLOCKED
        passed = record.wanted
        finding = Finding(LOADS, passed, f"{record.reason}", judged)
        yield Verdict("plugin", record.name, "", finding)
    for trial in trials:
        for backend in backends():
            with redirect_stdout(sys.stderr):
                found = anyio.run(_run, trial, backend=backend)
            for finding in found:
                yield Verdict(trial.kind.value, trial.identifier, backend, finding)


async def _run(trial: Trial) -> list[Finding]:
    case, derived = trial.case, trial.derived
    kit: tuple[Any, ...] = tunnel_checks.CHECKS
    first: Any = None
    hindrance: Callable[[], Awaitable[str | None]] | None = None
    match case:
        case ProviderCase():
            kit, first = provider_checks.CHECKS, provider_checks.resolves_the_link
            hindrance = partial(_unresolved, case)
        case AdapterCase():
            kit, first = adapter_checks.CHECKS, adapter_checks.opens_the_good_address
            hindrance = partial(_unopened, case)
    found = []
    with offline() if derived else nullcontext():
        reasons = {first: await hindrance()} if derived and hindrance is not None else {}
        if trial.reason:
            reasons |= {each: trial.reason for each in kit if each not in trial.judged}
        for each in kit:
            reason = reasons.get(each)
            found.append(
                await _find(each, case)
                if reason is None
                else Finding(_name(each), True, reason, judged=False)
            )
    return found


async def _find(each: Callable[[Any], Awaitable[None]], case: Case) -> Finding:
    found: list[Finding] = []
    with anyio.move_on_after(PATIENCE):
        found = await findings((each,), case)
    return found[0] if found else Finding(_name(each), False, f"it took over {PATIENCE:.0f} s")


async def _unresolved(case: ProviderCase) -> str | None:
    """Say why the example link does not resolve, where it is no fault; None where it does."""
    try:
        with bench(case) as made:
            made.load()
            outcome = await made.attempt()
    except NotJudgedError:
        return None
    if not isinstance(outcome, TurnlaneError) or outcome.code in (CRASHED, "invalid_resolution"):
        return None
    return (
        f"the example link does not resolve here, without the network ({outcome.code}): give "
        "another with --link-file, or a case with --cases"
    )


async def _unopened(case: AdapterCase) -> str | None:
    """Say why the address does not fit the adapter, where it is no fault; None where it does."""
    made = adapter_bench.Bench(case)
    try:
        made.load()
        end = end_of(made)
    except NotJudgedError:
        return None
    async with closing_end(end):
        error = await made.try_address(made.address(end.upstream.address[1]))
    if not isinstance(error, TurnlaneError):
        return None
    return f"it does not open at 127.0.0.1 ({error.code}): give a case with --cases"


def _derived(kind: Kind, descriptor: Any, module: object, wishes: Wishes) -> Trial:
    match descriptor:
        case ProviderDescriptor():
            case = _provider_case(descriptor, module, wishes)
            return Trial(kind, case.provider, case, derived=not wishes.for_provider)
        case AdapterDescriptor():
            address = ADDRESSES[descriptor.direction]
            at = AdapterCase(module, descriptor.direction, descriptor.id, address, BAD_ADDRESSES)
            if not _asks_for_destinations(descriptor, module):
                return Trial(kind, descriptor.id, at, True)
            reason = "applications tell it a destination: say how with --cases"
            return Trial(kind, descriptor.id, at, True, _TALKING, reason)
        case PlatformTunnelDescriptor():
            reason = "it would change this host: say how with --cases"
            of = TunnelCase(module, descriptor.id)
            return Trial(kind, descriptor.id, of, True, HARMLESS, reason)
    raise AssertionError(descriptor)


def _asks_for_destinations(descriptor: AdapterDescriptor, module: object) -> bool:
    """Whether an ingress has nothing at its other end but what dials the client's choice."""
    if descriptor.direction is not Direction.INGRESS or descriptor.traffic is TrafficClass.DATAGRAM:
        return False
    plugins = PluginManager.from_modules([module])
    ends = [pair.egress for pair in plugins.pairs() if pair.ingress == descriptor.id]
    return bool(ends) and all(plugins.egress_adapter(end).dials_client_choice for end in ends)


def _provider_case(descriptor: ProviderDescriptor, module: object, wishes: Wishes) -> ProviderCase:
    example = descriptor.example_links[0] if descriptor.example_links else ""
    link = wishes.link.reveal() if wishes.link else example
    settings, hidden = _settings(descriptor, module, wishes.settings)
    if link not in descriptor.example_links:
        _, _, rest = link.partition("://")
        password = rest.rpartition("@")[0].partition(":")[2]
        hidden += (link, password, unquote(password))
    return ProviderCase(
        plugin=module,
        provider=descriptor.id,
        link=link,
        bad_links=wishes.bad_links or _bad_links(link),
        settings=settings,
        secrets=tuple(each for each in hidden if len(each) >= MIN_LENGTH),
    )


def _settings(
    descriptor: ProviderDescriptor, module: object, texts: Mapping[str, Secret[str]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return settings as a file would have them, and the secrets among them."""
    if not texts:
        return {}, ()
    if descriptor.settings is None:
        raise PolicyError(
            "unknown_setting", f"the provider {descriptor.id} has no settings", "leave --set out"
        )
    schema = PluginManager.from_modules([module]).load_settings(descriptor.settings)
    owner = f"the provider {descriptor.id}"
    made = validate(schema, {name: text.reveal() for name, text in texts.items()}, owner, text=True)
    told = msgspec.to_builtins(made, enc_hook=Secret.reveal)
    return {name: told[name] for name in texts}, tuple(str(each.reveal()) for each in secrets(made))


def _bad_links(link: str) -> tuple[str, ...]:
    """Return links that the provider of `link` refuses: without a rest, a scheme, its own."""
    found = _SCHEME.fullmatch(link)
    if found is None:
        return ("no link",)
    return (f"{found[1]}:", "no link", f"not-{found[1]}:{found[2]}")


def _key(case: Case) -> tuple[Kind, str]:
    match case:
        case ProviderCase():
            return Kind.PROVIDER, case.provider
        case TunnelCase():
            return Kind.PLATFORM_TUNNEL, case.tunnel
    return Kind(f"{case.direction} adapter"), case.adapter


def _name(each: Callable[[Any], Awaitable[None]]) -> str:
    name: str = getattr(each, "__name__")  # noqa: B009 the type of a function has none
    return name


def _nothing(what: str) -> UnavailableError:
    return UnavailableError(
        "nothing_to_check", what, "a plugin's entry point stands in the group turnlane.plugins.v1"
    )
