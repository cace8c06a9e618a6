"""Local files that only the operator can have written: read, or refused with the reason."""

import os
import stat
from pathlib import Path
from typing import Literal


class LocalFileError(Exception):
    """A file that is not read. `told` says why and repeats neither its path nor what it holds."""

    def __init__(self, kind: Literal["missing", "unreadable", "unsafe"], told: str) -> None:
        super().__init__(kind, told)
        self.kind = kind
        self.told = told


def read_local(path: Path, limit: int) -> bytes:
    """Return the bytes of a file of at most `limit`; raises `LocalFileError`.

    The file belongs to this user or to root, and nobody else may write to it: whoever can write it
    chooses where the traffic goes.
    """
    try:
        # Not blocking: a FIFO in the file's place must not stop the loop.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _check(os.fstat(descriptor))
            data = _read(descriptor, limit + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise LocalFileError("missing", "there is no such file") from None
    except OSError as error:
        raise LocalFileError("unreadable", os.strerror(error.errno or 0)) from None
    except ValueError:  # a NUL in the path
        raise LocalFileError("unreadable", "its path is malformed") from None
    if len(data) > limit:
        raise LocalFileError("unreadable", f"it is larger than {limit // 1024} KiB")
    return data


def _read(descriptor: int, most: int) -> bytes:
    data = bytearray()
    while len(data) < most and (piece := os.read(descriptor, most - len(data))):
        data += piece
    return bytes(data)


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise LocalFileError("unreadable", "it is not a regular file")
    if found.st_uid not in (0, os.geteuid()):
        raise LocalFileError("unsafe", "it belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LocalFileError("unsafe", "others than its owner may write to it")
