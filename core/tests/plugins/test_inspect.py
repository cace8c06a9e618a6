"""The inspector: whatever a plugin does to its process, it and all others are told."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from turnlane.api import UnavailableError
from turnlane.plugins import inspect
from turnlane.plugins.inspect import inspect_plugins

Install = Callable[..., None]

SOUND = """
@hookimpl
def turnlane_providers():
    return [provider("{}")]
"""
BROKEN = {
    "hangs": ("hung", "took too long", "import threading; threading.Event().wait()"),
    "leaves": ("died", "exit code 7", "import os; os._exit(7)"),
    "leaves_well": ("died", "exit code 0", "import os; os._exit(0)"),
    "killed": ("died", "SIGKILL", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
    "interrupts": ("died", "", "raise KeyboardInterrupt"),
    "raises": ("import_failed", "ZeroDivisionError", "1 / 0"),
}


@pytest.fixture(autouse=True)
def _only_what_is_planted(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plugins that are really installed out."""
    names = ",".join(["first", "last", "made-up", *BROKEN])
    monkeypatch.setenv("TURNLANE_PLUGINS", names)
    monkeypatch.delenv("TURNLANE_DISABLE_PLUGINS", raising=False)


def told(**limits: float) -> dict[str, tuple[str, str, str]]:
    return {
        record.name: (record.status.value, record.code, record.reason)
        for record in inspect_plugins(**limits)
        if record.code not in ("not_chosen", "not_installed")
    }


def test_plugins_that_end_or_hang_the_process_are_told_beside_the_others(install: Install) -> None:
    install("first", SOUND.format("one"))
    for name, (_, _, source) in BROKEN.items():
        install(name, source)
    install("last", SOUND.format("two"))
    before = set(sys.modules)
    found = told(patience=1.0)
    assert set(found) == {"first", "last", *BROKEN}
    assert found["first"] == found["last"] == ("loaded", "", "")
    for name, (code, reason, _) in BROKEN.items():
        assert found[name][:2] == ("failed", code)
        assert reason in found[name][2]
    assert not {"first", "last", *BROKEN} & (set(sys.modules) - before)


def test_a_plugin_that_switches_its_watch_off_is_ended_by_the_backstop(install: Install) -> None:
    install(
        "hangs",
        "import faulthandler, threading\n"
        "faulthandler.cancel_dump_traceback_later()\n"
        "threading.Event().wait()",
    )
    assert told(patience=60, backstop=3)["hangs"][:2] == ("failed", "hung")


def test_what_a_plugin_prints_and_reads_disturbs_nobody(
    install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "import os, sys\nprint('noise')\nos.write(1, b'noise')\nos.write(2, b'noise')\n"
    install("first", source + "assert sys.stdin.read() == ''\n" + SOUND.format("one"))
    assert told()["first"][0] == "loaded"
    assert capfd.readouterr() == ("", "")


def test_what_a_plugin_leaves_for_the_end_takes_nothing_back(install: Install) -> None:
    source = "import atexit, os, threading\natexit.register(threading.Event().wait)\n"
    install("first", source + SOUND.format("one"))
    assert told(patience=1.0)["first"][0] == "loaded"


def test_the_folder_one_stands_in_is_no_place_for_plugins(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "turnlane.py").write_text("raise SystemExit(9)")
    (tmp_path / "faulthandler.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    install("first", SOUND.format("one"))
    assert told() == {"first": ("loaded", "", "")}


@pytest.mark.parametrize("interpreter", ["", "/nowhere/python", "/bin/true"])
def test_without_a_process_it_says_so(monkeypatch: pytest.MonkeyPatch, interpreter: str) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(UnavailableError) as caught:
        inspect_plugins()
    assert caught.value.code == "plugins_not_inspected"


def test_what_the_process_leaves_behind_is_nothing(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(inspect.tempfile, "tempdir", str(folder))
    install("leaves", "import os; os._exit(7)")
    told()
    assert os.listdir(folder) == []
