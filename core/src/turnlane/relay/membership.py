"""How the lanes of a client become one session: one learns its secret, the others prove it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from turnlane.api.secrets import Secret
from turnlane.proto.hello import SESSION_ID_SIZE


@dataclass(frozen=True)
class Ticket:
    """What one lane says hello with; `secret` is None for the lane that makes the session."""

    session_id: bytes
    secret: Secret[bytes] | None


class Membership:
    """The id and secret of one session, shared by its lanes.

    Session ids are names, never capabilities. A server that has forgotten the session (it was
    restarted) refuses its secret; the lanes then begin a new one together.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._lock = anyio.Lock()
        self._ticket = Ticket(random_bytes(SESSION_ID_SIZE), None)

    @property
    def session_id(self) -> bytes:
        """The id under which the server knows the session now."""
        return self._ticket.session_id

    @asynccontextmanager
    async def ticket(self) -> AsyncIterator[Ticket]:
        """Give a lane what it says hello with, for as long as its hello takes.

        While no lane has learnt the secret, one at a time may try; the others wait.
        """
        if self._ticket.secret is None:
            async with self._lock:
                if self._ticket.secret is None:
                    yield self._ticket
                    return
        yield self._ticket

    def established(self, ticket: Ticket, secret: Secret[bytes] | None) -> None:
        """Keep the secret that the first lane was given."""
        if secret is not None and ticket == self._ticket:
            self._ticket = Ticket(ticket.session_id, secret)

    def forget(self, ticket: Ticket) -> None:
        """Begin anew after the server refused `ticket`, unless another lane has done so already."""
        if ticket == self._ticket:
            self._ticket = Ticket(self._random_bytes(SESSION_ID_SIZE), None)
