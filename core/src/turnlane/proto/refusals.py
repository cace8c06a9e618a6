"""Why a server refuses a lane: the codes of a reject, what they mean and what helps."""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final


class RejectCode(IntEnum):
    """The code of a reject. Numbers and names are stable; `name.lower()` is what logs say.

    Up to TOKEN_MISMATCH they stand in the order in which a server checks: until then a client has
    proven nothing, and learns nothing about sessions.
    """

    MALFORMED = 1
    UNSUPPORTED_VERSION = 2
    ASSOCIATION_MISMATCH = 3
    TOKEN_REQUIRED = 4
    TOKEN_UNEXPECTED = 5
    TOKEN_MISMATCH = 6
    DRAINING = 7
    UNSUPPORTED_TRAFFIC = 8
    LANE_LIMIT = 9
    SESSION_LIMIT = 10
    UNKNOWN_SESSION = 11
    SESSION_EXISTS = 12
    SESSION_PROOF_MISMATCH = 13


class Remedy(Enum):
    """What a client can do about a refusal without a human."""

    GIVE_UP = "give_up"
    """The same hello will be refused again."""
    TRY_LATER = "try_later"
    """The server is at a bound or going down."""
    NEW_SESSION = "new_session"
    """Say hello with a fresh session id and without a session proof."""


@dataclass(frozen=True)
class Refusal:
    """A server's no. `reason` is for humans and holds no secret; without one the code's is used."""

    code: RejectCode
    reason: str = ""


@dataclass(frozen=True)
class Explanation:
    """What a code means: the server's reason, and to the refused client's operator, advice."""

    reason: str
    advice: str
    remedy: Remedy


EXPLANATIONS: Final[dict[RejectCode, Explanation]] = {
    RejectCode.MALFORMED: Explanation(
        "the first record is no hello of turnlane",
        "a peer that speaks raw datagrams needs the server's legacy listener",
        Remedy.GIVE_UP,
    ),
    RejectCode.UNSUPPORTED_VERSION: Explanation(
        "this server does not speak that version of the session protocol",
        "bring client and server to the same version",
        Remedy.GIVE_UP,
    ),
    RejectCode.ASSOCIATION_MISMATCH: Explanation(
        "the hello was made for another DTLS association",
        "something between client and server passes records on: use the server's pin",
        Remedy.GIVE_UP,
    ),
    RejectCode.TOKEN_REQUIRED: Explanation(
        "this server wants a token",
        "use the full peer link, or give its token",
        Remedy.GIVE_UP,
    ),
    RejectCode.TOKEN_UNEXPECTED: Explanation(
        "this server is open and cannot prove a token",
        "check that this is the server you mean; if it is, leave the token out",
        Remedy.GIVE_UP,
    ),
    RejectCode.TOKEN_MISMATCH: Explanation(
        "the token is not this server's",
        "take the peer link from the server again",
        Remedy.GIVE_UP,
    ),
    RejectCode.DRAINING: Explanation(
        "the server is shutting down", "try again when it is back", Remedy.TRY_LATER
    ),
    RejectCode.UNSUPPORTED_TRAFFIC: Explanation(
        "the server's egress does not carry this class of traffic",
        "choose an ingress that pairs with the server's egress",
        Remedy.GIVE_UP,
    ),
    RejectCode.LANE_LIMIT: Explanation(
        "the session has as many lanes as the server allows", "use fewer lanes", Remedy.TRY_LATER
    ),
    RejectCode.SESSION_LIMIT: Explanation(
        "the server has as many sessions as it allows",
        "end another session, or raise the server's limit",
        Remedy.TRY_LATER,
    ),
    RejectCode.UNKNOWN_SESSION: Explanation(
        "the server does not know this session, as after a restart",
        "a new session has to be started",
        Remedy.NEW_SESSION,
    ),
    RejectCode.SESSION_EXISTS: Explanation(
        "a session of this id exists and the hello does not prove it",
        "a new session has to be started",
        Remedy.NEW_SESSION,
    ),
    RejectCode.SESSION_PROOF_MISMATCH: Explanation(
        "the session's secret is another", "a new session has to be started", Remedy.NEW_SESSION
    ),
}

_UNKNOWN = Explanation(
    "", "the server knows a reason that this version does not; compare versions", Remedy.TRY_LATER
)


def reject_name(code: int) -> str:
    """Return the stable name of a code; `reject_` and its number for one that is not known."""
    try:
        return RejectCode(code).name.lower()
    except ValueError:
        return f"reject_{code}"


def explain(code: int) -> Explanation:
    """Return what a code means; one that is not known may be tried again later."""
    try:
        return EXPLANATIONS[RejectCode(code)]
    except ValueError:
        return _UNKNOWN
