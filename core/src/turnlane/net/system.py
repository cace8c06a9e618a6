"""What the operating system says, in our words: names resolved, sockets bound, OSError told."""

import errno
import ipaddress
import os
import socket

import anyio

from turnlane.api.errors import TransportError
from turnlane.api.stages import Stage

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""What the socket module takes and gives: IPv4, or IPv6 with flow info and scope."""

SOCKET_BUFFER = 4 * 1024 * 1024
"""Bytes asked for per direction; the system grants what its limits allow."""


_PATH_ERRORS = frozenset(
    {
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EMSGSIZE,
        errno.ENETUNREACH,
        errno.ENOPROTOOPT,
        errno.EPROTO,
    }
)


def is_path_error(error: OSError) -> bool:
    """Whether a datagram socket only tells what an ICMP message said of something sent earlier.

    Such an error comes once, of whatever call comes next, and the socket itself is sound: nobody
    listens there now, a router or firewall is in the way, a datagram was too large for the path.
    """
    return isinstance(error, ConnectionError) or error.errno in _PATH_ERRORS


def reason(error: OSError) -> str:
    """Say what an OSError means, without the addresses or file names it may carry."""
    if error.errno is not None:
        return os.strerror(error.errno)
    return type(error).__name__


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 literal."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family of an address literal."""
    return socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET


async def resolve(
    host: str,
    port: int,
    kind: socket.SocketKind,
    *,
    stage: Stage,
    code: str,
    family: socket.AddressFamily = socket.AF_UNSPEC,
) -> tuple[socket.AddressFamily, SocketAddress]:
    """Resolve a name to its first address; a literal stands for itself.

    Raises `TransportError(stage, code)` when the name has no address (of `family`).
    """
    if is_address(host):
        # No name to look up, so no thread to wait for: a new flow opens at once.
        return family_of(host), literal_address(host, port)
    wanted = {socket.AF_INET: "IPv4 ", socket.AF_INET6: "IPv6 "}.get(family, "")
    try:
        found = await anyio.getaddrinfo(host, port, family=family, type=kind)
    except (OSError, UnicodeError):
        raise TransportError(
            stage, code, f"the name {host} has no {wanted}address", "check the name and the DNS"
        ) from None
    for found_family, _, _, _, address in found:
        if found_family in (socket.AF_INET, socket.AF_INET6):
            return socket.AddressFamily(found_family), address
    raise TransportError(stage, code, f"the name {host} has no IP address", "check the name")


def literal_address(host: str, port: int) -> SocketAddress:
    """Return the socket address of an address literal; a scope (`fe80::1%eth0`) is kept."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return host, port
    scope = address.scope_id
    if scope is None:
        return host, port, 0, 0
    try:
        number = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    except OSError:
        number = 0
    return host.partition("%")[0], port, 0, number


def open_socket(
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    *,
    bind: SocketAddress | None = None,
    connect: SocketAddress | None = None,
) -> socket.socket:
    """Open a non-blocking socket, with generous buffers where it takes datagrams.

    `connect` is for datagram sockets, which need not wait for it. Raises OSError.
    """
    opened = socket.socket(family, kind)
    try:
        opened.setblocking(False)
        if kind == socket.SOCK_DGRAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        if bind is not None:
            opened.bind(bind)
        if connect is not None:
            opened.connect(connect)
    except BaseException:
        opened.close()
        raise
    return opened


def plain_address(address: SocketAddress) -> tuple[str, int]:
    """Drop flow info and scope from a socket address, and the scope suffix from its host."""
    return address[0].partition("%")[0], address[1]
