"""Credentials of a session: resolved through a provider, checked, and resolved again in time."""

from collections.abc import Callable

import anyio
import msgspec

from turnlane.api import (
    Credentials,
    ProviderDescriptor,
    RelayEndpoint,
    RelayTransport,
    Renewal,
    Resolution,
)
from turnlane.runtime.profiles import ProviderProfile
from turnlane.runtime.resolver import Resolver
from turnlane.telemetry import REDACTOR

MARGIN = 30.0
"""Seconds before their expiry from which credentials are no longer used for a new lane."""


class CredentialSource:
    """Resolves the link of a session once, and again when the credentials have run out.

    `on_renewed` hears of all that are resolved for use, the first included.
    """

    def __init__(
        self,
        profile: ProviderProfile,
        resolver: Resolver,
        *,
        on_renewed: Callable[[Credentials], None] | None = None,
    ) -> None:
        self._profile = profile
        self._resolver = resolver
        self._on_renewed = on_renewed
        self._lock = anyio.Lock()
        self._current: Credentials | None = None
        self._renewable = False
        self.descriptor = resolver.plugins.provider(profile.provider)

    async def get(self, refused: Credentials | None = None) -> Credentials:
        """Return credentials that are still good for a new lane.

        `refused` are credentials that a relay has just refused: they are not returned again if
        the provider is able to renew them. Raises `ProviderError`.
        """
        async with self._lock:
            if self._current is None or self._stale(self._current, refused):
                resolution = await self._resolver.resolve(self._profile)
                fresh = resolution.credentials
                self.close()
                self._current = fresh
                self._renewable = renewable(resolution, interactive=self._profile.interactive)
                REDACTOR.add(fresh.username, fresh.password)
                if self._on_renewed is not None:
                    self._on_renewed(fresh)
            return self._current

    def _stale(self, credentials: Credentials, refused: Credentials | None) -> bool:
        if not self._renewable:
            return False
        if credentials is refused:
            return True
        expires_at = credentials.expires_at
        return expires_at is not None and expires_at - self._resolver.wall_time() < MARGIN

    def close(self) -> None:
        """Let the redaction of logs forget the credentials."""
        if self._current is not None:
            REDACTOR.remove(self._current.username, self._current.password)
            self._current = None


def renewable(resolution: Resolution, *, interactive: bool) -> bool:
    """Whether resolving again is worth it; with a human it is only where one may be asked."""
    if resolution.renewal is Renewal.CHALLENGE:
        return interactive
    return resolution.renewal is Renewal.RESOLVE


def choose_endpoint(
    credentials: Credentials,
    descriptor: ProviderDescriptor,
    transport: RelayTransport | None,
    host: str | None,
    port: int | None,
) -> RelayEndpoint:
    """Pick the relay endpoint of a session.

    With `transport` None (`auto`) it is the first of the provider's default transport, if it has
    one, else the first of all; a transport that no endpoint has is tried at the address of the
    first. `host` and `port` override what was resolved.
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
