"""How long the command line takes to say its help, beside what importing typer alone takes."""

import subprocess
import sys
import time

IMPORT_TYPER = (sys.executable, "-c", "import typer")
HELP = (sys.executable, "-c", "from turnlane.cli.main import run; run()", "--help")


def alternating(runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of `runs` runs of each, one after the other, after one that warms up."""
    typer, told = [], []
    for _ in range(runs + 1):
        typer.append(_seconds(IMPORT_TYPER))
        told.append(_seconds(HELP))
    return typer[1:], told[1:]


def _seconds(command: tuple[str, ...]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
