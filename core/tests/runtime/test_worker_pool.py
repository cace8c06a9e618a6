"""A server with workers that only exist on paper: when it is ready, who is replaced, who is told.

Time is virtual, so these run on trio; tests/e2e/test_workers.py has real processes.
"""

import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
import trio.testing

from turnlane.api import (
    AdapterDescriptor,
    AdapterError,
    Direction,
    Stage,
    TrafficClass,
    TurnlaneError,
    hookimpl,
)
from turnlane.net.identity import Identity
from turnlane.plugins.manager import PluginManager
from turnlane.runtime import events, worker_channel, worker_pool
from turnlane.runtime.events import Event
from turnlane.runtime.profiles import ServerProfile
from turnlane.runtime.worker_channel import (
    Claim,
    Counted,
    Deserted,
    Failure,
    LaneAccepted,
    LaneLost,
    Link,
    Logged,
    MakeRoom,
    Owned,
    PeerRefused,
    Released,
    Serving,
    Start,
    Stop,
)
from turnlane.runtime.worker_pool import STOP_TIMEOUT, WorkerPool

pytestmark = pytest.mark.anyio

DIED = TurnlaneError(Stage.ACCEPT, "worker_died", "it is gone")
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on a clock that jumps to whatever is waited for."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Egress:
    """An upstream end that is always there."""

    def __init__(self, *_: object) -> None:
        pass

    async def prepare(self) -> None:
        """Nothing to prepare."""

    async def connect(self, flow: int) -> None:
        """No worker here has any flow."""


class Plugin:
    @hookimpl
    def turnlane_ingress_adapters(self) -> list[AdapterDescriptor]:
        return [self.adapter(Direction.INGRESS)]

    @hookimpl
    def turnlane_egress_adapters(self) -> list[AdapterDescriptor]:
        return [self.adapter(Direction.EGRESS)]

    def adapter(self, direction: Direction) -> AdapterDescriptor:
        return AdapterDescriptor(
            "udp", "UDP", "", direction, TrafficClass.DATAGRAM, "planted_pool:Egress", ("udp",)
        )


class PaperChannel:
    """Keeps what a worker is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def send(self, message: Any, sockets: Any = ()) -> None:
        self.told.append(message)
        for each in sockets:
            each.close()

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]


class PaperWorker:
    """A worker that does what a test says."""

    made: list["PaperWorker"]

    def __init__(self, index: int, take: Callable[..., None]) -> None:
        self.index = index
        self.channel = PaperChannel()
        self.serving_since: float | None = None
        self.counters: dict[str, int] = {}
        self.lanes: Counter[tuple[str, int]] = Counter()
        self.killed = False
        self._take = take
        self._end = anyio.Event()
        self._why = DIED
        self.made.append(self)

    async def run(self) -> TurnlaneError:
        try:
            await self._end.wait()
        except BaseException:
            self.killed = True
            raise
        return self._why

    def tell(self, message: Any) -> None:
        self._take(self, message)

    def serve(self) -> None:
        self.serving_since = anyio.current_time()
        self.tell(Serving())

    async def die(self, why: TurnlaneError = DIED) -> None:
        self._why = why
        self._end.set()
        await anyio.wait_all_tasks_blocked()


class Bench:
    """A pool under test, its workers in the order in which they were made, and what it told."""

    def __init__(self, folder: Path, made: list[PaperWorker], **changes: Any) -> None:
        self.events: list[Event] = []
        self.made = made
        fields: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "connect": "127.0.0.1:9",
            "identity": folder,
            "open_access": True,
            "workers": 3,
        }
        self.pool = WorkerPool(
            ServerProfile(**{**fields, **changes}),
            PluginManager.from_modules([Plugin()]),
            on_event=self.events.append,
            wall_time=lambda: 1_000_000.0,
        )

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[PaperWorker]:
    planted = ModuleType("planted_pool")
    vars(planted).update(Egress=Egress)
    monkeypatch.setitem(sys.modules, "planted_pool", planted)
    PaperWorker.made = []
    monkeypatch.setattr(worker_pool, "WorkerProcess", PaperWorker)
    return PaperWorker.made


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    Identity.generate(0.0).save(tmp_path)
    return tmp_path


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[list[PaperWorker]]:
    """Run a pool until the block is left; gives its workers, none of which serves yet."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.pool.run)
        await anyio.wait_all_tasks_blocked()
        assert bench.pool.error is None
        yield sorted(bench.made, key=lambda worker: worker.index)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def serving(bench: Bench) -> AsyncIterator[list[PaperWorker]]:
    """Run a pool all of whose workers serve."""
    async with running(bench) as workers:
        for worker in workers:
            worker.serve()
        assert bench.pool.ready.is_set()
        yield workers


