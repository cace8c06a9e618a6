"""The benchmark: `make bench`. Prints Markdown and writes the numbers to bench/results/ as JSON.

Absolute times say something about the machine and the hour. What can be compared between runs are
ratios of things measured next to each other, so that is how everything here is measured: rounds in
which the parts follow each other, and the median over the rounds. Nothing here passes or fails.
"""

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from floor import Floor
from report import markdown
from startup import alternating
from tunnel import PARTS, WINDOW, Load, Tunnel, round_trips, running

RESULTS = Path(__file__).with_name("results")
SIZE = 1000
STARTS = 7


@dataclass
class Measured:
    """What was measured of one tunnel, round by round."""

    loads: list[Load] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    trips: list[float] = field(default_factory=list)
    direct: list[float] = field(default_factory=list)

    def take(self, tunnel: Tunnel, count: int, encrypt_us: float) -> None:
        """Measure one round: a load, datagrams one at a time, and some without the tunnel."""
        load = tunnel.carry(count, SIZE)
        self.loads.append(load)
        self.ratios.append(one_way(load) / encrypt_us)
        self.trips += round_trips(tunnel.listen, count // 10, SIZE)
        self.direct += round_trips(tunnel.echo, count // 10, SIZE)

    def told(self) -> dict[str, Any]:
        """Return it as data."""
        loads = self.loads
        parts = [part for part in PARTS if part in loads[0].cpu]
        return {
            "round_trips_per_second": [round(one.returned / one.seconds) for one in loads],
            "lost": sum(one.lost for one in loads),
            "cpu_us_there_and_back": {
                part: [round(cpu_us(one, part), 2) for one in loads] for part in parts
            },
            "cpu_us_one_way": [round(one_way(one), 2) for one in loads],
            "ratio_to_encrypt": [round(one, 2) for one in self.ratios],
            "idle_ms": percentiles(self.trips),
            "direct_ms": percentiles(self.direct),
        }


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write."""
    options = parse(arguments)
    relays = ["lab", "coturn"] if shutil.which("turnserver") else ["lab"]
    found: dict[str, Any] = {
        "at": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
        "settings": {"rounds": options.rounds, "datagrams": options.count, "bytes": SIZE},
        "machine": machine(),
    }
    progress(f"{options.rounds} rounds of {options.count} datagrams through {' and '.join(relays)}")
    found |= tunnels(relays, options.rounds, options.count)
    progress(f"{STARTS} starts of the command line")
    found["startup"] = startup()
    sys.stdout.write(markdown(found) + "\n")
    progress(f"the numbers are in {write(found)}")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Measure Turnlane on this machine.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, whose median counts")
    parser.add_argument("--count", type=int, default=5000, help="datagrams in each round")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.count < 100:
        parser.error("at least 1 round of 100 datagrams")
    return options


def machine() -> dict[str, object]:
    """Return what the numbers depend on."""
    return {
        "turnlane": version("turnlane"),
        "python": platform.python_version(),
        "pyopenssl": version("pyOpenSSL"),
        "system": f"{platform.system()} {platform.release()}",
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
    }


def tunnels(relays: Sequence[str], rounds: int, count: int) -> dict[str, Any]:
    """Measure a tunnel through each relay; in each round all of them, and encryption alone."""
    floor: dict[str, list[float]] = {"encrypt_us": [], "decrypt_us": []}
    measured = {relay: Measured() for relay in relays}
    bare = Floor()
    with ExitStack() as stack:
        started = {relay: stack.enter_context(running(relay)) for relay in relays}
        for tunnel in started.values():
            tunnel.carry(WINDOW, SIZE)
        for _ in range(rounds):
            for relay, tunnel in started.items():
                encrypt, decrypt = (1e6 * each for each in bare.seconds(count, SIZE))
                floor["encrypt_us"].append(round(encrypt, 3))
                floor["decrypt_us"].append(round(decrypt, 3))
                measured[relay].take(tunnel, count, encrypt)
    return {"floor": floor, "relays": {relay: one.told() for relay, one in measured.items()}}


def startup() -> dict[str, Any]:
    """Measure how long the command line takes to say its help, beside importing typer."""
    typer, told = alternating(STARTS)
    return {
        "import_typer_s": [round(one, 4) for one in typer],
        "help_s": [round(one, 4) for one in told],
        "ratio": round(median(told) / median(typer), 3),
    }


def cpu_us(load: Load, part: str) -> float:
    """Return the CPU microseconds of a part for a datagram there and back."""
    return 1e6 * load.cpu[part] / max(load.returned, 1)


def one_way(load: Load) -> float:
    """Return the CPU microseconds of client and server together for a datagram one way."""
    return (cpu_us(load, "client") + cpu_us(load, "server")) / 2


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds, of the nearest rank."""
    ordered = sorted(seconds)
    ranks = {f"p{of}": -(-len(ordered) * of // 100) - 1 for of in (50, 99)}
    return {name: round(ordered[rank] * 1000, 3) for name, rank in ranks.items()}


def write(found: dict[str, Any]) -> Path:
    """Write everything that was measured, and return where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{found['at']}.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return path


def progress(text: str) -> None:
    """Tell who waits what is going on."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
