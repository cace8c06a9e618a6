"""Profiles: everything a session, a server or a probe needs to know, as data.

The command line, a configuration file and a daemon all make one of these and hand it to the host.
"""

from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from turnlane.api import RelayTransport, Secret
from turnlane.runtime.peer_link import PeerLink


class PeerMode(StrEnum):
    """How client and tunnel server speak with each other."""

    SESSION = "turnlane/1"
    LEGACY = "legacy"
    """Raw datagrams in DTLS, as the Go prototypes speak; nobody is authenticated by it."""
    PLAIN = "plain"
    """Bare datagrams without DTLS; the peer is the service itself."""


class SchedulerKind(StrEnum):
    """How the flows of a session are spread over its lanes."""

    FLOW_STICKY = "flow-sticky"
    ROUND_ROBIN = "round-robin"


class ProviderProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Which provider resolves which link.

    `settings` are as its schema has them; `text_settings` win over them and are texts, as an
    option gives them, from which numbers, truth values, lists and tables are read.
    """

    provider: str
    link: Secret[str]
    settings: dict[str, Any] = {}
    text_settings: dict[str, Secret[str]] = {}
    interactive: bool = False

    def __repr__(self) -> str:
        # Which of the settings are secret is known only to the provider's schema.
        names = sorted({*self.settings, *self.text_settings})
        return f"ProviderProfile(provider={self.provider!r}, link=***, settings={names})"


class ClientProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A client session. Times are in seconds.

    The ingress is told `ingress_settings` and `ingress_text_settings` as a provider is told those
    of its profile. `transport` None is the provider's default (`auto`); `turn_host` and `turn_port`
    override what was resolved; `ca_file` verifies a TLS relay instead of the system's authorities.
    """

    provider: ProviderProfile
    peer: PeerLink
    insecure_peer: bool = False
    mode: PeerMode = PeerMode.SESSION
    ingress: str = "udp"
    ingress_settings: dict[str, Any] = {}
    ingress_text_settings: dict[str, Secret[str]] = {}
    listen: str = "127.0.0.1:9000"
    connections: int = 1
    transport: RelayTransport | None = None
    bind_interface: str | None = None
    turn_host: str | None = None
    turn_port: int | None = None
    ca_file: Path | None = None
    scheduler: SchedulerKind = SchedulerKind.FLOW_STICKY

    def __repr__(self) -> str:
        return _told(self)


class ServerProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A tunnel server. Times are in seconds.

    The egress is told `egress_settings` and `egress_text_settings` as a provider is told those of
    its profile. `token` None makes an open server, which `open_access` must confirm; `identity` is
    the folder of key and certificate, made on first use. With more than one of `workers`, so many
    processes of their own serve the main port, which only Linux knows to share.
    """

    listen: str = "0.0.0.0:56000"
    egress: str = "udp"
    egress_settings: dict[str, Any] = {}
    egress_text_settings: dict[str, Secret[str]] = {}
    connect: str
    identity: Path
    token: Secret[str] | None = None
    open_access: bool = False
    legacy_listen: str | None = None
    advertise: str | None = None
    handshake_timeout: float = 30.0
    idle_timeout: float = 1800.0
    max_sessions: int = 256
    workers: int = 1

    def __repr__(self) -> str:
        return _told(self)


def _told(profile: ClientProfile | ServerProfile) -> str:
    """Print a profile, of settings their names alone: which are secret only their schema knows."""
    values = {name: getattr(profile, name) for name in profile.__struct_fields__}
    shown = [
        f"{name}={sorted(value) if name.endswith('settings') else value!r}"
        for name, value in values.items()
    ]
    return f"{type(profile).__name__}({', '.join(shown)})"
