"""The inspector: loads plugins in a process of its own, so that the one that asks imports none.

    python -P -m turnlane.plugins.inspect CHANNEL < orders

Whatever a plugin does to that process, hanging and ending it included, becomes that plugin's
record: the process is started again without it, so that the others are told too.
"""

import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from turnlane.api import UnavailableError
from turnlane.plugins.discovery import Candidate, chosen_names, disabled_names, discover_plugins
from turnlane.plugins.loader import load_plugins
from turnlane.plugins.records import PluginRecord, PluginStatus

PATIENCE = 10.0
"""Seconds that one plugin may take."""

BACKSTOP = 60.0
"""Seconds that all of them may take, should a plugin have switched the watch over it off."""

MAX_TOLD = 8 * 1024 * 1024


class Orders(msgspec.Struct, frozen=True):
    """What the process is told: where to look, and which plugins have been judged already."""

    path: list[str]
    patience: float
    judged: list[PluginRecord]


class Told(msgspec.Struct, frozen=True):
    """A line of what it tells: the plugin that it now loads, or at last the records of all."""

    loading: PluginRecord | None = None
    records: list[PluginRecord] | None = None


def inspect_plugins(
    *, patience: float = PATIENCE, backstop: float = BACKSTOP
) -> tuple[PluginRecord, ...]:
    """Return what becomes of each plugin that is installed, without importing one here.

    Times are in seconds. Raises `UnavailableError` where no such process can be had.
    """
    judged: list[PluginRecord] = []
    while True:
        records, culprit = _ask(Orders(sys.path, patience, judged), backstop)
        if records is not None:
            return tuple(records)
        if culprit is None or culprit in judged:
            raise UnavailableError(
                "plugins_not_inspected",
                "the process that loads the plugins told nothing of them",
                "try `turnlane providers list`, which loads them in its own process",
            )
        judged.append(culprit)


def _ask(orders: Orders, backstop: float) -> tuple[list[PluginRecord] | None, PluginRecord | None]:
    """Run the process once; return the records of all, or that of the plugin that ended it."""
    with tempfile.TemporaryDirectory(prefix="turnlane-") as folder:
        channel = Path(folder, "told")
        channel.touch()
        try:
            process = subprocess.Popen(  # noqa: S603 - it is our own interpreter
                [sys.executable, "-P", "-m", "turnlane.plugins.inspect", channel],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            return None, None
        expired = False
        with process:
            try:
                process.communicate(msgspec.json.encode(orders), timeout=backstop)
            except subprocess.TimeoutExpired:
                expired = True
                _kill(process)
            except BaseException:
                _kill(process)
                raise
        with channel.open("rb") as opened:
            lines = opened.read(MAX_TOLD).splitlines()
    return _judged(lines, process.returncode, expired)


def _judged(
    lines: list[bytes], code: int, hung: bool
) -> tuple[list[PluginRecord] | None, PluginRecord | None]:
    culprit: PluginRecord | None = None
    for line in lines:
        try:
            told = msgspec.json.decode(line, type=Told)
        except msgspec.MsgspecError:
            hung = hung or line.startswith(b"Timeout (")  # what the watch says before it ends us
            continue
        if told.records is not None:
            return told.records, None
        culprit = told.loading
    if culprit is None:
        return None, None
    if hung:
        name, reason = "hung", "loading it took too long: it was ended"
    else:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        name, reason = "died", f"loading it ended the process ({how})"
    return None, msgspec.structs.replace(
        culprit, status=PluginStatus.FAILED, code=name, reason=reason
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def main() -> None:
    """Load the plugins that are installed and tell what became of each."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    sys.path[:] = orders.path
    with Path(sys.argv[1]).open("ab", buffering=0) as channel:

        def tell(told: Told) -> None:
            channel.write(msgspec.json.encode(told) + b"\n")

        def watch(candidate: Candidate) -> None:
            tell(Told(loading=candidate.record(PluginStatus.LOADED)))
            # Its thread needs no interpreter: a plugin that never returns is ended all the same.
            faulthandler.dump_traceback_later(orders.patience, exit=True, file=channel)

        records, _ = load_plugins(
            discover_plugins(),
            disabled_names(os.environ),
            chosen_names(os.environ),
            judged=orders.judged,
            before=watch,
        )
        tell(Told(records=records))
        # What a plugin left to do at the end has as much time; then it is over.
        faulthandler.dump_traceback_later(orders.patience, exit=True, file=channel)


if __name__ == "__main__":
    main()
