"""The answer: JSON that a command prints, read strictly.

    {
      "endpoints": [{"host": "turn.example", "port": 3478, "transport": "udp"}],
      "username": "…", "password": "…", "expires_at": 1700003600
    }

Instead of `endpoints` there may be `urls` (RFC 7065), instead of `password` `credential`, instead
of `expires_at` `ttl`, as WebRTC has them. Errors name fields and never repeat what stands in them;
not even a field's name, unless it is one of those above.
"""

import json
import re
from typing import Any

from turnlane.api import (
    Credentials,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Secret,
    Violation,
    is_host,
)
from turnlane_exec.violations import ViolationsError

STAGE = "parse_output"
"""The provider's stage that every error here carries."""

DEFAULT_PORT = 3478
DEFAULT_TLS_PORT = 5349
"""RFC 8656, section 3.1."""

MAX_ENDPOINTS = 32
MAX_USERNAME = 508
"""Bytes of a USERNAME attribute (RFC 8489, section 14.3)."""

MAX_PASSWORD = 4096
MAX_TTL = 10 * 366 * 86400
MAX_EXPIRY = 100_000_000_000
"""A Unix time beyond it is one in milliseconds."""

_FIELDS = ("endpoints", "urls", "username", "password", "credential", "expires_at", "ttl")
_ENDPOINT_FIELDS = ("host", "port", "transport", "server_name")
_URL = re.compile(
    r"(?P<scheme>turns?):(?:\[(?P<literal>[^\[\]]*)\]|(?P<host>[^\[\]:?/@#]*))"
    r"(?::(?P<port>[0-9]{1,5}))?(?:\?transport=(?P<transport>[A-Za-z]{1,8}))?",
    re.ASCII | re.IGNORECASE,
)
_NO_RELAY = re.compile(r"stuns?:", re.ASCII | re.IGNORECASE)
_HOST_FORM = "expected a host name, or an address without brackets"
_URL_FORM = "expected turn:HOST:PORT?transport=udp|tcp or turns:HOST:PORT, IPv6 in brackets"
_EXPECTED = {str: "text", int: "a whole number", float: "a number", list: "a list"}
_MISSING = object()


class _Duplicate:
    """Stands where an object has a field twice."""


def parse_output_untrusted(data: bytes, now: float) -> Credentials:
    """Read what a command printed; `now` is the Unix time from which its `ttl` counts.

    Raises `ViolationsError` (a `ProviderError`) with the code `invalid_output`, and
    `ProviderError` with `expired_credentials` for an answer that is no longer good.
    """
    document, told = _json(data)
    if told:
        raise _invalid([Violation("document", "type", told)])
    if not isinstance(document, dict):
        raise _invalid([Violation("document", "type", "expected an object")])
    wrong: list[Violation] = []
    _check_names(document, _FIELDS, "", wrong)
    endpoints = _endpoints(document, wrong)
    username = _text(document, "username", MAX_USERNAME, wrong)
    either = "credential" if "credential" in document else "password"
    _not_both(document, "password", "credential", wrong)
    password = _text(document, either, MAX_PASSWORD, wrong)
    expires_at = _expiry(document, now, wrong)
    if wrong:
        raise _invalid(wrong)
    if expires_at is not None and expires_at <= now:
        raise ProviderError(
            "expired_credentials",
            "the credentials that the command printed have expired",
            "check what it caches, and this machine's clock",
            provider_stage=STAGE,
        )
    return Credentials(tuple(endpoints), Secret(username), Secret(password), expires_at)


def _invalid(wrong: list[Violation]) -> ViolationsError:
    return ViolationsError(
        "invalid_output",
        "what the command printed is not valid",
        "the README of turnlane-exec describes the format; run the command by hand to see it",
        STAGE,
        wrong,
    )


def _json(data: bytes) -> tuple[Any, str]:
    # Nothing is raised from here: these exceptions carry what they could not read.
    if not data.strip():
        return None, "there is nothing: the command printed no JSON"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None, "it is not UTF-8 text"
    try:
        return json.loads(text, object_pairs_hook=_object), ""
    except json.JSONDecodeError as error:
        return None, f"it is not JSON, at line {error.lineno}, column {error.colno}"
    except ValueError:
        return None, "it holds a number with too many digits"
    except RecursionError:
        return None, "it is nested too deeply"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        made[name] = _Duplicate() if name in made else value
    return made


def _check_names(
    given: dict[str, Any], known: tuple[str, ...], place: str, wrong: list[Violation]
) -> None:
    for number, name in enumerate(given, 1):
        if name not in known:
            told = f"there is no such field; known here: {', '.join(known)}"
            wrong.append(Violation(f"{place}<field {number}>", "unknown", told))


def _not_both(given: dict[str, Any], one: str, other: str, wrong: list[Violation]) -> None:
    if one in given and other in given:
        wrong.append(Violation(other, "unknown", f"it does not stand beside {one}"))


def _typed(given: dict[str, Any], name: str, place: str, kind: type, wrong: list[Violation]) -> Any:
    """Return a field's value, or `_MISSING` after its violation has been noted."""
    value = given[name]
    if isinstance(value, _Duplicate):
        wrong.append(Violation(place + name, "unknown", "it is there twice"))
        return _MISSING
    accepted = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, accepted):
        wrong.append(Violation(place + name, "type", f"expected {_EXPECTED[kind]}"))
        return _MISSING
    return value


