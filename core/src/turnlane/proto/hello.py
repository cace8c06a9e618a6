"""The handshake of the session protocol: hello, welcome, reject, and the proofs in them.

A handshake message is one DTLS application record: `turnlane`, a version, a type, the length of
its body, its body. That prefix and the whole of a reject stay the same in every version. Proofs
are HMAC-SHA256 over the association's exporter (RFC 5705) and the message's own bytes, so that they
hold on one association only. The bytes are fixed by docs/adr/0002-session-protocol.md.
"""

import hmac
import re
import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final

from turnlane.api.descriptors import TrafficClass
from turnlane.api.secrets import Secret
from turnlane.proto.frames import Record, SessionProtocolError
from turnlane.proto.refusals import Refusal, explain

MAGIC: Final = b"turnlane"
VERSION: Final = 1

EXPORTER_LABEL: Final = b"EXPERIMENTAL-turnlane-session-1"
"""What both ends export keying material with (RFC 5705, section 4: private use), no context."""

EXPORTER_SIZE: Final = 32
SESSION_ID_SIZE: Final = 16
SECRET_SIZE: Final = 32
"""Bytes of a session secret."""

MAX_LANES: Final = 0xFFFF
MAX_TRACEPARENT: Final = 64
MAX_REASON: Final = 200
MIN_TOKEN: Final = 22
"""Characters of the shortest token taken: 128 random bits in base64url."""

_PREFIX = struct.Struct(">8sBBH")
_HELLO = struct.Struct(">I16sHHBB16sB")
_WELCOME = struct.Struct(">IB32sHI")
_CODE = struct.Struct(">H")

_PROOF_SIZE = 32
_BINDING_SIZE = 16
_ABSENT = bytes(_PROOF_SIZE)

_CLIENT_ROLE = b"turnlane/1 client\0"
_SERVER_ROLE = b"turnlane/1 server\0"
_LANE_ROLE = b"turnlane/1 lane\0"
_ASSOCIATION_ROLE = b"turnlane/1 association\0"
_OPEN_KEY = b"turnlane/1 open"

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

_TRAFFIC = {TrafficClass.DATAGRAM: 1, TrafficClass.STREAM: 2}


class MessageType(IntEnum):
    """The type of a handshake message; these three mean the same in every version."""

    HELLO = 1
    WELCOME = 2
    REJECT = 3


class HelloFlag(IntFlag):
    """The flags of a hello; others are ignored."""

    SESSION_PROOF = 1
    TOKEN = 2


class Feature(IntFlag):
    """The bits of `features`: what a client offers, and of that a server takes."""

    PATH_PROBES = 1
    """Both ends answer probes of the path's MTU (`turnlane.proto.path_probe`)."""


class WelcomeFlag(IntFlag):
    """The flags of a welcome; others are ignored."""

    SESSION_SECRET = 1


class UnsupportedVersionError(SessionProtocolError):
    """A handshake message of a version that is not spoken here."""

    def __init__(self, version: int) -> None:
        super().__init__(f"a handshake message of version {version}")
        self.version = version


@dataclass(frozen=True)
class HelloParameters:
    """What a client asks for: lane `lane` (counted from 0) of a session of `lanes` lanes.

    `session_id` are 16 random bytes that name the session, `traceparent` is W3C trace context
    (level 1) or empty, `features` the feature bits offered. Raises `ValueError` for what the wire
    cannot say.
    """

    session_id: bytes
    lane: int
    lanes: int
    traffic: TrafficClass = TrafficClass.DATAGRAM
    features: int = 0
    traceparent: str = ""

    def __post_init__(self) -> None:
        if len(self.session_id) != SESSION_ID_SIZE:
            raise ValueError(f"a session id has {SESSION_ID_SIZE} bytes")
        if not 0 <= self.lane < self.lanes <= MAX_LANES:
            raise ValueError("a lane's index lies between 0 and the number of lanes")
        if not 0 <= self.features <= 0xFFFF_FFFF:
            raise ValueError("features have 32 bits")
        if self.traceparent and not _TRACEPARENT.fullmatch(self.traceparent):
            raise ValueError("not a W3C traceparent")


