"""coturn carries a session over every transport and address family that it offers."""

import socket
from pathlib import Path

import pytest

from turnlane.api import RelayTransport, Secret, Stage, TransportError
from turnlane.runtime.events import LaneReady
from turnlane.runtime.peer_link import split_host_port
from turnlane_tests.backends import ASYNCIO, EACH_BACKEND
from turnlane_tests.certificates import Authority
from turnlane_tests.coturn import Coturn
from turnlane_tests.tunnel import Application, Tunnel

pytestmark = [pytest.mark.anyio, pytest.mark.real]


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_datagrams_of_all_sizes_come_back_over_every_transport(
    coturn: type[Coturn], tmp_path: Path, transport: str
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("127.0.0.1")
    async with coturn(certificate=certificate) as relay, Tunnel(tmp_path) as tunnel:
        session = await tunnel.start(
            relay.link(transport), connections=2, ca_file=authority.ca_file
        )
        with Application(session.listen) as first, Application(session.listen) as second:
            await first.exchange(rounds=40)
            await second.exchange(rounds=40)
        await session.stop()
        assert [event.transport for event in tunnel.told(LaneReady)] == [transport, transport]
        # Each local peer has one upstream socket, and they went over different lanes.
        assert tunnel.echo.counters["sources"] == 2
        assert len(relay.allocations) == 2
        assert all(one.processed["CHANNEL_BIND"] == 1 for one in relay.allocations)


@EACH_BACKEND
@pytest.mark.parametrize("case", ["unknown authority", "no authority file", "another name"])
async def test_a_tls_relay_whose_certificate_does_not_prove_it_is_refused(
    coturn: type[Coturn], tmp_path: Path, case: str
) -> None:
    authority = Authority(tmp_path)
    names = ["relay.example"] if case == "another name" else ["127.0.0.1"]
    ca_file = {
        "unknown authority": Authority(tmp_path, "stranger").ca_file,
        "no authority file": None,
        "another name": authority.ca_file,
    }[case]
    async with (
        coturn(certificate=authority.issue(*names)) as relay,
        Tunnel(tmp_path) as tunnel,
    ):
        with pytest.raises(TransportError) as caught:
            await tunnel.start(relay.link("tls"), ca_file=ca_file)
        assert (caught.value.stage, caught.value.code) == (
            Stage.TURN_DIAL,
            "turn_certificate_invalid",
        )
        assert "--ca-file" in caught.value.advice
        await relay.until(lambda: bool(relay.clients), "the end of the connection")
        assert not relay.requests, "nothing is said to a relay that nobody vouches for"


@ASYNCIO
async def test_a_tls_relay_reached_by_address_is_verified_by_its_server_name(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with (
        coturn(certificate=authority.issue("relay.example")) as relay,
        Tunnel(tmp_path) as tunnel,
    ):
        link = Secret(relay.link("tls").reveal() + "&server_name=relay.example")
        session = await tunnel.start(link, ca_file=authority.ca_file)
        with Application(session.listen) as peer:
            await peer.exchange()


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_everything_may_be_ipv6(coturn: type[Coturn], tmp_path: Path, transport: str) -> None:
    require_ipv6()
    async with coturn(hosts=["::1"]) as relay, Tunnel(tmp_path, host="::1") as tunnel:
        session = await tunnel.start(relay.link(transport))
        with Application(session.listen) as peer:
            await peer.exchange(rounds=10)
        (ready,) = tunnel.told(LaneReady)
        assert ready.relayed.startswith("[::1]:")


@ASYNCIO
@pytest.mark.parametrize(("relay_host", "peer_host"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
async def test_a_relay_is_asked_for_an_address_of_the_servers_family(
    coturn: type[Coturn], tmp_path: Path, relay_host: str, peer_host: str
) -> None:
    require_ipv6()
    async with (
        coturn(hosts=[relay_host], relay_hosts=["127.0.0.1", "::1"]) as relay,
        Tunnel(tmp_path, host=peer_host) as tunnel,
    ):
        session = await tunnel.start(relay.link())
        with Application(session.listen) as peer:
            await peer.exchange()
        (ready,) = tunnel.told(LaneReady)
        assert split_host_port(ready.relayed)[0] == peer_host


@ASYNCIO
async def test_a_relay_without_an_address_of_the_servers_family_is_told_as_such(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    require_ipv6()
    async with coturn() as relay, Tunnel(tmp_path, host="::1") as tunnel:
        with pytest.raises(TransportError) as caught:
            await tunnel.start(relay.link())
        assert (caught.value.stage, caught.value.code) == (
            Stage.TURN_ALLOCATE,
            "turn_address_family_unsupported",
        )


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_the_local_address_of_the_operators_choice_is_what_the_relay_sees(
    coturn: type[Coturn], tmp_path: Path, transport: str
) -> None:
    async with coturn() as relay, Tunnel(tmp_path) as tunnel:
        session = await tunnel.start(relay.link(transport), bind_interface="127.0.0.2")
        with Application(session.listen) as peer:
            await peer.exchange()
        await session.stop()
        await relay.until(lambda: relay.forgotten, "the end of the allocation")
        assert relay.clients == ["127.0.0.2"]


@ASYNCIO
async def test_a_local_address_that_is_not_this_machines_is_refused(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    async with coturn() as relay, Tunnel(tmp_path) as tunnel:
        with pytest.raises(TransportError) as caught:
            await tunnel.start(relay.link(), bind_interface="192.0.2.200")
        assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, "bind_failed")


@EACH_BACKEND
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_relay_that_names_another_is_believed(
    coturn: type[Coturn], tmp_path: Path, transport: str
) -> None:
    async with (
        coturn() as other,
        coturn(f"--alternate-server={other.host}:{other.port}") as relay,
        Tunnel(tmp_path) as tunnel,
    ):
        session = await tunnel.start(relay.link(transport))
        with Application(session.listen) as peer:
            await peer.exchange()
        assert not relay.allocations
        assert len(other.allocations) == 1


@ASYNCIO
async def test_the_operators_transport_and_address_win_over_the_link(
    coturn: type[Coturn], tmp_path: Path
) -> None:
    link = Secret("generic-turn://operator:p%40ss%3Aword%2F1@relay.invalid:1?transport=udp")
    async with coturn() as relay, Tunnel(tmp_path) as tunnel:
        session = await tunnel.start(
            link, transport=RelayTransport.TCP, turn_host=relay.host, turn_port=relay.port
        )
        with Application(session.listen) as peer:
            await peer.exchange()
        assert [event.transport for event in tunnel.told(LaneReady)] == ["tcp"]


def require_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as tried:
            tried.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 on loopback")
