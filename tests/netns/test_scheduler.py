"""Several lanes between machines: what real TCP reaches through them, with lines of their own.

The lines are slower than most today, since a thread of this process carries every packet: what
counts is how they relate.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import pytest

from turnlane_tests.netns import Internet, Line
from turnlane_tests.real import require
from turnlane_tests.walkthrough import ADDRESSES, CLIENT_INSIDE, SERVER_INSIDE, Walkthrough

pytestmark = pytest.mark.real

INNER_NETWORK = str(Path(__file__).with_name("inner_network.py"))
PORT = "7000"
WARM_UP = 2.5
SECONDS = 1.2
"""Seconds before anything is measured, and of each of three windows whose median counts."""

MEGABIT = 125_000.0
PAYLOAD_SHARE = 0.9
"""What TCP's payload is of the packets on a line: 1148 bytes of about 1275."""

SLOW = Line(rate=2 * MEGABIT, delay=0.02, queue=0.1)
FAST = Line(rate=8 * MEGABIT, delay=0.02, queue=0.1)
NEAR = Line(rate=4 * MEGABIT, delay=0.01, queue=0.1)
FAR = Line(rate=4 * MEGABIT, delay=0.06, queue=0.1)

both_ways = pytest.mark.parametrize("way", ["up", "down"])


class Bench:
    """A relay, a tunnel server and a network inside, over lanes that differ."""

    def __init__(self, walkthrough: Walkthrough) -> None:
        self._walkthrough = walkthrough

    @contextmanager
    def lanes(self, *lines: Line, options: tuple[str, ...]) -> Iterator[None]:
        """Run a client with one lane for each line."""
        walkthrough = self._walkthrough
        walkthrough.client.set_lines(*lines)
        near = ("near", CLIENT_INSIDE, "127.0.0.1", "9000")
        with (
            walkthrough.tunnel_client("--connections", str(len(lines)), *options),
            walkthrough.client.start(sys.executable, INNER_NETWORK, *near) as end,
        ):
            end.wait_for(lambda said: "up" in said, "the network inside")
            yield

    def goodput(self, way: str, *lines: Line, flows: int, options: tuple[str, ...] = ()) -> float:
        """Return the bytes per second that `flows` TCP connections bring, all together."""
        arguments = (way, SERVER_INSIDE, PORT, str(flows), str(WARM_UP), str(SECONDS))
        with self.lanes(*lines, options=options):
            said = self._walkthrough.client.run(sys.executable, INNER_NETWORK, *arguments)
        windows: list[list[float]] = json.loads(said.splitlines()[-1])
        return median(map(sum, windows))


@contextmanager
def first_in_line() -> Iterator[None]:
    """Go before what else this computer does: it is not to be measured. Needs root, as all here."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, -15)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    require("turnserver")
    with first_in_line(), Internet(tmp_path, ADDRESSES) as internet, ExitStack() as programs:
        walkthrough = Walkthrough(internet)
        programs.enter_context(walkthrough.coturn())
        programs.enter_context(walkthrough.tunnel_server())
        server = walkthrough.server
        for said, arguments in (
            ("up", ("far", SERVER_INSIDE, "127.0.0.1", "51820")),
            ("listening", ("serve", SERVER_INSIDE, PORT)),
        ):
            program = server.start(sys.executable, INNER_NETWORK, *arguments)
            programs.enter_context(program).wait_for(lambda out, one=said: one in out, said)
        yield Bench(walkthrough)


@both_ways
def test_one_flow_over_lanes_of_unequal_delay_keeps_what_the_best_lane_gives(
    bench: Bench, way: str
) -> None:
    best = bench.goodput(way, NEAR, flows=1)
    assert bench.goodput(way, FAR, NEAR, flows=1) >= 0.8 * best


@both_ways
def test_one_flow_over_four_equal_lanes_exceeds_one_lane(bench: Bench, way: str) -> None:
    one = bench.goodput(way, SLOW, flows=1)
    assert bench.goodput(way, *[SLOW] * 4, flows=1) >= 1.5 * one


@both_ways
def test_sixteen_flows_over_four_equal_lanes_fill_them(bench: Bench, way: str) -> None:
    one = bench.goodput(way, SLOW, flows=16)
    assert bench.goodput(way, *[SLOW] * 4, flows=16) >= 0.85 * 4 * one


@both_ways
def test_sixteen_flows_over_a_slow_and_a_fast_lane_fill_both(bench: Bench, way: str) -> None:
    both = (SLOW.rate + FAST.rate) * PAYLOAD_SHARE
    assert bench.goodput(way, SLOW, FAST, flows=16) >= 0.8 * both


def test_lanes_over_tcp_share_what_one_of_them_does_not_take(bench: Bench) -> None:
    over_tcp = ("--mode", "tcp")
    one = bench.goodput("up", SLOW, flows=4, options=over_tcp)
    assert bench.goodput("up", SLOW, FAST, flows=4, options=over_tcp) >= 2 * one
