"""Processes are started, measured with their children, and ended with them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from turnlane.api import TransportError
from turnlane_lab.bench import routes
from turnlane_lab.bench.endings import unwinding_signals
from turnlane_lab.bench.processes import (
    Part,
    children,
    clean_environment,
    cpu,
    cpu_seconds,
    family,
    nothing_left,
)

SPEND = "import time\nwhile time.process_time() < 0.05: pass\n"
LIVE = SPEND + "print('{}', flush=True)\nimport sys\nsys.stdin.read()"
PARENT = f"""
import subprocess, sys
ended = subprocess.run([sys.executable, "-S", "-c", {SPEND!r}])
child = subprocess.Popen(
    [sys.executable, "-S", "-c", {LIVE!r}],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
child.stdout.readline()
print('{{"child": %d}}' % child.pid, flush=True)
sys.stdin.readline()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_the_cpu_time_of_children_counts_those_alive_and_those_that_ended(tmp_path):
    with Part("parent", python(PARENT), tmp_path / "log") as part:
        child = part.answer()["child"]
        assert set(family(part.pid, children())) == {part.pid, child}
        assert cpu_seconds(child) >= 0.05
        # 0.05 s each of two children; what has ended is told in hundredths of a second.
        assert cpu({"parent": part})["parent"] >= cpu_seconds(part.pid) + 0.05 >= 0.09
        assert part.rss() > 1


def test_ending_a_part_ends_what_it_started(tmp_path):
    with Part("parent", python(PARENT), tmp_path / "log") as part:
        child = part.answer()["child"]
    assert cpu_seconds(part.pid) == 0.0
    # Whoever adopted it may not have buried it yet.
    deadline = time.monotonic() + 10
    while _is_alive(child) and time.monotonic() < deadline:
        os.sched_yield()
    assert not _is_alive(child)
    part.stop()


def test_a_part_that_fails_is_told_by_the_last_thing_it_said(tmp_path):
    code = "import sys; sys.stdin.readline(); sys.exit('stage=listen code=listen_failed: why')"
    with Part("server", python(code), tmp_path / "log") as part:
        with pytest.raises(
            TransportError, match=r"the server: it has ended .*code=listen_failed"
        ) as caught:
            part.ask("go")
        assert caught.value.code == "bench_part_failed"
        with pytest.raises(TransportError, match="exit code 1"):
            cpu({"server": part})


def test_an_answer_that_does_not_come_or_is_no_json_is_an_error(tmp_path):
    code = "import sys\nfor line in sys.stdin: print('what', flush=True)"
    with Part("peer", python(code), tmp_path / "log") as part:
        with pytest.raises(TransportError, match=r"said nothing for 0\.01 s"):
            part.answer(timeout=0.01)
        with pytest.raises(TransportError, match="something else"):
            part.ask("go")


def test_what_does_not_end_by_itself_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("turnlane_lab.bench.processes.STOP_TIMEOUT", 0.05)
    code = (
        "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('{}', flush=True)\nsignal.pause()"
    )
    with Part("stubborn", python(code), tmp_path / "log") as part:
        part.answer()
    assert part._process.returncode == -signal.SIGKILL


def test_commands_run_with_their_defaults(monkeypatch):
    monkeypatch.setenv("TURNLANE_CLIENT_LEGACY", "true")
    monkeypatch.setenv("TURNLANE_DATAPLANE", "portable")
    kept = {name for name in clean_environment() if name.startswith("TURNLANE_")}
    assert kept == {"TURNLANE_DATAPLANE"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unwinds_what_was_begun(number):
    before = signal.getsignal(number)
    unwound = []

    def work():
        with unwinding_signals():
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(number)
                unwound.append(True)

    with pytest.raises(SystemExit) as left:
        work()
    assert (left.value.code, unwound) == (128 + number, [True])
    assert signal.getsignal(number) == before


def test_a_signal_that_comes_while_a_part_starts_leaves_nothing_behind(tmp_path, monkeypatch):
    started = []
    start = subprocess.Popen

    def interrupted(*arguments, **settings):
        started.append(start(*arguments, **settings))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    monkeypatch.setattr("turnlane_lab.bench.processes.subprocess.Popen", interrupted)

    def work():
        part = Part("peer", python("import sys; sys.stdin.read()"), tmp_path / "log")
        with unwinding_signals(), nothing_left(), part:
            raise AssertionError("it went on")

    with pytest.raises(SystemExit) as left:
        work()
    assert left.value.code == 128 + signal.SIGTERM
    assert started[0].returncode is not None


def _is_alive(pid: int) -> bool:
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return told.returncode == 0 and not told.stdout.startswith(b"Z")


def test_hellos_that_never_arrive_are_told_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(routes, "OPEN_TIMEOUT", 0.0)
    code = "import json\nfor line in open(0): print(json.dumps({'flows': %d}), flush=True)"
    with (
        Part("near", python(code % 1), tmp_path / "near") as near,
        Part("far", python(code % 0), tmp_path / "far") as far,
        pytest.raises(TransportError, match="bench_nothing_arrives"),
    ):
        routes.open_flows(near, far)
