"""A listening server: cookies before state, many peers, replacement, bounds."""

import os

import pytest

from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import (
    MAX_CHALLENGES,
    Accepted,
    Address,
    Closed,
    DtlsServer,
    Failed,
)
from turnlane.net.dtls_state import AssociationClosed, HandshakeCompleted, HandshakeFailed, State
from turnlane.net.identity import Identity
from turnlane.proto.dtls_cookie import TICK
from turnlane.proto.dtls_records import encode_record, records_untrusted
from turnlane.testing.dtls import ServerEndpoint

IDENTITY = Identity.generate(1_700_000_000.0)
HOME = ("198.51.100.1", 40000)
ELSEWHERE = ("198.51.100.2", 40000)


def make_server(*, max_handshakes: int = 256, max_associations: int = 4096) -> ServerEndpoint:
    server = DtlsServer(
        IDENTITY,
        random_bytes=os.urandom,
        handshake_timeout=30.0,
        max_handshakes=max_handshakes,
        max_associations=max_associations,
    )
    return ServerEndpoint(server, ("203.0.113.1", 56000))


class Peer:
    """A client at an address, moved step by step."""

    def __init__(self, endpoint: ServerEndpoint, address: Address = HOME) -> None:
        self.endpoint = endpoint
        self.address = address
        self.association = DtlsAssociation.client(pin=IDENTITY.pin)
        self.association.start(0.0)
        self.flight = self.association.datagrams_to_send()

    def send(self, now: float = 0.0) -> list[bytes]:
        """Send the flight; return what the server answers to this address."""
        for datagram in self.flight:
            self.endpoint.receive(datagram, self.address, now)
        sent = list(self.endpoint.outgoing(now))
        return [datagram for datagram, destination in sent if destination == self.address]

    def step(self, now: float = 0.0) -> None:
        """Send the flight, take the answer, and make the next flight of it."""
        for datagram in self.send(now):
            self.association.receive_datagram(datagram, now)
        self.flight = self.association.datagrams_to_send()

    def shake(self, now: float = 0.0) -> "Peer":
        """Do the whole handshake."""
        for _ in range(3):
            self.step(now)
        assert isinstance(self.association.next_event(), HandshakeCompleted)
        return self

    def says(self, payload: bytes, now: float = 0.0) -> list[bytes]:
        """Send a payload; return what the server made of it."""
        datagram = self.association.encrypt(payload)
        before = len(self.endpoint.payloads)
        self.endpoint.receive(datagram, self.address, now)
        return [got for _address, got in self.endpoint.payloads[before:]]


def test_a_first_hello_is_answered_with_a_cookie_and_nothing_is_kept() -> None:
    endpoint = make_server()
    (answer,) = Peer(endpoint).send()
    assert (answer[0], answer[13]) == (22, 3)
    assert endpoint.server.handshake_count == 0
    assert endpoint.get_timer() is None
    assert endpoint.server.statistics.challenges_sent == 1
    assert endpoint.server.statistics.cookies_rejected == 0


def test_a_hello_that_brings_the_cookie_back_starts_a_handshake() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.step()
    peer.step()
    assert endpoint.server.handshake_count == 1
    assert endpoint.events == []
    peer.step()
    (event,) = endpoint.events
    assert isinstance(event, Accepted)
    assert event.address == HOME
    assert endpoint.server.association(HOME) is event.association
    assert endpoint.server.association_count == 1
    assert endpoint.server.handshake_count == 0
    assert endpoint.get_timer() is None


def test_the_servers_numbers_go_on_from_the_clients() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.step()
    (hello,) = peer.flight
    answer = peer.send()
    first = next(records_untrusted(answer[0]))
    assert first.sequence == next(records_untrusted(hello)).sequence


def test_payloads_of_an_accepted_peer_come_out_of_receive() -> None:
    endpoint = make_server()
    peer = Peer(endpoint).shake()
    assert peer.says(b"one") == [b"one"]
    (association,) = endpoint.accepted
    assert peer.association.receive_datagram(association.encrypt(b"two"), 0.0) == [b"two"]


