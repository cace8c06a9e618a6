"""The TURN client and an honest relay on seeded networks that lose, duplicate, delay, reorder."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from turnlane.proto.stun import Method
from turnlane.proto.turn_events import (
    AllocationFailed,
    AllocationLost,
    AllocationRefreshed,
    AllocationSucceeded,
    ChannelBound,
    DataReceived,
    Deallocated,
    PeerRefused,
    PermissionInstalled,
)
from turnlane.testing.network import Conditions, run

Make = Callable[..., Any]

HOUR = 3600.0


def weather(seed: int) -> Conditions:
    """Conditions that differ from seed to seed, from fair to rough."""
    random = Random(seed)
    shortest = random.uniform(0.001, 0.150)
    return Conditions(
        loss=random.uniform(0.0, 0.15),
        duplication=random.uniform(0.0, 0.2),
        min_delay=shortest,
        max_delay=shortest + random.uniform(0.0, 0.4),
    )


@pytest.mark.parametrize("block", range(10))
def test_in_all_weathers_a_client_connects_speaks_and_leaves_nothing_behind(
    world: Make, block: int
) -> None:
    unheard = 0
    for seed in range(block * 40, block * 40 + 40):
        made = world(seed, weather(seed))
        made.host.start(0.0)
        now = run(
            made.network,
            made.endpoints,
            until=lambda made=made: len(made.host.happened(DataReceived)) >= 20,
        )
        assert len(made.host.happened(AllocationSucceeded)) == 1, seed
        assert len(made.host.happened(PermissionInstalled)) == 1, seed
        assert len(made.host.happened(ChannelBound)) <= 1, seed
        assert not made.relay.lapses, seed
        spoken = {b"%d" % number for number in range(1, made.host.spoken + 1)}
        assert set(made.echo.received) <= spoken, seed
        for event in made.host.happened(DataReceived):
            assert event.payload.removeprefix(b"echo of ") in spoken, seed

        made.host.close(now)
        closed = now
        now = run(
            made.network,
            made.endpoints,
            until=lambda made=made: bool(made.host.happened(Deallocated)),
            now=now,
        )
        assert now - closed <= 1.5, seed
        # What is still under way arrives.
        made.network.conditions = Conditions()
        with pytest.raises(TimeoutError, match="nothing is left"):
            run(made.network, made.endpoints, until=lambda: False, now=now)
        if made.relay.releases:
            assert not made.relay.allocations, seed
        else:
            unheard += 1
        assert made.host.client.statistics.malformed == 0, seed
        assert made.host.client.statistics.unauthenticated == 0, seed
    # That the network loses all four of a release has to be rare: 0.05 % at its worst.
    assert unheard <= 1


@pytest.mark.parametrize(
    ("client", "relay"),
    [
        ({}, {}),
        ({}, {"nonce_lifetime": 45.0}),
        ({"lifetime": 3600}, {"max_lifetime": 3600, "nonce_lifetime": 600.0}),
        (
            {"permission_lifetime": 100.0, "channel_lifetime": 130.0},
            {"permission_lifetime": 100.0, "channel_lifetime": 130.0, "max_lifetime": 120},
        ),
    ],
    ids=["rfc", "short-nonces", "long", "short"],
)
@pytest.mark.parametrize("seed", range(6))
def test_for_hours_nothing_ever_lapses_at_the_relay(
    world: Make, seed: int, client: dict[str, Any], relay: dict[str, Any]
) -> None:
    made = world(seed, weather(seed), client=client, relay=relay, interval=30.0)
    made.host.start(0.0)
    hours = 3 * HOUR
    with pytest.raises(TimeoutError, match="not reached"):
        run(made.network, made.endpoints, until=lambda: False, limit=hours)
    assert not made.relay.lapses
    for kind in (AllocationFailed, AllocationLost, PeerRefused, Deallocated):
        assert made.host.happened(kind) == []

    granted = made.host.happened(AllocationSucceeded)[0].lifetime
    pause = max(granted - 60, granted / 2)
    refreshed = [at for at, event in made.host.events if isinstance(event, AllocationRefreshed)]
    assert len(refreshed) >= 0.8 * (hours // pause)
    starts = [0.0, *refreshed]
    for earlier, later in zip(starts, refreshed, strict=False):
        assert later - earlier < granted
    assert made.relay.handled[Method.CREATE_PERMISSION] >= hours // 240
    assert made.relay.handled[Method.CHANNEL_BIND] >= hours // 540
    # A question and its echo take four hops; what the network did not lose came back.
    survivors = made.host.spoken * (1 - made.network.conditions.loss) ** 4
    assert len(made.host.happened(DataReceived)) > 0.85 * survivors


def test_a_relay_whose_channels_bring_no_permission_is_served_as_well(world: Make) -> None:
    for seed in range(10):
        made = world(seed, weather(seed), relay={"channels_permit": False}, interval=30.0)
        made.host.start(0.0)
        with pytest.raises(TimeoutError, match="not reached"):
            run(made.network, made.endpoints, until=lambda: False, limit=60.0)
        # Such a relay may drop what is sent before the permission itself was asked for.
        made.relay.lapses.clear()
        with pytest.raises(TimeoutError, match="not reached"):
            run(made.network, made.endpoints, until=lambda: False, now=60.0, limit=HOUR)
        assert not made.relay.lapses, seed
        assert made.host.happened(AllocationLost) == [], seed


def test_with_lifetimes_of_seconds_it_keeps_up_too(world: Make) -> None:
    short = {"permission_lifetime": 4.0, "channel_lifetime": 6.0}
    for seed in range(20):
        made = world(
            seed,
            Conditions(loss=0.01, min_delay=0.02, max_delay=0.06),
            client=short,
            relay={**short, "max_lifetime": 5, "nonce_lifetime": 3.0},
        )
        made.host.start(0.0)
        with pytest.raises(TimeoutError, match="not reached"):
            run(made.network, made.endpoints, until=lambda: False, limit=60.0)
        assert not made.relay.lapses, seed
        assert len(made.host.happened(AllocationRefreshed)) >= 20, seed


@pytest.mark.parametrize("block", range(4))
def test_a_wrong_password_is_always_said_and_never_waited_upon(world: Make, block: int) -> None:
    for seed in range(block * 50, block * 50 + 50):
        made = world(seed, weather(seed), password="guess")
        made.host.start(0.0)
        now = run(
            made.network,
            made.endpoints,
            until=lambda made=made: made.host.client.finished,
            limit=79.0,
        )
        assert made.host.happened(AllocationFailed) == [
            AllocationFailed(401, "401 Unauthenticated")
        ], seed
        assert not made.relay.allocations, seed
        assert now < 79.0, seed


def test_a_silent_relay_is_never_waited_for_longer_than_the_rfc_says(world: Make) -> None:
    made = world(1, Conditions(loss=1.0))
    made.host.start(0.0)
    now = run(made.network, made.endpoints, until=lambda: made.host.client.finished)
    assert now == 39.5
    assert made.host.happened(AllocationFailed) == [
        AllocationFailed(None, "no answer within 39.5 s")
    ]


def test_closed_at_any_moment_it_says_so_and_leaves_nothing_behind(world: Make) -> None:
    for seed in range(200):
        random = Random(seed)
        made = world(
            seed,
            Conditions(duplication=0.1, min_delay=0.01, max_delay=0.2),
        )
        made.host.start(0.0)
        moment = random.uniform(0.0, 1.0)
        with pytest.raises(TimeoutError, match="not reached"):
            run(made.network, made.endpoints, until=lambda: False, limit=moment)
        made.host.close(moment)
        now = run(
            made.network,
            made.endpoints,
            until=lambda made=made: bool(made.host.happened(Deallocated)),
            now=moment,
        )
        assert now - moment <= 1.5, seed
        with pytest.raises(TimeoutError, match="nothing is left"):
            run(made.network, made.endpoints, until=lambda: False, now=now)
        assert not made.relay.allocations, seed


def test_a_relay_that_forgets_everything_is_noticed_at_the_next_refresh(world: Make) -> None:
    made = world(3, Conditions())
    made.host.start(0.0)
    now = run(made.network, made.endpoints, until=lambda: bool(made.host.happened(ChannelBound)))
    made.relay.allocations.clear()
    now = run(
        made.network,
        made.endpoints,
        until=lambda: made.host.client.finished,
        now=now,
        limit=HOUR,
    )
    assert now < 300
    assert made.host.happened(AllocationLost) == [AllocationLost(437, "437 Allocation Mismatch")]


def test_a_path_that_breaks_for_half_a_minute_is_survived(world: Make) -> None:
    made = world(4, Conditions(), interval=5.0)
    now = 0.0
    made.host.start(now)
    for seconds, broken in ((539.0, False), (30.0, True), (631.0, False)):
        made.network.drop = lambda _, broken=broken: broken
        with pytest.raises(TimeoutError, match="not reached"):
            run(made.network, made.endpoints, until=lambda: False, now=now, limit=seconds)
        now += seconds
    assert made.host.client.statistics.retransmissions >= 2 * 5
    assert not made.relay.lapses
    assert made.host.happened(AllocationLost) == []
