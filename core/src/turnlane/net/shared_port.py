"""A server's port, with a socket for each of the processes that serve it."""

import socket
import sys
from contextlib import ExitStack

from turnlane.api.errors import TransportError
from turnlane.api.stages import Stage
from turnlane.net.path_mtu import forbid_fragments
from turnlane.net.system import SocketAddress, open_socket, reason, resolve


def can_share() -> bool:
    """Whether the system keeps a peer at one socket of several (Linux; elsewhere the last wins)."""
    return sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")


async def open_port(host: str, port: int, count: int = 1) -> list[socket.socket]:
    """Bind `count` sockets to one address; raises `TransportError` at `listen`.

    The system spreads the peers over them: datagrams of one peer reach the same socket as long as
    all of them are open. Who keeps them open may hand each to a process, and to another process
    when that one has died.
    """
    family, address = await resolve(
        host, port, socket.SOCK_DGRAM, stage=Stage.LISTEN, code="listen_name_unresolved"
    )
    try:
        opened = _open(family, address, count)
    except OSError as error:
        raise TransportError(
            Stage.LISTEN,
            "listen_failed",
            f"cannot listen on {host} port {port}: {reason(error)}",
            "choose another address with --listen, or stop what uses this one",
        ) from None
    for each in opened:
        forbid_fragments(each)
    return opened


def _open(family: socket.AddressFamily, address: SocketAddress, count: int) -> list[socket.socket]:
    with ExitStack() as opened:
        # Bound alone first: two servers that share would take each other's peers unnoticed.
        first = opened.enter_context(open_socket(family, socket.SOCK_DGRAM, bind=address))
        sockets = [first]
        if count > 1:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            another = opened.enter_context(open_socket(family, socket.SOCK_DGRAM))
            another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            another.bind(first.getsockname())
            sockets.append(another)
        opened.pop_all()
    return sockets
