"""The contract of a provider: a link goes in, relay credentials come out."""

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from turnlane.api.challenge import ChallengePort
from turnlane.api.credentials import Resolution
from turnlane.api.secrets import Secret


class ResolveRequest(msgspec.Struct, frozen=True):
    """What a provider is asked to resolve."""

    link: Secret[str]
    """The link as the operator gave it: a secret as a whole."""
    settings: msgspec.Struct | None = None
    """An instance of the descriptor's settings schema, validated; None where it has none."""
    interactive: bool = False
    """Whether challenges may be raised."""


class ProviderContext(Protocol):
    """What the runtime hands to a provider."""

    def wall_time(self) -> float:
        """Return the Unix time in seconds; expiry is reckoned by it."""
        ...

    @property
    def memory(self) -> MutableMapping[str, object]:
        """What this provider remembers between resolutions, for as long as the host lives.

        Each provider has its own; nothing in it is stored anywhere.
        """
        ...

    @property
    def config_dir(self) -> Path:
        """The folder of local configuration files, which need not exist.

        What must come from the machine's own operator, and never from a link or a remote caller,
        is read from a file in it.
        """
        ...

    async def resolve_with(
        self, provider: str, link: Secret[str], settings: Mapping[str, object] | None = None
    ) -> Resolution:
        """Resolve a link through another provider that is installed, by its id.

        The way for a provider to use others without importing them. What comes back says how it
        is renewed: `renewal` is never None here. Raises `UnavailableError`
        for an id that is not installed, and what that provider raises; `ProviderError` with the
        code `provider_cycle` when providers use each other too deeply.
        """
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
