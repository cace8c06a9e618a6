"""The demo: datagrams through a real relay and back, on one machine, timed and counted."""

import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import anyio

from turnlane.api import RelayTransport, Stage, TransportError, TurnlaneError
from turnlane.net.system import family_of, open_socket
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.events import Event, LaneReady, ServerReady, StageReached
from turnlane.runtime.host import ClientHandle
from turnlane_lab.report import (
    Datagrams,
    DemoReport,
    Failure,
    LaneReport,
    RoundTrip,
    StageTime,
)
from turnlane_lab.stand import Stand

PAYLOAD = 1000
"""Bytes of each datagram; a lane carries it whole on any path that WireGuard would take."""

MAX_MISSING = 3
"""Datagrams missing one after the other, after which no more are sent."""

RELEASE = 2.0
"""Seconds within which the relay must have let go of everything after the end."""


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """What a demo does: `count` datagrams over a session of `connections` lanes.

    A datagram that has not come back after `patience` seconds counts as missing.
    """

    connections: int = 1
    count: int = 1000
    patience: float = 2.0
    transport: RelayTransport = RelayTransport.UDP


class StageClock:
    """Times the stages of which events tell, one after the other."""

    def __init__(self) -> None:
        self.runtime: Literal["server", "client"] = "server"
        self.stages: list[StageTime] = []
        self._running: tuple[Stage, float] | None = None

    def __call__(self, event: Event) -> None:
        """Take an event of a startup; the ends are timed by who causes them."""
        match event:
            case StageReached(at=at, stage=stage) if stage is not Stage.SHUTDOWN:
                self.enter(stage, at)
            case ServerReady(at=at):
                self.end(at)

    def enter(self, stage: Stage, now: float) -> None:
        """End the stage that is running, and begin another one."""
        self.end(now)
        self._running = (stage, now)

    def end(self, now: float) -> None:
        """End the stage that is running, if one is."""
        if self._running is not None:
            stage, since = self._running
            self.stages.append(StageTime(self.runtime, stage, round((now - since) * 1000, 3)))
            self._running = None


@dataclass
class Traffic:
    """Datagrams sent one at a time by several local peers, and what came back to each.

    Every datagram is unlike all others, so that only its own echo counts as its return.
    """

    peers: int
    patience: float
    sent: int = 0
    unexpected: int = 0
    round_trips: list[float] = field(default_factory=list)

    @property
    def returned(self) -> int:
        """How many datagrams came back, each to the peer that sent it."""
        return len(self.round_trips)

    async def run(self, listen: tuple[str, int], count: int) -> None:
        """Send `count` datagrams to `listen`, fewer where nothing comes back any more."""
        filling = secrets.token_bytes(PAYLOAD - 8)
        missing = 0
        with ExitStack() as opened:
            sockets = [opened.enter_context(_connected(listen)) for _ in range(self.peers)]
            under_way: list[dict[bytes, float]] = [{} for _ in sockets]
            for number in range(count):
                peer = number % self.peers
                payload = number.to_bytes(8) + filling
                under_way[peer][payload] = anyio.current_time()
                self._send(sockets[peer], payload)
                with anyio.move_on_after(self.patience):
                    await self._returns(sockets[peer], under_way[peer], payload)
                missing = missing + 1 if payload in under_way[peer] else 0
                if missing == MAX_MISSING:
                    return

    def _send(self, opened: socket.socket, payload: bytes) -> None:
        try:
            opened.send(payload)
        except OSError:
            # The local end is gone; whoever watches the session learns why.
            return
        self.sent += 1

    async def _returns(
        self, opened: socket.socket, under_way: dict[bytes, float], payload: bytes
    ) -> None:
        """Receive until `payload` is back; a late one that is read on the way counts as well."""
        while payload in under_way:
            await anyio.wait_readable(opened)
            try:
                received = opened.recv(PAYLOAD + 1)
            except OSError:
                # As above, or the system woke us for nothing.
                continue
            sent_at = under_way.pop(received, None)
            if sent_at is None:
                self.unexpected += 1
            else:
                self.round_trips.append(anyio.current_time() - sent_at)


def _connected(address: tuple[str, int]) -> socket.socket:
    opened = open_socket(family_of(address[0]), socket.SOCK_DGRAM)
    opened.connect(address)
    return opened


