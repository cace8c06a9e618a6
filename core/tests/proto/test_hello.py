"""The handshake's bytes and proofs, recomputed here by hand with struct and hmac."""

import hashlib
import hmac
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import Secret, TrafficClass
from turnlane.proto.frames import SessionProtocolError
from turnlane.proto.hello import (
    EXPORTER_LABEL,
    MAX_REASON,
    Hello,
    HelloFlag,
    HelloParameters,
    Message,
    Reject,
    UnsupportedVersionError,
    Welcome,
    WelcomeTerms,
    build_hello,
    build_reject,
    build_welcome,
    is_handshake,
    parse_message_untrusted,
    token_key,
)
from turnlane.proto.refusals import (
    EXPLANATIONS,
    Refusal,
    RejectCode,
    Remedy,
    explain,
    reject_name,
)

VECTORS = json.loads(
    (Path(__file__).parents[3] / "docs" / "session-protocol-vectors.json").read_text()
)
INPUTS = VECTORS["inputs"]
HANDSHAKE = {name: bytes.fromhex(text) for name, text in VECTORS["handshake"].items()}

TOKEN = token_key(Secret(INPUTS["token"]))
SESSION_SECRET = Secret(bytes.fromhex(INPUTS["session_secret"]))
SESSION_ID = bytes.fromhex(INPUTS["session_id"])
FIRST = bytes.fromhex(INPUTS["first_exporter"])
SECOND = bytes.fromhex(INPUTS["second_exporter"])
TERMS = WelcomeTerms(INPUTS["max_datagram"], INPUTS["idle_timeout_ms"] / 1000)
PARAMETERS = HelloParameters(SESSION_ID, 0, 4, traceparent=INPUTS["traceparent"])

FIRST_HELLO = HANDSHAKE["hello_first_lane"]


