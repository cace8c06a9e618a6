"""The command `turnlane bench`.

The command line imports this module once it is called, for its help too: what runs is imported
when it runs.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from turnlane.api import PolicyError

SINGLE_LOADS = 100
"""About how many times as long as a single load a whole run takes."""

bench_app = typer.Typer(rich_markup_mode=None, add_completion=False)


def _option(*names: str, **settings: Any) -> Any:
    """Declare an option; that each has its variable in the environment is told once for all."""
    return typer.Option(*names, show_envvar=False, **settings)


@bench_app.command()
def bench(
    *,
    relay: Annotated[
        Literal["coturn", "lab"] | None,
        _option(
            "--relay",
            show_default=False,
            help="Which TURN server to run.  [default: coturn where it is installed, else lab]",
        ),
    ] = None,
    lanes: Annotated[
        int, _option("--lanes", min=1, max=64, metavar="N", help="How many lanes the client makes.")
    ] = 1,
    size: Annotated[
        str,
        _option("--size", metavar="BYTES", help="Bytes of each datagram, 16 to 1400, or `mixed`."),
    ] = "1200",
    seconds: Annotated[
        float,
        _option("--seconds", min=5, max=3600, metavar="S", help="About how long to measure."),
    ] = 30.0,
    output_dir: Annotated[
        Path | None,
        _option(
            "--output-dir",
            metavar="DIR",
            show_default=False,
            help="Also write report.md, report.json and plot.svg there.",
        ),
    ] = None,
    json: Annotated[bool, _option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Measure a tunnel on this machine: goodput, CPU time, round trips, memory and start-up.

    Runs a relay, a server and a client of its own, with their defaults, between a generator and a
    sink, and what the same machine does without them for comparison. Tells what there is to tell
    on standard output when it is done; everything is ended and forgotten then.
    """
    _check_size(size)
    from turnlane_lab.bench.endings import unwinding_signals  # noqa: PLC0415 - see the docstring
    from turnlane_lab.bench.plan import Plan  # noqa: PLC0415
    from turnlane_lab.bench.processes import nothing_left  # noqa: PLC0415
    from turnlane_lab.bench.user import run  # noqa: PLC0415

    single = seconds / SINGLE_LOADS
    plan = Plan(single, min(10_000, int(seconds * 100)), size, lanes, _tell)
    with unwinding_signals(), nothing_left():
        typer.echo(run(relay, plan, output_dir, as_json=json), nl=False)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _check_size(size: str) -> None:
    if size != "mixed" and not (size.isascii() and size.isdigit() and 16 <= int(size) <= 1400):
        raise PolicyError(
            "invalid_size",
            "--size takes a number of bytes from 16 to 1400, or `mixed`",
            "the default is 1200",
        )
