"""Faults injected into a relay at run time: lossy directions and refusals on demand."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Generic, TypeVar

from turnlane.proto.stun import Address, Method

MAX_HELD = 8192
"""Packets that may be held back at once; beyond, they are lost."""

REORDER_WINDOW = 0.050
"""Seconds after which a packet held back for reordering goes even if none overtook it."""


class Direction(Enum):
    """Where a packet is under way."""

    CLIENT_TO_RELAY = "client->relay"
    RELAY_TO_CLIENT = "relay->client"
    RELAY_TO_PEER = "relay->peer"
    PEER_TO_RELAY = "peer->relay"


@dataclass(frozen=True, kw_only=True)
class Impairment:
    """What happens to the packets of one direction: probabilities from 0 to 1, times in seconds.

    A packet is lost with `drop`, doubled with `duplicate`, arrives `delay` later plus up to
    `jitter`, and with `reorder` is held back until the next one has overtaken it.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "reorder"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: not a probability")
        if self.delay < 0 or self.jitter < 0:
            raise ValueError("delay and jitter: below 0")


@dataclass(frozen=True)
class Refusal:
    """An error that a request is answered with in place of what it asked for."""

    code: int
    alternate_server: Address | None = None


@dataclass
class _Refusals:
    refusal: Refusal
    left: int | None


T = TypeVar("T")


class Faults(Generic[T]):
    """The faults of one relay; `T` is what its driver hands through.

    The same seed and the same packets give the same faults. Over TCP, only relayed data is
    impaired (a TCP connection loses nothing, but a relay may): requests and answers pass.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.lost = 0
        self.drop_if: Callable[[Direction, bytes], bool] | None = None
        self._random = Random(seed)  # noqa: S311 - reproducible on purpose
        self._impairments: dict[Direction, Impairment] = {}
        self._to_lose: dict[Direction, int] = {}
        self._refusals: dict[Method, _Refusals] = {}
        self._held: list[tuple[float, int, Direction, T]] = []
        self._late: dict[Direction, tuple[float, T]] = {}
        self._order = 0

    def impair(self, *directions: Direction, impairment: Impairment) -> None:
        """Let `impairment` happen in `directions` (none named: in all) from now on."""
        for direction in directions or Direction:
            self._impairments[direction] = impairment

    def lose(self, direction: Direction, count: int = 1) -> None:
        """Lose the next `count` packets of `direction`."""
        self._to_lose[direction] = self._to_lose.get(direction, 0) + count

    def answer(
        self,
        method: Method,
        code: int,
        *,
        times: int | None = 1,
        alternate_server: Address | None = None,
    ) -> None:
        """Refuse the next `times` authenticated requests of `method` (None: all) with `code`.

        A retransmission of a refused request gets the same answer and is not counted again.
        401 and 438 go out with realm and nonce, 300 with `alternate_server`.
        """
        if not 300 <= code <= 699:
            raise ValueError(f"{code} is no STUN error code")
        if (code == 300) != (alternate_server is not None):
            raise ValueError("300 goes with an alternate server, and only 300 does")
        if times is not None and times < 1:
            raise ValueError("times: below 1")
        self._refusals[method] = _Refusals(Refusal(code, alternate_server), times)

    def clear(self) -> None:
        """Stop every fault; packets held back still arrive when they are due."""
        self._impairments.clear()
        self._refusals.clear()
        self._to_lose.clear()
        self.drop_if = None

    def forget(self) -> None:
        """Lose every packet that is held back."""
        self.lost += len(self._held) + len(self._late)
        self._held.clear()
        self._late.clear()

    def take_refusal(self, method: Method) -> Refusal | None:
        """Give up the refusal that a request of `method` is to get, or None; counts it down."""
        refusals = self._refusals.get(method)
        if refusals is None:
            return None
        if refusals.left is not None:
            refusals.left -= 1
            if refusals.left <= 0:
                del self._refusals[method]
        return refusals.refusal

    def active(self, direction: Direction) -> bool:
        """Whether packets of `direction` have to go through `admit` at all."""
        if self.drop_if is not None:
            return True
        # Asked for every packet: empty tables are told apart before a direction is hashed.
        for table in (self._impairments, self._to_lose, self._late):
            if table and direction in table:
                return True
        return False

    def admit(self, direction: Direction, data: bytes, packet: T, now: float) -> list[T]:
        """Let one packet in; return what goes on at once, in order.

        What is delayed comes out of `due` later. `data` is what `drop_if` looks at.
        """
        to_lose = self._to_lose.pop(direction, 0)
        if to_lose:
            if to_lose > 1:
                self._to_lose[direction] = to_lose - 1
            self.lost += 1
            return []
        if self.drop_if is not None and self.drop_if(direction, data):
            self.lost += 1
            return []
        impairment = self._impairments.get(direction) or Impairment()
        chance = self._random.random
        if chance() < impairment.drop or len(self._held) >= MAX_HELD:
            self.lost += 1
            return []
        copies = 2 if chance() < impairment.duplicate else 1
        held_back = chance() < impairment.reorder
        late = self._late.pop(direction, None)
        if held_back and late is None:
            self._late[direction] = (now + impairment.delay + REORDER_WINDOW, packet)
            copies -= 1
        passing = [packet] * copies
        if late is not None:
            passing.append(late[1])
        at_once = []
        for each in passing:
            delay = impairment.delay + impairment.jitter * chance()
            if delay <= 0:
                at_once.append(each)
            else:
                self._hold(now + delay, direction, each)
        return at_once

    def get_timer(self) -> float | None:
        """Say when something held back is due, or None."""
        moments = [moment for moment, _ in self._late.values()]
        if self._held:
            moments.append(self._held[0][0])
        return min(moments, default=None)

    def due(self, now: float) -> list[tuple[Direction, T]]:
        """Give up what is due at `now`, in the order in which it fell due."""
        for direction, (moment, packet) in list(self._late.items()):
            if moment <= now:
                del self._late[direction]
                self._hold(moment, direction, packet)
        arrived = []
        while self._held and self._held[0][0] <= now:
            _, _, direction, packet = heapq.heappop(self._held)
            arrived.append((direction, packet))
        return arrived

    def _hold(self, moment: float, direction: Direction, packet: T) -> None:
        self._order += 1
        heapq.heappush(self._held, (moment, self._order, direction, packet))
