"""Links: where a TURN server is and how to authenticate, in one line.

    generic-turn://USER:PASSWORD@HOST[:PORT][?transport=udp|tcp|tls][&server_name=NAME]
    generic-turn+rest://[LABEL]:SHARED-SECRET@HOST[:PORT][?lifetime=SECONDS][&...]

The syntax is RFC 3986's, taken strictly: what a link does not say plainly is refused, not guessed.
User, password, label and secret are percent-encoded UTF-8. Errors name the part that is wrong and
never repeat what stands there, since a slip may have put a piece of the password anywhere.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from turnlane.api import (
    AuthorityError,
    LinkError,
    RelayEndpoint,
    RelayTransport,
    Secret,
    is_host,
    parse_authority,
)

STAGE = "parse_link"
"""The provider's stage that every error here carries."""

STATIC_SCHEME = "generic-turn"
REST_SCHEME = "generic-turn+rest"

DEFAULT_PORT = 3478
DEFAULT_TLS_PORT = 5349
"""RFC 8656, section 3.1."""

DEFAULT_LIFETIME = 3600
MAX_LIFETIME = 366 * 86400
"""Seconds that minted credentials are valid."""

MAX_LINK = 8192
MAX_USERNAME = 508
"""Bytes of a USERNAME attribute (RFC 8489, section 14.3)."""

MINTED_PREFIX = 11
"""Bytes that minting puts before a label: ten digits and a colon."""

_COMMON = ("transport", "server_name")
_ENCODE = "write : as %3A, @ as %40, / as %2F, ? as %3F, # as %23, % as %25"
_STATIC_FORM = f"write {STATIC_SCHEME}://USER:PASSWORD@HOST:PORT"
_REST_FORM = f"write {REST_SCHEME}://LABEL:SHARED-SECRET@HOST:PORT"
_HOST_FORM = "behind the @ goes HOST or HOST:PORT"

_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NUMBER = re.compile(r"[0-9]{1,9}")
_WORD = re.compile(r"[a-z][a-z_]{0,23}")


@dataclass(frozen=True)
class StaticLink:
    """A link that carries the credentials themselves."""

    endpoint: RelayEndpoint
    username: Secret[str]
    password: Secret[str]


@dataclass(frozen=True)
class RestLink:
    """A link that carries what credentials are minted from; `label` may be empty."""

    endpoint: RelayEndpoint
    label: Secret[str]
    shared_secret: Secret[str]
    lifetime: int


def parse_link(link: Secret[str]) -> StaticLink | RestLink:
    """Read a link; raises `LinkError` whose code names the part that is missing or malformed."""
    text = link.reveal()
    _check_characters(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in (STATIC_SCHEME, REST_SCHEME):
        raise _refusal(
            "wrong_scheme", f"the link does not begin with {STATIC_SCHEME}://", _STATIC_FORM
        )
    rest_link = scheme.lower() == REST_SCHEME
    authority, path, query = _split(rest)
    user, password, address = _split_authority(authority, path + query, rest_link=rest_link)
    known = (*_COMMON, "lifetime") if rest_link else _COMMON
    parameters = _parameters(path, query, known)
    endpoint = _endpoint(address, parameters)
    if not rest_link:
        return StaticLink(endpoint, Secret(user), Secret(password))
    return RestLink(endpoint, Secret(user), Secret(password), _lifetime(parameters))


def _refusal(code: str, message: str, advice: str) -> LinkError:
    return LinkError(code, message, advice, provider_stage=STAGE)


def _check_characters(text: str) -> None:
    if len(text) > MAX_LINK:
        raise _refusal(
            "link_too_long",
            f"the link has over {MAX_LINK} characters",
            "check that nothing else was pasted with it",
        )
    if any(character.isspace() for character in text):
        raise _refusal(
            "whitespace",
            "the link contains white space",
            "remove it; a space that belongs to the user name or password is written %20",
        )
    if not text.isprintable():
        raise _refusal(
            "invisible_character",
            "the link contains a character that does not print",
            "copy the link again, or type it",
        )


def _split(rest: str) -> tuple[str, str, str]:
    """Split what follows the scheme into authority, path and query (with their delimiters)."""
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    path, mark, query = rest[end:].partition("?")
    return rest[:end], path, mark + query


def _split_authority(authority: str, tail: str, *, rest_link: bool) -> tuple[str, str, str]:
    """Return user (or label), password (or secret), both decoded, and `host:port`."""
    credentials, at, address = authority.rpartition("@")
    form = _REST_FORM if rest_link else _STATIC_FORM
    password_name = "shared secret" if rest_link else "password"
    if "@" in tail or "@" in credentials:
        raise _refusal(
            "unencoded_character",
            f"the user name or {password_name} contains @, /, ? or # that is not encoded",
            _ENCODE,
        )
    user, colon, password = credentials.partition(":")
    if ":" in password:
        raise _refusal(
            "unencoded_character",
            f"there is more than one : in front of the @, so that where the {password_name} "
            "begins is not certain",
            _ENCODE,
        )
    if not rest_link and not (at and user):
        raise _refusal("missing_username", "the link has no user name", form)
    if not colon or not password:
        raise _refusal("missing_password", f"the link has no {password_name}", form)
    username = _decoded(user, "username", "label" if rest_link else "user name")
    limit = MAX_USERNAME - (MINTED_PREFIX if rest_link else 0)
    if len(username.encode()) > limit:
        raise _refusal(
            "username_too_long",
            f"the user name has over {limit} bytes, more than TURN can carry",
            "use a shorter one",
        )
    return username, _decoded(password, "password", password_name), address


def _decoded(text: str, part: str, called: str) -> str:
    """Undo percent-encoding; `part` stands in codes, `called` in messages."""
    decoded = _utf8(unquote_to_bytes(text)) if not _STRAY_PERCENT.search(text) else None
    if decoded is None:
        raise _refusal(
            "invalid_encoding",
            f"the {called} is not percent-encoded UTF-8",
            "write a % that belongs to it as %25",
        )
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in decoded):
        raise _refusal(
            f"invalid_{part}",
            f"the {called} contains a control character",
            "a line break may have been encoded with it (%0A): remove it",
        )
    return decoded


