"""A tunnel server: identity, listeners, egress, from policy to drained."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict
from secrets import token_bytes

import anyio
from anyio.abc import TaskGroup

from turnlane.api import DatagramEgress, Secret, Stage, TurnlaneError
from turnlane.net.dtls import MAX_PAYLOAD
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.identity import Identity
from turnlane.net.udp import ListeningUdpSocket
from turnlane.plugins.manager import PluginManager
from turnlane.proto.frames import HEADER_SIZE
from turnlane.proto.hello import token_key
from turnlane.relay.legacy_peers import LegacyPeers
from turnlane.relay.listener import Listener, PeerHandler
from turnlane.relay.session_peers import SessionPeers, SessionTerms
from turnlane.relay.workspace import Workspace
from turnlane.runtime.adapters import GuardedEgress, adapter_settings
from turnlane.runtime.events import (
    Event,
    FlowFailed,
    PeerAccepted,
    PeerLost,
    PeerRefused,
    ReplyTooLarge,
    ServerEnded,
    ServerReady,
    StageReached,
)
from turnlane.runtime.failures import crashed
from turnlane.runtime.peer_link import PeerLink, join_host_port, split_host_port
from turnlane.runtime.policy import validate_server
from turnlane.runtime.profiles import ServerProfile
from turnlane.telemetry import span

TICK = 0.2
"""Seconds between two looks at the clock; the finest timer of a peer is a second."""

DRAIN = 1.0
"""Seconds between telling the clients and leaving them, on an ordered stop."""

MAX_HANDSHAKES = 256
MAX_ASSOCIATIONS = 4096
"""Of the main port; each is a lane, or a peer that has yet to say hello."""

MAX_DATAGRAM = MAX_PAYLOAD - HEADER_SIZE
"""Bytes of the largest datagram taken; what a path carries is usually far less."""


class TunnelServer:
    """One tunnel server. `run` it in a task; it is ready when `ready` is set.

    It is the `turnlane.relay.listener.ServerObserver` of its own ports.
    """

    def __init__(
        self,
        profile: ServerProfile,
        plugins: PluginManager,
        *,
        on_event: Callable[[Event], None],
        wall_time: Callable[[], float],
    ) -> None:
        self.profile = profile
        self.name = "server"
        self.ready = anyio.Event()
        self.ended = anyio.Event()
        self.error: TurnlaneError | None = None
        self.identity: Identity | None = None
        self.listen: tuple[str, int] = ("", 0)
        self.legacy_listen: tuple[str, int] | None = None
        self.peers: SessionPeers | None = None
        self.legacy_peers: LegacyPeers | None = None
        self._plugins = plugins
        self._on_event = on_event
        self._wall_time = wall_time
        self._stage = Stage.POLICY_VALIDATE
        self._startup = anyio.CancelScope()
        self._stopping = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._workspace = Workspace()
        self._listeners: list[Listener] = []

    def stop(self) -> None:
        """End in order: clients are told, then left; `ended` is set when all is released.

        A startup that is under way ends where it waits.
        """
        self._stopping.set()
        self._startup.cancel()

    def link(self, host: str, port: int | None = None) -> Secret[str]:
        """Return the peer link of this server under the name or address `host`."""
        assert self.identity is not None
        port = self.listen[1] if port is None else port
        return PeerLink(host, port, self.identity.pin, self.profile.token).text()

    async def run(self) -> None:
        """Serve until stopped; a failure is in `error` and in `ServerEnded`."""
        try:
            with span("server"):
                await self._run()
        except Exception as error:
            self.error = crashed(self._stage, error)
        finally:
            self.ended.set()
            self._on_event(
                ServerEnded(self.name, anyio.current_time(), self.error, self.counters())
            )

    async def _run(self) -> None:
        profile = self.profile
        self._enter(Stage.POLICY_VALIDATE)
        descriptor = validate_server(profile, self._plugins)
        settings = adapter_settings(
            descriptor, self._plugins, profile.egress_settings, profile.egress_text_settings
        )
        self._enter(Stage.SERVER_INIT)
        self.identity = Identity.load_or_create(profile.identity, self._wall_time())
        egress = GuardedEgress(descriptor, self._plugins, profile.connect, settings)
        with ExitStack() as opened:
            listeners = await self._open(egress, opened)
            if listeners is not None:
                await self._serve(*listeners, egress)
        if self.error is not None:
            raise self.error

    async def _open(
        self, egress: DatagramEgress, opened: ExitStack
    ) -> tuple[ListeningUdpSocket, ListeningUdpSocket | None] | None:
        """Bind the main and the legacy port; None where a stop came first."""

        async def bind(address: str) -> ListeningUdpSocket:
            bound = await ListeningUdpSocket.bind(*split_host_port(address))
            return opened.enter_context(closing(bound))

        with self._startup:
            await egress.prepare()
            self._enter(Stage.LISTEN)
            main = await bind(self.profile.listen)
            legacy = self.profile.legacy_listen
            return main, None if legacy is None else await bind(legacy)
        return None

    async def _serve(
        self, main: ListeningUdpSocket, legacy: ListeningUdpSocket | None, egress: DatagramEgress
    ) -> None:
        profile = self.profile
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            dtls = self._dtls(MAX_ASSOCIATIONS)
            self.peers = SessionPeers(
                SessionTerms(
                    token=None if profile.token is None else token_key(profile.token),
                    hello_timeout=profile.handshake_timeout,
                    idle_timeout=profile.idle_timeout,
                    max_sessions=profile.max_sessions,
                    max_datagram=MAX_DATAGRAM,
                ),
                dtls,
                egress,
                tasks,
                port=main,
                workspace=self._workspace,
                observer=self,
                random_bytes=token_bytes,
            )
            self.listen = main.local_address
            self._listen(main, dtls, self.peers, tasks)
            if legacy is not None:
                # Each of these peers is a session of its own.
                legacy_dtls = self._dtls(profile.max_sessions)
                self.legacy_peers = LegacyPeers(
                    legacy_dtls,
                    egress,
                    tasks,
                    idle_timeout=profile.idle_timeout,
                    port=legacy,
                    workspace=self._workspace,
                    observer=self,
                )
                self.legacy_listen = legacy.local_address
                self._listen(legacy, legacy_dtls, self.legacy_peers, tasks)
            tasks.start_soon(self._tick)
            self._stage = Stage.ACCEPT
            self._tell_ready()
            try:
                await self._stopping.wait()
                await self._drain(self.peers)
            finally:
                self._release(self.peers)
                tasks.cancel_scope.cancel()

    def _dtls(self, max_associations: int) -> DtlsServer:
        assert self.identity is not None
        return DtlsServer(
            self.identity,
            random_bytes=token_bytes,
            handshake_timeout=self.profile.handshake_timeout,
            max_handshakes=MAX_HANDSHAKES,
            max_associations=max_associations,
        )

    def _listen(
        self, socket: ListeningUdpSocket, dtls: DtlsServer, handler: PeerHandler, tasks: TaskGroup
    ) -> None:
        listener = Listener(socket, dtls, handler, self, self._workspace)
        self._listeners.append(listener)
        tasks.start_soon(self._run_listener, listener)

    async def _run_listener(self, listener: Listener) -> None:
        try:
            await listener.run()
        except TurnlaneError as error:
            self.error = self.error or error
            if self._tasks is not None:
                self._tasks.cancel_scope.cancel()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(TICK)
            now = anyio.current_time()
            for listener in self._listeners:
                listener.tick(now)
            if self.peers is not None:
                self.peers.tick(now)
            if self.legacy_peers is not None:
                self.legacy_peers.tick(now)

    async def _drain(self, peers: SessionPeers) -> None:
        self._enter(Stage.SHUTDOWN)
        if peers.lanes:
            now = anyio.current_time()
            peers.drain(now + DRAIN, now)
            with anyio.move_on_after(DRAIN):
                await peers.left.wait()

    def _release(self, peers: SessionPeers) -> None:
        now = anyio.current_time()
        peers.close(now)
        if self.legacy_peers is not None:
            self.legacy_peers.close(now)
        for listener in self._listeners:
            listener.dtls.close()
            listener.flush()

    def _tell_ready(self) -> None:
        assert self.identity is not None
        legacy = None if self.legacy_listen is None else join_host_port(*self.legacy_listen)
        self._on_event(
            ServerReady(
                self.name,
                anyio.current_time(),
                join_host_port(*self.listen),
                str(self.identity.pin),
                legacy,
            )
        )
        self.ready.set()

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._on_event(StageReached(self.name, anyio.current_time(), stage))

    def counters(self) -> dict[str, int]:
        """Return what both ports have counted so far, without what is 0.

        `dropped` are datagrams that the system did not take, `too_large` replies that the path of
        their lane does not bear; the other names are those of `DtlsServerStatistics`.
        """
        counters: Counter[str] = Counter()
        if self.peers is not None:
            counters["too_large"] = self.peers.too_large
        for listener in self._listeners:
            counters["dropped"] += listener.socket.dropped
            counters.update(asdict(listener.dtls.statistics))
        return {name: count for name, count in counters.items() if count}

    # turnlane.relay.listener.ServerObserver

    def peer_accepted(
        self, address: str, session: str, lane: int, *, new_session: bool, traceparent: str
    ) -> None:
        """Tell of a lane that joined a session, in a span of its client's trace."""
        with span("lane_accepted", traceparent or None, session_id=session, lane=lane):
            self._on_event(
                PeerAccepted(self.name, anyio.current_time(), session, lane, address, new_session)
            )

    def peer_refused(self, address: str, stage: Stage, code: str, message: str) -> None:
        """Tell of a peer that was refused."""
        self._on_event(PeerRefused(self.name, anyio.current_time(), address, stage, code, message))

    def peer_lost(self, session: str, lane: int, reason: str) -> None:
        """Tell of a lane that has ended."""
        self._on_event(PeerLost(self.name, anyio.current_time(), session, lane, reason))

    def datagrams_too_large(
        self, session: str, lane: int, size: int, max_datagram: int, count: int
    ) -> None:
        """Tell of replies that do not fit."""
        now = anyio.current_time()
        self._on_event(ReplyTooLarge(self.name, now, session, lane, size, max_datagram, count))

    def flow_failed(self, session: str, flow: int, error: TurnlaneError) -> None:
        """Tell of a flow whose upstream failed."""
        self._on_event(FlowFailed(self.name, anyio.current_time(), session, flow, error))
