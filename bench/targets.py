"""What the data plane is to reach, as ratios within one round, and how far it has come."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from turnlane_lab.bench.figures import Figures
from turnlane_lab.bench.plan import ONE_WAY
from turnlane_lab.bench.report import MISSING, number, table

ENDS = ("client", "server")
ENDS_AND_WAYS = tuple((end, way) for end in ENDS for way in ONE_WAY)

S_RELAY = 16.0
"""CPU seconds per gigabyte of coturn where the Go peers were measured: the scale of their figures.

S, a Go client and server of the same purpose, took there at 50 Mbit/s 61 and 54 seconds, and at
150 Mbit/s 33 and 31.
"""

S_AT = {50: {"client": 61.0, "server": 54.0}, 150: {"client": 33.0, "server": 31.0}}


@dataclass(frozen=True)
class Target:
    """A figure of each round, and the limit that its median is to keep.

    It is the sum of the figures `over`, without those `less`, by the sum of those `under` where
    there are any, times `times`.
    """

    title: str
    limit: float
    over: Sequence[str]
    under: Sequence[str] = ()
    less: Sequence[str] = ()
    times: float = 1.0
    at_least: bool = False
    unit: str = "×"

    def judged(self, figures: Figures) -> "Judged":
        """Return how it stands."""
        values = figures.per_round(self.of)
        return Judged(self, median(values) if values else None, values)

    def of(self, row: Mapping[str, float]) -> float:
        """Return the figure of one round; raises `KeyError` where something is missing."""
        top = sum(row[name] for name in self.over) - sum(row[name] for name in self.less)
        return self.times * top / (sum(row[name] for name in self.under) if self.under else 1.0)


@dataclass(frozen=True)
class Judged:
    """A target and what was found; None where it was not measured."""

    target: Target
    found: float | None
    values: Sequence[float]

    @property
    def reached(self) -> bool | None:
        """Whether the limit is kept; None where that is not known."""
        if self.found is None:
            return None
        limit = self.target.limit
        return self.found >= limit if self.target.at_least else self.found <= limit

    @property
    def verdict(self) -> str:
        """Say whether it is reached, or by what factor (of time: by how much) it is missed."""
        if self.found is None or self.reached is None:
            return MISSING
        if self.reached:
            return "reached"
        limit = self.target.limit
        if self.target.unit == "µs":
            return f"missed by {self.found - limit:.0f} µs"
        factor = limit / self.found if self.target.at_least else self.found / limit
        return f"missed by a factor of {factor:.2f}"

    def told(self) -> dict[str, object]:
        """Return it as data."""
        return {
            "target": self.target.title,
            "bound": "at least" if self.target.at_least else "at most",
            "limit": self.target.limit,
            "unit": self.target.unit,
            "median": self.found,
            "values": [round(each, 4) for each in self.values],
            "reached": self.reached,
            "verdict": self.verdict,
        }


def targets() -> Iterable[Target]:
    """Yield every target."""
    yield Target(
        "goodput up through the relay",
        900.0,
        ["tunnel.goodput.up.mbit"],
        at_least=True,
        unit="Mbit/s",
    )
    for part in ENDS:
        yield Target(
            f"CPU of the relay for each of the {part}'s, at saturation, up and down together",
            1.0,
            [f"tunnel.saturation.{way}.relay.us" for way in ONE_WAY],
            [f"tunnel.saturation.{way}.{part}.us" for way in ONE_WAY],
            at_least=True,
        )
    for end, way, limit, does in (
        ("client", "up", 3.5, "encrypts"),
        ("server", "down", 3.5, "encrypts"),
        ("server", "up", 5.0, "decrypts what the relay sends"),
        ("client", "down", 5.0, "decrypts what the relay sends"),
    ):
        yield Target(
            f"CPU for a datagram at saturation, {way}: the {end} {does}, of bare SSL_write",
            limit,
            [f"tunnel.saturation.{way}.{end}.us"],
            ["floor.encrypt_us"],
        )
    for end, way in ENDS_AND_WAYS:
        yield Target(
            f"CPU for a datagram at 50 Mbit/s, {way}: {end}, of a C program that passes it on",
            2.5,
            [f"tunnel.steady50.{way}.{end}.us"],
            [f"forwarder.steady50.{way}.forwarder.us"],
        )
    for mbit, share in ((50, 0.5), (150, 0.25)):
        for end, taken in S_AT[mbit].items():
            yield Target(
                f"CPU for a gigabyte at {mbit} Mbit/s, up: {end}, of S's, scaled by the relay",
                share,
                [f"tunnel.steady{mbit}.up.{end}.s_per_gb"],
                ["tunnel.steady50.up.relay.s_per_gb"],
                times=S_RELAY / taken,
            )
    yield Target(
        "datagrams a second straight to the server, of bare SSL_write's rate",
        0.15,
        ["floor.encrypt_us"],
        ["association.us"],
        at_least=True,
    )
    yield Target(
        "idle round trip p50, above that of a C client that only relays",
        60.0,
        ["tunnel.idle.p50_us"],
        less=["turn-only.idle.p50_us"],
        unit="µs",
    )
    for end, way in ENDS_AND_WAYS:
        yield Target(
            f"CPU for a datagram at saturation, {way}: {end} on the portable path, of SSL_write",
            9.0,
            [f"portable.saturation.{way}.{end}.us"],
            ["floor.encrypt_us"],
        )


def judged(figures: Figures) -> list[Judged]:
    """Return how all targets stand."""
    return [each.judged(figures) for each in targets()]


def target_table(found: Iterable[Judged]) -> str:
    """Return them as Markdown."""
    rows = []
    for each in found:
        target = each.target
        bound = f"{'≥' if target.at_least else '≤'} {target.limit:g} {target.unit}"
        measured = MISSING
        if each.found is not None:
            measured = f"{number(each.found, 2 if target.unit == '×' else 0)} {target.unit}"
        rows.append([target.title, bound, measured, each.verdict])
    return table(["target", "limit", "median", "verdict"], rows)