async def test_it_is_ready_once_when_all_of_its_workers_serve(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made)
    async with running(bench) as workers:
        for worker in workers[:2]:
            worker.serve()
        assert not bench.pool.ready.is_set()
        workers[2].serve()
        (ready,) = bench.of(events.ServerReady)
        assert ready.listen == f"127.0.0.1:{bench.pool.listen[1]}"
        assert bench.pool.listen[1] > 0
        assert [worker.index for worker in workers] == [0, 1, 2]


async def test_every_worker_is_told_the_same_and_linked_with_every_other(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made, legacy_listen="127.0.0.1:0")
    async with serving(bench) as workers:
        starts = [worker.channel.told[0] for worker in workers]
        assert all(isinstance(start, Start) for start in starts)
        assert [start.index for start in starts] == [0, 1, 2]
        assert len({start.identity for start in starts}) == 1
        assert all(start.profile == bench.pool.profile for start in starts)
        linked = [sorted(link.worker for link in each.channel.of(Link)) for each in workers]
        assert linked == [[1, 2], [0, 2], [0, 1]]
        assert bench.pool.legacy_listen is not None


async def test_one_that_does_not_start_ends_the_server_once_with_its_failure(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made)
    why = AdapterError(Stage.UPSTREAM_DIAL, "upstream_unresolved", "no such name")
    async with running(bench) as workers:
        workers[0].serve()
        await workers[1].die(why)
        assert bench.pool.ended.is_set()
        assert bench.pool.error is why
        assert workers[0].killed
        assert workers[2].killed
        assert [event.error for event in bench.of(events.ServerEnded)] == [why]
        assert not bench.of(events.ServerReady)


async def test_one_that_dies_is_replaced_at_its_socket_and_only_its_sessions_are_forgotten(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made)
    async with serving(bench) as workers:
        for worker, session in zip(workers, (ONE, TWO), strict=False):
            worker.tell(Claim(1, session, new=True))
            worker.tell(LaneAccepted("192.0.2.1:1", session.hex(), 0, True, ""))
        workers[1].tell(LaneAccepted("192.0.2.1:2", TWO.hex(), 1, False, ""))
        workers[1].tell(LaneLost(TWO.hex(), 1, "silent"))
        workers[1].tell(Counted({"dropped": 2}))
        assert bench.pool.sessions == 2
        await workers[1].die()
        assert bench.pool.sessions == 1
        lost = [
            (event.client_session, event.lane, event.reason) for event in bench.of(events.PeerLost)
        ]
        assert lost == [(TWO.hex(), 1, "silent"), (TWO.hex(), 0, "worker_lost")]
        (told,) = bench.of(events.WorkerLost)
        assert (told.worker, told.error, told.backoff) == (1, DIED, 0.2)
        await anyio.sleep(0.19)
        assert len(made) == 3
        await anyio.sleep(0.02)
        replacement = made[3]
        assert replacement.index == 1
        assert sorted(link.worker for link in replacement.channel.of(Link)) == [0, 2]
        assert [link.worker for link in workers[0].channel.of(Link)][-1] == 1
        replacement.serve()
        assert [event.worker for event in bench.of(events.WorkerReplaced)] == [1]
        assert len(bench.of(events.ServerReady)) == 1
        replacement.tell(Counted({"dropped": 3, "unknown": 1}))
        assert bench.pool.counters() == {"dropped": 5, "unknown": 1}


async def test_one_that_dies_again_and_again_ends_the_server(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made)
    async with serving(bench) as workers:
        begun = anyio.current_time()
        with anyio.fail_after(120):
            await workers[2].die()
            while not bench.pool.ended.is_set():
                if made[-1].index == 2 and not made[-1]._end.is_set():
                    await made[-1].die()
                await anyio.sleep(0.05)
        assert anyio.current_time() - begun > 30  # and did not spin
        assert bench.pool.error is DIED
        assert len(made) == 3 + 10
        assert workers[0].killed


