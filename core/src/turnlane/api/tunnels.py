"""The contract of platform tunnels: a host's way to capture traffic as IP packets."""

from typing import Protocol

import msgspec

from turnlane.api.batch import Batch


class TunnelCapability(msgspec.Struct, frozen=True):
    """Whether this host can have the tunnel, found out without changing anything."""

    available: bool
    """Whether it can; the rest is empty then."""
    code: str = ""
    """A stable snake_case name for why it cannot."""
    reason: str = ""
    """What is missing."""
    advice: str = ""
    """What to do about it."""


class TunnelRequest(msgspec.Struct, frozen=True):
    """What a tunnel shall be."""

    addresses: tuple[str, ...]
    """The host's own in the tunnel, each with its prefix length: `10.0.0.2/24`."""
    routes: tuple[str, ...] = ()
    """The networks to capture."""
    excluded: tuple[str, ...] = ()
    """Addresses that keep their present way.

    The relay's above all, for a tunnel that captures its own carrier carries nothing.
    """
    mtu: int = 1280
    """Bytes of the largest packet, IP header included."""


class TunnelDevice(Protocol):
    """A device that is up. A packet of a batch is one IP packet; flows mean nothing here."""

    @property
    def name(self) -> str:
        """What the system calls it."""
        ...

    async def receive(self, batch: Batch) -> None:
        """Wait for at least one packet, then fill `batch` with as many as are there.

        Raises `AdapterError` at `forwarding_loop` when the device is gone, and
        `anyio.ClosedResourceError` once it is closed.
        """
        ...

    def send(self, batch: Batch) -> int:
        """Hand every packet to the system now; return how many it took. Never waits or raises."""
        ...

    async def aclose(self) -> None:
        """Take down device, addresses and routes; a second call does nothing."""
        ...


class PlatformTunnel(Protocol):
    """A host's way to capture traffic. Made as `Class(settings)`."""

    async def capability(self) -> TunnelCapability:
        """Look whether this host can have the tunnel; changes nothing and never raises."""
        ...

    async def open(self, request: TunnelRequest) -> TunnelDevice:
        """Bring the device up with its addresses and routes, or leave nothing behind.

        Raises `AdapterError` at `local_bind`.
        """
        ...
