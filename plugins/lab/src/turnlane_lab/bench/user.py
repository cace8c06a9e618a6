"""One round for the user of this machine."""

from pathlib import Path
from tempfile import TemporaryDirectory

from turnlane.api import PolicyError
from turnlane_lab.bench import report
from turnlane_lab.bench.figures import Figures
from turnlane_lab.bench.plan import Plan, measure_limits, measure_tunnel
from turnlane_lab.bench.plot import plot
from turnlane_lab.bench.routes import RelayKind, Site, coturn


def run(relay: RelayKind | None, plan: Plan, output: Path | None, *, as_json: bool) -> str:
    """Measure, write the files that are wanted, and return what to print.

    Raises `TurnlaneError`: coturn is wanted and not there, a process fails, the folder for the
    files cannot be made.
    """
    kind: RelayKind = relay or ("coturn" if coturn() else "lab")
    figures, about = Figures(), report.machine()
    if output is not None:
        _make(output)
    with TemporaryDirectory(prefix="turnlane-bench-") as folder:
        site = Site(Path(folder))
        with site.relay(kind) as running:
            plan.tell(f"measuring through {kind}")
            measure_tunnel(site, running, plan, figures)
            measure_limits(site, running, plan, figures)
        how = report.settings(
            relay=kind,
            rounds=1,
            seconds=round(plan.seconds, 3),
            size=plan.size,
            lanes=plan.lanes,
            peer="Python",
            receive_buffer=site.buffers[0],
            send_buffer=site.buffers[1],
        )
    text = report.markdown(figures, about, how) + "\n"
    document = report.data(figures, about, how)
    if output is not None:
        (output / "report.md").write_text(text)
        (output / "report.json").write_text(document)
        (output / "plot.svg").write_text(plot(figures))
    return document if as_json else text


def _make(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PolicyError(
            "output_dir_unusable",
            f"--output-dir cannot be made: {error.strerror}",
            "name a folder that you may write to",
        ) from None
