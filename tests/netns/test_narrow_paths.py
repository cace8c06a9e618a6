"""Paths that bear less than an Ethernet, between machines: what is told, passes and is refused."""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from turnlane_tests.netns import Internet, Machine, until
from turnlane_tests.real import require
from turnlane_tests.walkthrough import ADDRESSES, Walkthrough, wait_until_ready

pytestmark = pytest.mark.real

UDP_ECHO = str(Path(__file__).with_name("udp_echo.py"))
UPSTREAM_PORT = "51820"
"""Where the walk-through's server finds its upstream."""

NARROW = 1300
NEAR, FAR = "near", "far"
AROUND = {NEAR: 20 + 8 + 4 + 37 + 4, FAR: 20 + 8 + 37 + 4}
"""Bytes around a datagram on the way to the relay, and on the way to the server."""

FOUND_WITHIN = 15.0
CONFIRMED_WITHIN = 45.0
"""Seconds until a lane in use notices what nobody tells: it asks every 30."""


@pytest.fixture
def internet(tmp_path: Path) -> Iterator[Internet]:
    """Give the client's, the relay's and the server's machine."""
    require("turnserver")
    with Internet(tmp_path, ADDRESSES) as internet:
        yield internet


@pytest.fixture
def walkthrough(internet: Internet) -> Walkthrough:
    """Give the steps of the walk-through."""
    walkthrough = Walkthrough(internet)
    walkthrough.client.delay = 0.01
    return walkthrough


def came_back(walkthrough: Walkthrough, *sizes: int) -> list[int]:
    """Return which sizes come back from the upstream."""
    asked = ("ask", "127.0.0.1", "9000", *map(str, sizes))
    return [int(size) for size in walkthrough.client.run(sys.executable, UDP_ECHO, *asked).split()]


class Tunnel:
    """A tunnel whose upstream is an echo, while the `with` block lasts."""

    def __init__(self, walkthrough: Walkthrough, *options: str) -> None:
        self._walkthrough = walkthrough
        self._options = options
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        walkthrough, stack = self._walkthrough, self._stack
        stack.enter_context(walkthrough.coturn())
        serve = ("serve", "127.0.0.1", UPSTREAM_PORT)
        echo = walkthrough.server.start(sys.executable, UDP_ECHO, *serve)
        stack.enter_context(echo).wait_for(lambda said: "listening" in said, "that it listens")
        self.server = stack.enter_context(walkthrough.tunnel_server())
        self.client = stack.enter_context(walkthrough.starting_client(*self._options))
        self.ready = wait_until_ready(self.client)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def mtu(self) -> int:
        """What the client has told last."""
        told = re.findall(r" mtu=(\d+)", self.client.output)
        return int(told[-1])


def narrow(walkthrough: Walkthrough, leg: str) -> Machine:
    """Return the machine at the end of a leg that is not the relay."""
    return walkthrough.client if leg == NEAR else walkthrough.server


def fragments(walkthrough: Walkthrough) -> tuple[int, int]:
    """Return the fragments that our two machines have made, and those of the relay.

    A relay that a router has told makes fragments of what is larger, were it a probe.
    """
    ours = walkthrough.client.fragments_made + walkthrough.server.fragments_made
    return ours, walkthrough.relay.fragments_made


def test_on_an_ethernet_the_ready_line_tells_what_fits(
    walkthrough: Walkthrough, internet: Internet
) -> None:
    with Tunnel(walkthrough) as tunnel:
        assert tunnel.ready["mtu"] == str(1500 - AROUND[NEAR])
        fits = tunnel.mtu
        assert came_back(walkthrough, fits, fits + 1) == [fits]
        assert fragments(walkthrough) == (0, 0)
        assert internet.fragments == 0


@pytest.mark.parametrize("leg", [NEAR, FAR])
@pytest.mark.parametrize("where", ["device", "router", "black hole"])
def test_the_exact_size_is_told_passes_and_nothing_is_fragmented(
    walkthrough: Walkthrough, leg: str, where: str
) -> None:
    machine = narrow(walkthrough, leg)
    if where == "device":
        machine.set_device_mtu(NARROW)
    else:
        machine.mtu, machine.tells_mtu = NARROW, where == "router"
    fits = NARROW - AROUND[leg]
    with Tunnel(walkthrough) as tunnel:
        until(lambda: tunnel.mtu == fits, f"word that {fits} fit", timeout=FOUND_WITHIN)
        if where == "device":
            assert tunnel.ready["mtu"] == str(fits), "known before it is ready"
        if where != "router":
            assert fragments(walkthrough) == (0, 0)
        made_before = fragments(walkthrough)[1]
        assert came_back(walkthrough, fits, fits + 1, 600) == [fits, 600]
        said = tunnel.client.output
        assert f"datagrams of {fits + 1} bytes do not fit: the path bears {fits}" in said
        assert f"set MTU = {fits - 32} or less" in said
        assert said.count("datagram_too_large") == 1
        assert fragments(walkthrough) == (0, made_before)


@pytest.mark.parametrize("leg", [NEAR, FAR])
def test_over_tcp_only_the_way_from_relay_to_server_counts(
    walkthrough: Walkthrough, leg: str
) -> None:
    narrow(walkthrough, leg).set_device_mtu(NARROW)
    fits = (NARROW if leg == FAR else 1500) - AROUND[FAR]
    with Tunnel(walkthrough, "--mode", "tcp") as tunnel:
        until(lambda: tunnel.mtu == fits, f"word that {fits} fit", timeout=FOUND_WITHIN)
        assert came_back(walkthrough, fits, fits + 1) == [fits]
        assert fragments(walkthrough) == (0, 0)


@pytest.mark.parametrize(("leg", "tells"), [(NEAR, True), (FAR, True), (FAR, False)])
def test_a_path_that_becomes_narrower_is_noticed(
    walkthrough: Walkthrough, leg: str, tells: bool
) -> None:
    with Tunnel(walkthrough) as tunnel:
        machine = narrow(walkthrough, leg)
        machine.mtu, machine.tells_mtu = NARROW, tells
        fits = NARROW - AROUND[leg]

        def noticed() -> bool:
            came_back(walkthrough, 100, 1400)
            return tunnel.mtu == fits

        until(noticed, f"word that {fits} fit", timeout=FOUND_WITHIN if tells else CONFIRMED_WITHIN)
        made_before = fragments(walkthrough)[1]
        assert came_back(walkthrough, fits, fits + 1) == [fits]
        assert fragments(walkthrough) == (0, made_before)
