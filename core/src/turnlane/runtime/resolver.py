"""Runs providers: settings checked before, answers checked after, faults told as theirs."""

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import NoneType
from typing import Any

import anyio
import msgspec
import platformdirs

from turnlane.api import (
    ChallengePort,
    Credentials,
    PolicyError,
    Provider,
    ProviderDescriptor,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Renewal,
    Resolution,
    ResolveRequest,
    Secret,
    TurnlaneError,
)
from turnlane.plugins.manager import PluginManager
from turnlane.plugins.settings import validate
from turnlane.runtime.profiles import ProviderProfile
from turnlane.telemetry import span

RESOLVE_TIMEOUT = 60.0
INTERACTIVE_TIMEOUT = 900.0
"""Seconds that a provider may take, without and with a human."""

MAX_DEPTH = 4
"""Providers that use each other, one inside the other; more are a cycle."""

MAX_ENDPOINTS = 32


def default_config_dir() -> Path:
    """Return the operator's folder of local configuration files."""
    return Path(platformdirs.user_config_dir("turnlane"))


class Resolver:
    """Resolves links through providers for one host; what they remember lives as long as it."""

    def __init__(
        self,
        plugins: PluginManager,
        challenges: ChallengePort,
        wall_time: Callable[[], float],
        config_dir: Path | None = None,
    ) -> None:
        self.plugins = plugins
        self.wall_time = wall_time
        self.config_dir = config_dir or default_config_dir()
        self._challenges = challenges
        self._memories: dict[str, dict[str, object]] = {}

    def memory(self, provider: str) -> MutableMapping[str, object]:
        """Return what a provider remembers."""
        return self._memories.setdefault(provider, {})

    async def resolve(self, profile: ProviderProfile, depth: int = 0) -> Resolution:
        """Run a provider once and check what it gives.

        Raises `UnavailableError`, `SettingsError` or `ProviderError`; what a plugin raises besides
        is told as `provider_crashed`.
        """
        if depth >= MAX_DEPTH:
            raise ProviderError(
                "provider_cycle",
                "providers use each other too deeply",
                "look for a provider that leads back to itself in their configuration",
            )
        descriptor = self.plugins.provider(profile.provider)
        request = ResolveRequest(
            profile.link, self._settings(descriptor, profile.settings), profile.interactive
        )
        implementation = self.plugins.load_provider(profile.provider)
        limit = INTERACTIVE_TIMEOUT if profile.interactive else RESOLVE_TIMEOUT
        try:
            with span("provider_resolve", provider=profile.provider), anyio.fail_after(limit):
                provider: Provider = implementation(RuntimeProviderContext(self, profile, depth))
                resolution = await provider.resolve(request, self._challenges)
        except TurnlaneError:
            raise
        except TimeoutError:
            raise ProviderError(
                "provider_timeout",
                f"the provider {profile.provider} gave no answer within {limit:.0f} s",
                "check the network, then try again",
            ) from None
        except (Exception, SystemExit) as error:
            # The text of a foreign exception may hold the link: only its type is told.
            raise ProviderError(
                "provider_crashed",
                f"the provider {profile.provider} raised {type(error).__name__}",
                "this is a fault of the plugin: tell its authors",
            ) from None
        check_resolution(resolution, descriptor)
        return resolution

    def _settings(
        self, descriptor: ProviderDescriptor, given: Mapping[str, Any]
    ) -> msgspec.Struct | None:
        if descriptor.settings is None:
            if given:
                raise PolicyError(
                    "unknown_setting",
                    f"the provider {descriptor.id} has no settings",
                    "leave them out",
                )
            return None
        schema = self.plugins.load_settings(descriptor.settings)
        return validate(schema, given, f"the provider {descriptor.id}")


class RuntimeProviderContext:
    """What the runtime hands to a provider (`turnlane.api.ProviderContext`)."""

    def __init__(self, resolver: Resolver, profile: ProviderProfile, depth: int) -> None:
        self._resolver = resolver
        self._profile = profile
        self._depth = depth

    @property
    def memory(self) -> MutableMapping[str, object]:
        """What this provider remembers between resolutions."""
        return self._resolver.memory(self._profile.provider)

    @property
    def config_dir(self) -> Path:
        """The folder of local configuration files."""
        return self._resolver.config_dir

    def wall_time(self) -> float:
        """Return the Unix time in seconds."""
        return self._resolver.wall_time()

    def span(self, name: str, **attributes: str | float | bool) -> AbstractContextManager[None]:
        """Open a trace span around a step."""
        return span(name, **attributes)

    async def resolve_with(
        self, provider: str, link: Secret[str], settings: Mapping[str, object] | None = None
    ) -> Resolution:
        """Resolve a link through another provider that is installed."""
        profile = ProviderProfile(
            provider=provider,
            link=link,
            settings=dict(settings or {}),
            interactive=self._profile.interactive,
        )
        return await self._resolver.resolve(profile, self._depth + 1)


def check_resolution(resolution: object, descriptor: ProviderDescriptor) -> None:
    """Check at the boundary what a plugin returned; raises `ProviderError`."""
    wrong = _wrong(resolution)
    if wrong is not None:
        raise ProviderError(
            "invalid_resolution",
            f"the provider {descriptor.id} returned a resolution whose {wrong}",
            "this is a fault of the plugin: tell its authors",
        )


def _wrong(resolution: Any) -> str | None:
    credentials: Any = getattr(resolution, "credentials", None)
    if not _is(resolution, Resolution) or not _is(credentials, Credentials):
        return "type is not Resolution, with Credentials in it"
    for name in ("username", "password"):
        value: Any = getattr(credentials, name)
        if not _is(value, Secret) or not _is(value.reveal(), str) or not value:
            return f"{name} is not a non-empty Secret"
    endpoints: Any = credentials.endpoints
    if not _is(endpoints, tuple) or not 1 <= len(endpoints) <= MAX_ENDPOINTS:
        return f"endpoints are not a tuple of 1 to {MAX_ENDPOINTS}"
    for endpoint in endpoints:
        if (
            not _is(endpoint, RelayEndpoint)
            or not (_is(endpoint.host, str) and endpoint.host)
            or not (_is(endpoint.port, int) and 1 <= endpoint.port <= 65535)
            or not _is(endpoint.transport, RelayTransport)
            or not _is(endpoint.server_name, (str, NoneType))
        ):
            return "endpoints are malformed"
    if not _is(credentials.expires_at, (int, float, NoneType)):
        return "expiry is not a Unix time"
    if not _is(resolution.renewal, (Renewal, NoneType)):
        return "renewal is not a Renewal"
    return None


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    """Check at run time what the annotations promise: a plugin may not be typed."""
    return isinstance(value, kind)
