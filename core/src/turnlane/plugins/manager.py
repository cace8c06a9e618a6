"""The manager: a typed facade over everything that the loaded plugins offer."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Self, TypeVar, cast

import msgspec

from turnlane.api import (
    AdapterContext,
    AdapterDescriptor,
    Direction,
    PlatformTunnel,
    PlatformTunnelDescriptor,
    Provider,
    ProviderContext,
    ProviderDescriptor,
    TrafficClass,
    UnavailableError,
)
from turnlane.plugins.deprecations import tolerated
from turnlane.plugins.discovery import chosen_names, disabled_names, discover_plugins
from turnlane.plugins.loader import Kind, Loaded, load_modules, load_plugins
from turnlane.plugins.records import PluginRecord, PluginStatus, describe
from turnlane.plugins.settings import describe as describe_settings

ProviderClass = Callable[[ProviderContext], Provider]
AdapterClass = Callable[[AdapterContext, str, msgspec.Struct | None], Any]
"""Makes a `DatagramIngress` or a `DatagramEgress`, as the descriptor says."""

TunnelClass = Callable[[msgspec.Struct | None], PlatformTunnel]

_REPAIR = "update or reinstall the plugin; `turnlane plugins list` tells which distribution it is"

V = TypeVar("V")


class Pair(msgspec.Struct, frozen=True, order=True):
    """An ingress and an egress adapter, by id, that are declared to work together."""

    ingress: str
    egress: str
    traffic: TrafficClass


class PluginsNotLoadedError(UnavailableError):
    """Plugins failed or are incompatible where none may; `records` has all of them."""

    def __init__(self, records: Sequence[PluginRecord]) -> None:
        broken = sum(not record.wanted for record in records)
        super().__init__(
            "plugins_not_loaded",
            f"{broken} of {len(records)} plugins failed or are incompatible",
            "mend or block them, or leave --strict-plugins out",
        )
        self.records = tuple(records)
        self.details = tuple(str(record) for record in records)


class PluginManager:
    """Answers what is offered, by whom, and imports a class when it is first needed.

    Selection is by id alone; what two plugins both want to be called was settled by the loader.
    """

    def __init__(self, records: Sequence[PluginRecord], loaded: Sequence[Loaded]) -> None:
        self.records = tuple(records)
        offers = [each.offer for each in loaded]
        self._providers = {each.id: each for offer in offers for each in offer.providers}
        self._ingress = {each.id: each for offer in offers for each in offer.ingress_adapters}
        self._egress = {each.id: each for offer in offers for each in offer.egress_adapters}
        self._tunnels = {each.id: each for offer in offers for each in offer.platform_tunnels}
        self._owners = {key: each.record for each in loaded for key in each.offer.ids()}

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, strict: bool = False) -> Self:
        """Load what is installed, but for what `TURNLANE_DISABLE_PLUGINS` blocks.

        Where `TURNLANE_PLUGINS` is set, only what it names. `environ` replaces the process's
        environment. Never raises because of a plugin, unless it is to be `strict`: then
        `PluginsNotLoadedError`, where one failed or is incompatible.
        """
        environ = os.environ if environ is None else environ
        records, loaded = load_plugins(
            discover_plugins(), disabled_names(environ), chosen_names(environ)
        )
        if strict and not all(record.wanted for record in records):
            raise PluginsNotLoadedError(records)
        return cls(records, loaded)

    @classmethod
    def from_modules(cls, modules: Iterable[object]) -> Self:
        """Load exactly these modules (or objects with hooks), whatever is installed."""
        return cls(*load_modules(modules))

    def providers(self) -> dict[str, ProviderDescriptor]:
        """Return the providers by id, in alphabetical order."""
        return _sorted(self._providers)

    def ingress_adapters(self) -> dict[str, AdapterDescriptor]:
        """Return the ingress adapters by id, in alphabetical order."""
        return _sorted(self._ingress)

    def egress_adapters(self) -> dict[str, AdapterDescriptor]:
        """Return the egress adapters by id, in alphabetical order."""
        return _sorted(self._egress)

    def platform_tunnels(self) -> dict[str, PlatformTunnelDescriptor]:
        """Return the platform tunnels by id, in alphabetical order."""
        return _sorted(self._tunnels)

    def owner(self, kind: Kind, identifier: str) -> PluginRecord:
        """Return the record of the plugin that offers something; raises `KeyError`."""
        return self._owners[kind, identifier]

    def pairs(self) -> list[Pair]:
        """Return the supported pairs, in alphabetical order.

        Both adapters carry the same class of traffic, and at least one declares the other.
        """
        return sorted(
            Pair(ingress.id, egress.id, ingress.traffic)
            for ingress in self._ingress.values()
            for egress in self._egress.values()
            if ingress.traffic is egress.traffic
            and (egress.id in ingress.pairs_with or ingress.id in egress.pairs_with)
        )

    def provider(self, identifier: str) -> ProviderDescriptor:
        """Return one provider; raises `UnavailableError` (`unknown_provider`)."""
        return self._find(self._providers, Kind.PROVIDER, "unknown_provider", identifier)

    def ingress_adapter(self, identifier: str) -> AdapterDescriptor:
        """Return one ingress adapter; raises `UnavailableError` (`unknown_adapter`)."""
        return self._find(self._ingress, Kind.INGRESS, "unknown_adapter", identifier)

    def egress_adapter(self, identifier: str) -> AdapterDescriptor:
        """Return one egress adapter; raises `UnavailableError` (`unknown_adapter`)."""
        return self._find(self._egress, Kind.EGRESS, "unknown_adapter", identifier)

    def platform_tunnel(self, identifier: str) -> PlatformTunnelDescriptor:
        """Return one platform tunnel; raises `UnavailableError` (`unknown_tunnel`)."""
        return self._find(self._tunnels, Kind.PLATFORM_TUNNEL, "unknown_tunnel", identifier)

    def pair(self, ingress: str, egress: str) -> Pair:
        """Return a supported pair.

        Raises `UnavailableError`: `unknown_adapter`, or `unsupported_pair` when both exist.
        """
        first, second = self.ingress_adapter(ingress), self.egress_adapter(egress)
        pairs = self.pairs()
        wanted = Pair(ingress, egress, first.traffic)
        if wanted in pairs:
            return wanted
        if first.traffic is not second.traffic:
            cause = f": one carries {first.traffic}s, the other {second.traffic}s"
        else:
            cause = ": neither adapter declares the other"
        listed = ", ".join(f"{pair.ingress} -> {pair.egress}" for pair in pairs)
        raise UnavailableError(
            "unsupported_pair",
            f"the pair {ingress} -> {egress} is not supported{cause}",
            f"supported pairs: {listed or 'none'}",
        )

    def load_provider(self, identifier: str) -> ProviderClass:
        """Import the class of a provider.

        Raises `UnavailableError`: `unknown_provider`, `import_failed`, `invalid_implementation`,
        or the one that the plugin's own module raises.
        """
        descriptor = self.provider(identifier)
        what = f"the {Kind.PROVIDER} {identifier!r}"
        return cast("ProviderClass", _load_class(what, descriptor.implementation, ("resolve",)))

    def load_adapter(self, descriptor: AdapterDescriptor) -> AdapterClass:
        """Import the class of an adapter that this manager offers; raises as `load_provider`."""
        ingress = descriptor.direction is Direction.INGRESS
        kind = Kind.INGRESS if ingress else Kind.EGRESS
        methods = ("open",) if ingress else ("prepare", "connect")
        what = f"the {kind} {descriptor.id!r}"
        return cast("AdapterClass", _load_class(what, descriptor.implementation, methods))

    def load_tunnel(self, descriptor: PlatformTunnelDescriptor) -> TunnelClass:
        """Import the class of a platform tunnel of this manager; raises as `load_provider`."""
        what = f"the {Kind.PLATFORM_TUNNEL} {descriptor.id!r}"
        return cast(
            "TunnelClass", _load_class(what, descriptor.implementation, ("capability", "open"))
        )

    def load_settings(self, reference: str) -> type[msgspec.Struct]:
        """Import the settings schema that a descriptor names; raises as `load_provider` does."""
        found = _load_class("a settings schema", reference)
        if not issubclass(found, msgspec.Struct):
            raise _invalid("a settings schema", reference, "is no msgspec.Struct")
        try:
            describe_settings(found)
        except Exception as error:
            cause = f"cannot be read: {describe(error)}"
            raise _invalid("a settings schema", reference, cause) from error
        return found

    def _find(self, offered: Mapping[str, V], kind: Kind, code: str, identifier: str) -> V:
        if identifier in offered:
            return offered[identifier]
        listed = ", ".join(sorted(offered))
        advice = f"available: {listed}" if listed else f"install a plugin that offers a {kind}"
        missing = sum(record.status is not PluginStatus.LOADED for record in self.records)
        if missing:
            advice += f"; not loaded: {missing}, see `turnlane plugins list`"
        raise UnavailableError(code, f"there is no {kind} named {identifier!r}", advice)


def _load_class(what: str, reference: str, methods: Sequence[str] = ()) -> type[object]:
    module, _, name = reference.partition(":")
    try:
        with tolerated(what):
            found = getattr(import_module(module), name)
    except (KeyboardInterrupt, UnavailableError):
        raise
    except BaseException as error:
        raise UnavailableError(
            "import_failed",
            f"{what} could not be imported from {reference}: {describe(error)}",
            _REPAIR,
        ) from error
    if not isinstance(found, type):
        raise _invalid(what, reference, "is no class")
    for method in methods:
        if not callable(getattr(found, method, None)):
            raise _invalid(what, reference, f"has no method {method}")
    return found


def _invalid(what: str, reference: str, cause: str) -> UnavailableError:
    return UnavailableError("invalid_implementation", f"{what}: {reference} {cause}", _REPAIR)


def _sorted(offered: Mapping[str, V]) -> dict[str, V]:
    return {identifier: offered[identifier] for identifier in sorted(offered)}