def sha256_hmac(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def message(kind: int, size: int) -> bytes:
    return b"turnlane" + struct.pack(">BBH", 1, kind, size)


def recomputed_hello(
    lane: int,
    exporter: bytes,
    token: bytes,
    flags: int,
    *,
    secret: bytes | None = None,
    traceparent: bytes = b"",
) -> bytes:
    hello = message(1, 43 + len(traceparent) + 64)
    hello += struct.pack(">I", 0) + SESSION_ID + struct.pack(">HHBB", lane, 4, 1, flags)
    hello += sha256_hmac(exporter, b"turnlane/1 association\0")[:16]
    hello += bytes([len(traceparent)]) + traceparent
    hello += sha256_hmac(secret, b"turnlane/1 lane\0", exporter, hello) if secret else bytes(32)
    return hello + sha256_hmac(token, b"turnlane/1 client\0", exporter, hello)


def recomputed_welcome(hello: bytes, exporter: bytes, token: bytes, secret: bytes | None) -> bytes:
    welcome = message(2, 43 + 32) + struct.pack(">IB", 0, 1 if secret else 0)
    welcome += secret or bytes(32)
    welcome += struct.pack(">HI", INPUTS["max_datagram"], INPUTS["idle_timeout_ms"])
    return welcome + sha256_hmac(token, b"turnlane/1 server\0", exporter, hello, welcome)


def test_the_vectors_are_what_the_specification_yields() -> None:
    token = INPUTS["token"].encode()
    secret = SESSION_SECRET.reveal()
    first = recomputed_hello(0, FIRST, token, 2, traceparent=INPUTS["traceparent"].encode())
    third = recomputed_hello(3, SECOND, token, 3, secret=secret)
    open_hello = recomputed_hello(0, FIRST, b"turnlane/1 open", 0)
    reject = message(3, 4) + struct.pack(">H", 6) + b"no"

    assert {
        "hello_first_lane": first,
        "welcome_first_lane": recomputed_welcome(first, FIRST, token, secret),
        "hello_lane_3": third,
        "welcome_lane_3": recomputed_welcome(third, SECOND, token, None),
        "hello_open": open_hello,
        "welcome_open": recomputed_welcome(open_hello, FIRST, b"turnlane/1 open", secret),
        "reject_token_mismatch": reject,
    } == HANDSHAKE
    assert EXPORTER_LABEL.decode() == VECTORS["exporter_label"]


def test_every_vector_is_built() -> None:
    third = HelloParameters(SESSION_ID, 3, 4)
    bare = HelloParameters(SESSION_ID, 0, 4)
    first_hello = build_hello(PARAMETERS, exporter=FIRST, token=TOKEN, session_secret=None)
    third_hello = build_hello(third, exporter=SECOND, token=TOKEN, session_secret=SESSION_SECRET)
    open_hello = build_hello(bare, exporter=FIRST, token=None, session_secret=None)

    def welcome(
        hello: bytes, exporter: bytes, token: Secret[bytes] | None, secret: Secret[bytes] | None
    ) -> bytes:
        return build_welcome(
            TERMS, hello=hello, exporter=exporter, token=token, session_secret=secret
        )

    assert {
        "hello_first_lane": first_hello,
        "welcome_first_lane": welcome(first_hello, FIRST, TOKEN, SESSION_SECRET),
        "hello_lane_3": third_hello,
        "welcome_lane_3": welcome(third_hello, SECOND, TOKEN, None),
        "hello_open": open_hello,
        "welcome_open": welcome(open_hello, FIRST, None, SESSION_SECRET),
        "reject_token_mismatch": build_reject(Refusal(RejectCode.TOKEN_MISMATCH, "no")),
    } == HANDSHAKE


def hello_of(record: bytes) -> Hello:
    parsed = parse_message_untrusted(record)
    assert isinstance(parsed, Hello)
    return parsed


def welcome_of(record: bytes) -> Welcome:
    parsed = parse_message_untrusted(record)
    assert isinstance(parsed, Welcome)
    return parsed


def test_a_hello_is_read_back() -> None:
    first = hello_of(FIRST_HELLO)
    assert (first.session_id, first.lane, first.lanes) == (SESSION_ID, 0, 4)
    assert first.traffic is TrafficClass.DATAGRAM
    assert first.traceparent == INPUTS["traceparent"]
    assert first.flags == HelloFlag.TOKEN
    third = hello_of(HANDSHAKE["hello_lane_3"])
    assert (third.lane, third.traceparent) == (3, "")
    assert third.flags == HelloFlag.TOKEN | HelloFlag.SESSION_PROOF


def test_features_and_the_class_of_traffic_travel() -> None:
    parameters = HelloParameters(SESSION_ID, 0, 1, TrafficClass.STREAM, features=0x80000001)
    record = build_hello(parameters, exporter=FIRST, token=None, session_secret=None)
    assert hello_of(record).features == 0x80000001
    assert hello_of(record).traffic is TrafficClass.STREAM
    assert record[12 + 24] == 2
    unnamed = bytearray(record)
    unnamed[12 + 24] = 9
    assert hello_of(bytes(unnamed)).traffic is None


def test_proofs_hold_for_their_key_and_their_association_only() -> None:
    other = Secret(b"another token of enough length")
    third = hello_of(HANDSHAKE["hello_lane_3"])

    assert third.holds_on(SECOND)
    assert not third.holds_on(FIRST)
    assert third.proves_token(SECOND, TOKEN)
    assert not third.proves_token(FIRST, TOKEN)
    assert not third.proves_token(SECOND, other)
    assert not third.proves_token(SECOND, None)
    assert third.proves_session(SECOND, SESSION_SECRET)
    assert not third.proves_session(FIRST, SESSION_SECRET)
    assert not third.proves_session(SECOND, Secret(bytes(range(32))))
    assert not hello_of(FIRST_HELLO).proves_session(FIRST, SESSION_SECRET)


def test_a_welcome_answers_one_hello_on_one_association() -> None:
    record = HANDSHAKE["welcome_first_lane"]
    welcome = welcome_of(record)
    assert welcome.terms == TERMS
    assert welcome.session_secret == SESSION_SECRET
    assert welcome.answers(FIRST_HELLO, FIRST, TOKEN)
    assert not welcome.answers(HANDSHAKE["hello_open"], FIRST, TOKEN)
    assert not welcome.answers(FIRST_HELLO, SECOND, TOKEN)
    assert not welcome.answers(FIRST_HELLO, FIRST, None)
    assert welcome_of(HANDSHAKE["welcome_lane_3"]).session_secret is None


@given(st.data())
def test_no_byte_of_a_hello_can_be_changed(data: st.DataObject) -> None:
    record = bytearray(HANDSHAKE["hello_lane_3"])
    index = data.draw(st.integers(0, len(record) - 1))
    record[index] ^= data.draw(st.integers(1, 255))
    try:
        parsed = parse_message_untrusted(record)
    except SessionProtocolError:
        return
    assert not isinstance(parsed, Hello) or not parsed.proves_token(SECOND, TOKEN)


@given(st.data())
def test_no_byte_of_a_welcome_can_be_changed(data: st.DataObject) -> None:
    record = bytearray(HANDSHAKE["welcome_first_lane"])
    index = data.draw(st.integers(0, len(record) - 1))
    record[index] ^= data.draw(st.integers(1, 255))
    try:
        parsed = parse_message_untrusted(record)
    except SessionProtocolError:
        return
    assert not isinstance(parsed, Welcome) or not parsed.answers(FIRST_HELLO, FIRST, TOKEN)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_the_protocols_error(body: bytes) -> None:
    for record in (body, b"turnlane" + body, message(1, len(body)) + body):
        try:
            parsed = parse_message_untrusted(record)
        except SessionProtocolError:
            continue
        assert isinstance(parsed, Message)


@given(st.sampled_from(sorted(HANDSHAKE)), st.data())
def test_mutated_messages_raise_nothing_but_the_protocols_error(
    name: str, data: st.DataObject
) -> None:
    record = bytearray(HANDSHAKE[name])
    for _ in range(data.draw(st.integers(1, 4))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(record)))
    for mutated in (bytes(record), bytes(record[:cut]), bytes(record) + b"\0"):
        try:
            parsed = parse_message_untrusted(mutated)
        except SessionProtocolError:
            continue
        assert isinstance(parsed, Message)
        repr(parsed)


