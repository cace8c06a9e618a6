"""DTLS 1.2 on the wire, as far as it is readable without keys (RFC 6347).

Records, the ClientHello that a listener must understand before it keeps anything about a peer, the
HelloVerifyRequest it answers with, and plaintext alerts. The cryptography is OpenSSL's.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

RECORD_HEADER_SIZE = 13
"""Type, version, epoch, sequence number, length (RFC 6347, section 4.1)."""

MAX_RECORD_BODY = 2**14 + 2048
"""What a record may carry at most (RFC 5246, section 6.2.3)."""

MAX_SEQUENCE = 2**48 - 1

HANDSHAKE_HEADER_SIZE = 12
"""Type, length, message number, fragment offset, fragment length (RFC 6347, section 4.2.2)."""

MAX_COOKIE = 255
"""RFC 6347, section 4.2.1."""

_DTLS_1_0 = b"\xfe\xff"
_DTLS_1_2 = b"\xfe\xfd"
_RECORD_HEADER = struct.Struct("!B2sHHIH")
_HANDSHAKE_HEADER = struct.Struct("!BBHHBHBH")


class DtlsRecordError(Exception):
    """The bytes are not what DTLS 1.2 would send here."""


class ContentType(IntEnum):
    """What a record carries (RFC 5246, section 6.2.1)."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(IntEnum):
    """The handshake messages that are looked at here (RFC 6347, section 4.3.2)."""

    CLIENT_HELLO = 1
    HELLO_VERIFY_REQUEST = 3


class AlertDescription(IntEnum):
    """Why a peer gave up (RFC 5246, section 7.2, RFC 8446, section 6)."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    DECOMPRESSION_FAILURE = 30
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


def alert_name(description: int) -> str:
    """Return the RFC's name of an alert in lower case, `alert_<number>` for an unknown one."""
    try:
        return AlertDescription(description).name.lower()
    except ValueError:
        return f"alert_{description}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a datagram; `data` is the whole of it, header included."""

    content_type: int
    epoch: int
    sequence: int
    data: bytes

    @property
    def body(self) -> bytes:
        """What follows the header: plaintext in epoch 0, ciphertext later."""
        return self.data[RECORD_HEADER_SIZE:]


@dataclass(frozen=True, slots=True)
class HandshakeFragment:
    """The header and bytes of one handshake message or of a piece of it."""

    message_type: int
    message_length: int
    message_sequence: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ClientHello:
    """An unfragmented ClientHello.

    `sequence` is the number of its record. `bits` are the fields that a client repeats unchanged
    when it brings the cookie back: version, random, session id, cipher suites, compression methods
    (RFC 6347, section 4.2.1). Extensions are not among them.
    """

    sequence: int
    message_sequence: int
    cookie: bytes
    bits: bytes
    record: bytes


def records_untrusted(datagram: bytes) -> Iterator[Record]:
    """Split a datagram into its records.

    Raises `DtlsRecordError` where a header is malformed, after giving the records before it: what
    follows a malformed header cannot be found.
    """
    position = 0
    end = len(datagram)
    while position < end:
        body = position + RECORD_HEADER_SIZE
        if body > end:
            raise DtlsRecordError("a record header is cut short")
        content_type, version, epoch, high, low, length = _RECORD_HEADER.unpack_from(
            datagram, position
        )
        if not ContentType.CHANGE_CIPHER_SPEC <= content_type <= ContentType.APPLICATION_DATA:
            raise DtlsRecordError("a record of an unknown type")
        if version[0] != _DTLS_1_2[0]:
            raise DtlsRecordError("a record of another protocol")
        if length > MAX_RECORD_BODY:
            raise DtlsRecordError("a record that is too long")
        if body + length > end:
            raise DtlsRecordError("a record is cut short")
        data = bytes(datagram[position : body + length])
        yield Record(content_type, epoch, high << 32 | low, data)
        position = body + length


