"""The supervisor of a client session, with lanes, a provider and a local end that are scripted."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from secrets import token_bytes
from types import ModuleType
from typing import Any, ClassVar, NoReturn

import anyio
import msgspec
import pytest

from turnlane.api import (
    AdapterContext,
    AdapterDescriptor,
    AdapterError,
    Artifact,
    ArtifactOutcome,
    Batch,
    ChallengePort,
    Credentials,
    DatagramSocket,
    Direction,
    InternalError,
    ProviderCapabilities,
    ProviderContext,
    ProviderDescriptor,
    ProviderError,
    RelayEndpoint,
    Resolution,
    ResolveRequest,
    Secret,
    Stage,
    TrafficClass,
    TransportError,
    TurnlaneError,
    hookimpl,
)
from turnlane.net.identity import Pin
from turnlane.plugins.manager import PluginManager
from turnlane.relay.lane import LanePlan
from turnlane.runtime import client as module
from turnlane.runtime import restart_budget
from turnlane.runtime.client import ClientSession
from turnlane.runtime.events import (
    CredentialsResolved,
    DatagramTooLarge,
    Event,
    LaneLost,
    LaneReady,
    MtuChanged,
    SessionEnded,
    SessionReady,
    StageReached,
)
from turnlane.runtime.host import NobodyToAsk
from turnlane.runtime.peer_link import PeerLink
from turnlane.runtime.profiles import ClientProfile, ProviderProfile
from turnlane.runtime.resolver import Resolver

pytestmark = pytest.mark.anyio

SOON = 5.0

LOST = TransportError(Stage.FORWARDING_LOOP, "lane_silent", "silence")
REFUSED = TransportError(Stage.TURN_ALLOCATE, "turn_unauthorized", "401")

Step = Callable[["ScriptedLane", Callable[[], None]], Awaitable[NoReturn]]


class ScriptedLane:
    """A lane that does what the script of its index says, once for each start."""

    estimate = None
    backlog = 0
    scripts: ClassVar[dict[int, list[Step]]] = {}
    started: ClassVar[list["ScriptedLane"]] = []
    alive: ClassVar[int] = 0

    def __init__(self, plan: LanePlan, **callbacks: Any) -> None:
        self.plan = plan
        self.on_stage: Callable[[Stage], None] = callbacks["on_stage"]
        self.on_path: Callable[[], None] = callbacks["on_path"]
        self.on_too_large: Callable[[int], None] = callbacks["on_too_large"]
        self.max_datagram = 1427
        self.too_large = 0
        self.ready = False
        self.relayed = ("192.0.2.1", 5)
        self.sent: list[bytes] = []
        self.fail = anyio.Event()
        self.failure: Exception = LOST
        self.started.append(self)

    async def run(self, on_ready: Callable[[], None]) -> NoReturn:
        cls = type(self)
        steps = self.scripts.get(self.plan.index, [])
        step = steps.pop(0) if steps else ready
        cls.alive += 1
        try:
            await step(self, on_ready)
        finally:
            self.ready = False
            cls.alive -= 1

    def send(self, batch: Batch, start: int, stop: int) -> None:
        self.sent += [bytes(batch.packet(index)) for index in range(start, stop)]

    def break_down(self, failure: Exception = LOST) -> None:
        self.failure = failure
        self.fail.set()


def lane_of(index: int) -> ScriptedLane:
    """Return the lane of an index as it was started last."""
    return [lane for lane in ScriptedLane.started if lane.plan.index == index][-1]


async def ready(lane: ScriptedLane, on_ready: Callable[[], None]) -> NoReturn:
    """Come up, and work until told to fail."""
    lane.ready = True
    on_ready()
    await lane.fail.wait()
    raise lane.failure


async def hang(lane: ScriptedLane, _: Callable[[], None]) -> NoReturn:
    lane.on_stage(Stage.TURN_DIAL)
    await anyio.sleep_forever()


def failing(failure: Exception) -> Step:
    async def fail(lane: ScriptedLane, _: Callable[[], None]) -> NoReturn:
        await anyio.lowlevel.checkpoint()
        raise failure

    return fail


class LocalEnd:
    """A local socket that takes nothing until `broken` is set to what it fails with."""

    local_address = ("127.0.0.1", 9000)
    last: ClassVar["LocalEnd"]

    def __init__(self, _context: AdapterContext, _address: str, _settings: object) -> None:
        LocalEnd.last = self
        self.broken: Exception | None = None
        self.closed = False
        self._news = anyio.Event()
        self._datagrams: list[bytes] = []
        self.filled: list[Batch] = []

    async def open(self) -> DatagramSocket:
        await anyio.lowlevel.checkpoint()
        return self

    def say(self, datagram: bytes) -> None:
        self._datagrams.append(datagram)
        self._news.set()

    def break_down(self, error: Exception) -> None:
        self.broken = error
        self._news.set()

    async def receive(self, batch: Batch) -> None:
        await self._news.wait()
        self._news = anyio.Event()
        if self.broken is not None:
            raise self.broken
        self.filled.append(batch)
        batch.clear()
        for datagram in self._datagrams:
            batch.append(datagram, 1)
        self._datagrams.clear()

    def send(self, batch: Batch) -> int:
        return len(batch)

    def close(self) -> None:
        self.closed = True


class Provider:
    """Gives new credentials each time, or fails as told."""

    script: ClassVar[list[Any]] = []
    resolved: ClassVar[int] = 0

    def __init__(self, context: ProviderContext) -> None:
        self.context = context

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        cls = type(self)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, BaseException):
            raise step
        if step == "hang":
            await anyio.sleep_forever()
        cls.resolved += 1
        return Resolution(
            Credentials(
                (RelayEndpoint("192.0.2.1", 3478),), Secret(f"user{self.resolved}"), Secret("pw")
            ),
            Artifact("scripted", "static", {}, (), ArtifactOutcome("resolution")),
        )


class Plugin:
    @hookimpl
    def turnlane_providers(self) -> list[ProviderDescriptor]:
        return [
            ProviderDescriptor(
                "scripted",
                "Scripted",
                "A provider.",
                "planted_client:Provider",
                capabilities=ProviderCapabilities(renewable=True),
            )
        ]

    @hookimpl
    def turnlane_ingress_adapters(self) -> list[AdapterDescriptor]:
        return [adapter(Direction.INGRESS)]

    @hookimpl
    def turnlane_egress_adapters(self) -> list[AdapterDescriptor]:
        return [adapter(Direction.EGRESS)]


def adapter(direction: Direction) -> AdapterDescriptor:
    return AdapterDescriptor(
        "udp", "UDP", "", direction, TrafficClass.DATAGRAM, "planted_client:LocalEnd", ("udp",)
    )


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    planted = ModuleType("planted_client")
    vars(planted).update(Provider=Provider, LocalEnd=LocalEnd)
    monkeypatch.setitem(sys.modules, "planted_client", planted)
    monkeypatch.setattr(module, "Lane", ScriptedLane)
    monkeypatch.setattr(restart_budget, "FIRST_BACKOFF", 0.0001)
    monkeypatch.setattr(restart_budget, "LAST_BACKOFF", 0.0001)
    ScriptedLane.scripts, ScriptedLane.started, ScriptedLane.alive = {}, [], 0
    Provider.script, Provider.resolved = [], 0
    yield
    assert ScriptedLane.alive == 0, "a lane was not released"


class Running:
    """A session under test, and what it told."""

    def __init__(self, connections: int) -> None:
        self.events: list[Event] = []
        self.session = ClientSession(
            ClientProfile(
                provider=ProviderProfile(provider="scripted", link=Secret("link")),
                peer=PeerLink("192.0.2.2", 56000, Pin(token_bytes(32))),
                connections=connections,
            ),
            Resolver(PluginManager.from_modules([Plugin()]), NobodyToAsk(), lambda: 1_000_000.0),
            on_event=self.events.append,
        )

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(SOON):
            while not holds():
                await anyio.lowlevel.checkpoint()

    async def ended(self) -> TurnlaneError | None:
        """Wait for the end and return what it was."""
        with anyio.fail_after(SOON):
            await self.session.ended.wait()
        (end,) = self.told(SessionEnded)
        assert end.error is self.session.error
        return self.session.error


@asynccontextmanager
async def running(connections: int = 1, **scripts: list[Step]) -> AsyncIterator[Running]:
    """Run a session until the block ends; `lane0=[...]` is what lane 0 does, start by start."""
    ScriptedLane.scripts = {int(name[4:]): list(steps) for name, steps in scripts.items()}
    bench = Running(connections)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.session.run)
        yield bench
        bench.session.stop()
        await bench.ended()


async def test_a_session_is_ready_when_all_its_lanes_are() -> None:
    go_on = anyio.Event()

    async def late(lane: ScriptedLane, on_ready: Callable[[], None]) -> NoReturn:
        await go_on.wait()
        await ready(lane, on_ready)

    async with running(2, lane1=[late]) as bench:
        await bench.until(lambda: bench.session.ready_lanes == 1)
        await anyio.wait_all_tasks_blocked()
        assert not bench.session.ready.is_set()
        go_on.set()
        await bench.until(lambda: bool(bench.told(SessionReady)))
        assert bench.told(SessionReady)[0].lanes == 2
        LocalEnd.last.say(b"x")
        await bench.until(lambda: [lane_of(index).sent for index in range(2)] == [[b"x"], []])
    assert bench.session.error is None
    assert LocalEnd.last.closed


async def test_a_lane_that_fails_before_readiness_ends_the_session_and_the_others() -> None:
    failure = TransportError(Stage.TURN_ALLOCATE, "turn_quota_reached", "486")
    async with running(3, lane0=[ready], lane1=[hang], lane2=[failing(failure)]) as bench:
        assert await bench.ended() is failure
        assert not bench.session.ready.is_set()
        assert ScriptedLane.alive == 0
        assert LocalEnd.last.closed
        assert bench.told(LaneLost) == []


async def test_of_lanes_that_fail_at_once_before_readiness_the_first_is_told() -> None:
    failures = [TransportError(Stage.TURN_DIAL, f"code_{number}", "no") for number in range(2)]
    async with running(2, lane0=[failing(failures[0])], lane1=[failing(failures[1])]) as bench:
        assert await bench.ended() in failures
        assert len(bench.told(SessionEnded)) == 1


async def test_a_lane_that_fails_as_the_session_becomes_ready_is_made_anew() -> None:
    async def break_the_other(lane: ScriptedLane, on_ready: Callable[[], None]) -> NoReturn:
        await bench.until(lambda: bench.session.ready_lanes == 1)
        lane_of(0).break_down()
        await ready(lane, on_ready)

    async with running(2, lane1=[break_the_other]) as bench:
        await bench.until(lambda: len(bench.told(LaneReady)) == 3)
        assert [event.lane for event in bench.told(LaneLost)] == [0]
        assert [event.restarts for event in bench.told(LaneReady)] == [0, 0, 1]
        assert len(bench.told(SessionReady)) == 1
        assert bench.session.ready_lanes == 2
    assert bench.session.error is None


async def test_lanes_that_fail_at_once_after_readiness_come_back_each_by_itself() -> None:
    async with running(2) as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        for lane in list(ScriptedLane.started):
            lane.break_down()
        await bench.until(lambda: len(bench.told(LaneReady)) == 4)
        assert sorted(event.lane for event in bench.told(LaneLost)) == [0, 1]
        assert bench.session.ready_lanes == 2


async def test_a_session_ends_when_the_last_lane_has_used_up_its_restarts() -> None:
    again_and_again = [ready, *[failing(LOST)] * 20]
    async with running(2, lane0=again_and_again) as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        lane_of(0).break_down()
        await bench.until(
            lambda: any(event.backoff is None for event in bench.told(LaneLost)),
        )
        assert bench.session.error is None, "one lane is left"
        assert bench.session.ready_lanes == 1
        ScriptedLane.scripts[1] = [failing(LOST)] * 20
        lane_of(1).break_down()
        error = await bench.ended()
        assert error is not None
        assert (error.stage, error.code) == (
            Stage.SESSION_SUPERVISION,
            "restart_budget_exhausted",
        )
        assert "lane_silent" in error.message
        lost = bench.told(LaneLost)
        assert len(lost) == 2 * (restart_budget.MAX_RESTARTS + 1)
        assert [event.backoff for event in lost].count(None) == 2


async def test_a_local_end_that_breaks_ends_the_session_with_its_own_failure() -> None:
    async with running(2) as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        broken = AdapterError(Stage.FORWARDING_LOOP, "local_socket_failed", "down")
        LocalEnd.last.break_down(broken)
        assert await bench.ended() is broken
        assert ScriptedLane.alive == 0


async def test_a_plugins_socket_fills_a_batch_that_nobody_else_uses() -> None:
    """It may wait before it returns; what all lanes share would be overwritten meanwhile."""
    async with running() as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        LocalEnd.last.say(b"x")
        await bench.until(lambda: bool(LocalEnd.last.filled))
        shared = vars(bench.session._workspace).values()
        assert all(batch is not LocalEnd.last.filled[0] for batch in shared)


async def test_a_plugin_that_closes_its_own_socket_is_told_as_the_plugins_fault() -> None:
    async with running() as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        LocalEnd.last.break_down(anyio.ClosedResourceError())
        error = await bench.ended()
        assert error is not None
        assert error.code == "adapter_crashed"


async def test_a_session_stopped_while_its_provider_thinks_ends_at_once() -> None:
    Provider.script = ["hang"]
    async with running() as bench:
        await anyio.wait_all_tasks_blocked()
        bench.session.stop()
        assert await bench.ended() is None
    assert ScriptedLane.started == []
    stages = [event.stage for event in bench.told(StageReached)]
    assert stages == [Stage.POLICY_VALIDATE, Stage.PROVIDER_RESOLVE, Stage.SHUTDOWN]


async def test_a_session_stopped_while_a_lane_comes_up_ends_at_once() -> None:
    async with running(2, lane1=[hang]) as bench:
        await anyio.wait_all_tasks_blocked()
        assert ScriptedLane.alive == 2
        bench.session.stop()
        assert await bench.ended() is None


async def test_a_session_stopped_before_it_began_does_nothing() -> None:
    bench = Running(1)
    bench.session.stop()
    await bench.session.run()
    assert await bench.ended() is None
    assert (Provider.resolved, ScriptedLane.started) == (0, [])


async def test_a_session_stopped_during_a_backoff_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restart_budget, "FIRST_BACKOFF", 3600.0)
    async with running() as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        ScriptedLane.started[0].break_down()
        await bench.until(lambda: bool(bench.told(LaneLost)))
        await anyio.wait_all_tasks_blocked()
        LocalEnd.last.say(b"nobody carries this")
        await bench.until(lambda: bench.session.unsent == 1)
        bench.session.stop()
        assert await bench.ended() is None
    assert len(ScriptedLane.started) == 1


async def test_credentials_that_the_relay_refuses_are_resolved_again_for_all_lanes() -> None:
    async with running(
        2, lane0=[ready, failing(REFUSED)], lane1=[ready, failing(REFUSED)]
    ) as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        for lane in list(ScriptedLane.started):
            lane.break_down()
        await bench.until(lambda: len(bench.told(LaneReady)) == 4)
        used = [lane.plan.path.credentials.username.reveal() for lane in ScriptedLane.started]
        assert sorted(used) == ["user1"] * 4 + ["user2"] * 2
        assert Provider.resolved == 2
        assert len(bench.told(CredentialsResolved)) == 2


async def test_credentials_that_were_refused_are_not_tried_again_while_the_provider_is_down() -> (
    None
):
    down = ProviderError("service_down", "the service is down")
    async with running(lane0=[ready, failing(REFUSED)]) as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        Provider.script = [down, down]
        ScriptedLane.started[0].break_down()
        await bench.until(lambda: len(bench.told(LaneReady)) == 2)
        codes = [event.error.code for event in bench.told(LaneLost)]
        assert codes == ["lane_silent", "turn_unauthorized", "service_down", "service_down"]
        used = [lane.plan.path.credentials.username.reveal() for lane in ScriptedLane.started]
        assert used == ["user1", "user1", "user2"]


async def test_a_fault_of_ours_ends_the_session_alone_and_keeps_its_traceback() -> None:
    async with running(2, lane0=[ready, failing(ZeroDivisionError("bug"))]) as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        lane_of(0).break_down()
        error = await bench.ended()
        assert isinstance(error, InternalError)
        assert (error.stage, error.message) == (
            Stage.FORWARDING_LOOP,
            "an unexpected ZeroDivisionError",
        )
        assert isinstance(error.__cause__, ZeroDivisionError)
    # The task that ran the session has not raised: other sessions of its host go on.


async def test_a_profile_that_policy_refuses_asks_nobody() -> None:
    bench = Running(1)
    bench.session.profile = msgspec.structs.replace(bench.session.profile, connections=0)
    await bench.session.run()
    error = await bench.ended()
    assert error is not None
    assert error.code == "invalid_connections"
    assert Provider.resolved == 0


async def test_the_session_tells_what_its_narrowest_lane_bears() -> None:
    async with running(2) as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        assert bench.session.mtu == 1427
        assert [event.mtu for event in bench.told(SessionReady)] == [1427]
        narrow, wide = lane_of(0), lane_of(1)
        narrow.max_datagram = 1231
        narrow.on_path()
        wide.max_datagram = 1400
        wide.on_path()
        assert [event.mtu for event in bench.told(MtuChanged)] == [1231]
        narrow.break_down()
        await bench.until(lambda: len(bench.told(LaneReady)) == 3)
        assert [event.mtu for event in bench.told(MtuChanged)] == [1231, 1400], "the wide one's"


async def test_datagrams_that_do_not_fit_are_told_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(1) as bench:
        await bench.until(lambda: bool(bench.told(SessionReady)))
        lane = lane_of(0)
        for count in (1, 2):
            lane.too_large = count
            lane.on_too_large(1452)
        (told,) = bench.told(DatagramTooLarge)
        assert (told.lane, told.size, told.mtu, told.count) == (0, 1452, 1427, 1)
        monkeypatch.setattr(module, "HINT_INTERVAL", 0.0)
        bench.session._next_hint = 0.0
        lane.on_too_large(1500)
        assert bench.told(DatagramTooLarge)[1].count == 2
