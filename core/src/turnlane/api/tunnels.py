"""The contract of platform tunnels: a host's way to capture traffic as IP packets."""

from typing import Protocol

import msgspec

from turnlane.api.batch import Batch


class TunnelCapability(msgspec.Struct, frozen=True):
    """Whether this host can have the tunnel, found out without changing anything.

    Where it cannot, `code` is a stable snake_case name for the reason, `reason` says what is
    missing and `advice` what to do about it.
    """

    available: bool
    code: str = ""
    reason: str = ""
    advice: str = ""


class TunnelRequest(msgspec.Struct, frozen=True):
    """What a tunnel shall be.

    `addresses` are the host's own in the tunnel, each with its prefix length (`10.0.0.2/24`);
    `routes` are the networks to capture; `excluded` are addresses that keep their present way, the
    relay's above all, for a tunnel that captures its own carrier carries nothing. `mtu` is in
    bytes, IP header included.
    """

    addresses: tuple[str, ...]
    routes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    mtu: int = 1280


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
