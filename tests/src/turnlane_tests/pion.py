"""DTLS and TURN by pion: the Go program in tests/interop/pion, built from Debian's packages."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import turnlane_tests
from turnlane_tests.openssl import ProgramPeer
from turnlane_tests.real import missing, require

GO_PATH = Path("/usr/share/gocode")
"""Where Debian's golang-github-* packages put their sources."""

SOURCES = Path(turnlane_tests.__file__).parents[2] / "interop" / "pion"

EXPORT_LABEL = "EXPORTER-interop"
EXPORT_SIZE = 32

START_TIMEOUT = 15.0


def build_pion(directory: Path) -> Path:
    """Build the program into `directory` without a network; skips where there is no Go or pion."""
    require("go")
    for package in ("dtls", "turn"):
        if not (GO_PATH / "src" / "github.com" / "pion" / package / "v2").is_dir():
            missing(f"not installed: golang-github-pion-{package}.v2-dev")
    program = directory / "pion"
    environment = {"GOPATH": str(GO_PATH), "GO111MODULE": "off", "GOPROXY": "off", "GOFLAGS": ""}
    subprocess.run(
        ["go", "build", "-o", str(program), "."],
        cwd=SOURCES,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return program


class PionPeer(ProgramPeer):
    """The running program; its reports are JSON objects with an `event`."""

    def reports(self, event: str) -> list[dict[str, Any]]:
        """Return the reports of one kind so far."""
        lines = self.output.split("\n")[:-1]
        reports: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
        return [report for report in reports if report["event"] == event]

    def wait_for_report(self, event: str, timeout: float = START_TIMEOUT) -> dict[str, Any]:
        """Wait for the first report of one kind."""
        self.wait_for(lambda _said: bool(self.reports(event)), f"{event!r}", timeout)
        return self.reports(event)[0]


class Pion:
    """Prepares peers from the built program; each is used in a `with` block."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def server(self, *options: str) -> PionPeer:
        """Prepare a server; it reports `listening` (address, pin), `accepted`, `closed`."""
        return PionPeer([str(self._program), "server", *options])

    def client(self, peer: tuple[str, int], *options: str) -> PionPeer:
        """Prepare a client of `peer`; it reports `connected`, `done` or `failed`."""
        return PionPeer([str(self._program), "client", "-peer", f"{peer[0]}:{peer[1]}", *options])


def address_of(server: PionPeer) -> tuple[str, int]:
    """Wait until a server listens, and return where."""
    host, _, port = str(server.wait_for_report("listening")["address"]).rpartition(":")
    return host, int(port)
