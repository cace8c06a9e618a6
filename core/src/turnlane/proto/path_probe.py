"""The search for the largest datagram that one end may send, after RFC 8899 (DPLPMTUD).

A relay strips what a router would tell, so each end of a lane asks the other: a probe is a control
frame as long as a datagram frame of the size in question, and its answer is short. Each round asks
for a few sizes at once and ends when the largest is answered, or when what is not answered was sent
`ATTEMPTS` times; the next round looks between the largest that arrived and the smallest that did
not. The two ends tell each other what leaves their hosts whole, which bounds the search of both,
and what they have found, and both keep to the smaller: then each leg of the path is measured by the
end whose packets are not fragmented there.

Sizes are those of inner datagrams, in bytes; `now` is any clock in seconds that does not go back.
"""

from collections import deque
from enum import Enum, auto
from typing import Final

from turnlane.proto.frames import COUNTER_MASK, HEADER_SIZE, MIN_PROBE, Probe, ProbeAnswer
from turnlane.proto.lane_health import RoundTrip
from turnlane.proto.path_mtu import BASE_DATAGRAM, MIN_DATAGRAM

PARALLEL: Final = 4
"""Sizes that one round asks for."""

ATTEMPTS: Final = 3
"""How often a probe is sent before its size counts as too large (RFC 8899: MAX_PROBES)."""

MIN_TIMEOUT: Final = 0.2
MAX_TIMEOUT: Final = 1.0
"""Seconds that an answer is waited for: four round trips, within these."""

CONFIRM_INTERVAL: Final = 30.0
"""Seconds after which a lane that carries payload asks whether the largest size still arrives."""

RAISE_INTERVAL: Final = 600.0
"""Seconds after which a larger size is tried again (RFC 8899: PMTU_RAISE_TIMER)."""

MAX_PEER_CHANGES: Final = 8
"""Times in `RAISE_INTERVAL` that a peer may change its bound; each has this end search anew."""

MAX_ANSWERS: Final = 16
"""Answers that wait to be sent; probes beyond that stay unanswered."""

_SMALLEST = MIN_PROBE - HEADER_SIZE
"""The datagram size of a probe without padding, which only tells."""

_LARGEST = 0xFFFF
"""The largest size that a probe can tell; no datagram is larger."""


class _Purpose(Enum):
    SEARCH = auto()
    CONFIRM = auto()
    TELL = auto()


