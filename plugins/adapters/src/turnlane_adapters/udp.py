"""UDP at both ends: a local address that applications send to, an upstream that it comes out at."""

import msgspec

from turnlane.api import AdapterContext, DatagramSocket, Stage
from turnlane_adapters.addresses import parse_address


class UdpIngress:
    """Binds a UDP address at the client; every sender there is a flow of its own."""

    def __init__(
        self,
        context: AdapterContext,
        address: str,
        settings: msgspec.Struct | None = None,  # noqa: ARG002 part of the contract, there are none
    ) -> None:
        self._context = context
        self._address = address

    async def open(self) -> DatagramSocket:
        """Bind and return the socket; port 0 lets the system choose.

        Raises `AdapterError` at `local_bind`.
        """
        host, port = parse_address(self._address, Stage.LOCAL_BIND, any_port=True)
        return await self._context.bind_udp(host, port)


class UdpEgress:
    """Connects a UDP socket to the upstream at the server, one for each flow."""

    def __init__(
        self,
        context: AdapterContext,
        address: str,
        settings: msgspec.Struct | None = None,  # noqa: ARG002 part of the contract, there are none
    ) -> None:
        self._context = context
        self._address = address

    async def prepare(self) -> None:
        """Connect once and let go: the name resolves and there is a route.

        Raises `AdapterError` at `upstream_dial`. Whether anybody answers is not known: UDP has no
        handshake.
        """
        socket = await self.connect(0)
        socket.close()

    async def connect(self, flow: int) -> DatagramSocket:
        """Open the upstream socket of one flow; raises `AdapterError` at `upstream_dial`."""
        host, port = parse_address(self._address, Stage.UPSTREAM_DIAL, any_port=False)
        return await self._context.connect_udp(host, port, flow)