def _text(given: dict[str, Any], name: str, limit: int, wrong: list[Violation]) -> str:
    if name not in given:
        wrong.append(Violation(name, "required", "it has no default"))
        return ""
    value = _typed(given, name, "", str, wrong)
    if not isinstance(value, str):
        return ""
    if any(_is_control(character) for character in value):
        wrong.append(Violation(name, "pattern", "it holds a control character"))
    elif not 1 <= len(value.encode()) <= limit:
        wrong.append(Violation(name, "range", f"expected 1 to {limit} bytes"))
    return value


def _is_control(character: str) -> bool:
    """Whether it is a control character (C0, DEL, C1), or half of a surrogate pair."""
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000


def _expiry(given: dict[str, Any], now: float, wrong: list[Violation]) -> float | None:
    _not_both(given, "expires_at", "ttl", wrong)
    if "expires_at" in given:
        value = _typed(given, "expires_at", "", float, wrong)
        if value is not _MISSING and 0 < value < MAX_EXPIRY:
            return float(value)
        if value is not _MISSING:
            wrong.append(Violation("expires_at", "range", "expected a Unix time in seconds"))
    elif "ttl" in given:
        value = _typed(given, "ttl", "", float, wrong)
        if value is not _MISSING and 0 < value <= MAX_TTL:
            return now + float(value)
        if value is not _MISSING:
            wrong.append(Violation("ttl", "range", f"above 0 and at most {MAX_TTL} seconds"))
    return None


def _endpoints(given: dict[str, Any], wrong: list[Violation]) -> list[RelayEndpoint]:
    _not_both(given, "endpoints", "urls", wrong)
    if "endpoints" in given:
        items = _list(given, "endpoints", wrong)
        made = [_endpoint(item, f"endpoints[{at}]", wrong) for at, item in enumerate(items)]
    elif "urls" in given:
        items = _list(given, "urls", wrong)
        made = [_from_url(item, f"urls[{at}]", wrong) for at, item in enumerate(items)]
        if items and all(isinstance(item, str) and _NO_RELAY.match(item) for item in items):
            wrong.append(Violation("urls", "range", "there is no turn: or turns: in it"))
    else:
        wrong.append(Violation("endpoints", "required", "there are neither endpoints nor urls"))
        return []
    return [one for one in made if one is not None]


def _list(given: dict[str, Any], name: str, wrong: list[Violation]) -> list[Any]:
    value = _typed(given, name, "", list, wrong)
    if not isinstance(value, list):
        return []
    if not 1 <= len(value) <= MAX_ENDPOINTS:
        wrong.append(Violation(name, "range", f"expected 1 to {MAX_ENDPOINTS} of them"))
        return []
    return value


def _endpoint(given: Any, place: str, wrong: list[Violation]) -> RelayEndpoint | None:
    if not isinstance(given, dict):
        wrong.append(Violation(place, "type", "expected an object"))
        return None
    before = len(wrong)
    place += "."
    _check_names(given, _ENDPOINT_FIELDS, place, wrong)
    host: Any = _MISSING
    if "host" not in given:
        wrong.append(Violation(f"{place}host", "required", "it has no default"))
    else:
        host = _typed(given, "host", place, str, wrong)
    if isinstance(host, str) and not is_host(host):
        wrong.append(Violation(f"{place}host", "pattern", _HOST_FORM))
    transport: Any = RelayTransport.UDP.value
    if "transport" in given:
        transport = _typed(given, "transport", place, str, wrong)
    if isinstance(transport, str) and transport not in list(RelayTransport):
        told = f"one of {', '.join(RelayTransport)}"
        wrong.append(Violation(f"{place}transport", "enum", told))
    tls = transport == RelayTransport.TLS
    port: Any = DEFAULT_TLS_PORT if tls else DEFAULT_PORT
    if "port" in given:
        port = _typed(given, "port", place, int, wrong)
    if isinstance(port, int) and not 1 <= port <= 65535:
        wrong.append(Violation(f"{place}port", "range", "at least 1 and at most 65535"))
    server_name: Any = None
    if "server_name" in given:
        server_name = _typed(given, "server_name", place, str, wrong)
    if isinstance(server_name, str) and not (tls and is_host(server_name)):
        told = "expected the name in the server's certificate, beside transport tls only"
        wrong.append(Violation(f"{place}server_name", "pattern", told))
    if len(wrong) > before:
        return None
    return RelayEndpoint(host, port, RelayTransport(transport), server_name)


def _from_url(given: Any, place: str, wrong: list[Violation]) -> RelayEndpoint | None:
    """Read a URL of RFC 7065; those of STUN servers are passed over, they relay nothing."""
    if not isinstance(given, str):
        wrong.append(Violation(place, "type", "expected text"))
        return None
    if _NO_RELAY.match(given):
        return None
    found = _URL.fullmatch(given)
    host = (found["literal"] or found["host"] or "") if found else ""
    # An address in brackets is IPv6, any other is not: only then is the : of a port certain.
    if found is None or not is_host(host) or (":" in host) is not (found["literal"] is not None):
        wrong.append(Violation(place, "pattern", _URL_FORM))
        return None
    tls = found["scheme"].lower() == "turns"
    told = (found["transport"] or ("tcp" if tls else "udp")).lower()
    if told not in (("tcp",) if tls else ("udp", "tcp")):
        expected = "tcp, beside turns:" if tls else "one of udp, tcp"
        wrong.append(Violation(f"{place}.transport", "enum", expected))
        return None
    port = int(found["port"] or (DEFAULT_TLS_PORT if tls else DEFAULT_PORT))
    if not 1 <= port <= 65535:
        wrong.append(Violation(f"{place}.port", "range", "at least 1 and at most 65535"))
        return None
    return RelayEndpoint(host, port, RelayTransport.TLS if tls else RelayTransport(told))
