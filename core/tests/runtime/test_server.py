"""A tunnel server's life: stopped at any moment, a listener that breaks, a plugin that crashes."""

import errno
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import anyio
import pytest

from turnlane.api import (
    AdapterContext,
    AdapterDescriptor,
    AdapterError,
    DatagramSocket,
    Direction,
    InternalError,
    Stage,
    TrafficClass,
    hookimpl,
)
from turnlane.plugins.manager import PluginManager
from turnlane.relay.session_peers import SessionPeers
from turnlane.runtime.events import Event, ServerEnded, ServerReady, StageReached
from turnlane.runtime.peer_link import join_host_port
from turnlane.runtime.profiles import ServerProfile
from turnlane.runtime.server import TunnelServer

pytestmark = pytest.mark.anyio

SOON = 5.0


class Egress:
    """An upstream end whose `prepare` is scripted."""

    step: ClassVar[Any] = None

    def __init__(self, context: AdapterContext, _address: str, _settings: object) -> None:
        self.context = context

    async def prepare(self) -> None:
        if isinstance(self.step, BaseException):
            raise self.step
        if self.step == "hang":
            await anyio.sleep_forever()

    async def connect(self, flow: int) -> DatagramSocket:
        return await self.context.connect_udp("127.0.0.1", 9, flow)


def adapter(direction: Direction) -> AdapterDescriptor:
    return AdapterDescriptor(
        "udp", "UDP", "", direction, TrafficClass.DATAGRAM, "planted_server:Egress", ("udp",)
    )


class Plugin:
    @hookimpl
    def turnlane_ingress_adapters(self) -> list[AdapterDescriptor]:
        return [adapter(Direction.INGRESS)]

    @hookimpl
    def turnlane_egress_adapters(self) -> list[AdapterDescriptor]:
        return [adapter(Direction.EGRESS)]


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = ModuleType("planted_server")
    vars(planted).update(Egress=Egress)
    monkeypatch.setitem(sys.modules, "planted_server", planted)
    Egress.step = None


class Running:
    """A server under test, and what it told."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.events: list[Event] = []
        fields: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "connect": "127.0.0.1:9",
            "identity": folder,
            "open_access": True,
        }
        self.server = TunnelServer(
            ServerProfile(**{**fields, **changes}),
            PluginManager.from_modules([Plugin()]),
            on_event=self.events.append,
            wall_time=lambda: 1_000_000.0,
        )

    def stages(self) -> list[Stage]:
        return [event.stage for event in self.events if isinstance(event, StageReached)]

    def ends(self) -> list[ServerEnded]:
        return [event for event in self.events if isinstance(event, ServerEnded)]


def is_free(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        try:
            opened.bind(address)
        except OSError:
            return False
    return True


async def test_a_server_that_is_stopped_gives_up_both_its_ports(tmp_path: Path) -> None:
    bench = Running(tmp_path, legacy_listen="127.0.0.1:0")
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.server.run)
            await bench.server.ready.wait()
            ports = [bench.server.listen, bench.server.legacy_listen]
            assert None not in ports
            assert not any(is_free(port) for port in ports if port is not None)
            bench.server.stop()
            bench.server.stop()
    assert all(is_free(port) for port in ports if port is not None)
    (end,) = bench.ends()
    assert (end.error, end.counters) == (None, {})
    assert bench.stages()[-1] is Stage.SHUTDOWN


@pytest.mark.parametrize("step", [None, "hang"])
async def test_a_server_that_is_stopped_before_it_begins_never_listens_for_long(
    tmp_path: Path, step: Any
) -> None:
    Egress.step = step
    bench = Running(tmp_path)
    bench.server.stop()
    with anyio.fail_after(SOON):
        await bench.server.run()
    (end,) = bench.ends()
    assert end.error is None


async def test_a_server_that_is_stopped_while_it_looks_for_its_upstream_ends_at_once(
    tmp_path: Path,
) -> None:
    Egress.step = "hang"
    bench = Running(tmp_path)
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.server.run)
            await anyio.wait_all_tasks_blocked()
            assert not bench.server.ready.is_set()
            bench.server.stop()
    (end,) = bench.ends()
    assert end.error is None
    assert not [event for event in bench.events if isinstance(event, ServerReady)]


async def test_an_upstream_that_is_not_there_is_told_before_anything_listens(
    tmp_path: Path,
) -> None:
    Egress.step = AdapterError(Stage.UPSTREAM_DIAL, "upstream_name_unresolved", "no such name")
    bench = Running(tmp_path)
    await bench.server.run()
    assert bench.server.error is Egress.step
    assert Stage.LISTEN not in bench.stages()


async def test_a_second_port_that_is_taken_gives_the_first_one_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        main = free.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        bench = Running(
            tmp_path,
            listen=join_host_port(*main),
            legacy_listen=join_host_port(*taken.getsockname()),
        )
        await bench.server.run()
    assert bench.server.error is not None
    assert bench.server.error.code == "listen_failed"
    assert is_free(main)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.usefixtures("dataplane")
async def test_a_port_that_breaks_ends_the_server_with_its_failure(
    tmp_path: Path, trouble: Any, which: int
) -> None:
    bench = Running(tmp_path, legacy_listen="127.0.0.1:0")
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.server.run)
            await bench.server.ready.wait()
            await anyio.wait_all_tasks_blocked()
            assert bench.server.ports is not None
            listening = bench.server.ports.listeners[which].socket
            trouble(listening._socket).reading.append(errno.ENETDOWN)
            port = listening.local_address
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
                opened.sendto(b"wake up", port)
    error = bench.server.error
    assert error is not None
    assert (error.stage, error.code) == (Stage.LISTEN, "listen_socket_failed")
    assert is_free(bench.server.listen)


async def test_a_fault_of_ours_ends_the_server_alone_and_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tick(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(SessionPeers, "tick", tick)
    bench = Running(tmp_path)
    with anyio.fail_after(SOON):
        await bench.server.run()  # which does not raise: other servers of its host go on
    error = bench.server.error
    assert isinstance(error, InternalError)
    assert (error.stage, error.message) == (Stage.ACCEPT, "an unexpected ZeroDivisionError")
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert is_free(bench.server.listen)


async def test_what_comes_to_a_port_is_counted(tmp_path: Path) -> None:
    bench = Running(tmp_path)
    with anyio.fail_after(SOON):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.server.run)
            await bench.server.ready.wait()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
                for data in (b"nonsense", b"", b"\x17\xfe\xfd" + bytes(10)):
                    opened.sendto(data, bench.server.listen)
            while sum(bench.server.counters().values()) < 3:
                await anyio.lowlevel.checkpoint()
            assert bench.server.counters() == {"malformed": 2, "unknown": 1}
            bench.server.stop()
    assert bench.ends()[0].counters == {"malformed": 2, "unknown": 1}
