"""A tunnel server: identity, listeners, egress, from policy to drained."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, closing

import anyio

from turnlane.api import DatagramEgress, Secret, Stage, TurnlaneError
from turnlane.net.identity import Identity
from turnlane.net.udp import ListeningUdpSocket
from turnlane.plugins.manager import PluginManager
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
from turnlane.runtime.server_ports import ServerPorts
from turnlane.telemetry import span


class Server(ABC):
    """What every tunnel server is. `run` it in a task; it is ready when `ready` is set.

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
        self.plugins = plugins
        self.on_event = on_event
        self.startup = anyio.CancelScope()
        self.stopping = anyio.Event()
        self._wall_time = wall_time
        self._stage = Stage.POLICY_VALIDATE

    @property
    @abstractmethod
    def sessions(self) -> int:
        """How many sessions there are now."""

    @abstractmethod
    def counters(self) -> dict[str, int]:
        """Return what the ports have counted so far, as `ServerPorts.counters` does."""

    @abstractmethod
    async def serve(self, identity: Identity, egress: GuardedEgress) -> None:
        """Listen and serve until stopped: within `startup`, `reach_ready` and `stopping`."""

    def stop(self) -> None:
        """End in order: clients are told, then left; `ended` is set when all is released.

        A startup that is under way ends where it waits.
        """
        self.stopping.set()
        self.startup.cancel()

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
            self.on_event(ServerEnded(self.name, anyio.current_time(), self.error, self.counters()))

    async def _run(self) -> None:
        profile = self.profile
        self.enter(Stage.POLICY_VALIDATE)
        egress = make_egress(profile, self.plugins)
        self.enter(Stage.SERVER_INIT)
        self.identity = Identity.load_or_create(profile.identity, self._wall_time())
        await self.serve(self.identity, egress())

    def enter(self, stage: Stage) -> None:
        """Tell that `stage` is reached: what fails from now on failed there."""
        self._stage = stage
        self.on_event(StageReached(self.name, anyio.current_time(), stage))

    def reach_ready(self) -> None:
        """Tell that the server listens."""
        assert self.identity is not None
        self._stage = Stage.ACCEPT
        legacy = None if self.legacy_listen is None else join_host_port(*self.legacy_listen)
        self.on_event(
            ServerReady(
                self.name,
                anyio.current_time(),
                join_host_port(*self.listen),
                str(self.identity.pin),
                legacy,
            )
        )
        self.ready.set()

    # turnlane.relay.listener.ServerObserver

    def peer_accepted(
        self, address: str, session: str, lane: int, *, new_session: bool, traceparent: str
    ) -> None:
        """Tell of a lane that joined a session, in a span of its client's trace."""
        with span("lane_accepted", traceparent or None, session_id=session, lane=lane):
            self.on_event(
                PeerAccepted(self.name, anyio.current_time(), session, lane, address, new_session)
            )

    def peer_refused(self, address: str, stage: Stage, code: str, message: str) -> None:
        """Tell of a peer that was refused."""
        self.on_event(PeerRefused(self.name, anyio.current_time(), address, stage, code, message))

    def peer_lost(self, session: str, lane: int, reason: str) -> None:
        """Tell of a lane that has ended."""
        self.on_event(PeerLost(self.name, anyio.current_time(), session, lane, reason))

    def datagrams_too_large(
        self, session: str, lane: int, size: int, max_datagram: int, count: int
    ) -> None:
        """Tell of replies that do not fit."""
        now = anyio.current_time()
        self.on_event(ReplyTooLarge(self.name, now, session, lane, size, max_datagram, count))

    def flow_failed(self, session: str, flow: int, error: TurnlaneError) -> None:
        """Tell of a flow whose upstream failed."""
        self.on_event(FlowFailed(self.name, anyio.current_time(), session, flow, error))


class TunnelServer(Server):
    """A tunnel server that does all its work in this process."""

    ports: ServerPorts | None = None

    @property
    def sessions(self) -> int:
        """How many sessions there are now."""
        peers = None if self.ports is None else self.ports.peers
        return 0 if peers is None else len(peers.sessions)

    def counters(self) -> dict[str, int]:
        """Return what the ports have counted so far, as `ServerPorts.counters` does."""
        return {} if self.ports is None else self.ports.counters()

    async def serve(self, identity: Identity, egress: GuardedEgress) -> None:
        """Listen and serve until stopped."""
        with ExitStack() as opened:
            listeners = await self._open(egress, opened)
            if listeners is None:
                return
            main, legacy = listeners
            self.listen = main.local_address
            self.legacy_listen = None if legacy is None else legacy.local_address
            self.ports = ServerPorts(self.profile, identity, egress, self)
            await self.ports.run(main, legacy, serving=self.reach_ready, stopping=self._stopped)

    async def _open(
        self, egress: DatagramEgress, opened: ExitStack
    ) -> tuple[ListeningUdpSocket, ListeningUdpSocket | None] | None:
        """Bind the main and the legacy port; None where a stop came first."""

        async def bind(address: str) -> ListeningUdpSocket:
            bound = await ListeningUdpSocket.bind(*split_host_port(address))
            return opened.enter_context(closing(bound))

        with self.startup:
            await egress.prepare()
            self.enter(Stage.LISTEN)
            main = await bind(self.profile.listen)
            legacy = self.profile.legacy_listen
            return main, None if legacy is None else await bind(legacy)
        return None

    async def _stopped(self) -> None:
        await self.stopping.wait()
        self.enter(Stage.SHUTDOWN)


def make_egress(profile: ServerProfile, plugins: PluginManager) -> Callable[[], GuardedEgress]:
    """Check a profile and return what makes its egress.

    Raises `PolicyError` or `UnavailableError`; making it, `AdapterError`.
    """
    descriptor = validate_server(profile, plugins)
    settings = adapter_settings(
        descriptor, plugins, profile.egress_settings, profile.egress_text_settings
    )
    return lambda: GuardedEgress(descriptor, plugins, profile.connect, settings)
