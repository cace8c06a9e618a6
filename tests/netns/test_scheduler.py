"""Several lanes between machines: what real TCP reaches through them, with lines of their own.

The lines are slower than most today, since a thread of this process carries every packet: what
counts is how they relate.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from turnlane_tests.netns import Internet, Line
from turnlane_tests.real import require
from turnlane_tests.walkthrough import ADDRESSES, CLIENT_INSIDE, SERVER_INSIDE, Walkthrough

pytestmark = pytest.mark.real

INNER_NETWORK = str(Path(__file__).with_name("inner_network.py"))
PORT = "7000"
WARM_UP = 3.0
SECONDS = 4.0
MEGABIT = 125_000.0

LINE = Line(rate=2 * MEGABIT, delay=0.02, queue=0.06)


class Bench:
    """A relay, a tunnel server and a network inside, over lanes that differ."""

    def __init__(self, walkthrough: Walkthrough) -> None:
        self._walkthrough = walkthrough

    @contextmanager
    def lanes(self, *lines: Line, options: tuple[str, ...] = ()) -> Iterator[None]:
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

    def goodput(self, flows: int, way: str = "up") -> float:
        """Return the bytes per second that `flows` TCP connections bring, all together."""
        return sum(self.shares(flows, way))

    def shares(self, flows: int, way: str = "up") -> list[float]:
        """Return the bytes per second that each of `flows` TCP connections brings."""
        arguments = (way, SERVER_INSIDE, PORT, str(flows), str(WARM_UP), str(SECONDS))
        said = self._walkthrough.client.run(sys.executable, INNER_NETWORK, *arguments)
        shares: list[float] = json.loads(said.splitlines()[-1])
        return shares


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    require("turnserver")
    with Internet(tmp_path, ADDRESSES) as internet, ExitStack() as programs:
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


def test_explore(bench: Bench) -> None:
    import os
    import time

    ways = os.environ.get("WAYS", "up").split(",")
    cases = {
        "one": ([LINE], [1, 16]),
        "four": ([LINE] * 4, [1, 16]),
        "2+8": ([LINE, Line(8 * MEGABIT, 0.02, 0.06)], [1, 16]),
        "best": ([Line(4 * MEGABIT, 0.01, 0.06)], [1]),
        "delays": ([Line(4 * MEGABIT, d, 0.06) for d in (0.01, 0.06)], [1]),
        "delays4": ([Line(4 * MEGABIT, d, 0.06) for d in (0.06, 0.01, 0.03, 0.02)], [1]),
    }
    for name in os.environ.get("CASES", ",".join(cases)).split(","):
        lines, flows = cases[name]
        for options in [()] + ([("--scheduler", "round-robin")] if "RR" in os.environ else []):
            with bench.lanes(*lines, options=options):
                for n in flows:
                    for way in ways:
                        t = time.monotonic()
                        shares = bench.shares(n, way)
                        print(
                            f"\n{name:8s} {options and 'RR' or ''} {way} {n:2d}: {sum(shares) / MEGABIT:.2f} Mbit/s "
                            f"min {min(shares) / MEGABIT:.2f} max {max(shares) / MEGABIT:.2f} ({time.monotonic() - t:.0f}s)",
                            end="",
                            flush=True,
                        )
