"""Addresses as they are written on a command line: `host:port`."""

import re
from ipaddress import AddressValueError, IPv6Address

from turnlane.api import AdapterError, Stage

_PORT = re.compile(r"[0-9]{1,5}")
_FORM = "write HOST:PORT, with brackets around an IPv6 address: [::1]:9000"


def parse_address(text: str, stage: Stage, *, any_port: bool) -> tuple[str, int]:
    """Split `host:port` or `[ipv6]:port` into the host without brackets and the port.

    `any_port` says whether 0, for a port that the system chooses, makes sense. Raises
    `AdapterError` (`invalid_address`) at `stage`.
    """

    def refuse(problem: str) -> AdapterError:
        return AdapterError(stage, "invalid_address", f"the address {text!r} {problem}", _FORM)

    host, colon, digits = text.rpartition(":")
    if not colon:
        raise refuse("has no port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise refuse("has no IPv6 address in its brackets")
    elif ":" in host or "[" in host or "]" in host:
        raise refuse("has an IPv6 address without brackets")
    if not host:
        raise refuse("has no host")
    if not host.isprintable() or " " in host:
        raise refuse("has a host with white space")
    if _PORT.fullmatch(digits) is None or int(digits) > 65535:
        raise refuse("has no port from 1 to 65535")
    if digits.strip("0") == "" and not any_port:
        raise refuse("has the port 0, where nobody listens")
    return host, int(digits)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
