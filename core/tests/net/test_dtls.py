"""One association: the handshake and what can go wrong with it, payloads, keys, the end."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from turnlane.api.errors import TransportError
from turnlane.net.dtls import (
    DEFAULT_HANDSHAKE_TIMEOUT,
    MAX_PAYLOAD,
    MAX_RETRANSMISSION,
    OVERHEAD,
    TIMER_MARGIN,
    DtlsAssociation,
)
from turnlane.net.dtls_context import CIPHERS, server_context
from turnlane.net.dtls_state import (
    AssociationClosed,
    AssociationStateError,
    HandshakeCompleted,
    HandshakeFailed,
    PayloadSizeError,
    State,
)
from turnlane.net.identity import Identity, Pin
from turnlane.net.openssl import check_library
from turnlane.proto.dtls_records import ContentType, records_untrusted

NOW = 1_700_000_000.0
IDENTITY = Identity.generate(NOW)
NO_EXTENDED_MASTER_SECRET = 1
"""SSL_OP_NO_EXTENDED_MASTER_SECRET, which pyOpenSSL does not name."""


class Pair:
    """A client and a server that hand each other every datagram at once."""

    def __init__(
        self, *, pin: Pin | None = IDENTITY.pin, mtu: int = 1200, server_mtu: int = 1200
    ) -> None:
        self.client = DtlsAssociation.client(pin=pin, mtu=mtu)
        self.server = DtlsAssociation.server(IDENTITY, mtu=server_mtu)
        self.datagrams: list[bytes] = []

    def start(self) -> None:
        self.server.start(0.0)
        self.client.start(0.0)
        self.settle()

    def settle(self) -> tuple[list[bytes], list[bytes]]:
        """Move datagrams until there are none; return the payloads of client and server."""
        to_client: list[bytes] = []
        to_server: list[bytes] = []
        while self.client.is_pending or self.server.is_pending:
            from_client = self.client.datagrams_to_send()
            for datagram in from_client:
                to_server += self.server.receive_datagram(datagram, 0.0)
            from_server = self.server.datagrams_to_send()
            for datagram in from_server:
                to_client += self.client.receive_datagram(datagram, 0.0)
            self.datagrams += from_client + from_server
            if not from_client and not from_server:
                break
        return to_client, to_server


class RawPeer:
    """OpenSSL as it comes, on memory BIOs, for peers that are not like ours."""

    def __init__(self, context: SSL.Context, *, client: bool) -> None:
        self.connection = SSL.Connection(context, None)
        self.connection.set_ciphertext_mtu(1200)
        if client:
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()
        self.finished = False
        self.error: SSL.Error | None = None

    def go_on(self) -> None:
        try:
            self.connection.do_handshake()
            self.finished = True
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.error = error

    def sent(self) -> bytes:
        try:
            return self.connection.bio_read(65536)
        except SSL.WantReadError:
            return b""

    def shake(self, association: DtlsAssociation) -> None:
        """Run a handshake with one of ours, until neither says anything."""
        association.start(0.0)
        self.go_on()
        while True:
            from_raw = self.sent()
            association.receive_datagram(from_raw, 0.0)
            from_ours = association.datagrams_to_send()
            for datagram in from_ours:
                for record in records_untrusted(datagram):
                    self.connection.bio_write(record.data)
                    if not self.finished and self.error is None:
                        self.go_on()
            if not from_raw and not from_ours:
                return


def raw_context(method: int, options: int = 0, ciphers: bytes = CIPHERS) -> SSL.Context:
    context = SSL.Context(method)
    context.set_options(SSL.OP_NO_QUERY_MTU | options)
    context.set_cipher_list(ciphers)
    return context


def raw_server_context(options: int = 0, ciphers: bytes = CIPHERS) -> SSL.Context:
    context = raw_context(SSL.DTLS_SERVER_METHOD, options, ciphers)
    context.use_certificate(IDENTITY.certificate)
    context.use_privatekey(IDENTITY.key)
    return context


def established() -> Pair:
    pair = Pair()
    pair.start()
    assert isinstance(pair.client.next_event(), HandshakeCompleted)
    assert isinstance(pair.server.next_event(), HandshakeCompleted)
    return pair


def test_a_handshake_completes_at_both_ends_with_aes_128_gcm() -> None:
    pair = Pair()
    pair.start()
    cipher = "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert pair.client.next_event() == HandshakeCompleted(cipher, IDENTITY.pin)
    assert pair.server.next_event() == HandshakeCompleted(cipher, None)
    assert pair.client.state is State.ESTABLISHED
    assert pair.client.get_timer() is None
    assert pair.server.get_timer() is None


def test_payloads_pass_both_ways_one_per_datagram() -> None:
    pair = established()
    datagram = pair.client.encrypt(b"ping")
    assert len(datagram) == 4 + OVERHEAD
    assert b"ping" not in datagram
    assert pair.server.receive_datagram(datagram, 0.0) == [b"ping"]
    answer = pair.server.encrypt(memoryview(bytearray(b"pong")))
    assert pair.client.receive_datagram(answer, 0.0) == [b"pong"]


def test_several_records_of_one_datagram_give_several_payloads() -> None:
    pair = established()
    datagram = b"".join(pair.client.encrypt(bytes([n])) for n in range(5))
    assert pair.server.receive_datagram(datagram, 0.0) == [bytes([n]) for n in range(5)]


@pytest.mark.parametrize("size", [1, 1163, 1164, 1427, 9000, MAX_PAYLOAD])
def test_a_payload_is_not_bound_by_the_handshakes_mtu(size: int) -> None:
    pair = established()
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        payload = bytes(size)
        datagram = sender.encrypt(payload)
        assert len(datagram) == size + OVERHEAD
        assert receiver.receive_datagram(datagram, 0.0) == [payload]


def test_payloads_that_do_not_fit_and_empty_ones_are_refused() -> None:
    pair = established()
    with pytest.raises(PayloadSizeError, match="16385 bytes; a payload has 1 to 16384"):
        pair.client.encrypt(bytes(MAX_PAYLOAD + 1))
    with pytest.raises(PayloadSizeError):
        pair.client.encrypt(b"")
    assert pair.server.receive_datagram(pair.client.encrypt(b"on"), 0.0) == [b"on"]


def test_openssl_neither_sends_nor_gives_empty_records() -> None:
    """The ground for refusing empty payloads."""
    raw = RawPeer(raw_context(SSL.DTLS_CLIENT_METHOD), client=True)
    server = DtlsAssociation.server(IDENTITY)
    raw.shake(server)
    with pytest.raises(SSL.Error):
        raw.connection.send(b"")
    assert raw.sent() == b""


@pytest.mark.parametrize("mtu", [256, 300, 700, 1200])
def test_handshake_datagrams_stay_within_the_mtu(mtu: int) -> None:
    pair = Pair(mtu=mtu, server_mtu=mtu)
    pair.start()
    assert pair.client.state is State.ESTABLISHED
    assert max(len(datagram) for datagram in pair.datagrams) <= mtu


@pytest.mark.parametrize("mtu", [255, 2**14 + 1])
def test_an_mtu_out_of_range_is_refused(mtu: int) -> None:
    with pytest.raises(ValueError, match="an MTU is between"):
        DtlsAssociation.client(pin=None, mtu=mtu)


def test_both_ends_derive_the_same_keys_and_nothing_else_gives_them() -> None:
    pair = established()
    keys = pair.client.export(b"EXPORTER-test", 32)
    assert len(keys) == 32
    assert pair.server.export(b"EXPORTER-test", 32) == keys
    assert pair.client.export(b"EXPORTER-other", 32) != keys
    assert pair.client.export(b"EXPORTER-test", 32, b"context") != keys
    assert established().client.export(b"EXPORTER-test", 32) != keys


@pytest.mark.parametrize("started", [False, True])
def test_nothing_is_encrypted_or_derived_before_the_handshake(started: bool) -> None:
    client = DtlsAssociation.client(pin=None)
    if started:
        client.start(0.0)
    with pytest.raises(AssociationStateError):
        client.encrypt(b"early")
    with pytest.raises(AssociationStateError):
        client.export(b"label", 16)


def test_an_association_starts_once() -> None:
    client = DtlsAssociation.client(pin=None)
    client.start(0.0)
    with pytest.raises(AssociationStateError):
        client.start(0.0)


# Who the server is


def test_without_a_pin_any_server_is_taken_and_its_pin_told() -> None:
    pair = Pair(pin=None)
    pair.start()
    event = pair.client.next_event()
    assert isinstance(event, HandshakeCompleted)
    assert event.peer_pin == IDENTITY.pin


def test_a_server_with_another_key_is_refused_and_told_so() -> None:
    pair = Pair(pin=Identity.generate(NOW).pin)
    pair.start()
    refused = pair.client.next_event()
    assert isinstance(refused, HandshakeFailed)
    assert refused.code == "pin_mismatch"
    assert str(IDENTITY.pin) in refused.message
    assert pair.client.state is State.FAILED
    told = pair.server.next_event()
    assert isinstance(told, HandshakeFailed)
    assert (told.code, told.alert) == ("peer_alert", "unknown_ca")
    assert "unknown_ca" in told.message


def test_a_pin_is_checked_against_the_servers_own_key_not_one_it_attaches() -> None:
    attacker = Identity.generate(NOW)
    context = raw_context(SSL.DTLS_SERVER_METHOD)
    context.use_certificate(attacker.certificate)
    context.use_privatekey(attacker.key)
    context.add_extra_chain_cert(IDENTITY.certificate)
    client = DtlsAssociation.client(pin=IDENTITY.pin)
    RawPeer(context, client=False).shake(client)
    event = client.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.code == "pin_mismatch"


@pytest.mark.parametrize("pinned", ["server", "issuer"])
def test_a_pin_is_of_the_servers_key_and_not_of_the_one_that_signed_it(pinned: str) -> None:
    issuer, server = Identity.generate(NOW), Identity.generate(NOW)
    signed = (
        x509.CertificateBuilder()
        .subject_name(server.certificate.subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(server.key.public_key())
        .serial_number(1)
        .not_valid_before(server.certificate.not_valid_before_utc)
        .not_valid_after(server.certificate.not_valid_after_utc)
        .sign(issuer.key, hashes.SHA256())
    )
    context = raw_context(SSL.DTLS_SERVER_METHOD)
    context.use_certificate(signed)
    context.use_privatekey(server.key)
    context.add_extra_chain_cert(issuer.certificate)
    client = DtlsAssociation.client(pin=server.pin if pinned == "server" else issuer.pin)
    RawPeer(context, client=False).shake(client)
    event = client.next_event()
    if pinned == "server":
        assert isinstance(event, HandshakeCompleted)
        assert event.peer_pin == server.pin
    else:
        assert isinstance(event, HandshakeFailed)
        assert event.code == "pin_mismatch"


def test_a_certificate_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_info: bytes) -> Pin:
        raise ValueError("unreadable")

    monkeypatch.setattr(Pin, "of_public_key", fail)
    pair = Pair()
    pair.start()
    event = pair.client.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.code == "protocol_error"


def test_a_handshake_whose_certificate_nobody_looked_at_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = raw_context(SSL.DTLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE, None)
    monkeypatch.setattr("turnlane.net.dtls.client_context", lambda: context)
    pair = Pair()
    pair.start()
    event = pair.client.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.code == "pin_mismatch"


# What both must speak


def test_a_server_without_the_extended_master_secret_is_refused() -> None:
    client = DtlsAssociation.client(pin=IDENTITY.pin)
    raw = RawPeer(raw_server_context(NO_EXTENDED_MASTER_SECRET), client=False)
    raw.shake(client)
    event = client.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.code == "no_extended_master_secret"
    assert raw.finished
    with pytest.raises(SSL.ZeroReturnError):
        raw.connection.recv(100)


def test_a_client_without_the_extended_master_secret_never_finishes() -> None:
    server = DtlsAssociation.server(IDENTITY)
    raw = RawPeer(raw_context(SSL.DTLS_CLIENT_METHOD, NO_EXTENDED_MASTER_SECRET), client=True)
    raw.shake(server)
    event = server.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.code == "no_extended_master_secret"
    assert not raw.finished
    assert "insufficient security" in str(raw.error)
    with pytest.raises(AssociationStateError):
        server.encrypt(b"payload")


@pytest.mark.parametrize("missing", ["SSL_get_extms_support", "ERR_clear_error"])
def test_a_library_without_the_check_is_refused_before_anything_starts(missing: str) -> None:
    functions = {"SSL_get_extms_support": lambda _ssl: -1, "ERR_clear_error": lambda: None}
    check_library(SimpleNamespace(**functions))
    del functions[missing]
    with pytest.raises(TransportError) as caught:
        check_library(SimpleNamespace(**functions))
    assert caught.value.code == "openssl_unsupported"
    assert missing in caught.value.message


def test_a_library_whose_check_answers_nonsense_is_refused() -> None:
    library = SimpleNamespace(SSL_get_extms_support=lambda _ssl: 1, ERR_clear_error=lambda: None)
    with pytest.raises(TransportError):
        check_library(library)


def test_a_client_with_no_cipher_in_common_is_refused() -> None:
    server = DtlsAssociation.server(IDENTITY)
    raw = RawPeer(raw_context(SSL.DTLS_CLIENT_METHOD, ciphers=b"ECDHE+aRSA"), client=True)
    raw.shake(server)
    event = server.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.code == "protocol_error"
    assert "no shared cipher" in event.message


def test_a_server_that_refuses_is_quoted_by_the_name_of_its_alert() -> None:
    client = DtlsAssociation.client(pin=None)
    context = raw_server_context(ciphers=b"ECDHE-ECDSA-AES256-SHA")
    RawPeer(context, client=False).shake(client)
    event = client.next_event()
    assert isinstance(event, HandshakeFailed)
    assert (event.code, event.alert) == ("peer_alert", "handshake_failure")


def test_dtls_1_0_is_not_spoken() -> None:
    context = raw_context(SSL.DTLS_CLIENT_METHOD, ciphers=b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(0xFEFF)
    context.set_max_proto_version(0xFEFF)
    server = DtlsAssociation.server(IDENTITY)
    RawPeer(context, client=True).shake(server)
    assert isinstance(server.next_event(), HandshakeFailed)


def test_nothing_is_resumed() -> None:
    context = raw_context(SSL.DTLS_CLIENT_METHOD)
    ours = server_context(IDENTITY)
    first = RawPeer(context, client=True)
    kept = accepting(ours)
    first.shake(kept)
    session = first.connection.get_session()
    assert session is not None
    # Only a session that was ended in order may be resumed at all.
    kept.close()
    first.connection.bio_write(kept.datagrams_to_send()[0])
    with pytest.raises(SSL.ZeroReturnError):
        first.connection.recv(100)
    second = RawPeer(context, client=True)
    second.connection.set_session(session)
    server = accepting(ours)
    second.shake(server)
    assert isinstance(server.next_event(), HandshakeCompleted)
    # Resumed sessions have the master secret of the first.
    assert second.connection.master_key() != first.connection.master_key()


def accepting(context: SSL.Context) -> DtlsAssociation:
    association = DtlsAssociation(context, pin=None, mtu=1200, handshake_timeout=20.0)
    association._connection.set_accept_state()
    return association


def test_a_renegotiation_is_declined_and_the_association_goes_on() -> None:
    raw = RawPeer(raw_context(SSL.DTLS_CLIENT_METHOD), client=True)
    server = DtlsAssociation.server(IDENTITY)
    raw.shake(server)
    assert isinstance(server.next_event(), HandshakeCompleted)
    raw.connection.renegotiate()
    raw.finished = False
    raw.go_on()
    assert server.receive_datagram(raw.sent(), 0.0) == []
    assert server.state is State.ESTABLISHED
    assert server.next_event() is None


def test_a_client_does_not_begin_anew_when_the_server_asks_for_it() -> None:
    raw = RawPeer(raw_server_context(), client=False)
    client = DtlsAssociation.client(pin=IDENTITY.pin)
    raw.shake(client)
    assert isinstance(client.next_event(), HandshakeCompleted)
    raw.connection.renegotiate()
    raw.go_on()
    asked = raw.sent()
    assert asked
    client.receive_datagram(asked, 0.0)
    sent = [record for data in client.datagrams_to_send() for record in records_untrusted(data)]
    assert all(record.content_type == ContentType.ALERT for record in sent)
    assert client.state is State.ESTABLISHED


# The end


def test_closing_tells_the_peer_once() -> None:
    pair = established()
    pair.client.close()
    (goodbye,) = pair.client.datagrams_to_send()
    assert pair.server.receive_datagram(goodbye, 0.0) == []
    assert pair.server.next_event() == AssociationClosed("close_notify")
    pair.client.close()
    assert pair.client.next_event() is None
    assert not pair.client.is_pending
    for association in (pair.client, pair.server):
        assert association.state is State.CLOSED
        with pytest.raises(AssociationStateError):
            association.encrypt(b"late")


def test_a_closed_association_ignores_what_still_comes() -> None:
    pair = established()
    late = pair.server.encrypt(b"late")
    pair.client.close()
    assert pair.client.receive_datagram(late, 0.0) == []


def test_a_fatal_alert_of_the_peer_ends_the_association() -> None:
    raw = RawPeer(raw_context(SSL.DTLS_CLIENT_METHOD), client=True)
    server = DtlsAssociation.server(IDENTITY)
    raw.shake(server)
    assert isinstance(server.next_event(), HandshakeCompleted)
    # OpenSSL takes it as the end of everything when a renegotiation is declined.
    raw.connection.renegotiate()
    raw.go_on()
    server.receive_datagram(raw.sent(), 0.0)
    (declined,) = server.datagrams_to_send()
    raw.connection.bio_write(declined)
    raw.go_on()
    server.receive_datagram(raw.sent(), 0.0)
    assert server.next_event() == AssociationClosed("peer_alert", "handshake_failure")
    assert server.state is State.CLOSED


@pytest.mark.parametrize("started", [False, True])
def test_closing_before_there_is_an_association_is_silent(started: bool) -> None:
    client = DtlsAssociation.client(pin=None)
    if started:
        client.start(0.0)
        client.datagrams_to_send()
    client.close()
    assert client.state is State.CLOSED
    assert not client.is_pending
    assert client.get_timer() is None


def test_an_end_that_openssl_cannot_announce_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = established()
    monkeypatch.setattr(pair.client._connection, "shutdown", failing)
    pair.client.close()
    assert pair.client.state is State.CLOSED
    assert pair.client.datagrams_to_send() == []


def failing() -> None:
    raise SSL.Error([("SSL routines", "", "out of order")])


def test_an_association_that_has_ended_does_not_come_back() -> None:
    client = DtlsAssociation.client(pin=None)
    client.close()
    with pytest.raises(AssociationStateError):
        client.start(0.0)
    with pytest.raises(AssociationStateError, match="CLOSED is not followed by ESTABLISHED"):
        client._enter(State.ESTABLISHED)


# Time


def test_an_unanswered_flight_is_sent_again_with_doubling_pauses_until_time_is_up() -> None:
    client = DtlsAssociation.client(pin=None, handshake_timeout=70.0)
    client.start(100.0)
    moments = [100.0]
    assert len(client.datagrams_to_send()) == 1
    while (timer := client.get_timer()) is not None:
        client.handle_timer(timer - 0.001)
        assert client.datagrams_to_send() == []
        client.handle_timer(timer)
        if client.datagrams_to_send():
            moments.append(timer)
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    expected = [1.0, 2.0, 4.0, 8.0, MAX_RETRANSMISSION, 16.0, 16.0]
    assert pauses == pytest.approx([pause + TIMER_MARGIN for pause in expected])
    event = client.next_event()
    assert isinstance(event, HandshakeFailed)
    assert event.code == "dtls_timeout"
    assert client.statistics.retransmissions == 7


def test_a_handshake_has_twenty_seconds_unless_told_otherwise() -> None:
    server = DtlsAssociation.server(IDENTITY)
    server.start(5.0)
    assert server.get_timer() == 5.0 + DEFAULT_HANDSHAKE_TIMEOUT
    server.handle_timer(24.9)
    assert server.next_event() is None
    server.handle_timer(25.0)
    assert isinstance(server.next_event(), HandshakeFailed)


def test_a_flight_that_openssl_refuses_to_repeat_fails_the_handshake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = DtlsAssociation.client(pin=None)
    client.start(0.0)
    monkeypatch.setattr(client._connection, "DTLSv1_handle_timeout", failing)
    client.handle_timer(2.0)
    event = client.next_event()
    assert isinstance(event, HandshakeFailed)
    assert (event.code, event.message) == ("protocol_error", "out of order")


def test_timers_do_nothing_to_an_established_association() -> None:
    pair = established()
    pair.client.handle_timer(1000.0)
    assert pair.client.state is State.ESTABLISHED
