"""What coturn refuses reaches the operator under its own name, and nothing stays behind."""

import time
from pathlib import Path

import anyio
import pytest

from turnlane.api import ProviderError, Stage, TransportError, TurnlaneError
from turnlane_tests.backends import ASYNCIO, EACH_BACKEND
from turnlane_tests.coturn import PASSWORD, USER, Coturn
from turnlane_tests.tunnel import Application, Tunnel

pytestmark = [pytest.mark.anyio, pytest.mark.real]

SHARED_SECRET = "a secret/that:needs+encoding"


def what_failed(error: TurnlaneError) -> tuple[Stage, str]:
    return error.stage, error.code


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("username", "password"), [(USER, "wrong"), ("stranger", PASSWORD)], ids=["password", "user"]
)
async def test_a_wrong_password_and_an_unknown_user_are_told_as_such(
    coturn: type[Coturn], tmp_path: Path, transport: str, username: str, password: str
) -> None:
    async with coturn() as relay, Tunnel(tmp_path) as tunnel:
        began = anyio.current_time()
        with pytest.raises(TransportError) as caught:
            await tunnel.start(relay.link(transport, username, password))
        assert what_failed(caught.value) == (Stage.TURN_ALLOCATE, "turn_unauthorized")
        assert "user name and password" in caught.value.advice
        assert "401" in caught.value.message
        assert password not in str(caught.value)
        assert anyio.current_time() - began < 1.5, "an answer is not waited for any longer"
        assert not relay.allocations


@EACH_BACKEND
@pytest.mark.parametrize("option", ["--user-quota=1", "--total-quota=1"])
async def test_a_quota_ends_the_session_and_every_lane_is_given_back(
    coturn: type[Coturn], tmp_path: Path, option: str
) -> None:
    async with coturn(option) as relay, Tunnel(tmp_path) as tunnel:
        with pytest.raises(TransportError) as caught:
            await tunnel.start(relay.link(), connections=2)
        assert what_failed(caught.value) == (Stage.TURN_ALLOCATE, "turn_quota_reached")
        assert "--connections" in caught.value.advice
        assert relay.refusals(486) == 1
        assert len(relay.allocations) == 1
        await relay.until(lambda: relay.given_back and relay.forgotten, "the end of the first lane")
        # The quota has room again, since nothing of the failed session is left.
        session = await tunnel.start(relay.link(), connections=1)
        with Application(session.listen) as application:
            await application.exchange()


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_relay_that_may_not_reach_the_server_says_so(
    coturn: type[Coturn], tmp_path: Path, transport: str
) -> None:
    async with coturn("--denied-peer-ip=127.0.0.1") as relay, Tunnel(tmp_path) as tunnel:
        with pytest.raises(TransportError) as caught:
            await tunnel.start(relay.link(transport))
        assert what_failed(caught.value) == (Stage.PEER_SETUP, "turn_forbidden")
        assert len(relay.allocations) == 1
        await relay.until(lambda: relay.given_back, "the allocation's return")


@ASYNCIO
async def test_a_relay_that_does_not_relay_udp_says_so(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    async with coturn("--no-udp-relay") as relay, Tunnel(tmp_path) as tunnel:
        with pytest.raises(TransportError) as caught:
            await tunnel.start(relay.link())
        assert what_failed(caught.value) == (Stage.TURN_ALLOCATE, "turn_unsupported_transport")


@EACH_BACKEND
async def test_minted_turn_rest_credentials_are_taken(coturn: type[Coturn], tmp_path: Path) -> None:
    async with coturn(secret=SHARED_SECRET) as relay, Tunnel(tmp_path) as tunnel:
        session = await tunnel.start(relay.rest_link(SHARED_SECRET), connections=2)
        with Application(session.listen) as application:
            await application.exchange(rounds=5)
        names = {one.username for one in relay.allocations}
        assert len(names) == 1, "both lanes use what was minted once"
        expiry, _, label = str(names.pop()).partition(":")
        assert 590 < int(expiry) - time.time() <= 600  # noqa: TID251 - coturn reads this clock too
        assert label == "label"


@ASYNCIO
async def test_credentials_minted_from_the_wrong_secret_are_refused(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    async with coturn(secret=SHARED_SECRET) as relay, Tunnel(tmp_path) as tunnel:
        with pytest.raises(TransportError) as caught:
            await tunnel.start(relay.rest_link("another secret"))
        assert what_failed(caught.value) == (Stage.TURN_ALLOCATE, "turn_unauthorized")


@ASYNCIO
async def test_a_turn_rest_user_name_whose_time_has_passed_is_not_even_tried(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    async with coturn(secret=SHARED_SECRET) as relay, Tunnel(tmp_path) as tunnel:
        with pytest.raises(ProviderError) as caught:
            await tunnel.start(relay.link("udp", "1600000000:label", "whatever"))
        assert what_failed(caught.value) == (Stage.PROVIDER_RESOLVE, "expired_credentials")
        assert not relay.sessions


@ASYNCIO
async def test_a_clock_that_is_behind_the_relays_is_blamed_on_the_credentials_lifetime(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    def wall_time() -> float:
        return time.time() - 7200  # noqa: TID251 - the clock of a machine that is two hours late

    async with coturn(secret=SHARED_SECRET) as relay, Tunnel(tmp_path, wall_time=wall_time) as late:
        with pytest.raises(TransportError) as caught:
            await late.start(relay.rest_link(SHARED_SECRET, lifetime=600))
        assert what_failed(caught.value) == (Stage.TURN_ALLOCATE, "turn_unauthorized")
        assert "expire" in caught.value.advice
        assert not relay.allocations
