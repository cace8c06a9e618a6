"""Adapters behind their guard: whatever a plugin raises is told as the plugin's."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import anyio
import pytest

from turnlane.api import (
    AdapterContext,
    AdapterDescriptor,
    AdapterError,
    Batch,
    DatagramSocket,
    Direction,
    Stage,
    TrafficClass,
    hookimpl,
)
from turnlane.net.udp import BoundUdpSocket
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.adapters import GuardedEgress, GuardedSocket, open_ingress

pytestmark = pytest.mark.anyio


class PlantedSocket:
    """A plugin's own socket, which does what a test wrote down."""

    local_address = ("192.0.2.1", 9)

    def __init__(self) -> None:
        self.on_receive: Callable[[], None] | None = None
        self.on_send: Callable[[], None] | None = None
        self.closed = anyio.Event()
        self.closes = 0

    async def receive(self, batch: Batch) -> None:
        if self.on_receive is not None:
            self.on_receive()
            batch.append(b"datagram")
            return
        await self.closed.wait()
        raise anyio.ClosedResourceError

    def send(self, batch: Batch) -> int:
        if self.on_send is not None:
            self.on_send()
        return len(batch)

    def close(self) -> None:
        self.closes += 1
        self.closed.set()


class Planted:
    """An ingress and an egress in one."""

    opened: ClassVar[Callable[[AdapterContext], Any]]

    def __init__(self, context: AdapterContext, address: str, settings: object) -> None:
        self.context = context

    async def open(self) -> DatagramSocket:
        return await self.connect(0)

    async def connect(self, flow: int) -> DatagramSocket:
        opened = type(self).opened(self.context)
        result: DatagramSocket = await opened if hasattr(opened, "__await__") else opened
        return result

    async def prepare(self) -> None:
        """Nothing to prepare."""


def descriptor(direction: Direction) -> AdapterDescriptor:
    return AdapterDescriptor(
        "planted", "Planted", "", direction, TrafficClass.DATAGRAM, "planted_adapter:Planted"
    )


class Plugin:
    @hookimpl
    def turnlane_ingress_adapters(self) -> list[AdapterDescriptor]:
        return [descriptor(Direction.INGRESS)]


@pytest.fixture(autouse=True)
def planted_module() -> Iterator[None]:
    planted = ModuleType("planted_adapter")
    vars(planted).update(Planted=Planted)
    sys.modules["planted_adapter"] = planted
    yield
    del sys.modules["planted_adapter"]


async def open_planted() -> DatagramSocket:
    plugins = PluginManager.from_modules([Plugin()])
    return await open_ingress(descriptor(Direction.INGRESS), plugins, "anywhere")


def fail(error: BaseException) -> Callable[..., None]:
    def raise_it(*_: object) -> None:
        raise error

    return raise_it


async def test_a_socket_of_ours_is_handed_through_as_it_is(monkeypatch: Any) -> None:
    monkeypatch.setattr(
        Planted, "opened", lambda context: context.bind_udp("127.0.0.1", 0), raising=False
    )
    opened = await open_planted()
    assert type(opened) is BoundUdpSocket
    opened.close()


@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(0)])
async def test_an_adapter_that_raises_while_it_opens_is_told_with_its_stage(
    monkeypatch: Any, error: BaseException
) -> None:
    monkeypatch.setattr(Planted, "opened", fail(error), raising=False)
    with pytest.raises(AdapterError) as caught:
        await open_planted()
    assert (caught.value.stage, caught.value.code) == (Stage.LOCAL_BIND, "adapter_crashed")
    egress = GuardedEgress(
        descriptor(Direction.EGRESS), PluginManager.from_modules([Plugin()]), "anywhere"
    )
    with pytest.raises(AdapterError) as caught:
        await egress.connect(1)
    assert (caught.value.stage, caught.value.code) == (Stage.UPSTREAM_DIAL, "adapter_crashed")
    assert "boom" not in str(caught.value)


async def guarded_socket(monkeypatch: Any) -> tuple[PlantedSocket, DatagramSocket]:
    planted = PlantedSocket()
    monkeypatch.setattr(Planted, "opened", lambda _: planted, raising=False)
    guarded = await open_planted()
    assert isinstance(guarded, GuardedSocket)
    assert guarded.local_address == planted.local_address
    return planted, guarded


async def test_what_a_plugins_socket_raises_ends_its_receive_as_the_plugins_crash(
    monkeypatch: Any,
) -> None:
    planted, guarded = await guarded_socket(monkeypatch)
    batch = Batch()
    planted.on_receive = lambda: None
    await guarded.receive(batch)
    assert len(batch) == 1
    own = AdapterError(Stage.FORWARDING_LOOP, "cable_cut", "the cable is cut")
    for error, code in ((KeyError("secret"), "adapter_crashed"), (own, "cable_cut")):
        planted.on_receive = fail(error)
        with pytest.raises(AdapterError) as caught:
            await guarded.receive(batch)
        assert (caught.value.stage, caught.value.code) == (Stage.FORWARDING_LOOP, code)
        assert "secret" not in str(caught.value)


async def test_a_send_never_raises_and_its_crash_ends_the_receive(monkeypatch: Any) -> None:
    planted, guarded = await guarded_socket(monkeypatch)
    batch = Batch()
    batch.append(b"x")
    assert guarded.send(batch) == 1
    caught: list[AdapterError] = []

    async def receive() -> None:
        with pytest.raises(AdapterError) as raised:
            await guarded.receive(Batch())
        caught.append(raised.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        planted.on_send = fail(ZeroDivisionError())
        assert guarded.send(batch) == 0
    assert "ZeroDivisionError" in caught[0].message
    assert planted.closes == 1


async def test_a_socket_that_its_plugin_closes_is_a_crash_and_ours_to_close_is_none(
    monkeypatch: Any,
) -> None:
    planted, guarded = await guarded_socket(monkeypatch)
    planted.close()
    with pytest.raises(AdapterError) as caught:
        await guarded.receive(Batch())
    assert caught.value.code == "adapter_crashed"
    guarded.close()
    with pytest.raises(anyio.ClosedResourceError):
        await guarded.receive(Batch())
    planted.on_receive = lambda: None
    with pytest.raises(anyio.ClosedResourceError):
        await guarded.receive(Batch())
