"""Handshakes over networks that lose, double and reorder, on a virtual clock."""

import itertools
import os
from collections.abc import Callable

import pytest

from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import Accepted, DtlsServer
from turnlane.net.dtls_state import HandshakeCompleted
from turnlane.net.identity import Identity
from turnlane.proto.dtls_records import records_untrusted
from turnlane.testing.dtls import ClientEndpoint, ServerEndpoint
from turnlane.testing.network import Conditions, Delivery, SimulatedNetwork, run

IDENTITY = Identity.generate(1_700_000_000.0)
HOME = ("198.51.100.1", 40000)
SERVER = ("203.0.113.1", 56000)
PATIENT = 60.0
"""A handshake timeout that outlasts what the heaviest of these networks does."""

FLIGHTS_IN_ONE_DATAGRAM = 1200
FLIGHTS_IN_MANY_DATAGRAMS = 256


class Handshake:
    """A client, a server, and a network between them."""

    def __init__(
        self,
        seed: int = 0,
        conditions: Conditions | None = None,
        *,
        mtu: int = 1200,
        timeout: float = PATIENT,
    ) -> None:
        association = DtlsAssociation.client(pin=IDENTITY.pin, mtu=mtu, handshake_timeout=timeout)
        server = DtlsServer(IDENTITY, random_bytes=os.urandom, mtu=mtu, handshake_timeout=timeout)
        self.client = ClientEndpoint(association, HOME, SERVER)
        self.server = ServerEndpoint(server, SERVER)
        self.network = SimulatedNetwork(seed, conditions)

    def run(self) -> float:
        """Let both shake hands; return how long it took."""
        self.client.association.start(0.0)
        return run(
            self.network,
            [self.client, self.server],
            until=lambda: bool(self.client.events) and bool(self.server.events),
        )

    def assert_usable(self, now: float) -> None:
        """Both ends agree that there is an association, and payloads pass both ways."""
        client = self.client.association
        (completed,) = self.client.events
        assert isinstance(completed, HandshakeCompleted)
        (accepted,) = self.server.events
        assert isinstance(accepted, Accepted)
        payloads = self.server.server.receive_datagram(client.encrypt(b"up"), HOME, now)
        assert payloads == [b"up"]
        assert client.receive_datagram(accepted.association.encrypt(b"down"), now) == [b"down"]


def losing(numbers: set[int]) -> Callable[[Delivery], bool]:
    count = itertools.count()
    return lambda _delivery: next(count) in numbers


def sent_without_loss(mtu: int) -> int:
    handshake = Handshake(mtu=mtu)
    handshake.run()
    return handshake.network.sent


@pytest.mark.parametrize("mtu", [FLIGHTS_IN_ONE_DATAGRAM, FLIGHTS_IN_MANY_DATAGRAMS])
def test_any_one_datagram_may_be_lost(mtu: int) -> None:
    for number in range(sent_without_loss(mtu) + 1):
        handshake = Handshake(mtu=mtu)
        handshake.network.drop = losing({number})
        took = handshake.run()
        handshake.assert_usable(took)
        assert took < 1.2, f"datagram {number} took {took} s to make up for"


@pytest.mark.parametrize("mtu", [FLIGHTS_IN_ONE_DATAGRAM, FLIGHTS_IN_MANY_DATAGRAMS])
def test_any_two_datagrams_may_be_lost(mtu: int) -> None:
    # Twice as many as without loss: the second may be one that was sent because of the first.
    numbers = range(2 * sent_without_loss(mtu))
    for pair in itertools.combinations(numbers, 2):
        handshake = Handshake(mtu=mtu)
        handshake.network.drop = losing(set(pair))
        handshake.assert_usable(handshake.run())


def test_the_last_flight_may_be_lost_again_and_again() -> None:
    handshake = Handshake()
    lost = 0

    def drop(delivery: Delivery) -> bool:
        nonlocal lost
        is_last_flight = delivery.source == SERVER and delivery.data[0] == 20
        lost += is_last_flight and lost < 4
        return is_last_flight and lost < 4

    handshake.network.drop = drop
    took = handshake.run()
    assert lost == 4
    handshake.assert_usable(took)


def test_any_datagram_may_come_twice() -> None:
    handshake = Handshake(conditions=Conditions(duplication=1.0))
    handshake.assert_usable(handshake.run())


@pytest.mark.parametrize("block", range(4))
def test_hundreds_of_bad_networks_do_not_keep_two_ends_apart(block: int) -> None:
    conditions = Conditions(loss=0.3, duplication=0.2, min_delay=0.005, max_delay=0.4)
    for seed in range(100 * block, 100 * (block + 1)):
        handshake = Handshake(seed, conditions, timeout=300.0, mtu=(1200, 256)[seed % 2])
        took = run_or_name(handshake, seed)
        handshake.assert_usable(took)


def run_or_name(handshake: Handshake, seed: int) -> float:
    try:
        return handshake.run()
    except TimeoutError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


def test_most_bad_networks_are_got_over_within_the_default_timeout() -> None:
    conditions = Conditions(loss=0.15, duplication=0.1, min_delay=0.01, max_delay=0.3)
    completed = 0
    for seed in range(100):
        handshake = Handshake(seed, conditions, timeout=20.0)
        handshake.run()
        completed += isinstance(handshake.client.events[0], HandshakeCompleted)
    assert completed >= 98


