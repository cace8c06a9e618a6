"""The states of a TURN allocation and what leads from one to the next, as data; its counters."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


class AllocationState(Enum):
    """Where the one allocation of a client is."""

    IDLE = auto()
    ALLOCATING = auto()
    ALLOCATED = auto()
    CLOSING = auto()
    CLOSED = auto()
    FAILED = auto()


class Step(Enum):
    """What moves an allocation from state to state."""

    START = auto()
    GRANT = auto()
    FAIL = auto()
    CLOSE = auto()
    RELEASE = auto()


TRANSITIONS: Mapping[tuple[AllocationState, Step], AllocationState] = {
    (AllocationState.IDLE, Step.START): AllocationState.ALLOCATING,
    (AllocationState.IDLE, Step.CLOSE): AllocationState.CLOSED,
    (AllocationState.ALLOCATING, Step.GRANT): AllocationState.ALLOCATED,
    (AllocationState.ALLOCATING, Step.FAIL): AllocationState.FAILED,
    (AllocationState.ALLOCATING, Step.CLOSE): AllocationState.CLOSING,
    (AllocationState.ALLOCATED, Step.FAIL): AllocationState.FAILED,
    (AllocationState.ALLOCATED, Step.CLOSE): AllocationState.CLOSING,
    (AllocationState.CLOSING, Step.RELEASE): AllocationState.CLOSED,
    (AllocationState.FAILED, Step.CLOSE): AllocationState.CLOSED,
}


@dataclass(slots=True)
class Statistics:
    """What went by that is not an event.

    `malformed` could not be parsed, `unauthenticated` were answers not signed as they must be,
    `unexpected` were messages nobody asked for (late answers among them) or from no peer of ours,
    `dropped` payloads that the driver did not fetch.
    """

    retransmissions: int = 0
    malformed: int = 0
    unauthenticated: int = 0
    unexpected: int = 0
    dropped: int = 0