@dataclass(frozen=True)
class Hello:
    """A hello as it arrived; nothing in it is proven until the three checks below say so.

    `traceparent` is empty where the bytes were not one. `traffic` is None for a class that this
    version cannot name.
    """

    session_id: bytes
    lane: int
    lanes: int
    traffic: TrafficClass | None
    features: int
    traceparent: str
    flags: HelloFlag
    raw: bytes = field(repr=False)

    def holds_on(self, exporter: bytes) -> bool:
        """Whether this hello was made for the association of that exporter."""
        offset = _PREFIX.size + _HELLO.size - 1 - _BINDING_SIZE
        binding = self.raw[offset : offset + _BINDING_SIZE]
        return hmac.compare_digest(binding, _association_binding(exporter))

    def proves_token(self, exporter: bytes, token: Secret[bytes] | None) -> bool:
        """Whether its maker holds `token` (None: the marker of an open server)."""
        body, proof = self.raw[:-_PROOF_SIZE], self.raw[-_PROOF_SIZE:]
        return hmac.compare_digest(proof, _proof(_key(token), _CLIENT_ROLE, exporter, body))

    def proves_session(self, exporter: bytes, secret: Secret[bytes]) -> bool:
        """Whether its maker holds the session's secret. False without the flag."""
        if HelloFlag.SESSION_PROOF not in self.flags:
            return False
        body = self.raw[: -2 * _PROOF_SIZE]
        proof = self.raw[-2 * _PROOF_SIZE : -_PROOF_SIZE]
        return hmac.compare_digest(proof, _proof(secret.reveal(), _LANE_ROLE, exporter, body))


@dataclass(frozen=True)
class WelcomeTerms:
    """What a server grants.

    `max_datagram` is the largest datagram, in bytes, that it takes in one frame, `idle_timeout`
    the seconds after which it forgets a session that carries nothing, `features` the bits chosen
    from those offered. Raises `ValueError` for what the wire cannot say.
    """

    max_datagram: int
    idle_timeout: float
    features: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.max_datagram <= 0xFFFF:
            raise ValueError("max_datagram has 16 bits")
        if not 0.001 <= self.idle_timeout <= 0xFFFF_FFFF / 1000:
            raise ValueError("idle_timeout has 32 bits of milliseconds")
        if not 0 <= self.features <= 0xFFFF_FFFF:
            raise ValueError("features have 32 bits")


@dataclass(frozen=True)
class Welcome:
    """A welcome as it arrived; nothing in it is proven until `answers` says so."""

    terms: WelcomeTerms
    session_secret: Secret[bytes] | None
    raw: Secret[bytes]

    def answers(self, hello: bytes, exporter: bytes, token: Secret[bytes] | None) -> bool:
        """Whether its maker holds `token` and answers exactly this hello on this association."""
        raw = self.raw.reveal()
        body, proof = raw[:-_PROOF_SIZE], raw[-_PROOF_SIZE:]
        expected = _proof(_key(token), _SERVER_ROLE, exporter, hello, body)
        return hmac.compare_digest(proof, expected)


@dataclass(frozen=True)
class Reject:
    """A refusal, of whatever version; `code` may be a number that this version cannot name.

    `reason` came from the peer: it is printable, at most `MAX_REASON` characters, and no more than
    that is known about it. `version` is the highest version the server speaks.
    """

    code: int
    reason: str
    version: int


Message = Hello | Welcome | Reject


