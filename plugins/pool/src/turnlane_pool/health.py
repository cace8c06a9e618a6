"""The health of a pool's members, and the order in which one resolution asks them.

No I/O and no clock: times are Unix times in seconds that come in as arguments.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass

from turnlane_pool.pool_file import Member, Pool, Strategy

_MAX_DOUBLINGS = 32
"""Doubling further than this is past every bound that a pool can have."""


@dataclass(eq=False)
class Health:
    """What is remembered of a member: its failures in a row, and its place in the turns.

    `code` is that of its last failure, which was at `since`; it is put aside for `pause` seconds.
    """

    member: Member
    failures: int = 0
    code: str = ""
    since: float = 0.0
    pause: float = 0.0
    credit: int = 0

    def aside_for(self, now: float) -> float:
        """Return for how many seconds the member is still put aside; 0 for one that is not.

        A clock that was set back before the failure puts nobody aside: the wait would have no
        bound.
        """
        ends = self.since + self.pause
        return ends - now if self.since <= now < ends else 0.0


def known_members(memory: MutableMapping[str, object], pool: Pool) -> list[Health]:
    """Return the health of the pool's members in their order, and forget what it no longer has.

    A member whose configuration has changed begins anew.
    """
    found = memory.get(pool.name)
    before: dict[str, object] = found if isinstance(found, dict) else {}
    members: list[Health] = []
    for member in pool.members:
        health = before.get(member.name)
        if not isinstance(health, Health) or health.member != member:
            health = Health(member)
        members.append(health)
    memory[pool.name] = {health.member.name: health for health in members}
    return members


class Round:
    """One resolution's way through the members.

    `next` gives those that are not put aside, in the order of the strategy, and when there are no
    more the least bad of the others. What came of it is kept by `settle`; `undo` leaves everything
    as it would be without this round.
    """

    def __init__(self, pool: Pool, members: list[Health], now: float) -> None:
        self._pool = pool
        self._ready = [each for each in members if not each.aside_for(now)]
        self._aside = [each for each in members if each.aside_for(now)]
        self._last_resort = bool(self._aside)
        self._turns: list[tuple[tuple[Health, ...], Health]] = []
        self._failed: list[tuple[Health, int, str, float]] = []

    @property
    def aside(self) -> list[Health]:
        """The members that are put aside and were not asked."""
        return list(self._aside)

    @property
    def left(self) -> int:
        """How many more members `next` gives, at most."""
        return len(self._ready) + self._last_resort

    def next(self) -> Health | None:
        """Return the member to ask now, or None when there is nobody left."""
        if self._ready:
            chosen = self._take_turn() if self._weighted else self._ready[0]
            self._ready.remove(chosen)
            return chosen
        if self._last_resort:
            self._last_resort = False
            # Fewest failures in a row first, then whose time comes soonest, then the file's order.
            least = min(self._aside, key=lambda each: (each.failures, each.since + each.pause))
            self._aside.remove(least)
            return least
        return None

    def failed(self, health: Health, code: str, now: float) -> None:
        """Note that a member has failed at `now`."""
        self._failed.append((health, health.failures, code, now))

    def settle(self, succeeded: Health | None = None) -> None:
        """Keep what was found out: failures put aside, and who answered is well again."""
        for health, before, code, now in self._failed:
            # Counted from what this round knew: two rounds that fail together count once.
            health.failures = before + 1
            health.code = code
            health.since = now
            doublings = min(before, _MAX_DOUBLINGS)
            health.pause = min(self._pool.backoff_last, self._pool.backoff_first * 2.0**doublings)
        if succeeded is not None:
            succeeded.failures, succeeded.code = 0, ""
            succeeded.since = succeeded.pause = 0.0

    def undo(self) -> None:
        """Give the turns back; sums are exact, whatever other rounds did meanwhile."""
        for candidates, chosen in self._turns:
            _credit(candidates, chosen, -1)

    @property
    def _weighted(self) -> bool:
        return self._pool.strategy is Strategy.WEIGHTED

    def _take_turn(self) -> Health:
        """Smooth weighted round-robin: everyone gains its weight, the first pays for all."""
        candidates = tuple(self._ready)
        chosen = max(candidates, key=lambda each: each.credit + each.member.weight)
        _credit(candidates, chosen, 1)
        self._turns.append((candidates, chosen))
        return chosen


def _credit(candidates: tuple[Health, ...], chosen: Health, sign: int) -> None:
    for each in candidates:
        each.credit += sign * each.member.weight
    chosen.credit -= sign * sum(each.member.weight for each in candidates)
