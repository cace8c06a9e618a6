"""The command line as processes: started, listened to line by line, and always ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process

TURNLANE = (sys.executable, "-c", "from turnlane.cli.main import run; run()")

STEP = 20.0
"""Seconds that a step of a process may take on a busy machine."""

Entry = dict[str, Any]
"""A JSON object that a program wrote."""


class Program:
    """One run of the command line; `out` and `err` are what it has written so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""
        self._open = 0
        self._more = anyio.Event()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid

    @property
    def entries(self) -> list[Entry]:
        """The lines of `err` that are objects, as they are with `--log-format json`."""
        whole = self.err[: self.err.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    async def ready(self) -> Entry:
        """Wait for the `ready` line of a program that was started with `--json`."""
        await self._until(lambda: "\n" in self.out, "a ready line")
        entry: Entry = json.loads(self.out.splitlines()[0])
        assert entry["event"] == "ready"
        return entry

    async def logged(self, event: str, *, after: int = 0, **fields: object) -> Entry:
        """Wait for a log entry from number `after` on that has these fields, and return it."""

        def found() -> list[Entry]:
            return [
                entry
                for entry in self.entries[after:]
                if entry["event"] == event and fields.items() <= entry.items()
            ]

        await self._until(lambda: bool(found()), f"{event} {fields}")
        return found()[0]

    async def signalled(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end and for the last of the output; return the exit code."""
        with anyio.fail_after(STEP):
            code = await self.process.wait()
            while self._open:
                await self._more.wait()
        return code

    def listen(self, tasks: anyio.abc.TaskGroup) -> None:
        """Keep what the program writes."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        tasks.start_soon(self._read, self.process.stdout, "out")
        tasks.start_soon(self._read, self.process.stderr, "err")
        self._open = 2

    async def _read(self, stream: ByteReceiveStream, name: str) -> None:
        data = b""
        async for chunk in stream:
            data += chunk
            setattr(self, name, data.decode("utf-8", "replace"))
            self._changed()
        self._open -= 1
        self._changed()

    def _changed(self) -> None:
        self._more.set()
        self._more = anyio.Event()

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            with anyio.fail_after(STEP):
                while not holds():
                    assert self._open, f"ended without {what}:\n{self.out}{self.err}"
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} in {STEP:g} s:\n{self.out}{self.err}") from None


class Shell:
    """Where programs run: a home and a folder for temporary files of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if "TURNLANE" not in name},
            "HOME": str(folder / "home"),
            "XDG_DATA_HOME": str(folder / "data"),
            "TMPDIR": str(self.temporary),
        }

    @asynccontextmanager
    async def start(
        self, *arguments: object, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[Program]:
        """Start a command line; when the block is left and it still runs, it is killed."""
        process = await anyio.open_process(
            [*TURNLANE, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
        )
        program = Program(process)
        async with process, anyio.create_task_group() as tasks:
            program.listen(tasks)
            try:
                yield program
            finally:
                if process.returncode is None:
                    process.kill()
                tasks.cancel_scope.cancel()

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a file in the folder and return its path."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that have not ended (Linux)."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
