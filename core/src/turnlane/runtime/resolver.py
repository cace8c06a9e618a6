"""Runs providers: settings checked before, answers checked after, faults told as theirs."""

import os
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any

import anyio
import msgspec
import platformdirs

from turnlane.api import (
    Artifact,
    ChallengePort,
    Credentials,
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
from turnlane.plugins.settings import secrets, validate
from turnlane.runtime.profiles import ProviderProfile
from turnlane.telemetry import REDACTOR, span

RESOLVE_TIMEOUT = 60.0
INTERACTIVE_TIMEOUT = 900.0
"""Seconds that a provider may take, without and with a human."""

MAX_DEPTH = 4
"""Providers that use each other, one inside the other; more are a cycle."""

MAX_ENDPOINTS = 32

MAX_USERNAME = 508
"""Bytes of the longest username (RFC 8489, section 14.3)."""


CONFIG_VARIABLE = "TURNLANE_CONFIG_DIR"
"""The variable that names another folder of local configuration files than the user's."""


def default_config_dir() -> Path:
    """Return the operator's folder of local configuration files; it need not exist."""
    chosen = os.environ.get(CONFIG_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_config_dir("turnlane", appauthor=False))


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
        self._hidden: set[Secret[str]] = set()

    def memory(self, provider: str) -> MutableMapping[str, object]:
        """Return what a provider remembers."""
        return self._memories.setdefault(provider, {})

    async def resolve(self, profile: ProviderProfile, depth: int = 0) -> Resolution:
        """Run a provider once and check what it gives; the renewal of what comes back is definite.

        Raises `UnavailableError`, `SettingsError` or `ProviderError`; what a plugin raises besides
        is told as `provider_crashed`, and what it returns besides as `invalid_resolution`.
        """
        if depth >= MAX_DEPTH:
            raise ProviderError(
                "provider_cycle",
                "providers use each other too deeply",
                "look for a provider that leads back to itself in their configuration",
            )
        descriptor = self.plugins.provider(profile.provider)
        request = ResolveRequest(profile.link, self.settings(profile), profile.interactive)
        implementation = self.plugins.load_provider(profile.provider)
        limit = INTERACTIVE_TIMEOUT if profile.interactive else RESOLVE_TIMEOUT
        resolution: Resolution | None = None
        try:
            with (
                span("provider_resolve", provider=profile.provider),
                anyio.move_on_after(limit) as patience,
            ):
                provider: Provider = implementation(RuntimeProviderContext(self, profile, depth))
                resolution = await provider.resolve(request, self._challenges)
        except TurnlaneError as error:
            _check_artifact(error)
            raise
        except (Exception, SystemExit) as error:
            raise _told(profile.provider, error) from None
        if patience.cancelled_caught:
            raise ProviderError(
                "provider_timeout",
                f"the provider {profile.provider} gave no answer within {limit:.0f} s",
                "check the network, then try again",
            )
        check_resolution(resolution, descriptor)
        assert resolution is not None
        if resolution.renewal is not None:
            return resolution
        renewable = descriptor.capabilities.renewable
        renewal = Renewal.RESOLVE if renewable else Renewal.NEVER
        return msgspec.structs.replace(resolution, renewal=renewal)

    def settings(self, profile: ProviderProfile) -> msgspec.Struct | None:
        """Return the settings of a profile as its provider's schema has them, None without one.

        Raises `UnavailableError`, or `SettingsError` with all violations. Nothing is resolved.
        """
        descriptor = self.plugins.provider(profile.provider)
        schema = descriptor.settings
        texts = {name: text.reveal() for name, text in profile.text_settings.items()}
        made = validate(
            NoSettings if schema is None else self.plugins.load_settings(schema),
            {**profile.settings, **texts},
            f"the provider {descriptor.id}",
            text=texts.keys(),
            advice=f"see `turnlane providers show {descriptor.id}`",
        )
        for secret in secrets(made):
            if secret not in self._hidden:
                # The log hides it from here on, also what is written after the host has ended.
                self._hidden.add(secret)
                REDACTOR.add(secret)
        return None if schema is None else made


class NoSettings(msgspec.Struct, frozen=True):
    """The schema of a provider that cannot be told anything."""


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
        if not _is(link, Secret):
            raise TypeError("a link is a Secret")
        profile = ProviderProfile(
            provider=provider,
            link=link,
            settings=dict(settings or {}),
            interactive=self._profile.interactive,
        )
        return await self._resolver.resolve(profile, self._depth + 1)


def _told(provider: str, error: BaseException) -> TurnlaneError:
    """Return what an operator is told of what a provider raised."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # a task group wraps even a single failure
    if isinstance(error, TurnlaneError):
        _check_artifact(error)
        return error
    # The text of a foreign exception may hold the link: only its type is told.
    return ProviderError(
        "provider_crashed",
        f"the provider {provider} raised {type(error).__name__}",
        "this is a fault of the plugin: tell its authors",
    )


def _check_artifact(error: TurnlaneError) -> None:
    """Take from a provider's error an artifact that is none."""
    if isinstance(error, ProviderError) and not _is_artifact(error.artifact):
        error.artifact = None


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
        try:
            size = len(value.reveal().encode())
        except UnicodeEncodeError:
            return f"{name} cannot be written in UTF-8"
        if name == "username" and size > MAX_USERNAME:
            return f"username has more than {MAX_USERNAME} bytes"
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
    expires_at: Any = credentials.expires_at
    if not _is(expires_at, NoneType) and not (
        _is(expires_at, (int, float)) and not _is(expires_at, bool) and isfinite(expires_at)
    ):
        return "expiry is not a Unix time"
    if not _is(resolution.renewal, (Renewal, NoneType)):
        return "renewal is not a Renewal"
    if not _is_artifact(resolution.artifact):
        return "artifact is not an Artifact"
    return None


def _is_artifact(value: object) -> bool:
    if not _is(value, Artifact):
        return False
    # The constructors of msgspec check nothing: the types are checked by a round trip.
    try:
        msgspec.convert(msgspec.to_builtins(value), Artifact)
    except (TypeError, ValueError, NotImplementedError, RecursionError):
        return False
    return True


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    """Check at run time what the annotations promise: a plugin may not be typed."""
    return isinstance(value, kind)