def test_a_change_cipher_spec_that_overtook_its_flight_does_not_stand_in_its_way() -> None:
    """A server drops it, remembers its number, and would drop every copy with that number."""
    handshake = Handshake()
    split: list[bytes] = []

    def overtake(delivery: Delivery) -> bool:
        if delivery.destination == SERVER and delivery.data[13] == 16 and not split:
            records = list(records_untrusted(delivery.data))
            split.extend(record.data for record in records)
            handshake.server.server.receive_datagram(split[1], HOME, 0.05)
            return True
        return False

    handshake.network.drop = overtake
    took = handshake.run()
    assert [data[0] for data in split] == [22, 20, 22]
    handshake.assert_usable(took)


def test_no_number_of_a_plaintext_record_is_used_twice() -> None:
    handshake = Handshake(mtu=FLIGHTS_IN_MANY_DATAGRAMS)
    numbers: dict[object, list[int]] = {HOME: [], SERVER: []}

    def note(delivery: Delivery) -> bool:
        for record in records_untrusted(delivery.data):
            is_cookie_request = record.body[:1] == b"\x03"  # the server's, which counts nothing
            if record.epoch == 0 and not is_cookie_request:
                numbers[delivery.source].append(record.sequence)
        return len(numbers[SERVER]) > 2 and sum(map(len, numbers.values())) < 60

    handshake.network.drop = note
    handshake.run()
    for used in numbers.values():
        assert len(used) > 5
        assert used == sorted(set(used))


def test_a_payload_that_overtakes_the_end_of_the_handshake_does_no_harm() -> None:
    handshake = Handshake()
    held: list[bytes] = []

    def hold(delivery: Delivery) -> bool:
        if delivery.source == SERVER and delivery.data[0] == 20 and not held:
            held.append(delivery.data)
            return True
        return False

    handshake.network.drop = hold
    client = handshake.client.association
    client.start(0.0)
    run(
        handshake.network,
        [handshake.client, handshake.server],
        until=lambda: bool(handshake.server.events),
    )
    (accepted,) = handshake.server.accepted
    handshake.server.server.datagrams_to_send()
    early = [accepted.encrypt(bytes([n])) for n in range(200)]
    for datagram in early:
        assert client.receive_datagram(datagram, 0.1) == []
    # The copy of the last flight that the client asks for has the old number, and still counts.
    now = run(
        handshake.network,
        [handshake.client, handshake.server],
        until=lambda: bool(handshake.client.events),
        now=0.1,
    )
    handshake.assert_usable(now)


def test_payloads_between_the_halves_of_the_last_flight_are_kept_and_come_out() -> None:
    handshake = Handshake()
    client = handshake.client.association
    client.start(0.0)
    last: list[bytes] = []

    def hold(delivery: Delivery) -> bool:
        if delivery.source == SERVER and delivery.data[0] == 20:
            last.append(delivery.data)
            return True
        return False

    handshake.network.drop = hold
    run(handshake.network, [handshake.client, handshake.server], until=lambda: bool(last))
    (accepted,) = handshake.server.accepted
    change_cipher_spec, finished = last[0][:14], last[0][14:]
    assert client.receive_datagram(change_cipher_spec, 0.1) == []
    assert client.receive_datagram(accepted.encrypt(b"first"), 0.1) == []
    assert client.receive_datagram(accepted.encrypt(b"second"), 0.1) == []
    assert client.receive_datagram(finished, 0.1) == [b"first", b"second"]
    assert isinstance(client.next_event(), HandshakeCompleted)


def test_copies_of_the_last_flight_are_not_sent_faster_than_twice_a_second() -> None:
    handshake = Handshake()
    flights: list[bytes] = []

    def note(delivery: Delivery) -> bool:
        if delivery.destination == SERVER and delivery.data[13] == 16:  # ClientKeyExchange
            flights.append(delivery.data)
        return False

    handshake.network.drop = note
    now = handshake.run()
    server = handshake.server.server
    server.datagrams_to_send()
    sent = []
    for tick in range(100):
        server.receive_datagram(flights[0], HOME, now + tick / 10)
        sent += server.datagrams_to_send()
    assert 18 <= len(sent) <= 20


def test_the_last_flight_is_forgotten_once_the_client_has_sent_a_payload() -> None:
    handshake = Handshake()
    flights: list[bytes] = []

    def note(delivery: Delivery) -> bool:
        if delivery.destination == SERVER and delivery.data[13] == 16:
            flights.append(delivery.data)
        return False

    handshake.network.drop = note
    now = handshake.run()
    handshake.assert_usable(now)
    server = handshake.server.server
    server.datagrams_to_send()
    server.receive_datagram(flights[0], HOME, now + 10.0)
    assert server.datagrams_to_send() == []


def test_a_crowd_gets_through_a_bad_network() -> None:
    server = ServerEndpoint(DtlsServer(IDENTITY, random_bytes=os.urandom), SERVER)
    clients = [
        ClientEndpoint(
            DtlsAssociation.client(pin=IDENTITY.pin, handshake_timeout=PATIENT),
            (f"198.51.100.{number}", 40000),
            SERVER,
        )
        for number in range(50)
    ]
    network = SimulatedNetwork(7, Conditions(loss=0.1, duplication=0.1, max_delay=0.2))
    for client in clients:
        client.association.start(0.0)
    run(network, [server, *clients], until=lambda: all(client.events for client in clients))
    assert server.server.association_count == 50
    for client in clients:
        exported = client.association.export(b"label", 16)
        match = server.server.association(client.place)  # type: ignore[arg-type]
        assert match is not None
        assert match.export(b"label", 16) == exported
