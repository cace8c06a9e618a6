"""The browser's folder: all that a browser writes is in it, and all that belongs to it is found.

Chromium leaves the process group of whoever starts it, and its crash handlers leave Chromium's. So
its processes are told by the folder, which each has in its arguments or its environment. They are
looked for in /proc; where there is none, Chromium is trusted to end when its pipe is closed.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

_PROC = Path("/proc")
_CLEAR_WITHIN = 10.0
"""Seconds. A process that is killed and still there then hangs in the kernel."""

_LONGEST_PLACE = 36
"""Bytes. In the folder Chromium makes a socket, whose path must not be over 103 (on macOS)."""

_ANOTHER_PLACE = "/tmp"  # noqa: S108 - mkdtemp makes the folder there, with a name of chance

_KEPT_FROM_BROWSER = ("TURNLANE_", "VK_PROVIDER_")
"""How variables begin that are for Turnlane, and may hold a link or a token."""


class BrowserFolder:
    """A folder of its own for one browser, readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def make(cls) -> "BrowserFolder":
        """Make a new one where temporary files go, unless that is too deep; raises `OSError`."""
        place = tempfile.gettempdir()
        if len(os.fsencode(place)) > _LONGEST_PLACE:
            place = _ANOTHER_PLACE
        return cls(Path(tempfile.mkdtemp(prefix="turnlane-vk-", dir=place)))

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    @property
    def profile(self) -> Path:
        """Where the browser's profile is."""
        return self._path / "profile"

    def driver_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a process that starts browsers in this folder."""
        return _passed(environ) | {"TMPDIR": str(self._path)}

    def browser_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of the browser, whose home is here too.

        Certificates, crash reports and caches of Chromium go to the home folder, not the profile.
        """
        home = self._path / "home"
        passed = _passed(environ)
        if "HOME" in passed:
            passed.setdefault("XAUTHORITY", str(Path(passed["HOME"]) / ".Xauthority"))
        return passed | {
            "HOME": str(home),
            "TMPDIR": str(self._path),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_DATA_HOME": str(home / ".local" / "share"),
        }

    async def clear(self) -> None:
        """Kill what belongs to the folder, except in the caller's process group, and remove it.

        It is done to its end whoever cancels it, and may be done again.
        """
        with anyio.move_on_after(_CLEAR_WITHIN, shield=True):
            while found := await anyio.to_thread.run_sync(self._processes):
                for process in found:
                    await self._kill(process)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(self._path, ignore_errors=True))

    def _processes(self) -> list[int]:
        try:
            entries = [int(name) for name in os.listdir(_PROC) if name.isdecimal()]
        except OSError:
            return []
        return [process for process in entries if self._owns(process)]

    def _owns(self, process: int) -> bool:
        try:
            if os.getpgid(process) == os.getpgrp():
                return False
            told = (_PROC / str(process) / name for name in ("cmdline", "environ"))
            return any(os.fsencode(self._path) in file.read_bytes() for file in told)
        except OSError:
            # It is gone, or another user's.
            return False

    async def _kill(self, process: int) -> None:
        try:
            handle = os.pidfd_open(process)
        except OSError:
            return
        try:
            # Asked again: only now the number cannot pass on to another process.
            if self._owns(process):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                await anyio.wait_readable(handle)
        finally:
            os.close(handle)


def _passed(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in environ.items() if not name.startswith(_KEPT_FROM_BROWSER)
    }
