"""Batched system calls through cffi: recvmmsg, and sendmsg with a segment size (UDP GSO).

The system's own structures are laid out here for Linux on 64-bit processors. `usable` tells, once
and by trying, whether they mean here what they should; where not, the portable path serves.
"""

import os
import socket
import struct
import sys
from functools import cache
from typing import Any

import cffi

from turnlane.api.batch import MAX_DATAGRAM, Batch

DATAPLANE_VARIABLE = "TURNLANE_DATAPLANE"
"""Environment variable: `portable` forces plain socket calls and pyOpenSSL's public interface."""

SLOT = MAX_DATAGRAM + 65
"""Bytes that one message may take in a batch: any datagram, or 64 KiB of coalesced ones, a headroom
before it, and what makes the next one begin on a multiple of 64."""

MAX_SEGMENTS = 128
"""Datagrams that the kernel coalesces into one message at most (UDP_MAX_SEGMENTS)."""

MESSAGES = 32
"""Messages that one system call takes at most."""

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
MSG_DONTWAIT = 0x40
PR_SET_TIMERSLACK = 29

NAME_SIZE = 32
CONTROL_SIZE = 32
HEADER_SIZE = 64
"""Bytes of one `struct mmsghdr`."""

_NAME_LENGTH, _IOV_LENGTH, _CONTROL_LENGTH = 1, 3, 5
"""Where these stand in a `struct msghdr`, in words of eight bytes."""

_GSO_CONTROL = struct.Struct("@QiiH6x")

ffi: Any = cffi.FFI()
ffi.cdef("""
struct iovec { void *iov_base; size_t iov_len; };
struct msghdr { void *msg_name; unsigned int msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
                void *msg_control; size_t msg_controllen; int msg_flags; };
struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
int recvmmsg(int, struct mmsghdr *, unsigned int, int, void *);
ssize_t sendmsg(int, const struct msghdr *, int);
int prctl(int, unsigned long);
""")


_NULL = ffi.NULL


class Memory:
    """The buffer of a batch as the system sees it: a pointer, and once asked for, vectors."""

    __slots__ = ("address", "base", "vectors")

    def __init__(self, batch: Batch) -> None:
        self.base = ffi.from_buffer("char[]", batch.buffer)
        self.address = int(ffi.cast("uintptr_t", self.base))
        self.vectors: ReceiveVectors | None = None


def memory_of(batch: Batch) -> Memory:
    """Return the memory of a batch, which keeps it from then on."""
    memory = batch.native
    if not isinstance(memory, Memory):
        memory = batch.native = Memory(batch)
    return memory


