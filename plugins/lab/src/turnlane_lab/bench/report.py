"""A run as Markdown and as JSON."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

from turnlane_lab.bench.figures import Figures
from turnlane_lab.bench.measures import BURST, WINDOW

Settings = Mapping[str, object]

SCHEMA = 1
MISSING = "not measured"

_ABOUT = (
    "Turnlane {turnlane}, Python {python}, pyOpenSSL {pyopenssl}, {system}, {processors} "
    "processors, load {load} at the start, data plane: {dataplane}."
)
_HOW = (
    "Medians of {rounds} round(s); loads of {seconds:g} s, {size} bytes of payload, "
    "{lanes} lane(s); the shipped commands with their defaults, the relay ({relay}) over UDP on "
    "loopback. Generator and sink ({peer}) send {burst} at once, at saturation with {window} under "
    "way at most; their sockets hold {receive_buffer} bytes received and {send_buffer} to send. "
    "docs/benchmarks.md says what each figure means."
)
_ROUTES = (
    ("Turnlane", "tunnel"),
    ("the relay without Turnlane", "relay"),
    ("generator straight to sink", "direct"),
)
_LOADS = (
    ("saturation, up", "saturation.up"),
    ("saturation, down", "saturation.down"),
    ("saturation, both", "saturation.both"),
    ("50 Mbit/s, up", "steady50.up"),
    ("50 Mbit/s, down", "steady50.down"),
    ("150 Mbit/s, up", "steady150.up"),
    ("150 Mbit/s, down", "steady150.down"),
)
_PARTS = ("client", "server", "relay")


def machine() -> dict[str, object]:
    """Return what the numbers depend on."""
    return {
        "turnlane": version("turnlane"),
        "python": platform.python_version(),
        "pyopenssl": version("pyOpenSSL"),
        "system": f"{platform.system()} {platform.release()}",
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "dataplane": os.environ.get("TURNLANE_DATAPLANE", "default"),
    }


def settings(**given: object) -> dict[str, object]:
    """Return how it was measured: what is given, and what is always so."""
    return {"burst": BURST, "window": WINDOW, **given}


def data(figures: Figures, about: Settings, how: Settings, **more: object) -> str:
    """Return the run as a JSON document."""
    document = {"schema": SCHEMA, "machine": about, "settings": how, **more}
    return json.dumps(document | {"figures": figures.told()}, indent=1) + "\n"


def markdown(figures: Figures, about: Settings, how: Settings) -> str:
    """Return the run as Markdown."""
    return "\n\n".join(
        [
            "# Turnlane benchmark",
            _ABOUT.format(**about),
            _HOW.format(**how),
            "## Goodput at under 1 % loss, Mbit/s",
            table(["", "up", "down", "both ways together"], _goodput(figures)),
            "## CPU time for each datagram that arrived, µs",
            table(["", "Mbit/s", "lost", *_PARTS], _cpu(figures, "us")),
            "## CPU seconds for each gigabyte that arrived",
            table(["", "Mbit/s", "lost", *_PARTS], _cpu(figures, "s_per_gb")),
            "## Round trips, µs",
            table(["", "p50", "p99", "returned", "lost"], _trips(figures)),
            "## Memory and start",
            table(["", *_PARTS], _processes(figures)),
        ]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float | None, places: int = 0) -> str:
    """Write a figure, or that there is none."""
    return MISSING if value is None else f"{value:.{places}f}"


def _goodput(figures: Figures) -> Iterable[Sequence[str]]:
    ways = ("up", "down", "both")
    for title, route in _ROUTES:
        found = (figures.median(f"{route}.goodput.{way}.mbit") for way in ways)
        yield [title, *map(number, found)]
    ratios = [_ratio(figures, f"goodput.{way}.mbit") for way in ways]
    yield ["Turnlane, of what the relay passes without it", *ratios]


def _ratio(figures: Figures, name: str) -> str:
    ours, theirs = figures.median(f"tunnel.{name}"), figures.median(f"relay.{name}")
    return number(ours / theirs if ours is not None and theirs else None, 2)


def _cpu(figures: Figures, unit: str) -> Iterable[Sequence[str]]:
    for title, load in _LOADS:
        name = f"tunnel.{load}"
        spent = (number(figures.median(f"{name}.{part}.{unit}"), 1) for part in _PARTS)
        lost = number(figures.median(f"{name}.lost"))
        yield [title, number(figures.median(f"{name}.mbit")), lost, *spent]


def _trips(figures: Figures) -> Iterable[Sequence[str]]:
    rows = [(f"{title}, idle", f"{route}.idle") for title, route in _ROUTES]
    for title, name in [*rows, ("Turnlane, beside half of its goodput up", "tunnel.loaded")]:
        keys = (("p50_us", 0), ("p99_us", 0), ("count", 0), ("lost", 0))
        yield [title, *(number(figures.median(f"{name}.{key}"), places) for key, places in keys)]


def _processes(figures: Figures) -> Iterable[Sequence[str]]:
    memory = (number(figures.median(f"tunnel.rss.{part}.mib"), 1) for part in _PARTS)
    yield ["resident memory after all of this, MiB", *memory]
    ready = (number(figures.median(f"tunnel.startup.{part}.s"), 2) for part in ("client", "server"))
    yield ["from start to the ready line, s", *ready, "–"]
