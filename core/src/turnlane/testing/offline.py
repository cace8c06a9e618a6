"""Offline: the process without a network and without children, for a provider's example link."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import ip_address
from typing import Any

_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname")
_SENDING = ("socket.connect", "socket.sendto", "socket.sendmsg")
_CHILDREN = ("subprocess.Popen", "os.posix_spawn", "os.system", "os.exec")

_depth = 0


@contextmanager
def offline() -> Iterator[None]:
    """Let the process reach this machine alone and start no program but its own interpreter.

    What is asked for fails as it does on a machine without a network: by `OSError`.
    """
    global _depth  # noqa: PLW0603 an audit hook is for the process, and for ever
    _watch()
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


@cache
def _watch() -> None:
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _depth:
        return
    if event in _LOOKUPS and not _local(arguments[0]):
        raise socket.gaierror(socket.EAI_AGAIN, "names are not looked up here")
    if event in _SENDING and isinstance(arguments[1], tuple) and not _local(arguments[1][0]):
        raise OSError(errno.ENETUNREACH, "the network is not reached from here")
    if event in _CHILDREN and arguments[0] != sys.executable:
        raise PermissionError(errno.EPERM, "programs are not started here")


def _local(host: object) -> bool:
    name = host.decode(errors="replace") if isinstance(host, bytes) else host
    if not name or name == "localhost":
        return True
    try:
        return ip_address(str(name)).is_loopback
    except ValueError:
        return False
