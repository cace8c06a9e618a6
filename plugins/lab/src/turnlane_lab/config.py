"""How a lab relay behaves: everything that tests shorten, bound or forbid."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from turnlane.api import Secret
from turnlane.proto.stun import Address


@dataclass(frozen=True, kw_only=True)
class RelayConfig:
    """The settings of one relay. Times are in seconds.

    `hosts` are the addresses it listens on, `relay_hosts` those it relays from (where empty: the
    same), `advertise` what clients are told in place of a relay host of the same family; each at
    most one for IPv4 and one for IPv6. Families that no relay host has are refused with 440.
    Port 0 takes a free one; UDP and TCP have one each, the same on all hosts.

    `users` are static long-term credentials; with `rest_secret`, TURN REST usernames pass too.

    A client is granted the lifetime it asks for within `default_lifetime` and `max_lifetime`,
    whole seconds, as RFC 8656 section 7.2 has it. `alternate_server` refuses every Allocate with
    300, `denied_peers` are networks whose addresses are refused with 403.

    Raises `ValueError` naming what is wrong.
    """

    users: Mapping[str, Secret[str]] = field(default_factory=dict)
    rest_secret: Secret[str] | None = None
    realm: str = "turnlane.lab"

    hosts: tuple[str, ...] = ("127.0.0.1",)
    udp_port: int = 0
    tcp_port: int = 0
    relay_hosts: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()

    default_lifetime: int = 600
    max_lifetime: int = 3600
    permission_lifetime: float = 300.0
    channel_lifetime: float = 600.0
    nonce_lifetime: float = 3600.0

    max_allocations: int = 1024
    max_allocations_per_user: int = 1024
    max_connections: int = 1024
    max_permissions: int = 256
    max_channels: int = 256

    alternate_server: Address | None = None
    denied_peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.users and self.rest_secret is None:
            raise ValueError("users or rest_secret: a relay that nobody may use")
        if not self.hosts:
            raise ValueError("hosts: at least one address to listen on")
        for name in ("hosts", "relay_hosts", "advertise"):
            versions = [_version(name, host) for host in getattr(self, name)]
            if len(versions) != len(set(versions)):
                raise ValueError(f"{name}: more than one address of a family")
        for name in ("udp_port", "tcp_port"):
            if not 0 <= getattr(self, name) <= 65_535:
                raise ValueError(f"{name}: not from 0 to 65535")
        for name in (
            "default_lifetime",
            "permission_lifetime",
            "channel_lifetime",
            "nonce_lifetime",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: not above 0")
        for name in (
            "max_allocations",
            "max_allocations_per_user",
            "max_connections",
            "max_permissions",
            "max_channels",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: below 0")
        if self.max_lifetime < self.default_lifetime:
            raise ValueError("max_lifetime: below default_lifetime")
        for network in self.denied_peers:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(f"denied_peers: {network!r} is not a network") from None

    @property
    def relayed_hosts(self) -> dict[int, str]:
        """The address relayed from for each family (4, 6) that the relay serves."""
        return {_version("hosts", host): host for host in self.relay_hosts or self.hosts}

    def told(self, relayed: Address) -> Address:
        """Return what a client is told of `relayed`, the address its allocation is bound to."""
        version = _version("relayed", relayed[0])
        for host in self.advertise:
            if _version("advertise", host) == version:
                return host, relayed[1]
        return relayed


def _version(name: str, host: str) -> int:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        raise ValueError(f"{name}: {host!r} is not an IP address") from None
