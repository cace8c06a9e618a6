"""`host[:port]`, as the links of most providers and TURN URIs have it (RFC 3986, section 3.2)."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")

_TOLD = {
    "missing_host": "there is no host",
    "invalid_host": "the host is no name in ASCII, IPv4 address, or IPv6 address in brackets",
    "invalid_port": "the port is not a number from 1 to 65535",
}


class AuthorityError(ValueError):
    """What was given is no `host[:port]`; the text says why and repeats nothing of it."""

    code: Literal["missing_host", "invalid_host", "invalid_port"]
    """The part that is wrong; fit for the `LinkError` of a provider."""

    def __init__(self, code: Literal["missing_host", "invalid_host", "invalid_port"]) -> None:
        super().__init__(_TOLD[code])
        self.code = code


def parse_authority(text: str) -> tuple[str, int | None]:
    """Take `host[:port]` apart: the host without brackets, and the port or None.

    The host is a name, an IPv4 address, or an IPv6 address, which has brackets in `text` and comes
    back in its shortest form. Raises `AuthorityError`. What a link has around it (a user, a path)
    and percent-encoding are the caller's.
    """
    if not text or text.startswith(":"):
        raise AuthorityError("missing_host")
    if text.startswith("["):
        literal, bracket, tail = text[1:].partition("]")
        address = _address(literal) if bracket else None
        host = str(address) if isinstance(address, IPv6Address) else ""
    else:
        name, colon, digits = text.partition(":")
        tail = colon + digits
        host = name if ":" not in digits and is_host(name) else ""
    if not host or (tail and not tail.startswith(":")):
        raise AuthorityError("invalid_host")
    if not tail:
        return host, None
    if _PORT.fullmatch(tail[1:]) is None or not 1 <= int(tail[1:]) <= 65535:
        raise AuthorityError("invalid_port")
    return host, int(tail[1:])


def is_host(text: str) -> bool:
    """Whether it is a host name (RFC 1123, and `_`) or an address literal without brackets."""
    if ":" in text:
        return _address(text) is not None
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    # What ends in a number is an IPv4 address or nothing (RFC 3986, section 3.2.2; WHATWG URL).
    return not labels[-1].isdigit() or _address(text) is not None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    # Nothing is raised from here: these exceptions carry what they could not read. An address of
    # one link (with %) means nothing elsewhere.
    for kind in (IPv4Address, IPv6Address):
        try:
            return None if "%" in text else kind(text)
        except AddressValueError:
            continue
    return None
