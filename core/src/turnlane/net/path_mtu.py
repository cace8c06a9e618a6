"""What the operating system knows about a path: sockets that never fragment, and what then fits.

Linux learns a path's MTU from ICMP and keeps it for ten minutes. Elsewhere nothing is known here,
and the probes of the session protocol find out alone.
"""

import socket
import sys
from contextlib import suppress

from turnlane.net.system import SocketAddress
from turnlane.proto.path_mtu import udp_payload

# linux/in.h, linux/in6.h: of these the socket module knows only some, and not on every version.
_IP_MTU_DISCOVER, _IP_MTU = 10, 14
_IPV6_MTU_DISCOVER, _IPV6_MTU, _IPV6_DONTFRAG = 23, 24, 62
_PMTUDISC_DO = 2

SUPPORTED = sys.platform == "linux"
"""Whether this system is asked at all."""


def forbid_fragments(opened: socket.socket) -> None:
    """Have what is too large for the path refused (EMSGSIZE) where it would be fragmented.

    Routers are told the same by the bit in the header; what they answer the system keeps.
    """
    if not SUPPORTED:
        return
    options = [(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)]
    if opened.family == socket.AF_INET6:
        options += [
            (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO),
            (socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1),
        ]
    for level, option, value in options:
        # A sandbox that emulates Linux may lack one of them; then the probes are left.
        with suppress(OSError):
            opened.setsockopt(level, option, value)


def largest_payload(connected: socket.socket) -> int | None:
    """Return how large a UDP payload leaves a connected socket whole; None for not known."""
    if not SUPPORTED:
        return None
    ipv6 = connected.family == socket.AF_INET6
    try:
        mtu = (
            connected.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            if ipv6
            else connected.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        )
    except OSError:
        return None
    return udp_payload(mtu, ipv6=ipv6)


def largest_payload_to(family: socket.AddressFamily, address: SocketAddress) -> int | None:
    """Return how large a UDP payload reaches an address whole; None for not known.

    For sockets that are not connected: another one, which sends nothing, is asked in their place.
    """
    if not SUPPORTED:
        return None
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect(address)
            return largest_payload(asked)
    except OSError:
        return None
