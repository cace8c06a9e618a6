"""What a TURN client tells its driver: things that have happened, in the past tense."""

from dataclasses import dataclass

from turnlane.proto.stun import Address


@dataclass(frozen=True, slots=True)
class AllocationSucceeded:
    """The relay holds an address for us.

    `relayed` is where peers reach us, `mapped` how the relay sees us, `lifetime` the seconds
    granted.
    """

    relayed: Address
    mapped: Address | None
    lifetime: float


@dataclass(frozen=True, slots=True)
class AllocationFailed:
    """There is no allocation and there will be none.

    `code` is the relay's error code; None when no usable answer came, as after a timeout. `reason`
    is one line fit to be shown.
    """

    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class AlternateServer:
    """The relay sends us to another one, and this client is over (RFC 8489, section 10).

    Whoever dials again bounds how often; `domain` is the name to verify over TLS, if one was given.
    """

    address: Address
    domain: str | None


@dataclass(frozen=True, slots=True)
class AllocationRefreshed:
    """The relay keeps the allocation for `lifetime` more seconds."""

    lifetime: float


@dataclass(frozen=True, slots=True)
class AllocationLost:
    """The allocation that we had is of no use any more; code and reason as in a failure."""

    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class PermissionInstalled:
    """The relay passes datagrams between us and `peer`."""

    peer: Address


@dataclass(frozen=True, slots=True)
class ChannelBound:
    """Datagrams of `peer` may travel as ChannelData under `number` from now on."""

    peer: Address
    number: int


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """The relay does not let us reach `peer`; the allocation itself lives on."""

    peer: Address
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A datagram from `peer`."""

    peer: Address
    payload: bytes


@dataclass(frozen=True, slots=True)
class Deallocated:
    """The client is closed: the relay gave the allocation up, or we stopped waiting for it."""


TurnEvent = (
    AllocationSucceeded
    | AllocationFailed
    | AlternateServer
    | AllocationRefreshed
    | AllocationLost
    | PermissionInstalled
    | ChannelBound
    | PeerRefused
    | DataReceived
    | Deallocated
)
