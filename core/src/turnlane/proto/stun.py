"""The STUN message format (RFC 8489) with TURN's attributes (RFC 8656), for untrusted input.

The values of attributes, their XOR, MESSAGE-INTEGRITY and FINGERPRINT come from aioice's codec;
this is the one module that imports it. What aioice leaves unchecked or does not know is done here:
the header, the walk over the attributes, their bounds, duplicates, several peer addresses.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from aioice import stun as codec

Address = tuple[str, int]
"""Host (an address literal) and port."""

MAGIC_COOKIE: int = codec.COOKIE
HEADER_SIZE: int = codec.HEADER_LENGTH
TRANSACTION_ID_SIZE = 12

MAX_ATTRIBUTES = 64
"""More attributes than this in one message are an attack on the parser, not a message."""

MAX_TEXT = 763
"""No text attribute has more bytes than this (RFC 8489, sections 14.8 to 14.10 and 14.14)."""

MAX_REASON = 127
"""A reason phrase has fewer than 128 characters (RFC 8489, section 14.8)."""

REASONS = {
    300: "Try Alternate",
    400: "Bad Request",
    401: "Unauthenticated",
    403: "Forbidden",
    420: "Unknown Attribute",
    437: "Allocation Mismatch",
    438: "Stale Nonce",
    440: "Address Family not Supported",
    441: "Wrong Credentials",
    442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch",
    486: "Allocation Quota Reached",
    500: "Server Error",
    508: "Insufficient Capacity",
}
"""What the error codes mean (RFC 8489, section 14.8; RFC 8656, section 19)."""

_COMPREHENSION_OPTIONAL = 0x8000
_FAMILIES = (1, 2)
_INTEGRITY_SIZE = 20


class StunError(Exception):
    """What was received is not a STUN message of this profile."""


class Method(IntEnum):
    """The methods of STUN and of TURN over datagrams (RFC 8489, 18.2; RFC 8656, 17)."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


class MessageClass(IntEnum):
    """The class of a message, as its two bits stand in the type field (RFC 8489, section 5)."""

    REQUEST = 0x000
    INDICATION = 0x010
    RESPONSE = 0x100
    ERROR = 0x110


@dataclass(frozen=True, slots=True, repr=False)
class StunMessage:
    """A parsed message. Attributes have the names of their RFCs.

    `attributes` holds the first of each kind that is known and well formed; `malformed` names the
    known ones whose value makes no sense, `unknown_required` lists the types that the receiver
    would have to understand and does not (RFC 8489, section 6.3). `peer_addresses` are all of
    XOR-PEER-ADDRESS, of which a CreatePermission request may have several.
    """

    method: Method
    message_class: MessageClass
    transaction_id: bytes
    attributes: dict[str, Any]
    peer_addresses: tuple[Address, ...] = ()
    unknown_required: tuple[int, ...] = ()
    malformed: tuple[str, ...] = ()
    signed: bytes | None = None
    """The bytes that MESSAGE-INTEGRITY covers, or None without one."""

    @property
    def error(self) -> tuple[int, str] | None:
        """Code (300 to 699) and printable reason phrase of an error response, or None."""
        error: tuple[int, str] | None = self.attributes.get("ERROR-CODE")
        return error

    def verify(self, key: bytes) -> bool:
        """Say whether MESSAGE-INTEGRITY is there and made with `key` (RFC 8489, section 14.5)."""
        if self.signed is None:
            return False
        claimed: bytes = self.attributes["MESSAGE-INTEGRITY"]
        return hmac.compare_digest(claimed, codec.message_integrity(self.signed, key))

    def __repr__(self) -> str:
        # Names only: values hold usernames, nonces and payload.
        return (
            f"<StunMessage {self.method.name} {self.message_class.name} "
            f"{self.transaction_id.hex()} {sorted(self.attributes)}>"
        )


