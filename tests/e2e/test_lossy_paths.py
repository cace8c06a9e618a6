"""Sessions over paths that lose, double, delay and reorder: they come up and keep flows apart.

The faults are seeded, which makes runs alike; as the clock is the real one, they are not the same.
So nothing counts on luck: a startup that gives up is one with a stage, and is followed by another.
"""

import anyio
import pytest

from turnlane.api import RelayTransport, Stage, TurnlaneError
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.relayed_path import RelayedPath
from turnlane.proto.lane_client import LaneClient
from turnlane.runtime.host import ClientHandle
from turnlane_lab.faults import Direction, Impairment
from turnlane_lab.stand import Stand
from turnlane_tests.local_peers import LocalPeer, local_peers
from turnlane_tests.timeouts import shorten

pytestmark = pytest.mark.anyio

SEEDS = (1, 2, 3)
LIMIT = 90.0
"""Seconds that a whole test may take; about ten are what it takes."""

ATTEMPT = 4.0
"""Seconds for each part of a startup: three flights of DTLS, after which a new start is better."""

WINDOW = 8
"""Datagrams that a local peer has under way at once.

DTLS remembers the last 64 records (RFC 6347, section 4.1.2.6): what comes later than that many
others is dropped, so that more than a lane's share of these would be lost to reordering alone.
"""

WANTED = 40
"""Datagrams that must have come back to each local peer in the end."""

GIVEN_UP = {
    (Stage.TURN_ALLOCATE, "turn_timeout"),
    (Stage.PEER_SETUP, "turn_timeout"),
    (Stage.DTLS_HANDSHAKE, "dtls_timeout"),
    (Stage.SESSION_HELLO, "hello_timeout"),
    (Stage.SESSION_HELLO, "peer_closed"),
}
"""How a startup may end that had no luck."""

CLIENT_SIDE = (Direction.CLIENT_TO_RELAY, Direction.RELAY_TO_CLIENT)
SERVER_SIDE = (Direction.RELAY_TO_PEER, Direction.PEER_TO_RELAY)

LOSS = Impairment(drop=0.2)
DOUBLES = Impairment(duplicate=0.3)
DISORDER = Impairment(reorder=0.3, delay=0.002, jitter=0.02)
EVERYTHING = Impairment(drop=0.2, duplicate=0.2, reorder=0.2, delay=0.002, jitter=0.02)


@pytest.fixture(autouse=True)
def _short_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, RelayedPath._until, timeout=ATTEMPT)
    shorten(monkeypatch, DtlsAssociation.client, handshake_timeout=ATTEMPT)
    shorten(monkeypatch, LaneClient.__init__, timeout=ATTEMPT)


async def started(stand: Stand, transport: RelayTransport) -> ClientHandle:
    """Start a session, as often as it takes."""
    while True:
        try:
            return await stand.connect(2, transport=transport)
        except TurnlaneError as error:
            if (error.stage, error.code) not in GIVEN_UP:
                raise


async def all_back(peer: LocalPeer, patience: float) -> None:
    """Wait until all that `peer` has sent is back, but no longer than `patience` seconds."""
    with anyio.move_on_after(patience):
        while len(peer.replies) < peer.sent:
            peer.heard = anyio.Event()
            await peer.heard.wait()


async def converse(
    seed: int,
    impairment: Impairment,
    directions: tuple[Direction, ...],
    transport: RelayTransport,
) -> None:
    async with Stand(seed=seed) as stand:
        stand.relay.faults.impair(*directions, impairment=impairment)
        client = await started(stand, transport)
        async with local_peers(client.listen, "ann", "ben", "cy") as peers:
            while any(len(peer.replies) < WANTED for peer in peers):
                for peer in peers * WINDOW:
                    peer.send(100)
                for peer in peers:
                    await all_back(peer, 0.1 if impairment.drop else LIMIT)
            assert [peer.strays for peer in peers] == [[], [], []]
            for peer in peers:
                # A path may double datagrams; DTLS knows a record that it has seen.
                assert len(set(peer.replies)) == len(peer.replies)
                if not impairment.drop:
                    assert len(peer.replies) == peer.sent
        assert len(stand.echo.sources) == 3
        stand.relay.faults.clear()
        await client.stop()
        await stand.relay.counters.settled("allocations_alive", 0)


async def converse_with_all_seeds(
    impairment: Impairment,
    directions: tuple[Direction, ...],
    transport: RelayTransport = RelayTransport.UDP,
) -> None:
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            for seed in SEEDS:
                tasks.start_soon(converse, seed, impairment, directions, transport)


@pytest.mark.parametrize(
    "impairment", [DOUBLES, DISORDER], ids=["doubled", "delayed and reordered"]
)
async def test_what_is_not_lost_comes_back_once_and_to_whoever_sent_it(
    impairment: Impairment,
) -> None:
    await converse_with_all_seeds(impairment, CLIENT_SIDE + SERVER_SIDE)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_session_comes_up_and_keeps_flows_apart_over_a_relay_that_is_hard_to_reach() -> (
    None
):
    """A fifth of what goes between client and relay is lost, requests and answers among it."""
    await converse_with_all_seeds(LOSS, CLIENT_SIDE)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_session_comes_up_and_keeps_flows_apart_where_everything_happens_at_once() -> None:
    await converse_with_all_seeds(EVERYTHING, SERVER_SIDE)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_session_over_tcp_bears_a_relay_that_loses_what_it_relays() -> None:
    await converse_with_all_seeds(EVERYTHING, CLIENT_SIDE, RelayTransport.TCP)
