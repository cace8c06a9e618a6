"""Messages between processes of one server: what goes in comes out, and nothing else gets in."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnlane.api import Batch
from turnlane.net.system import SocketAddress
from turnlane.relay.lane_messages import (
    HEADER,
    MAX_BYTES,
    MAX_COUNT,
    MAX_MESSAGE,
    PAYLOAD,
    Joining,
    Kind,
    LaneMessageError,
    Message,
    Refused,
    decode,
    encode,
    encode_payload,
    following,
)

LANES = st.integers(0, 2**32 - 1)
SIZES = st.one_of(st.integers(0, 40), st.integers(1100, 1300), st.just(16_380))


def batch_of(packets: list[tuple[bytes, int]], gaps: list[int]) -> Batch:
    """Return a batch whose packets stand apart as a reader, an opener or coalescing leaves them."""
    batch = Batch(4096, 4 * 1024 * 1024)
    for (data, flow), gap in zip(packets, gaps, strict=True):
        batch.end += gap
        start = batch.end
        batch.buffer[start : start + len(data)] = data
        at = batch.count
        batch.starts[at], batch.sizes[at], batch.flows[at] = start, len(data), flow
        batch.end += len(data)
        batch.count += 1
    return batch


def read(message: bytes, into: Batch) -> object:
    into.buffer[: len(message)] = message
    return decode(into, len(message))


@settings(deadline=None)
@given(
    kind=st.sampled_from(sorted(PAYLOAD)),
    lane=LANES,
    sizes=st.lists(SIZES, min_size=1, max_size=60),
    seed=st.integers(0, 2**32),
    apart=st.sampled_from([[0], [4], [8], [0, 4, 65_000]]),
)
def test_payload_arrives_as_it_was_sent_in_messages_of_a_bounded_size(
    kind: Kind, lane: int, sizes: list[int], seed: int, apart: list[int]
) -> None:
    chance = random.Random(seed)
    packets = [(chance.randbytes(size), chance.randrange(2**24)) for size in sizes]
    batch = batch_of(packets, [8] + [chance.choice(apart) for _ in sizes[1:]])
    into = Batch(4096, 512 * 1024)
    arrived: list[tuple[bytes, int]] = []
    for count, pieces in encode_payload(kind, lane, batch, 0, batch.count):
        message = b"".join(pieces)
        assert len(message) <= MAX_MESSAGE
        assert len(pieces) <= MAX_COUNT + 2
        told = read(message, into)
        assert told == decode(into, len(message))
        assert (told.kind, told.lane, told.records) == (kind, lane, ())  # type: ignore[attr-defined]
        assert len(into) == count
        # Whoever sends them on writes headers before them.
        assert into.starts[0] >= 8
        arrived += zip(map(bytes, into), into.flows, strict=False)
    assert arrived == packets


@given(
    kind=st.sampled_from(sorted(set(Kind) - PAYLOAD - {Kind.JOIN, Kind.REFUSED})),
    lane=LANES,
    records=st.lists(st.binary(max_size=300), max_size=20),
)
def test_records_arrive_as_they_were_sent(kind: Kind, lane: int, records: list[bytes]) -> None:
    into = Batch(4096, 512 * 1024)
    told = read(encode(kind, lane, *records), into)
    assert (told.kind, told.lane, told.records) == (kind, lane, tuple(records))  # type: ignore[attr-defined]
    assert len(into) == 0


@given(
    exporter=st.binary(min_size=32, max_size=32),
    address=st.one_of(
        st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65535)),
        st.tuples(
            st.ip_addresses(v=6).map(str),
            st.integers(0, 65535),
            st.just(0),
            st.integers(0, 2**32 - 1),
        ),
    ),
    overhead=st.sampled_from([29, 37]),
    hello=st.binary(max_size=400),
)
def test_what_joins_arrives_as_it_was_sent(
    exporter: bytes, address: SocketAddress, overhead: int, hello: bytes
) -> None:
    joining = Joining(exporter, address, overhead, hello)
    told = read(encode(Kind.JOIN, 3, *joining.records()), Batch(4096, 512 * 1024))
    assert isinstance(told, Message)
    assert Joining.of(told) == joining


def test_what_is_refused_arrives_as_it_was_sent() -> None:
    refused = Refused(3, 9000)
    told = read(encode(Kind.REFUSED, 3, refused.record()), Batch(4096, 512 * 1024))
    assert isinstance(told, Message)
    assert Refused.of(told) == refused


def test_a_part_of_a_batch_is_sent_where_only_that_is_asked_for() -> None:
    batch = batch_of([(bytes([n]) * 10, n) for n in range(6)], [8] * 6)
    into = Batch()
    ((count, pieces),) = encode_payload(Kind.SEND, 1, batch, 2, 5)
    read(b"".join(pieces), into)
    assert (count, [packet[0] for packet in into], into.flows[:3]) == (3, [2, 3, 4], [2, 3, 4])


def test_more_than_a_message_holds_goes_in_several() -> None:
    many = batch_of([(b"", 1)] * (MAX_COUNT + 1), [0] * (MAX_COUNT + 1))
    assert [count for count, _ in encode_payload(Kind.SEND, 1, many, 0, len(many))] == [512, 1]
    large = batch_of([(bytes(16_000), 1)] * 6, [8] * 6)
    assert [count for count, _ in encode_payload(Kind.SEND, 1, large, 0, len(large))] == [4, 2]
    with pytest.raises(ValueError, match="more records"):
        encode(Kind.SAY, 1, bytes(MAX_BYTES), b"1")
    with pytest.raises(ValueError, match="more records"):
        encode(Kind.SAY, 1, *[b""] * (MAX_COUNT + 1))


@given(st.binary(max_size=200), st.integers(0, 9), st.integers(0, 600), st.integers(0, 70_000))
def test_what_no_other_process_sends_is_refused_or_read_within_its_bounds(
    rest: bytes, kind: int, count: int, size: int
) -> None:
    message = HEADER.pack(kind, count, 1, size) + rest
    into = Batch(64)
    try:
        read(message, into)
    except LaneMessageError:
        return
    assert len(into) <= 64
    assert all(packet.nbytes <= len(rest) for packet in into)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        HEADER.pack(Kind.END, 0, 1, 0)[:-1],
        HEADER.pack(0, 0, 1, 0),
        HEADER.pack(Kind.END, 1, 1, 0),
        HEADER.pack(Kind.JOIN, 2, 1, 2) + b"ab\x01\x00\x01\x00",
        HEADER.pack(Kind.SAY, 1, 1, 3) + b"abc\x02\x00",
        HEADER.pack(Kind.SEND, 1, 1, 3) + b"abc\x04\x00\x00\x00\x00\x00",
        HEADER.pack(Kind.SEND, 1, 1, 2**32 - 1) + b"abc\x03\x00\x00\x00\x00\x00",
    ],
)
def test_lengths_that_do_not_add_up_are_refused(message: bytes) -> None:
    with pytest.raises(LaneMessageError):
        read(message, Batch())


def test_more_packets_than_the_batch_holds_are_refused() -> None:
    batch = batch_of([(b"a", 1)] * 3, [8] * 3)
    ((_, pieces),) = encode_payload(Kind.SEND, 1, batch, 0, 3)
    with pytest.raises(LaneMessageError):
        read(b"".join(pieces), Batch(capacity=2))


def test_numbers_of_lanes_come_round() -> None:
    assert (following(0), following(7), following(2**32 - 1)) == (1, 8, 1)
