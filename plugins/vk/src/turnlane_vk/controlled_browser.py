"""The controlled browser: a Chromium in a process of its own, which the operator uses.

The provider's side of it. The process (`turnlane_vk.browser_process`) leads a session of its own,
so that a Ctrl-C for Turnlane does not end it half-way; it ends when its pipe is closed, and here
it is waited for, or killed, with all that belongs to it.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from subprocess import DEVNULL, PIPE
from typing import Literal

import anyio
from anyio.abc import Process

from turnlane.api import Challenge, ChallengePort
from turnlane_vk.browser import BrowserUnavailable, Observations, ObservedAnswer, Watch
from turnlane_vk.browser_choice import EXECUTABLE, HEADLESS, Choice, choose
from turnlane_vk.browser_folder import BrowserFolder
from turnlane_vk.browser_wire import (
    Command,
    Event,
    Finish,
    Lines,
    NotStarted,
    NotStartedReason,
    Observed,
    Open,
    Ready,
    WireError,
    encode,
)

PROGRAM = (sys.executable, "-P", "-m", "turnlane_vk.browser_process")
"""The process; its folder is the argument that follows."""

START_WITHIN = 60.0
FINISH_WITHIN = 15.0
END_WITHIN = 10.0
"""Seconds until it is watched, until all is told after the operator's word, until it is gone."""

_ADVICE: dict[NotStartedReason, str] = {
    "display": f"set {HEADLESS}=true, or run it where a display is",
    "sandbox": (
        "its sandbox cannot be set up here: allow unprivileged user namespaces, or name another "
        f"Chromium with {EXECUTABLE}"
    ),
    "other": f"start it by hand to see what it says, or name another with {EXECUTABLE}",
}


class ControlledBrowser:
    """Implements `turnlane_vk.browser.Browser` with Chromium, through playwright.

    `environ` is where the operator's variables are looked up; `program` is the process.
    """

    def __init__(
        self, environ: Mapping[str, str] = os.environ, program: Sequence[str] = PROGRAM
    ) -> None:
        self._environ = environ
        self._program = program

    async def observe(
        self, watch: Watch, challenge: Challenge, challenges: ChallengePort
    ) -> Observations:
        """Open `watch.page` in a fresh profile, ask `challenge` and keep what is seen meanwhile.

        Nothing is left behind, neither a process nor a folder, also when this is cancelled.
        Raises `BrowserUnavailable`, and whatever `challenges` raises.
        """
        choice = choose(self._environ)
        folder = _folder()
        try:
            async with self._process(folder) as process:
                link = _Link(process)
                await link.open(choice, watch)
                return await _observe(link, challenge, challenges)
        finally:
            await folder.clear()

    @asynccontextmanager
    async def _process(self, folder: BrowserFolder) -> AsyncIterator[Process]:
        # Shielded: who is cancelled while it starts would not know what to end.
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                [*self._program, str(folder.path)],
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                cwd="/",
                env=folder.driver_environment(self._environ),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)


def _folder() -> BrowserFolder:
    try:
        return BrowserFolder.make()
    except OSError:
        raise BrowserUnavailable(
            "there is no place for the browser's profile",
            "set TMPDIR to a folder that can be written, with a short path",
        ) from None


class _Link:
    """The pipe to the process."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._commands = process.stdin
        self._events = Lines(process.stdout)

    async def open(self, choice: Choice, watch: Watch) -> None:
        """Have the browser started and the page opened; raises `BrowserUnavailable`."""
        event: Event = NotStarted("other")
        with anyio.move_on_after(START_WITHIN), suppress(WireError):
            await self.send(Open(choice, watch))
            event = await self.event()
        if not isinstance(event, Ready):
            reason = event.reason if isinstance(event, NotStarted) else "other"
            raise BrowserUnavailable("Chromium was found, but did not start", _ADVICE[reason])

    async def send(self, command: Command) -> None:
        """Send `command`; where nobody reads it any longer, reading events will tell."""
        with suppress(anyio.BrokenResourceError):
            await self._commands.send(encode(command))

    async def event(self) -> Event:
        """Return the next event; raises `WireError`."""
        return await self._events.event()


async def _observe(link: _Link, challenge: Challenge, challenges: ChallengePort) -> Observations:
    answers: list[ObservedAnswer] = []
    ended: Literal["continue", "cancel", "timeout", "closed"] = "closed"
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            nonlocal ended, failure
            try:
                ended = (await challenges.ask(challenge)).action
            except Exception as error:
                failure = error
            if ended == "continue":
                tasks.cancel_scope.deadline = anyio.current_time() + FINISH_WITHIN
                await link.send(Finish())
            else:
                tasks.cancel_scope.cancel()

        tasks.start_soon(ask)
        with suppress(WireError):
            while isinstance(event := await link.event(), Observed):
                answers.append(event.answer)
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return Observations(tuple(answers), ended)


async def _end(process: Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with anyio.move_on_after(END_WITHIN):
        await process.stdin.aclose()
        # It may have something to tell still, and would wait for room in the pipe.
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await process.stdout.receive()
        await process.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    await process.aclose()