def parse_untrusted(data: bytes | bytearray | memoryview) -> StunMessage:
    """Parse one whole message; raises `StunError` and nothing else.

    Checked are the two top bits, the magic cookie, the length (a multiple of four that covers the
    data exactly), that the attributes fill it exactly, their number, FINGERPRINT where there is
    one, and that nothing follows it. MESSAGE-INTEGRITY is checked by `StunMessage.verify`; what
    follows it, FINGERPRINT excepted, was not signed and is ignored (RFC 8489, section 14.5).
    """
    data = bytes(data)
    if len(data) < HEADER_SIZE:
        raise StunError("shorter than a STUN header")
    message_type, length, cookie = struct.unpack_from("!HHI", data)
    if message_type & 0xC000:
        raise StunError("the two top bits are not zero")
    if cookie != MAGIC_COOKIE:
        raise StunError("no magic cookie")
    if length % 4 or HEADER_SIZE + length != len(data):
        raise StunError("the length field does not match the data")
    try:
        method = Method(message_type & ~MessageClass.ERROR)
    except ValueError:
        raise StunError(f"unknown method in message type {message_type:#06x}") from None
    message_class = MessageClass(message_type & MessageClass.ERROR)
    transaction_id = data[8:HEADER_SIZE]

    attributes: dict[str, Any] = {}
    peer_addresses: list[Address] = []
    unknown_required: list[int] = []
    malformed: list[str] = []
    signed: bytes | None = None
    position = HEADER_SIZE
    count = 0
    while position < len(data):
        count += 1
        if count > MAX_ATTRIBUTES:
            raise StunError("too many attributes")
        if "FINGERPRINT" in attributes:
            raise StunError("an attribute follows FINGERPRINT")
        # The length is a multiple of four, and so is every position: four bytes are left here.
        attribute_type, size = struct.unpack_from("!HH", data, position)
        end = position + 4 + size
        if end > len(data):
            raise StunError("an attribute runs past the end")
        value = data[position + 4 : end]
        attribute = _BY_TYPE.get(attribute_type)
        name = attribute.name if attribute else ""
        if name == "FINGERPRINT":
            if size != 4 or int.from_bytes(value) != codec.message_fingerprint(data[:position]):
                raise StunError("FINGERPRINT does not match")
            attributes[name] = int.from_bytes(value)
        elif signed is not None:
            pass
        elif name == "MESSAGE-INTEGRITY":
            if size != _INTEGRITY_SIZE:
                raise StunError("MESSAGE-INTEGRITY is not 20 bytes")
            attributes[name] = value
            signed = data[:position]
        elif attribute is None:
            if attribute_type < _COMPREHENSION_OPTIONAL:
                unknown_required.append(attribute_type)
        elif name == "XOR-PEER-ADDRESS" or (name not in attributes and name not in malformed):
            try:
                decoded = attribute.unpack(value, transaction_id)
            except (ValueError, struct.error):
                malformed.append(name)
            else:
                attributes.setdefault(name, decoded)
                if name == "XOR-PEER-ADDRESS":
                    peer_addresses.append(decoded)
        position = end + -size % 4
    return StunMessage(
        method,
        message_class,
        transaction_id,
        attributes,
        tuple(peer_addresses),
        tuple(unknown_required),
        tuple(malformed),
        signed,
    )


def build(
    method: Method,
    message_class: MessageClass,
    transaction_id: bytes,
    attributes: Mapping[str, Any],
    *,
    key: bytes | None = None,
    fingerprint: bool = False,
) -> bytes:
    """Encode a message, its attributes in the order given.

    A list as the value of XOR-PEER-ADDRESS gives one attribute for each of its addresses. `key`
    adds MESSAGE-INTEGRITY, `fingerprint` FINGERPRINT. Raises `ValueError` for an unknown name, a
    value that does not fit its attribute, or a message that would not fit its length field.
    """
    if len(transaction_id) != TRANSACTION_ID_SIZE:
        raise ValueError("a transaction id has 12 bytes")
    parts = [b""]
    for name, given in attributes.items():
        attribute = _BY_NAME.get(name)
        if attribute is None or name in ("MESSAGE-INTEGRITY", "FINGERPRINT"):
            raise ValueError(f"not an attribute to build: {name}")
        for value in given if name == "XOR-PEER-ADDRESS" and isinstance(given, list) else [given]:
            try:
                packed = attribute.pack(value, transaction_id)
            except (struct.error, TypeError, AttributeError) as error:
                raise ValueError(f"{name} cannot have this value") from error
            parts.append(_encode_attribute(attribute.type, packed))
    parts[0] = struct.pack("!HHI", method | message_class, 0, MAGIC_COOKIE) + transaction_id
    message = b"".join(parts)
    # Both sums are made over a header that already counts the attribute that will hold them.
    if key is not None:
        _fitting(message, codec.INTEGRITY_LENGTH)
        message += _encode_attribute(
            _BY_NAME["MESSAGE-INTEGRITY"].type, codec.message_integrity(message, key)
        )
    if fingerprint:
        _fitting(message, codec.FINGERPRINT_LENGTH)
        checksum = struct.pack("!I", codec.message_fingerprint(message))
        message += _encode_attribute(_BY_NAME["FINGERPRINT"].type, checksum)
    return codec.set_body_length(message, _fitting(message, 0))


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """Return the key of long-term credentials: the MD5 of all three (RFC 8489, section 9.2.2).

    The text is taken as it is, in UTF-8: relays compare bytes, and credentials come from machines.
    """
    text = f"{username}:{realm}:{password}".encode()
    return hashlib.md5(text, usedforsecurity=False).digest()


def _encode_attribute(attribute_type: int, value: bytes) -> bytes:
    return struct.pack("!HH", attribute_type, len(value)) + value + bytes(-len(value) % 4)


def _fitting(message: bytes, extra: int) -> int:
    size = len(message) - HEADER_SIZE + extra
    if size > 0xFFFF:
        raise ValueError("the attributes do not fit into one STUN message")
    return size


