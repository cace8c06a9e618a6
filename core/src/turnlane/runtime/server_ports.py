"""The ports of a tunnel server while it serves: who comes, what is due, and how it ends."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from secrets import token_bytes
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from turnlane.api import DatagramEgress, TurnlaneError
from turnlane.net.dtls import MAX_PAYLOAD
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.identity import Identity
from turnlane.net.udp import ListeningUdpSocket
from turnlane.proto.frames import HEADER_SIZE
from turnlane.proto.hello import token_key
from turnlane.relay.legacy_peers import LegacyPeers
from turnlane.relay.listener import Listener, PeerHandler, ServerObserver, ServerPort
from turnlane.relay.session_peers import SessionPeers, SessionTerms
from turnlane.relay.workspace import Workspace
from turnlane.runtime.profiles import ServerProfile

TICK = 0.2
"""Seconds between two looks at the clock; the finest timer of a peer is a second."""

DRAIN = 1.0
"""Seconds between telling the clients and leaving them, on an ordered stop."""

MAX_HANDSHAKES = 256
MAX_ASSOCIATIONS = 4096
"""Of the main port in one process; each is a lane, or a peer that has yet to say hello."""

MAX_DATAGRAM = MAX_PAYLOAD - HEADER_SIZE
"""Bytes of the largest datagram taken; what a path carries is usually far less."""


class MakePeers(Protocol):
    """Makes what handles the peers of the main port: `SessionPeers`, or a kind of it."""

    def __call__(
        self,
        terms: SessionTerms,
        dtls: DtlsServer,
        egress: DatagramEgress,
        tasks: TaskGroup,
        *,
        port: ServerPort,
        workspace: Workspace,
        observer: ServerObserver,
        random_bytes: Callable[[int], bytes],
    ) -> SessionPeers:
        """Make it."""
        ...


class ServerPorts:
    """Serves the main port, and the legacy port where there is one, in this process."""

    def __init__(
        self,
        profile: ServerProfile,
        identity: Identity,
        egress: DatagramEgress,
        observer: ServerObserver,
        make_peers: MakePeers = SessionPeers,
    ) -> None:
        self.peers: SessionPeers | None = None
        self.legacy_peers: LegacyPeers | None = None
        self.workspace = Workspace()
        self._profile = profile
        self._identity = identity
        self._egress = egress
        self._observer = observer
        self._make_peers = make_peers
        self.listeners: list[Listener] = []
        self._error: TurnlaneError | None = None

    async def run(
        self,
        main: ListeningUdpSocket,
        legacy: ListeningUdpSocket | None,
        *,
        serving: Callable[[], None],
        stopping: Callable[[], Awaitable[object]],
    ) -> None:
        """Call `serving` when it serves, and drain when `stopping` returns.

        Cancelled, it says bye at once. Raises `TransportError` when a socket breaks.
        """
        profile = self._profile
        async with anyio.create_task_group() as tasks:
            dtls = self._dtls(MAX_ASSOCIATIONS)
            self.peers = self._make_peers(
                SessionTerms(
                    token=None if profile.token is None else token_key(profile.token),
                    hello_timeout=profile.handshake_timeout,
                    idle_timeout=profile.idle_timeout,
                    max_sessions=profile.max_sessions,
                    max_datagram=MAX_DATAGRAM,
                ),
                dtls,
                self._egress,
                tasks,
                port=main,
                workspace=self.workspace,
                observer=self._observer,
                random_bytes=token_bytes,
            )
            self._listen(main, dtls, self.peers, tasks)
            if legacy is not None:
                # Each of these peers is a session of its own.
                legacy_dtls = self._dtls(profile.max_sessions)
                self.legacy_peers = LegacyPeers(
                    legacy_dtls,
                    self._egress,
                    tasks,
                    idle_timeout=profile.idle_timeout,
                    port=legacy,
                    workspace=self.workspace,
                    observer=self._observer,
                )
                self._listen(legacy, legacy_dtls, self.legacy_peers, tasks)
            tasks.start_soon(self._tick)
            try:
                serving()
                await stopping()
                await self._drain(self.peers)
            finally:
                self._release(self.peers)
                tasks.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    def counters(self) -> dict[str, int]:
        """Return what both ports have counted so far, without what is 0.

        `dropped` are datagrams that the system did not take, `too_large` replies that the path of
        their lane does not bear; the other names are those of `DtlsServerStatistics`.
        """
        counters: Counter[str] = Counter()
        if self.peers is not None:
            counters["too_large"] = self.peers.too_large
        for listener in self.listeners:
            counters["dropped"] += listener.socket.dropped
            counters.update(asdict(listener.dtls.statistics))
        return {name: count for name, count in counters.items() if count}

    def _dtls(self, max_associations: int) -> DtlsServer:
        return DtlsServer(
            self._identity,
            random_bytes=token_bytes,
            handshake_timeout=self._profile.handshake_timeout,
            max_handshakes=MAX_HANDSHAKES,
            max_associations=max_associations,
        )

    def _listen(
        self, socket: ListeningUdpSocket, dtls: DtlsServer, handler: PeerHandler, tasks: TaskGroup
    ) -> None:
        listener = Listener(socket, dtls, handler, self._observer, self.workspace)
        self.listeners.append(listener)
        tasks.start_soon(self._run_listener, listener, tasks.cancel_scope)

    async def _run_listener(self, listener: Listener, scope: anyio.CancelScope) -> None:
        try:
            await listener.run()
        except TurnlaneError as error:
            self._error = self._error or error
            scope.cancel()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(TICK)
            now = anyio.current_time()
            for listener in self.listeners:
                listener.tick(now)
            if self.peers is not None:
                self.peers.tick(now)
            if self.legacy_peers is not None:
                self.legacy_peers.tick(now)

    async def _drain(self, peers: SessionPeers) -> None:
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
        for listener in self.listeners:
            listener.dtls.close()
            listener.flush()
