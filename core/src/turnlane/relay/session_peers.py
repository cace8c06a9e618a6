"""The peers of the server's main port: each proves the token, then joins or makes a session."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from turnlane.api.adapters import DatagramEgress
from turnlane.api.batch import Batch
from turnlane.api.descriptors import TrafficClass
from turnlane.api.errors import AdapterError
from turnlane.api.secrets import Secret
from turnlane.api.stages import Stage
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.dtls_state import State
from turnlane.net.system import SocketAddress
from turnlane.proto.frames import ByeCode
from turnlane.proto.hello import (
    EXPORTER_LABEL,
    EXPORTER_SIZE,
    SECRET_SIZE,
    Feature,
    Hello,
    WelcomeTerms,
)
from turnlane.proto.lane_events import (
    LaneAccepted,
    LaneFailed,
    LaneRejected,
    LaneReleased,
    PeerLeft,
    ServerEvent,
)
from turnlane.proto.lane_health import LaneDead
from turnlane.proto.lane_server import LaneServer
from turnlane.proto.refusals import Refusal, RejectCode
from turnlane.relay.listener import ServerObserver, ServerPort
from turnlane.relay.server_lane import ServerLane
from turnlane.relay.server_session import ServerSession
from turnlane.relay.session_lane import LAYOUT, PeerLane, SessionLane
from turnlane.relay.workspace import Workspace

MAX_LANES = 64
"""Lanes of one session."""

MAX_GREETING = 256
"""Peers that have shaken hands and not joined a session; beyond, the oldest gives way."""

HINT_INTERVAL = 60.0
"""Seconds between two hints that datagrams of a session are too large."""

LINGER = 120.0
"""Seconds that a session without lanes is kept for its client to come back."""


@dataclass(frozen=True)
class SessionTerms:
    """What the server grants. Times are in seconds; `token` None lets anybody in."""

    token: Secret[bytes] | None
    hello_timeout: float
    idle_timeout: float
    max_sessions: int
    max_datagram: int


class SessionPeers:
    """Holds the lanes by their peer's address and the sessions by id.

    `left` is set when, after `drain`, the last lane has gone.
    """

    layout = LAYOUT

    def __init__(
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
    ) -> None:
        self.sessions: dict[bytes, ServerSession] = {}
        self.lanes: dict[Hashable, PeerLane] = {}
        self.draining = False
        self.too_large = 0
        """Replies of all sessions that the path of their lane does not bear."""
        self.left = anyio.Event()
        self._terms = terms
        self._dtls = dtls
        self._egress = egress
        self._tasks = tasks
        self._port = port
        self._workspace = workspace
        self._observer = observer
        self._random_bytes = random_bytes
        # In order of arrival, so that the oldest is the first.
        self._greeting: dict[Hashable, PeerLane] = {}
        self._now = 0.0

    # turnlane.relay.listener.PeerHandler

    def accepted(self, address: SocketAddress, association: DtlsAssociation, now: float) -> None:
        """Wait for the hello of a peer whose handshake has completed."""
        if association.state is not State.ESTABLISHED:
            return  # it ended within the datagram that completed it; its end is told next
        exporter = association.export(EXPORTER_LABEL, EXPORTER_SIZE)
        self._admit(
            ServerLane(
                address,
                association,
                self._protocol(exporter),
                dtls=self._dtls,
                port=self._port,
                workspace=self._workspace,
                on_too_large=self._count_too_large,
                now=now,
            ),
            now,
        )

    def carried(self, key: Hashable, batch: Batch, now: float) -> None:
        """Pass payload to its lane."""
        lane = self.lanes.get(key)
        if lane is not None:
            lane.carry(batch, now)

    def received(self, key: Hashable, records: list[bytes], now: float) -> None:
        """Pass the records of one datagram to their lane."""
        lane = self.lanes.get(key)
        if lane is not None:
            self._now = now
            lane.receive(records, now)
            self._settle(lane, now)

    def closed(self, key: Hashable, reason: str, now: float) -> None:
        """Forget the lane of an association that has ended."""
        lane = self.lanes.get(key)
        if lane is not None:
            self._lose(lane, reason, now, tell=None)

    # turnlane.proto.lane_server.SessionDirectory

    def refuse(self, hello: Hello) -> Refusal | None:
        """Say no to a lane, whatever session it is for."""
        if self.draining:
            return Refusal(RejectCode.DRAINING)
        if hello.traffic is not TrafficClass.DATAGRAM:
            return Refusal(RejectCode.UNSUPPORTED_TRAFFIC)
        if hello.lane >= MAX_LANES or hello.lanes > MAX_LANES:
            return Refusal(RejectCode.LANE_LIMIT)
        return None

    def secret(self, session_id: bytes) -> Secret[bytes] | None:
        """Return the secret of a session that exists."""
        session = self.sessions.get(session_id)
        return None if session is None else session.secret

    def create(self, hello: Hello) -> Secret[bytes] | Refusal:
        """Make a session; one that has lost all its lanes makes room when there is none."""
        if len(self.sessions) >= self._terms.max_sessions and not self._end_a_deserted_session():
            return Refusal(RejectCode.SESSION_LIMIT)
        session_id = hello.session_id

        def on_failure(flow: int, error: AdapterError) -> None:
            self._observer.flow_failed(session_id.hex(), flow, error)

        session = ServerSession(
            session_id,
            Secret(self._random_bytes(SECRET_SIZE)),
            self._tasks,
            self._egress,
            on_failure=on_failure,
            workspace=self._workspace,
            now=self._now,
        )
        self.sessions[session_id] = session
        return session.secret

    # Time and the end

    def tick(self, now: float) -> None:
        """Do what is due: pings, lanes that are silent, sessions that are idle or deserted."""
        self._now = now
        for lane in list(self.lanes.values()):
            timer = lane.get_timer()
            if timer is not None and timer <= now:
                lane.handle_timer(now)
                self._settle(lane, now)
        for session in list(self.sessions.values()):
            deserted = session.without_lanes_since
            if deserted is not None and now - deserted >= LINGER:
                self._end(session, "deserted", now, tell=ByeCode.IDLE)
            elif now - session.last_payload_at >= self._terms.idle_timeout:
                self._end(session, "idle", now, tell=ByeCode.IDLE)

    def drain(self, deadline: float, now: float) -> None:
        """Let nobody in any more and tell the clients that the server ends at `deadline`."""
        self.draining = True
        for lane in self.lanes.values():
            lane.drain(deadline, now)

    def close(self, now: float) -> None:
        """Say bye to every lane and close every flow."""
        for lane in list(self.lanes.values()):
            self._lose(lane, "shutdown", now, tell=ByeCode.SHUTDOWN)
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()

    def _protocol(self, exporter: bytes) -> LaneServer:
        terms = self._terms
        return LaneServer(
            exporter=exporter,
            token=terms.token,
            directory=self,
            terms=WelcomeTerms(
                max_datagram=terms.max_datagram,
                idle_timeout=terms.idle_timeout,
                features=Feature.PATH_PROBES,
            ),
            timeout=terms.hello_timeout,
        )

    def _admit(self, lane: PeerLane, now: float) -> None:
        """Wait for a lane's hello; the oldest one that waits gives way where too many do."""
        if len(self._greeting) >= MAX_GREETING:
            self._evict(next(iter(self._greeting.values())), now)
        self.lanes[lane.key] = self._greeting[lane.key] = lane

    def _settle(self, lane: PeerLane, now: float) -> None:
        while (event := lane.next_event()) is not None:
            self._on_event(lane, event, now)
        lane.flush()

    def _on_event(self, lane: PeerLane, event: ServerEvent, now: float) -> None:
        match event:
            case LaneAccepted():
                self._join(lane, event, now)
            case LaneRejected():
                self._observer.peer_refused(
                    lane.name, Stage.SESSION_HELLO, event.code, event.reason
                )
            case LaneFailed():
                self._observer.peer_refused(
                    lane.name, Stage.SESSION_HELLO, event.code, event.error().message
                )
                self._lose(lane, event.code, now, tell=None)
            case LaneReleased():
                self._lose(lane, "refused", now, tell=None)
            case PeerLeft():
                session = lane.session
                self._lose(lane, event.code, now, tell=None)
                if event.number == ByeCode.SESSION_CLOSED and session is not None:
                    self._end(session, event.code, now, tell=ByeCode.SESSION_CLOSED)
            case LaneDead():
                self._lose(lane, "silent", now, tell=None)

    def _join(self, lane: PeerLane, event: LaneAccepted, now: float) -> None:
        assert isinstance(lane, SessionLane)  # no other has a protocol that tells of it
        self._greeting.pop(lane.key, None)
        session = self.sessions[event.session_id]
        lane.session = session
        lane.index = event.lane
        session.resumable = session.resumable or not event.new_session
        replaced = session.attach(event.lane, lane)
        if isinstance(replaced, SessionLane):
            self._lose(replaced, "replaced", now, tell=ByeCode.LANE_REPLACED)
        self._observer.peer_accepted(
            lane.name,
            event.session_id.hex(),
            event.lane,
            new_session=event.new_session,
            traceparent=event.traceparent,
        )

    def _count_too_large(self, lane: SessionLane, count: int, size: int) -> None:
        """Count replies that do not fit the path of their lane, and say so now and then."""
        self.too_large += count
        session, now = lane.session, self._workspace.clock()
        if session is None:
            return
        session.too_large += count
        if now >= session.next_hint:
            session.next_hint = now + HINT_INTERVAL
            self._observer.datagrams_too_large(
                session.session_id.hex(), lane.index, size, lane.max_datagram, session.too_large
            )

    def _evict(self, lane: PeerLane, now: float) -> None:
        self._observer.peer_refused(
            lane.name,
            Stage.SESSION_HELLO,
            "evicted",
            "more peers without a session than the server has room for",
        )
        self._lose(lane, "evicted", now, tell=None)

    def _lose(self, lane: PeerLane, reason: str, now: float, *, tell: ByeCode | None) -> None:
        """Let go of a lane; `tell` says bye to its client."""
        session = lane.session
        if session is not None:
            session.resumable = session.resumable or lane.confirmed
            self._observer.peer_lost(session.session_id.hex(), lane.index, reason)
        if tell is not None:
            lane.close(tell, now)
        elif session is not None and isinstance(lane, SessionLane):
            session.detach(lane.index, lane, now)
            lane.session = None
        if self.lanes.get(lane.key) is lane:
            del self.lanes[lane.key]
            self._greeting.pop(lane.key, None)
            lane.release()
        if session is not None and not session.lanes and not session.resumable:
            self._end(session, reason, now, tell=ByeCode.SESSION_CLOSED)
        if self.draining and not self.lanes:
            self.left.set()

    def _end(self, session: ServerSession, reason: str, now: float, *, tell: ByeCode) -> None:
        for lane in list(session.lanes.values()):
            if isinstance(lane, SessionLane):
                self._lose(lane, reason, now, tell=tell)
        session.close()
        self.sessions.pop(session.session_id, None)

    def _end_a_deserted_session(self) -> bool:
        deserted = [
            session for session in self.sessions.values() if session.without_lanes_since is not None
        ]
        if not deserted:
            return False
        oldest = min(deserted, key=lambda session: session.without_lanes_since or 0.0)
        self._end(oldest, "deserted", self._now, tell=ByeCode.IDLE)
        return True
