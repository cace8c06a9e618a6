"""What the relay remembers of its clients: allocations with their permissions and channels."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from turnlane.api import RelayTransport
from turnlane.proto.stun import Address


class FiveTuple(NamedTuple):
    """What an allocation belongs to (RFC 8656, section 2.2): a client as its server sees it."""

    transport: RelayTransport
    client: Address
    server: Address

    @property
    def reliable(self) -> bool:
        """Whether the client is reached over a stream."""
        return self.transport is not RelayTransport.UDP


class TableFullError(Exception):
    """An allocation has as many permissions or channels as it may have."""


class ChannelTakenError(Exception):
    """The channel is bound to another peer, or the peer to another channel."""


@dataclass(slots=True)
class Channel:
    """A channel number bound to a peer until `expires_at`."""

    number: int
    peer: Address
    expires_at: float


@dataclass(slots=True, eq=False)
class Allocation:
    """One relayed transport address and who may use it. Times are those of the machine's clock."""

    five_tuple: FiveTuple
    username: str
    version: int
    relayed: Address
    expires_at: float
    max_permissions: int
    max_channels: int
    permissions: dict[str, float] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    channel_of: dict[Address, Channel] = field(default_factory=dict)

    def permitted(self, host: str, now: float) -> bool:
        """Whether a permission for the peer's IP address is alive (RFC 8656, section 9)."""
        expires_at = self.permissions.get(host)
        return expires_at is not None and now < expires_at

    def permit(self, hosts: Collection[str], now: float, lifetime: float) -> int:
        """Install or refresh permissions, all or none; return how many were alive already.

        Raises `TableFullError`.
        """
        wanted = set(hosts)
        alive = sum(self.permitted(host, now) for host in wanted)
        if len(self.permissions.keys() | wanted) > self.max_permissions:
            self.permissions = {host: at for host, at in self.permissions.items() if now < at}
            if len(self.permissions.keys() | wanted) > self.max_permissions:
                raise TableFullError
        for host in wanted:
            self.permissions[host] = now + lifetime
        return alive

    def channel(self, number: int, now: float) -> Channel | None:
        """Return the channel with this number when it is alive."""
        channel = self.channels.get(number)
        return channel if channel is not None and now < channel.expires_at else None

    def channel_to(self, peer: Address, now: float) -> Channel | None:
        """Return the channel bound to `peer` when it is alive."""
        channel = self.channel_of.get(peer)
        return channel if channel is not None and now < channel.expires_at else None

    def bind(
        self,
        number: int,
        peer: Address,
        now: float,
        *,
        lifetime: float,
        permission_lifetime: float,
    ) -> bool:
        """Bind or rebind a channel and permit its peer (RFC 8656, section 12.2).

        Return whether the binding was alive already. Raises `ChannelTakenError` or
        `TableFullError`; nothing has changed then.
        """
        channel = self.channel(number, now)
        if channel is not self.channel_to(peer, now):
            raise ChannelTakenError
        if channel is None:
            for expired in [each for each in self.channels.values() if now >= each.expires_at]:
                del self.channels[expired.number]
                del self.channel_of[expired.peer]
            if len(self.channels) >= self.max_channels:
                raise TableFullError
        self.permit([peer[0]], now, permission_lifetime)
        if channel is not None:
            channel.expires_at = now + lifetime
            return True
        self.channels[number] = self.channel_of[peer] = Channel(number, peer, now + lifetime)
        return False
