"""A server's bounds in time and number, small enough to see them act."""

from collections.abc import Callable

import anyio
import pytest

from turnlane.api import Stage, TurnlaneError
from turnlane.net.dtls import DtlsAssociation
from turnlane.runtime.events import Event, PeerAccepted, PeerLost, PeerRefused
from turnlane.runtime.peer_link import PeerLink
from turnlane.runtime.profiles import PeerMode
from turnlane_lab.stand import Stand
from turnlane_tests.local_peers import EventLog, local_peers
from turnlane_tests.stranger import Stranger, stranger
from turnlane_tests.timeouts import shorten

pytestmark = pytest.mark.anyio


def lost(reason: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, PeerLost) and event.reason == reason


def refused(stage: Stage, code: str) -> Callable[[Event], bool]:
    return lambda event: (
        isinstance(event, PeerRefused) and (event.stage, event.code) == (stage, code)
    )


async def test_a_session_that_carries_nothing_ends_and_its_client_comes_back_with_a_new_one(
    event_log: EventLog,
) -> None:
    async with Stand(server={"idle_timeout": 0.5}, on_event=event_log) as stand:
        client = await stand.connect(2)
        first = [event for event in event_log.of(PeerAccepted) if event.new_session]
        await event_log.wait_for(lost("idle"))
        await event_log.wait_for(
            lambda event: (
                isinstance(event, PeerAccepted) and event.new_session and event not in first
            )
        )
        async with local_peers(client.listen, "ann") as [peer]:
            with anyio.fail_after(10):
                while not peer.replies:
                    peer.send()
                    with anyio.move_on_after(0.1):
                        await peer.heard.wait()
        assert stand.server.sessions == 1


async def test_a_peer_that_says_no_hello_is_let_go(event_log: EventLog) -> None:
    async with (
        Stand(server={"handshake_timeout": 0.5}, on_event=event_log) as stand,
        stranger(stand) as silent,
    ):
        await event_log.wait_for(refused(Stage.SESSION_HELLO, "hello_timeout"), timeout=5.0)
        assert silent.ready


async def test_a_handshake_that_stops_halfway_is_let_go(event_log: EventLog) -> None:
    async with Stand(server={"handshake_timeout": 0.5}, on_event=event_log) as stand:
        half = Stranger(stand.server.listen, stand.server.pin)
        try:
            await half.shake_halfway()
        finally:
            half.close()
        await event_log.wait_for(refused(Stage.DTLS_HANDSHAKE, "dtls_timeout"), timeout=5.0)
        assert stand.server.counters["handshakes_failed"] == 1


async def test_the_bound_on_sessions_holds_and_a_session_that_ends_makes_room() -> None:
    async with Stand(server={"max_sessions": 2}) as stand:
        first, _ = await stand.connect(2), await stand.connect()
        with pytest.raises(TurnlaneError) as caught:
            await stand.connect()
        assert (caught.value.stage, caught.value.code) == (Stage.SESSION_HELLO, "session_limit")
        assert stand.server.sessions == 2
        await first.stop()
        with anyio.fail_after(5):
            while stand.server.sessions == 2:
                await anyio.lowlevel.checkpoint()
        await stand.connect()
        assert stand.server.sessions == 2


async def test_the_bound_on_sessions_holds_for_legacy_peers_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten(monkeypatch, DtlsAssociation.client, handshake_timeout=0.5)
    async with Stand(server={"max_sessions": 1, "legacy_listen": "127.0.0.1:0"}) as stand:
        legacy = stand.server.legacy_listen
        assert legacy is not None
        how = {"peer": PeerLink(*legacy, stand.server.pin), "mode": PeerMode.LEGACY}
        client = await stand.connect(**how)
        with pytest.raises(TurnlaneError) as caught:
            await stand.connect(**how)
        assert caught.value.stage is Stage.DTLS_HANDSHAKE
        assert stand.server.counters["handshakes_refused"] > 0
        # The main port counts for itself.
        other = await stand.connect()
        async with (
            local_peers(client.listen, "ann") as [ann],
            local_peers(other.listen, "ben") as [ben],
        ):
            await ann.echoed(ann.send())
            await ben.echoed(ben.send())
        assert len(stand.echo.sources) == 2
