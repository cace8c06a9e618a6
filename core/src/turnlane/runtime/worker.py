"""A worker: a process that serves one socket of a server's port.

It is started by `turnlane.runtime.worker_pool`, is told everything over the channel it inherits,
and ends with it. Why it is a process: docs/adr/0009-workers.md.
"""

import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

import anyio

from turnlane.api import Stage, TurnlaneError
from turnlane.net.identity import Identity
from turnlane.net.udp import ListeningUdpSocket
from turnlane.plugins.manager import PluginManager
from turnlane.relay.lane_link import LaneLink
from turnlane.relay.shared_peers import Nobody, Owner, SharedPeers
from turnlane.runtime.failures import crashed
from turnlane.runtime.server import make_egress
from turnlane.runtime.server_ports import ServerPorts
from turnlane.runtime.worker_channel import (
    Channel,
    Claim,
    Counted,
    Deserted,
    Failed,
    Failure,
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
    read_by_worker,
)
from turnlane.telemetry.logging import LOGGER, EventFormatter

COUNT = 1.0
"""Seconds between two reports of the counters."""

FAREWELL = 2.0
"""Seconds in which the last messages must be taken."""


class ChannelObserver:
    """Passes on what a `turnlane.relay.listener.ServerObserver` is told."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def peer_accepted(
        self, address: str, session: str, lane: int, *, new_session: bool, traceparent: str
    ) -> None:
        """Tell of a lane that joined a session."""
        self._channel.send(LaneAccepted(address, session, lane, new_session, traceparent))

    def peer_refused(self, address: str, stage: Stage, code: str, message: str) -> None:
        """Tell of a peer that was refused."""
        self._channel.send(PeerRefused(address, stage, code, message))

    def peer_lost(self, session: str, lane: int, reason: str) -> None:
        """Tell of a lane that has ended."""
        self._channel.send(LaneLost(session, lane, reason))

    def datagrams_too_large(
        self, session: str, lane: int, size: int, max_datagram: int, count: int
    ) -> None:
        """Tell of replies that do not fit."""
        self._channel.send(RepliesTooLarge(session, lane, size, max_datagram, count))

    def flow_failed(self, session: str, flow: int, error: TurnlaneError) -> None:
        """Tell of a flow whose upstream failed."""
        self._channel.send(FlowFailed(session, flow, Failure.of(error)))


class ChannelCensus:
    """Asks the server which worker owns a session (`turnlane.relay.shared_peers.Census`)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._request = 0
        self._answers: dict[int, Callable[[Owner], None]] = {}

    def claim(self, session_id: bytes, *, new: bool, answer: Callable[[Owner], None]) -> None:
        """Ask who owns a session; bounded by the lanes that wait, each of which asks once."""
        self._request += 1
        self._answers[self._request] = answer
        self._channel.send(Claim(self._request, session_id, new))

    def answered(self, owned: Owned) -> None:
        """Pass an answer to who asked."""
        answer = self._answers.pop(owned.request, None)
        if answer is not None:
            nobody = Nobody.FULL if owned.full else Nobody.UNKNOWN
            answer(nobody if owned.owner is None else owned.owner)

    def release(self, session_id: bytes) -> None:
        """Tell that a session has ended."""
        self._channel.send(Released(session_id))

    def deserted(self, session_ids: tuple[bytes, ...]) -> None:
        """Tell which sessions have no lane."""
        self._channel.send(Deserted(session_ids))


class ChannelHandler(logging.Handler):
    """Passes log events on, cleaned of secrets."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._formatter = EventFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on one event."""
        fields = self._formatter.fields(record)
        if trace := self._formatter.exception(record):
            fields["exception"] = trace
        self._channel.send(
            Logged(record.name, record.levelno, self._formatter.event(record), fields)
        )


class Worker:
    """One worker, from its start to its end; both come over the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._census = ChannelCensus(channel)
        self._stopping = anyio.Event()
        self._ports: ServerPorts | None = None
        self._told: dict[str, int] = {}

    async def run(self) -> None:
        """Serve until the server says stop or is gone; a failure is told to it."""
        channel = self._channel
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            try:
                await self._run()
            except anyio.EndOfStream:
                pass
            except Exception as error:
                channel.send(Failed(Failure.of(crashed(Stage.SERVER_INIT, error))))
            tasks.cancel_scope.cancel()
        self._count()
        with anyio.move_on_after(FAREWELL):
            await channel.drain()

    async def _run(self) -> None:
        start, sockets = await self._channel.receive(read_by_worker)
        if not isinstance(start, Start):
            raise RuntimeError("the first message is to start")
        with ExitStack() as opened:
            listening = [
                opened.enter_context(closing(ListeningUdpSocket(each))) for each in sockets
            ]
            LOGGER.addHandler(ChannelHandler(self._channel))
            LOGGER.setLevel(start.log_level)
            egress = make_egress(start.profile, PluginManager.load())()
            await egress.prepare()
            self._ports = ServerPorts(
                start.profile,
                Identity.from_pem(start.identity),
                egress,
                ChannelObserver(self._channel),
                partial(SharedPeers, here=start.index, census=self._census),
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._report)
                await self._ports.run(
                    listening[0],
                    listening[1] if listening[1:] else None,
                    serving=partial(self._serve, tasks),
                    stopping=self._stopping.wait,
                )
                tasks.cancel_scope.cancel()

    def _serve(self, tasks: anyio.abc.TaskGroup) -> None:
        tasks.start_soon(self._listen, tasks)
        self._channel.send(Serving())

    async def _listen(self, tasks: anyio.abc.TaskGroup) -> None:
        """Do what the server says; when it is gone, end at once."""
        assert self._ports is not None
        peers = self._ports.peers
        assert isinstance(peers, SharedPeers)
        while True:
            try:
                message, sockets = await self._channel.receive(read_by_worker)
            except anyio.EndOfStream:
                tasks.cancel_scope.cancel()
                return
            match message:
                case Owned():
                    self._census.answered(message)
                case Link():
                    link = LaneLink(sockets[0], self._ports.workspace.received)
                    tasks.start_soon(peers.run_link, message.worker, link)
                case MakeRoom():
                    peers.end_session(message.session_id, anyio.current_time())
                case Stop():
                    self._stopping.set()
                case Start():
                    raise RuntimeError("a worker starts once")

    async def _report(self) -> None:
        while True:
            await anyio.sleep(COUNT)
            self._count()

    def _count(self) -> None:
        if self._ports is None:
            return
        counters = self._ports.counters()
        if isinstance(self._ports.peers, SharedPeers) and self._ports.peers.dropped:
            counters["dropped_between_workers"] = self._ports.peers.dropped
        if counters != self._told:
            self._told = counters
            self._channel.send(Counted(counters))


async def serve(descriptor: int) -> None:
    """Be the worker at the channel that has this number."""
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        await Worker(channel).run()
    finally:
        channel.close()
