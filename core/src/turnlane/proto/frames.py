"""Frames of the session protocol: what travels in a lane once its hello is answered.

One frame is one DTLS application record; its first byte says its kind, integers are big-endian.
The data path writes and reads the four bytes of a datagram's header in place
(`write_datagram_header`, `datagram_flow`); everything else goes through `parse_untrusted`.
The bytes are fixed by docs/adr/0002-session-protocol.md.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

Record = bytes | bytearray | memoryview
"""The plaintext of one DTLS application record."""

HEADER_SIZE: Final = 4
"""Bytes before the payload of a datagram frame; a batch's headroom has room for them."""

MAX_FLOW: Final = 0xFF_FFFF
"""The highest number a flow can have."""

COUNTER_MASK: Final = 0xFFFF_FFFF
"""Sequence numbers and frame counters on the wire count modulo 2**32."""


class SessionProtocolError(Exception):
    """The peer sent what no speaker of this protocol sends. The text never quotes its bytes."""


class FrameKind(IntEnum):
    """The first byte of a frame. 0x74 is never one: a handshake message begins with it."""

    DATAGRAM = 0x10
    STREAM = 0x20
    CONTROL = 0x30


class ControlType(IntEnum):
    """The second byte of a control frame."""

    PING = 1
    PONG = 2
    DRAIN = 3
    BYE = 4
    PROBE = 5
    PROBE_ANSWER = 6


class ByeCode(IntEnum):
    """Why a peer leaves. The name in lower case is what logs and spans say."""

    LANE_CLOSED = 1
    """This lane only; its session goes on over the others."""
    SESSION_CLOSED = 2
    """The session is over: what belongs to it can be released at once."""
    SHUTDOWN = 3
    """The process ends."""
    LANE_REPLACED = 4
    """A newer association has taken this lane's index."""
    IDLE = 5
    """Nothing was carried for too long."""
    LANE_DEAD = 6
    """The sender has not heard its peer for too long; this may still reach it."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram of a flow. The data path does not make these."""

    flow: int
    payload: memoryview

    def encode(self) -> bytes:
        """Return the record; raises `ValueError` for a flow out of range."""
        record = bytearray(HEADER_SIZE + len(self.payload))
        write_datagram_header(record, 0, self.flow)
        record[HEADER_SIZE:] = self.payload
        return bytes(record)


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a pong. `frames_sent` counts the payload frames the sender sent before it."""

    sequence: int
    frames_sent: int

    def encode(self) -> bytes:
        """Return the record."""
        return _control(ControlType.PING, _TWO_COUNTERS.pack(self.sequence, self.frames_sent))


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers the ping of that sequence number.

    `frames_received` counts the payload frames the answerer had received when the ping arrived;
    `arrived` is when that was, in microseconds of the answerer's own clock, or None: it tells not.
    """

    sequence: int
    frames_received: int
    arrived: int | None = None

    def encode(self) -> bytes:
        """Return the record."""
        body = _TWO_COUNTERS.pack(self.sequence, self.frames_received)
        if self.arrived is not None:
            body += _MICROSECONDS.pack(self.arrived)
        return _control(ControlType.PONG, body)


@dataclass(frozen=True, slots=True)
class Drain:
    """The server ends in `deadline_ms` milliseconds from now; the client leaves before that."""

    deadline_ms: int

    def encode(self) -> bytes:
        """Return the record."""
        return _control(ControlType.DRAIN, _MILLISECONDS.pack(self.deadline_ms))


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender leaves this lane; `code` is a `ByeCode` or a number this version cannot name."""

    code: int

    def encode(self) -> bytes:
        """Return the record."""
        return _control(ControlType.BYE, _CODE.pack(self.code))


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks whether a record of `size` bytes arrives; filled up with zeros.

    Sizes of datagrams that its sender tells by it: `bound` is the largest that leaves its host
    whole, `max_datagram` the largest that it sends as things stand; `searching` says that it is
    still looking for the largest that arrives.
    """

    sequence: int
    bound: int
    max_datagram: int
    searching: bool
    size: int

    def encode(self) -> bytes:
        """Return the record; raises `ValueError` for a size that it does not fit."""
        fields = _PROBE.pack(self.sequence, self.bound, self.max_datagram, self.searching)
        padding = self.size - MIN_PROBE
        if padding < 0:
            raise ValueError(f"a probe has {MIN_PROBE} bytes at least")
        return _control(ControlType.PROBE, fields + bytes(padding))


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """Says that the probe of that sequence number has arrived, a record of `size` bytes."""

    sequence: int
    size: int

    def encode(self) -> bytes:
        """Return the record."""
        return _control(ControlType.PROBE_ANSWER, _PROBE_ANSWER.pack(self.sequence, self.size))


@dataclass(frozen=True, slots=True)
class UnknownFrame:
    """A kind, or a type of control frame, that this version does not know: ignored and counted."""

    kind: int
    control_type: int | None = None


