"""Legacy raw peers both ways, against programs that are not ours: pion and OpenSSL."""

from pathlib import Path

import anyio
import pytest

from turnlane.api import PolicyError
from turnlane.net.identity import Identity
from turnlane.runtime.events import PeerAccepted, PeerLost, PeerRefused
from turnlane.runtime.peer_link import PeerLink, join_host_port
from turnlane.runtime.profiles import PeerMode
from turnlane_lab.stand import USER, Stand
from turnlane_tests.local_peers import EventLog, local_peers
from turnlane_tests.openssl import openssl_client, openssl_server, server_address
from turnlane_tests.pion import Pion, address_of

pytestmark = [pytest.mark.real, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_our_legacy_client_reaches_a_pion_server_through_a_relay(pion: Pion) -> None:
    with pion.server() as server:
        host, port = await anyio.to_thread.run_sync(address_of, server)
        async with Stand() as stand:
            client = await stand.connect(
                2, peer=PeerLink(host, port), insecure_peer=True, mode=PeerMode.LEGACY
            )
            async with local_peers(client.listen, "ann") as (ann,):
                ann.send_empty()  # which DTLS cannot carry: dropped, and nothing else happens
                for size in (1, 148, 1000, 1400):
                    await ann.echoed(ann.send(size))
                assert sum(slot.lane.unsendable for slot in client.lanes if slot.lane) == 1
                assert ann.strays == []


async def test_a_pion_client_reaches_our_legacy_port_through_a_relay(pion: Pion) -> None:
    events = EventLog()
    async with Stand(server={"legacy_listen": "127.0.0.1:0"}, on_event=events) as stand:
        legacy = stand.server.legacy_listen
        assert legacy is not None
        password = stand.relay.config.users[USER].reveal()
        relay = join_host_port(stand.relay.host, stand.relay.udp_port)
        with pion.client(
            legacy, "-turn", relay, "-user", USER, "-pass", password, "-count", "50"
        ) as client:
            report = await anyio.to_thread.run_sync(client.wait_for_report, "done")
        assert report["returned"] == 50
        assert len(stand.echo.sources) == 1
        await events.wait_for(lambda event: isinstance(event, PeerLost))
        (accepted,) = events.of(PeerAccepted)
        assert isinstance(accepted, PeerAccepted)
        assert accepted.client_session == "legacy"


async def test_a_pion_client_on_the_main_port_is_refused_and_never_taken_for_legacy(
    pion: Pion,
) -> None:
    events = EventLog()
    async with Stand(server={"legacy_listen": "127.0.0.1:0"}, on_event=events) as stand:
        with pion.client(stand.server.listen, "-count", "1"):
            refused = await events.wait_for(lambda event: isinstance(event, PeerRefused))
        assert isinstance(refused, PeerRefused)
        assert (refused.stage, refused.code) == ("session_hello", "malformed")
        assert stand.echo.sources == []


async def test_our_legacy_client_reaches_an_openssl_server(tmp_path: Path) -> None:
    identity = Identity.generate(0.0)
    with openssl_server(tmp_path, identity) as server:
        host, port = await anyio.to_thread.run_sync(server_address, server)
        async with Stand() as stand:
            client = await stand.connect(
                1, peer=PeerLink(host, port, identity.pin), mode=PeerMode.LEGACY
            )
            async with local_peers(client.listen, "ann") as (ann,):
                ann.send()
                await anyio.to_thread.run_sync(
                    server.wait_for, lambda output: "ann:1:" in output, "what ann sent"
                )
                server.say("ann:answer\n")
                with anyio.fail_after(5):
                    while not ann.replies:
                        await ann.heard.wait()
                assert ann.replies == [b"ann:answer\n"]


async def test_an_openssl_client_reaches_our_legacy_port(tmp_path: Path) -> None:
    async with Stand(server={"legacy_listen": "127.0.0.1:0"}) as stand:
        legacy = stand.server.legacy_listen
        assert legacy is not None
        with openssl_client(tmp_path, legacy) as client:
            client.say("over the legacy port\n")
            await stand.echo.counters.reached("received", 1)
            await anyio.to_thread.run_sync(
                client.wait_for, lambda output: "over the legacy port" in output, "the echo"
            )


async def test_datagrams_without_dtls_reach_the_service_itself() -> None:
    async with Stand() as stand:
        client = await stand.connect(2, peer=PeerLink(*stand.echo.address), mode=PeerMode.PLAIN)
        async with local_peers(client.listen, "ann") as (ann,):
            for size in (0, 1, 1400):
                await ann.echoed(ann.send(size))
            assert ann.strays == []


async def test_without_dtls_there_is_no_pin_and_no_token() -> None:
    async with Stand() as stand:
        with pytest.raises(PolicyError) as caught:
            await stand.connect(mode=PeerMode.PLAIN)
        assert caught.value.code == "no_dtls_with_identity"
