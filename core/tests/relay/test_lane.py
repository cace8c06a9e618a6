"""A client's lane, on a path that leads straight to a server's port."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from secrets import token_bytes
from typing import Any

import anyio
import pytest

from turnlane.api import (
    Batch,
    Credentials,
    RelayEndpoint,
    Secret,
    SessionError,
    Stage,
    TransportError,
    TurnlaneError,
)
from turnlane.net.dtls import MAX_PAYLOAD
from turnlane.net.identity import Pin
from turnlane.net.relayed_path import PathSettings
from turnlane.proto.frames import ByeCode
from turnlane.proto.lane_health import LaneHealth
from turnlane.relay import lane as module
from turnlane.relay.lane import Lane, LanePlan, Security
from turnlane.relay.membership import Membership

pytestmark = pytest.mark.anyio

TOKEN = Secret(b"the token of this server")
ADDRESS = ("198.51.100.7", 7)
SOON = 5.0


class StraightPath:
    """Stands in for a relayed path: datagrams go to a port and come from it."""

    relayed = ADDRESS

    def __init__(self, port: Any) -> None:
        self.stage = Stage.PEER_SETUP
        self.broken: TransportError | None = None
        self.full = False
        self.backlog = 0
        self.hurried: list[float] = []
        self.released = False
        self._port = port

    def send(self, payload: bytes) -> bool:
        if self.full:
            return False
        self._port.now = anyio.current_time()
        self._port.listener.take([(payload, ADDRESS)], self._port.now)
        return True

    def read(self, now: float) -> list[bytes]:
        if self.broken is not None:
            raise self.broken
        taken: list[bytes] = self._port.wires.take(ADDRESS)
        return taken

    def break_down(self) -> None:
        self.broken = TransportError(self.stage, "turn_socket_failed", "broken")
        self._port.wires.send(b"", ADDRESS)

    def get_timer(self) -> None:
        return None

    def hurry(self, deadline: float) -> None:
        self.hurried.append(deadline)

    async def wait(self, deadline: float | None) -> None:
        with anyio.CancelScope(deadline=float("inf") if deadline is None else deadline):
            while ADDRESS not in self._port.wires.boxes:
                await self._port.wires.news.wait()


class Bench:
    """A lane under test, what came over it and how it ended."""

    def __init__(self, port: Any, pin: Pin, *, raw: bool, token: Secret[bytes]) -> None:
        self.path = StraightPath(port)
        self.membership = Membership(token_bytes)
        self.delivered: list[tuple[int, bytes]] = []
        self.stages: list[Stage] = []
        self.drained = 0
        self.ready = anyio.Event()
        self.ended = anyio.Event()
        self.error: TurnlaneError | None = None
        endpoint = RelayEndpoint("192.0.2.1", 3478)
        self.lane = Lane(
            LanePlan(
                index=0,
                lanes=1,
                path=PathSettings(
                    endpoint,
                    Credentials((endpoint,), Secret("u"), Secret("p")),
                    "192.0.2.2",
                    56000,
                    token_bytes,
                ),
                security=Security(pin, None if raw else token),
                membership=None if raw else self.membership,
            ),
            deliver=self._deliver,
            on_stage=self.stages.append,
            on_drain=self._drain,
        )

    async def run(self) -> None:
        try:
            await self.lane.run(self.ready.set)
        except TurnlaneError as error:
            self.error = error
        finally:
            self.ended.set()

    def send(self, flow: int, *packets: bytes) -> None:
        batch = Batch()
        for packet in packets:
            batch.append(packet, flow)
        self.lane.send(batch, 0, len(batch))

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(SOON):
            while not holds():
                await anyio.lowlevel.checkpoint()

    async def end(self) -> TurnlaneError | None:
        with anyio.fail_after(SOON):
            await self.ended.wait()
        assert self.path.released
        assert not self.lane.ready
        return self.error

    def _deliver(self, batch: Batch) -> None:
        self.delivered += [(batch.flows[i], bytes(batch.packet(i))) for i in range(len(batch))]

    def _drain(self) -> None:
        self.drained += 1


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch,
    port: Any,
    pin: Pin,
    *,
    raw: bool = False,
    token: Secret[bytes] = TOKEN,
    ready: bool = True,
) -> AsyncIterator[Bench]:
    bench = Bench(port, pin, raw=raw, token=token)

    @asynccontextmanager
    async def straight(_settings: object, _on_stage: object) -> AsyncIterator[StraightPath]:
        try:
            yield bench.path
        finally:
            bench.path.released = True

    monkeypatch.setattr(module, "relayed_path", straight)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run)
        if ready:
            with anyio.fail_after(SOON):
                await bench.ready.wait()
        yield bench
        tasks.cancel_scope.cancel()
    assert bench.path.released


async def test_a_lane_comes_up_carries_packets_both_ways_and_ends_its_session(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port:
        async with running(monkeypatch, port, server_pin) as bench:
            assert bench.stages == [Stage.DTLS_HANDSHAKE, Stage.SESSION_HELLO]
            assert bench.path.stage is Stage.FORWARDING_LOOP
            bench.send(7, b"one", b"two")
            await bench.until(lambda: bool(port.upstream.sockets))
            (upstream,) = port.upstream.sockets
            await bench.until(lambda: upstream.taken == [b"one", b"two"])
            upstream.say(b"reply")
            await bench.until(lambda: bench.delivered == [(7, b"reply")])
            assert (bench.lane.packets_sent, bench.lane.packets_received) == (2, 1)
            assert bench.path.hurried, "what was sent is followed by a ping"
        # Cancelled, as with its session: nothing of it is kept.
        assert port.peers.sessions == {}
        assert port.told.lost == [(0, "session_closed")]


async def test_a_lane_whose_path_breaks_leaves_its_session_for_another(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.path.break_down()
        error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.FORWARDING_LOOP, "turn_socket_failed")
        assert port.told.lost == [(0, "lane_closed")]
        assert len(port.peers.sessions) == 1
        bench.send(1, b"nobody carries this")
        assert bench.lane.packets_sent == 0


async def test_packets_that_the_path_does_not_take_or_no_record_holds_are_not_counted_as_sent(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.send(1, bytes(MAX_PAYLOAD), b"")
        assert (bench.lane.packets_sent, bench.lane.unsendable) == (1, 1)
        bench.path.full = True
        bench.send(1, b"x")
        assert bench.lane.packets_sent == 1


async def test_a_ping_finds_the_payload_before_it_counted(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    receive_ping = LaneHealth.receive_ping

    def receive(self: LaneHealth, ping: Any, now: float) -> None:
        counted.append(self.frames_received)
        receive_ping(self, ping, now)

    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.send(1, b"x")
        await bench.until(lambda: bool(port.upstream.sockets))
        await anyio.wait_all_tasks_blocked()
        monkeypatch.setattr(LaneHealth, "receive_ping", receive)
        # Replies and the server's ping are read in one go.
        (server_lane,) = port.peers.lanes.values()
        batch = Batch()
        for number in range(5):
            batch.append(b"%d" % number, 1)
        server_lane.send(batch, 0, 5)
        server_lane.handle_timer(anyio.current_time() + 2)
        await bench.until(lambda: bool(counted))
        assert counted == [5]
        assert [payload for _, payload in bench.delivered] == [b"0", b"1", b"2", b"3", b"4"]


async def test_each_end_of_a_lane_measures_it_when_asked(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.path.backlog = 7
        assert bench.lane.backlog == 7
        (server_lane,) = port.peers.lanes.values()
        await bench.until(lambda: server_lane.ready)
        assert server_lane.backlog == 0
        for end in (bench.lane, server_lane):
            estimate = end.estimate
            assert estimate is not None
            now = anyio.current_time()
            end.probe(now)
            assert estimate.asked_at == now
            await bench.until(lambda told=estimate: told.base is not None)  # type: ignore[misc]
        # The two ends here have one clock.
        assert bench.lane.estimate is not None
        assert bench.lane.estimate.base is not None
        assert 0 <= bench.lane.estimate.base < SOON
    assert bench.lane.backlog == 0


async def test_a_server_that_drains_and_leaves_is_told_as_such(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        now = anyio.current_time()
        port.peers.drain(now + 1, now)
        await bench.until(lambda: bench.drained == 1)
        assert bench.lane.ready, "it is for the server to end"
        port.peers.close(now)
        port.listener.flush()
        error = await bench.end()
        assert isinstance(error, SessionError)
        assert (error.stage, error.code) == (Stage.FORWARDING_LOOP, "peer_left")
        assert "shutdown" in error.message


async def test_an_association_that_ends_without_a_bye_is_told_with_its_stage(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        port.dtls.drop(ADDRESS)
        port.listener.flush()
        error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.FORWARDING_LOOP, "peer_closed")
        assert error.advice


async def test_a_wrong_pin_and_a_wrong_token_end_a_lane_where_they_show(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port:
        wrong = Pin(bytes(32))
        async with running(monkeypatch, port, wrong, ready=False) as bench:
            error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.DTLS_HANDSHAKE, "pin_mismatch")
        assert port.told.refused == [(Stage.DTLS_HANDSHAKE, "peer_alert")]
        async with running(
            monkeypatch, port, server_pin, token=Secret(b"guessed"), ready=False
        ) as bench:
            error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "token_mismatch")


async def test_a_lane_of_a_session_that_the_server_forgot_begins_another(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port:
        async with running(monkeypatch, port, server_pin, ready=False) as bench:
            async with bench.membership.ticket() as ticket:
                bench.membership.established(ticket, Secret(token_bytes(32)))
            error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "unknown_session")
        assert bench.membership.session_id != ticket.session_id
        async with bench.membership.ticket() as fresh:
            assert fresh.secret is None


async def test_a_raw_lane_carries_datagrams_as_they_are_to_whoever_spoke_last(
    open_legacy_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_legacy_port() as port:
        async with running(monkeypatch, port, server_pin, raw=True) as bench:
            assert bench.stages == [Stage.DTLS_HANDSHAKE]
            bench.send(4, b"from four", b"")
            bench.send(5, b"from five")
            await bench.until(lambda: bool(port.upstream.sockets))
            (upstream,) = port.upstream.sockets
            await bench.until(lambda: upstream.taken == [b"from four", b"from five"])
            assert (bench.lane.packets_sent, bench.lane.unsendable) == (2, 1)
            upstream.say(b"reply")
            await bench.until(lambda: bench.delivered == [(5, b"reply")])
        await anyio.wait_all_tasks_blocked()
        assert port.peers.peers == {}


async def test_a_server_may_leave_one_lane_and_say_why(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        (server_lane,) = port.peers.lanes.values()
        server_lane.close(ByeCode.LANE_DEAD, anyio.current_time())
        error = await bench.end()
        assert error is not None
        assert "lane_dead" in error.message
