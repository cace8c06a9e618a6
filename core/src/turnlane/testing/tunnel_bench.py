"""The bench: a platform tunnel with its settings, on a host as one check needs it."""

import inspect
import signal
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import msgspec

from turnlane.api import (
    PlatformTunnel,
    PlatformTunnelDescriptor,
    SettingsError,
    TunnelDevice,
    TunnelRequest,
    TurnlaneError,
    UnavailableError,
)
from turnlane.plugins.manager import PluginManager
from turnlane.plugins.settings import validate
from turnlane.testing.findings import NotJudgedError, takes

DISCARD = 9
"""The port of packets that nobody answers (RFC 863)."""

REQUEST = TunnelRequest(("10.111.0.2/24",), ("10.112.0.0/24",))
"""What is opened unless a case says otherwise: networks of private use (RFC 1918)."""

Host = Callable[[], AbstractContextManager[object]]


def network_state() -> Iterator[str]:
    """Name the interfaces and routes of this host, as far as the system shows them."""
    for _, name in socket.if_nameindex():
        yield f"interface {name}"
    for line in _lines("/proc/net/route")[1:]:
        name, destination, gateway, _, _, _, _, mask, *_ = line.split()
        yield f"route {destination}/{mask} via {gateway} on {name}"
    for line in _lines("/proc/net/ipv6_route"):
        destination, length, _, _, gateway, *_, name = line.split()
        yield f"route {destination}/{length} via {gateway} on {name}"


@dataclass(frozen=True)
class TunnelCase:
    """What the checks need to know of a platform tunnel.

    `plugin` is the module (or an object) with the hooks, `tunnel` the id; `request` is opened with
    `settings`. Each of `bad_requests` is refused, beside those that the kit knows itself, and so
    is each of `bad_settings`. `secrets` are the values in the settings that must be seen nowhere,
    each of at least four characters.

    `available` makes the host one that can have the tunnel (by a stand-in for its device, say) and
    `unavailable` one that cannot; without them, the host is what it is. `inject` makes the host
    send a packet into the device, `extract` waits for the next packet that the host gets out of
    it, and `lose` takes the device away behind the tunnel's back; what only they can show is not
    judged without them. `footprint` names all that a tunnel might leave behind on the host.
    """

    plugin: object
    tunnel: str
    request: TunnelRequest = REQUEST
    settings: Mapping[str, Any] = field(default_factory=dict)
    bad_settings: tuple[Mapping[str, Any], ...] = ()
    bad_requests: tuple[TunnelRequest, ...] = ()
    secrets: tuple[str, ...] = ()
    available: Host | None = None
    unavailable: Host | None = None
    inject: Callable[[TunnelDevice, bytes], Awaitable[None]] | None = None
    extract: Callable[[TunnelDevice], Awaitable[bytes]] | None = None
    lose: Callable[[TunnelDevice], Awaitable[None]] | None = None
    footprint: Callable[[], Iterable[str]] = network_state


class Bench:
    """A platform tunnel of one case."""

    def __init__(self, case: TunnelCase) -> None:
        self.case = case
        self.plugins = PluginManager.from_modules([case.plugin])

    @property
    def descriptor(self) -> PlatformTunnelDescriptor:
        """The tunnel's descriptor; raises `NotJudgedError` when it is not offered."""
        try:
            return self.plugins.platform_tunnel(self.case.tunnel)
        except UnavailableError:
            raise NotJudgedError("there is no such tunnel, see descriptor_is_complete") from None

    def unfit(self) -> str | None:
        """Say why what the descriptor names cannot be imported and made, or return None."""
        descriptor = self.descriptor
        try:
            implementation: Any = self.plugins.load_tunnel(descriptor)
            if descriptor.settings is not None:
                self.plugins.load_settings(descriptor.settings)
        except UnavailableError as error:
            return error.message
        if not takes(implementation, 1):
            return "the class is not made with the settings alone"
        for name, count in (("capability", 1), ("open", 2)):
            method = getattr(implementation, name)
            if not inspect.iscoroutinefunction(method):
                return f"{name} is not an `async def` method"
            if not takes(method, count):
                return f"{name} does not take {'the request' if count == 2 else 'no argument'}"
        try:
            implementation(self.settings())
        except SettingsError:
            return None  # the case's fault, told by refuses_bad_settings
        except Exception as error:
            return f"the class cannot be made: it raised {type(error).__name__}"
        return None

    def settings(self, given: Mapping[str, Any] | None = None) -> msgspec.Struct | None:
        """Return the settings that were given, or the case's; raises `SettingsError`."""
        given = self.case.settings if given is None else given
        if self.descriptor.settings is None:
            return None
        schema = self.plugins.load_settings(self.descriptor.settings)
        return validate(schema, given, f"the platform tunnel {self.case.tunnel}")

    def make(self) -> PlatformTunnel:
        """Make the tunnel; raises `NotJudgedError` when that fails."""
        if self.unfit() is not None:
            raise NotJudgedError("there is nothing to run, see class_is_importable")
        try:
            settings = self.settings()
        except SettingsError:
            raise NotJudgedError("the settings do not fit, see refuses_bad_settings") from None
        return self.plugins.load_tunnel(self.descriptor)(settings)

    async def ready(self) -> PlatformTunnel:
        """Make the tunnel; raises `NotJudgedError` where the host cannot have it."""
        tunnel = self.make()
        try:
            capability = await tunnel.capability()
            reason = None if capability.available else capability.reason
        except Exception:
            raise NotJudgedError("it is not known here, see capability_is_told") from None
        if reason is not None:
            raise NotJudgedError(f"this host cannot have the tunnel: {reason}")
        return tunnel

    async def open(self, tunnel: PlatformTunnel | None = None) -> TunnelDevice:
        """Open the case's request; raises `NotJudgedError` when that gives no device.

        `tunnel` is what `ready` gave; without it, that is called first.
        """
        device = await attempt(tunnel or await self.ready(), self.case.request)
        if not isinstance(device, Exception):
            if unlike(device) is None:
                return device
            await close(device)
        raise NotJudgedError("the request opens no device, see opens_a_device")


