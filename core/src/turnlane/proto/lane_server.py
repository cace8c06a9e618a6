"""The server's end of a lane: checks a hello, answers it, then keeps the lane alive."""

from collections import deque
from enum import Enum
from typing import Final, Protocol

from turnlane.api.secrets import Secret
from turnlane.proto.frames import ByeCode, Record, SessionProtocolError
from turnlane.proto.hello import (
    Feature,
    Hello,
    HelloFlag,
    UnsupportedVersionError,
    WelcomeTerms,
    build_reject,
    build_welcome,
    check_exporter,
    is_handshake,
    parse_message_untrusted,
)
from turnlane.proto.lane_control import LaneControl, LaneStatistics
from turnlane.proto.lane_events import (
    LaneAccepted,
    LaneFailed,
    LaneRejected,
    LaneReleased,
    PeerDraining,
    ServerEvent,
)
from turnlane.proto.lane_health import SERVER_HEALTH, HealthSettings, LaneHealth
from turnlane.proto.path_probe import PathProbe
from turnlane.proto.refusals import Refusal, RejectCode

LINGER: Final = 10.0
"""Seconds for which a refusal is said again to the same hello: as long as a client asks."""

MAX_OUTGOING: Final = 8
"""Answers that wait to be sent; the client repeats its hello for those beyond."""


class SessionDirectory(Protocol):
    """The sessions of a server, as one lane sees them. Asked only after the token was proven."""

    def refuse(self, hello: Hello) -> Refusal | None:
        """Say no to a lane, new session or not: draining, its class of traffic, its number."""
        ...

    def secret(self, session_id: bytes) -> Secret[bytes] | None:
        """Return the secret of a session that exists."""
        ...

    def create(self, hello: Hello) -> Secret[bytes] | Refusal:
        """Make a session with a new random secret of `SECRET_SIZE` bytes, or say no."""
        ...


class ServerState(Enum):
    """Where a server's lane is."""

    IDLE = "idle"
    WAITING = "waiting"
    ESTABLISHED = "established"
    REJECTED = "rejected"
    FAILED = "failed"
    ENDED = "ended"


TRANSITIONS: Final[dict[ServerState, frozenset[ServerState]]] = {
    ServerState.IDLE: frozenset({ServerState.WAITING, ServerState.ENDED}),
    ServerState.WAITING: frozenset(
        {ServerState.ESTABLISHED, ServerState.REJECTED, ServerState.FAILED, ServerState.ENDED}
    ),
    ServerState.ESTABLISHED: frozenset({ServerState.ENDED}),
    ServerState.REJECTED: frozenset({ServerState.ENDED}),
    ServerState.FAILED: frozenset(),
    ServerState.ENDED: frozenset(),
}


