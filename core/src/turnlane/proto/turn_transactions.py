"""Requests under way: when each is sent again and when it is given up (RFC 8489, section 6.2)."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a request is sent, and how long its answer is waited for, in seconds.

    After the first sending `first_wait` passes, then twice that, and so on; after the last one
    `last_wait`.
    """

    sends: int
    first_wait: float
    last_wait: float


UNRELIABLE = Schedule(sends=7, first_wait=0.5, last_wait=8.0)
"""Over UDP: RTO 500 ms, Rc 7, Rm 16, so 39.5 s in all (RFC 8489, section 6.2.1)."""

RELIABLE = Schedule(sends=1, first_wait=39.5, last_wait=39.5)
"""Over TCP and TLS nothing is sent again, and Ti is 39.5 s (RFC 8489, section 6.2.2)."""

RELEASE_UNRELIABLE = Schedule(sends=4, first_wait=0.1, last_wait=0.8)
"""Giving something up is worth 1.5 s: whoever closes is being waited for."""

RELEASE_RELIABLE = Schedule(sends=1, first_wait=2.0, last_wait=2.0)


class Transaction(Generic[T]):
    """One request under way, and the `purpose` that its answer serves.

    `key` is what it was signed with, `first_sent` when; `due` is when it is to be sent again or
    given up, and `ignored` says what came back and could not be trusted.
    """

    __slots__ = (
        "_message",
        "_schedule",
        "_sends",
        "due",
        "first_sent",
        "ignored",
        "key",
        "purpose",
    )

    def __init__(
        self, message: bytes, purpose: T, key: bytes | None, schedule: Schedule, now: float
    ) -> None:
        self._message = message
        self._schedule = schedule
        self._sends = 0
        self.purpose = purpose
        self.key = key
        self.first_sent = now
        self.due = now
        self.ignored: str | None = None

    def send(self, now: float) -> bytes | None:
        """Return the message if it is to be sent once more, or None if it is to be given up."""
        schedule = self._schedule
        if self._sends == schedule.sends:
            return None
        # Reckoned from now, not from when it was due: after a suspended machine wakes up, what
        # was missed is not made up for in a burst.
        last = self._sends == schedule.sends - 1
        self.due = now + (schedule.last_wait if last else schedule.first_wait * 2**self._sends)
        self._sends += 1
        return self._message

    def stop_sending(self, until: float) -> None:
        """Send nothing any more, but wait for the answer until `until`."""
        self._sends = self._schedule.sends
        self.due = until


class Transactions(Generic[T]):
    """All requests under way, by transaction id; the caller bounds how many it begins."""

    def __init__(self) -> None:
        self._pending: dict[bytes, Transaction[T]] = {}
        self._to_send: list[bytes] = []
        self.retransmissions = 0

    def __len__(self) -> int:
        return len(self._pending)

    def begin(
        self,
        transaction_id: bytes,
        message: bytes,
        purpose: T,
        *,
        key: bytes | None,
        schedule: Schedule,
        now: float,
    ) -> None:
        """Send `message` and wait for its answer."""
        transaction = Transaction(message, purpose, key, schedule, now)
        self._pending[transaction_id] = transaction
        transaction.send(now)
        self._to_send.append(message)

    def send_once(self, message: bytes) -> None:
        """Send a message whose answer nobody waits for."""
        self._to_send.append(message)

    def get(self, transaction_id: bytes) -> Transaction[T] | None:
        """Return the request that an answer belongs to, or None."""
        return self._pending.get(transaction_id)

    def end(self, transaction_id: bytes) -> None:
        """Forget a request: it was answered, or nobody wants to know any more."""
        self._pending.pop(transaction_id, None)

    def pending(self) -> list[tuple[bytes, Transaction[T]]]:
        """Return all requests under way with their ids."""
        return list(self._pending.items())

    def clear(self) -> None:
        """Forget all requests; what is queued is still sent."""
        self._pending.clear()

    def datagrams_to_send(self) -> list[bytes]:
        """Give up what is to be sent now."""
        to_send, self._to_send = self._to_send, []
        return to_send

    def get_timer(self) -> float | None:
        """Say when `handle_timer` wants to be called, or None."""
        return min((transaction.due for transaction in self._pending.values()), default=None)

    def handle_timer(self, now: float) -> list[Transaction[T]]:
        """Queue what is to be sent again; forget and return what is given up."""
        given_up = []
        for transaction_id, transaction in self.pending():
            if transaction.due > now:
                continue
            message = transaction.send(now)
            if message is None:
                del self._pending[transaction_id]
                given_up.append(transaction)
            else:
                self.retransmissions += 1
                self._to_send.append(message)
        return given_up
