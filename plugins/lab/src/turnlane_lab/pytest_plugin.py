"""Pytest fixtures for plugin authors: a TURN relay and an echo, alive for one test.

Pytest imports this module in every run of an environment that has the lab, so everything else is
imported when a fixture is used.
"""

import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from turnlane_lab.config import RelayConfig
    from turnlane_lab.echo import EchoTarget
    from turnlane_lab.relay import Relay


@pytest.fixture
def turn_relay_config() -> "RelayConfig":
    """Say how `turn_relay` is configured; override it to test other configurations."""
    from turnlane.api import Secret  # noqa: PLC0415 - see the module's docstring
    from turnlane_lab.config import RelayConfig  # noqa: PLC0415

    return RelayConfig(users={"lab": Secret(secrets.token_urlsafe(18))})


@pytest.fixture
async def turn_relay(
    anyio_backend: object,  # noqa: ARG001 - makes anyio run this fixture
    turn_relay_config: "RelayConfig",
) -> "AsyncIterator[Relay]":
    """Run a TURN server on loopback, on UDP and TCP, for one test."""
    from turnlane_lab.relay import Relay  # noqa: PLC0415

    async with Relay(turn_relay_config) as relay:
        yield relay


@pytest.fixture
async def udp_echo(
    anyio_backend: object,  # noqa: ARG001 - makes anyio run this fixture
) -> "AsyncIterator[EchoTarget]":
    """Run a UDP echo on loopback for one test."""
    from turnlane_lab.echo import EchoTarget  # noqa: PLC0415

    async with EchoTarget() as echo:
        yield echo
