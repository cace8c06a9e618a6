"""Our DTLS against the `openssl` command, in both roles."""

import os
import time
from pathlib import Path

import pytest

from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import Closed, DtlsServer, Failed
from turnlane.net.dtls_state import HandshakeCompleted, HandshakeFailed
from turnlane.net.identity import Identity
from turnlane_tests.dtls_sockets import (
    FLIGHTS,
    ClientPart,
    LossyPath,
    ServerPart,
    loses_first,
    pump,
)
from turnlane_tests.openssl import (
    EXPORT_LABEL,
    EXPORT_SIZE,
    openssl_client,
    openssl_server,
    server_address,
)
from turnlane_tests.real import require

pytestmark = pytest.mark.real

C02B = "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.fixture(autouse=True)
def _openssl() -> None:
    require("openssl")


@pytest.fixture
def identity() -> Identity:
    return Identity.generate(time.time())  # noqa: TID251 - OpenSSL looks at the wall clock too


def make_server(identity: Identity) -> DtlsServer:
    return DtlsServer(identity, random_bytes=os.urandom, handshake_timeout=20.0)


def label() -> tuple[bytes, int]:
    return EXPORT_LABEL.encode(), EXPORT_SIZE


def test_a_client_of_openssl_talks_to_our_server(identity: Identity, tmp_path: Path) -> None:
    with (
        ServerPart(make_server(identity)) as ours,
        openssl_client(tmp_path, ours.address) as client,
    ):
        pump([ours], lambda: bool(ours.accepted), "association")
        pump([ours], lambda: client.exported is not None, "exported key")
        assert client.cipher == C02B
        assert client.exported == ours.accepted[0].association.export(*label())
        client.say("up\n")
        pump([ours], lambda: ours.payloads == [b"up\n"], "payload")
        ours.send(b"down\n")
        client.wait_for(lambda said: "down\n" in said, "the payload")
        client.say("Q\n")
        pump([ours], lambda: len(ours.events) == 2, "end")
        event = ours.events[1]
        assert isinstance(event, Closed)
        assert event.reason == "close_notify"


@pytest.mark.parametrize("cookies", [False, True])
def test_our_client_talks_to_a_server_of_openssl(
    identity: Identity, tmp_path: Path, cookies: bool
) -> None:
    options = ["-listen"] if cookies else []
    with openssl_server(tmp_path, identity, *options) as server:
        association = DtlsAssociation.client(pin=identity.pin)
        with ClientPart(association, server_address(server)) as ours:
            ours.start()
            pump([ours], lambda: bool(ours.events), "handshake")
            assert ours.events == [HandshakeCompleted(C02B, identity.pin)]
            server.wait_for(lambda _said: server.exported is not None, "its key")
            assert server.cipher == C02B
            assert server.exported == association.export(*label())
            ours.send(b"up\n")
            server.wait_for(lambda said: "up\n" in said, "the payload")
            server.say("down\n")
            pump([ours], lambda: ours.payloads == [b"down\n"], "payload")
            ours.close()
            server.wait_for(lambda said: "DONE" in said or "CLOSED" in said, "the end")


@pytest.mark.parametrize("flight", FLIGHTS)
def test_a_client_of_openssl_may_lose_any_flight(
    identity: Identity, tmp_path: Path, flight: str
) -> None:
    with (
        ServerPart(make_server(identity)) as ours,
        LossyPath(ours.address, loses_first(FLIGHTS[flight])) as path,
        openssl_client(tmp_path, path.address) as client,
    ):
        pump([ours, path], lambda: client.exported is not None, "handshake")
        assert path.lost == 1
        client.say("up\n")
        pump([ours, path], lambda: ours.payloads == [b"up\n"], "payload")


@pytest.mark.parametrize("flight", FLIGHTS)
def test_our_client_may_lose_any_flight_with_a_server_of_openssl(
    identity: Identity, tmp_path: Path, flight: str
) -> None:
    # Without -listen: s_server's way of listening gives up on the first timeout.
    with openssl_server(tmp_path, identity) as server:
        association = DtlsAssociation.client(pin=identity.pin)
        with (
            LossyPath(server_address(server), loses_first(FLIGHTS[flight])) as path,
            ClientPart(association, path.address) as ours,
        ):
            ours.start()
            pump([ours, path], lambda: bool(ours.events), "handshake")
            assert path.lost == 1
            assert ours.events == [HandshakeCompleted(C02B, identity.pin)]
            ours.send(b"up\n")
            pump([ours, path], lambda: "up\n" in server.output, "payload")


def test_the_last_flight_of_a_server_of_openssl_may_be_lost_twice(
    identity: Identity, tmp_path: Path
) -> None:
    """Only a Finished with a new number makes OpenSSL repeat its own."""
    lost = 0

    def loses(data: bytes, to_server: bool) -> bool:
        nonlocal lost
        meant = lost < 2 and FLIGHTS["server's finished"](data, to_server)
        lost += meant
        return meant

    with openssl_server(tmp_path, identity) as server:
        association = DtlsAssociation.client(pin=identity.pin)
        with (
            LossyPath(server_address(server), loses) as path,
            ClientPart(association, path.address) as ours,
        ):
            ours.start()
            took = pump([ours, path], lambda: bool(ours.events), "handshake")
            assert isinstance(ours.events[0], HandshakeCompleted)
            assert took >= 3.0
            assert association.statistics.retransmissions == 2


def test_a_client_without_the_extended_master_secret_is_refused(
    identity: Identity, tmp_path: Path
) -> None:
    with (
        ServerPart(make_server(identity)) as ours,
        openssl_client(tmp_path, ours.address, extended=False) as client,
    ):
        pump([ours], lambda: bool(ours.events), "refusal")
        (event,) = ours.events
        assert isinstance(event, Failed)
        assert event.code == "no_extended_master_secret"
        client.wait_for(lambda said: "alert insufficient security" in said, "the alert")


def test_a_server_without_the_extended_master_secret_is_refused(
    identity: Identity, tmp_path: Path
) -> None:
    with openssl_server(tmp_path, identity, extended=False) as server:
        association = DtlsAssociation.client(pin=identity.pin)
        with ClientPart(association, server_address(server)) as ours:
            ours.start()
            pump([ours], lambda: bool(ours.events), "refusal")
            (event,) = ours.events
            assert isinstance(event, HandshakeFailed)
            assert event.code == "no_extended_master_secret"
            server.wait_for(lambda said: "DONE" in said or "CLOSED" in said, "the end")


def test_a_server_with_another_key_hears_that_it_is_refused(
    identity: Identity, tmp_path: Path
) -> None:
    with openssl_server(tmp_path, identity) as server:
        association = DtlsAssociation.client(pin=Identity.generate(0.0).pin)
        with ClientPart(association, server_address(server)) as ours:
            ours.start()
            pump([ours], lambda: bool(ours.events), "refusal")
            (event,) = ours.events
            assert isinstance(event, HandshakeFailed)
            assert event.code == "pin_mismatch"
            server.wait_for(lambda said: "alert unknown ca" in said, "the alert")
