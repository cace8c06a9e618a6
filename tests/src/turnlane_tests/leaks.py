"""What this process holds of the system: internet sockets, child processes, tasks, files.

Nothing here waits for a fixed time: `Held.settled` looks until it is as before, within a bound.
"""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anyio
from anyio.lowlevel import checkpoint

from turnlane_lab.relay import Relay

SETTLE_TIMEOUT = 5.0
"""Seconds after which what is still held counts as left behind."""

_INTERNET = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True)
class OpenSocket:
    """An internet socket of this process; `inode` tells two with the same addresses apart."""

    inode: str
    kind: str
    local: str
    peer: str


def open_sockets() -> frozenset[OpenSocket]:
    """Return the IPv4 and IPv6 sockets that this process has open, bound or not."""
    return frozenset(filter(None, map(_look_at, os.listdir("/proc/self/fd"))))


def child_processes() -> frozenset[int]:
    """Return the ids of this process's children, those included that have ended unnoticed."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # "PID (name) state parent ..."; the name may hold anything, parentheses too.
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except (OSError, IndexError):
                continue
            if int(parent) == os.getpid():
                found.add(int(entry.name))
    return frozenset(found)


def entries(folder: Path) -> list[str]:
    """Return the names of everything below `folder`, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@dataclass(frozen=True)
class Held:
    """What was held at one moment."""

    sockets: frozenset[OpenSocket]
    children: frozenset[int]
    tasks: frozenset[int]

    @classmethod
    def now(cls) -> Self:
        """Look at this process; inside a running event loop."""
        tasks = frozenset(task.id for task in anyio.get_running_tasks())
        return cls(open_sockets(), child_processes(), tasks)

    def new_sockets(self) -> frozenset[OpenSocket]:
        """Return the sockets that are open now and were not then."""
        return open_sockets() - self.sockets

    async def settled(self, timeout: float = SETTLE_TIMEOUT) -> None:
        """Wait until nothing is held that was not then; raises `AssertionError` naming it."""
        give_up = anyio.current_time() + timeout
        while left := self._left():
            if anyio.current_time() > give_up:
                raise AssertionError("left behind: " + "; ".join(left))
            await checkpoint()

    def _left(self) -> list[str]:
        left = [f"{one.kind} {one.local} -> {one.peer}" for one in self.new_sockets()]
        left += [f"process {one}" for one in child_processes() - self.children]
        left += [
            f"task {task.name}" for task in anyio.get_running_tasks() if task.id not in self.tasks
        ]
        return left


@asynccontextmanager
async def nothing_left(relay: Relay) -> AsyncIterator[Held]:
    """Check that what happens in the block leaves nothing, neither here nor at the relay."""
    before = Held.now()
    yield before
    await relay.counters.settled("allocations_alive", 0)
    await relay.counters.settled("tcp_connections_alive", 0)
    await before.settled()


def _look_at(name: str) -> OpenSocket | None:
    try:
        target = os.readlink(f"/proc/self/fd/{name}")
        if not target.startswith("socket:"):
            return None
        with socket.socket(fileno=os.dup(int(name))) as copy:
            if copy.family not in _INTERNET:
                return None
            return OpenSocket(target, copy.type.name, str(copy.getsockname()), _peer(copy))
    except OSError:
        # Closed meanwhile, by another thread.
        return None


def _peer(opened: socket.socket) -> str:
    try:
        return str(opened.getpeername())
    except OSError:
        return "nobody"
