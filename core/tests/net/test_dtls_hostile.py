"""What strangers can do to an association: nothing that lasts, once it is established."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from OpenSSL._util import lib

from turnlane.net.dtls import MAX_RECORDS, DtlsAssociation
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.dtls_state import HandshakeCompleted, HandshakeFailed, State
from turnlane.net.identity import Identity
from turnlane.proto.dtls_records import encode_record, records_untrusted
from turnlane.testing.dtls import ClientEndpoint, ServerEndpoint
from turnlane.testing.network import Conditions, Delivery, SimulatedNetwork, run

IDENTITY = Identity.generate(1_700_000_000.0)
HOME = ("198.51.100.1", 40000)
SERVER = ("203.0.113.1", 56000)


def handshake_message(kind: int, number: int, length: int, offset: int, data: bytes) -> bytes:
    return (
        bytes([kind])
        + length.to_bytes(3, "big")
        + number.to_bytes(2, "big")
        + offset.to_bytes(3, "big")
        + len(data).to_bytes(3, "big")
        + data
    )


def established() -> tuple[DtlsAssociation, DtlsAssociation]:
    client = ClientEndpoint(DtlsAssociation.client(pin=IDENTITY.pin), HOME, SERVER)
    server = ServerEndpoint(DtlsServer(IDENTITY, random_bytes=os.urandom), SERVER)
    client.association.start(0.0)
    network = SimulatedNetwork(0)
    run(network, [client, server], until=lambda: bool(client.events and server.events))
    return client.association, server.accepted[0]


def assert_alive(client: DtlsAssociation, server: DtlsAssociation) -> None:
    assert server.receive_datagram(client.encrypt(b"up"), 0.0) == [b"up"]
    assert client.receive_datagram(server.encrypt(b"down"), 0.0) == [b"down"]
    assert client.next_event() is None
    assert server.next_event() is None


@pytest.mark.parametrize("description", [0, 10, 20, 40, 48, 80, 90, 100])
@pytest.mark.parametrize("level", [1, 2])
def test_a_plaintext_alert_does_not_end_an_established_association(
    level: int, description: int
) -> None:
    client, server = established()
    for sequence in (0, 5, 500):
        alert = encode_record(21, 0, sequence, bytes([level, description]))
        assert client.receive_datagram(alert, 0.0) == []
        assert server.receive_datagram(alert, 0.0) == []
    assert_alive(client, server)


def test_a_forged_change_cipher_spec_does_nothing() -> None:
    client, server = established()
    for epoch in (0, 1):
        for sequence in range(20):
            record = encode_record(20, epoch, sequence, b"\x01")
            client.receive_datagram(record, 0.0)
            server.receive_datagram(record, 0.0)
    server.datagrams_to_send()
    assert_alive(client, server)


def test_a_replayed_datagram_gives_its_payload_once() -> None:
    client, server = established()
    datagram = client.encrypt(b"once")
    assert server.receive_datagram(datagram, 0.0) == [b"once"]
    assert server.receive_datagram(datagram, 0.0) == []
    assert server.statistics.discarded == 1


def test_a_changed_datagram_gives_nothing_and_the_original_still_counts() -> None:
    client, server = established()
    datagram = client.encrypt(b"payload")
    for position in range(len(datagram)):
        changed = bytearray(datagram)
        changed[position] ^= 1
        assert server.receive_datagram(bytes(changed), 0.0) == []
    assert server.receive_datagram(datagram, 0.0) == [b"payload"]
    assert_alive(client, server)


def test_a_malformed_header_drops_the_rest_of_its_datagram_only() -> None:
    client, server = established()
    first, second, third = (client.encrypt(bytes([n])) for n in range(3))
    assert server.receive_datagram(first + b"\x00\x00" + second, 0.0) == [b"\x00"]
    assert server.statistics.malformed == 1
    assert server.receive_datagram(third, 0.0) == [b"\x02"]


def test_a_forged_record_before_a_good_one_does_not_drop_it() -> None:
    client, server = established()
    forged = encode_record(23, 1, 77, bytes(40))
    assert server.receive_datagram(forged + client.encrypt(b"good"), 0.0) == [b"good"]


def test_no_more_than_a_bounded_number_of_records_is_looked_at() -> None:
    client, server = established()
    datagram = b"".join(client.encrypt(b"x") for _ in range(MAX_RECORDS + 5))
    assert len(server.receive_datagram(datagram, 0.0)) == MAX_RECORDS
    assert server.statistics.malformed == 1
    assert_alive(client, server)


def noise(chance: random.Random, genuine: list[bytes]) -> bytes:
    """Make a datagram of the kind that is nearly right."""
    kind = chance.randrange(6)
    sequence = chance.randrange(200)
    body = chance.randbytes(chance.randrange(64))
    if kind == 0:
        return chance.randbytes(chance.randrange(100))
    if kind == 1:
        changed = bytearray(chance.choice(genuine))
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)
    if kind == 2:
        epoch = chance.choice([0, 1, 1, 2, 65535])
        return encode_record(chance.randrange(20, 24), epoch, sequence, body)
    if kind == 3:
        alert = bytes([chance.randrange(1, 3), chance.randrange(120)])
        return encode_record(21, chance.randrange(2), sequence, alert)
    if kind == 4:
        message = handshake_message(
            chance.choice([0, 1, 2, 11, 12, 14, 16, 20]),
            chance.randrange(6),
            len(body) + chance.randrange(2),
            0,
            body,
        )
        return encode_record(22, 0, sequence, message)
    return encode_record(23, 1, sequence, body) + chance.choice(genuine)[: chance.randrange(60)]


@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_hostile_datagrams_leave_an_established_association_alone(seed: int) -> None:
    chance = random.Random(seed)
    client, server = established()
    genuine = [client.encrypt(b"payload") for _ in range(20)]
    genuine += [server.encrypt(b"payload") for _ in range(20)]
    for _ in range(3000):
        datagram = noise(chance, genuine)
        for association in (client, server):
            for payload in association.receive_datagram(datagram, 0.0):
                assert payload == b"payload"
            assert association.state is State.ESTABLISHED, datagram.hex()
            association.datagrams_to_send()
    for association in (client, server):
        assert association.statistics.malformed > 100
        assert association.statistics.discarded > 1000
    assert_alive(client, server)


@pytest.mark.parametrize("seed", range(40))
def test_hostile_datagrams_during_a_handshake_end_it_at_worst(seed: int) -> None:
    chance = random.Random(seed)
    client = ClientEndpoint(DtlsAssociation.client(pin=IDENTITY.pin), HOME, SERVER)
    server = ServerEndpoint(DtlsServer(IDENTITY, random_bytes=os.urandom), SERVER)
    genuine: list[bytes] = []

    def pester(delivery: Delivery) -> bool:
        genuine.append(delivery.data)
        client.receive(noise(chance, genuine), SERVER, 0.0)
        server.receive(noise(chance, genuine), HOME, 0.0)
        return False

    network = SimulatedNetwork(seed, Conditions(loss=0.1))
    network.drop = pester
    client.association.start(0.0)
    run(network, [client, server], until=lambda: bool(client.events))
    assert isinstance(client.events[0], HandshakeCompleted | HandshakeFailed)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans())
def test_no_bytes_make_receiving_raise(datagrams: list[bytes], started: bool) -> None:
    server = DtlsServer(IDENTITY, random_bytes=os.urandom)
    client = DtlsAssociation.client(pin=None)
    if started:
        client.start(0.0)
    for datagram in datagrams:
        assert client.receive_datagram(datagram, 0.0) == []
        assert server.receive_datagram(datagram, HOME, 0.0) == []


@pytest.mark.parametrize("kind", [20, 21, 22, 23])
def test_nearly_a_record_makes_nothing_raise_in_any_state(kind: int) -> None:
    client, server = established()
    handshaking = DtlsAssociation.client(pin=None)
    handshaking.start(0.0)
    closed = DtlsAssociation.client(pin=None)
    closed.close()
    for size in range(80):
        for epoch in (0, 1):
            datagram = encode_record(kind, epoch, size, bytes(size))
            for association in (client, server, handshaking, closed):
                assert association.receive_datagram(datagram, 0.0) == []
    server.datagrams_to_send()
    assert_alive(client, server)


# During the handshake nothing is authenticated, so what counts is memory


def handshaking_server() -> DtlsAssociation:
    server = DtlsAssociation.server(IDENTITY)
    server.start(0.0)
    client = DtlsAssociation.client(pin=None)
    client.start(0.0)
    for datagram in client.datagrams_to_send():
        server.receive_datagram(datagram, 0.0)
    return server


def test_a_message_that_claims_to_be_huge_takes_no_memory() -> None:
    server = handshaking_server()
    for number in range(1, 11):
        message = handshake_message(16, number, 100_000, 0, bytes(100))
        server.receive_datagram(encode_record(22, 0, 50 + number, message), 0.0)
    assert server.statistics.discarded == 10
    assert server.state is State.HANDSHAKING


def test_records_of_the_next_epoch_are_kept_only_if_they_are_small() -> None:
    server = handshaking_server()
    for sequence in range(100):
        server.receive_datagram(encode_record(22, 1, sequence, bytes(1100)), 0.0)
    assert server.statistics.discarded == 100
    assert server.state is State.HANDSHAKING


def test_payload_in_plaintext_is_dropped() -> None:
    server = handshaking_server()
    assert server.receive_datagram(encode_record(23, 0, 60, b"payload"), 0.0) == []
    assert server.statistics.discarded == 1
    assert server.state is State.HANDSHAKING


def test_a_plaintext_alert_during_the_handshake_ends_it() -> None:
    """Not wanted, but a real refusal looks the same (RFC 6347, section 4.1.2.7)."""
    server = handshaking_server()
    server.receive_datagram(encode_record(21, 0, 60, b"\x02\x28"), 0.0)
    event = server.next_event()
    assert isinstance(event, HandshakeFailed)
    assert (event.code, event.alert) == ("peer_alert", "handshake_failure")


def test_a_warning_during_the_handshake_is_not_taken_for_a_refusal() -> None:
    server = handshaking_server()
    server.receive_datagram(encode_record(21, 0, 60, b"\x01\x70"), 0.0)
    assert server.state is State.HANDSHAKING
    unexpected = handshake_message(20, 1, 12, 0, bytes(12))
    server.receive_datagram(encode_record(22, 0, 61, unexpected), 0.0)
    event = server.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.code == "protocol_error"


def test_a_large_certificate_of_a_server_still_fits() -> None:
    context = SSL.Context(SSL.DTLS_SERVER_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.use_certificate(IDENTITY.certificate)
    context.use_privatekey(IDENTITY.key)
    for _ in range(20):
        context.add_extra_chain_cert(IDENTITY.certificate)
    client = DtlsAssociation.client(pin=IDENTITY.pin)
    client.start(0.0)
    server = SSL.Connection(context, None)
    server.set_ciphertext_mtu(1200)
    server.set_accept_state()
    while client.state is State.HANDSHAKING:
        for datagram in client.datagrams_to_send():
            for record in records_untrusted(datagram):
                server.bio_write(record.data)
                try:
                    server.do_handshake()
                except SSL.WantReadError:
                    continue
        client.receive_datagram(server.bio_read(65536), 0.0)
    assert client.state is State.ESTABLISHED


# OpenSSL's error queue belongs to the thread


def leave_an_error() -> None:
    lib.ERR_put_error(20, 0, 1, b"elsewhere", 1)
    assert lib.ERR_peek_error() != 0


def test_an_error_left_by_others_ends_no_association() -> None:
    client, server = established()
    leave_an_error()
    forged = encode_record(23, 1, 77, bytes(40))
    assert server.receive_datagram(forged, 0.0) == []
    assert_alive(client, server)


def test_an_error_that_openssl_blames_on_the_wrong_one_is_seen_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before OpenSSL 4 a foreign error in the queue turned "nothing to read" into a failure."""
    client, server = established()
    recv = server._connection.recv
    blamed: list[int] = []

    def blame_once(size: int) -> bytes:
        if not blamed:
            blamed.append(size)
            raise SSL.Error([("elsewhere", "", "not ours")])
        return recv(size)

    monkeypatch.setattr(server._connection, "recv", blame_once)
    assert server.receive_datagram(client.encrypt(b"payload"), 0.0) == [b"payload"]
    assert blamed
    assert server.state is State.ESTABLISHED


def test_an_error_left_by_others_fails_no_handshake() -> None:
    client = DtlsAssociation.client(pin=None)
    server = DtlsAssociation.server(IDENTITY)
    leave_an_error()
    client.start(0.0)
    server.start(0.0)
    while client.state is State.HANDSHAKING:
        leave_an_error()
        for datagram in client.datagrams_to_send():
            server.receive_datagram(datagram, 0.0)
        leave_an_error()
        for datagram in server.datagrams_to_send():
            client.receive_datagram(datagram, 0.0)
    assert_established(client, server)


def assert_established(client: DtlsAssociation, server: DtlsAssociation) -> None:
    for association in (client, server):
        assert isinstance(association.next_event(), HandshakeCompleted)
    assert_alive(client, server)


def test_a_failed_handshake_leaves_no_error_behind() -> None:
    client, server = established()
    doomed = handshaking_server()
    message = handshake_message(20, 1, 12, 0, bytes(12))
    doomed.receive_datagram(encode_record(22, 0, 60, message), 0.0)
    assert doomed.state is State.FAILED
    assert lib.ERR_peek_error() == 0
    assert_alive(client, server)
