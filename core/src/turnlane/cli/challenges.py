"""Challenges on the terminal: what a provider asks of a human is shown, and the answer read."""

import os
from collections import deque
from typing import TextIO

import anyio

from turnlane.api import Challenge, ChallengeAnswer
from turnlane.cli.failures import printable

MAX_LINE = 4096
"""Bytes of one answer; what is longer is no answer."""


class TerminalChallenges:
    """Shows challenges on one stream and reads answers from a file descriptor.

    The operator types `continue` or `cancel`. The end of the input cancels; the deadline that the
    challenge names times out.
    """

    def __init__(self, screen: TextIO, keyboard: int) -> None:
        self._screen = screen
        self._keyboard = keyboard
        self._lines: deque[str] = deque()
        self._rest = b""
        self._one_at_a_time = anyio.Lock()

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        """Show `challenge` and wait until it is answered, cancelled or past its deadline."""
        async with self._one_at_a_time:
            self._show(challenge)
            with anyio.move_on_after(challenge.deadline):
                return await self._answer()
            self._write("No answer came in time.")
            return ChallengeAnswer("timeout")

    async def _answer(self) -> ChallengeAnswer:
        while True:
            line = await self._line()
            match "cancel" if line is None else line.strip().lower():
                case "continue":
                    return ChallengeAnswer("continue")
                case "cancel":
                    return ChallengeAnswer("cancel")
                case _:
                    self._write("Type continue or cancel.")

    def _show(self, challenge: Challenge) -> None:
        self._write(f"[{printable(challenge.kind)}] {printable(challenge.prompt)}")
        if challenge.open_url is not None:
            # The one place where it must be seen: the human opens it.
            url = challenge.open_url.reveal()
            self._write(f"Open {url if url.isprintable() else ascii(url)}")
        self._write(
            f"Then type continue, or cancel, within {challenge.deadline:.0f} s, and press Enter."
        )

    def _write(self, text: str) -> None:
        self._screen.write(text + "\n")
        self._screen.flush()

    async def _line(self) -> str | None:
        """Return the next line, or None at the end of the input."""
        while not self._lines:
            data = await self._read()
            if not data:
                return None
            *complete, self._rest = (self._rest + data).split(b"\n")
            self._rest = self._rest[-MAX_LINE:]
            self._lines.extend(line.decode("utf-8", "replace") for line in complete)
        return self._lines.popleft()

    async def _read(self) -> bytes:
        # No thread reads here: one that waits for a key could not be cancelled.
        try:
            await anyio.wait_readable(self._keyboard)
        except OSError:
            # A plain file is always readable, which is why selectors refuse it.
            await anyio.lowlevel.checkpoint()
        return os.read(self._keyboard, MAX_LINE)
