"""The developer's benchmark: `make bench`, with options `make bench ARGS=--quick`.

Absolute times say something about the machine and the hour. What can be compared between runs are
ratios of things measured next to each other, so that is how everything here is measured: rounds in
which the parts follow each other, and the median over the rounds. Nothing here passes or fails.
docs/benchmarks.md says what each figure means.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from association import datagrams_per_second
from floor import Floor
from native import compiled
from startup import alternating
from targets import judged, target_table

from turnlane_lab.bench import report
from turnlane_lab.bench.endings import unwinding_signals
from turnlane_lab.bench.figures import Figures
from turnlane_lab.bench.measures import carry, saturating, steady, trips
from turnlane_lab.bench.plan import (
    ONE_WAY,
    WAYS,
    Plan,
    measure_goodput,
    measure_limits,
    measure_loaded,
    measure_saturation,
    measure_tunnel,
)
from turnlane_lab.bench.plot import plot
from turnlane_lab.bench.processes import nothing_left
from turnlane_lab.bench.routes import PYTHON_PEER, RelayKind, RunningRelay, Site, coturn

RESULTS = Path(__file__).with_name("results")
MATRIX = tuple((lanes, size) for lanes in (1, 4, 16) for size in ("200", "1200", "mixed"))
QUICK_MATRIX = ((1, "200"), (1, "mixed"), (4, "1200"), (16, "1200"))
Cells = Sequence[tuple[int, str]]
"""Numbers of lanes with the size of datagrams."""

PORTABLE = {"TURNLANE_DATAPLANE": "portable"}


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write."""
    options = parse(arguments)
    plan = Plan(options.seconds, options.trips, tell=progress)
    kind: RelayKind = options.relay or ("coturn" if coturn() else "lab")
    cells = () if options.no_matrix else QUICK_MATRIX if options.quick else MATRIX
    about, figures, matrix = report.machine(), Figures(), Figures()
    with (
        unwinding_signals(),
        TemporaryDirectory(prefix="turnlane-bench-") as folder,
        nothing_left(),
    ):
        peer = None if options.python else compiled("peer", Path(folder))
        site = Site(Path(folder), [peer] if peer else PYTHON_PEER)
        forward = compiled("forward", Path(folder))
        with site.relay(kind) as relay:
            for number in range(options.rounds):
                progress(f"round {number + 1} of {options.rounds}, through {kind}")
                measure_round(site, relay, plan, figures, forward)
            measure_matrix(site, relay, plan, matrix, cells)
        how = report.settings(
            relay=kind,
            rounds=options.rounds,
            seconds=options.seconds,
            size=plan.size,
            lanes=plan.lanes,
            peer="C" if peer else "Python",
            receive_buffer=site.buffers[0],
            send_buffer=site.buffers[1],
        )
    text, document = told(figures, matrix, cells, about, how)
    write(options.output_dir, text, document, plot(figures))
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Measure Turnlane on this machine.")
    parser.add_argument("--quick", action="store_true", help="one round, in about two minutes")
    parser.add_argument("--rounds", type=int, help="rounds, whose median counts (default 5)")
    parser.add_argument("--seconds", type=float, help="of each single load (default 0.6)")
    parser.add_argument("--trips", type=int, help="round trips of each round (default 10000)")
    parser.add_argument("--relay", choices=("coturn", "lab"), help="coturn where it is installed")
    parser.add_argument("--no-matrix", action="store_true", help="only one lane of 1200 bytes")
    parser.add_argument("--python", action="store_true", help="generator and sink in Python")
    parser.add_argument("--output-dir", type=Path, default=RESULTS, help="for what is written")
    options = parser.parse_args(arguments)
    defaults = (1, 0.25, 3000) if options.quick else (5, 0.6, 10_000)
    for name, value in zip(("rounds", "seconds", "trips"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.rounds < 1 or options.seconds <= 0 or options.trips < 1:
        parser.error("at least one round, one trip and some time")
    return options


def measure_round(
    site: Site, relay: RunningRelay, plan: Plan, figures: Figures, forward: str | None
) -> None:
    """Measure everything once, the limits beside it."""
    encrypt, decrypt = Floor().seconds(100_000, 1200)
    figures.add("floor.encrypt_us", encrypt * 1e6)
    figures.add("floor.decrypt_us", decrypt * 1e6)
    measure_tunnel(site, relay, plan, figures)
    measure_limits(site, relay, plan, figures)
    with site.tunnel(relay, environment=PORTABLE) as route:
        measure_saturation(route, "portable", ONE_WAY, plan, figures)
    if forward is not None:
        measure_forwarder(site, relay, plan, figures, forward)
    rate = datagrams_per_second(1200, plan.seconds, site.folder)
    figures.add("association.rate", rate)
    figures.add("association.us", 1e6 / rate)
    typer, told = alternating(1)
    figures.add("startup.import_typer.s", typer[0])
    figures.add("startup.help.s", told[0])


def measure_forwarder(
    site: Site, relay: RunningRelay, plan: Plan, figures: Figures, program: str
) -> None:
    """Measure a C program in our place: what passing datagrams on costs, and relaying them."""
    with site.through(program) as route:
        for way in ONE_WAY:
            figures.load(f"forwarder.steady50.{way}", carry(route, way, steady(50, plan.seconds)))
            load = carry(route, way, saturating(plan.size, plan.seconds))
            figures.load(f"forwarder.saturation.{way}", load)
    with site.through(program, relay) as route:
        figures.trips("turn-only.idle", trips(route, plan.trips, plan.trips * 0.002 + 1))


def measure_matrix(
    site: Site, relay: RunningRelay, plan: Plan, figures: Figures, cells: Cells
) -> None:
    """Measure other numbers of lanes and sizes, once each."""
    for lanes, size in cells:
        name = f"lanes{lanes}.size-{size}"
        part = replace(plan, lanes=lanes, size=size, seconds=plan.seconds * 2 / 3)
        with site.tunnel(relay, lanes=lanes) as route:
            for which, seconds in route.startup.items():
                figures.add(f"{name}.startup.{which}.s", seconds)
            measure_saturation(route, name, ONE_WAY, part, figures)
            measure_goodput(route, name, WAYS, part, figures)
            found = trips(route, min(1000, plan.trips), 5, part.ping_size)
            figures.trips(f"{name}.idle", found)
            measure_loaded(route, name, part, figures)
            for which in ("client", "server", "relay"):
                figures.add(f"{name}.rss.{which}.mib", route.parts[which].rss())


def told(
    figures: Figures,
    matrix: Figures,
    cells: Cells,
    about: report.Settings,
    how: report.Settings,
) -> tuple[str, str]:
    """Return the report as Markdown and as JSON."""
    found = judged(figures)
    parts = [
        report.markdown(figures, about, how),
        "## What it is to reach",
        target_table(found),
        "## The limits beside it",
        limits_table(figures),
    ]
    if cells:
        parts += ["## Lanes and sizes", matrix_table(matrix, cells)]
    more = {"targets": [each.told() for each in found], "matrix": matrix.told()}
    return "\n\n".join(parts) + "\n", report.data(figures, about, how, **more)


def write(folder: Path, text: str, document: str, picture: str) -> None:
    """Write Markdown, JSON and the plot, and print the first."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for ending, content in ((".md", text), (".json", document), (".svg", picture)):
        base.with_suffix(ending).write_text(content)
    sys.stdout.write(text)
    progress(f"written: {base}.md, .json and .svg")


def limits_table(figures: Figures) -> str:
    """Return what everything is compared with."""
    rows = (
        ("bare SSL_write, µs", "floor.encrypt_us", 2),
        ("BIO_write and SSL_read, µs", "floor.decrypt_us", 2),
        ("C program passing on, 50 Mbit/s up, µs", "forwarder.steady50.up.forwarder.us", 1),
        ("… down", "forwarder.steady50.down.forwarder.us", 1),
        ("… at saturation up", "forwarder.saturation.up.forwarder.us", 2),
        ("C client that only relays, idle round trip p50, µs", "turn-only.idle.p50_us", 0),
        ("… p99", "turn-only.idle.p99_us", 0),
        ("client straight to server, datagrams/s", "association.rate", 0),
        (
            "generator, at saturation through the relay alone, µs",
            "relay.saturation.up.near.us",
            2,
        ),
        ("relay alone, at saturation up, µs", "relay.saturation.up.relay.us", 2),
        ("`import typer`, s", "startup.import_typer.s", 3),
        ("`turnlane --help`, s", "startup.help.s", 3),
    )
    cells = ([title, report.number(figures.median(name), places)] for title, name, places in rows)
    return report.table(["", "median"], cells)


def matrix_table(figures: Figures, cells: Cells) -> str:
    """Return the other numbers of lanes and sizes."""
    head = ["lanes", "bytes", "up Mbit/s", "down", "both", "up client µs", "server µs"]
    head += ["down client µs", "server µs", "idle p50 µs", "p99", "loaded p50", "p99"]
    head += ["client MiB", "server MiB", "client ready s"]
    names = [
        *(f"goodput.{way}.mbit" for way in WAYS),
        *(f"saturation.{way}.{part}.us" for way in ONE_WAY for part in ("client", "server")),
        *(f"{state}.{rank}_us" for state in ("idle", "loaded") for rank in ("p50", "p99")),
        *("rss.client.mib", "rss.server.mib", "startup.client.s"),
    ]
    rows = []
    for lanes, size in cells:
        found = (figures.median(f"lanes{lanes}.size-{size}.{name}") for name in names)
        rows.append([str(lanes), size, *(report.number(each, 1) for each in found)])
    return report.table(head, rows)


def progress(line: str) -> None:
    """Say on standard error how far it came."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