def test_a_cookie_brought_from_elsewhere_is_answered_with_another() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.step()
    peer.address = ELSEWHERE
    (answer,) = peer.send()
    assert answer[13] == 3
    assert endpoint.server.handshake_count == 0
    assert endpoint.server.statistics.cookies_rejected == 1


def test_an_old_cookie_is_answered_with_another() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.step()
    (answer,) = peer.send(2 * TICK)
    assert answer[13] == 3
    assert endpoint.server.handshake_count == 0


@pytest.mark.parametrize(
    "datagram",
    [
        encode_record(23, 1, 1, bytes(40)),
        encode_record(22, 0, 1, bytes([16]) + bytes(60)),
        encode_record(20, 0, 1, b"\x01"),
        encode_record(21, 0, 1, b"\x02\x28"),
    ],
)
def test_records_of_strangers_are_dropped_and_counted(datagram: bytes) -> None:
    endpoint = make_server()
    endpoint.receive(datagram, HOME, 0.0)
    assert list(endpoint.outgoing(0.0)) == []
    assert endpoint.server.statistics.unknown == 1


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\x00", b"\x16\xfe", encode_record(22, 0, 0, b"\x01" + bytes(50)), bytes(1200)],
)
def test_nonsense_is_dropped_and_counted(datagram: bytes) -> None:
    endpoint = make_server()
    endpoint.receive(datagram, HOME, 0.0)
    assert list(endpoint.outgoing(0.0)) == []
    assert endpoint.server.statistics.malformed == 1


def test_a_hello_that_openssl_makes_nothing_of_leaves_nothing_behind() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.step()
    (hello,) = peer.flight
    message_number = 13 + 5
    broken = hello[:message_number] + b"\x09" + hello[message_number + 1 :]
    endpoint.receive(broken, HOME, 0.0)
    assert endpoint.server.handshake_count == 0
    assert endpoint.server.statistics.hellos_rejected == 1
    # The error is not put down to the next one.
    Peer(endpoint).shake()


def test_copies_of_a_hello_change_nothing_before_and_after_the_handshake() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.step()
    (hello,) = peer.flight
    peer.step()
    endpoint.receive(hello, HOME, 0.0)
    assert endpoint.server.handshake_count == 1
    assert list(endpoint.outgoing(0.0)) == []
    peer.step()
    endpoint.receive(hello, HOME, 0.0)
    assert endpoint.server.handshake_count == 0
    assert list(endpoint.outgoing(0.0)) == []
    assert endpoint.server.statistics.hellos_repeated == 2
    assert peer.says(b"on") == [b"on"]


def test_a_handshake_that_stops_halfway_fails_after_its_timeout() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.step()
    peer.step()
    sent = 0
    while (timer := endpoint.get_timer()) is not None:
        endpoint.handle_timer(timer)
        sent += len(list(endpoint.outgoing(timer)))
    assert timer is None
    assert sent == 4  # at 1, 3, 7 and 15 seconds
    (event,) = endpoint.events
    assert isinstance(event, Failed)
    assert (event.address, event.code) == (HOME, "dtls_timeout")
    assert endpoint.server.handshake_count == 0
    assert endpoint.server.statistics.handshakes_failed == 1


def test_a_client_with_another_pin_is_told_of_as_its_alert() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.association = DtlsAssociation.client(pin=Identity.generate(1_700_000_000.0).pin)
    peer.association.start(0.0)
    peer.flight = peer.association.datagrams_to_send()
    for _ in range(3):
        peer.step()
    failed = peer.association.next_event()
    assert isinstance(failed, HandshakeFailed)
    assert failed.code == "pin_mismatch"
    (event,) = endpoint.events
    assert isinstance(event, Failed)
    assert event.code == "peer_alert"
    assert "unknown_ca" in event.message


def test_a_peer_that_leaves_is_forgotten_and_answered() -> None:
    endpoint = make_server()
    peer = Peer(endpoint).shake()
    peer.association.close()
    peer.flight = peer.association.datagrams_to_send()
    assert len(peer.send()) == 1
    event = endpoint.events[-1]
    assert event == Closed(HOME, endpoint.accepted[0], "close_notify")
    assert endpoint.server.association(HOME) is None


