"""Every allocation is given back to coturn, whatever way a session ends."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from turnlane.api import Stage, TurnlaneError
from turnlane.net.identity import Pin
from turnlane.net.relay_wire import StreamWire, UdpWire
from turnlane.runtime.events import Event, SessionReady, StageReached
from turnlane.runtime.peer_link import PeerLink, new_token
from turnlane_tests.backends import EACH_BACKEND
from turnlane_tests.certificates import Authority
from turnlane_tests.coturn import Coturn
from turnlane_tests.tunnel import Application, Tunnel

pytestmark = [pytest.mark.anyio, pytest.mark.real]

MAX_MESSAGES = 60
"""A startup that sends more messages than this to its relay would be a fault of its own."""


AFTER_ALLOCATION = {Stage.PEER_SETUP, Stage.DTLS_HANDSHAKE, Stage.SESSION_HELLO}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_stopped_session_has_given_every_lane_back(
    coturn: type[Coturn], tmp_path: Path, transport: str
) -> None:
    authority = Authority(tmp_path)
    async with (
        coturn(certificate=authority.issue("127.0.0.1")) as relay,
        Tunnel(tmp_path) as tunnel,
    ):
        before = open_files()
        session = await tunnel.start(
            relay.link(transport), connections=3, ca_file=authority.ca_file
        )
        assert open_files() > before
        with Application(session.listen) as application:
            await application.exchange()
        await session.stop()
        await relay.until(lambda: relay.given_back, "the return of the allocations", timeout=2.0)
        assert len(relay.allocations) == 3
        assert tunnel.server.sessions == 0
        assert open_files() == before


@pytest.mark.parametrize(("transport", "anyio_backend"), [("udp", "trio"), ("tcp", "asyncio")])
async def test_a_stale_nonce_does_not_keep_an_allocation_from_its_return(
    coturn: type[Coturn], tmp_path: Path, transport: str
) -> None:
    async with coturn("--stale-nonce=1") as relay, Tunnel(tmp_path) as tunnel:
        session = await tunnel.start(relay.link(transport))
        with Application(session.listen) as application:
            began = anyio.current_time()
            while anyio.current_time() - began < 2.5:
                await application.exchange()
                await anyio.sleep(0.02)
        assert relay.refusals(438) == 0
        await session.stop()
        await relay.until(lambda: relay.given_back, "the return of the allocation", timeout=2.0)
        assert relay.refusals(438) == 1


@EACH_BACKEND
async def test_a_host_that_is_left_in_the_middle_gives_everything_back(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    async with coturn() as relay:
        async with Tunnel(tmp_path) as tunnel:
            session = await tunnel.start(relay.link(), connections=2)
            with Application(session.listen) as application:
                await application.exchange()
        await relay.until(lambda: relay.given_back, "the return of the allocations", timeout=2.0)
        assert len(relay.allocations) == 2


def with_another_pin(link: PeerLink) -> PeerLink:
    return replace(link, pin=Pin(bytes(32)))


def with_another_token(link: PeerLink) -> PeerLink:
    return replace(link, token=new_token())


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("spoil", "failure"),
    [
        (with_another_pin, (Stage.DTLS_HANDSHAKE, "pin_mismatch")),
        (with_another_token, (Stage.SESSION_HELLO, "token_mismatch")),
    ],
    ids=["pin", "token"],
)
async def test_a_startup_that_fails_behind_the_relay_has_given_every_lane_back(
    coturn: type[Coturn],
    tmp_path: Path,
    transport: str,
    spoil: Callable[[PeerLink], PeerLink],
    failure: tuple[Stage, str],
) -> None:
    async with coturn() as relay, Tunnel(tmp_path) as tunnel:
        with pytest.raises(TurnlaneError) as caught:
            await tunnel.start(relay.link(transport), connections=2, peer=spoil(tunnel.peer))
        assert (caught.value.stage, caught.value.code) == failure
        await relay.until(lambda: relay.given_back, "the return of the allocations", timeout=2.0)
        assert relay.allocations


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tls"])
@pytest.mark.parametrize(
    "stage",
    [
        Stage.PROVIDER_RESOLVE,
        Stage.LOCAL_BIND,
        Stage.TURN_DIAL,
        Stage.TURN_ALLOCATE,
        Stage.PEER_SETUP,
        Stage.DTLS_HANDSHAKE,
        Stage.SESSION_HELLO,
    ],
)
async def test_a_startup_that_is_cancelled_at_any_stage_gives_everything_back(
    coturn: type[Coturn], tmp_path: Path, transport: str, stage: Stage
) -> None:
    authority = Authority(tmp_path)
    async with (
        coturn(certificate=authority.issue("127.0.0.1")) as relay,
        Tunnel(tmp_path) as tunnel,
    ):
        before = open_files()
        with anyio.CancelScope() as scope:

            def cancel(event: Event) -> None:
                if isinstance(event, StageReached) and event.stage is stage:
                    scope.cancel()

            tunnel.on_event = cancel
            await tunnel.start(relay.link(transport), ca_file=authority.ca_file)
        assert scope.cancelled_caught
        assert not tunnel.told(SessionReady)
        assert open_files() == before
        await relay.until(lambda: relay.given_back, "the return of the allocation", timeout=2.0)
        # Before, either may be: cancelling and starting are two tasks, and what does not have to
        # wait, such as dialling over UDP, may be done before the cancellation arrives.
        if stage in AFTER_ALLOCATION:
            assert relay.allocations


@EACH_BACKEND
@pytest.mark.parametrize(("transport", "wire"), [("udp", UdpWire), ("tcp", StreamWire)])
async def test_a_startup_that_is_cancelled_after_any_message_gives_everything_back(
    coturn: type[Coturn],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
    wire: Any,
) -> None:
    write = wire.write
    scope = anyio.CancelScope()
    left = 0

    def write_and_cancel(self: Any, message: bytes, *, droppable: bool = True) -> bool:
        nonlocal left
        written: bool = write(self, message, droppable=droppable)
        left -= 1
        if left == 0:
            scope.cancel()
        return written

    monkeypatch.setattr(wire, "write", write_and_cancel)
    async with coturn() as relay, Tunnel(tmp_path) as tunnel:
        before = open_files()
        for count in range(1, MAX_MESSAGES):
            left = count
            with anyio.CancelScope() as scope:
                session = await tunnel.start(relay.link(transport))
            if not scope.cancelled_caught:
                break
            assert open_files() == before, f"cancelled after {count} messages"
        else:
            pytest.fail("the startup never ends")
        assert count > 8, "Allocate twice, permission, channel, two flights twice, hello"
        await session.stop()
        await relay.until(lambda: relay.given_back, "the return of the allocations", timeout=2.0)
        # All but perhaps the first had asked with credentials when they were cancelled.
        assert len(relay.allocations) >= count - 1
