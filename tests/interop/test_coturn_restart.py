"""coturn is restarted under traffic: the session comes back by itself, as the same session."""

from pathlib import Path

import anyio
import pytest

from turnlane.runtime.events import LaneLost, LaneReady, PeerAccepted, SessionEnded
from turnlane_tests.coturn import Coturn
from turnlane_tests.tunnel import Application, Tunnel

pytestmark = [pytest.mark.anyio, pytest.mark.real]

BACK_WITHIN = 15.0
"""Seconds from the relay's end to the last lane's return."""


async def keep_talking(application: Application) -> None:
    """Go on whether datagrams come back or not, as applications do."""
    while True:
        await application.answered(0.05)


@pytest.mark.parametrize(("transport", "anyio_backend"), [("udp", "asyncio"), ("tcp", "trio")])
async def test_two_lanes_under_traffic_come_back_from_a_restart_of_the_relay(
    coturn: type[Coturn], tmp_path: Path, transport: str
) -> None:
    async with coturn() as relay, Tunnel(tmp_path) as tunnel:
        session = await tunnel.start(relay.link(transport), connections=2)
        with Application(session.listen) as first, Application(session.listen) as second:
            await first.exchange()
            await second.exchange()
            async with anyio.create_task_group() as traffic:
                traffic.start_soon(keep_talking, first)
                traffic.start_soon(keep_talking, second)
                with anyio.fail_after(BACK_WITHIN):
                    await relay.restart()
                    await tunnel.until(
                        lambda: (
                            {event.lane for event in tunnel.told(LaneReady) if event.restarts}
                            == {0, 1}
                        ),
                        "both lanes anew",
                        timeout=BACK_WITHIN,
                    )
                traffic.cancel_scope.cancel()
            assert await first.answered(5.0)
            assert await second.answered(5.0)
            assert tunnel.echo.counters["sources"] == 2, "the upstream has noticed nothing"
        with Application(session.listen) as third:
            await third.exchange(rounds=5)
        assert {event.lane for event in tunnel.told(LaneLost)} == {0, 1}
        assert not tunnel.told(SessionEnded)
        accepted = tunnel.told(PeerAccepted)
        assert len({event.client_session for event in accepted}) == 1, "it is the same session"
        assert sum(event.new_session for event in accepted) == 1
        await session.stop()
        await relay.until(
            lambda: all(one.given_back for one in relay.allocations[2:]),
            "the return of the new allocations",
        )
        assert len(relay.allocations) == 4