def token_key(token: Secret[str]) -> Secret[bytes]:
    """Return the HMAC key of an access token: its own bytes.

    A token is random and of at least 128 bits, so stretching it would gain nothing, and as a key of
    HMAC-SHA256 it needs no shape. Raises `ValueError` when it is shorter than `MIN_TOKEN`
    characters or has other than printable ASCII ones: a guessable token could be searched for
    offline by whoever a client says hello to.
    """
    text = token.reveal()
    if len(text) < MIN_TOKEN or not (text.isascii() and text.isprintable()):
        raise ValueError(f"a token has at least {MIN_TOKEN} printable ASCII characters")
    return Secret(text.encode("ascii"))


def is_handshake(record: Record) -> bool:
    """Whether a record claims to be a handshake message of any version."""
    return bytes(record[: len(MAGIC)]) == MAGIC


def build_hello(
    parameters: HelloParameters,
    *,
    exporter: bytes,
    token: Secret[bytes] | None,
    session_secret: Secret[bytes] | None,
) -> bytes:
    """Build a hello for the association of `exporter`.

    Without a `session_secret` it asks for a new session, with one for a lane of a session that the
    server knows. Raises `ValueError` for an exporter or a secret of the wrong size.
    """
    check_exporter(exporter)
    flags = HelloFlag(0)
    if token is not None:
        flags |= HelloFlag.TOKEN
    if session_secret is not None:
        flags |= HelloFlag.SESSION_PROOF
    traceparent = parameters.traceparent.encode("ascii")
    fixed = _HELLO.pack(
        parameters.features,
        parameters.session_id,
        parameters.lane,
        parameters.lanes,
        _TRAFFIC[parameters.traffic],
        flags,
        _association_binding(exporter),
        len(traceparent),
    )
    size = len(fixed) + len(traceparent) + 2 * _PROOF_SIZE
    message = _prefix(MessageType.HELLO, size) + fixed + traceparent
    if session_secret is None:
        message += _ABSENT
    else:
        key = _session_key(session_secret)
        message += _proof(key, _LANE_ROLE, exporter, message)
    return message + _proof(_key(token), _CLIENT_ROLE, exporter, message)


def build_welcome(
    terms: WelcomeTerms,
    *,
    hello: bytes,
    exporter: bytes,
    token: Secret[bytes] | None,
    session_secret: Secret[bytes] | None,
) -> bytes:
    """Build the welcome to exactly `hello`; `session_secret` is given to a new session only."""
    check_exporter(exporter)
    fixed = _WELCOME.pack(
        terms.features,
        WelcomeFlag(0) if session_secret is None else WelcomeFlag.SESSION_SECRET,
        _ABSENT if session_secret is None else _session_key(session_secret),
        terms.max_datagram,
        round(terms.idle_timeout * 1000),
    )
    message = _prefix(MessageType.WELCOME, len(fixed) + _PROOF_SIZE) + fixed
    return message + _proof(_key(token), _SERVER_ROLE, exporter, hello, message)


def build_reject(refusal: Refusal) -> bytes:
    """Build a reject; a reason longer than `MAX_REASON` bytes is cut."""
    reason = (refusal.reason or explain(refusal.code).reason).encode()[:MAX_REASON]
    body = _CODE.pack(refusal.code) + reason
    return _prefix(MessageType.REJECT, len(body)) + body


def parse_message_untrusted(record: Record) -> Message:
    """Parse a handshake message.

    Raises `UnsupportedVersionError` for a hello or welcome of another version (a reject is the same
    in all of them) and `SessionProtocolError` for anything else that is no handshake message.
    """
    raw = bytes(record)
    if len(raw) < _PREFIX.size or not is_handshake(raw):
        raise SessionProtocolError("not a handshake message")
    _, version, kind, length = _PREFIX.unpack_from(raw)
    body = raw[_PREFIX.size :]
    if length != len(body):
        raise SessionProtocolError("a handshake message of another length than it says")
    if kind == MessageType.REJECT:
        return _parse_reject_untrusted(body, version)
    if version != VERSION:
        raise UnsupportedVersionError(version)
    if kind == MessageType.HELLO:
        return _parse_hello_untrusted(body, raw)
    if kind == MessageType.WELCOME:
        return _parse_welcome_untrusted(body, raw)
    raise SessionProtocolError("a handshake message of unknown type")


