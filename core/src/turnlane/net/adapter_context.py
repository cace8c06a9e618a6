"""What the runtime hands to adapters: sockets for datagrams and for connections."""

import socket

from turnlane.api.adapters import DatagramSocket
from turnlane.api.errors import AdapterError, TransportError
from turnlane.api.stages import Stage
from turnlane.api.streams import ByteStream, StreamListener
from turnlane.net.streams import connect_tcp, listen_tcp
from turnlane.net.system import open_socket, reason, resolve
from turnlane.net.udp import BoundUdpSocket, ConnectedUdpSocket


class SocketContext:
    """Hands sockets to adapters (`turnlane.api.AdapterContext`)."""

    async def bind_udp(self, host: str, port: int) -> DatagramSocket:
        """Bind a socket that numbers its peers; raises `AdapterError` at `local_bind`."""
        try:
            family, address = await resolve(
                host, port, socket.SOCK_DGRAM, stage=Stage.LOCAL_BIND, code="listen_name_unresolved"
            )
        except TransportError as error:
            raise AdapterError(error.stage, error.code, error.message, error.advice) from None
        try:
            return BoundUdpSocket(open_socket(family, socket.SOCK_DGRAM, bind=address))
        except OSError as error:
            raise AdapterError(
                Stage.LOCAL_BIND,
                "local_bind_failed",
                f"cannot listen on {host} port {port}: {reason(error)}",
                "choose another address, or stop what uses this one",
            ) from None

    async def connect_udp(self, host: str, port: int, flow: int) -> DatagramSocket:
        """Connect a socket for one flow; raises `AdapterError` at `upstream_dial`."""
        try:
            family, address = await resolve(
                host,
                port,
                socket.SOCK_DGRAM,
                stage=Stage.UPSTREAM_DIAL,
                code="upstream_name_unresolved",
            )
        except TransportError as error:
            raise AdapterError(error.stage, error.code, error.message, error.advice) from None
        try:
            opened = open_socket(family, socket.SOCK_DGRAM, connect=address)
        except OSError as error:
            raise AdapterError(
                Stage.UPSTREAM_DIAL,
                "upstream_unreachable",
                f"cannot open a socket to the upstream: {reason(error)}",
                "check the server's --connect address and its routes",
            ) from None
        return ConnectedUdpSocket(opened, flow)

    async def listen_tcp(self, host: str, port: int) -> StreamListener:
        """Listen for TCP connections; raises `AdapterError` at `local_bind`."""
        return await listen_tcp(host, port)

    async def connect_tcp(self, host: str, port: int) -> ByteStream:
        """Open a TCP connection; raises `AdapterError` at `upstream_dial`."""
        return await connect_tcp(host, port)