class ReceiveVectors:
    """What recvmmsg fills: a slot of the batch, a name and control data for each message.

    `lengths`, `controls` (bytes of control data) and `segments` (what those hold: the size of the
    coalesced datagrams) are arrays over what the system has written.
    """

    def __init__(self, batch: Batch, memory: Memory) -> None:
        self.count = min(MESSAGES, len(batch.buffer) // SLOT, batch.capacity // MAX_SEGMENTS)
        count = self.count
        headroom = SLOT - MAX_DATAGRAM - 1
        self.starts = [index * SLOT + headroom for index in range(count)]
        self.messages = ffi.new("struct mmsghdr[]", count)
        self._iovs = ffi.new("struct iovec[]", count)
        self._names = ffi.new("char[]", count * NAME_SIZE)
        self._control = ffi.new("char[]", count * CONTROL_SIZE)
        for index in range(count):
            self._iovs[index].iov_base = memory.base + self.starts[index]
            self._iovs[index].iov_len = MAX_DATAGRAM
            header = self.messages[index].msg_hdr
            header.msg_name = self._names + index * NAME_SIZE
            header.msg_namelen = NAME_SIZE
            header.msg_iov = self._iovs + index
            header.msg_iovlen = 1
            header.msg_control = self._control + index * CONTROL_SIZE
            header.msg_controllen = CONTROL_SIZE
        # What the system changes in the headers is put back from here.
        self._template = ffi.new("struct mmsghdr[]", count)
        ffi.memmove(self._template, self.messages, count * HEADER_SIZE)
        self._dirty = 0
        self._recvmmsg = _libc().recvmmsg
        self.names = memoryview(ffi.buffer(self._names))
        words = memoryview(ffi.buffer(self.messages))
        self.lengths = words.cast("I")[HEADER_SIZE // 4 - 2 :: HEADER_SIZE // 4]
        self.controls = words.cast("Q")[_CONTROL_LENGTH :: HEADER_SIZE // 8]
        self.segments = memoryview(ffi.buffer(self._control)).cast("I")[4 :: CONTROL_SIZE // 4]

    def receive(self, descriptor: int) -> int:
        """Fill the vectors with what is there; return how many messages that is, 0 for none.

        Raises OSError.
        """
        if self._dirty:
            ffi.memmove(self.messages, self._template, self._dirty)
        taken: int = self._recvmmsg(descriptor, self.messages, self.count, MSG_DONTWAIT, _NULL)
        if taken < 0:
            number = ffi.errno
            # What a call that took nothing has changed is not told.
            self._dirty = HEADER_SIZE
            raise OSError(number, os.strerror(number))
        self._dirty = taken * HEADER_SIZE
        return taken


class SendVectors:
    """One message to send: where to, pieces of memory, and the size they are to be cut to."""

    def __init__(self) -> None:
        self._header = ffi.new("struct msghdr *")
        self._iovs = ffi.new("struct iovec[]", MAX_SEGMENTS)
        self._name = ffi.new("char[]", NAME_SIZE)
        self._control = ffi.new("char[]", _GSO_CONTROL.size)
        _GSO_CONTROL.pack_into(
            ffi.buffer(self._control), 0, _GSO_CONTROL.size - 6, SOL_UDP, UDP_SEGMENT, 0
        )
        self._header.msg_name = ffi.NULL
        self._header.msg_iov = self._iovs
        self._header.msg_control = self._control
        self._fields = memoryview(ffi.buffer(self._header)).cast("Q")
        self._segment = memoryview(ffi.buffer(self._control)).cast("H")
        self.pieces = memoryview(ffi.buffer(self._iovs)).cast("Q")
        """Address and length of each piece in turn."""
        self._named: bytes | None = None
        self._sendmsg = _libc().sendmsg

    def address(self, name: bytes) -> None:
        """Say where to: a socket address as the system has it. Not for connected sockets."""
        if name is not self._named:
            self._named = name
            ffi.memmove(self._name, name, len(name))
            self._header.msg_name = self._name
            self._header.msg_namelen = len(name)

    def send(self, descriptor: int, pieces: int, segment: int) -> int:
        """Send `pieces` pieces, cut to `segment` bytes each, or as one datagram where that is 0.

        Return 0, or the number of the error.
        """
        fields = self._fields
        fields[_IOV_LENGTH] = pieces
        if segment:
            self._segment[8] = segment
            fields[_CONTROL_LENGTH] = _GSO_CONTROL.size
        else:
            fields[_CONTROL_LENGTH] = 0
        if self._sendmsg(descriptor, self._header, MSG_DONTWAIT) >= 0:
            return 0
        number: int = ffi.errno
        return number


@cache
def _libc() -> Any:
    return ffi.dlopen(None)


def sharpen_timer() -> bool:
    """Let this thread's sleeps end within a microsecond or so, not 50; say whether they will."""
    if not usable():
        return False
    return bool(_libc().prctl(PR_SET_TIMERSLACK, 1000) == 0)


def wanted() -> bool:
    """Whether the environment leaves the choice of the fast path to us."""
    return os.environ.get(DATAPLANE_VARIABLE, "") != "portable"


@cache
def usable() -> bool:
    """Whether the batched calls work here: a batch is sent and received to find out."""
    if sys.platform != "linux" or struct.calcsize("P") != 8 or sys.byteorder != "little":
        return False
    try:
        return _check()
    except (AttributeError, OSError):
        return False


def _check() -> bool:
    batch = Batch(capacity=MAX_SEGMENTS, size=SLOT)
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        far.bind(("127.0.0.1", 0))
        far.setsockopt(SOL_UDP, UDP_GRO, 1)
        near.connect(far.getsockname())
        memory = memory_of(batch)
        vectors = ReceiveVectors(batch, memory)
        sending = SendVectors()
        batch.buffer[:6] = b"abcdef"
        sending.pieces[0], sending.pieces[1] = memory.address, 6
        if sending.send(near.fileno(), 1, 4):
            return False
        # On the loopback interface a datagram has arrived when it was sent.
        if vectors.receive(far.fileno()) != 1 or vectors.lengths[0] != 6:
            return False
        start = vectors.starts[0]
        return (
            batch.buffer[start : start + 6] == b"abcdef"
            and vectors.controls[0] > 0
            and vectors.segments[0] == 4
        )