@contextmanager
def bench(case: TunnelCase, host: Host | None = None) -> Iterator[Bench]:
    """Set up a bench on `host`, or on the case's host that can have the tunnel."""
    with (host or case.available or nullcontext)():
        yield Bench(case)


async def attempt(tunnel: PlatformTunnel, request: TunnelRequest) -> TunnelDevice | Exception:
    """Open once and return what comes of it."""
    try:
        return await tunnel.open(request)
    except Exception as error:
        return error


def unlike(device: object) -> str | None:
    """Say what `device` lacks to be one, or return None."""
    name = getattr(device, "name", None)
    if not isinstance(name, str) or not name.strip():
        return "the device has no name"
    for method in ("receive", "aclose"):
        if not inspect.iscoroutinefunction(getattr(device, method, None)):
            return f"{method} is not an `async def` method"
    send = getattr(device, "send", None)
    if not callable(send) or inspect.iscoroutinefunction(send):
        return "send is not a plain method"
    return None


async def close(device: TunnelDevice) -> None:
    """Close a device, whatever it does: closing is judged by checks of its own."""
    with anyio.CancelScope(shield=True), suppress(Exception):
        await device.aclose()


def told(outcome: object) -> str:
    """Say in a few words what came of a call; nothing of it is secret."""
    if isinstance(outcome, TurnlaneError):
        return f"{type(outcome).__name__} at {outcome.stage} with the code {outcome.code!r}"
    return f"{type(outcome).__name__}" if isinstance(outcome, Exception) else "a device"


class WaitedError(BaseException):
    """What must not wait has waited; no plugin catches it by accident."""


@contextmanager
def not_waiting(seconds: float) -> Iterator[None]:
    """Raise `WaitedError` out of the block when it takes longer.

    It is watched in the main thread of systems with signals; elsewhere what waits hangs.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def wake(_number: int, _frame: FrameType | None) -> None:
        raise WaitedError

    handler = signal.signal(signal.SIGALRM, wake)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, remaining, interval)


def peers(request: TunnelRequest) -> tuple[str, str]:
    """Return the host's own first address in the tunnel, and one that is reached through it."""
    own = ip_interface(request.addresses[0])
    routes = [each for each in map(ip_network, request.routes) if each.version == own.version]
    reached = routes[0] if routes else own.network
    other = next(each for each in reached.hosts() if each != own.ip)
    return str(own.ip), str(other)


def ip_packet(source: str, destination: str, size: int, number: int) -> bytes:
    """Return an IP packet (RFC 791, RFC 8200) of `size` bytes with a UDP datagram (RFC 768)."""
    origin, target = ip_interface(source).ip, ip_interface(destination).ip
    length = size - (20 if origin.version == 4 else 40)
    payload = struct.pack("!I", number) + bytes(length - 12)
    # The pseudo headers of both versions have the same sum.
    pseudo = origin.packed + target.packed + struct.pack("!II", length, socket.IPPROTO_UDP)
    summed = _checksum(pseudo + struct.pack("!HHHH", DISCARD, DISCARD, length, 0) + payload)
    datagram = struct.pack("!HHHH", DISCARD, DISCARD, length, summed) + payload
    return _ip_header(origin, target, size, length, number) + datagram


def _ip_header(
    origin: IPv4Address | IPv6Address,
    target: IPv4Address | IPv6Address,
    size: int,
    length: int,
    number: int,
) -> bytes:
    if origin.version == 6:
        start = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64)
        return start + origin.packed + target.packed

    def header(summed: int) -> bytes:
        identification = number % 0xFFFF + 1  # a host gives one to what has none
        start = struct.pack("!BBHHH", 0x45, 0, size, identification, 0)
        start += struct.pack("!BBH", 64, socket.IPPROTO_UDP, summed)
        return start + origin.packed + target.packed

    return header(_checksum(header(0)))


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071), never 0, which would say that there is none."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF or 0xFFFF


def _lines(path: str) -> list[str]:
    with suppress(OSError):
        return Path(path).read_text(encoding="ascii").splitlines()
    return []