async def test_a_session_is_its_first_claimants_and_deserted_ones_make_room(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made, max_sessions=2)
    async with serving(bench) as workers:
        first, second, third = workers
        first.tell(Claim(1, ONE, new=True))
        second.tell(Claim(7, ONE, new=False))
        second.tell(Claim(8, TWO, new=True))
        third.tell(Claim(1, THREE, new=True))
        third.tell(Claim(2, b"unknown", new=False))
        assert first.channel.of(Owned) == [Owned(1, 0)]
        assert second.channel.of(Owned) == [Owned(7, 0), Owned(8, 1)]
        assert third.channel.of(Owned) == [Owned(1, None, full=True), Owned(2, None)]
        second.tell(Deserted((TWO,)))
        third.tell(Claim(3, THREE, new=True))
        assert third.channel.of(Owned)[-1] == Owned(3, 2)
        assert second.channel.of(MakeRoom) == [MakeRoom(TWO)]
        third.tell(Released(THREE))
        assert bench.pool.sessions == 1


async def test_what_workers_tell_is_told_as_one_servers(
    identity: Path, made: list[PaperWorker], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(identity, made)
    async with serving(bench) as workers:
        told = Failure(Stage.UPSTREAM_DIAL, "upstream_unreachable", "no", "check it")
        workers[0].tell(LaneAccepted("192.0.2.1:1", ONE.hex(), 4, True, ""))
        workers[1].tell(PeerRefused("192.0.2.1:2", Stage.SESSION_HELLO, "malformed", "no hello"))
        workers[2].tell(worker_channel.FlowFailed(ONE.hex(), 3, told))
        (accepted,) = bench.of(events.PeerAccepted)
        (refused,) = bench.of(events.PeerRefused)
        (failed,) = bench.of(events.FlowFailed)
        assert {event.session for event in bench.events} == {"server"}
        assert (accepted.client_session, accepted.lane, accepted.new_session) == (
            ONE.hex(),
            4,
            True,
        )
        assert (refused.address, refused.code) == ("192.0.2.1:2", "malformed")
        assert isinstance(failed.error, AdapterError)
        assert (failed.error.stage, failed.error.advice) == (Stage.UPSTREAM_DIAL, "check it")
        with caplog.at_level(logging.INFO, "turnlane.adapter"):
            workers[0].tell(Logged("turnlane.adapter", logging.INFO, "dialled", {"flow": 3}))
        assert [(each.name, each.message) for each in caplog.records] == [
            ("turnlane.adapter", "dialled")
        ]


async def test_stopped_it_has_all_workers_drain_together_and_ends_with_the_last(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made)
    async with serving(bench) as workers:
        workers[0].tell(Counted({"dropped": 1}))
        bench.pool.stop()
        await anyio.wait_all_tasks_blocked()
        assert [worker.channel.told[-1] for worker in workers] == [Stop()] * 3
        for worker in workers:
            assert not bench.pool.ended.is_set()
            await worker.die()
        assert bench.pool.ended.is_set()
        assert bench.pool.error is None
        assert not bench.of(events.WorkerLost)
        assert [event.counters for event in bench.of(events.ServerEnded)] == [{"dropped": 1}]
        assert len(made) == 3


async def test_a_worker_that_does_not_end_is_killed(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made)
    async with serving(bench) as workers:
        await workers[0].die()  # its replacement is waited for when the stop comes
        bench.pool.stop()
        await workers[1].die()
        await anyio.sleep(STOP_TIMEOUT - 0.1)
        assert not bench.pool.ended.is_set()
        await anyio.sleep(0.2)
        assert bench.pool.ended.is_set()
        assert workers[2].killed
        assert len(made) == 3


async def test_stopped_while_it_starts_it_ends_at_once(
    identity: Path, made: list[PaperWorker]
) -> None:
    bench = Bench(identity, made)
    async with running(bench) as workers:
        workers[0].serve()
        bench.pool.stop()
        await anyio.wait_all_tasks_blocked()
        assert bench.pool.ended.is_set()
        assert all(worker.killed for worker in workers)
        assert bench.pool.error is None


async def test_a_port_in_use_is_told_before_there_is_any_worker(
    identity: Path, made: list[PaperWorker]
) -> None:
    first = Bench(identity, made)
    async with serving(first):
        count = len(made)
        second = Bench(identity, made, listen=f"127.0.0.1:{first.pool.listen[1]}")
        await second.pool.run()
        assert second.pool.error is not None
        assert (second.pool.error.stage, second.pool.error.code) == (Stage.LISTEN, "listen_failed")
        assert len(made) == count
