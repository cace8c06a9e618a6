"""The peers of a port that several processes serve: each session has one owner among them.

Datagrams reach the process that the system chooses by their addresses, so the lanes of one session
land in several. Where a session's first lane lands, there is its owner: all its lanes are decided
there, and its upstream sockets are there. Why it is done so: docs/adr/0009-workers.md.
"""

from collections.abc import Callable, Hashable
from enum import Enum, auto
from typing import Protocol

from anyio.abc import TaskGroup

from turnlane.api.adapters import DatagramEgress
from turnlane.api.batch import Batch
from turnlane.api.secrets import Secret
from turnlane.net.dtls_server import DtlsServer
from turnlane.proto.frames import ByeCode
from turnlane.proto.hello import EXPORTER_LABEL, EXPORTER_SIZE, Hello, HelloFlag
from turnlane.proto.refusals import Refusal, RejectCode
from turnlane.relay.lane_link import LaneLink
from turnlane.relay.lane_messages import Joining, Kind, Message, Refused
from turnlane.relay.listener import ServerObserver, ServerPort
from turnlane.relay.server_lane import ServerLane
from turnlane.relay.server_session import ServerSession
from turnlane.relay.session_lane import PeerLane
from turnlane.relay.session_peers import SessionPeers, SessionTerms
from turnlane.relay.shared_lanes import HeldLane, OwnedLane
from turnlane.relay.workspace import Workspace


class Nobody(Enum):
    """Why a session has no owner."""

    UNKNOWN = auto()
    """There is no such session."""
    FULL = auto()
    """There is none, and no room for another."""


Owner = int | Nobody
"""The number of a process, or why it is none."""


class Census(Protocol):
    """Knows which process owns which session; answers later, in the same thread."""

    def claim(self, session_id: bytes, *, new: bool, answer: Callable[[Owner], None]) -> None:
        """Ask who owns a session; a new one becomes the asker's where nobody owns it."""
        ...

    def release(self, session_id: bytes) -> None:
        """Tell that a session of the asker's has ended."""
        ...

    def deserted(self, session_ids: tuple[bytes, ...]) -> None:
        """Tell which of the asker's sessions have no lane; they make room where there is none."""
        ...


