"""The relay serves a TURN client that is not Turnlane's: aioice's, which runs on asyncio only."""

import anyio
import pytest
from aioice import turn

from turnlane.api import Secret
from turnlane_lab.config import RelayConfig
from turnlane_lab.echo import EchoTarget
from turnlane_lab.relay import Relay


class Receiver:
    """What aioice hands received datagrams to."""

    def __init__(self) -> None:
        self.sender, self.receiver = anyio.create_memory_object_stream(100)

    def connection_made(self, transport):
        pass

    def connection_lost(self, error):
        self.sender.close()

    def datagram_received(self, data, address):
        self.sender.send_nowait((data, address))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_aioice_sends_and_receives_through_the_relay(transport):
    config = RelayConfig(users={"ada": Secret("swordfish")})
    async with Relay(config) as relay, EchoTarget(prefix=b"echo:") as echo:
        port = relay.udp_port if transport == "udp" else relay.tcp_port
        with anyio.fail_after(10):
            endpoint, receiver = await turn.create_turn_endpoint(
                Receiver,
                server_addr=(relay.host, port),
                username="ada",
                password="swordfish",
                transport=transport,
            )
            with receiver.receiver:
                for payload in (b"1", b"22", b"333", b"4" * 1200):
                    endpoint.sendto(payload, echo.address)
                    expected = (b"echo:" + payload, echo.address)
                    assert await receiver.receiver.receive() == expected
                assert relay.counters["channel_binds"] == 1
                endpoint.close()
                await relay.counters.settled("allocations_alive", 0)
                if transport == "tcp":
                    await relay.counters.settled("tcp_connections_alive", 0)
                with pytest.raises(anyio.EndOfStream):
                    await receiver.receiver.receive()
