"""What is measured of a route: loads, the highest rate with next to no loss, round trips."""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from turnlane_lab.bench.processes import Part, cpu
from turnlane_lab.bench.routes import Route
from turnlane_lab.bench.wire import HEADER, sizes_of

Way = Literal["up", "down", "both"]

WINDOW = 48
"""Datagrams under way at saturation: coturn's socket buffers hold not many more."""

BURST = 16
MAX_LOSS = 0.01
LEAST_RATE = 100.0
"""Datagrams a second below which no goodput is searched for."""

SETTLED = 0.05
"""Seconds without a further arrival after which what is still missing counts as lost."""

_RUNS = itertools.count(1)
_GROWTH = 1.4
_STEPS = 10
_HALVINGS = 3


class Passed(msgspec.Struct, frozen=True):
    """What became of datagrams in one direction; `bytes` and `received` are those that arrived."""

    sent: int
    received: int
    bytes: int
    seconds: float

    @property
    def lost(self) -> int:
        """How many did not arrive."""
        return self.sent - self.received

    @property
    def loss(self) -> float:
        """The share that did not arrive."""
        return self.lost / self.sent if self.sent else 0.0

    @property
    def mbit(self) -> float:
        """Megabits of payload that arrived in a second of sending."""
        return self.bytes * 8e-6 / self.seconds

    @property
    def rate(self) -> float:
        """Datagrams that arrived in a second of sending."""
        return self.received / self.seconds


class Load(msgspec.Struct, frozen=True):
    """One load: what passed in each direction, and the CPU seconds of every process meanwhile."""

    passed: Mapping[str, Passed]
    cpu: Mapping[str, float]

    @property
    def received(self) -> int:
        """Datagrams that arrived, in both directions."""
        return sum(each.received for each in self.passed.values())

    @property
    def loss(self) -> float:
        """The greater loss of the two directions."""
        return max(each.loss for each in self.passed.values())

    @property
    def mbit(self) -> float:
        """Megabits of payload a second, of both directions together."""
        return sum(each.mbit for each in self.passed.values())

    @property
    def rate(self) -> float:
        """Datagrams a second, of both directions together."""
        return sum(each.rate for each in self.passed.values())

    def microseconds(self, part: str) -> float:
        """CPU time of a process for each datagram that arrived."""
        return self.cpu[part] * 1e6 / max(self.received, 1)

    def per_gigabyte(self, part: str) -> float:
        """CPU seconds of a process for each gigabyte of payload that arrived."""
        return self.cpu[part] * 1e9 / max(sum(each.bytes for each in self.passed.values()), 1)


