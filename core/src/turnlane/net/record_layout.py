"""How one DTLS record stands in a message, and one datagram in a record."""

import struct
from enum import Enum, auto

from turnlane.proto.channel_data import HEADER_SIZE as CHANNEL_HEADER_SIZE
from turnlane.proto.dtls_records import RECORD_HEADER_SIZE, ContentType
from turnlane.proto.frames import HEADER_SIZE as FRAME_SIZE

_APPLICATION_DATA = int(ContentType.APPLICATION_DATA)
_CHANNEL = struct.Struct(">HH")
_IN_CHANNEL = struct.Struct(">HHB10xH")
_BARE = struct.Struct(">B10xH")


class RecordError(Exception):
    """OpenSSL would not seal a payload: the association is not established (any more)."""


class Stopped(Enum):
    """Why the opening of a batch of messages came to a halt."""

    DONE = auto()
    """All messages are opened."""

    FULL = auto()
    """The batch of payloads has no room for another."""

    FOREIGN = auto()
    """The next message is not one record with payload; it was not touched."""

    VOID = auto()
    """The message before the next gave no payload: replayed, forged, or the association ended."""

    CONTROL = auto()
    """The message before the next held something else than a datagram."""


class RecordLayout:
    """What stands around the payload of a datagram in a message of a lane.

    `channel` is the TURN channel whose ChannelData header goes before each record, None for bare
    records; `padded` fills messages to multiples of four bytes, as streams need it. `framed` is
    for the session protocol, which puts the flow before each payload; raw records hold nothing but
    the payload. `most` bounds a record's plaintext, in bytes.
    """

    def __init__(self, *, channel: int | None, padded: bool, framed: bool, most: int) -> None:
        self.channel = channel
        self.padded = padded
        self.framed = framed
        self.most = most
        self.prefix_size = 0 if channel is None else CHANNEL_HEADER_SIZE
        self.frame_size = FRAME_SIZE if framed else 0
        self.least = self.prefix_size + RECORD_HEADER_SIZE
        self.unpack = (_BARE if channel is None else _IN_CHANNEL).unpack_from
        """Reads what `expected` predicts from a message in a buffer."""

    def prefix(self, size: int) -> bytes:
        """Return what goes before a record of `size` bytes."""
        return b"" if self.channel is None else _CHANNEL.pack(self.channel, size)

    def expected(self, size: int) -> tuple[int, ...]:
        """Return what `unpack` gives for a message of `size` bytes that is one payload record."""
        if self.channel is None:
            return _APPLICATION_DATA, size - RECORD_HEADER_SIZE
        record = size - CHANNEL_HEADER_SIZE
        return self.channel, record, _APPLICATION_DATA, record - RECORD_HEADER_SIZE
