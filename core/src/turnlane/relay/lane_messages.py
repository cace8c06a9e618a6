"""Messages between two processes of one server about lanes that belong to both.

A lane's *holder* has its association and the port; its *owner* has its session. One message is one
packet of a socket pair: 16 bytes of header, then the bytes of its packets or records one after the
other, then the size of each, and for payload the flow of each. All integers are the machine's own:
both ends are this program on this machine.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import Final

from turnlane.api.batch import Batch
from turnlane.net.system import SocketAddress

HEADER: Final = struct.Struct("=BxHII4x")
"""Kind, number of packets or records, lane, bytes of them all."""

MAX_COUNT: Final = 512
"""Packets or records of one message; so many pieces of memory go into one system call."""

MAX_BYTES: Final = 64 * 1024
"""Bytes of them all; a packet has 16 KiB at most."""

MAX_MESSAGE: Final = HEADER.size + MAX_BYTES + 6 * MAX_COUNT

_TWO: Final = struct.Struct("=II")

_MAX_LANE: Final = 0xFFFF_FFFF


class Kind(IntEnum):
    """What a message is about."""

    JOIN = 1
    """To the owner: a lane, as `Joining` has it."""
    CARRIED = 2
    """To the owner: payload that came from the client."""
    RECEIVED = 3
    """To the owner: other records that came from the client."""
    CLOSED = 4
    """To the owner: the association has ended; the one record is the reason."""
    SEND = 5
    """To the holder: payload for the client."""
    SAY = 6
    """To the holder: other records for the client."""
    END = 7
    """To the holder: the association shall end."""
    REFUSED = 8
    """To the owner: datagrams are too large for the path, as `Refused` has it."""


PAYLOAD: Final = frozenset({Kind.CARRIED, Kind.SEND})

_RECORDS: Final = {Kind.JOIN: 4, Kind.REFUSED: 1}


class LaneMessageError(Exception):
    """A message that no other process of this version has sent."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message without its payload, which is in the batch that it was read into."""

    kind: Kind
    lane: int
    records: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Joining:
    """What an owner has to know of a lane: what `SessionLane` takes, and the client's hello."""

    exporter: bytes
    address: SocketAddress
    overhead: int
    hello: bytes

    def records(self) -> tuple[bytes, ...]:
        """Return the records of the message."""
        address = json.dumps(self.address).encode()
        return self.exporter, address, str(self.overhead).encode(), self.hello

    @classmethod
    def of(cls, message: Message) -> "Joining":
        """Read a message that JOINs."""
        exporter, address, overhead, hello = message.records
        return cls(exporter, tuple(json.loads(address)), int(overhead), hello)


@dataclass(frozen=True, slots=True)
class Refused:
    """How many datagrams were too large, the largest of `size` bytes; 0 where it was a probe."""

    count: int
    size: int

    def record(self) -> bytes:
        """Return the record of the message."""
        return _TWO.pack(self.count, self.size)

    @classmethod
    def of(cls, message: Message) -> "Refused":
        """Read a message that tells of REFUSED datagrams."""
        return cls(*_TWO.unpack(message.records[0]))


def encode(kind: Kind, lane: int, *records: bytes) -> bytes:
    """Return a message of records; raises `ValueError` where they are too many or too long."""
    size = sum(map(len, records))
    if len(records) > MAX_COUNT or size > MAX_BYTES:
        raise ValueError("more records than a message holds")
    sizes = struct.pack(f"={len(records)}H", *map(len, records))
    return b"".join((HEADER.pack(kind, len(records), lane, size), *records, sizes))


def encode_payload(
    kind: Kind, lane: int, batch: Batch, start: int, stop: int
) -> Iterator[tuple[int, list[bytes | memoryview]]]:
    """Yield messages with packets `start` to `stop - 1`, each as the pieces it is made of.

    Before each stands how many packets it has.
    """
    view, starts = batch.view, batch.starts
    while start < stop:
        end, total = _fitting(batch.sizes, start, stop)
        sizes = batch.sizes[start:end]
        count = end - start
        first, last = starts[start], starts[end - 1] + sizes[-1]
        packets: Iterable[memoryview]
        if last - first == total:
            packets = (view[first:last],)
        else:
            packets = [
                view[at : at + size] for at, size in zip(starts[start:end], sizes, strict=True)
            ]
        tail = struct.pack(f"={count}H{count}I", *sizes, *batch.flows[start:end])
        yield count, [HEADER.pack(kind, count, lane, total), *packets, tail]
        start = end


def decode(batch: Batch, size: int) -> Message:
    """Read the message of `size` bytes at the beginning of the buffer of `batch`.

    Payload stays where it is and becomes the content of `batch`. Raises `LaneMessageError`.
    """
    batch.clear()
    if not HEADER.size <= size <= MAX_MESSAGE:
        raise LaneMessageError("the length is wrong")
    number, count, lane, total = HEADER.unpack_from(batch.buffer)
    try:
        kind = Kind(number)
    except ValueError:
        raise LaneMessageError("the kind is unknown") from None
    tail = HEADER.size + total
    has_payload = kind in PAYLOAD
    if count > min(MAX_COUNT, batch.capacity) or size != tail + (6 if has_payload else 2) * count:
        raise LaneMessageError("the counts are wrong")
    sizes = struct.unpack_from(f"={count}H", batch.buffer, tail)
    starts = list(accumulate(sizes, initial=HEADER.size))
    if starts.pop() != tail:
        raise LaneMessageError("the sizes are wrong")
    if count != _RECORDS.get(kind, count):
        raise LaneMessageError("there are more or fewer records than belong there")
    if not has_payload:
        view = batch.view
        records = (bytes(view[at : at + n]) for at, n in zip(starts, sizes, strict=True))
        return Message(kind, lane, tuple(records))
    batch.starts[:count] = starts
    batch.sizes[:count] = sizes
    batch.flows[:count] = struct.unpack_from(f"={count}I", batch.buffer, tail + 2 * count)
    batch.count = count
    batch.end = tail
    return Message(kind, lane)


def following(lane: int) -> int:
    """Return the number after `lane`; numbers come round after 2**32 lanes."""
    return 1 if lane == _MAX_LANE else lane + 1


def _fitting(sizes: list[int], start: int, stop: int) -> tuple[int, int]:
    """Return how far the packets from `start` on fit one message, and their bytes."""
    stop = min(stop, start + MAX_COUNT)
    total = sum(sizes[start:stop])
    while total > MAX_BYTES and stop > start + 1:
        stop -= 1
        total -= sizes[stop]
    return stop, total
