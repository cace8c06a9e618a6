"""Records, ClientHello, HelloVerifyRequest, cookies and flights, byte for byte."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.proto.dtls_cookie import TICK, CookieIssuer
from turnlane.proto.dtls_flight import FlightPacker
from turnlane.proto.dtls_records import (
    MAX_RECORD_BODY,
    MAX_SEQUENCE,
    AlertDescription,
    ClientHello,
    DtlsRecordError,
    Record,
    alert_name,
    client_hello_untrusted,
    encode_fatal_alert,
    encode_hello_verify_request,
    encode_record,
    handshake_fragments_untrusted,
    is_client_hello_untrusted,
    records_untrusted,
)

RANDOM = bytes(range(32))
SUITES = bytes.fromhex("0002c02b")
COMPRESSION = bytes.fromhex("0100")


def hello_body(
    cookie: bytes = b"", *, session: bytes = b"", extensions: bytes | None = b"\0\x04\0\x17\0\0"
) -> bytes:
    return (
        b"\xfe\xfd"
        + RANDOM
        + bytes([len(session)])
        + session
        + bytes([len(cookie)])
        + cookie
        + SUITES
        + COMPRESSION
        + (extensions or b"")
    )


def handshake(kind: int, number: int, body: bytes, *, offset: int = 0, total: int = -1) -> bytes:
    total = len(body) if total < 0 else total
    return (
        bytes([kind])
        + total.to_bytes(3, "big")
        + number.to_bytes(2, "big")
        + offset.to_bytes(3, "big")
        + len(body).to_bytes(3, "big")
        + body
    )


def hello_record(body: bytes, *, sequence: int = 7, number: int = 1) -> Record:
    message = handshake(1, number, body)
    (record,) = records_untrusted(encode_record(22, 0, sequence, message))
    return record


def test_a_record_is_written_as_the_rfc_draws_it() -> None:
    data = encode_record(22, 1, 0x0102_0304_0506, b"body")
    assert data == bytes.fromhex("16 fefd 0001 010203040506 0004") + b"body"


def test_a_datagram_is_split_into_its_records() -> None:
    datagram = encode_record(20, 0, 5, b"\x01") + encode_record(22, 1, MAX_SEQUENCE, b"sealed")
    first, second = records_untrusted(datagram)
    assert (first.content_type, first.epoch, first.sequence, first.body) == (20, 0, 5, b"\x01")
    assert (second.epoch, second.sequence, second.body) == (1, MAX_SEQUENCE, b"sealed")
    assert first.data + second.data == datagram


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\x16\xfe\xfd", id="short header"),
        pytest.param(encode_record(22, 0, 1, b"abc")[:-1], id="short body"),
        pytest.param(encode_record(19, 0, 1, b"abc"), id="type below"),
        pytest.param(encode_record(25, 0, 1, b"abc"), id="type above"),
        pytest.param(encode_record(22, 0, 1, b"abc", version=b"\x03\x03"), id="TLS"),
        pytest.param(encode_record(22, 0, 1, bytes(MAX_RECORD_BODY + 1)), id="too long"),
    ],
)
def test_what_stands_before_a_malformed_header_is_kept(tail: bytes) -> None:
    records = records_untrusted(encode_record(23, 1, 1, b"good") + tail)
    assert next(records).body == b"good"
    with pytest.raises(DtlsRecordError):
        next(records)


def test_a_record_of_the_largest_size_is_taken() -> None:
    (record,) = records_untrusted(encode_record(23, 1, 1, bytes(MAX_RECORD_BODY)))
    assert len(record.body) == MAX_RECORD_BODY


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parsers_raise_anything_else(data: bytes) -> None:
    try:
        for record in records_untrusted(data):
            is_client_hello_untrusted(record)
            client_hello_untrusted(record)
    except DtlsRecordError:
        pass


@given(st.binary(max_size=200), st.integers(0, 0xFFFF), st.integers(0, MAX_SEQUENCE))
def test_no_body_makes_the_hello_parser_raise_anything_else(
    body: bytes, epoch: int, sequence: int
) -> None:
    (record,) = records_untrusted(encode_record(22, epoch, sequence, body))
    try:
        list(handshake_fragments_untrusted(record.body))
        client_hello_untrusted(record)
    except DtlsRecordError:
        pass


@given(st.binary(min_size=1, max_size=120), st.data())
def test_a_hello_cut_or_changed_anywhere_is_a_hello_or_an_error(
    noise: bytes, data: st.DataObject
) -> None:
    whole = hello_body(b"cookie", session=b"id")
    cut = data.draw(st.integers(0, len(whole)))
    for body in (whole[:cut], whole[:cut] + noise, whole[:cut] + noise + whole[cut:]):
        try:
            hello = client_hello_untrusted(hello_record(body))
        except DtlsRecordError:
            continue
        assert len(hello.bits) + len(hello.cookie) <= len(body)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([20, 21, 22, 23]),
            st.integers(0, 0xFFFF),
            st.integers(0, MAX_SEQUENCE),
            st.binary(max_size=40),
        ),
        max_size=8,
    )
)
def test_records_survive_a_round_trip(fields: list[tuple[int, int, int, bytes]]) -> None:
    datagram = b"".join(encode_record(*record) for record in fields)
    read = [(r.content_type, r.epoch, r.sequence, r.body) for r in records_untrusted(datagram)]
    assert read == fields


def test_a_client_hello_gives_its_cookie_and_the_bits_that_stay() -> None:
    hello = client_hello_untrusted(hello_record(hello_body(b"cookie", session=b"id")))
    assert hello.cookie == b"cookie"
    assert hello.bits == b"\xfe\xfd" + RANDOM + b"\x02id" + SUITES + COMPRESSION
    assert (hello.sequence, hello.message_sequence) == (7, 1)


def test_the_bits_leave_out_cookie_extensions_and_framing() -> None:
    first = client_hello_untrusted(hello_record(hello_body(), sequence=0, number=0))
    second = client_hello_untrusted(
        hello_record(hello_body(b"cookie", extensions=b"\0\0"), sequence=9, number=1)
    )
    assert first.bits == second.bits


def test_a_client_hello_without_extensions_is_one() -> None:
    assert client_hello_untrusted(hello_record(hello_body(extensions=None))).cookie == b""


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(hello_body()[:20], id="cut in the random"),
        pytest.param(hello_body()[:-1], id="cut in the extensions"),
        pytest.param(hello_body() + b"x", id="more at the end"),
        pytest.param(hello_body(session=bytes(33)), id="session id too long"),
        pytest.param(b"\xfe\xfd" + RANDOM + b"\0\xff\0", id="cookie longer than the message"),
        pytest.param(b"\xfe\xfd" + RANDOM + b"\0\0\0\0\x01\0", id="no cipher suite"),
        pytest.param(b"\xfe\xfd" + RANDOM + b"\0\0" + SUITES + b"\0", id="no compression"),
    ],
)
def test_a_malformed_client_hello_is_refused(body: bytes) -> None:
    with pytest.raises(DtlsRecordError):
        client_hello_untrusted(hello_record(body))


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(handshake(1, 0, hello_body(), total=500), id="first fragment"),
        pytest.param(handshake(1, 0, hello_body(), offset=1, total=500), id="later fragment"),
        pytest.param(handshake(1, 0, hello_body()) * 2, id="two in a record"),
        pytest.param(handshake(1, 0, hello_body(), offset=1), id="beyond its message"),
        pytest.param(handshake(2, 0, hello_body()), id="another message"),
        pytest.param(handshake(1, 0, hello_body())[:11], id="short header"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_hello_that_is_not_whole_and_alone_is_refused(message: bytes) -> None:
    (record,) = records_untrusted(encode_record(22, 0, 0, message))
    with pytest.raises(DtlsRecordError):
        client_hello_untrusted(record)


def test_a_hello_of_a_later_epoch_opens_nothing() -> None:
    (record,) = records_untrusted(encode_record(22, 1, 0, handshake(1, 0, hello_body())))
    assert not is_client_hello_untrusted(record)
    with pytest.raises(DtlsRecordError):
        client_hello_untrusted(record)


def test_a_hello_verify_request_echoes_the_record_number() -> None:
    datagram = encode_hello_verify_request(0x0A0B, b"abcd")
    assert datagram == bytes.fromhex(
        "16 feff 0000 000000000a0b 0013"  # record, DTLS 1.0
        "03 000007 0000 000000 000007"  # message 0, whole
        "feff 04 61626364"
    )


def test_asking_for_a_cookie_sends_no_more_than_came() -> None:
    smallest = hello_record(hello_body(extensions=None))
    assert len(encode_hello_verify_request(0, bytes(32))) <= len(smallest.data)


def test_a_fatal_alert_is_two_bytes_in_plaintext() -> None:
    data = encode_fatal_alert(3, AlertDescription.INSUFFICIENT_SECURITY)
    assert data == bytes.fromhex("15 fefd 0000 000000000003 0002 02 47")


def test_alerts_have_the_names_of_the_rfc() -> None:
    assert alert_name(48) == "unknown_ca"
    assert alert_name(200) == "alert_200"


# Cookies

HOME = ("192.0.2.1", 4433)


def a_hello(cookie: bytes = b"", *, bits: bytes = b"bits") -> ClientHello:
    return ClientHello(0, 0, cookie, bits, b"")


def test_a_cookie_comes_back_from_where_it_was_sent() -> None:
    issuer = CookieIssuer(os.urandom)
    cookie = issuer.issue(HOME, a_hello(), 1000.0)
    assert len(cookie) == 32
    assert issuer.accepts(HOME, a_hello(cookie), 1000.0)


@pytest.mark.parametrize("address", [("192.0.2.2", 4433), ("192.0.2.1", 4434)])
def test_a_cookie_is_worth_nothing_elsewhere(address: tuple[str, int]) -> None:
    issuer = CookieIssuer(os.urandom)
    cookie = issuer.issue(HOME, a_hello(), 0.0)
    assert not issuer.accepts(address, a_hello(cookie), 0.0)


def test_a_cookie_is_worth_nothing_for_another_hello() -> None:
    issuer = CookieIssuer(os.urandom)
    cookie = issuer.issue(HOME, a_hello(), 0.0)
    assert not issuer.accepts(HOME, a_hello(cookie, bits=b"other"), 0.0)


def test_a_cookie_is_worth_nothing_at_another_server() -> None:
    cookie = CookieIssuer(os.urandom).issue(HOME, a_hello(), 0.0)
    assert not CookieIssuer(os.urandom).accepts(HOME, a_hello(cookie), 0.0)


@pytest.mark.parametrize("issued", [0.0, TICK - 0.001, -5.0, 123_456.789])
def test_a_cookie_lasts_for_one_tick_at_least_and_two_at_most(issued: float) -> None:
    issuer = CookieIssuer(os.urandom)
    cookie = issuer.issue(HOME, a_hello(), issued)
    assert issuer.accepts(HOME, a_hello(cookie), issued + TICK)
    assert not issuer.accepts(HOME, a_hello(cookie), issued + 2 * TICK)


def test_a_cookie_of_the_future_is_refused() -> None:
    issuer = CookieIssuer(os.urandom)
    cookie = issuer.issue(HOME, a_hello(), TICK)
    assert not issuer.accepts(HOME, a_hello(cookie), 0.0)


@given(st.binary(max_size=255))
def test_no_cookie_is_guessed(cookie: bytes) -> None:
    assert not CookieIssuer(os.urandom).accepts(HOME, a_hello(cookie), 0.0)


def test_an_ipv6_address_with_its_scope_gets_a_cookie_of_its_own() -> None:
    issuer = CookieIssuer(os.urandom)
    cookie = issuer.issue(("fe80::1", 1, 0, 2), a_hello(), 0.0)
    assert issuer.accepts(("fe80::1", 1, 0, 2), a_hello(cookie), 0.0)
    assert not issuer.accepts(("fe80::1", 1, 0, 3), a_hello(cookie), 0.0)


def test_fields_of_an_address_do_not_run_into_each_other() -> None:
    issuer = CookieIssuer(os.urandom)
    cookie = issuer.issue(("10.0.0.1", 23), a_hello(), 0.0)
    assert not issuer.accepts(("10.0.0.12", 3), a_hello(cookie), 0.0)


# Flights


def flight(*fields: tuple[int, int, int, bytes]) -> list[Record]:
    return list(records_untrusted(b"".join(encode_record(*field) for field in fields)))


def sequences(datagrams: list[bytes]) -> list[tuple[int, int]]:
    return [(r.epoch, r.sequence) for data in datagrams for r in records_untrusted(data)]


def test_plaintext_records_get_new_numbers_each_time_and_encrypted_ones_keep_theirs() -> None:
    packer = FlightPacker(1200)
    records = flight((22, 0, 0, b"key"), (20, 0, 1, b"\x01"), (22, 1, 0, b"sealed"))
    assert sequences(packer.pack(records)) == [(0, 0), (0, 1), (1, 0)]
    assert sequences(packer.pack(records)) == [(0, 2), (0, 3), (1, 0)]


def test_numbers_start_where_a_server_was_told() -> None:
    packer = FlightPacker(1200)
    packer.start_at(MAX_SEQUENCE)
    records = flight((22, 0, 0, b"a"), (22, 0, 1, b"b"))
    assert sequences(packer.pack(records)) == [(0, MAX_SEQUENCE), (0, 0)]


def test_a_record_keeps_its_version() -> None:
    (record,) = records_untrusted(encode_record(22, 0, 0, b"hello", version=b"\xfe\xff"))
    (datagram,) = FlightPacker(1200).pack([record])
    assert datagram == record.data


@given(st.lists(st.integers(1, 200), max_size=30), st.integers(256, 600))
def test_datagrams_stay_within_the_mtu_and_lose_nothing(sizes: list[int], mtu: int) -> None:
    records = flight(*((22, 0, n, struct.pack("!H", n) * size) for n, size in enumerate(sizes)))
    records = [record for record in records if len(record.data) <= mtu]
    datagrams = FlightPacker(mtu).pack(records)
    assert all(0 < len(datagram) <= mtu for datagram in datagrams)
    bodies = [record.body for datagram in datagrams for record in records_untrusted(datagram)]
    assert bodies == [record.body for record in records]


def test_small_records_share_a_datagram() -> None:
    records = flight((22, 0, 0, bytes(100)), (22, 0, 1, bytes(100)), (22, 0, 2, bytes(100)))
    assert [len(datagram) for datagram in FlightPacker(256).pack(records)] == [226, 113]
