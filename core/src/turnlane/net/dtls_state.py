"""Where a DTLS association may be, what it tells its owner, and what it refuses to do."""

from dataclasses import dataclass
from enum import Enum, auto

from turnlane.net.identity import Pin


class State(Enum):
    """Where an association is; `TRANSITIONS` says what may follow."""

    IDLE = auto()
    HANDSHAKING = auto()
    ESTABLISHED = auto()
    FAILED = auto()
    CLOSED = auto()


TRANSITIONS: dict[State, frozenset[State]] = {
    State.IDLE: frozenset({State.HANDSHAKING, State.CLOSED}),
    State.HANDSHAKING: frozenset({State.ESTABLISHED, State.FAILED, State.CLOSED}),
    State.ESTABLISHED: frozenset({State.CLOSED}),
    State.FAILED: frozenset(),
    State.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """Payloads may pass. `peer_pin` is the server's pin at the client, None at the server."""

    cipher: str
    peer_pin: Pin | None


@dataclass(frozen=True, slots=True)
class HandshakeFailed:
    """There is no association.

    `code` is `dtls_timeout`, `pin_mismatch`, `no_extended_master_secret`, `peer_alert` (then
    `alert` has the alert's name) or `protocol_error`.
    """

    code: str
    message: str
    alert: str | None = None


@dataclass(frozen=True, slots=True)
class AssociationClosed:
    """The peer ended the association.

    `reason` is `close_notify`, `peer_alert` (then `alert` has the alert's name) or
    `protocol_error`.
    """

    reason: str
    alert: str | None = None


DtlsEvent = HandshakeCompleted | HandshakeFailed | AssociationClosed


class PayloadSizeError(ValueError):
    """A payload that does not fit one record, or an empty one, which DTLS cannot send.

    OpenSSL writes no record for zero bytes and skips one that it receives.
    """


class AssociationStateError(RuntimeError):
    """The association is not established, so there are no keys to do this with."""


@dataclass(slots=True)
class DtlsStatistics:
    """What an association went through."""

    retransmissions: int = 0
    """Flights sent again."""

    malformed: int = 0
    """Datagrams that were no DTLS records from some point on, or held too many of them."""

    discarded: int = 0
    """Records that gave nothing: replayed, forged, out of place or too large."""
