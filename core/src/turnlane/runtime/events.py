"""What a running session or server tells its owner, in the past tense."""

from dataclasses import dataclass, field

from turnlane.api import Stage, TurnlaneError


@dataclass(frozen=True)
class Event:
    """The base of all events; `session` names the session or server, `at` is monotonic seconds."""

    session: str
    at: float


@dataclass(frozen=True)
class StageReached(Event):
    """A startup entered `stage`."""

    stage: Stage


@dataclass(frozen=True)
class CredentialsResolved(Event):
    """A provider gave credentials; `endpoints` are addresses without secrets."""

    provider: str
    endpoints: tuple[str, ...]
    expires_at: float | None


@dataclass(frozen=True)
class LaneReady(Event):
    """A lane carries traffic; `restarts` counts how often it was made anew before.

    `peer_session` is the id by which the server's log knows the session.
    """

    lane: int
    ready_lanes: int
    relayed: str
    transport: str
    restarts: int
    peer_session: str


@dataclass(frozen=True)
class LaneLost(Event):
    """A lane failed after readiness and will be tried again after `backoff` seconds.

    `backoff` None says that its budget is spent.
    """

    lane: int
    ready_lanes: int
    error: TurnlaneError
    backoff: float | None


@dataclass(frozen=True)
class SessionReady(Event):
    """All lanes are up and the local end forwards datagrams of at most `mtu` bytes."""

    listen: str
    lanes: int
    mtu: int


@dataclass(frozen=True)
class MtuChanged(Event):
    """The lanes that are ready bear datagrams of at most `mtu` bytes from now on."""

    mtu: int


@dataclass(frozen=True)
class DatagramTooLarge(Event):
    """A datagram of the local end was refused: it has `size` bytes and its lane bears `mtu`.

    Told once a minute at most; `count` is how many a lane has refused since it was made.
    """

    lane: int
    size: int
    mtu: int
    count: int


@dataclass(frozen=True)
class PeerDrained(Event):
    """The tunnel server is about to end."""

    lane: int


@dataclass(frozen=True)
class SessionEnded(Event):
    """The session is over and has released everything; `error` None after an ordered stop."""

    error: TurnlaneError | None


@dataclass(frozen=True)
class ServerReady(Event):
    """The server listens."""

    listen: str
    pin: str
    legacy_listen: str | None


@dataclass(frozen=True)
class PeerAccepted(Event):
    """A lane of a client was accepted; `new_session` says whether it made the session."""

    client_session: str
    lane: int
    address: str
    new_session: bool


@dataclass(frozen=True)
class PeerRefused(Event):
    """A peer was refused at `stage` with `code`."""

    address: str
    stage: Stage
    code: str
    message: str


@dataclass(frozen=True)
class PeerLost(Event):
    """A lane of a client ended."""

    client_session: str
    lane: int
    reason: str


@dataclass(frozen=True)
class ReplyTooLarge(Event):
    """A reply of an upstream was refused: it has `size` bytes and its lane bears `mtu`.

    Told once a minute per session at most; `count` is how many the session has had.
    """

    client_session: str
    lane: int
    size: int
    mtu: int
    count: int


@dataclass(frozen=True)
class FlowFailed(Event):
    """A flow's upstream could not be reached."""

    client_session: str
    flow: int
    error: TurnlaneError


@dataclass(frozen=True)
class WorkerLost(Event):
    """A worker of the server has died, and its sessions with it; another follows.

    It starts after `backoff` seconds.
    """

    worker: int
    error: TurnlaneError
    backoff: float


@dataclass(frozen=True)
class WorkerReplaced(Event):
    """Another worker serves in the place of one that had died."""

    worker: int


@dataclass(frozen=True)
class ServerEnded(Event):
    """The server is over and has released everything."""

    error: TurnlaneError | None
    counters: dict[str, int] = field(default_factory=dict)
