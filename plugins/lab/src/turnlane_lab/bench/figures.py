"""The figures of a run, by name: every one measured once a round, its median being what counts."""

from collections.abc import Callable, Mapping
from statistics import median

import msgspec

from turnlane_lab.bench.measures import Load, Trips

Values = list[float]


class Figures:
    """Values by name, in the order of the rounds.

    A name says the route, what was done, the direction, the process, and last what the number is
    and its unit: `tunnel.saturation.up.client.us` are CPU microseconds of the client for each
    datagram.
    """

    def __init__(self) -> None:
        self.values: dict[str, Values] = {}

    def add(self, name: str, value: float) -> None:
        """Keep one round's value."""
        self.values.setdefault(name, []).append(round(value, 6))

    def load(self, name: str, load: Load) -> None:
        """Keep what a load tells."""
        sent = sum(each.sent for each in load.passed.values())
        self.add(f"{name}.sent", sent)
        self.add(f"{name}.received", load.received)
        self.add(f"{name}.lost", sent - load.received)
        self.add(f"{name}.mbit", load.mbit)
        self.add(f"{name}.rate", load.rate)
        for part in load.cpu:
            self.add(f"{name}.{part}.us", load.microseconds(part))
            self.add(f"{name}.{part}.s_per_gb", load.per_gigabyte(part))

    def trips(self, name: str, found: Trips) -> None:
        """Keep what round trips tell."""
        for key, value in msgspec.structs.asdict(found).items():
            self.add(f"{name}.{key}", value)

    def median(self, name: str) -> float | None:
        """Return the median of the rounds, or None for what was not measured."""
        values = self.values.get(name)
        return median(values) if values else None

    def per_round(self, compute: Callable[[Mapping[str, float]], float]) -> Values:
        """Compute something of every round by itself; empty where a round lacks what it takes."""
        rounds = max(map(len, self.values.values()), default=0)
        found = []
        for index in range(rounds):
            row = {name: each[index] for name, each in self.values.items() if index < len(each)}
            try:
                found.append(compute(row))
            except (KeyError, ZeroDivisionError):
                continue
        return found

    def told(self) -> dict[str, object]:
        """Return them as data."""
        return {
            name: {"median": round(median(each), 4), "values": each}
            for name, each in self.values.items()
        }
