"""Credentials of a session: resolved through a provider, checked, and resolved again in time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import NoneType
from typing import Any

import anyio
import msgspec

from turnlane.api import (
    Artifact,
    ChallengePort,
    Credentials,
    PolicyError,
    Provider,
    ProviderDescriptor,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Resolution,
    ResolveRequest,
    Secret,
    TurnlaneError,
)
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.profiles import ProviderProfile
from turnlane.telemetry import REDACTOR, span

MARGIN = 30.0
"""Seconds before their expiry from which credentials are no longer used for a new lane."""

RESOLVE_TIMEOUT = 60.0
INTERACTIVE_TIMEOUT = 900.0
"""Seconds that a provider may take, without and with a human."""

MAX_ENDPOINTS = 32

MAX_USERNAME = 508
"""Bytes of the longest username (RFC 8489, section 14.3)."""


class RuntimeProviderContext:
    """What the runtime hands to a provider (`turnlane.api.ProviderContext`)."""

    def __init__(self, wall_time: Callable[[], float]) -> None:
        self._wall_time = wall_time

    def wall_time(self) -> float:
        """Return the Unix time in seconds."""
        return self._wall_time()

    def span(self, name: str, **attributes: str | float | bool) -> AbstractContextManager[None]:
        """Open a trace span around a step."""
        return span(name, **attributes)


class CredentialSource:
    """Resolves the link of a session once, and again when the credentials have run out.

    `on_renewed` hears of all that are resolved for use, the first included.
    """

    def __init__(
        self,
        profile: ProviderProfile,
        plugins: PluginManager,
        challenges: ChallengePort,
        wall_time: Callable[[], float],
        *,
        on_renewed: Callable[[Credentials], None] | None = None,
    ) -> None:
        self._profile = profile
        self._plugins = plugins
        self._challenges = challenges
        self._wall_time = wall_time
        self._on_renewed = on_renewed
        self._lock = anyio.Lock()
        self._current: Credentials | None = None
        self.descriptor = plugins.provider(profile.provider)

    async def get(self, refused: Credentials | None = None) -> Credentials:
        """Return credentials that are still good for a new lane.

        `refused` are credentials that a relay has just refused: they are not returned again if
        the provider is able to renew them. Raises `ProviderError`.
        """
        async with self._lock:
            if self._current is None or self._stale(self._current, refused):
                fresh = (await self.resolve()).credentials
                self.close()
                self._current = fresh
                REDACTOR.add(fresh.username, fresh.password)
                if self._on_renewed is not None:
                    self._on_renewed(fresh)
            return self._current

    def _stale(self, credentials: Credentials, refused: Credentials | None) -> bool:
        if not self.descriptor.capabilities.renewable:
            return False
        if credentials is refused:
            return True
        expires_at = credentials.expires_at
        return expires_at is not None and expires_at - self._wall_time() < MARGIN

    def close(self) -> None:
        """Let the redaction of logs forget the credentials."""
        if self._current is not None:
            REDACTOR.remove(self._current.username, self._current.password)
            self._current = None

    async def resolve(self) -> Resolution:
        """Run the provider once and check what it gives.

        Raises `ProviderError`; what a plugin raises besides is told as `provider_crashed`.
        """
        profile = self._profile
        settings = self._settings()
        implementation = self._plugins.load_provider(profile.provider)
        request = ResolveRequest(profile.link, settings, profile.interactive)
        limit = INTERACTIVE_TIMEOUT if profile.interactive else RESOLVE_TIMEOUT
        resolution: object = None
        try:
            with (
                span("provider_resolve", provider=profile.provider),
                anyio.move_on_after(limit) as scope,
            ):
                provider: Provider = implementation(RuntimeProviderContext(self._wall_time))
                resolution = await provider.resolve(request, self._challenges)
        except TurnlaneError:
            raise
        except (Exception, SystemExit) as error:
            # The text of a foreign exception may hold the link: only its type is told.
            raise ProviderError(
                "provider_crashed",
                f"the provider {profile.provider} raised {type(error).__name__}",
                "this is a fault of the plugin: tell its authors",
            ) from None
        if scope.cancelled_caught:
            raise ProviderError(
                "provider_timeout",
                f"the provider {profile.provider} gave no answer within {limit:.0f} s",
                "check the network, then try again",
            )
        return check_resolution(resolution, self.descriptor)

    def _settings(self) -> msgspec.Struct | None:
        schema = self.descriptor.settings
        given = self._profile.settings
        if schema is None:
            if given:
                raise PolicyError(
                    "unknown_setting",
                    f"the provider {self.descriptor.id} has no settings",
                    "leave them out",
                )
            return None
        loaded = self._plugins.load_settings(schema)
        try:
            return msgspec.convert(given, loaded)
        except msgspec.ValidationError:
            raise PolicyError(
                "invalid_setting",
                f"the settings of the provider {self.descriptor.id} do not fit its schema",
                f"see `turnlane providers show {self.descriptor.id}`",
            ) from None


def check_resolution(resolution: object, descriptor: ProviderDescriptor) -> Resolution:
    """Return what a plugin returned, checked at the boundary; raises `ProviderError`."""
    wrong = _wrong(resolution)
    if wrong is None and isinstance(resolution, Resolution):
        return resolution
    raise ProviderError(
        "invalid_resolution",
        f"the provider {descriptor.id} returned a resolution whose {wrong}",
        "this is a fault of the plugin: tell its authors",
    )


def _wrong(resolution: object) -> str | None:
    credentials: Any = getattr(resolution, "credentials", None)
    if not _is(resolution, Resolution) or not _is(credentials, Credentials):
        return "type is not Resolution, with Credentials in it"
    artifact = getattr(resolution, "artifact", None)
    try:
        msgspec.json.encode(artifact)
    except (TypeError, ValueError, RecursionError):
        artifact = None
    if not _is(artifact, Artifact):
        return "artifact is none that can be written down"
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
    if not _is(credentials.expires_at, (int, float, NoneType)):
        return "expiry is not a Unix time"
    return None


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    """Check at run time what the annotations promise: a plugin may not be typed."""
    return isinstance(value, kind)


def choose_endpoint(
    credentials: Credentials,
    descriptor: ProviderDescriptor,
    transport: RelayTransport | None,
    host: str | None,
    port: int | None,
) -> RelayEndpoint:
    """Pick the relay endpoint of a session.

    With `transport` None (`auto`) it is the first of the provider's default transport, else the
    first of all; a transport that no endpoint has is tried at the address of the first. `host` and
    `port` override what was resolved.
    """
    wanted = transport or descriptor.capabilities.default_transport
    fitting = [one for one in credentials.endpoints if one.transport is wanted]
    chosen = fitting[0] if fitting else credentials.endpoints[0]
    if transport is not None and not fitting:
        chosen = msgspec.structs.replace(chosen, transport=transport)
    if host is not None:
        chosen = msgspec.structs.replace(chosen, host=host)
    if port is not None:
        chosen = msgspec.structs.replace(chosen, port=port)
    return chosen
