"""What coturn holds for a session is renewed before it runs out, and the traffic notices nothing.

coturn tells the lifetime of an allocation and of a nonce's end, so that these can be short for any
client. The lifetimes of permissions (300 s) and channels (600 s) are the RFC's and never told:
coturn can be made to hold both for seconds, but no client would know. The tests therefore tell the
TURN client, which takes them as arguments, and leave everything else as it is.
"""

from functools import partial
from pathlib import Path

import anyio
import pytest

from turnlane.net import relayed_path
from turnlane.proto.turn_client import TurnClient
from turnlane.runtime.events import LaneLost
from turnlane_tests.backends import ASYNCIO
from turnlane_tests.coturn import Coturn, RelaySession
from turnlane_tests.tunnel import Application, Tunnel

pytestmark = [pytest.mark.anyio, pytest.mark.real]

LIFETIME = 4
"""Seconds that coturn holds anything; renewal comes at half of that."""

STALE_AFTER = 3
TIMES = 3

SHORT = (
    f"--max-allocate-lifetime={LIFETIME}",
    f"--permission-lifetime={LIFETIME}",
    f"--channel-lifetime={LIFETIME}",
    f"--stale-nonce={STALE_AFTER}",
)

PAUSE = 0.01
"""Seconds between two datagrams of an application: a modest rate, at which none may be lost."""


async def keep_exchanging(application: Application, enough: anyio.Event) -> None:
    while not enough.is_set():
        await application.exchange()
        await anyio.sleep(PAUSE)


def is_renewed(session: RelaySession) -> bool:
    """Whether each thing that coturn holds was renewed several times, over changes of the nonce."""
    return (
        session.refreshes >= TIMES
        and session.processed["CREATE_PERMISSION"] > TIMES
        and session.processed["CHANNEL_BIND"] > TIMES
        and session.errors[438] >= 2
    )


@pytest.mark.parametrize(("transport", "anyio_backend"), [("udp", "asyncio"), ("tcp", "trio")])
async def test_allocation_permission_and_channel_are_renewed_under_traffic_without_a_loss(
    coturn: type[Coturn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    informed = partial(TurnClient, permission_lifetime=LIFETIME, channel_lifetime=LIFETIME)
    monkeypatch.setattr(relayed_path, "TurnClient", informed)
    async with coturn(*SHORT) as relay, Tunnel(tmp_path) as tunnel:
        session = await tunnel.start(relay.link(transport), connections=2)
        with Application(session.listen) as first, Application(session.listen) as second:
            enough = anyio.Event()
            async with anyio.create_task_group() as traffic:
                traffic.start_soon(keep_exchanging, first, enough)
                traffic.start_soon(keep_exchanging, second, enough)
                await relay.until(
                    lambda: all(map(is_renewed, relay.allocations)),
                    f"{TIMES} renewals of everything",
                    timeout=LIFETIME * (TIMES + 2),
                )
                enough.set()
            assert min(first.exchanged, second.exchanged) > 500
        assert not tunnel.told(LaneLost)
        assert len(relay.allocations) == 2, "the lanes are the ones that were made at first"
        assert not any(one.deleted for one in relay.allocations)
        assert tunnel.echo.counters["sources"] == 2


@ASYNCIO
async def test_a_channel_that_nobody_renews_ends_which_shows_that_coturn_means_it(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    async with (
        coturn("--permission-lifetime=3", "--channel-lifetime=3") as relay,
        Tunnel(tmp_path) as tunnel,
    ):
        session = await tunnel.start(relay.link())
        with Application(session.listen) as application:
            assert await application.answered(1.0)
            for _ in range(500):
                if not await application.answered(1.0):
                    return
                await anyio.sleep(PAUSE)
        pytest.fail("the channel goes on for ever")


@ASYNCIO
async def test_a_session_outlives_its_turn_rest_credentials_and_renews_them_for_new_lanes(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    secret = "shared"
    async with (
        coturn("--max-allocate-lifetime=2", secret=secret) as relay,
        Tunnel(tmp_path) as tunnel,
    ):
        session = await tunnel.start(relay.rest_link(secret, lifetime=1, transport="tcp"))
        with Application(session.listen) as application:
            enough = anyio.Event()
            async with anyio.create_task_group() as traffic:
                traffic.start_soon(keep_exchanging, application, enough)
                await relay.until(lambda: relay.allocations[0].refreshes >= 3, "three refreshes")
                enough.set()
            (minted,) = {one.username for one in relay.allocations}
            await relay.restart()
            await tunnel.until(
                lambda: session.ready_lanes == 1 and bool(tunnel.told(LaneLost)), "a new lane"
            )
            await application.exchange()
        assert relay.allocations[-1].username != minted
