"""A tunnel server whose main port is served by several processes, one for each processor.

This process does no work on the data: it holds the port's sockets, so that the death of a worker
moves no other worker's peers, knows which worker owns which session, and tells what all of them do
as one server. How and why: docs/adr/0009-workers.md.
"""

import logging
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import anyio
from anyio.abc import TaskGroup

from turnlane.api import AdapterError, Secret, TurnlaneError
from turnlane.api.stages import Stage
from turnlane.net.identity import Identity
from turnlane.net.shared_port import open_port
from turnlane.net.system import plain_address
from turnlane.plugins.manager import PluginManager
from turnlane.relay.lane_link import link_pair
from turnlane.runtime.adapters import GuardedEgress
from turnlane.runtime.events import Event, WorkerLost, WorkerReplaced
from turnlane.runtime.peer_link import split_host_port
from turnlane.runtime.profiles import ServerProfile
from turnlane.runtime.restart_budget import RestartBudget
from turnlane.runtime.server import Server
from turnlane.runtime.server_ports import DRAIN
from turnlane.runtime.session_census import SessionCensus
from turnlane.runtime.worker_channel import (
    Claim,
    Counted,
    Deserted,
    FlowFailed,
    LaneAccepted,
    LaneLost,
    Link,
    Logged,
    MakeRoom,
    Owned,
    PeerRefused,
    Released,
    RepliesTooLarge,
    Serving,
    Start,
    Stop,
    ToServer,
)
from turnlane.runtime.worker_process import WorkerProcess
from turnlane.telemetry import log_event
from turnlane.telemetry.logging import LOGGER

STOP_TIMEOUT = DRAIN + 5.0
"""Seconds that the workers have to drain and end; then they are killed."""


