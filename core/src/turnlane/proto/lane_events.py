"""What the two ends of a lane report: past-tense events without secrets that print."""

from dataclasses import dataclass
from typing import Final

from turnlane.api.descriptors import TrafficClass
from turnlane.api.errors import SessionError
from turnlane.api.secrets import Secret
from turnlane.api.stages import Stage
from turnlane.proto.frames import ByeCode
from turnlane.proto.hello import WelcomeTerms
from turnlane.proto.lane_health import LaneDead
from turnlane.proto.refusals import Refusal, Remedy, explain, reject_name

_FAILURES: Final = {
    "hello_timeout": (
        "the other end of the lane did not finish the session's handshake",
        "check that the server speaks turnlane (a raw peer needs --legacy), and the path to it",
    ),
    "server_proof_mismatch": (
        "the server could not prove the token",
        "this may be another server than you mean: check address, pin and token",
    ),
    "protocol_violation": (
        "the server's welcome contradicts the hello",
        "bring client and server to the same version",
    ),
}


@dataclass(frozen=True)
class LaneEstablished:
    """Client: the server has proven the token; payload may flow.

    `session_secret` comes with the first lane of a session and proves every later one.
    """

    terms: WelcomeTerms
    session_secret: Secret[bytes] | None


@dataclass(frozen=True)
class LaneRefused:
    """Client: the server refused the lane. `reason` is the server's word, cut and printable."""

    number: int
    reason: str

    @property
    def code(self) -> str:
        """The stable name of the refusal; `reject_<number>` for one that is not known."""
        return reject_name(self.number)

    @property
    def remedy(self) -> Remedy:
        """What can be done without a human."""
        return explain(self.number).remedy

    def error(self) -> SessionError:
        """Return what the operator is told."""
        message = f"the server refused the lane: {self.reason or self.code}"
        return SessionError(Stage.SESSION_HELLO, self.code, message, explain(self.number).advice)


@dataclass(frozen=True)
class LaneFailed:
    """The handshake failed.

    Codes: `hello_timeout` at either end, `server_proof_mismatch` and `protocol_violation` at the
    client.
    """

    code: str

    def error(self) -> SessionError:
        """Return what the operator is told."""
        message, advice = _FAILURES[self.code]
        return SessionError(Stage.SESSION_HELLO, self.code, message, advice)


@dataclass(frozen=True)
class PeerDraining:
    """Client: the server ends at `deadline` (on this end's clock). Reported once."""

    deadline: float


@dataclass(frozen=True)
class PeerLeft:
    """The peer said bye; the association can be closed."""

    number: int

    @property
    def code(self) -> str:
        """The stable name of the reason; `bye_<number>` for one that is not known."""
        try:
            return ByeCode(self.number).name.lower()
        except ValueError:
            return f"bye_{self.number}"


@dataclass(frozen=True)
class LaneAccepted:
    """Server: the client has proven the token and, unless `new_session`, the session's secret."""

    session_id: bytes
    lane: int
    lanes: int
    new_session: bool
    traffic: TrafficClass
    features: int
    traceparent: str


@dataclass(frozen=True)
class LaneRejected:
    """Server: the lane was refused. The names in the hello are None where it could not be read.

    Before the token was proven they are whatever the peer wrote.
    """

    refusal: Refusal
    session_id: bytes | None = None
    lane: int | None = None
    traceparent: str = ""

    @property
    def code(self) -> str:
        """The stable name of the refusal."""
        return self.refusal.code.name.lower()

    @property
    def reason(self) -> str:
        """The reason as the client is told."""
        return self.refusal.reason or explain(self.refusal.code).reason


@dataclass(frozen=True)
class LaneReleased:
    """Server: a refused client had time to ask again; the association can be dropped."""


ClientEvent = LaneEstablished | LaneRefused | LaneFailed | PeerDraining | PeerLeft | LaneDead
ServerEvent = LaneAccepted | LaneRejected | LaneReleased | LaneFailed | PeerLeft | LaneDead
