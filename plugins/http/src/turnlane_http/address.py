"""`host[:port]`, as links and TURN URIs have it, read strictly (RFC 3986, section 3.2)."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")


class AddressError(Exception):
    """`part` says what is missing or malformed: `host` or `port`. Nothing is repeated."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


def parse_address_untrusted(text: str) -> tuple[str, int | None]:
    """Return the host, an IPv6 address without brackets, and the port or None.

    Raises `AddressError`.
    """
    host: str | None
    if text.startswith("["):
        literal, bracket, tail = text[1:].partition("]")
        host = _ipv6(literal) if bracket else None
    else:
        name, colon, digits = text.partition(":")
        tail = colon + digits
        host = name if _is_name(name) else None
    if host is None or (tail and not tail.startswith(":")):
        raise AddressError("host")
    if not tail:
        return host, None
    if _PORT.fullmatch(tail[1:]) is None or not 1 <= int(tail[1:]) <= 65535:
        raise AddressError("port")
    return host, int(tail[1:])


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name or address; nothing is looked up."""
    address = _address(host)
    return address.is_loopback if address is not None else host.lower() == "localhost"


def _is_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    # What ends in a number is an IPv4 address or nothing (RFC 3986, section 3.2.2; WHATWG URL).
    return not labels[-1].isdigit() or isinstance(_address(text), IPv4Address)


def _ipv6(text: str) -> str | None:
    found = _address(text)
    return str(found) if isinstance(found, IPv6Address) and found.scope_id is None else None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    for kind in (IPv4Address, IPv6Address):
        try:
            return kind(text)
        except AddressValueError:
            continue
    return None