class Demo:
    """One demo in front of `stand`; `report` tells what it found, whether `run` raised or not."""

    def __init__(self, plan: DemoPlan, *, plugins: PluginManager | None = None) -> None:
        self.plan = plan
        self._clock = StageClock()
        self.stand = Stand(plugins=plugins, on_event=self._on_event)
        self._lanes: dict[int, LaneReport] = {}
        self._traffic = Traffic(peers=max(plan.connections, 1), patience=plan.patience)
        self._allocations_left: int | None = None
        self._error: TurnlaneError | None = None
        self._seconds = 0.0

    async def run(self) -> None:
        """Run it; raises the `TurnlaneError` of the stage that failed.

        Its own are `datagrams_missing`, `datagrams_unexpected` and `allocations_left`.
        """
        started = anyio.current_time()
        try:
            async with self.stand as stand:
                await self._run(stand)
        except TurnlaneError as error:
            self._error = error
            raise
        finally:
            now = anyio.current_time()
            self._clock.end(now)
            self._seconds = now - started

    def report(self) -> DemoReport:
        """Return what there is to tell."""
        traffic = self._traffic
        return DemoReport(
            result="ok" if self._error is None else "failed",
            transport=self.plan.transport,
            connections=self.plan.connections,
            seconds=round(self._seconds, 3),
            stages=tuple(self._clock.stages),
            lanes=tuple(self._lanes[index] for index in sorted(self._lanes)),
            datagrams=Datagrams(
                bytes=PAYLOAD,
                peers=traffic.peers,
                sent=traffic.sent,
                echoed=self.stand.echo.counters["received"],
                returned=traffic.returned,
                unexpected=traffic.unexpected,
                sources=self.stand.echo.counters["sources"],
            ),
            round_trip=RoundTrip.of(traffic.round_trips),
            allocations_left=self._allocations_left,
            failure=None if self._error is None else Failure.of(self._error),
        )

    async def _run(self, stand: Stand) -> None:
        plan, clock = self.plan, self._clock
        clock.runtime = "client"
        client = await stand.connect(plan.connections, transport=plan.transport)
        await self._drive(client)
        clock.enter(Stage.SHUTDOWN, anyio.current_time())
        await client.stop()
        clock.end(anyio.current_time())
        await self._check_released(stand)
        clock.runtime = "server"
        clock.enter(Stage.SHUTDOWN, anyio.current_time())
        await stand.server.stop()
        self._check_returned()

    async def _drive(self, client: ClientHandle) -> None:
        """Send the traffic; a session that ends meanwhile raises what it ended with."""
        failure: TurnlaneError | None = None
        async with anyio.create_task_group() as race:

            async def watch() -> None:
                nonlocal failure
                try:
                    await client.wait()
                except TurnlaneError as error:
                    failure = error
                race.cancel_scope.cancel()

            race.start_soon(watch)
            await self._traffic.run(client.listen, self.plan.count)
            race.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _check_returned(self) -> None:
        count, traffic = self.plan.count, self._traffic
        if traffic.unexpected:
            raise TransportError(
                Stage.FORWARDING_LOOP,
                "datagrams_unexpected",
                f"{traffic.unexpected} datagrams came to a peer that they were not for, or twice",
                "this is a fault of Turnlane: report it",
            )
        if traffic.returned < count:
            raise TransportError(
                Stage.FORWARDING_LOOP,
                "datagrams_missing",
                f"{count - traffic.returned} of {count} datagrams did not come back",
                "try again on a machine with less to do; if it stays, report it",
            )

    async def _check_released(self, stand: Stand) -> None:
        counters = stand.relay.counters
        try:
            await counters.settled("allocations_alive", 0, timeout=RELEASE)
        except TimeoutError:
            raise TransportError(
                Stage.SHUTDOWN,
                "allocations_left",
                f"the client left {counters['allocations_alive']} of its allocations at the relay",
                "this is a fault of Turnlane: report it",
            ) from None
        finally:
            self._allocations_left = counters["allocations_alive"]

    def _on_event(self, event: Event) -> None:
        self._clock(event)
        if isinstance(event, LaneReady):
            self._lanes[event.lane] = LaneReport(event.lane, event.relayed)
