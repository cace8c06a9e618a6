"""A platform tunnel that passes the conformance kit.

Its device is one end of a pair of sockets; the host has the other. `plugin(Class)` makes a plugin
of it or of a class after it, `case(Class)` its case.
"""

import contextlib
import itertools
import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import msgspec

from turnlane.api import (
    AdapterError,
    Batch,
    PlatformTunnelDescriptor,
    Secret,
    Stage,
    TunnelCapability,
    TunnelDevice,
    TunnelRequest,
    hookimpl,
    setting,
)
from turnlane.testing.tunnels import TunnelCase

ID = "sample"
SECRET = "planted/s3cret+value"


class Host:
    """What tunnels find and change."""

    lacking = False
    busy = False
    state: set[str] = set()  # noqa: RUF012 shared on purpose
    numbers = itertools.count()
    kept: list[Any] = []  # noqa: RUF012 shared on purpose

    @classmethod
    @contextlib.contextmanager
    def available(cls) -> Iterator[None]:
        yield

    @classmethod
    @contextlib.contextmanager
    def unavailable(cls) -> Iterator[None]:
        cls.lacking = True
        try:
            yield
        finally:
            cls.lacking = False


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    prefix: Annotated[str, setting("How names begin.", pattern="[a-z]{1,8}")] = "sample"
    key: Annotated[Secret[str], setting("A key.", write_only=True)] = Secret("")


class SoundDevice:
    """Carries packets between the two sockets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.own, self.host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.own.setblocking(False)
        self.host.setblocking(False)
        self.changes: list[str] = []
        self.closed = False

    def add(self, change: str) -> None:
        self.changes.append(f"{change} {next(Host.numbers)}")
        Host.state.add(self.changes[-1])

    async def receive(self, batch: Batch) -> None:
        self.clear(batch)
        while True:
            if self.closed:
                self.end()
            try:
                await anyio.wait_readable(self.own)
            except (OSError, ValueError, anyio.ClosedResourceError):
                self.end()
            if self.closed:
                self.end()
            while not self.full(batch):
                try:
                    packet = self.own.recv(65_535)
                except BlockingIOError:
                    break
                if not packet:
                    self.gone()
                self.take(packet, batch)
            return

    def clear(self, batch: Batch) -> None:
        batch.clear()

    def full(self, batch: Batch) -> bool:
        return batch.full

    def take(self, packet: bytes, batch: Batch) -> None:
        batch.append(packet)

    def end(self) -> None:
        raise anyio.ClosedResourceError

    def gone(self) -> None:
        raise AdapterError(Stage.FORWARDING_LOOP, "device_lost", "the device is gone", "look")

    def send(self, batch: Batch) -> int:
        taken = 0
        for packet in batch:
            try:
                self.give(packet)
            except OSError:
                return taken
            taken += 1
        return taken

    def give(self, packet: memoryview) -> None:
        self.own.send(packet)

    async def aclose(self) -> None:
        if self.closed:
            return
        self.closed = True
        with anyio.CancelScope(shield=True):
            await self.release()

    async def release(self) -> None:
        self.notify()
        self.own.close()
        self.host.close()
        while self.changes:
            await anyio.lowlevel.checkpoint()
            Host.state.discard(self.changes.pop())

    def notify(self) -> None:
        anyio.notify_closing(self.own)


class Sound:
    """Opens a device, gives it addresses and routes; every step can be replaced."""

    settings: type[msgspec.Struct] = Settings
    device: Any = SoundDevice
    code = "bad_request"
    advice = "write another"

    def __init__(self, settings: Any) -> None:
        self.given = settings

    async def capability(self) -> TunnelCapability:
        await anyio.lowlevel.checkpoint()
        if Host.lacking:
            return TunnelCapability(False, "no_device", "there is no device", "load its module")
        return TunnelCapability(True)

    async def open(self, request: TunnelRequest) -> TunnelDevice:
        if Host.lacking:
            await self.lack()
        self.check(request)
        device = self.device(f"{self.given.prefix if self.given else 'sample'}0")
        try:
            await self.configure(device, request)
        except BaseException:
            await self.undo(device)
            raise
        opened: TunnelDevice = device
        return opened

    async def lack(self) -> None:
        raise AdapterError(Stage.LOCAL_BIND, "no_device", "there is no device", "load its module")

    def check(self, request: TunnelRequest) -> None:
        try:
            assert request.addresses
            assert all("/" in each for each in request.addresses)
            list(map(ip_interface, request.addresses))
            self.check_routes(request)
            list(map(ip_address, request.excluded))
            self.check_mtu(request)
        except (ValueError, AssertionError):
            self.refuse()

    def check_routes(self, request: TunnelRequest) -> None:
        list(map(ip_network, request.routes))

    def check_mtu(self, request: TunnelRequest) -> None:
        assert 576 <= request.mtu <= 65_535

    def refuse(self) -> None:
        raise AdapterError(Stage.LOCAL_BIND, self.code, "it cannot be had", self.advice)

    async def configure(self, device: Any, request: TunnelRequest) -> None:
        for what in (*request.addresses, *request.routes):
            await anyio.lowlevel.checkpoint()
            device.add(what)
            await anyio.lowlevel.checkpoint()

    async def undo(self, device: Any) -> None:
        await device.aclose()


class WithoutSettings(Sound):
    settings = None  # type: ignore[assignment]


class Plugin:
    """A plugin with one platform tunnel."""

    def __init__(self, descriptor: PlatformTunnelDescriptor) -> None:
        self._descriptor = descriptor

    @hookimpl
    def turnlane_platform_tunnels(self) -> list[PlatformTunnelDescriptor]:
        return [self._descriptor]


def plugin(sample: type[Sound] = Sound, /, **changes: Any) -> Plugin:
    settings = sample.settings
    complete = PlatformTunnelDescriptor(
        id=ID,
        title="Sample",
        summary="What the conformance kit is tried on",
        platforms=("linux",),
        implementation=f"{sample.__module__}:{sample.__name__}",
        settings=f"{settings.__module__}:{settings.__name__}" if settings is not None else None,
    )
    return Plugin(msgspec.structs.replace(complete, **changes))


async def inject(device: Any, packet: bytes) -> None:
    device.host.send(packet)


async def extract(device: Any) -> bytes:
    await anyio.wait_readable(device.host)
    packet: bytes = device.host.recv(65_535)
    return packet


async def lose(device: Any) -> None:
    device.host.close()


def case(sample: type[Sound] = Sound, /, **changes: Any) -> TunnelCase:
    configured = sample.settings is not None
    given: dict[str, Any] = {
        "plugin": plugin(sample),
        "tunnel": ID,
        "settings": {"prefix": "tun", "key": SECRET} if configured else {},
        "bad_settings": ({"prefix": "Tunnel 1"},) if configured else (),
        "secrets": (SECRET,),
        "available": Host.available,
        "unavailable": Host.unavailable,
        "inject": inject,
        "extract": extract,
        "lose": lose,
        "footprint": lambda: set(Host.state),
    }
    return TunnelCase(**{**given, **changes})


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """Give back what tunnels kept."""
    try:
        yield
    finally:
        for device in Host.kept:
            for opened in (
                (device.own, device.host) if isinstance(device, SoundDevice) else (device,)
            ):
                opened.close()
        Host.kept.clear()
        Host.state.clear()
        Host.busy = False
