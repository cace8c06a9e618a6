"""The README's walk-through between machines: real WireGuard through coturn, on a lossy path."""

import stat
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from turnlane_tests.netns import UPLINK, Internet, until
from turnlane_tests.walkthrough import (
    CLIENT_INSIDE,
    SERVER_INSIDE,
    Walkthrough,
    allocations,
)

pytestmark = pytest.mark.real

TCP_ECHO = str(Path(__file__).with_name("tcp_echo.py"))
ECHO_PORT = "7000"

LARGEST_PING = ("-s", "1252", "-M", "do")
"""A ping that fills an inner packet of 1280 bytes and must not be fragmented there."""

OVERSIZED_PING = ("-s", "1392", "-M", "dont")
"""A ping of 1420 bytes, WireGuard's own choice of an MTU: it has to be fragmented inside."""

ANSWER_TIMEOUT = 10.0
BACK_WITHIN = 15.0
"""Seconds from the end of a server or a relay, which is started again, to the next answer."""

GIVES_UP_WITHIN = 15.0
"""Seconds from a client's start to its end when the relay does not answer: about 12."""


def wait_for_answer(
    walkthrough: Walkthrough, timeout: float = ANSWER_TIMEOUT, *, ping: Sequence[str] = ()
) -> None:
    """Ping through WireGuard, both ways, until it is answered: any single packet may be lost."""
    for here, there in ((walkthrough.client, SERVER_INSIDE), (walkthrough.server, CLIENT_INSIDE)):
        answered = partial(here.reaches, there, *ping)
        until(answered, f"answer from {there} through WireGuard", timeout=timeout)


def transfer(walkthrough: Walkthrough, size: int) -> None:
    """Send `size` bytes through WireGuard over TCP and get them back, intact."""
    here = sys.executable
    with walkthrough.server.start(here, TCP_ECHO, "serve", SERVER_INSIDE, ECHO_PORT) as echo:
        echo.wait_for(lambda said: "listening" in said, "that it listens")
        check = ("check", SERVER_INSIDE, ECHO_PORT, str(size))
        assert "came back as they were sent" in walkthrough.client.run(here, TCP_ECHO, *check)


def test_the_walkthrough_carries_full_packets_and_tcp_over_a_slow_and_lossy_path(
    walkthrough: Walkthrough, internet: Internet
) -> None:
    with (
        walkthrough.coturn() as coturn,
        walkthrough.tunnel_server() as server,
        walkthrough.tunnel_client() as client,
        walkthrough.wireguard() as (near, far),
    ):
        near.wait_for_handshake()
        wait_for_answer(walkthrough, ping=LARGEST_PING)
        wait_for_answer(walkthrough, ping=OVERSIZED_PING)
        transfer(walkthrough, 3_000_000)
        assert far.endpoint.startswith("127.0.0.1:"), "it comes from the tunnel server"
        assert len(allocations(coturn)["made"]) == 1
        assert sum("peer_accepted" in line for line in server.lines) == 1
        assert not [line for line in client.lines if "lane_lost" in line]
    assert internet.lost > 10, "the path was lossy"
    assert internet.fragments == 0, "an inner MTU of 1280 leaves room for everything around it"
    for name, start in (("peer", "turnlane://vpn.example.org:56000?pin="), ("relay", "generic-")):
        file = walkthrough.client.home / name
        assert file.read_text().startswith(start)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_wireguard_is_back_by_itself_after_a_restart_of_the_tunnel_server(
    walkthrough: Walkthrough,
) -> None:
    with walkthrough.coturn(), ExitStack() as servers:
        server = servers.enter_context(walkthrough.tunnel_server())
        peer = (walkthrough.client.home / "peer").read_text()
        with walkthrough.tunnel_client() as client, walkthrough.wireguard():
            wait_for_answer(walkthrough)
            assert server.stop() == 0
            since = time.monotonic()
            servers.enter_context(walkthrough.tunnel_server())
            wait_for_answer(walkthrough, since + BACK_WITHIN - time.monotonic())
            transfer(walkthrough, 200_000)
            assert (walkthrough.client.home / "peer").read_text() == peer, "the key has stayed"
            assert [line for line in client.lines if "lane_lost" in line]


def test_wireguard_is_back_by_itself_after_a_restart_of_the_relay(
    walkthrough: Walkthrough,
) -> None:
    with ExitStack() as relays:
        coturn = relays.enter_context(walkthrough.coturn())
        with (
            walkthrough.tunnel_server(),
            walkthrough.tunnel_client(),
            walkthrough.wireguard() as (_, far),
        ):
            wait_for_answer(walkthrough)
            source = far.endpoint
            coturn.stop()
            since = time.monotonic()
            coturn = relays.enter_context(walkthrough.coturn())
            wait_for_answer(walkthrough, since + BACK_WITHIN - time.monotonic())
            transfer(walkthrough, 200_000)
            assert far.endpoint == source, "WireGuard has not seen another source"
            assert len(allocations(coturn)["made"]) == 1


def test_where_udp_is_blocked_the_client_says_that_the_relay_does_not_answer(
    walkthrough: Walkthrough, internet: Internet
) -> None:
    walkthrough.client.blocks_udp = True
    with walkthrough.coturn() as coturn, walkthrough.tunnel_server():
        with walkthrough.starting_client() as client:
            assert client.ended(GIVES_UP_WITHIN) == 1
        (failure,) = (line for line in client.lines if line.startswith("stage="))
        assert failure.startswith("stage=turn_allocate code=turn_timeout: ")
        assert "--mode" in failure, "it says what to try"
        assert internet.blocked > 1, "it has asked more than once"
        assert not allocations(coturn)["made"]


def test_where_udp_is_blocked_wireguard_goes_over_tcp(
    walkthrough: Walkthrough, internet: Internet
) -> None:
    walkthrough.client.blocks_udp = True
    with (
        walkthrough.coturn(),
        walkthrough.tunnel_server(),
        walkthrough.tunnel_client("--mode", "tcp") as client,
        walkthrough.wireguard(),
    ):
        wait_for_answer(walkthrough)
        transfer(walkthrough, 500_000)
        assert not [line for line in client.lines if "lane_lost" in line]
        assert internet.blocked == 0, "nothing has tried UDP"


def test_sigterm_of_everything_leaves_nothing(walkthrough: Walkthrough, internet: Internet) -> None:
    with ExitStack() as programs:
        coturn = programs.enter_context(walkthrough.coturn())
        server = programs.enter_context(walkthrough.tunnel_server())
        client = programs.enter_context(walkthrough.tunnel_client("--connections", "3"))
        interfaces = programs.enter_context(walkthrough.wireguard())
        wait_for_answer(walkthrough)
        assert len(allocations(coturn)["made"]) == 3

        assert client.stop() == 0
        until(
            lambda: allocations(coturn)["deleted"] == allocations(coturn)["made"],
            "end of all allocations",
            timeout=ANSWER_TIMEOUT,
        )
        assert allocations(coturn)["given_back"] == allocations(coturn)["made"]
        assert server.stop() == 0
        coturn.stop()
        for interface in interfaces:
            interface.stop()
        for machine in internet.machines.values():
            assert machine.processes == []
            assert machine.devices == {"lo", UPLINK}
