"""Frames: the bytes, the data path's shortcuts, and what no bytes can make the parser do."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import HEADROOM
from turnlane.proto.frames import (
    HEADER_SIZE,
    MAX_FLOW,
    MIN_PROBE,
    Bye,
    ByeCode,
    Datagram,
    Drain,
    Frame,
    FrameKind,
    Ping,
    Pong,
    Probe,
    ProbeAnswer,
    SessionProtocolError,
    UnknownFrame,
    datagram_flow,
    parse_untrusted,
    write_datagram_header,
)

VECTORS = json.loads(
    (Path(__file__).parents[3] / "docs" / "session-protocol-vectors.json").read_text()
)["frames"]

u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
flows = st.integers(0, MAX_FLOW)
encodable = st.one_of(
    st.builds(Ping, u32, u32),
    st.builds(Pong, u32, u32, st.none() | st.integers(0, 2**64 - 1)),
    st.builds(Drain, u32),
    st.builds(Bye, u16),
    st.builds(Probe, u32, u16, u16, st.booleans(), st.integers(MIN_PROBE, 2**14)),
    st.builds(ProbeAnswer, u32, u16),
    st.builds(Datagram, flows, st.binary(max_size=64).map(memoryview)),
)


def test_the_bytes_are_those_of_the_vectors() -> None:
    def control(kind: int, body: bytes) -> str:
        return (struct.pack(">BBH", 0x30, kind, len(body)) + body).hex()

    assert {
        "datagram_flow_0x010203_hi": "10010203" + b"hi".hex(),
        "datagram_flow_0_empty": "10000000",
        "ping_1_sent_258": control(1, struct.pack(">II", 1, 258)),
        "pong_1_received_257": control(2, struct.pack(">II", 1, 257)),
        "pong_1_received_257_at_2_s": control(2, struct.pack(">IIQ", 1, 257, 2_000_000)),
        "drain_30000_ms": control(3, struct.pack(">I", 30_000)),
        "bye_session_closed": control(4, struct.pack(">H", 2)),
        "probe_1_of_16_bytes_bound_1431_limit_1427_searching": control(
            5, struct.pack(">IHHB", 1, 1431, 1427, 1) + bytes(3)
        ),
        "probe_answer_1_of_16_bytes": control(6, struct.pack(">IH", 1, 16)),
    } == VECTORS


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("datagram_flow_0x010203_hi", Datagram(0x010203, memoryview(b"hi"))),
        ("datagram_flow_0_empty", Datagram(0, memoryview(b""))),
        ("ping_1_sent_258", Ping(1, 258)),
        ("pong_1_received_257", Pong(1, 257)),
        ("pong_1_received_257_at_2_s", Pong(1, 257, 2_000_000)),
        ("drain_30000_ms", Drain(30_000)),
        ("bye_session_closed", Bye(ByeCode.SESSION_CLOSED)),
        ("probe_1_of_16_bytes_bound_1431_limit_1427_searching", Probe(1, 1431, 1427, True, 16)),
        ("probe_answer_1_of_16_bytes", ProbeAnswer(1, 16)),
    ],
)
def test_every_vector_is_written_and_read(name: str, frame: Frame) -> None:
    assert not isinstance(frame, UnknownFrame)
    assert frame.encode().hex() == VECTORS[name]
    assert parse_untrusted(bytes.fromhex(VECTORS[name])) == frame


def test_a_datagram_header_is_written_in_place_before_its_payload() -> None:
    assert HEADER_SIZE <= HEADROOM
    buffer = bytearray(b"________payload")

    write_datagram_header(memoryview(buffer), 4, 0xABCDEF)

    assert buffer == b"____\x10\xab\xcd\xefpayload"


@pytest.mark.parametrize("flow", [-1, MAX_FLOW + 1, 2**32])
def test_a_flow_that_would_change_the_kind_is_refused(flow: int) -> None:
    buffer = bytearray(4)
    with pytest.raises(ValueError, match="24 bits"):
        write_datagram_header(buffer, 0, flow)
    assert buffer == bytes(4)


@pytest.mark.parametrize(
    ("record", "flow"),
    [
        (b"\x10\x00\x00\x00", 0),
        (b"\x10\xff\xff\xffpayload", MAX_FLOW),
        (b"\x10\x00\x01\x00", 256),
        (b"", -1),
        (b"\x10\x00\x00", -1),
        (b"\x20\x00\x00\x00", -1),
        (b"\x30\x01\x00\x00", -1),
        (b"turnlane", -1),
        (b"\x11\x00\x00\x00", -1),
        (b"\x00\x10\x00\x00\x00", -1),
    ],
)
def test_the_first_byte_says_whether_a_record_is_a_datagram(record: bytes, flow: int) -> None:
    assert datagram_flow(record) == flow
    around = bytearray(b"\x10\x10" + record + b"\x10\x10\x10\x10")
    assert datagram_flow(around, 2, len(record)) == flow
    assert datagram_flow(memoryview(around), 2, len(record)) == flow


def test_a_record_reaches_to_the_end_of_its_buffer_unless_told_otherwise() -> None:
    buffer = b"\x30\x01\x10\x00\x00\x09"
    assert datagram_flow(buffer, 2) == 9
    assert datagram_flow(buffer, 2, 3) == -1
    assert datagram_flow(buffer, 3) == -1


@given(st.binary(max_size=32))
def test_the_shortcut_and_the_parser_agree(record: bytes) -> None:
    try:
        frame = parse_untrusted(record)
    except SessionProtocolError:
        frame = None
    assert datagram_flow(record) == (frame.flow if isinstance(frame, Datagram) else -1)


@given(encodable)
def test_what_is_written_is_read_back(frame: Frame) -> None:
    assert not isinstance(frame, UnknownFrame)
    assert parse_untrusted(frame.encode()) == frame


@given(st.binary(max_size=100))
def test_random_bytes_raise_nothing_but_the_protocols_error(record: bytes) -> None:
    try:
        frame = parse_untrusted(record)
    except SessionProtocolError:
        return
    assert record
    assert not isinstance(frame, UnknownFrame) or frame.kind == record[0]


@given(encodable, st.data())
def test_mutated_frames_raise_nothing_but_the_protocols_error(
    frame: Frame, data: st.DataObject
) -> None:
    assert not isinstance(frame, UnknownFrame)
    record = bytearray(frame.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(record)))
    for mutated in (bytes(record), bytes(record[:cut]), bytes(record) + b"\0"):
        try:
            parsed = parse_untrusted(mutated)
        except SessionProtocolError:
            continue
        assert isinstance(parsed, Frame)


@pytest.mark.parametrize(
    "record",
    [
        "",
        "10",
        "100000",
        "30",
        "300100",
        "30010007" + "00" * 7,
        "30010008" + "00" * 7,
        "30010008" + "00" * 9,
        "30030003" + "00" * 3,
        "30040001" + "00",
        "30040000",
        "30ff0001",
    ],
)
def test_frames_that_are_too_short_or_lie_about_their_length_are_refused(record: str) -> None:
    with pytest.raises(SessionProtocolError):
        parse_untrusted(bytes.fromhex(record))


def test_a_longer_control_frame_is_read_as_far_as_it_is_known() -> None:
    assert parse_untrusted(bytes.fromhex("3001000a" + "00000001" + "00000102" + "ffff")) == Ping(
        1, 258
    )


@pytest.mark.parametrize(
    ("record", "frame"),
    [
        ("20000000", UnknownFrame(0x20)),
        ("00", UnknownFrame(0x00)),
        ("74", UnknownFrame(0x74)),
        ("30ff0000", UnknownFrame(0x30, 0xFF)),
        ("30070001aa", UnknownFrame(0x30, 7)),
    ],
)
def test_kinds_and_types_of_later_versions_are_named_not_refused(
    record: str, frame: UnknownFrame
) -> None:
    assert parse_untrusted(bytes.fromhex(record)) == frame


def test_the_numbers_of_kinds_and_of_byes_are_fixed() -> None:
    assert {kind.name: int(kind) for kind in FrameKind} == {
        "DATAGRAM": 0x10,
        "STREAM": 0x20,
        "CONTROL": 0x30,
    }
    assert {code.name: int(code) for code in ByeCode} == {
        "LANE_CLOSED": 1,
        "SESSION_CLOSED": 2,
        "SHUTDOWN": 3,
        "LANE_REPLACED": 4,
        "IDLE": 5,
        "LANE_DEAD": 6,
    }


def test_a_probe_has_exactly_the_size_it_asks_for() -> None:
    for size in (MIN_PROBE, MIN_PROBE + 1, 1431, 2**14):
        assert len(Probe(1, 1300, 1200, False, size).encode()) == size
    with pytest.raises(ValueError, match="at least"):
        Probe(1, 1300, 1200, False, MIN_PROBE - 1).encode()


def test_no_frame_begins_like_a_handshake_message() -> None:
    assert ord("t") not in set(FrameKind)
