"""The lab's relay serves coturn's own test client without losing a packet.

The client is told to use Send indications: as of coturn 4.6 it takes channel numbers above 0x4FFF,
which RFC 8656 reserves and the relay refuses. ChannelData is tried with other clients.
"""

import re
import subprocess

import anyio
import pytest

from turnlane.api import RelayTransport, Secret
from turnlane_lab.config import RelayConfig
from turnlane_lab.echo import EchoTarget
from turnlane_lab.relay import Relay
from turnlane_tests.real import require

pytestmark = [
    pytest.mark.real,
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
]

CLIENTS = 4
MESSAGES = 50


async def run_client(relay, echo, transport, *options):
    """Send `MESSAGES` from each of `CLIENTS` through the relay to the echo; return the report."""
    require("turnutils_uclient")
    endpoint = relay.endpoint(transport)
    command = ["turnutils_uclient", "-s", "-c", "-l", "333", "-z", "5"]
    command += ["-m", str(CLIENTS), "-n", str(MESSAGES), "-p", str(endpoint.port)]
    command += ["-e", echo.host, "-r", str(echo.port)]
    command += ["-t"] if transport is RelayTransport.TCP else []
    with anyio.fail_after(60):
        finished = await anyio.run_process(
            [*command, *options, endpoint.host], stderr=subprocess.STDOUT, check=False
        )
    report = finished.stdout.decode()
    assert finished.returncode == 0, report
    return report


def assert_nothing_lost(report, relay, echo):
    total = CLIENTS * MESSAGES
    assert f"tot_send_msgs={total}, tot_recv_msgs={total}\n" in report
    assert re.search(r"Total lost packets 0 \(0\.0+%\), total send dropped 0 ", report), report
    assert relay.counters["packets_up"] == relay.counters["packets_down"] == total
    assert relay.counters["dropped"] == 0
    assert len(echo.sources) == CLIENTS


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_no_packet_is_lost(transport):
    config = RelayConfig(users={"ada": Secret("swordfish")})
    async with Relay(config) as relay, EchoTarget() as echo:
        report = await run_client(relay, echo, transport, "-u", "ada", "-w", "swordfish")
        assert_nothing_lost(report, relay, echo)
        assert relay.counters["unauthorized"] == 0


async def test_no_packet_is_lost_from_an_ipv6_allocation_with_rest_credentials():
    config = RelayConfig(rest_secret=Secret("north"), relay_hosts=("127.0.0.1", "::1"))
    async with Relay(config) as relay, EchoTarget("::1") as echo:
        options = ("-x", "-u", "ada", "-W", "north")
        report = await run_client(relay, echo, RelayTransport.UDP, *options)
        assert_nothing_lost(report, relay, echo)
        assert all(host == "::1" for host, _ in echo.sources)
        assert relay.counters["unauthorized"] == 0