class Trips(msgspec.Struct, frozen=True):
    """Round trips: how many came back and how many not, and percentiles in microseconds."""

    count: int
    lost: int
    p50_us: float
    p99_us: float

    @classmethod
    def of(cls, nanoseconds: list[int], lost: int) -> "Trips":
        """Take the percentiles (nearest rank); they are 0 where nothing came back."""
        ordered = sorted(nanoseconds) or [0]
        p50, p99 = (ordered[-(-len(ordered) * each // 100) - 1] / 1e3 for each in (50, 99))
        return cls(len(nanoseconds), lost, round(p50, 1), round(p99, 1))


@dataclass(frozen=True)
class Offer:
    """What the generator is to send: `rate` datagrams a second in each direction, or 0 for all.

    `burst` of them leave together. `window` bounds those under way; 0 does not.
    """

    size: str = "1200"
    rate: float = 0.0
    burst: int = BURST
    window: int = 0
    seconds: float = 1.0

    def command(self, run: int) -> str:
        """Return what a peer is told."""
        sizes = ",".join(map(str, sizes_of(self.size)))
        return f"send {run} {self.rate:g} {self.burst} {self.window} {self.seconds:g} {sizes}"


def saturating(size: str, seconds: float) -> Offer:
    """Return an offer that always keeps something under way for every part to work on."""
    return Offer(size, window=WINDOW, seconds=seconds)


def steady(mbit: float, seconds: float, size: str = "1200") -> Offer:
    """Return an offer of single datagrams, evenly spaced."""
    sizes = sizes_of(size)
    return Offer(size, mbit * 1e6 / 8 / (sum(sizes) / len(sizes)), 1, seconds=seconds)


def carry(route: Route, way: Way, offer: Offer) -> Load:
    """Send an offer in one direction or both; raises `TransportError` where a process fails."""
    ends = _ends(route, way)
    runs = {name: next(_RUNS) for name in ends}
    for name, (_, receiver) in ends.items():
        receiver.ask(f"expect {runs[name]} {int(offer.window > 0)}")
    before = cpu(route.parts)
    for name, (sender, _) in ends.items():
        sender.tell(offer.command(runs[name]))
    told = {name: sender.answer(timeout=offer.seconds + 30) for name, (sender, _) in ends.items()}
    counted = {name: _settled(receiver, told[name]["sent"]) for name, (_, receiver) in ends.items()}
    spent = {name: used - before[name] for name, used in cpu(route.parts).items()}
    passed = {
        name: Passed(told[name]["sent"], *counted[name], told[name]["seconds"]) for name in ends
    }
    return Load(passed, spent)


def goodput(
    route: Route, way: Way, size: str, seconds: float, *, start: float | None = None
) -> Load:
    """Find the highest rate at which less than a hundredth is lost, and return its load.

    From `start`, by default what saturation carries, in datagrams a second of each direction, the
    rate grows by two fifths until too much is lost (or shrinks until it is not); halvings then
    narrow it down to a twentieth. A rate is too high when it was so twice in a row: something else
    on the machine may have been in the way. Where nothing is good, it is the load that lost least.
    """
    if start is None:
        first = carry(route, way, saturating(size, seconds))
        start = first.rate / len(first.passed)
    rate, low, high = max(start, LEAST_RATE), 0.0, 0.0
    tried: list[tuple[bool, float, Load]] = []

    def is_good() -> bool:
        for _ in range(2):
            load = carry(route, way, Offer(size, rate, seconds=seconds))
            tried.append((_is_good(load, rate), rate, load))
            if tried[-1][0]:
                return True
        return False

    for _ in range(_STEPS):
        if is_good():
            low, rate = rate, rate * _GROWTH
        else:
            high, rate = rate, rate / _GROWTH
        if (low and high) or rate < LEAST_RATE:
            break
    for _ in range(_HALVINGS if low and high else 0):
        rate = (low + high) / 2
        if is_good():
            low = rate
        else:
            high = rate
    return max(tried, key=lambda each: (each[0], each[1] if each[0] else -each[2].loss))[2]


def trips(route: Route, count: int, seconds: float, size: int = 1200) -> Trips:
    """Measure round trips, one under way at a time, with nothing else on the route."""
    return _trips(route.near, count, seconds, size)


def loaded_trips(route: Route, load: Offer, size: int = 1200) -> Trips:
    """Measure round trips of the pinger while the generator sends `load` up."""
    assert route.pinger is not None, "only where there is a pinger"
    run = next(_RUNS)
    route.far.ask(f"expect {run} 0")
    route.near.tell(load.command(run))
    found = _trips(route.pinger, 1_000_000, load.seconds * 0.9, size)
    route.near.answer(timeout=load.seconds + 30)
    return found


def _trips(peer: Part, count: int, seconds: float, size: int) -> Trips:
    command = f"ping {next(_RUNS)} {count} {seconds:g} {max(size, HEADER.size)}"
    told = peer.ask(command, timeout=seconds + 30)
    return Trips.of(told["ns"], told["lost"])


def _ends(route: Route, way: Way) -> dict[str, tuple[Part, Part]]:
    ways = {"up": (route.near, route.far), "down": (route.far, route.near)}
    return ways if way == "both" else {way: ways[way]}


def _settled(receiver: Part, sent: int) -> tuple[int, int]:
    """Return datagrams and bytes once all that were sent are there, or no more come."""
    received, since = -1, time.perf_counter()
    while True:
        told = receiver.ask("count")
        if told["received"] != received:
            received, since = told["received"], time.perf_counter()
        if received >= sent or time.perf_counter() > since + SETTLED:
            return received, told["bytes"]
        time.sleep(0.005)


def _is_good(load: Load, rate: float) -> bool:
    """Say whether next to nothing was lost and the generator kept up with the rate."""
    return load.loss < MAX_LOSS and all(
        each.sent >= 0.97 * rate * each.seconds for each in load.passed.values()
    )
