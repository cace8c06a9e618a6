"""Leftovers: what an operation holds of the process and has not given back."""

import gc
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel

SETTLING = 20
"""Turns of the scheduler in which what was closed may come to its end."""

_BACKENDS = ("AnyIO worker thread", "Trio thread", "asyncio_", "asyncio-waitpid-")
"""Threads that are a backend's own, by the beginning of their names.

They are kept for later, or (the last one, where asyncio has no pidfd) wait for a child process and
are still ending when it has told that the child is gone. The child itself is looked for apart.
"""


@dataclass(frozen=True)
class Holdings:
    """What the process holds: open files and sockets, children, threads, tasks, files on disk.

    Open files and children are seen where the system has `/proc`.
    """

    descriptors: frozenset[tuple[str, str]]
    children: frozenset[str]
    threads: frozenset[tuple[int, str]]
    tasks: frozenset[int]
    files: frozenset[str]

    @classmethod
    def take(cls, folders: Sequence[Path]) -> "Holdings":
        """Look at what is held now; `folders` are searched for files. Needs a running loop."""
        return cls(
            frozenset(_descriptors()),
            frozenset(_children()),
            frozenset(
                (thread.ident or 0, thread.name)
                for thread in threading.enumerate()
                if not thread.name.startswith(_BACKENDS)
            ),
            frozenset(task.id for task in anyio.get_running_tasks()),
            frozenset(
                str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*")
            ),
        )

    def since(self, earlier: "Holdings") -> list[str]:
        """Say in words what is held now and was not `earlier`."""
        descriptors = self.descriptors - earlier.descriptors
        sockets = [target for _, target in descriptors if target.startswith("socket:")]
        counts = {
            "open socket": len(sockets),
            "open file": len(descriptors) - len(sockets),
            "child process": len(self.children - earlier.children),
            "thread": len(self.threads - earlier.threads),
            "task": len(self.tasks - earlier.tasks),
        }
        told = [f"{kind} ({count})" for kind, count in counts.items() if count]
        files = sorted(self.files - earlier.files)
        return told + ([f"file ({', '.join(files)})"] if files else [])


@dataclass
class Leak:
    """What `watched` found, once its block has ended."""

    unclosed: int = 0
    """Resources that nobody closed before the garbage collector did."""


@contextmanager
def aged() -> Iterator[None]:
    """Leave what exists now out of collections, so that many of them take little time.

    Where somebody has frozen objects before, as a large suite of tests may, they stay frozen.
    """
    frozen_before = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_before:
            gc.unfreeze()


@contextmanager
def watched() -> Iterator[Leak]:
    """Count what is left to the garbage collector inside the block."""
    gc.collect()
    leak = Leak()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield leak
        gc.collect()
        leak.unclosed = sum(issubclass(each.category, ResourceWarning) for each in caught)


async def left_since(earlier: Holdings, folders: Sequence[Path]) -> list[str]:
    """Let the scheduler finish what was closed; say in words what is held that was not before."""
    # Nobody can cancel what is only a look: the operation before may have been cancelled.
    left: list[str] = []
    for _ in range(SETTLING):
        left = Holdings.take(folders).since(earlier)
        if not left:
            break
        await anyio.lowlevel.checkpoint()
    return left


def _descriptors() -> Iterator[tuple[str, str]]:
    for number in _listed("/proc/self/fd"):
        # The one through which the folder is read is gone by now.
        with suppress(OSError):
            yield number, os.readlink(f"/proc/self/fd/{number}")


def _children() -> Iterator[str]:
    for thread in _listed("/proc/self/task"):
        with suppress(OSError):
            yield from Path(f"/proc/self/task/{thread}/children").read_text().split()


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
