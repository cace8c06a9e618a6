"""Answers: what endpoints say about relays, in the formats that are about.

* The TURN REST API (draft-uberti-behave-turn-rest-00, section 2.2):
  `{"username", "password", "ttl", "uris": [...]}`.
* Lists of ICE servers, as `RTCPeerConnection` takes them (W3C WebRTC, section 4.2.4), under
  `iceServers` (Cloudflare), `ice_servers` (Twilio) or bare (Metered); one server may stand for a
  list, `url` for `urls` and a text for a list of URIs.

Unknown fields are ignored. Only field names of these formats are ever repeated, never a value.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from turnlane.api import RelayEndpoint, Secret
from turnlane_http.errors import AnswerError
from turnlane_http.settings import MAX_LIFETIME
from turnlane_http.turn_uri import parse_turn_uri_untrusted

MAX_ENDPOINTS = 32
"""Relay endpoints that are taken from an answer, the first ones; the runtime takes no more."""

MAX_USERNAME = 508
"""Bytes of a USERNAME attribute (RFC 8489, section 14.3)."""

MAX_PASSWORD = 4096
TURN_REST = "turn_rest_api"
ICE_SERVERS = "ice_servers"

_BOM = b"\xef\xbb\xbf"
_FORMATS = (
    "an answer of the TURN REST API has username, password, ttl and uris, others have iceServers "
    "or ice_servers; check that the link is the endpoint for credentials"
)
_TELL = "tell whoever runs the endpoint"
_SECONDS = re.compile(r"[0-9]{1,12}")
_TIMED = re.compile(r"([0-9]{10})(:.*)?", re.DOTALL)

_EARLIEST = 1_262_304_000
_LATEST = 4_102_444_800
"""The years 2010 to 2100: before a colon, any time in between is taken for an expiry."""

_PAST = 30 * 86400
_FUTURE = 366 * 86400
"""Seconds around now: a number that stands alone is an expiry only if it is near, since accounts
and telephone numbers have ten digits too."""


@dataclass(frozen=True)
class Answer:
    """What an answer says: relays in its order, credentials, and seconds they are valid.

    `format` is `turn_rest_api` or `ice_servers`; `ignored` counts the URIs of no use here.
    """

    format: str
    endpoints: tuple[RelayEndpoint, ...]
    username: Secret[str]
    password: Secret[str]
    lifetime: float | None
    ignored: int


@dataclass(frozen=True)
class _Server:
    """An entry that has TURN URIs of use, with the credentials for them."""

    endpoints: tuple[RelayEndpoint, ...]
    username: Secret[str]
    password: Secret[str]


def parse_answer_untrusted(body: bytes) -> Answer:
    """Read the body of an answer.

    Servers with other credentials than the first usable one are left out, since a session has one
    user. Raises `AnswerError`: `decode_response` for what is not JSON, `invalid_answer` for JSON
    of another shape, `missing_credentials`, `no_relay`, `invalid_turn_uri`.
    """
    document = _decode(body)
    top: dict[str, Any] = document if isinstance(document, dict) else {}
    if isinstance(document, list):
        kind, entries = ICE_SERVERS, _servers(document, "the answer")
    elif "iceServers" in top:
        kind, entries = ICE_SERVERS, _servers(top["iceServers"], "iceServers")
    elif "ice_servers" in top:
        kind, entries = ICE_SERVERS, _servers(top["ice_servers"], "ice_servers")
    elif "uris" in top:
        kind, entries = TURN_REST, [top]
    else:
        raise AnswerError("invalid_answer", "the answer names no relays", _FORMATS)
    return _collect(kind, entries, _lifetime(top.get("ttl")))


def expiry_of(username: Secret[str], now: float) -> int | None:
    """Return the Unix time at which a TURN REST user name expires, or None for any other name.

    `now` is the Unix time in seconds; the expiry may lie before it.
    """
    found = _TIMED.fullmatch(username.reveal())
    if found is None:
        return None
    expires_at = int(found[1])
    earliest, latest = (_EARLIEST, _LATEST) if found[2] else (now - _PAST, now + _FUTURE)
    return expires_at if earliest <= expires_at < latest else None


def _decode(body: bytes) -> object:
    text = body.removeprefix(_BOM).strip()
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    if text.startswith(b"<"):
        raise AnswerError(
            "decode_response",
            "the endpoint answered with a page (HTML or XML) instead of JSON",
            "check the link: this is often a sign-in page, a proxy's, or the service's front page",
        )
    raise AnswerError(
        "decode_response",
        "the endpoint's answer is empty" if not text else "the endpoint's answer is not JSON",
        "check that the link is the endpoint for credentials, and the setting method",
    )


def _servers(value: object, where: str) -> list[dict[str, Any]]:
    entries: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, dict) for entry in entries):
        raise _invalid(f"{where} is not an object or a list of objects")
    return entries


def _collect(kind: str, entries: list[dict[str, Any]], lifetime: float | None) -> Answer:
    field = "password" if kind == TURN_REST else "credential"
    ignored = 0
    servers: list[_Server] = []
    bare = False
    for entry in entries:
        uris = list(_uris(entry))
        endpoints = tuple(filter(None, map(parse_turn_uri_untrusted, uris)))
        ignored += len(uris) - len(endpoints)
        # An OAuth server's credential is no password (RFC 8656 knows it as the third-party kind).
        if entry.get("credentialType", "password") != "password":
            ignored += len(endpoints)
        elif endpoints and (entry.get("username") is None or entry.get(field) is None):
            ignored += len(endpoints)
            bare = True
        elif endpoints:
            servers.append(_Server(endpoints, *_credentials(entry, field)))
    if not servers and bare:
        raise AnswerError(
            "missing_credentials",
            f"the answer has relays, but no username and {field} for them",
            "check that the request is authenticated, and that the link is the endpoint for "
            "credentials",
        )
    if not servers:
        raise AnswerError(
            "no_relay",
            "the answer names no TURN server that can be used",
            "turn: over UDP and TCP and turns: over TCP are used, stun: is not; check that the "
            "account has TURN",
        )
    return _merge(kind, servers, lifetime, ignored)


def _merge(kind: str, servers: list[_Server], lifetime: float | None, ignored: int) -> Answer:
    first = servers[0]
    mine = [each for each in servers if each.username == first.username]
    mine = [each for each in mine if each.password == first.password]
    named = sum(len(each.endpoints) for each in servers)
    endpoints = tuple(dict.fromkeys(one for each in mine for one in each.endpoints))[:MAX_ENDPOINTS]
    return Answer(
        kind,
        endpoints,
        first.username,
        first.password,
        lifetime,
        ignored + named - len(endpoints),
    )


def _uris(entry: dict[str, Any]) -> Iterator[str]:
    field = next((name for name in ("uris", "urls", "url") if entry.get(name) is not None), "urls")
    value = entry.get(field, [])
    for uri in value if isinstance(value, list) else [value]:
        if not isinstance(uri, str):
            raise _invalid(f"{field} is not a text or a list of texts")
        yield uri


def _credentials(entry: dict[str, Any], field: str) -> tuple[Secret[str], Secret[str]]:
    return _text(entry, "username", MAX_USERNAME), _text(entry, field, MAX_PASSWORD)


def _text(entry: dict[str, Any], field: str, limit: int) -> Secret[str]:
    value = entry[field]
    if not isinstance(value, str) or not value or len(value.encode()) > limit:
        raise _invalid(f"{field} is not a text of 1 to {limit} bytes")
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in value):
        raise _invalid(f"{field} contains a control character")
    return Secret(value)


def _lifetime(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid("ttl is not a number of seconds")
    if not math.isfinite(value) or not 0 < value <= MAX_LIFETIME:
        raise _invalid(f"ttl is not a number of seconds up to {MAX_LIFETIME}")
    return float(value)


def _invalid(what: str) -> AnswerError:
    return AnswerError("invalid_answer", f"in the endpoint's answer {what}", _TELL)
