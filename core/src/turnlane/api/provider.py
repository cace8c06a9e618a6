"""The contract of a provider: a link goes in, relay credentials come out."""

from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from turnlane.api.challenge import ChallengePort
from turnlane.api.credentials import Resolution
from turnlane.api.secrets import Secret


class ResolveRequest(msgspec.Struct, frozen=True):
    """What a provider is asked to resolve.

    `settings` is an instance of the descriptor's settings schema, validated, or None where the
    descriptor has none; `interactive` says whether challenges may be raised.
    """

    link: Secret[str]
    settings: msgspec.Struct | None = None
    interactive: bool = False


class ProviderContext(Protocol):
    """What the runtime hands to a provider."""

    def wall_time(self) -> float:
        """Return the Unix time in seconds; expiry is reckoned by it."""
        ...

    def span(self, name: str, **attributes: str | float | bool) -> AbstractContextManager[None]:
        """Open a trace span around a step. Attributes must not contain secrets."""
        ...


class Provider(Protocol):
    """Turns a link into credentials. Made anew for each resolution as `Class(context)`.

    A provider never sees a socket of the tunnel, and it is cancelled natively: every await may
    raise the backend's cancellation, after which it must have released what it held.
    """

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        """Return credentials and the artifact.

        Raises `ProviderError` (or `LinkError` for a link that is not of its kind) with the
        artifact of what was done until then.
        """
        ...