def edited(record: bytes, offset: int, *values: int) -> bytes:
    return record[:offset] + bytes(values) + record[offset + len(values) :]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"turnlane",
        b"turnlane\x01\x01\x00",
        FIRST_HELLO[:-1],
        FIRST_HELLO + b"\0",
        edited(FIRST_HELLO, 0, ord("T")),
        edited(FIRST_HELLO, 9, 4),
        edited(FIRST_HELLO, 12 + 20, 0, 4),
        edited(FIRST_HELLO, 12 + 42, 54),
        edited(FIRST_HELLO, 12 + 42, 255),
        edited(FIRST_HELLO, len(FIRST_HELLO) - 64, 1),
        message(1, 0),
        message(1, 42) + bytes(42),
        message(2, 0),
        edited(HANDSHAKE["welcome_first_lane"], 12 + 4, 0),
        edited(HANDSHAKE["welcome_lane_3"], 12 + 4, 1),
        edited(HANDSHAKE["welcome_lane_3"], 12 + 37, 0, 0),
        edited(HANDSHAKE["welcome_lane_3"], 12 + 39, 0, 0, 0, 0),
        message(3, 1) + b"\0",
    ],
)
def test_messages_that_contradict_themselves_are_refused(record: bytes) -> None:
    with pytest.raises(SessionProtocolError) as caught:
        parse_message_untrusted(record)
    assert not isinstance(caught.value, UnsupportedVersionError)


def test_another_version_is_named_except_in_a_reject() -> None:
    for name in ("hello_first_lane", "welcome_first_lane"):
        with pytest.raises(UnsupportedVersionError) as caught:
            parse_message_untrusted(edited(HANDSHAKE[name], 8, 7))
        assert caught.value.version == 7
    rejected = parse_message_untrusted(edited(HANDSHAKE["reject_token_mismatch"], 8, 7))
    assert rejected == Reject(RejectCode.TOKEN_MISMATCH, "no", 7)


def test_a_hello_as_long_as_it_can_be_is_read_and_its_foreign_trace_context_left_out() -> None:
    record = recomputed_hello(1, FIRST, TOKEN.reveal(), 2, traceparent=b"x" * 64)
    assert hello_of(record).traceparent == ""
    with pytest.raises(SessionProtocolError):
        parse_message_untrusted(
            recomputed_hello(1, FIRST, TOKEN.reveal(), 2, traceparent=b"x" * 65)
        )


def test_flags_and_features_of_later_versions_are_ignored() -> None:
    record = recomputed_hello(1, FIRST, TOKEN.reveal(), 0xF2)
    hello = hello_of(record)
    assert hello.flags == HelloFlag.TOKEN
    assert hello.proves_token(FIRST, TOKEN)