class PathProbe:
    """Finds the largest datagram that this end may send.

    `agreed` says that both ends know probes; without that `begin` starts no search and the bound is
    the limit. `limit` is the largest size not known to be lost: at first the bound, which is what
    the platforms say of both first hops, so that nothing is refused that has not failed.
    """

    def __init__(self, *, agreed: bool) -> None:
        self.agreed = agreed
        self.limit = _LARGEST
        self.peer_limit: int | None = None
        """The peer's own limit, as it last told."""
        self.searching = False
        self.probes_sent = 0
        self.dropped_answers = 0
        self._peer_searching = True
        self._peer_sequence: int | None = None
        self._peer_changes = 0
        self._round_trip = RoundTrip()
        self._begun = False
        self._own_bound = _LARGEST
        self._peer_bound = _LARGEST
        self._bound = _LARGEST  # the smaller of the two
        self._low = 0  # the largest size answered in this search, 0 for none yet
        self._high = 0  # the largest size that may still arrive
        self._floor = 0  # what the search counts on until something is answered
        self._purpose: _Purpose | None = None
        self._sizes: list[int] = []
        self._attempts = 0
        self._answered = False
        self._asked_at = 0.0
        self._deadline = 0.0
        self._confirm_at = 0.0
        self._raise_at = 0.0
        self._confirmed_at = 0.0
        self._sequence = 0
        self._asked: dict[int, tuple[int, float, tuple[int, int, bool]]] = {}
        self._told: tuple[int, int, bool] | None = None
        self._probes: list[Probe] = []
        self._answers: deque[ProbeAnswer] = deque()

    @property
    def max_datagram(self) -> int:
        """The largest datagram that both ends may send."""
        return self.limit if self.peer_limit is None else min(self.limit, self.peer_limit)

    @property
    def begun(self) -> bool:
        """Whether `begin` was called."""
        return self._begun

    @property
    def settled(self) -> bool:
        """Whether neither end is searching; True as well where there is nothing to ask."""
        return not self.agreed or (self._begun and not self.searching and not self._peer_searching)

    def begin(self, bound: int, now: float) -> None:
        """Search up to `bound`, which the platform says of the first hop.

        A client begins when it is welcome, and first tells and hears the bounds; a server begins
        with the client's first probe.
        """
        self._begun = True
        self._raise_at = now + RAISE_INTERVAL
        self._own_bound = _whole(bound)
        self.limit = self._bound = min(self._own_bound, self._peer_bound)
        if not self.agreed:
            return
        self.searching = True
        if self.peer_limit is None:
            self._tell(now)
        else:
            self._search(0, now)

    def bound(self, bound: int, now: float) -> None:
        """Take note of what the platform says by now; a change begins a search."""
        self._own_bound = _whole(bound)
        self._follow_bounds(now)

    def _follow_bounds(self, now: float) -> None:
        bound = min(self._own_bound, self._peer_bound)
        if not self._begun or bound == self._bound:
            return
        rises = bound > self._bound
        self._bound = bound
        if not self.agreed:
            self.limit = bound
        elif bound < self.limit or self.searching:
            self.limit = min(self.limit, bound)
            self._search(0, now)
        elif rises:
            self._search(self.limit, now)

    def receive_probe(self, probe: Probe, now: float) -> None:
        """Answer a probe, and take note of what its sender tells by it."""
        last = self._peer_sequence
        if last is None or 0 < (probe.sequence - last) & COUNTER_MASK <= COUNTER_MASK // 2:
            self._peer_sequence = probe.sequence
            self.peer_limit = _whole(probe.max_datagram)
            self._peer_searching = probe.searching
            bound = _whole(probe.bound)
            if bound != self._peer_bound and self._peer_changes < MAX_PEER_CHANGES:
                self._peer_changes += 1
                self._peer_bound = bound
                self._follow_bounds(now)
        if len(self._answers) == MAX_ANSWERS:
            self.dropped_answers += 1
            return
        self._answers.append(ProbeAnswer(probe.sequence, probe.size))

    def receive_answer(self, answer: ProbeAnswer, now: float) -> None:
        """Take an answer; one to no question of this round is ignored."""
        size, asked_at, told = self._asked.pop(answer.sequence, (0, 0.0, None))
        if answer.size != size + HEADER_SIZE or told is None:
            return
        self._answered = True
        self._told = told
        self._round_trip.add(now - asked_at)
        # What does not come with the others was probably lost.
        self._deadline = min(self._deadline, self._asked_at + self._timeout())
        if self._purpose is _Purpose.SEARCH:
            self._low = max(self._low, size)
            self.limit = max(self.limit, self._low)
        if size == max(self._sizes, default=0):
            self._end_round(now)

    def records_to_send(self) -> list[bytes]:
        """Give up the answers and probes to send."""
        # A probe's word before an answer, so that whoever is answered knows the bounds.
        records = [probe.encode() for probe in self._probes]
        records += [answer.encode() for answer in self._answers]
        self._probes.clear()
        self._answers.clear()
        return records

    def get_timer(self) -> float | None:
        """Say when `handle_timer` wants to be called, or None."""
        if not (self._begun and self.agreed):
            return None
        if self._purpose is not None:
            return self._deadline
        return min(self._confirm_at, self._raise_at)

    def handle_timer(self, now: float, last_payload_at: float) -> None:
        """Ask again or draw the conclusion; `last_payload_at` is when payload last passed."""
        due = self.get_timer()
        if due is None or now < due:
            return
        if self._purpose is not None:
            if self._attempts < ATTEMPTS:
                self._ask(now)
            else:
                self._end_round(now)
        elif now >= self._raise_at:
            self._peer_changes = 0
            self._raise_at = now + RAISE_INTERVAL
            if self.limit < self._bound:
                self._search(self.limit, now)
        elif self._told != self._word:
            self._tell(now)
        elif last_payload_at > self._confirmed_at:
            self._begin_round(_Purpose.CONFIRM, [self.limit], now)
        else:
            self._confirm_at = now + CONFIRM_INTERVAL

    @property
    def _word(self) -> tuple[int, int, bool]:
        """What every probe tells: bound, limit, and whether the search is on."""
        return self._own_bound, self.limit, self.searching

    # Rounds

    def _search(self, low: int, now: float) -> None:
        """Look for the largest size from `low`, which is known to arrive (0: nothing is)."""
        self.searching = True
        self._low = low
        self._high = self._bound
        self._floor = min(BASE_DATAGRAM, self._high)
        self._next_round(now)

    def _next_round(self, now: float) -> None:
        low = self._low or self._floor - 1
        between = self._high - low
        sizes = {low + between * part // PARALLEL for part in range(1, PARALLEL + 1)}
        if not self._low:
            sizes.add(self._floor)
        self._begin_round(_Purpose.SEARCH, sorted(sizes - {low}), now)

    def _tell(self, now: float) -> None:
        self._begin_round(_Purpose.TELL, [_SMALLEST], now)

    def _begin_round(self, purpose: _Purpose, sizes: list[int], now: float) -> None:
        self._purpose = purpose
        self._sizes = sizes
        self._attempts = 0
        self._answered = False
        self._asked.clear()
        self._probes.clear()
        self._ask(now)

    def _ask(self, now: float) -> None:
        """Send what this round has not heard of."""
        self._attempts += 1
        told = self._word
        least = self._low if self._purpose is _Purpose.SEARCH else 0
        for size in self._sizes:
            if size > least:
                self._sequence = (self._sequence + 1) & COUNTER_MASK
                self._asked[self._sequence] = size, now, told
                self._probes.append(Probe(self._sequence, *told, size + HEADER_SIZE))
                self.probes_sent += 1
        self._asked_at = now
        self._deadline = now + self._timeout()

    def _timeout(self) -> float:
        round_trip = self._round_trip.smoothed
        if round_trip is None:
            return MAX_TIMEOUT
        return min(max(4 * round_trip, MIN_TIMEOUT), MAX_TIMEOUT)

    def _end_round(self, now: float) -> None:
        """Go by what was answered and what was not."""
        purpose, self._purpose = self._purpose, None
        if purpose is _Purpose.SEARCH:
            self._end_search_round(now)
        elif self.searching or (purpose is _Purpose.CONFIRM and not self._answered):
            # The bounds are told; or, whether the path has become narrower or is gone altogether,
            # a search finds out.
            self._search(0, now)
        else:
            self._rest(now)

    def _end_search_round(self, now: float) -> None:
        if self._low:
            failed = [size for size in self._sizes if size > self._low]
            if failed:
                self._high = failed[0] - 1
                self.limit = min(self.limit, self._high)
            if self._low < self._high:
                self._next_round(now)
            else:
                self.limit = self._low
                self._settle(now)
        elif self._floor > MIN_DATAGRAM:
            # Nothing arrives: it may be the size, or the path is gone for now.
            self._floor = MIN_DATAGRAM
            self._next_round(now)
        else:
            self._settle(now)

    def _settle(self, now: float) -> None:
        self.searching = False
        self._asked.clear()
        if self._told == self._word:
            self._rest(now)
        else:
            self._tell(now)

    def _rest(self, now: float) -> None:
        self._confirm_at = now + CONFIRM_INTERVAL
        self._confirmed_at = now


def _whole(size: int) -> int:
    """Bound what a platform or a peer says to what a search can work with."""
    return min(max(size, _SMALLEST), _LARGEST)