@pytest.mark.parametrize("full", [False, True])
def test_a_handshake_that_completes_and_ends_within_one_datagram_leaves_nothing(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = make_server(max_associations=1)
    peer = Peer(endpoint)
    peer.step()
    peer.step()
    if full:
        Peer(endpoint, ELSEWHERE).shake()
        endpoint.events.clear()
    receive = DtlsAssociation.receive_datagram

    def receive_and_end(association: DtlsAssociation, data: bytes, now: float) -> list[bytes]:
        payloads = receive(association, data, now)
        association._end("close_notify")
        return payloads

    monkeypatch.setattr(DtlsAssociation, "receive_datagram", receive_and_end)
    peer.send()
    kinds = [type(event) for event in endpoint.events]
    assert kinds == ([Failed] if full else [Accepted, Closed])
    assert endpoint.server.association(HOME) is None
    assert endpoint.server.handshake_count == 0


def test_dropping_a_peer_tells_it_and_forgets_it_without_an_event() -> None:
    endpoint = make_server()
    peer = Peer(endpoint).shake()
    endpoint.server.drop(HOME)
    ((goodbye, address),) = endpoint.outgoing(0.0)
    assert address == HOME
    peer.association.receive_datagram(goodbye, 0.0)
    assert peer.association.next_event() == AssociationClosed("close_notify")
    assert endpoint.server.association_count == 0
    assert len(endpoint.events) == 1
    endpoint.server.drop(HOME)
    assert list(endpoint.outgoing(0.0)) == []


def test_closing_the_server_says_goodbye_to_everyone() -> None:
    endpoint = make_server()
    Peer(endpoint, HOME).shake()
    Peer(endpoint, ELSEWHERE).shake()
    halfway = Peer(endpoint, ("198.51.100.3", 1))
    halfway.step()
    halfway.step()
    endpoint.server.close()
    assert {address for _data, address in endpoint.outgoing(0.0)} == {HOME, ELSEWHERE}
    assert endpoint.server.association_count == 0
    assert endpoint.server.handshake_count == 0
    assert endpoint.get_timer() is None


# A live association and a new handshake from its address


def test_a_live_association_survives_a_new_handshake_until_that_has_completed() -> None:
    endpoint = make_server()
    old = Peer(endpoint).shake()
    new = Peer(endpoint)
    new.step()
    assert old.says(b"after a hello") == [b"after a hello"]
    new.step()
    assert endpoint.server.handshake_count == 1
    assert old.says(b"during the handshake") == [b"during the handshake"]
    old_end = endpoint.accepted[0]
    answer = old_end.encrypt(b"still here")
    assert old.association.receive_datagram(answer, 0.0) == [b"still here"]
    new.step()
    assert endpoint.events[1:] == [
        Closed(HOME, old_end, "replaced"),
        Accepted(HOME, endpoint.accepted[1]),
    ]
    assert new.says(b"from now on") == [b"from now on"]
    assert old.says(b"too late") == []
    assert endpoint.server.association_count == 1
    assert endpoint.server.statistics.associations_replaced == 1


def test_a_new_handshake_that_comes_to_nothing_leaves_the_old_association_alone() -> None:
    endpoint = make_server()
    old = Peer(endpoint).shake()
    new = Peer(endpoint)
    new.step()
    new.step()
    endpoint.handle_timer(30.0)
    assert [type(event) for event in endpoint.events] == [Accepted, Failed]
    assert old.says(b"still here", 31.0) == [b"still here"]


def test_the_end_of_the_old_association_does_not_touch_the_handshake() -> None:
    endpoint = make_server()
    old = Peer(endpoint).shake()
    new = Peer(endpoint)
    new.step()
    new.step()
    old.association.close()
    old.flight = old.association.datagrams_to_send()
    old.send()
    assert [type(event) for event in endpoint.events] == [Accepted, Closed]
    new.step()
    assert len(endpoint.accepted) == 2
    assert new.says(b"alone") == [b"alone"]


def test_forged_datagrams_during_the_handshake_do_not_touch_the_old_association() -> None:
    endpoint = make_server()
    old = Peer(endpoint).shake()
    new = Peer(endpoint)
    new.step()
    new.step()
    for datagram in (
        encode_record(21, 0, 90, b"\x02\x28"),
        encode_record(21, 1, 90, bytes(26)),
        encode_record(22, 1, 91, bytes(48)),
        encode_record(23, 1, 92, bytes(48)),
    ):
        endpoint.receive(datagram, HOME, 0.0)
    assert old.says(b"unimpressed") == [b"unimpressed"]
    assert endpoint.accepted[0].state is State.ESTABLISHED


def test_a_newer_handshake_takes_the_place_of_one_under_way() -> None:
    endpoint = make_server()
    first = Peer(endpoint)
    first.step()
    first.step()
    second = Peer(endpoint)
    second.step()
    second.step()
    assert endpoint.server.handshake_count == 1
    assert endpoint.server.statistics.handshakes_superseded == 1
    second.step()
    assert second.says(b"here") == [b"here"]
    assert len(endpoint.accepted) == 1


def test_the_last_flight_is_repeated_to_a_peer_that_missed_it() -> None:
    endpoint = make_server()
    peer = Peer(endpoint)
    peer.step()
    peer.step()
    assert len(peer.send(0.0)) == 1
    assert len(endpoint.accepted) == 1
    assert peer.send(0.1) == []
    for datagram in peer.send(1.0):
        peer.association.receive_datagram(datagram, 1.0)
    assert isinstance(peer.association.next_event(), HandshakeCompleted)


# Bounds


def test_when_handshakes_fill_the_server_the_oldest_gives_way() -> None:
    endpoint = make_server(max_handshakes=3)
    peers = [Peer(endpoint, (f"198.51.100.{number}", 1)) for number in range(4)]
    for peer in peers:
        peer.step()
        peer.step()
    assert endpoint.server.handshake_count == 3
    (event,) = endpoint.events
    assert isinstance(event, Failed)
    assert (event.address, event.code) == (peers[0].address, "evicted")
    for peer in peers[1:]:
        peer.step()
        assert peer.says(b"in") == [b"in"]
    assert endpoint.server.statistics.handshakes_evicted == 1


def test_one_address_cannot_take_more_than_one_place() -> None:
    endpoint = make_server(max_handshakes=2)
    honest = Peer(endpoint, ELSEWHERE)
    honest.step()
    honest.step()
    for _ in range(5):
        pushy = Peer(endpoint)
        pushy.step()
        pushy.step()
    honest.step()
    assert honest.says(b"in") == [b"in"]


def test_a_full_server_refuses_new_addresses_and_lets_known_ones_come_back() -> None:
    endpoint = make_server(max_associations=1)
    Peer(endpoint).shake()
    stranger = Peer(endpoint, ELSEWHERE)
    stranger.step()
    assert stranger.send() == []
    assert endpoint.server.statistics.handshakes_refused == 1
    again = Peer(endpoint).shake()
    assert again.says(b"back") == [b"back"]


def test_a_server_that_filled_up_meanwhile_turns_the_late_one_away() -> None:
    endpoint = make_server(max_associations=1)
    late = Peer(endpoint, ELSEWHERE)
    late.step()
    late.step()
    Peer(endpoint).shake()
    late.step()
    failed = endpoint.events[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "server_full"
    assert isinstance(late.association.next_event(), HandshakeCompleted)
    assert late.association.next_event() == AssociationClosed("close_notify")
    assert endpoint.server.association_count == 1


def test_cookies_not_yet_sent_are_bounded() -> None:
    endpoint = make_server()
    (hello,) = Peer(endpoint).flight
    for number in range(MAX_CHALLENGES + 10):
        endpoint.server.receive_datagram(hello, ("198.51.100.1", number), 0.0)
    assert len(endpoint.server.datagrams_to_send()) == MAX_CHALLENGES
    assert endpoint.server.statistics.challenges_suppressed == 10


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0)])
def test_a_server_without_room_is_not_made(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="room for one"):
        make_server(max_handshakes=bounds[0], max_associations=bounds[1])
