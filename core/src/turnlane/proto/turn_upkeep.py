"""What a relay holds for a client, and the requests that make it go on doing so."""

from dataclasses import dataclass
from typing import Any

from turnlane.proto.stun import Address, Method

ALLOCATION_LIFETIME = 600
PERMISSION_LIFETIME = 300.0
CHANNEL_LIFETIME = 600.0
"""Seconds (RFC 8656, sections 3.2, 9 and 12)."""

REFRESH_MARGIN = 60.0


@dataclass(slots=True, eq=False)
class Peer:
    """Someone we want to reach, the channel number we chose for it, and what the relay granted."""

    address: Address
    number: int
    permitted: bool = False
    bound: bool = False
    refused: bool = False


@dataclass(slots=True, eq=False)
class Upkeep:
    """Something the relay holds for us for `lifetime` seconds, asked for with `method`.

    `peer` is whom a permission or channel is for, None for the allocation. `due` is when to ask
    again; None while a request is under way, and once it is given up.
    """

    method: Method
    lifetime: float
    peer: Peer | None = None
    due: float | None = None
    retries: int = 0

    def keep(self, asked: float, now: float) -> None:
        """Plan the next request, after what was first asked for at `asked` was granted.

        The relay counts from when it took the request, which is not before it was first sent. The
        margin of a minute leaves room for the next request to fail by timeout (39.5 s) before
        this runs out; of a short lifetime it is half.
        """
        self.retries = 0
        delay = max(self.lifetime - REFRESH_MARGIN, self.lifetime / 2)
        self.due = max(now, asked + delay)


@dataclass(slots=True, eq=False)
class Request:
    """A question to the relay, whatever number of transactions its answer takes.

    `upkeep` is what it serves, None for the request that gives the allocation back.
    """

    method: Method
    attributes: dict[str, Any]
    upkeep: Upkeep | None = None
    stale_nonces: int = 0