class WorkerPool(Server):
    """A tunnel server with `profile.workers` workers.

    Worker `i` always serves socket `i`; the legacy port is worker 0's. A worker that dies is
    replaced after a pause that grows as it dies again, until its budget is spent: that ends the
    server. One that does not even start, before the server was ready, ends it at once.
    """

    def __init__(
        self,
        profile: ServerProfile,
        plugins: PluginManager,
        *,
        on_event: Callable[[Event], None],
        wall_time: Callable[[], float],
    ) -> None:
        super().__init__(profile, plugins, on_event=on_event, wall_time=wall_time)
        self.census = SessionCensus(profile.max_sessions)
        self.workers: dict[int, WorkerProcess] = {}
        self._gone: Counter[str] = Counter()
        self._sockets: list[socket.socket] = []
        self._legacy: socket.socket | None = None
        self._pem = Secret(b"")

    @property
    def sessions(self) -> int:
        """How many sessions there are now."""
        return len(self.census)

    def counters(self) -> dict[str, int]:
        """Return what the ports of all workers have counted so far, as each told last.

        Beside what `ServerPorts.counters` has, `dropped_between_workers` are packets of lanes that
        one worker could not pass to another.
        """
        counters = Counter(self._gone)
        for worker in self.workers.values():
            counters.update(worker.counters)
        return dict(counters)

    async def serve(self, identity: Identity, egress: GuardedEgress) -> None:
        """Listen and serve until stopped; raises what ended the workers."""
        self._pem = identity.to_pem()
        with ExitStack() as opened:
            bound = False
            with self.startup:
                await egress.prepare()  # what is wrong is told once, and before there are workers
                self.enter(Stage.LISTEN)
                await self._bind(opened)
                bound = True
            if bound:
                await self._run_workers()
        if self.error is not None:
            raise self.error

    async def _bind(self, opened: ExitStack) -> None:
        profile = self.profile
        main = split_host_port(profile.listen)
        self._sockets = [
            opened.enter_context(each) for each in await open_port(*main, profile.workers)
        ]
        self.listen = plain_address(self._sockets[0].getsockname())
        if profile.legacy_listen is not None:
            (legacy,) = await open_port(*split_host_port(profile.legacy_listen))
            self._legacy = opened.enter_context(legacy)
            self.legacy_listen = plain_address(legacy.getsockname())

    async def _run_workers(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stop_when_asked, tasks)
            async with anyio.create_task_group() as working:
                for index in range(self.profile.workers):
                    working.start_soon(self._keep, index, working)
            tasks.cancel_scope.cancel()

    async def _stop_when_asked(self, tasks: TaskGroup) -> None:
        await self.stopping.wait()
        if not self.ready.is_set():
            tasks.cancel_scope.cancel()
            return
        self.enter(Stage.SHUTDOWN)
        for worker in self.workers.values():
            worker.channel.send(Stop())
        await anyio.sleep(STOP_TIMEOUT)
        tasks.cancel_scope.cancel()

    async def _keep(self, index: int, working: TaskGroup) -> None:
        """Have a worker at socket `index` until the server ends."""
        budget = RestartBudget()
        while not self.stopping.is_set():
            worker, ended = await self._run_worker(index)
            if self.stopping.is_set():
                return
            now = anyio.current_time()
            since = worker.serving_since
            pause = None
            if self.ready.is_set():
                pause = budget.failed(now, 0.0 if since is None else now - since)
            if pause is None:
                self.error = self.error or ended
                working.cancel_scope.cancel()
                return
            self.on_event(WorkerLost(self.name, now, index, ended, pause))
            with anyio.move_on_after(pause):
                await self.stopping.wait()

    async def _run_worker(self, index: int) -> tuple[WorkerProcess, TurnlaneError]:
        worker = WorkerProcess(index, self._take)
        self._brief(worker)
        self.workers[index] = worker
        try:
            return worker, await worker.run()
        finally:
            del self.workers[index]
            self._gone.update(worker.counters)
            self.census.drop(index)
            for session, lane in worker.lanes.elements():
                self.peer_lost(session, lane, "worker_lost")

    def _brief(self, worker: WorkerProcess) -> None:
        """Tell a worker what to do, and link it with every other."""
        sockets = [self._sockets[worker.index].dup()]
        if worker.index == 0 and self._legacy is not None:
            sockets.append(self._legacy.dup())
        level = LOGGER.getEffectiveLevel()
        worker.channel.send(Start(worker.index, self.profile, self._pem, level), sockets)
        for other in self.workers.values():
            near, far = link_pair()
            worker.channel.send(Link(other.index), [near])
            other.channel.send(Link(worker.index), [far])

    def _take(self, worker: WorkerProcess, message: ToServer) -> None:
        match message:
            case Claim():
                self._answer(worker, message)
            case Released():
                self.census.release(message.session_id, worker.index)
            case Deserted():
                self.census.deserted(message.session_ids, worker.index)
            case Counted():
                worker.counters = message.counters
            case Serving():
                self._serving(worker)
            case LaneAccepted():
                worker.lanes[message.session, message.lane] += 1
                self.peer_accepted(
                    message.address,
                    message.session,
                    message.lane,
                    new_session=message.new_session,
                    traceparent=message.traceparent,
                )
            case LaneLost():
                worker.lanes[message.session, message.lane] -= 1
                worker.lanes += Counter()  # drops what is 0
                self.peer_lost(message.session, message.lane, message.reason)
            case PeerRefused():
                self.peer_refused(message.address, message.stage, message.code, message.message)
            case RepliesTooLarge():
                self.datagrams_too_large(
                    message.session,
                    message.lane,
                    message.size,
                    message.max_datagram,
                    message.count,
                )
            case FlowFailed():
                told = message.failure
                error = AdapterError(told.stage, told.code, told.message, told.advice)
                self.flow_failed(message.session, message.flow, error)
            case Logged():
                log_event(
                    logging.getLogger(message.logger),
                    message.level,
                    message.event,
                    **message.fields,
                )

    def _answer(self, worker: WorkerProcess, claim: Claim) -> None:
        verdict = self.census.claim(claim.session_id, worker.index, new=claim.new)
        if verdict.evicted is not None:
            session_id, owner = verdict.evicted
            self.workers[owner].channel.send(MakeRoom(session_id))
        worker.channel.send(Owned(claim.request, verdict.owner, verdict.full))

    def _serving(self, worker: WorkerProcess) -> None:
        if self.ready.is_set():
            self.on_event(WorkerReplaced(self.name, anyio.current_time(), worker.index))
        elif sum(each.serving_since is not None for each in self.workers.values()) == len(
            self._sockets
        ):
            self.reach_ready()
