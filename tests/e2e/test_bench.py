"""`make bench` measures everything it tells, however little of it there is; nothing is timed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from turnlane.api import Secret, TransportError
from turnlane_lab.bench.measures import carry, saturating, trips
from turnlane_lab.bench.routes import Route, RunningRelay, Site
from turnlane_tests.real import require

BENCH = Path(__file__).parents[2] / "bench" / "run.py"
TINY = ("--rounds", "1", "--seconds", "0.01", "--trips", "10", "--relay", "lab", "--no-matrix")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one tiny run, with the C programs where there is a compiler."""
    folder = tmp_path_factory.mktemp("bench")
    subprocess.run(
        [sys.executable, BENCH, *TINY, "--output-dir", folder],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


def test_every_target_has_a_figure_of_each_round(results: Path) -> None:
    (written,) = results.glob("*.json")
    targets = json.loads(written.read_text())["targets"]
    assert len(targets) > 20
    native = [each for each in targets if "C program" in each["target"] or "C cl" in each["target"]]
    for each in targets:
        measured = shutil.which("cc") is not None or each not in native
        assert len(each["values"]) == (1 if measured else 0), each["target"]
        assert (each["reached"] is None) is not measured
        assert each["verdict"].startswith(("reached", "missed") if measured else "not measured")


def test_what_is_sent_is_received_or_lost(results: Path) -> None:
    (written,) = results.glob("*.json")
    figures = json.loads(written.read_text())["figures"]
    loads = [name.removesuffix(".sent") for name in figures if name.endswith(".sent")]
    assert {"tunnel.saturation.both", "portable.saturation.up", "relay.goodput.down"} <= set(loads)
    for name in loads:
        sent, received, lost = (
            figures[f"{name}.{key}"]["values"] for key in ("sent", "received", "lost")
        )
        assert [a - b for a, b in zip(sent, received, strict=True)] == lost
        assert min(lost) >= 0


def test_the_report_and_the_plot_are_of_the_same_run(results: Path) -> None:
    (text,) = results.glob("*.md")
    (picture,) = results.glob("*.svg")
    assert text.stem == picture.stem
    assert "## What it is to reach" in text.read_text()
    assert ET.parse(picture).getroot().tag.endswith("svg")


def assert_carries(route: Route) -> None:
    passed = carry(route, "both", saturating("1200", 0.02)).passed
    assert all(0 < each.received <= each.sent for each in passed.values())
    found = trips(route, 5, 5.0)
    assert (found.count > 0, found.count + found.lost) == (True, 5)


@pytest.mark.real
def test_coturn_is_measured_with_and_without_a_tunnel(tmp_path: Path) -> None:
    require("turnserver")
    site = Site(tmp_path)
    with site.relay("coturn") as relay:
        with site.relayed(relay) as route:
            assert_carries(route)
        with site.tunnel(relay, lanes=2) as route:
            assert_carries(route)
            assert set(route.startup) == {"server", "client"}
    assert relay.part._process.returncode is not None


def test_a_relay_that_refuses_the_benchmark_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.relay("lab") as relay:
        other = Secret(relay.link.reveal().replace("lab:", "lab:not-"))
        with (
            pytest.raises(TransportError, match="bench_relay_refused"),
            site.relayed(RunningRelay(relay.part, other)),
        ):
            raise AssertionError("it was let in")