def check_exporter(exporter: bytes) -> None:
    """Raise `ValueError` unless these are the bytes that `EXPORTER_LABEL` yields."""
    if len(exporter) != EXPORTER_SIZE:
        raise ValueError(f"the exporter has {EXPORTER_SIZE} bytes")


def _parse_hello_untrusted(body: bytes, raw: bytes) -> Hello:
    if len(body) < _HELLO.size:
        raise SessionProtocolError("a hello that is too short")
    features, session_id, lane, lanes, traffic, flags, _, size = _HELLO.unpack_from(body)
    if size > MAX_TRACEPARENT or len(body) != _HELLO.size + size + 2 * _PROOF_SIZE:
        raise SessionProtocolError("a hello whose parts do not fill it")
    if lane >= lanes:
        raise SessionProtocolError("a hello for a lane outside its session")
    has_proof = bool(flags & HelloFlag.SESSION_PROOF)
    if not has_proof and body[-2 * _PROOF_SIZE : -_PROOF_SIZE] != _ABSENT:
        raise SessionProtocolError("a hello with a session proof that it does not announce")
    return Hello(
        session_id=session_id,
        lane=lane,
        lanes=lanes,
        traffic=next((name for name, number in _TRAFFIC.items() if number == traffic), None),
        features=features,
        traceparent=_traceparent_untrusted(body[_HELLO.size : _HELLO.size + size]),
        flags=HelloFlag(flags & (HelloFlag.SESSION_PROOF | HelloFlag.TOKEN)),
        raw=raw,
    )


def _parse_welcome_untrusted(body: bytes, raw: bytes) -> Welcome:
    if len(body) != _WELCOME.size + _PROOF_SIZE:
        raise SessionProtocolError("a welcome of the wrong size")
    features, flags, secret, max_datagram, idle_ms = _WELCOME.unpack_from(body)
    has_secret = bool(flags & WelcomeFlag.SESSION_SECRET)
    if has_secret == (secret == _ABSENT):
        raise SessionProtocolError("a welcome whose session secret is not what it announces")
    if not max_datagram or not idle_ms:
        raise SessionProtocolError("a welcome that grants nothing")
    terms = WelcomeTerms(max_datagram, idle_ms / 1000, features)
    return Welcome(terms, Secret(secret) if has_secret else None, Secret(raw))


def _parse_reject_untrusted(body: bytes, version: int) -> Reject:
    if len(body) < _CODE.size:
        raise SessionProtocolError("a reject without a code")
    (code,) = _CODE.unpack_from(body)
    text = body[_CODE.size : _CODE.size + MAX_REASON].decode("utf-8", "replace")
    reason = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return Reject(code, reason, version)


def _traceparent_untrusted(data: bytes) -> str:
    text = data.decode("ascii", "replace")
    return text if _TRACEPARENT.fullmatch(text) else ""


def _prefix(kind: MessageType, length: int) -> bytes:
    return _PREFIX.pack(MAGIC, VERSION, kind, length)


def _association_binding(exporter: bytes) -> bytes:
    return hmac.digest(exporter, _ASSOCIATION_ROLE, "sha256")[:_BINDING_SIZE]


def _proof(key: bytes, role: bytes, exporter: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, role + exporter + b"".join(parts), "sha256")


def _key(token: Secret[bytes] | None) -> bytes:
    return _OPEN_KEY if token is None else token.reveal()


def _session_key(secret: Secret[bytes]) -> bytes:
    key = secret.reveal()
    if len(key) != SECRET_SIZE or key == _ABSENT:
        raise ValueError(f"a session secret has {SECRET_SIZE} random bytes")
    return key
