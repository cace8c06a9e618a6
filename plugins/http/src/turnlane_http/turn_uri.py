"""TURN URIs (RFC 7065): `turn:HOST[:PORT][?transport=udp|tcp]`, and `turns:` with TLS."""

from turnlane.api import AuthorityError, RelayEndpoint, RelayTransport, parse_authority
from turnlane_http.errors import AnswerError

MAX_URI = 512

_TRANSPORTS = {
    ("turn", "udp"): RelayTransport.UDP,
    ("turn", "tcp"): RelayTransport.TCP,
    ("turns", "tcp"): RelayTransport.TLS,
}
_DEFAULTS = {"turn": ("udp", 3478), "turns": ("tcp", 5349)}
"""Transport and port where a URI names none (RFC 7065, section 3.2; RFC 5928, section 3)."""


def parse_turn_uri_untrusted(uri: str) -> RelayEndpoint | None:
    """Read a URI of an ICE server.

    Returns None for one that is of no use here: of another scheme (`stun:`), or of a transport
    that Turnlane does not speak (TURN over DTLS, `turns:` with `transport=udp`). Raises
    `AnswerError` (`invalid_turn_uri`) for a malformed one.
    """
    scheme, colon, rest = uri.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in _DEFAULTS:
        return None
    address, mark, query = rest.partition("?")
    transport, default_port = _DEFAULTS[scheme]
    if mark:
        name, _, value = query.partition("=")
        if name != "transport" or not value.isascii() or not value.isalnum():
            raise _malformed()
        transport = value.lower()
    if len(uri) > MAX_URI:
        raise _malformed()
    host, port = _address(address)
    spoken = _TRANSPORTS.get((scheme, transport))
    return None if spoken is None else RelayEndpoint(host, port or default_port, spoken)


def format_turn_uri(endpoint: RelayEndpoint) -> str:
    """Return the URI of an endpoint, with port and transport told."""
    tls = endpoint.transport is RelayTransport.TLS
    scheme, transport = ("turns", "tcp") if tls else ("turn", endpoint.transport.value)
    return f"{scheme}:{endpoint.address}?transport={transport}"


def _address(text: str) -> tuple[str, int | None]:
    try:
        return parse_authority(text)
    except AuthorityError:
        pass
    raise _malformed()


def _malformed() -> AnswerError:
    return AnswerError(
        "invalid_turn_uri",
        "the answer has a malformed TURN URI",
        "the form is turn:HOST:PORT?transport=udp (RFC 7065): tell whoever runs the endpoint",
    )
