"""`turnlane bench`, as a user types it."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from xml.etree import ElementTree as ET

import pytest

from turnlane.api import PolicyError, UnavailableError
from turnlane_lab.bench import command, user
from turnlane_lab.bench.command import bench
from turnlane_lab.bench.plan import Plan

needs_plugins = pytest.mark.skipif(
    find_spec("turnlane_adapters") is None or find_spec("turnlane_generic_turn") is None,
    reason="the benchmark needs the plugins generic-turn and adapters",
)
TINY = Plan(0.02, 20)
PARTS = ("client", "server", "relay")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One tiny run through the lab's relay, with its files."""
    output = tmp_path_factory.mktemp("bench") / "out"
    said = []
    plan = Plan(0.02, 20, "mixed", 2, said.append)
    printed = user.run("lab", plan, output, as_json=True)
    return json.loads(printed), output, said


@needs_plugins
def test_a_run_tells_every_figure(measured):
    document, _, said = measured
    figures = document["figures"]
    expected = {
        *(f"tunnel.goodput.{way}.mbit" for way in ("up", "down", "both")),
        *(f"relay.goodput.{way}.mbit" for way in ("up", "down", "both")),
        "direct.goodput.up.mbit",
        *(
            f"tunnel.{load}.{part}.{unit}"
            for load in ("saturation.both", "steady50.up", "steady150.down")
            for part in PARTS
            for unit in ("us", "s_per_gb")
        ),
        *(
            f"{name}.{key}"
            for name in ("tunnel.idle", "tunnel.loaded", "relay.idle", "direct.idle")
            for key in ("p50_us", "p99_us", "lost")
        ),
        *(f"tunnel.rss.{part}.mib" for part in PARTS),
        *(f"tunnel.startup.{part}.s" for part in ("client", "server")),
    }
    assert expected <= set(figures)
    assert all(figures[name]["median"] > 0 for name in expected if not name.endswith("lost"))
    assert (document["settings"]["lanes"], document["settings"]["size"]) == (2, "mixed")
    assert len([line for line in said if "Mbit/s" in line]) == 7


@needs_plugins
def test_sent_is_received_and_lost_for_every_load(measured):
    figures = measured[0]["figures"]
    loads = {name.removesuffix(".sent") for name in figures if name.endswith(".sent")}
    assert len(loads) >= 10
    for name in loads:
        sent, received, lost = (
            figures[f"{name}.{key}"]["median"] for key in ("sent", "received", "lost")
        )
        assert sent == received + lost
        assert 0 <= lost <= sent


@needs_plugins
def test_the_files_hold_the_same_run(measured):
    document, output, _ = measured
    assert json.loads((output / "report.json").read_text()) == document
    text = (output / "report.md").read_text()
    assert "## Goodput" in text
    assert text.count("not measured") == 2  # straight to the sink only the way up is
    assert ET.parse(output / "plot.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize("size", ["15", "1401", "many", "-5", "²"])
def test_a_size_that_is_none_is_refused_before_anything_starts(size):
    with pytest.raises(PolicyError, match="invalid_size"):
        bench(size=size)


def test_coturn_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="coturn_missing"):
        user.run("coturn", TINY, None, as_json=False)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PolicyError, match="output_dir_unusable"):
        user.run("lab", TINY, tmp_path / "file" / "x", as_json=False)


def test_the_command_prints_what_the_run_returns(monkeypatch, capsys):
    asked = []

    def run(relay, plan, output, *, as_json):
        asked.append((relay, plan, output, as_json))
        plan.tell("half-way")
        return "report\n"

    monkeypatch.setattr(user, "run", run)
    bench(relay="lab", seconds=10.0, lanes=3, size="200", json=True)
    ((relay, plan, output, as_json),) = asked
    assert (relay, output, as_json) == ("lab", None, True)
    assert (plan.lanes, plan.size, plan.trips) == (3, "200", 1000)
    assert plan.seconds == pytest.approx(10 / command.SINGLE_LOADS)
    assert capsys.readouterr() == ("report\n", "half-way\n")


@needs_plugins
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_everything_it_started(tmp_path, number):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error"}
    code = "from turnlane_lab.bench.command import bench_app; bench_app()"
    started = subprocess.Popen(
        [sys.executable, "-c", code, "--relay", "lab", "--seconds", "3600"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stderr is not None
        assert started.stderr.readline().startswith("measuring")
        started.send_signal(number)
        printed, _ = started.communicate(timeout=60)
    finally:
        started.kill()
        started.communicate()
    assert (started.returncode, printed) == (128 + number, "")
    assert list(tmp_path.iterdir()) == []
    assert (
        str(tmp_path)
        not in subprocess.run(
            ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout
    )
