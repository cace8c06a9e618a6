"""A client session: its lanes under one supervisor, its local end, from policy to shutdown."""

from collections.abc import Callable, Sequence
from contextlib import closing
from secrets import token_bytes
from typing import NoReturn

import anyio
from anyio.abc import TaskGroup

from turnlane.api import (
    Batch,
    Credentials,
    DatagramSocket,
    SessionError,
    Stage,
    TurnlaneError,
)
from turnlane.net.relayed_path import PathSettings
from turnlane.net.udp import pump
from turnlane.proto.hello import token_key
from turnlane.proto.lane_estimate import LaneEstimate
from turnlane.relay.lane import Lane, LanePlan, Security
from turnlane.relay.membership import Membership
from turnlane.relay.scheduler import Carrier, FlowSticky, RoundRobin, Scheduler, dispatch
from turnlane.relay.workspace import Workspace
from turnlane.runtime.adapters import adapter_settings, open_ingress
from turnlane.runtime.credentials import CredentialSource, choose_endpoint
from turnlane.runtime.events import (
    CredentialsResolved,
    DatagramTooLarge,
    Event,
    LaneLost,
    LaneReady,
    MtuChanged,
    PeerDrained,
    SessionEnded,
    SessionReady,
    StageReached,
)
from turnlane.runtime.failures import crashed
from turnlane.runtime.peer_link import join_host_port
from turnlane.runtime.policy import validate_client
from turnlane.runtime.profiles import ClientProfile, PeerMode, SchedulerKind
from turnlane.runtime.resolver import Resolver
from turnlane.runtime.restart_budget import RestartBudget
from turnlane.telemetry import current_traceparent, span

_REFUSALS = frozenset({"turn_unauthorized", "turn_wrong_credentials"})
"""Answers of a relay that make credentials worth resolving again."""

HINT_INTERVAL = 60.0
"""Seconds between two hints that datagrams are too large."""


