"""What generator and sink say: datagrams that name their run, sent and received in batches."""

import socket
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum

MAGIC = 0x7B42
HEADER = struct.Struct("!HBxII")
"""Magic, kind, a pad, the run's number, and the sequence number of a ping."""

MIN_SIZE = HEADER.size

MIXED = (1200, 200, 1200, 600, 1200, 200, 1200, 200, 1200, 600, 1200, 200, 1200, 200, 1200, 600)
"""The sizes of mixed traffic, again and again: a half large, the others small and in between."""

CHANNEL = struct.Struct("!HH")
"""A ChannelData header (RFC 8656, section 12.4)."""

BUFFER = 4 * 1024 * 1024
"""Bytes asked for in both directions of every socket of generator and sink."""

_SEGMENT = 103  # UDP_SEGMENT and UDP_GRO of linux/udp.h, at the level of IPPROTO_UDP
_GRO = 104
_SIZE = struct.Struct("@H")
_INT = struct.Struct("@i")
_LARGEST = 65_535
_GSO_LIMIT = 65_000


class Kind(IntEnum):
    """What a datagram is for."""

    HELLO = 0
    """Opens a flow, so that the far end knows where to send to."""
    DATA = 1
    PING = 2
    """Asks for a PONG of the same run, number and size."""
    PONG = 3


def sizes_of(size: str) -> tuple[int, ...]:
    """Return the sizes that datagrams take in turn: one, or those of `mixed`."""
    return MIXED if size == "mixed" else (int(size),)


def datagram(kind: Kind, run: int, number: int, size: int) -> bytes:
    """Return one datagram of `size` bytes."""
    return HEADER.pack(MAGIC, kind, run, number) + bytes(size - HEADER.size)


def framed(payload: bytes, channel: int) -> bytes:
    """Return `payload` as ChannelData, or as it is where `channel` is 0."""
    return CHANNEL.pack(channel, len(payload)) + payload if channel else payload


class Volley:
    """Datagrams that leave together: by one system call for each run of equal sizes."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        self.count = len(packets)
        self._runs = [(b"".join(run), len(run[0]), len(run)) for run in _equal_runs(packets)]

    def send(self, to: socket.socket, address: tuple[str, int] | None = None) -> int:
        """Send them; return how many the system took."""
        return sum(_send(to, data, size, count, address) for data, size, count in self._runs)


def receives_coalesced(opened: socket.socket) -> None:
    """Ask the system to hand over datagrams of one sender together, where it can."""
    try:
        opened.setsockopt(socket.IPPROTO_UDP, _GRO, 1)
    except OSError:  # an older kernel: one at a time then
        return


class Inbox:
    """Receives what is there, one system call for each datagram or coalesced run of them."""

    def __init__(self) -> None:
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)

    def take(self, opened: socket.socket) -> Iterator[tuple[memoryview, tuple[str, int]]]:
        """Yield datagrams with their sources; each is to be used before the next is taken."""
        for _ in range(32):
            try:
                size, told, _, source = opened.recvmsg_into([self._buffer], 64)
            except BlockingIOError:
                return
            except OSError:  # what ICMP said of something sent earlier
                continue
            segment = _INT.unpack(told[0][2][:4])[0] if told else size
            for start in range(0, size, segment or 1):
                yield self._view[start : min(start + segment, size)], source


def _equal_runs(packets: Sequence[bytes]) -> Iterator[list[bytes]]:
    run: list[bytes] = []
    for packet in packets:
        if run and (len(packet) != len(run[0]) or (len(run) + 1) * len(packet) > _GSO_LIMIT):
            yield run
            run = []
        run.append(packet)
    if run:
        yield run


def _send(
    to: socket.socket, data: bytes, size: int, count: int, address: tuple[str, int] | None
) -> int:
    segments = [(socket.IPPROTO_UDP, _SEGMENT, _SIZE.pack(size))] if count > 1 else []
    try:
        if address is None:
            to.sendmsg([data], segments)
        else:
            to.sendmsg([data], segments, 0, address)
    except OSError:
        # No segmentation here, no room, or nobody there: one at a time tells which were taken.
        if count == 1:
            return 0
        parts = (data[start : start + size] for start in range(0, len(data), size))
        return sum(_send(to, part, size, 1, address) for part in parts)
    return count
