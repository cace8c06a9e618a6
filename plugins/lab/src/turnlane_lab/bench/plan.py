"""What a round measures: a tunnel and the limits beside it, one after the other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

from turnlane_lab.bench.figures import Figures
from turnlane_lab.bench.measures import (
    Offer,
    Way,
    carry,
    goodput,
    loaded_trips,
    saturating,
    steady,
    trips,
)
from turnlane_lab.bench.routes import Route, RunningRelay, Site

WAYS: tuple[Way, ...] = get_args(Way)
ONE_WAY: tuple[Way, ...] = ("up", "down")
STEADY = (50, 150)
"""Megabits a second of the loads that are evenly spaced."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long and of what: `seconds` for each single load, `trips` round trips.

    `tell` is told in a line how far it came.
    """

    seconds: float
    trips: int
    size: str = "1200"
    lanes: int = 1
    tell: Progress = lambda _: None

    @property
    def ping_size(self) -> int:
        """The size of pings."""
        return 1200 if self.size == "mixed" else int(self.size)


def measure_tunnel(site: Site, relay: RunningRelay, plan: Plan, figures: Figures) -> None:
    """Measure the shipped commands with their defaults."""
    with site.tunnel(relay, lanes=plan.lanes) as route:
        for name, seconds in route.startup.items():
            figures.add(f"tunnel.startup.{name}.s", seconds)
        measure_saturation(route, "tunnel", WAYS, plan, figures)
        for mbit in STEADY:
            for way in ONE_WAY:
                load = carry(route, way, steady(mbit, plan.seconds, plan.size))
                figures.load(f"tunnel.steady{mbit}.{way}", load)
        measure_goodput(route, "tunnel", WAYS, plan, figures)
        _idle(route, "tunnel", plan, figures)
        measure_loaded(route, "tunnel", plan, figures)
        for part in ("client", "server", "relay"):
            figures.add(f"tunnel.rss.{part}.mib", route.parts[part].rss())


def measure_limits(site: Site, relay: RunningRelay, plan: Plan, figures: Figures) -> None:
    """Measure the relay without us, and the generator straight to the sink."""
    with site.relayed(relay) as route:
        measure_saturation(route, "relay", ONE_WAY, plan, figures)
        measure_goodput(route, "relay", WAYS, plan, figures)
        _idle(route, "relay", plan, figures)
    with site.direct() as route:
        measure_saturation(route, "direct", ["up"], plan, figures)
        measure_goodput(route, "direct", ["up"], plan, figures)
        _idle(route, "direct", plan, figures)


def measure_goodput(
    route: Route, name: str, ways: Iterable[Way], plan: Plan, figures: Figures
) -> None:
    """Search for the goodput in some directions."""
    for way in ways:
        saturated = figures.values.get(f"{name}.saturation.{way}.rate")
        start = None if saturated is None else saturated[-1] / (2 if way == "both" else 1)
        load = goodput(route, way, plan.size, plan.seconds, start=start)
        figures.load(f"{name}.goodput.{way}", load)
        plan.tell(f"{name} {way}: {load.mbit:.0f} Mbit/s")


def measure_loaded(route: Route, name: str, plan: Plan, figures: Figures) -> None:
    """Measure round trips beside half of the goodput that was found."""
    rate = figures.values[f"{name}.goodput.up.rate"][-1] / 2
    offer = Offer(plan.size, rate, seconds=max(plan.seconds, 0.2))
    figures.trips(f"{name}.loaded", loaded_trips(route, offer, plan.ping_size))


def measure_saturation(
    route: Route, name: str, ways: Iterable[Way], plan: Plan, figures: Figures
) -> None:
    """Measure some directions at saturation."""
    for way in ways:
        load = carry(route, way, saturating(plan.size, plan.seconds))
        figures.load(f"{name}.saturation.{way}", load)


def _idle(route: Route, name: str, plan: Plan, figures: Figures) -> None:
    found = trips(route, plan.trips, plan.trips * 0.002 + 1, plan.ping_size)
    figures.trips(f"{name}.idle", found)