Frame = Datagram | Ping | Pong | Drain | Bye | Probe | ProbeAnswer | UnknownFrame

_HEADER = struct.Struct(">I")
header_word = _HEADER.unpack_from
"""Reads the first four bytes of a record for `header_flow`, in a tuple of one number."""

_CONTROL_HEADER = struct.Struct(">BBH")
_TWO_COUNTERS = struct.Struct(">II")
_MICROSECONDS = struct.Struct(">Q")
_MILLISECONDS = struct.Struct(">I")
_CODE = struct.Struct(">H")
_PROBE = struct.Struct(">IHHB")
_PROBE_ANSWER = struct.Struct(">IH")

MIN_PROBE: Final = _CONTROL_HEADER.size + _PROBE.size
"""Bytes of the smallest probe."""

_DATAGRAM_WORD = FrameKind.DATAGRAM << 24


def write_datagram_header(buffer: bytearray | memoryview, offset: int, flow: int) -> None:
    """Write a datagram frame's header to `buffer[offset : offset + 4]`, right before its payload.

    Raises `ValueError` for a flow above `MAX_FLOW` (its bits would change the kind) or below 0.
    """
    if flow >> 24:
        raise ValueError("a flow has 24 bits")
    _HEADER.pack_into(buffer, offset, _DATAGRAM_WORD | flow)


def datagram_header(flow: int) -> bytes:
    """Return a datagram frame's header; raises `ValueError` as `write_datagram_header` does."""
    if flow >> 24:
        raise ValueError("a flow has 24 bits")
    return _HEADER.pack(_DATAGRAM_WORD | flow)


def header_flow(word: int) -> int:
    """Return the flow that a record's first four bytes name, as one number, or -1: no datagram."""
    return word & MAX_FLOW if word >> 24 == FrameKind.DATAGRAM else -1


def datagram_flow(buffer: Record, offset: int = 0, size: int | None = None) -> int:
    """Return the flow of the record `buffer[offset : offset + size]`, or -1: not a datagram.

    The one parser of network input that makes no object and raises nothing. The payload begins
    `HEADER_SIZE` bytes after `offset` and may be empty.
    """
    if (len(buffer) - offset if size is None else size) < HEADER_SIZE:
        return -1
    return header_flow(_HEADER.unpack_from(buffer, offset)[0])


def parse_untrusted(record: Record) -> Frame:
    """Parse one frame.

    A control frame may be longer than this version knows: the rest is ignored, so that fields can
    be appended. Raises `SessionProtocolError` for a record that is empty, too short for its kind,
    or whose length field does not match.
    """
    view = memoryview(record)
    if len(view) == 0:
        raise SessionProtocolError("an empty record")
    kind = view[0]
    if kind == FrameKind.DATAGRAM:
        if len(view) < HEADER_SIZE:
            raise SessionProtocolError("a datagram frame without a whole header")
        return Datagram(int.from_bytes(view[1:HEADER_SIZE]), view[HEADER_SIZE:])
    if kind == FrameKind.CONTROL:
        return _parse_control_untrusted(view)
    return UnknownFrame(kind)


def _parse_control_untrusted(view: memoryview) -> Frame:
    if len(view) < _CONTROL_HEADER.size:
        raise SessionProtocolError("a control frame without a whole header")
    kind, control_type, length = _CONTROL_HEADER.unpack_from(view)
    body = view[_CONTROL_HEADER.size :]
    if length != len(body):
        raise SessionProtocolError("a control frame of another length than it says")
    try:
        match control_type:
            case ControlType.PING:
                return Ping(*_TWO_COUNTERS.unpack_from(body))
            case ControlType.PONG:
                return _parse_pong_untrusted(body)
            case ControlType.DRAIN:
                return Drain(*_MILLISECONDS.unpack_from(body))
            case ControlType.BYE:
                return Bye(*_CODE.unpack_from(body))
            case ControlType.PROBE:
                sequence, bound, max_datagram, flags = _PROBE.unpack_from(body)
                return Probe(sequence, bound, max_datagram, bool(flags & 1), len(view))
            case ControlType.PROBE_ANSWER:
                return ProbeAnswer(*_PROBE_ANSWER.unpack_from(body))
    except struct.error:
        raise SessionProtocolError("a control frame that is too short for its type") from None
    return UnknownFrame(kind, control_type)


def _parse_pong_untrusted(body: memoryview) -> Pong:
    sequence, frames_received = _TWO_COUNTERS.unpack_from(body)
    rest = body[_TWO_COUNTERS.size :]
    if len(rest) < _MICROSECONDS.size:
        return Pong(sequence, frames_received)
    return Pong(sequence, frames_received, *_MICROSECONDS.unpack_from(rest))


def _control(control_type: ControlType, body: bytes) -> bytes:
    return _CONTROL_HEADER.pack(FrameKind.CONTROL, control_type, len(body)) + body