class LaneSlot:
    """One lane of the session over all its restarts, as the scheduler and observers see it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.lane: Lane | None = None
        self.restarts = 0
        self.ready_at: float | None = None

    @property
    def ready(self) -> bool:
        """Whether the lane carries traffic now."""
        return self.lane is not None and self.lane.ready

    @property
    def relayed(self) -> tuple[str, int] | None:
        """The relay's address that the server sees, or None while there is none."""
        return None if self.lane is None else self.lane.relayed

    @property
    def estimate(self) -> LaneEstimate | None:
        """What is known of the lane as it is now."""
        return None if self.lane is None else self.lane.estimate

    @property
    def backlog(self) -> int:
        """Bytes that wait because the connection to the relay does not take them."""
        return 0 if self.lane is None else self.lane.backlog

    def probe(self, now: float) -> None:
        """Measure the lane as it is now."""
        if self.lane is not None:
            self.lane.probe(now)

    def healthy_for(self, now: float) -> float:
        """Return for how many seconds the lane as it is now has carried traffic."""
        return 0.0 if self.ready_at is None else now - self.ready_at

    @property
    def max_datagram(self) -> int:
        """Bytes of the largest datagram that the lane as it is now bears; 0 without a lane."""
        return 0 if self.lane is None else self.lane.max_datagram

    @property
    def too_large(self) -> int:
        """Datagrams that the lane as it is now has refused as too large for its path."""
        return 0 if self.lane is None else self.lane.too_large

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send packets of `batch` over the lane as it is now."""
        if self.lane is not None:
            self.lane.send(batch, start, stop)


class ClientSession:
    """One client session. `run` it in a task; it is ready when `ready` is set.

    `name` is how events and logs call the session: its id on the wire, in hexadecimal. When the
    server has forgotten the session the lanes begin another on the wire, which `LaneReady` names.
    """

    def __init__(
        self,
        profile: ClientProfile,
        resolver: Resolver,
        *,
        on_event: Callable[[Event], None],
    ) -> None:
        self.profile = profile
        self._membership = Membership(token_bytes)
        self.name = self._membership.session_id.hex()
        self.ready = anyio.Event()
        self.ended = anyio.Event()
        self.listen: tuple[str, int] = ("", 0)
        self.unsent = 0
        self.mtu = 0
        """Bytes of the largest datagram that every lane that is ready bears; 0 before that."""
        self.error: TurnlaneError | None = None
        self.lanes: list[LaneSlot] = []
        self._workspace = Workspace()
        self._resolver = resolver
        self._plugins = resolver.plugins
        self._on_event = on_event
        self._stage = Stage.POLICY_VALIDATE
        self._reached: set[Stage] = set()
        self._scope = anyio.CancelScope()
        self._tasks: TaskGroup | None = None
        self._exhausted = 0
        self._next_hint = 0.0

    @property
    def ready_lanes(self) -> int:
        """How many lanes carry traffic now."""
        return sum(slot.ready for slot in self.lanes)

    def stop(self) -> None:
        """End the session in order; `ended` is set when everything is released."""
        self._scope.cancel()

    async def run(self) -> None:
        """Run the session to its end; its failure, if any, is in `error` and in `SessionEnded`."""
        try:
            with self._scope, span("session", session_id=self.name):
                await self._run()
        except Exception as error:
            self.error = crashed(self._stage, error)
        finally:
            self._enter(Stage.SHUTDOWN)
            self.ended.set()
            self._on_event(SessionEnded(self.name, anyio.current_time(), self.error))

    async def _run(self) -> None:
        profile = self.profile
        self._enter(Stage.POLICY_VALIDATE)
        descriptor = validate_client(profile, self._plugins)
        self._resolver.settings(profile.provider)
        settings = adapter_settings(
            descriptor, self._plugins, profile.ingress_settings, profile.ingress_text_settings
        )
        self._enter(Stage.PROVIDER_RESOLVE)
        source = CredentialSource(
            profile.provider, self._resolver, on_renewed=self._tell_credentials
        )
        with closing(source):
            await source.get()
            self._enter(Stage.LOCAL_BIND)
            socket = await open_ingress(descriptor, self._plugins, profile.listen, settings)
            with closing(socket):
                self.listen = socket.local_address
                await self._supervise(socket, source)

    async def _supervise(self, socket: DatagramSocket, source: CredentialSource) -> None:
        profile = self.profile
        membership = self._membership if profile.mode is PeerMode.SESSION else None
        lanes = [LaneSlot(index) for index in range(profile.connections)]
        self.lanes = lanes
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for slot in lanes:
                tasks.start_soon(self._keep, slot, membership, socket, source)
            await self.ready.wait()
            listen = join_host_port(*self.listen)
            self._on_event(
                SessionReady(self.name, anyio.current_time(), listen, len(lanes), self.mtu)
            )
            self._enter(Stage.FORWARDING_LOOP)
            await self._pump(socket, lanes)
        if self.error is not None:
            raise self.error

    async def _pump(self, socket: DatagramSocket, lanes: Sequence[Carrier]) -> None:
        round_robin = self.profile.scheduler is SchedulerKind.ROUND_ROBIN
        scheduler: Scheduler = RoundRobin(lanes) if round_robin else FlowSticky(lanes)

        workspace = self._workspace

        def carry(batch: Batch) -> None:
            self.unsent += dispatch(scheduler, batch, workspace.clock())

        try:
            await pump(socket, workspace.received, carry)
        except TurnlaneError as error:
            self._fail(error)

    async def _keep(
        self,
        slot: LaneSlot,
        membership: Membership | None,
        socket: DatagramSocket,
        source: CredentialSource,
    ) -> None:
        """Keep one lane up: before readiness its failure is the session's, after it is retried."""
        budget = RestartBudget()
        credentials: Credentials | None = None
        refused: Credentials | None = None
        while True:
            slot.ready_at = None
            try:
                credentials = await source.get(refused)
                refused = None
                await self._run_lane(slot, credentials, membership, socket, source)
            except TurnlaneError as error:
                failure = error
            slot.lane = None
            self._follow_path()
            if not self.ready.is_set():
                self._fail(failure)
                return
            if failure.code in _REFUSALS:
                refused = credentials
            now = anyio.current_time()
            backoff = budget.failed(now, slot.healthy_for(now))
            self._on_event(LaneLost(self.name, now, slot.index, self.ready_lanes, failure, backoff))
            if backoff is None:
                self._exhaust(failure)
                return
            slot.restarts += 1
            await anyio.sleep(backoff)

    async def _run_lane(
        self,
        slot: LaneSlot,
        credentials: Credentials,
        membership: Membership | None,
        socket: DatagramSocket,
        source: CredentialSource,
    ) -> NoReturn:
        profile = self.profile
        endpoint = choose_endpoint(
            credentials, source.descriptor, profile.transport, profile.turn_host, profile.turn_port
        )

        def on_ready() -> None:
            slot.ready_at = anyio.current_time()
            self._on_event(
                LaneReady(
                    self.name,
                    slot.ready_at,
                    slot.index,
                    self.ready_lanes,
                    join_host_port(*(lane.relayed or ("", 0))),
                    endpoint.transport.value,
                    slot.restarts,
                    self._membership.session_id.hex(),
                )
            )
            self._follow_path()
            if self.ready_lanes == len(self.lanes):
                self.ready.set()

        def on_too_large(size: int) -> None:
            now = anyio.current_time()
            if now >= self._next_hint:
                self._next_hint = now + HINT_INTERVAL
                mtu, count = slot.max_datagram, slot.too_large
                self._on_event(DatagramTooLarge(self.name, now, slot.index, size, mtu, count))

        lane = Lane(
            LanePlan(
                index=slot.index,
                lanes=profile.connections,
                path=PathSettings(
                    endpoint=endpoint,
                    credentials=credentials,
                    peer_host=profile.peer.host,
                    peer_port=profile.peer.port,
                    random_bytes=token_bytes,
                    bind=profile.bind_interface,
                    ca_file=None if profile.ca_file is None else str(profile.ca_file),
                ),
                security=self._security(),
                membership=membership,
                traceparent=current_traceparent() or "",
            ),
            workspace=self._workspace,
            deliver=socket.send,
            on_stage=self._enter if not self.ready.is_set() else _ignore,
            on_drain=lambda: self._on_event(
                PeerDrained(self.name, anyio.current_time(), slot.index)
            ),
            on_path=self._follow_path,
            on_too_large=on_too_large,
        )
        slot.lane = lane
        with span("lane", session_id=self.name, lane=slot.index, restarts=slot.restarts):
            await lane.run(on_ready)

    def _follow_path(self) -> None:
        """Keep to what the narrowest lane bears; a session without a ready lane keeps its word."""
        mtu = min((slot.max_datagram for slot in self.lanes if slot.ready), default=self.mtu)
        if mtu != self.mtu:
            self.mtu = mtu
            if self.ready.is_set():
                self._on_event(MtuChanged(self.name, anyio.current_time(), mtu))

    def _security(self) -> Security | None:
        if self.profile.mode is PeerMode.PLAIN:
            return None
        token = self.profile.peer.token
        return Security(self.profile.peer.pin, None if token is None else token_key(token))

    def _exhaust(self, failure: TurnlaneError) -> None:
        self._exhausted += 1
        if self._exhausted == len(self.lanes):
            self._fail(
                SessionError(
                    Stage.SESSION_SUPERVISION,
                    "restart_budget_exhausted",
                    f"every lane failed too often; the last at {failure.stage}: "
                    f"{failure.code}: {failure.message}",
                    failure.advice or "check the relay and the server, then start again",
                )
            )

    def _fail(self, error: TurnlaneError) -> None:
        """End the session with its first failure; the other tasks are cancelled."""
        if self.error is None:
            self.error = error
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def _enter(self, stage: Stage) -> None:
        """Tell a stage of the startup, once, in the order of the stages."""
        if stage not in self._reached:
            self._stage = stage
            self._reached.add(stage)
            self._on_event(StageReached(self.name, anyio.current_time(), stage))

    def _tell_credentials(self, credentials: Credentials) -> None:
        self._on_event(
            CredentialsResolved(
                self.name,
                anyio.current_time(),
                self.profile.provider.provider,
                tuple(endpoint.address for endpoint in credentials.endpoints),
                credentials.expires_at,
            )
        )


def _ignore(_stage: Stage) -> None:
    """Pass over the stages of a lane that comes back; its failure will name one."""
