"""The peer link: address, pin and access token of a tunnel server in one line.

    turnlane://host:port?pin=<43 characters>&token=<access token>

It is a secret as a whole, because it carries the token.
"""

import re
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from turnlane.api import PolicyError, Secret
from turnlane.net.identity import Pin

SCHEME = "turnlane"
DEFAULT_PORT = 56000
PLACEHOLDER_HOST = "SERVER-ADDRESS"
MIN_TOKEN_LENGTH = 22
"""128 bits in base64url; shorter tokens can be guessed."""

_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")
_ADVICE = "copy the whole line that the server wrote to its peer-link file"


def new_token() -> Secret[str]:
    """Return a fresh random access token of 192 bits (base64url)."""
    return Secret(secrets.token_urlsafe(24))


def check_token(token: Secret[str]) -> Secret[str]:
    """Return `token` when it is long enough and has no odd character, else raise `PolicyError`."""
    value = token.reveal()
    if len(value) < MIN_TOKEN_LENGTH:
        raise PolicyError(
            "weak_token",
            f"the access token has fewer than {MIN_TOKEN_LENGTH} characters",
            "use the token that the server generated",
        )
    if len(value) > 256 or _TOKEN.fullmatch(value) is None:
        raise PolicyError(
            "invalid_token",
            "the access token has characters other than letters, digits and ._~- or is too long",
            _ADVICE,
        )
    return token


def split_host_port(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`; raise ValueError naming what is wrong with it."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address is written [address]:port")
        port_text = rest[1:] if rest else ""
    else:
        if text.count(":") > 1:
            raise ValueError("an IPv6 address is written [address]:port")
        host, _, port_text = text.partition(":")
    if not host:
        raise ValueError("the host is missing")
    if any(character.isspace() or character in "/?#@" for character in host):
        raise ValueError("the host has characters that no host name has")
    if not port_text:
        if default_port is None:
            raise ValueError("the port is missing")
        return host, default_port
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
        raise ValueError("the port is not a number from 0 to 65535")
    return host, int(port_text)


def join_host_port(host: str, port: int) -> str:
    """Write a host and port as one text, with brackets around an IPv6 literal."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class PeerLink:
    """Where a tunnel server is, who it is (its pin) and the token that it asks for."""

    host: str
    port: int
    pin: Pin | None = None
    token: Secret[str] | None = None

    @property
    def address(self) -> str:
        """`host:port`, safe to show."""
        return join_host_port(self.host, self.port)

    @classmethod
    def parse(cls, text: Secret[str]) -> "PeerLink":
        """Read a peer link or a bare `host:port`.

        Raises `PolicyError` that names the part that is wrong and repeats none of it.
        """
        value = text.reveal().strip()
        if "://" not in value:
            return cls(*_address(value))
        try:
            parts = urlsplit(value)
        except ValueError:
            raise PolicyError("invalid_peer", "the peer link is malformed", _ADVICE) from None
        if parts.scheme != SCHEME:
            raise PolicyError("invalid_peer", f"a peer link begins with {SCHEME}://", _ADVICE)
        if parts.path not in ("", "/") or parts.fragment:
            raise PolicyError("invalid_peer", "the peer link has a path or a fragment", _ADVICE)
        host, port = _address(parts.netloc)
        if host == PLACEHOLDER_HOST:
            raise PolicyError(
                "placeholder_peer",
                f"the peer link still says {PLACEHOLDER_HOST}",
                "put the server's public address there, or start the server with --advertise",
            )
        pin: Pin | None = None
        token: Secret[str] | None = None
        seen: set[str] = set()
        for name, argument in parse_qsl(parts.query, keep_blank_values=True):
            if name in seen:
                raise PolicyError("invalid_peer", f"the peer link names {name} twice", _ADVICE)
            seen.add(name)
            if name == "pin":
                pin = parse_pin(argument)
            elif name == "token":
                token = check_token(Secret(argument))
            else:
                raise PolicyError(
                    "invalid_peer",
                    "the peer link has a parameter other than pin and token",
                    "it may be of a newer version: update this program",
                )
        return cls(host, port, pin, token)

    def text(self) -> Secret[str]:
        """Write the link as one line."""
        query = []
        if self.pin is not None:
            query.append(f"pin={self.pin}")
        if self.token is not None:
            query.append(f"token={quote(self.token.reveal(), safe='')}")
        tail = "?" + "&".join(query) if query else ""
        return Secret(f"{SCHEME}://{self.address}{tail}")


def parse_pin(text: str) -> Pin:
    """Read a pin, or raise `PolicyError`."""
    try:
        return Pin.parse(text)
    except ValueError:
        raise PolicyError(
            "invalid_pin",
            "the pin is not the 43 characters that the server printed",
            "copy it from the server's ready line or from `turnlane identity show`",
        ) from None


def _address(text: str) -> tuple[str, int]:
    try:
        host, port = split_host_port(text, DEFAULT_PORT)
    except ValueError as error:
        raise PolicyError("invalid_peer", f"the peer's address: {error}", _ADVICE) from None
    if port == 0:
        raise PolicyError("invalid_peer", "the peer's address: the port is 0", _ADVICE)
    return host, port
