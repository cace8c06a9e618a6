"""The fixtures as a plugin's author gets them; pytest finds them by their entry point."""

import subprocess
import sys

import pytest

from turnlane.api import RelayTransport, Secret
from turnlane.proto.turn_client import ChannelBound
from turnlane_lab.config import RelayConfig

HEAVY = ("anyio", "turnlane", "turnlane_lab.relay", "turnlane_lab.echo", "cryptography", "aioice")


@pytest.mark.anyio
async def test_a_relay_and_an_echo_are_there(turn_relay, udp_echo, live_client):
    ((username, password),) = turn_relay.config.users.items()
    assert turn_relay.link().reveal().startswith("generic-turn://lab:")
    secret = password.reveal()
    with live_client(turn_relay, username=username, password=secret) as client:
        client.start(udp_echo.address)
        await client.until(ChannelBound)
        client.send(udp_echo.address, b"hello")
        assert await client.payload() == b"hello"


class TestOverridden:
    @pytest.fixture
    def turn_relay_config(self):
        return RelayConfig(users={"ada": Secret("swordfish")}, max_allocations=3)

    @pytest.mark.anyio
    async def test_the_configuration_can_be_overridden(self, turn_relay):
        assert turn_relay.config.max_allocations == 3
        assert "ada:swordfish" in turn_relay.link(transport=RelayTransport.TCP).reveal()


def test_a_pytest_run_without_the_fixtures_imports_nothing_of_the_lab():
    program = (
        "import sys, pytest; before = set(sys.modules); import turnlane_lab.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    imported = set(found.stdout.split())
    assert "turnlane_lab.pytest_plugin" in imported
    assert not imported.intersection(HEAVY)


def test_the_plugin_module_offers_no_hooks():
    from turnlane_lab import plugin

    assert not [name for name in vars(plugin) if name.startswith("turnlane_")]