def handshake_fragments_untrusted(body: bytes) -> Iterator[HandshakeFragment]:
    """Split the body of a plaintext handshake record; raises `DtlsRecordError` if malformed."""
    position = 0
    while position < len(body):
        start = position + HANDSHAKE_HEADER_SIZE
        if start > len(body):
            raise DtlsRecordError("a handshake header is cut short")
        (kind, length_high, length_low, number, offset_high, offset_low, size_high, size_low) = (
            _HANDSHAKE_HEADER.unpack_from(body, position)
        )
        length = length_high << 16 | length_low
        offset = offset_high << 16 | offset_low
        size = size_high << 16 | size_low
        if offset + size > length:
            raise DtlsRecordError("a fragment reaches beyond its message")
        if start + size > len(body):
            raise DtlsRecordError("a fragment is cut short")
        yield HandshakeFragment(kind, length, number, offset, bytes(body[start : start + size]))
        position = start + size


def is_client_hello_untrusted(record: Record) -> bool:
    """Say whether a record looks like the start of a new association. Never raises."""
    return (
        record.content_type == ContentType.HANDSHAKE
        and record.epoch == 0
        and record.data[RECORD_HEADER_SIZE : RECORD_HEADER_SIZE + 1]
        == bytes([HandshakeType.CLIENT_HELLO])
    )


def client_hello_untrusted(record: Record) -> ClientHello:
    """Parse a record that holds exactly one whole ClientHello (RFC 6347, section 4.2.1).

    Raises `DtlsRecordError` for everything else, a fragmented ClientHello included: to put
    fragments together would need state before the cookie.
    """
    if not is_client_hello_untrusted(record):
        raise DtlsRecordError("not a ClientHello")
    fragments = list(handshake_fragments_untrusted(record.body))
    if len(fragments) != 1:
        raise DtlsRecordError("more than a ClientHello in its record")
    (fragment,) = fragments
    message = fragment.data
    if fragment.offset != 0 or len(message) != fragment.message_length:
        raise DtlsRecordError("a fragmented ClientHello")
    fields = _Fields(message)
    fields.skip(2 + 32)  # version, random
    fields.skip_vector(1, 0, 32)  # session id
    before_cookie = message[: fields.position]
    cookie = fields.skip_vector(1, 0, MAX_COOKIE)
    after_cookie = fields.position
    fields.skip_vector(2, 2, 2**16 - 2)  # cipher suites
    fields.skip_vector(1, 1, 255)  # compression methods
    bits = before_cookie + message[after_cookie : fields.position]
    if fields.position < len(message):
        fields.skip_vector(2, 0, 2**16 - 1)  # extensions
        if fields.position != len(message):
            raise DtlsRecordError("bytes after the ClientHello")
    return ClientHello(record.sequence, fragment.message_sequence, cookie, bits, record.data)


class _Fields:
    """A cursor over the fields of a message that checks every length."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def skip(self, size: int) -> bytes:
        start = self.position
        if start + size > len(self._data):
            raise DtlsRecordError("a ClientHello is cut short")
        self.position = start + size
        return self._data[start : start + size]

    def skip_vector(self, prefix: int, minimum: int, maximum: int) -> bytes:
        size = int.from_bytes(self.skip(prefix), "big")
        if not minimum <= size <= maximum:
            raise DtlsRecordError("a ClientHello with a field of a wrong size")
        return self.skip(size)


def encode_record(
    content_type: int, epoch: int, sequence: int, body: bytes, *, version: bytes = _DTLS_1_2
) -> bytes:
    """Put a record header before `body`."""
    header = _RECORD_HEADER.pack(
        content_type, version, epoch, sequence >> 32, sequence & 0xFFFFFFFF, len(body)
    )
    return header + body


def encode_hello_verify_request(sequence: int, cookie: bytes) -> bytes:
    """Build the datagram that asks a client to bring `cookie` back (RFC 6347, section 4.2.1).

    `sequence` is that of the ClientHello's record, so that answering takes no state. Both versions
    are DTLS 1.0's, as the RFC wants it for this message alone.
    """
    body = _DTLS_1_0 + bytes([len(cookie)]) + cookie
    header = _HANDSHAKE_HEADER.pack(
        HandshakeType.HELLO_VERIFY_REQUEST, 0, len(body), 0, 0, 0, 0, len(body)
    )
    return encode_record(ContentType.HANDSHAKE, 0, sequence, header + body, version=_DTLS_1_0)


def encode_fatal_alert(sequence: int, description: AlertDescription) -> bytes:
    """Build a plaintext fatal alert (RFC 5246, section 7.2), heeded only during a handshake."""
    return encode_record(ContentType.ALERT, 0, sequence, bytes([2, description]))
