"""ChannelData messages, and how they share a byte stream with STUN (RFC 8656, section 12)."""

import struct

from turnlane.proto.stun import HEADER_SIZE as STUN_HEADER_SIZE
from turnlane.proto.stun import MAGIC_COOKIE

HEADER_SIZE = 4
MIN_CHANNEL = 0x4000
MAX_CHANNEL = 0x4FFF
MAX_PAYLOAD = 0xFFFF

_HEADER = struct.Struct("!HH")
_STUN_PREFIX = struct.Struct("!HHI")


class ChannelDataError(Exception):
    """A datagram is not a ChannelData message."""


class FramingError(Exception):
    """A stream holds something that is neither STUN nor ChannelData; it cannot be followed."""


def encode(channel: int, payload: bytes | bytearray | memoryview, *, padded: bool) -> bytes:
    """Return `payload` as a ChannelData message.

    `padded` fills it up to a multiple of four bytes, as streams need it (RFC 8656, section 12.5).
    Raises `ValueError` for a number that is no channel's and for more than 65,535 bytes.
    """
    size = len(payload)
    if not MIN_CHANNEL <= channel <= MAX_CHANNEL or size > MAX_PAYLOAD:
        raise ValueError(f"not for one ChannelData message: channel {channel:#x}, {size} bytes")
    message = _HEADER.pack(channel, size) + payload
    if padded and size % 4:
        message += bytes(-size % 4)
    return message


def decode_untrusted(datagram: bytes | bytearray | memoryview) -> tuple[int, memoryview]:
    """Return channel number and payload, a view of `datagram`; raises `ChannelDataError`.

    Bytes after the payload are padding and are ignored (RFC 8656, section 12.6).
    """
    if len(datagram) < HEADER_SIZE:
        raise ChannelDataError("shorter than a ChannelData header")
    channel, size = _HEADER.unpack_from(datagram)
    if not MIN_CHANNEL <= channel <= MAX_CHANNEL:
        raise ChannelDataError(f"{channel:#06x} is not a channel number")
    if HEADER_SIZE + size > len(datagram):
        raise ChannelDataError("the payload is cut short")
    return channel, memoryview(datagram)[HEADER_SIZE : HEADER_SIZE + size]


def messages_untrusted(
    buffer: bytes | bytearray | memoryview, begin: int, end: int, limit: int
) -> tuple[list[int], list[int], int]:
    """Cut `buffer[begin:end]`, a piece of a byte stream that begins with a message, in messages.

    Returns where at most `limit` of them begin and how long they are without padding, and where
    what follows begins: an incomplete one, unless there are more. Raises `FramingError` when
    something else stands where a message must begin.
    """
    starts: list[int] = []
    sizes: list[int] = []
    unpack = _HEADER.unpack_from
    while end - begin >= HEADER_SIZE and len(starts) < limit:
        first, length = unpack(buffer, begin)
        if MIN_CHANNEL <= first <= MAX_CHANNEL:
            size = HEADER_SIZE + length
            following = begin + size + -length % 4
        else:
            size, whole = _extent(buffer, begin, end)
            following = begin + whole
        if following > end:
            break
        starts.append(begin)
        sizes.append(size)
        begin = following
    return starts, sizes, begin


class StreamFramer:
    """Cuts a byte stream into STUN and ChannelData messages.

    It holds back at most one incomplete message, which its 16-bit length bounds (65,555 bytes).
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        # How many bytes must be there before looking at them again can tell anything new; it keeps
        # a stream that comes in single bytes from costing a copy for each of them.
        self._needed = HEADER_SIZE
        self._broken: str | None = None

    def receive_untrusted(self, data: bytes | bytearray | memoryview) -> list[memoryview]:
        """Take the next bytes of the stream; return the messages they complete, without padding.

        Raises `FramingError` when something else stands where a message must begin, and from then
        on at every call.
        """
        if self._broken is not None:
            raise FramingError(self._broken)
        self._buffer += data
        if len(self._buffer) < self._needed:
            return []
        # One copy that nobody changes any more: the messages are views of it.
        received = bytes(self._buffer)
        whole = memoryview(received)
        messages = []
        position = 0
        while True:
            try:
                size, self._needed = _extent(received, position, len(received))
            except FramingError as error:
                self._broken = str(error)
                self._buffer.clear()
                raise
            if len(received) - position < self._needed:
                break
            messages.append(whole[position : position + size])
            position += self._needed
        self._buffer = bytearray(received[position:])
        return messages


def _extent(data: bytes | bytearray | memoryview, position: int, end: int) -> tuple[int, int]:
    """Return the size of the message at `position`, without and with its padding.

    While its header is incomplete, this is how much must be there to know more.
    """
    available = end - position
    if available < HEADER_SIZE:
        return HEADER_SIZE, HEADER_SIZE
    first, length = _HEADER.unpack_from(data, position)
    if MIN_CHANNEL <= first <= MAX_CHANNEL:
        return HEADER_SIZE + length, HEADER_SIZE + length + -length % 4
    if first & 0xC000 or length % 4:
        raise FramingError(f"neither STUN nor ChannelData: {first:#06x}, length {length}")
    if available < _STUN_PREFIX.size:
        return _STUN_PREFIX.size, _STUN_PREFIX.size
    if _STUN_PREFIX.unpack_from(data, position)[2] != MAGIC_COOKIE:
        raise FramingError("a STUN message without its magic cookie")
    return STUN_HEADER_SIZE + length, STUN_HEADER_SIZE + length
