"""Relay credentials: the only thing that passes from a provider to the transport."""

from enum import StrEnum

import msgspec

from turnlane.api.artifact import Artifact
from turnlane.api.secrets import Secret


class RelayTransport(StrEnum):
    """How a client reaches its TURN server (RFC 8656, section 3.1)."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class RelayEndpoint(msgspec.Struct, frozen=True):
    """One way to reach a relay.

    `host` is a name or an address literal without brackets; `server_name` is the TLS name to verify
    when it differs from `host`.
    """

    host: str
    port: int
    transport: RelayTransport = RelayTransport.UDP
    server_name: str | None = None

    @property
    def address(self) -> str:
        """`host:port`, with brackets around an IPv6 literal; safe to show."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Credentials(msgspec.Struct, frozen=True):
    """Long-term TURN credentials (RFC 8489, section 9.2) and where they are valid.

    `endpoints` stand in order of preference, at least one; `expires_at` is a Unix time in seconds,
    or None for credentials that do not expire.
    """

    endpoints: tuple[RelayEndpoint, ...]
    username: Secret[str]
    password: Secret[str]
    expires_at: float | None = None


class Renewal(StrEnum):
    """How credentials that run out are followed by fresh ones."""

    NEVER = "never"
    """The same link gives the same credentials; nothing is gained by asking again."""
    RESOLVE = "resolve"
    """Resolving the same link again gives fresh ones, without a human."""
    CHALLENGE = "challenge"
    """Resolving again is likely to ask a human."""


class Resolution(msgspec.Struct, frozen=True):
    """What a provider gives back: credentials, and the sanitized record of how it got them.

    `renewal` None says what the descriptor's capability `renewable` says.
    """

    credentials: Credentials
    artifact: Artifact
    renewal: Renewal | None = None