def _utf8(raw: bytes) -> str | None:
    # Not raised from here: a UnicodeDecodeError carries what it could not decode.
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _parameters(path: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    if "#" in path or "#" in query:
        raise _refusal("unexpected_fragment", "the link has a fragment (#...)", "remove it")
    if path not in ("", "/"):
        raise _refusal("unexpected_path", "the link has a path (/...)", "remove it")
    parameters: dict[str, str] = {}
    for item in query.removeprefix("?").split("&") if len(query) > 1 else ():
        name, _, value = item.partition("=")
        # Only what is clearly a word is repeated.
        shown = f" {name}" if _WORD.fullmatch(name) else ""
        if name not in known:
            raise _refusal(
                "unknown_parameter",
                f"the link has an unknown parameter{shown}",
                f"known here: {', '.join(known)}",
            )
        if name in parameters:
            raise _refusal(
                "duplicate_parameter", f"the link has the parameter{shown} twice", "keep one"
            )
        parameters[name] = value
    return parameters


def _endpoint(address: str, parameters: dict[str, str]) -> RelayEndpoint:
    host, port = _split_address(address)
    transport = parameters.get("transport", RelayTransport.UDP.value)
    if transport not in list(RelayTransport):
        listed = ", ".join(RelayTransport)
        raise _refusal(
            "invalid_transport", "the parameter transport is not valid", f"use one of: {listed}"
        )
    tls = transport == RelayTransport.TLS
    server_name = parameters.get("server_name")
    if server_name is not None and (not tls or ":" in server_name or not is_host(server_name)):
        raise _refusal(
            "invalid_server_name",
            "the parameter server_name is not a host name beside transport=tls",
            "it is the name in the server's certificate; leave it out without tls",
        )
    default = DEFAULT_TLS_PORT if tls else DEFAULT_PORT
    return RelayEndpoint(
        host, default if port is None else port, RelayTransport(transport), server_name
    )


def _split_address(address: str) -> tuple[str, int | None]:
    """Return the host without brackets, and the port or None."""
    try:
        return parse_authority(address)
    except AuthorityError as error:
        code, told = error.code, str(error)
    ports = f"TURN servers listen on {DEFAULT_PORT}, with TLS on {DEFAULT_TLS_PORT}"
    raise _refusal(code, f"in the link, {told}", ports if code == "invalid_port" else _HOST_FORM)


def _lifetime(parameters: dict[str, str]) -> int:
    text = parameters.get("lifetime", str(DEFAULT_LIFETIME))
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= MAX_LIFETIME:
        raise _refusal(
            "invalid_lifetime",
            f"the parameter lifetime is not a number of seconds from 1 to {MAX_LIFETIME}",
            f"leave it out for {DEFAULT_LIFETIME}",
        )
    return int(text)
