"""Our DTLS against pion, which the Go programs use, in both roles, directly and over a relay."""

import os

import anyio
import pytest

from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import Closed, DtlsServer, Failed
from turnlane.net.dtls_state import AssociationClosed, HandshakeCompleted, HandshakeFailed
from turnlane.net.identity import Identity, Pin
from turnlane_tests.backends import ASYNCIO
from turnlane_tests.coturn import PASSWORD, USER, Coturn
from turnlane_tests.dtls_sockets import (
    FLIGHTS,
    ClientPart,
    LossyPath,
    Part,
    ServerPart,
    loses_first,
    pump,
)
from turnlane_tests.pion import EXPORT_LABEL, EXPORT_SIZE, Pion, PionPeer, address_of

pytestmark = pytest.mark.real

C02B = "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.fixture
def identity() -> Identity:
    return Identity.generate(0.0)


def echo_server(identity: Identity) -> ServerPart:
    server = DtlsServer(identity, random_bytes=os.urandom, handshake_timeout=30.0)
    return ServerPart(server, echo=True)


def pin_of(server: PionPeer) -> Pin:
    return Pin.parse(server.wait_for_report("listening")["pin"])


def exported(association: DtlsAssociation) -> str:
    return association.export(EXPORT_LABEL.encode(), EXPORT_SIZE).hex()


def exchange(ours: ClientPart, *between: Part, count: int = 50) -> None:
    """Send payloads of all sizes and get each of them back."""
    largest = 1400
    for number in range(count):
        payload = bytes([number]) * (1 + number * (largest - 1) // (count - 1))
        returned = len(ours.payloads)
        echo(ours, payload, *between)
        assert len(ours.payloads) == returned + 1


def echo(ours: ClientPart, payload: bytes, *between: Part) -> None:
    """Send one payload and wait until it comes back."""
    ours.send(payload)
    pump([ours, *between], lambda: ours.payloads[-1:] == [payload], "echo")


def test_our_client_talks_to_a_server_of_pion(pion: Pion) -> None:
    with pion.server() as server:
        association = DtlsAssociation.client(pin=pin_of(server))
        with ClientPart(association, address_of(server)) as ours:
            ours.start()
            pump([ours], lambda: bool(ours.events), "handshake")
            assert ours.events == [HandshakeCompleted(C02B, pin_of(server))]
            accepted = server.wait_for_report("accepted")
            assert accepted["exported"] == exported(association)
            exchange(ours)
            ours.close()
            server.wait_for_report("closed")


def test_a_client_of_pion_talks_to_our_server(pion: Pion, identity: Identity) -> None:
    with echo_server(identity) as ours, pion.client(ours.address, "-count", "50") as client:
        pump([ours], lambda: bool(ours.accepted), "association")
        keys = exported(ours.accepted[0].association)
        pump([ours], lambda: client.returncode is not None, "end of the client")
        assert client.returncode == 0
        assert client.reports("connected")[0]["exported"] == keys
        assert client.reports("done")[0]["returned"] == 50
        # The client's goodbye may still be on its way when it has ended.
        pump([ours], lambda: len(ours.events) == 2, "goodbye")
        closed = ours.events[1]
        assert isinstance(closed, Closed)
        assert closed.reason == "close_notify"


@pytest.mark.parametrize("flight", FLIGHTS)
def test_our_client_may_lose_any_flight_with_a_server_of_pion(pion: Pion, flight: str) -> None:
    with pion.server() as server:
        association = DtlsAssociation.client(pin=pin_of(server))
        with (
            LossyPath(address_of(server), loses_first(FLIGHTS[flight])) as path,
            ClientPart(association, path.address) as ours,
        ):
            ours.start()
            pump([ours, path], lambda: bool(ours.events), "handshake")
            assert path.lost == 1
            assert isinstance(ours.events[0], HandshakeCompleted)
            exchange(ours, path, count=3)


@pytest.mark.parametrize("flight", FLIGHTS)
def test_a_client_of_pion_may_lose_any_flight(pion: Pion, identity: Identity, flight: str) -> None:
    with (
        echo_server(identity) as ours,
        LossyPath(ours.address, loses_first(FLIGHTS[flight])) as path,
        pion.client(path.address, "-count", "3") as client,
    ):
        pump([ours, path], lambda: client.returncode is not None, "end of the client")
        assert path.lost == 1
        assert client.returncode == 0


def test_a_server_of_pion_that_ends_is_noticed(pion: Pion) -> None:
    with pion.server("-forward", "127.0.0.1:9") as server:
        association = DtlsAssociation.client(pin=pin_of(server))
        with ClientPart(association, address_of(server)) as ours:
            ours.start()
            pump([ours], lambda: bool(ours.events), "handshake")
            # Nobody listens upstream, so the server closes the association.
            ours.send(b"refused")
            pump([ours], lambda: len(ours.events) == 2, "end")
            assert ours.events[1] == AssociationClosed("close_notify")


def test_a_client_of_pion_without_the_extended_master_secret_is_refused(
    pion: Pion, identity: Identity
) -> None:
    with echo_server(identity) as ours, pion.client(ours.address, "-ems", "disable") as client:
        pump([ours], lambda: client.returncode is not None, "end of the client")
        assert client.returncode == 1
        (event,) = ours.events
        assert isinstance(event, Failed)
        assert event.code == "no_extended_master_secret"
        assert "InsufficientSecurity" in client.reports("failed")[0]["error"]


def test_a_server_of_pion_without_the_extended_master_secret_is_refused(pion: Pion) -> None:
    with pion.server("-ems", "disable") as server:
        association = DtlsAssociation.client(pin=pin_of(server))
        with ClientPart(association, address_of(server)) as ours:
            ours.start()
            pump([ours], lambda: bool(ours.events), "refusal")
            (event,) = ours.events
            assert isinstance(event, HandshakeFailed)
            assert event.code == "no_extended_master_secret"


def test_a_server_of_pion_with_another_key_hears_that_it_is_refused(
    pion: Pion, identity: Identity
) -> None:
    with pion.server() as server:
        association = DtlsAssociation.client(pin=identity.pin)
        with ClientPart(association, address_of(server)) as ours:
            ours.start()
            pump([ours], lambda: bool(ours.events), "refusal")
            (event,) = ours.events
            assert isinstance(event, HandshakeFailed)
            assert event.code == "pin_mismatch"
            refused = server.wait_for_report("refused")
            assert "UnknownCA" in refused["error"]


@ASYNCIO
@pytest.mark.anyio
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_client_of_pion_reaches_our_server_over_a_relay(
    pion: Pion, coturn: type[Coturn], identity: Identity, transport: str
) -> None:
    async with coturn() as relay:
        login = ("-turn", f"{relay.host}:{relay.port}", "-user", USER, "-pass", PASSWORD)

        def run() -> None:
            with (
                echo_server(identity) as ours,
                pion.client(ours.address, *login, "-transport", transport) as client,
            ):
                pump([ours], lambda: client.returncode is not None, "end of the client")
                assert client.returncode == 0
                assert client.reports("done")[0]["returned"] == 10
                (accepted,) = ours.accepted
                relayed = client.reports("allocated")[0]["relayed"]
                assert "{}:{}".format(*accepted.address) == relayed

        await anyio.to_thread.run_sync(run)
        await relay.until(lambda: relay.given_back, "the allocation given back")