def test_a_reason_is_cut_and_printable() -> None:
    long = parse_message_untrusted(build_reject(Refusal(RejectCode.DRAINING, "ы" * 150)))
    assert isinstance(long, Reject)
    assert long.reason == "ы" * (MAX_REASON // 2)
    hostile = "a\x1b[31m\r\nstage=ok \u202eb".encode() + b"\xff"
    parsed = parse_message_untrusted(message(3, 2 + len(hostile)) + b"\x12\x34" + hostile)
    assert parsed == Reject(0x1234, "a\ufffd[31m\ufffd\ufffdstage=ok \ufffdb\ufffd", 1)
    assert parse_message_untrusted(message(3, 2) + b"\0\1") == Reject(1, "", 1)
    endless = parse_message_untrusted(message(3, 2 + 5000) + b"\0\1" + b"x" * 5000)
    assert endless == Reject(1, "x" * MAX_REASON, 1)


@pytest.mark.parametrize("code", list(RejectCode))
def test_every_refusal_is_explained(code: RejectCode) -> None:
    explanation = EXPLANATIONS[code]
    assert explanation.advice
    assert len(explanation.reason.encode()) <= MAX_REASON
    parsed = parse_message_untrusted(build_reject(Refusal(code)))
    assert parsed == Reject(code, explanation.reason, 1)
    assert reject_name(code) == code.name.lower()


def test_an_unknown_refusal_keeps_its_number() -> None:
    assert reject_name(4711) == "reject_4711"
    assert explain(4711).remedy is Remedy.TRY_LATER


def test_the_numbers_of_refusals_are_fixed() -> None:
    assert {reject_name(code): int(code) for code in RejectCode} == {
        "malformed": 1,
        "unsupported_version": 2,
        "association_mismatch": 3,
        "token_required": 4,
        "token_unexpected": 5,
        "token_mismatch": 6,
        "draining": 7,
        "unsupported_traffic": 8,
        "lane_limit": 9,
        "session_limit": 10,
        "unknown_session": 11,
        "session_exists": 12,
        "session_proof_mismatch": 13,
    }


@pytest.mark.parametrize("text", ["", "short", "x" * 21, "x" * 21 + "\0", "ы" * 30, "x\n" * 15])
def test_a_token_that_could_be_guessed_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="at least 22") as caught:
        token_key(Secret(text))
    assert not text or text not in str(caught.value)


def test_what_the_wire_cannot_say_is_refused_before_it_is_said() -> None:
    with pytest.raises(ValueError, match="session id"):
        HelloParameters(b"short", 0, 1)
    for lane, lanes in ((1, 1), (-1, 1), (0, 0), (0, 0x10000)):
        with pytest.raises(ValueError, match="lane's index"):
            HelloParameters(SESSION_ID, lane, lanes)
    with pytest.raises(ValueError, match="traceparent"):
        HelloParameters(SESSION_ID, 0, 1, traceparent="00-zz")
    with pytest.raises(ValueError, match="features"):
        HelloParameters(SESSION_ID, 0, 1, features=2**32)
    for max_datagram in (0, 0x10000):
        with pytest.raises(ValueError, match="max_datagram"):
            WelcomeTerms(max_datagram, 1.0)
    for idle_timeout in (0.0, 0.0009, 2**32 / 1000):
        with pytest.raises(ValueError, match="idle_timeout"):
            WelcomeTerms(1, idle_timeout)
    for features in (-1, 2**32):
        with pytest.raises(ValueError, match="features"):
            WelcomeTerms(1, 1.0, features)
    with pytest.raises(ValueError, match="exporter"):
        build_welcome(TERMS, hello=b"", exporter=b"", token=None, session_secret=None)
    with pytest.raises(ValueError, match="exporter"):
        build_hello(PARAMETERS, exporter=b"", token=None, session_secret=None)
    for secret in (b"short", bytes(32)):
        with pytest.raises(ValueError, match="session secret"):
            build_hello(PARAMETERS, exporter=FIRST, token=None, session_secret=Secret(secret))


@pytest.mark.parametrize(
    "terms",
    [WelcomeTerms(1, 0.001), WelcomeTerms(0xFFFF, 0xFFFF_FFFF / 1000, 0xFFFF_FFFF)],
    ids=["smallest", "largest"],
)
def test_the_smallest_and_the_largest_terms_travel(terms: WelcomeTerms) -> None:
    record = build_welcome(
        terms, hello=FIRST_HELLO, exporter=FIRST, token=TOKEN, session_secret=None
    )
    assert welcome_of(record).terms == terms


def test_a_handshake_message_is_told_from_everything_else_by_its_magic() -> None:
    assert is_handshake(FIRST_HELLO)
    assert is_handshake(memoryview(FIRST_HELLO))
    assert is_handshake(b"turnlane")
    assert not is_handshake(b"turnlan")
    assert not is_handshake(b"\x10\0\0\0turnlane")
