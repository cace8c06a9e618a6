"""Relay credentials: the only thing that passes from a provider to the transport."""

from enum import StrEnum

import msgspec

from turnlane.api.artifact import Artifact
from turnlane.api.secrets import Secret


class RelayTransport(StrEnum):
    """How a client reaches its TURN server (RFC 8656, section 3.1)."""

    UDP = "udp"
    """Datagrams: the fastest, where the network lets them pass."""
    TCP = "tcp"
    """A connection in clear."""
    TLS = "tls"
    """TLS over TCP, with the relay's certificate verified."""


class RelayEndpoint(msgspec.Struct, frozen=True):
    """One way to reach a relay."""

    host: str
    """A name, or an address literal without brackets."""
    port: int
    """The port, from 1 to 65535."""
    transport: RelayTransport = RelayTransport.UDP
    """How the client reaches the relay; what is relayed is UDP in any case."""
    server_name: str | None = None
    """The TLS name to verify, where it differs from `host`."""

    @property
    def address(self) -> str:
        """`host:port`, with brackets around an IPv6 literal; safe to show."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Credentials(msgspec.Struct, frozen=True):
    """Long-term TURN credentials (RFC 8489, section 9.2) and where they are valid."""

    endpoints: tuple[RelayEndpoint, ...]
    """The relays in order of preference, at least one."""
    username: Secret[str]
    """The user name; at most 508 bytes as UTF-8 (RFC 8489, section 14.3)."""
    password: Secret[str]
    """The password."""
    expires_at: float | None = None
    """A Unix time in seconds; None for credentials that do not expire."""


class Renewal(StrEnum):
    """How credentials that run out are followed by fresh ones."""

    NEVER = "never"
    """The same link gives the same credentials; nothing is gained by asking again."""
    RESOLVE = "resolve"
    """Resolving the same link again gives fresh ones, without a human."""
    CHALLENGE = "challenge"
    """Resolving again is likely to ask a human."""


class Resolution(msgspec.Struct, frozen=True):
    """What a provider gives back."""

    credentials: Credentials
    """What the transport uses."""
    artifact: Artifact
    """The sanitized record of how they were got."""
    renewal: Renewal | None = None
    """How fresh ones are got; None says what the descriptor's capability `renewable` says."""
