"""A whole tunnel, each part in a process of its own, and the load that goes through it."""

import json
import secrets
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PARTS = ("client", "relay", "server", "echo")
WINDOW = 32
"""Datagrams under way at once; coturn's socket buffers hold some fifty."""

PATIENCE = 1.0
"""Seconds without any datagram coming back after which those under way count as lost."""


class Part:
    """One process of the tunnel."""

    def __init__(self, role: str, given: dict[str, str]) -> None:
        self.role = role
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("roles.py")), role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.told: dict[str, str] = json.loads(self._ask(json.dumps(given)) or "{}")
        if not self.told:
            self.close()
            raise RuntimeError(f"the part {role} did not start")

    def cpu(self) -> float:
        """Return the CPU seconds that the process has used."""
        return float(json.loads(self._ask("cpu"))["cpu"])

    def close(self) -> None:
        """End the process in order; raises when it does not."""
        self._pipe(self._process.stdin).close()
        try:
            code = self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._pipe(self._process.stdout).close()
        if code:
            raise RuntimeError(f"the part {self.role} ended with exit code {code}")

    def _ask(self, line: str) -> str:
        pipe = self._pipe(self._process.stdin)
        pipe.write(line + "\n")
        pipe.flush()
        return self._pipe(self._process.stdout).readline()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@dataclass(frozen=True)
class Load:
    """What became of a load: datagrams, seconds, and the CPU seconds of each part."""

    returned: int
    lost: int
    seconds: float
    cpu: dict[str, float]


class Tunnel:
    """A running tunnel: `listen` is its local end, `parts` its processes by their place."""

    def __init__(self, parts: dict[str, Part]) -> None:
        self.parts = parts
        self.listen = address(parts["client"].told["listen"])
        self.echo = address(parts["echo"].told["address"])

    def carry(self, count: int, size: int) -> Load:
        """Send `count` datagrams of `size` bytes through and back, `WINDOW` under way at most."""
        before = {name: part.cpu() for name, part in self.parts.items()}
        started = time.perf_counter()
        returned, lost = windowed(self.listen, count, size)
        seconds = time.perf_counter() - started
        cpu = {name: part.cpu() - before[name] for name, part in self.parts.items()}
        return Load(returned, lost, seconds, cpu)


@contextmanager
def running(relay: str) -> Iterator[Tunnel]:
    """Run a tunnel through a relay, `lab` or `coturn`, while the block lasts."""
    with ExitStack() as stack:

        def start(role: str, given: dict[str, str]) -> Part:
            part = Part(role, given)
            stack.callback(part.close)
            return part

        turn = start(relay, {"password": secrets.token_urlsafe(18)})
        echo = start("echo", {})
        server = start("server", echo.told)
        client = start("client", turn.told | server.told)
        parts = {"client": client, "relay": turn, "server": server, "echo": echo}
        if relay == "coturn":
            # The process that we know is not coturn but its parent.
            del parts["relay"]
        yield Tunnel(parts)


def windowed(to: tuple[str, int], count: int, size: int) -> tuple[int, int]:
    """Send datagrams with a bounded number under way; return how many came back and were lost."""
    payload = secrets.token_bytes(size)
    sent = returned = lost = 0
    with connected(to) as opened:
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        while returned + lost < count:
            while sent < count and sent - returned - lost < WINDOW:
                opened.send(payload)
                sent += 1
            if not poll.poll(PATIENCE * 1000):
                lost = sent - returned
                continue
            try:
                while True:
                    opened.recv(size)
                    returned += 1
            except BlockingIOError:
                pass
    return returned, lost


def round_trips(to: tuple[str, int], count: int, size: int) -> list[float]:
    """Send datagrams one at a time; return the seconds each took, without those lost."""
    payload = secrets.token_bytes(size)
    taken = []
    with connected(to) as opened:
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        for _ in range(count):
            started = time.perf_counter()
            opened.send(payload)
            if poll.poll(PATIENCE * 1000):
                opened.recv(size)
                taken.append(time.perf_counter() - started)
    return taken


def connected(to: tuple[str, int]) -> socket.socket:
    """Return a non-blocking UDP socket whose peer is `to`."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # What is lost shall be lost in the tunnel, not here.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    opened.connect(to)
    opened.setblocking(False)
    return opened


def address(text: str) -> tuple[str, int]:
    """Split the `host:port` that a part told."""
    host, _, port = text.rpartition(":")
    return host, int(port)
