"""Relay and server restart under traffic: the session comes back, and nobody is mixed up."""

import anyio
import pytest

from turnlane.api import RelayTransport
from turnlane.runtime.events import LaneLost, LaneReady, PeerAccepted
from turnlane_lab.stand import Stand
from turnlane_tests.local_peers import EventLog, LocalPeer, local_peers

pytestmark = pytest.mark.anyio

BACK_WITHIN = 15.0
"""Seconds that the issue allows from a restart to traffic."""


async def keep_talking(peer: LocalPeer) -> None:
    while True:
        peer.send(200)
        await anyio.sleep(0.02)


async def all_echoed(peers: list[LocalPeer], timeout: float) -> None:
    """Wait until a datagram that each peer sends from now on has come back."""
    with anyio.fail_after(timeout):
        for peer in peers:
            first = peer.sent + 1
            while not any(int(reply.split(b":")[1]) >= first for reply in peer.replies):
                peer.heard = anyio.Event()
                await peer.heard.wait()


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_four_lanes_survive_a_relay_restart_and_a_server_restart(
    transport: RelayTransport, event_log: EventLog
) -> None:
    async with Stand(on_event=event_log) as stand:
        client = await stand.connect(4, transport=transport)
        async with local_peers(client.listen, "ann", "ben", "cy") as peers:
            async with anyio.create_task_group() as talking:
                for peer in peers:
                    talking.start_soon(keep_talking, peer)
                await all_echoed(peers, 5.0)
                assert len(stand.echo.sources) == 3

                await stand.restart_relay()
                await all_echoed(peers, BACK_WITHIN)
                assert len(stand.echo.sources) == 3  # the upstream saw nothing of it

                mark = len(event_log.events)
                await stand.restart_server()
                await event_log.wait_for(
                    lambda event: isinstance(event, PeerAccepted) and event.new_session,
                    after=mark,
                    timeout=BACK_WITHIN,
                )
                await all_echoed(peers, BACK_WITHIN)
                talking.cancel_scope.cancel()
            assert [peer.strays for peer in peers] == [[], [], []]
        await client.stop()
        await stand.relay.counters.settled("allocations_alive", 0)
        assert stand.server.sessions == 0


async def test_losing_any_lane_never_changes_the_source_that_the_upstream_sees(
    event_log: EventLog,
) -> None:
    async with Stand(on_event=event_log) as stand:
        client = await stand.connect(2)
        async with local_peers(client.listen, "ann", "ben") as peers:
            for peer in peers:
                await peer.echoed(peer.send())
            for lane in range(2):
                mark = len(event_log.events)
                stand.relay.lose(client.lanes[lane].relayed)
                await event_log.wait_for(
                    lambda event, lane=lane: isinstance(event, LaneLost) and event.lane == lane,
                    after=mark,
                )
                await event_log.wait_for(
                    lambda event, lane=lane: isinstance(event, LaneReady) and event.lane == lane,
                    after=mark,
                )
                for peer in peers:
                    await peer.echoed(peer.send())
            assert len(stand.echo.sources) == 2
            assert [peer.strays for peer in peers] == [[], []]
