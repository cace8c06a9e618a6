"""The processes of a measurement: started, asked, their CPU time and memory read, ended."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from turnlane.api import Stage, TransportError
from turnlane_lab.bench.endings import uninterrupted

TURNLANE = (sys.executable, "-P", "-c", "from turnlane.cli.main import run; run()")
"""The command line, as its console script runs it; -P keeps the current folder out of it."""

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_KEPT = "TURNLANE_DATAPLANE"


class Part:
    """One process, from its start until the end of the `with` block.

    It leads a process group of its own, so that Ctrl-C reaches only whoever ends it in order.
    `log` takes its standard error, and its standard output where nothing is to be read from that;
    the last line of it is told when the process fails.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        answers: bool = True,
        ends_with_input: bool = False,
        sockets: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = log
        self._ends_with_input = ends_with_input
        self._rest = b""
        self._command = command
        self._answers = answers
        self._sockets = sockets
        self._environment = clean_environment() | dict(environment or {})
        self._started = 0.0
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        with uninterrupted(), self._log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self._answers else errors,
                stderr=errors,
                pass_fds=self._sockets,
                env=self._environment,
                process_group=0,
            )
            _RUNNING.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.perf_counter() - self._started

    def ask(self, line: str, *, timeout: float = START_TIMEOUT) -> dict[str, Any]:
        """Write a line and read the answer; raises `TransportError` where there is none."""
        self.tell(line)
        return self.answer(timeout=timeout)

    def tell(self, line: str) -> None:
        """Write a line; raises `TransportError` when the process has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self.failure("it has ended") from None

    def answer(self, *, timeout: float = START_TIMEOUT) -> dict[str, Any]:
        """Read a line of JSON; raises `TransportError` where none comes within `timeout`."""
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        deadline = time.perf_counter() + timeout
        while b"\n" not in self._rest:
            left = deadline - time.perf_counter()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise self.failure(f"it said nothing for {timeout:g} s")
            data = os.read(out, 1 << 20)
            if not data:
                # Its output ends a moment before it does, and before its last words are written.
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_TIMEOUT)
                raise self.failure("it has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self.failure("it said something else than expected") from None
        return found

    def check(self) -> None:
        """Raise `TransportError` when the process has ended."""
        if self._process.poll() is not None:
            raise self.failure(f"it ended with exit code {self._process.returncode}")

    def failure(self, what: str) -> TransportError:
        """Return the error that says what is wrong with this process."""
        said = self._log.read_text("utf-8", "replace").strip().splitlines()
        return TransportError(
            Stage.FORWARDING_LOOP,
            "bench_part_failed",
            f"the {self.name}: {what}" + (f" ({said[-1]})" if said else ""),
            "try again on a machine with less to do",
        )

    def rss(self) -> float:
        """Return the resident memory of it and its descendants in MiB; shared pages count twice."""
        self.check()
        return sum(map(resident, family(self.pid, children())))

    def stop(self) -> None:
        """End it: it may end by itself for a while, then it is killed. A second call is allowed."""
        process = self._process
        try:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            if process.poll() is None and not self._ends_with_input:
                process.terminate()
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # What it leaves behind is in its group, and so is it itself when it was too slow.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, 9)
            process.wait()
            _RUNNING.discard(self)


_RUNNING: set[Part] = set()


@contextmanager
def nothing_left() -> Iterator[None]:
    """End what still runs after the block: what a signal kept from being mentioned anywhere."""
    try:
        yield
    finally:
        for part in list(_RUNNING):
            part.stop()


def clean_environment() -> dict[str, str]:
    """Return our environment without settings for commands, which run with their defaults."""
    return {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("TURNLANE_") or name == _KEPT
    }


def cpu(parts: Mapping[str, Part]) -> dict[str, float]:
    """Return the CPU seconds that each part and its descendants have used.

    Raises `TransportError` where one has ended.
    """
    for part in parts.values():
        part.check()
    table = children()
    return {name: sum(map(cpu_seconds, family(part.pid, table))) for name, part in parts.items()}


def children() -> Mapping[int, list[int]]:
    """Return the children of every process that has any."""
    found: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                found.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    return found


def family(pid: int, table: Mapping[int, list[int]]) -> list[int]:
    """Return a process and all its descendants, by a table of children."""
    found = [pid]
    for parent in found:
        found += table.get(parent, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process, with those of children that have ended; 0 if gone."""
    try:
        # The clock that clock_getcpuclockid(3) returns: all threads, to the nanosecond.
        used = time.clock_gettime((~pid << 3) | 2)
        reaped = sum(int(ticks) for ticks in _stat(pid)[13:15])
    except OSError:
        return 0.0
    return used + reaped * _TICK


def resident(pid: int) -> float:
    """Return the resident memory of one process in MiB; 0 if it is gone."""
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat that follow the name, which may hold anything."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
