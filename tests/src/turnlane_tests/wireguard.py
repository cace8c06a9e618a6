"""WireGuard on machines of a test: keys, configurations, `wg-quick up` and what `wg show` says.

Where the kernel has none, `wg-quick` starts `wireguard-go` in its place.
"""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from turnlane_tests.netns import STOP_TIMEOUT, Machine, until

HANDSHAKE_TIMEOUT = 15.0

_SOCKETS = Path("/var/run/wireguard")
"""Where `wireguard-go` is spoken to, the same folder in all network namespaces."""


class Key:
    """A private key and its public half, as WireGuard writes them."""

    def __init__(self) -> None:
        self.private = _wg("genkey")
        self.public = _wg("pubkey", self.private)


def configuration(*parts: str) -> str:
    """Join configurations of one interface and one peer into one, section by section.

    Each part has lines of `[Interface]` and `[Peer]` in any order.
    """
    sections: dict[str, list[str]] = {"[Interface]": [], "[Peer]": []}
    for part in parts:
        lines: list[str] | None = None
        for line in filter(None, map(str.strip, part.splitlines())):
            if line.startswith("["):
                lines = sections[line]
            else:
                assert lines is not None, f"{line!r} stands in no section"
                lines.append(line)
    return "\n".join("\n".join([name, *lines, ""]) for name, lines in sections.items())


class WireGuard:
    """An interface `name` on `machine`, up while the `with` block lasts.

    Names are unique among all machines, for `wireguard-go` has one folder for all.
    """

    def __init__(self, machine: Machine, name: str, settings: str) -> None:
        self.machine = machine
        self.name = name
        self.control = _SOCKETS / f"{name}.sock"
        self._file = machine.home / f"{name}.conf"
        self._settings = settings

    @property
    def last_handshake(self) -> int:
        """When the last handshake with the peer was, in seconds since 1970; 0 before the first."""
        return int(self._show("latest-handshakes"))

    @property
    def endpoint(self) -> str:
        """Where the peer's datagrams come from, as far as WireGuard knows here."""
        return self._show("endpoints")

    def wait_for_handshake(self) -> None:
        """Wait for the first handshake; raises `AssertionError` when there is none."""
        until(
            lambda: self.last_handshake > 0,
            f"WireGuard handshake on {self.name}",
            timeout=HANDSHAKE_TIMEOUT,
        )

    def stop(self) -> None:
        """Take it down; return once nothing of it is left."""
        self.machine.run("wg-quick", "down", str(self._file))
        until(
            lambda: self.name not in self.machine.devices and not self.control.exists(),
            f"end of {self.name}",
            timeout=STOP_TIMEOUT,
        )

    def __enter__(self) -> Self:
        self._file.touch(mode=0o600)
        self._file.write_text(self._settings)
        self.machine.run("wg-quick", "up", str(self._file))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.name not in self.machine.devices:
            return
        if error is not None:
            shown = self.machine.run("wg", "show", self.name)
            error.add_note(f"--- wg show {self.name} ---\n{shown}")
        self.stop()

    def _show(self, what: str) -> str:
        """Return what is known about the one peer."""
        return self.machine.run("wg", "show", self.name, what).split()[1]


def _wg(command: str, given: str = "") -> str:
    done = subprocess.run(["wg", command], input=given, capture_output=True, text=True, check=True)
    return done.stdout.strip()