class SharedPeers(SessionPeers):
    """The peers that arrive in one process, number `here`, and the sessions that it owns.

    A lane whose session belongs elsewhere is passed on over the link to its owner.
    """

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
        here: int,
        census: Census,
    ) -> None:
        super().__init__(
            terms,
            dtls,
            egress,
            tasks,
            port=port,
            workspace=workspace,
            observer=observer,
            random_bytes=random_bytes,
        )
        self.shed = 0
        self._here = here
        self._census = census
        self._links: dict[int, LaneLink] = {}
        self._held: dict[tuple[LaneLink, int], HeldLane] = {}
        self._asking: dict[Hashable, PeerLane] = {}
        self._verdict: Owner | None = None
        self._deserted: tuple[bytes, ...] = ()

    @property
    def dropped(self) -> int:
        """Packets and records for which a link had no room."""
        return self.shed + sum(link.dropped for link in self._links.values())

    # Links

    async def run_link(self, there: int, link: LaneLink) -> None:
        """Serve the link to process `there` until that has gone; it takes an older one's place."""
        former = self._links.get(there)
        if former is not None:
            former.close()
        self._links[there] = link
        try:
            await link.run(lambda message, batch: self._take(link, message, batch))
        finally:
            self._part(there, link)

    def _take(self, link: LaneLink, message: Message, batch: Batch) -> None:
        now = self._workspace.clock()
        key = (link, message.lane)
        match message.kind:
            case Kind.CARRIED:
                self.carried(key, batch, now)
            case Kind.SEND:
                held = self._held.get(key)
                if held is not None:
                    held.deliver(batch)
            case Kind.RECEIVED:
                self.received(key, list(message.records), now)
            case Kind.SAY:
                held = self._held.get(key)
                if held is not None:
                    held.say(*message.records)
            case Kind.JOIN:
                self._adopt(link, message, now)
            case Kind.CLOSED:
                self.closed(key, "closed", now)
            case Kind.REFUSED:
                lane = self.lanes.get(key)
                if isinstance(lane, OwnedLane):
                    lane.refused(Refused.of(message))
            case Kind.END:
                held = self._held.get(key)
                if held is not None:
                    held.end()
                    self._lose(held, "ended", now, tell=None)

    def _part(self, there: int, link: LaneLink) -> None:
        """Let go of what was shared with a process that has gone."""
        now = self._workspace.clock()
        self.shed += link.dropped
        if self._links.get(there) is link:
            del self._links[there]
        for key, lane in list(self.lanes.items()):
            if isinstance(lane, HeldLane) and lane.link is link:
                # Its owner cannot: with a bye the client comes back at once.
                self._lose(lane, "worker_lost", now, tell=ByeCode.SHUTDOWN)
            elif isinstance(key, tuple) and key[0] is link:
                self._lose(lane, "worker_lost", now, tell=None)

    # The owner's part

    def _adopt(self, link: LaneLink, message: Message, now: float) -> None:
        joining = Joining.of(message)
        lane = OwnedLane(
            link,
            message.lane,
            joining,
            self._protocol(joining.exporter),
            port=self._port,
            workspace=self._workspace,
            on_too_large=self._count_too_large,
            now=now,
        )
        self._admit(lane, now)
        self.received(lane.key, [joining.hello], now)

    def create(self, hello: Hello) -> Secret[bytes] | Refusal:
        """Make a session where the census has just given it to this process."""
        if self._verdict is Nobody.FULL:
            return Refusal(RejectCode.SESSION_LIMIT)
        if self._verdict != self._here:
            # It was somebody's until a moment ago: a client that wants a new one takes another id.
            return Refusal(RejectCode.SESSION_EXISTS)
        return super().create(hello)

    def end_session(self, session_id: bytes, now: float) -> None:
        """End a session that is to make room for another."""
        session = self.sessions.get(session_id)
        if session is not None:
            self._end(session, "deserted", now, tell=ByeCode.IDLE)

    def tick(self, now: float) -> None:
        """Do what is due, and tell which sessions are deserted."""
        super().tick(now)
        for link in self._links.values():
            link.flush()
        deserted = tuple(
            session_id
            for session_id, session in self.sessions.items()
            if session.without_lanes_since is not None
        )
        if deserted != self._deserted:
            self._deserted = deserted
            self._census.deserted(deserted)

    def _end(self, session: ServerSession, reason: str, now: float, *, tell: ByeCode) -> None:
        known = session.session_id in self.sessions
        super()._end(session, reason, now, tell=tell)
        if known:
            self._census.release(session.session_id)

    # The holder's part

    def received(self, key: Hashable, records: list[bytes], now: float) -> None:
        """Pass records to their lane; a hello waits until it is known whose session it is for."""
        lane = self.lanes.get(key)
        if lane is not None and self._asking.get(key) is lane:
            return  # the client says its hello again until it is answered
        hello = lane.greeting(records[0]) if isinstance(lane, ServerLane) else None
        if lane is None or hello is None:
            super().received(key, records, now)
            return
        new = HelloFlag.SESSION_PROOF not in hello.flags
        self._asking[key] = lane
        self._census.claim(
            hello.session_id,
            new=new,
            answer=lambda owner: self._decide(lane, hello, owner),
        )

    def _decide(self, lane: PeerLane, hello: Hello, owner: Owner) -> None:
        """Take a lane in, or pass it on, now that the owner of its session is known."""
        self._ask_no_more(lane)
        now = self._workspace.clock()
        waits = self.lanes.get(lane.key) is lane and lane.greeting(hello.raw) is not None
        link = self._links.get(owner) if isinstance(owner, int) else None
        if waits and link is not None and isinstance(lane, ServerLane):
            self._pass_on(lane, hello, link)
        elif waits and (owner == self._here or isinstance(owner, Nobody)):
            self._verdict = owner
            super().received(lane.key, [hello.raw], now)
            self._verdict = None
        if owner == self._here and hello.session_id not in self.sessions:
            self._census.release(hello.session_id)

    def _pass_on(self, lane: ServerLane, hello: Hello, link: LaneLink) -> None:
        held = HeldLane(lane, link, self._port, self._workspace)
        self._greeting.pop(lane.key, None)
        self.lanes[lane.key] = held
        self._held[link, held.number] = held
        held.join(lane.association.export(EXPORTER_LABEL, EXPORTER_SIZE), hello.raw)

    def _lose(self, lane: PeerLane, reason: str, now: float, *, tell: ByeCode | None) -> None:
        self._ask_no_more(lane)
        if isinstance(lane, HeldLane):
            self._held.pop((lane.link, lane.number), None)
        super()._lose(lane, reason, now, tell=tell)

    def _ask_no_more(self, lane: PeerLane) -> None:
        if self._asking.get(lane.key) is lane:
            del self._asking[lane.key]
