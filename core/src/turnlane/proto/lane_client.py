"""The client's end of a lane: says hello until it is answered, then keeps the lane alive."""

from collections import deque
from enum import Enum
from typing import Final

from turnlane.api.secrets import Secret
from turnlane.proto.frames import ByeCode, Record, SessionProtocolError
from turnlane.proto.hello import (
    Feature,
    Hello,
    HelloParameters,
    Reject,
    Welcome,
    build_hello,
    is_handshake,
    parse_message_untrusted,
)
from turnlane.proto.lane_control import LaneControl, LaneStatistics
from turnlane.proto.lane_events import ClientEvent, LaneEstablished, LaneFailed, LaneRefused
from turnlane.proto.lane_health import CLIENT_HEALTH, HealthSettings, LaneHealth
from turnlane.proto.path_probe import PathProbe

FIRST_INTERVAL: Final = 0.25
"""Seconds from the first hello to the second; each further interval is twice as long."""

LAST_INTERVAL: Final = 1.0
"""Seconds that no interval between two hellos exceeds."""


class ClientState(Enum):
    """Where a client's lane is."""

    IDLE = "idle"
    GREETING = "greeting"
    ESTABLISHED = "established"
    REFUSED = "refused"
    FAILED = "failed"
    ENDED = "ended"


TRANSITIONS: Final[dict[ClientState, frozenset[ClientState]]] = {
    ClientState.IDLE: frozenset({ClientState.GREETING, ClientState.ENDED}),
    ClientState.GREETING: frozenset(
        {ClientState.ESTABLISHED, ClientState.REFUSED, ClientState.FAILED, ClientState.ENDED}
    ),
    ClientState.ESTABLISHED: frozenset({ClientState.ENDED}),
    ClientState.REFUSED: frozenset(),
    ClientState.FAILED: frozenset(),
    ClientState.ENDED: frozenset(),
}


class LaneClient:
    """One lane, seen from the client, over one DTLS association.

    Records come in, records, events and a timer come out. `exporter` are the bytes that
    `EXPORTER_LABEL` yields on this association. Without `session_secret` the lane asks for a new
    session, with it for a lane of one that exists. `timeout` seconds after `start` an unanswered
    hello has failed. Once established, the data path handles datagram frames itself and tells
    `health` about them; every other record goes to `receive`.
    """

    def __init__(
        self,
        parameters: HelloParameters,
        *,
        exporter: bytes,
        token: Secret[bytes] | None,
        session_secret: Secret[bytes] | None = None,
        timeout: float = 10.0,
        health: HealthSettings = CLIENT_HEALTH,
    ) -> None:
        self.state = ClientState.IDLE
        self.statistics = LaneStatistics()
        self.hellos_sent = 0
        self._features = parameters.features
        self._exporter = Secret(exporter)
        self._token = token
        self._resumes = session_secret is not None
        self._hello = build_hello(
            parameters, exporter=exporter, token=token, session_secret=session_secret
        )
        self._timeout = timeout
        self._settings = health
        self._deadline = 0.0
        self._next_hello = 0.0
        self._interval = FIRST_INTERVAL
        self._control: LaneControl | None = None
        self._outgoing: deque[bytes] = deque()
        self._events: deque[ClientEvent] = deque()

    @property
    def health(self) -> LaneHealth | None:
        """The lane's health; None before it is established."""
        return None if self._control is None else self._control.health

    @property
    def path(self) -> PathProbe | None:
        """What is known about the lane's path; None before the lane is established."""
        return None if self._control is None else self._control.path

    def start(self, now: float) -> None:
        """Say hello."""
        self._become(ClientState.GREETING)
        self._deadline = now + self._timeout
        self._say_hello(now)

    def receive(self, record: Record, now: float) -> None:
        """Take one record; never raises for what is in it."""
        if self.state is ClientState.GREETING:
            self._receive_answer(record, now)
        elif self._control is None or self.state is not ClientState.ESTABLISHED:
            self.statistics.unexpected += 1
        elif is_handshake(record):
            self.statistics.repeats += 1
            self._control.health.note_alive(now)
        else:
            self._control.receive(record, now)
            self._follow(self._control)

    def leave(self, code: ByeCode = ByeCode.LANE_CLOSED) -> None:
        """Say bye on an established lane; before that, only stop. A lane that ended stays so."""
        if self._control is not None:
            self._control.leave(code)
            self._follow(self._control)
        elif ClientState.ENDED in TRANSITIONS[self.state]:
            self._outgoing.clear()
            self._become(ClientState.ENDED)

    def records_to_send(self) -> list[bytes]:
        """Give up the records to send, each in a DTLS record of its own."""
        records = list(self._outgoing)
        self._outgoing.clear()
        return records if self._control is None else records + self._control.records_to_send()

    def get_timer(self) -> float | None:
        """Say when `handle_timer` wants to be called, or None."""
        if self.state is ClientState.GREETING:
            return min(self._next_hello, self._deadline)
        return None if self._control is None else self._control.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        if self.state is ClientState.GREETING:
            if now >= self._deadline:
                self._fail("hello_timeout")
            elif now >= self._next_hello:
                self._say_hello(now)
        elif self._control is not None:
            self._control.handle_timer(now)
            self._follow(self._control)

    def next_event(self) -> ClientEvent | None:
        """Give up the next event, or None."""
        return self._events.popleft() if self._events else None

    def _say_hello(self, now: float) -> None:
        self._outgoing.append(self._hello)
        self.hellos_sent += 1
        self._next_hello = now + self._interval
        self._interval = min(2 * self._interval, LAST_INTERVAL)

    def _receive_answer(self, record: Record, now: float) -> None:
        if not is_handshake(record):
            self.statistics.early_frames += 1
            return
        try:
            message = parse_message_untrusted(record)
        except SessionProtocolError:
            self.statistics.malformed += 1
            return
        match message:
            case Hello():
                self.statistics.unexpected += 1
            case Reject():
                self._outgoing.clear()
                self._become(ClientState.REFUSED)
                self._events.append(LaneRefused(message.code, message.reason))
            case Welcome():
                self._receive_welcome(message, now)

    def _receive_welcome(self, welcome: Welcome, now: float) -> None:
        if not welcome.answers(self._hello, self._exporter.reveal(), self._token):
            self._fail("server_proof_mismatch")
            return
        terms = welcome.terms
        if (
            self._resumes == (welcome.session_secret is not None)
            or terms.features & ~self._features
        ):
            self._fail("protocol_violation")
            return
        self._outgoing.clear()
        self._become(ClientState.ESTABLISHED)
        # The first ping tells the server that its welcome has arrived.
        self._control = LaneControl(
            self._settings,
            self.statistics,
            now,
            ping_at_once=True,
            probes=bool(terms.features & Feature.PATH_PROBES),
        )
        self._events.append(LaneEstablished(terms, welcome.session_secret))

    def _follow(self, control: LaneControl) -> None:
        while (event := control.next_event()) is not None:
            self._events.append(event)
        if control.ended and self.state is ClientState.ESTABLISHED:
            self._become(ClientState.ENDED)

    def _fail(self, code: str) -> None:
        self._outgoing.clear()
        self._become(ClientState.FAILED)
        self._events.append(LaneFailed(code))

    def _become(self, state: ClientState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a lane that is {self.state.value} does not become {state.value}")
        self.state = state
