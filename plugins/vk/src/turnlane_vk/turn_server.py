"""`turn_server`: the relays and credentials that the answer to a join, or to a start, carries."""

import re
from dataclasses import dataclass, field
from typing import Any

from turnlane.api import (
    AuthorityError,
    Credentials,
    RelayEndpoint,
    RelayTransport,
    Secret,
    parse_authority,
)
from turnlane_vk.errors import DRIFT, StageError

MAX_URLS = 32
"""URLs that are taken, the first ones; the runtime takes no more."""

MAX_USERNAME = 508
"""Bytes of a USERNAME attribute (RFC 8489, section 14.3)."""

MAX_PASSWORD = 4096

_URL = re.compile(
    r"(?P<scheme>turns?):(?P<address>[^?@/#]{1,300})(?P<query>\?transport=(?P<transport>\w{1,8}))?",
    re.ASCII | re.IGNORECASE,
)
_STUN = re.compile(r"stuns?:[!-~]{1,300}", re.IGNORECASE)
_SPOKEN = {
    ("turn", "udp"): RelayTransport.UDP,
    ("turn", "tcp"): RelayTransport.TCP,
    ("turns", "tcp"): RelayTransport.TLS,
}
_TIMED = re.compile(r"([0-9]{10}):.*", re.DOTALL)
_EARLIEST = 1_262_304_000
_LATEST = 4_102_444_800
"""The years 2010 to 2100: what stands before the colon is a time only there."""


class TurnUrlError(ValueError):
    """A URL that is malformed; nothing of it is repeated."""


@dataclass(frozen=True)
class TurnUrl:
    """A URL of the list: the relay, None where it is of no use here, and how it may be shown."""

    endpoint: RelayEndpoint | None
    shown: str


@dataclass(frozen=True)
class TurnServer:
    """What `turn_server` says: relays in its order, and credentials for all of them."""

    endpoints: tuple[RelayEndpoint, ...]
    username: Secret[str] = field(repr=False)
    password: Secret[str] = field(repr=False)

    @property
    def credentials(self) -> Credentials:
        """The same for the transport, with the expiry that the user name tells."""
        expires_at = expiry_untrusted(self.username)
        return Credentials(self.endpoints, self.username, self.password, expires_at)


def parse_turn_url_untrusted(url: object) -> TurnUrl:
    """Read `turn:HOST:PORT` or `turns:HOST:PORT`, with `?transport=udp|tcp` or without.

    `stun:` and transports that Turnlane does not speak are well formed and of no use. Raises
    `TurnUrlError` for everything else.
    """
    if isinstance(url, str) and _STUN.fullmatch(url):
        return TurnUrl(None, url.partition(":")[0].lower() + ":")
    parts = _URL.fullmatch(url) if isinstance(url, str) else None
    if parts is None:
        raise TurnUrlError
    scheme = parts["scheme"].lower()
    try:
        host, port = parse_authority(parts["address"])
    except AuthorityError:
        host, port = "", None
    if port is None:
        raise TurnUrlError
    given = (parts["transport"] or "").lower()
    transport = _SPOKEN.get((scheme, given or ("udp" if scheme == "turn" else "tcp")))
    server_name = host if transport is RelayTransport.TLS else None
    endpoint = RelayEndpoint(host, port, transport or RelayTransport.UDP, server_name)
    known = given in ("", "udp", "tcp")
    query = (f"?transport={given}" if known else "?transport=") if given else ""
    shown = f"{scheme}:{endpoint.address}{query}"
    return TurnUrl(endpoint if transport is not None else None, shown)


def read_turn_server_untrusted(document: dict[str, Any], stage: str) -> TurnServer:
    """Take relays and credentials from an answer.

    Raises `StageError` at `stage`: `missing_turn_username`, `missing_turn_credential`,
    `missing_turn_url` where there is none of use, `invalid_turn_url` where one is malformed.
    """
    server = document.get("turn_server")
    server = server if isinstance(server, dict) else {}
    username = _text_untrusted(server.get("username"), MAX_USERNAME)
    if username is None:
        raise _missing("missing_turn_username", "no user name", stage)
    password = _text_untrusted(server.get("credential"), MAX_PASSWORD)
    if password is None:
        raise _missing("missing_turn_credential", "no credential", stage)
    urls = server.get("urls")
    urls = urls if isinstance(urls, list) else [urls] if urls is not None else []
    return TurnServer(_endpoints_untrusted(urls, stage), username, password)


def expiry_untrusted(username: Secret[str]) -> float | None:
    """Return the Unix time in a TURN REST user name (`<time>:<suffix>`), None for any other."""
    found = _TIMED.fullmatch(username.reveal())
    expires_at = int(found[1]) if found else 0
    return float(expires_at) if _EARLIEST <= expires_at < _LATEST else None


def _endpoints_untrusted(urls: list[Any], stage: str) -> tuple[RelayEndpoint, ...]:
    malformed = False
    found: list[RelayEndpoint] = []
    for url in urls:
        try:
            endpoint = parse_turn_url_untrusted(url).endpoint
        except TurnUrlError:
            malformed = True
        else:
            found += [endpoint] if endpoint is not None else []
    if malformed:
        raise StageError(
            "invalid_turn_url",
            "the answer has a malformed TURN URL",
            DRIFT,
            provider_stage=stage,
        )
    if not found:
        raise _missing("missing_turn_url", "no TURN URL that can be used", stage)
    return tuple(dict.fromkeys(found))[:MAX_URLS]


def _text_untrusted(value: object, limit: int) -> Secret[str] | None:
    if not isinstance(value, str) or not value.isprintable():
        return None
    return Secret(value) if 0 < len(value.encode()) <= limit else None


def _missing(code: str, what: str, stage: str) -> StageError:
    return StageError(code, f"the answer has {what} for a relay", DRIFT, provider_stage=stage)
