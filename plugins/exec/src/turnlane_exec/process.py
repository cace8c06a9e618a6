"""The process: a command run without a shell, in a group of its own of which nothing is left.

Whatever way a run ends (by itself, by time, by too much output, by cancellation), its process group
is killed and its process reaped before the caller goes on. Only a process that has left the group
on purpose (`setsid`) escapes.
"""

import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from subprocess import DEVNULL, PIPE

import anyio
from anyio.abc import ByteReceiveStream, Process

from turnlane.api import ProviderError, Secret
from turnlane_exec.config import FILE_NAME, Command

STAGE = "run_command"
"""The provider's stage that every error here carries."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, and what a command has as its PATH."""

DEFAULT_LANG = "C.UTF-8"
WORKING_FOLDER = "/"
"""Nothing lies there that a program could pick up by accident."""

MAX_STDOUT = 64 * 1024
CHUNK = 16 * 1024
"""Bytes."""


class Ending(Enum):
    """How a run ended."""

    EXITED = auto()
    TIMED_OUT = auto()
    TOO_LARGE = auto()


@dataclass(frozen=True)
class Run:
    """A command that was run. `status` is below zero for one ended by a signal.

    Of what it wrote to its standard error only the number of bytes is kept.
    """

    ending: Ending
    status: int
    stdout: Secret[bytes]
    stdout_bytes: int
    stderr_bytes: int


async def run(command: Command, environ: Mapping[str, str]) -> Run:
    """Run `command` to its end, or end it; `environ` is what variables are taken from.

    Raises `ProviderError` with `command_not_found` or `command_not_started`.
    """
    process = await _start(command, environ)
    stdout, stderr = _Reader(MAX_STDOUT), _Reader(0)
    ending = Ending.EXITED
    try:
        with anyio.move_on_after(command.timeout) as in_time:
            async with anyio.create_task_group() as tasks:

                async def read_answer() -> None:
                    await stdout.read(process.stdout)
                    if stdout.count > MAX_STDOUT:
                        tasks.cancel_scope.cancel()

                tasks.start_soon(read_answer)
                tasks.start_soon(stderr.drain, process.stderr)
                await process.wait()
                # What it has left behind would hold the pipes open.
                _kill_group(process)
        if in_time.cancelled_caught:
            ending = Ending.TIMED_OUT
        if stdout.count > MAX_STDOUT:
            ending = Ending.TOO_LARGE
    finally:
        _kill_group(process)
        with anyio.CancelScope(shield=True):
            status = await process.wait()
            await process.aclose()
    return Run(ending, status, Secret(bytes(stdout.kept)), stdout.count, stderr.count)


def check(run: Run, command: Command) -> None:
    """Raise the `ProviderError` of a run that gave no answer.

    Codes: `command_timeout`, `output_too_large`, `command_failed`.
    """
    shown = f"[commands.{command.name}] of {FILE_NAME}"
    wrote = (
        f"it wrote {run.stderr_bytes} bytes to its standard error, not shown since they may hold "
        "secrets"
    )
    if run.ending is Ending.TIMED_OUT:
        raise ProviderError(
            "command_timeout",
            f"the command {shown} did not end within {command.timeout:g} s and was killed; {wrote}",
            "run it by hand to see what it waits for (it gets no input), or raise its timeout",
            provider_stage=STAGE,
        )
    if run.ending is Ending.TOO_LARGE:
        raise ProviderError(
            "output_too_large",
            f"the command {shown} printed over {MAX_STDOUT // 1024} KiB and was killed",
            "let it print the JSON of the credentials alone",
            provider_stage=STAGE,
        )
    if run.status != 0:
        how = f"with status {run.status}" if run.status > 0 else f"by signal {-run.status}"
        raise ProviderError(
            "command_failed",
            f"the command {shown} ended {how}; {wrote}",
            "run it by hand to see what it says",
            provider_stage=STAGE,
        )


def environment(command: Command, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a command gets: three of ours, those passed on, its own."""
    passed = {name: environ[name] for name in command.pass_env if name in environ}
    own = {name: _native(value.reveal()) for name, value in command.env.items()}
    return {
        "PATH": PATH,
        "HOME": environ.get("HOME") or _home(),
        "LANG": environ.get("LANG") or DEFAULT_LANG,
        **passed,
        **own,
    }


async def _start(command: Command, environ: Mapping[str, str]) -> Process:
    process, told, missing = await _open(command, environ)
    if process is not None:
        return process
    shown = f"[commands.{command.name}] of {FILE_NAME}"
    if missing:
        raise ProviderError(
            "command_not_found",
            f"there is no program (or no interpreter for it) where argv of {shown} says",
            f"write its absolute path; names are looked for in {PATH} only",
            provider_stage=STAGE,
        )
    raise ProviderError(
        "command_not_started",
        f"the program of {shown} could not be started: {told}",
        "check that it is executable for the user who runs Turnlane",
        provider_stage=STAGE,
    )


async def _open(command: Command, environ: Mapping[str, str]) -> tuple[Process | None, str, bool]:
    """Start the process, or say why not, and whether it is because nothing is there.

    Nothing is raised from here: an OSError carries the program's path.
    """
    program, *arguments = [_native(each.reveal()) for each in command.argv]
    if not program.startswith("/"):
        found = shutil.which(program, path=PATH)
        if found is None:
            return None, "", True
        program = found
    try:
        # Shielded: who is cancelled while it starts would not know what to kill.
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                [program, *arguments],
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                cwd=WORKING_FOLDER,
                env=environment(command, environ),
                start_new_session=True,
            )
    except FileNotFoundError:
        return None, "", True
    except OSError as error:
        return None, os.strerror(error.errno or 0), False
    return process, "", False


class _Reader:
    """Reads a stream to its end, keeping at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.kept = bytearray()
        self.count = 0
        self._limit = limit

    async def read(self, stream: ByteReceiveStream | None) -> None:
        """Read until the stream ends or brings more than the limit."""
        while self.count <= self._limit and await self._receive(stream):
            pass

    async def drain(self, stream: ByteReceiveStream | None) -> None:
        """Read until the stream ends, so that nothing waits for room in it."""
        while await self._receive(stream):
            pass

    async def _receive(self, stream: ByteReceiveStream | None) -> bool:
        assert stream is not None
        try:
            data = await stream.receive(CHUNK)
        except anyio.EndOfStream:
            return False
        self.count += len(data)
        self.kept += data[: max(0, self._limit - len(self.kept))]
        return True


def _kill_group(process: Process) -> None:
    # It leads its own session, so its id is the group's. The id stays taken as long as one member
    # lives; with none left there is nothing to find, and ids are not given anew that fast. macOS
    # answers EPERM for a group of which only the dead are left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _native(text: str) -> str:
    """Return what becomes the UTF-8 bytes of `text` when it is handed to the system."""
    return os.fsdecode(text.encode())


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"