class _Attribute(NamedTuple):
    """How the value of one attribute is written and read; both may need the transaction id.

    `unpack` raises `ValueError` or `struct.error`.
    """

    type: int
    name: str
    pack: Callable[[Any, bytes], bytes]
    unpack: Callable[[bytes, bytes], Any]


def _plain(pack: Callable[[Any], bytes]) -> Callable[[Any, bytes], bytes]:
    return lambda value, _: pack(value)


def _unsized(unpack: Callable[[bytes], Any]) -> Callable[[bytes, bytes], Any]:
    return lambda data, _: unpack(data)


def _sized(size: int, unpack: Callable[[bytes], Any]) -> Callable[[bytes, bytes], Any]:
    def checked(data: bytes, _: bytes) -> Any:
        if len(data) != size:
            raise ValueError(f"not {size} bytes")
        return unpack(data)

    return checked


def _text(unpack: Callable[[bytes], Any]) -> Callable[[bytes, bytes], Any]:
    def checked(data: bytes, _: bytes) -> Any:
        if len(data) > MAX_TEXT:
            raise ValueError("longer than the RFC allows")
        return unpack(data)

    return checked


def _pack_family(value: int) -> bytes:
    if value not in _FAMILIES:
        raise ValueError("an address family is 1 (IPv4) or 2 (IPv6)")
    return bytes([value, 0, 0, 0])


def _unpack_family(data: bytes) -> int:
    if data[0] not in _FAMILIES:
        raise ValueError("unknown address family")
    return data[0]


def _pack_types(value: tuple[int, ...]) -> bytes:
    return struct.pack(f"!{len(value)}H", *value)


def _unpack_types(data: bytes, _: bytes) -> tuple[int, ...]:
    return struct.unpack(f"!{len(data) // 2}H", data)


def _unpack_error_code(data: bytes, _: bytes) -> tuple[int, str]:
    # The bits above the class are reserved and ignored; the reason is only ever shown, so it is
    # made fit to be shown rather than refused.
    if len(data) < 4:
        raise ValueError("ERROR-CODE is too short")
    hundreds, rest = data[2] & 0x07, data[3]
    if not 3 <= hundreds <= 6 or rest > 99:
        raise ValueError("no such error code")
    return hundreds * 100 + rest, _printable(data[4:])[:MAX_REASON]


def _printable(data: bytes) -> str:
    # Some servers count padding as part of the text (coturn does so in its reasons).
    text = data.rstrip(b"\0").decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _attribute_table() -> list[_Attribute]:
    """Return aioice's attributes with lengths checked, and those that it lacks."""
    sizes = {
        codec.unpack_unsigned: 4,
        codec.unpack_unsigned_short: 4,
        codec.unpack_unsigned_64: 8,
        codec.unpack_none: 0,
    }
    table = []
    for number, name, pack, unpack in codec.ATTRIBUTES:
        if unpack is codec.unpack_xor_address:
            table.append(_Attribute(number, name, pack, unpack))
        elif unpack in sizes:
            table.append(_Attribute(number, name, _plain(pack), _sized(sizes[unpack], unpack)))
        elif unpack is codec.unpack_string or name == "NONCE":
            table.append(_Attribute(number, name, _plain(pack), _text(unpack)))
        else:
            table.append(_Attribute(number, name, _plain(pack), _unsized(unpack)))
    address = (_plain(codec.pack_address), _unsized(codec.unpack_address))
    text = _plain(codec.pack_string)
    raw = _plain(codec.pack_bytes)
    # Later rows replace earlier ones of the same type.
    return [
        *table,
        _Attribute(0x0009, "ERROR-CODE", _plain(codec.pack_error_code), _unpack_error_code),
        _Attribute(0x000A, "UNKNOWN-ATTRIBUTES", _plain(_pack_types), _unpack_types),
        _Attribute(
            0x0017, "REQUESTED-ADDRESS-FAMILY", _plain(_pack_family), _sized(4, _unpack_family)
        ),
        _Attribute(
            0x0018,
            "EVEN-PORT",
            _plain(lambda reserve: bytes([0x80 if reserve else 0])),
            _sized(1, lambda data: bool(data[0] & 0x80)),
        ),
        _Attribute(0x001A, "DONT-FRAGMENT", _plain(codec.pack_none), _sized(0, codec.unpack_none)),
        _Attribute(0x0022, "RESERVATION-TOKEN", raw, _sized(8, codec.unpack_bytes)),
        _Attribute(0x8003, "ALTERNATE-DOMAIN", text, _text(codec.unpack_string)),
        _Attribute(0x8022, "SOFTWARE", text, _text(_printable)),
        _Attribute(0x8023, "ALTERNATE-SERVER", *address),
    ]


_BY_TYPE = {attribute.type: attribute for attribute in _attribute_table()}
_BY_NAME = {attribute.name: attribute for attribute in _BY_TYPE.values()}