class LaneServer:
    """One lane, seen from the server, over one DTLS association.

    It takes one hello. The identical hello again gets the identical answer again; another one is
    ignored. `token` is None for an open server. `terms.features` are the feature bits the server
    can serve. `timeout` is how many seconds after `start` the hello must have come. Once
    established, the data path handles datagram frames itself and tells `health` about them; every
    other record goes to `receive`.
    """

    def __init__(
        self,
        *,
        exporter: bytes,
        token: Secret[bytes] | None,
        directory: SessionDirectory,
        terms: WelcomeTerms,
        timeout: float = 30.0,
        health: HealthSettings = SERVER_HEALTH,
    ) -> None:
        check_exporter(exporter)
        self.state = ServerState.IDLE
        self.statistics = LaneStatistics()
        self._exporter = Secret(exporter)
        self._token = token
        self._directory = directory
        self._terms = terms
        self._timeout = timeout
        self._settings = health
        self._timer = 0.0
        self._question = b""
        self._answer = Secret(b"")
        self._control: LaneControl | None = None
        self._outgoing: deque[Secret[bytes]] = deque(maxlen=MAX_OUTGOING)
        self._events: deque[ServerEvent] = deque()

    @property
    def health(self) -> LaneHealth | None:
        """The lane's health; None before it is established."""
        return None if self._control is None else self._control.health

    @property
    def path(self) -> PathProbe | None:
        """What is known about the lane's path; None before the lane is established."""
        return None if self._control is None else self._control.path

    @property
    def confirmed(self) -> bool:
        """Whether the client is known to have the welcome: before that it drops payload."""
        return self._control is not None and self._control.health.heard

    def start(self, now: float) -> None:
        """Wait for the hello."""
        self._become(ServerState.WAITING)
        self._timer = now + self._timeout

    def receive(self, record: Record, now: float) -> None:
        """Take one record; never raises for what is in it."""
        if self.state is ServerState.WAITING:
            self._question = bytes(record)
            self._receive_hello(now)
        elif self.state is ServerState.REJECTED:
            self._repeat_or_count(record)
        elif self._control is None or self.state is not ServerState.ESTABLISHED:
            self.statistics.unexpected += 1
        elif is_handshake(record):
            self._repeat_or_count(record)
            self._control.health.note_alive(now)
        else:
            self._control.receive(record, now)
            self._follow(self._control)

    def greeting(self, record: Record) -> Hello | None:
        """Return the hello in `record` where the lane waits for one and nothing speaks against it.

        What only its session can tell, and what `receive` has to refuse, is left to `receive`.
        """
        if self.state is not ServerState.WAITING:
            return None
        try:
            message = parse_message_untrusted(bytes(record))
        except SessionProtocolError:
            return None
        if not isinstance(message, Hello) or self._refusal(message) is not None:
            return None
        return message

    def drain(self, deadline: float, now: float) -> None:
        """Tell the client, until it leaves, that the server ends at `deadline`."""
        if self._control is not None:
            self._control.drain(deadline, now)

    def leave(self, code: ByeCode = ByeCode.SHUTDOWN) -> None:
        """Say bye on an established lane; before that, only stop: a refusal is still sent."""
        if self._control is not None:
            self._outgoing.clear()
            self._control.leave(code)
            self._follow(self._control)
        elif ServerState.ENDED in TRANSITIONS[self.state]:
            self._become(ServerState.ENDED)

    def records_to_send(self) -> list[bytes]:
        """Give up the records to send, each in a DTLS record of its own."""
        records = [answer.reveal() for answer in self._outgoing]
        self._outgoing.clear()
        return records if self._control is None else records + self._control.records_to_send()

    def get_timer(self) -> float | None:
        """Say when `handle_timer` wants to be called, or None."""
        if self.state in {ServerState.WAITING, ServerState.REJECTED}:
            return self._timer
        return None if self._control is None else self._control.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        if self.state is ServerState.WAITING and now >= self._timer:
            self._become(ServerState.FAILED)
            self._events.append(LaneFailed("hello_timeout"))
        elif self.state is ServerState.REJECTED and now >= self._timer:
            self._become(ServerState.ENDED)
            self._events.append(LaneReleased())
        elif self._control is not None:
            self._control.handle_timer(now)
            self._follow(self._control)

    def next_event(self) -> ServerEvent | None:
        """Give up the next event, or None."""
        return self._events.popleft() if self._events else None

    def _receive_hello(self, now: float) -> None:
        try:
            message = parse_message_untrusted(self._question)
        except UnsupportedVersionError as error:
            reason = f"this server speaks version 1, not {error.version}"
            self._reject(Refusal(RejectCode.UNSUPPORTED_VERSION, reason), None, now)
            return
        except SessionProtocolError:
            self._reject(Refusal(RejectCode.MALFORMED), None, now)
            return
        if not isinstance(message, Hello):
            self._reject(Refusal(RejectCode.MALFORMED), None, now)
            return
        refusal = self._refusal(message)
        if refusal is not None:
            self._reject(refusal, message, now)
        elif HelloFlag.SESSION_PROOF in message.flags:
            self._join_session(message, now)
        else:
            self._create_session(message, now)

    def _refusal(self, hello: Hello) -> Refusal | None:
        return self._check_token(hello) or self._directory.refuse(hello)

    def _check_token(self, hello: Hello) -> Refusal | None:
        """Check what comes before anything that is known about sessions."""
        exporter = self._exporter.reveal()
        if not hello.holds_on(exporter):
            return Refusal(RejectCode.ASSOCIATION_MISMATCH)
        has_token = HelloFlag.TOKEN in hello.flags
        if self._token is not None and not has_token:
            return Refusal(RejectCode.TOKEN_REQUIRED)
        if self._token is None and has_token:
            return Refusal(RejectCode.TOKEN_UNEXPECTED)
        if not hello.proves_token(exporter, self._token):
            return Refusal(RejectCode.TOKEN_MISMATCH)
        if hello.traffic is None:
            return Refusal(RejectCode.UNSUPPORTED_TRAFFIC)
        return None

    def _join_session(self, hello: Hello, now: float) -> None:
        secret = self._directory.secret(hello.session_id)
        if secret is None:
            self._reject(Refusal(RejectCode.UNKNOWN_SESSION), hello, now)
        elif not hello.proves_session(self._exporter.reveal(), secret):
            self._reject(Refusal(RejectCode.SESSION_PROOF_MISMATCH), hello, now)
        else:
            self._accept(hello, None, now)

    def _create_session(self, hello: Hello, now: float) -> None:
        if self._directory.secret(hello.session_id) is not None:
            self._reject(Refusal(RejectCode.SESSION_EXISTS), hello, now)
            return
        created = self._directory.create(hello)
        if isinstance(created, Refusal):
            self._reject(created, hello, now)
        else:
            self._accept(hello, created, now)

    def _accept(self, hello: Hello, new_secret: Secret[bytes] | None, now: float) -> None:
        assert hello.traffic is not None
        features = hello.features & self._terms.features
        welcome = build_welcome(
            WelcomeTerms(self._terms.max_datagram, self._terms.idle_timeout, features),
            hello=hello.raw,
            exporter=self._exporter.reveal(),
            token=self._token,
            session_secret=new_secret,
        )
        self._become(ServerState.ESTABLISHED)
        self._say(Secret(welcome))
        self._control = LaneControl(
            self._settings,
            self.statistics,
            now,
            ping_at_once=False,
            probes=bool(features & Feature.PATH_PROBES),
        )
        self._events.append(
            LaneAccepted(
                session_id=hello.session_id,
                lane=hello.lane,
                lanes=hello.lanes,
                new_session=new_secret is not None,
                traffic=hello.traffic,
                features=features,
                traceparent=hello.traceparent,
            )
        )

    def _reject(self, refusal: Refusal, hello: Hello | None, now: float) -> None:
        self._become(ServerState.REJECTED)
        self._timer = now + LINGER
        self._say(Secret(build_reject(refusal)))
        if hello is None:
            self._events.append(LaneRejected(refusal))
        else:
            self._events.append(
                LaneRejected(refusal, hello.session_id, hello.lane, hello.traceparent)
            )

    def _say(self, answer: Secret[bytes]) -> None:
        self._answer = answer
        self._outgoing.append(answer)

    def _repeat_or_count(self, record: Record) -> None:
        if bytes(record) == self._question:
            self.statistics.repeats += 1
            self._outgoing.append(self._answer)
        else:
            self.statistics.unexpected += 1

    def _follow(self, control: LaneControl) -> None:
        while (event := control.next_event()) is not None:
            if isinstance(event, PeerDraining):
                self.statistics.unexpected += 1
            else:
                self._events.append(event)
        if control.ended and self.state is ServerState.ESTABLISHED:
            self._become(ServerState.ENDED)

    def _become(self, state: ServerState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a lane that is {self.state.value} does not become {state.value}")
        self.state = state
