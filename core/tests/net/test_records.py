"""Records in batches: what one data plane seals the other opens, what nobody sealed is nothing."""

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnlane.api.batch import HEADROOM, Batch
from turnlane.net import dtls_context, native, openssl
from turnlane.net.dtls import CHACHA20_OVERHEAD, MAX_PAYLOAD, OVERHEAD, DtlsAssociation
from turnlane.net.dtls_state import (
    AssociationClosed,
    AssociationStateError,
    HandshakeCompleted,
    State,
)
from turnlane.net.identity import Identity
from turnlane.net.openssl import FastRecords
from turnlane.net.record_layout import RecordError, RecordLayout, Stopped
from turnlane.net.records import PortableRecords, Records
from turnlane.proto.channel_data import decode_untrusted
from turnlane.proto.dtls_records import records_untrusted
from turnlane.proto.frames import Datagram, Ping, datagram_flow

IDENTITY = Identity.generate(0.0)
CHANNEL = 0x4ABC
RECORD_HEADER = 13

KINDS = ["fast", "portable"]
LAYOUTS = [
    RecordLayout(channel=channel, padded=padded, framed=framed, most=MAX_PAYLOAD)
    for channel, padded in ((None, False), (CHANNEL, False), (CHANNEL, True))
    for framed in (False, True)
]


def named(layout: RecordLayout) -> str:
    where = "bare" if layout.channel is None else "padded" if layout.padded else "channel"
    return f"{where}-{'framed' if layout.framed else 'raw'}"


all_layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=named)
FRAMED = RecordLayout(channel=CHANNEL, padded=False, framed=True, most=MAX_PAYLOAD)
RAW = RecordLayout(channel=None, padded=False, framed=False, most=MAX_PAYLOAD)


class Pair:
    """Two ends of an association that is established."""

    def __init__(self) -> None:
        self.client = DtlsAssociation.client(pin=IDENTITY.pin)
        self.server = DtlsAssociation.server(IDENTITY)
        self.server.start(0.0)
        self.client.start(0.0)
        while self.client.is_pending and self.client.state is not State.ESTABLISHED:
            for near, far in ((self.client, self.server), (self.server, self.client)):
                for datagram in near.datagrams_to_send():
                    far.receive_datagram(datagram, 0.0)
        assert self.client.state is self.server.state is State.ESTABLISHED
        completed = self.client.next_event()
        assert isinstance(completed, HandshakeCompleted)
        self.cipher = completed.cipher
        assert isinstance(self.server.next_event(), HandshakeCompleted)


def records(kind: str, association: DtlsAssociation) -> Records:
    """Return what seals and opens for an association, of this kind."""
    if kind == "portable":
        return PortableRecords(association._connection)
    if not (native.usable() and openssl.usable()):
        pytest.skip("there is only the portable way here")
    return FastRecords(association._connection, association.overhead)


@pytest.fixture(scope="module")
def pair() -> Pair:
    """One association for tests that leave it as it was: established."""
    return Pair()


def batch_of(packets: list[tuple[int, bytes]]) -> Batch:
    total = sum(len(packet) + HEADROOM for _, packet in packets)
    batch = Batch(max(1, len(packets)), max(total, 70_000))
    for flow, packet in packets:
        assert batch.append(packet, flow)
    return batch


def messages_batch(messages: list[bytes]) -> Batch:
    return batch_of([(0, message) for message in messages])


def sealed_by(
    sealing: Records, layout: RecordLayout, packets: list[tuple[int, bytes]], into: Batch
) -> list[bytes]:
    """Return the messages of packets, however many fillings of `into` it takes."""
    batch = batch_of(packets)
    messages: list[bytes] = []
    index = 0
    while index < batch.count:
        following = sealing.seal(layout, batch, index, batch.count, into)
        assert following > index
        assert into.count <= into.capacity
        end = 0
        for start, size in zip(into.starts[: into.count], into.sizes[: into.count], strict=True):
            assert start == end, "without gaps"
            end = start + size
        assert into.end == end <= len(into.buffer)
        messages += map(bytes, into)
        index = following
    return messages


def opened_by(
    opening: Records, layout: RecordLayout, messages: list[bytes], into: Batch
) -> list[tuple[int, bytes]]:
    """Return the packets in messages, however many fillings of `into` it takes."""
    received = messages_batch(messages)
    packets: list[tuple[int, bytes]] = []
    index, stopped = 0, Stopped.FULL
    while stopped is not Stopped.DONE:
        assert stopped is Stopped.FULL
        into.clear()
        index, stopped = opening.open(layout, received, index, received.count, into)
        for at in range(into.count):
            assert into.starts[at] >= HEADROOM
        packets += [(into.flows[at], bytes(into.packet(at))) for at in range(into.count)]
    assert index == received.count
    return packets


def without_padding(layout: RecordLayout, message: bytes) -> bytes:
    """Return a message as its receiver's wire gives it."""
    if layout.channel is None:
        return message
    channel, record = decode_untrusted(message)
    assert channel == layout.channel
    assert len(message) - len(record) - 4 == (-len(record) % 4 if layout.padded else 0)
    return message[: 4 + len(record)]


@all_layouts
@pytest.mark.parametrize("opening", KINDS)
@pytest.mark.parametrize("sealing", KINDS)
def test_what_one_seals_the_other_opens(
    sealing: str, opening: str, layout: RecordLayout, pair: Pair
) -> None:
    random = Random(1)
    largest = MAX_PAYLOAD - layout.frame_size
    sizes = [1, 1, 2, 3, 4, 5, 1200, 1200, 1199, largest, largest - 1, 1, 600, 600, 600, 64]
    sizes += [] if not layout.framed else [0, 0, 1, 0]
    packets = [(0, random.randbytes(size)) for size in sizes]
    if layout.framed:
        flows = [1, 1, 0xFFFFFF, 0, 7, 7, 7]
        packets = [(flows[i % 7], packet) for i, (_, packet) in enumerate(packets)]
    for near, far in ((pair.client, pair.server), (pair.server, pair.client)):
        seals, opens = records(sealing, near), records(opening, far)
        messages = sealed_by(seals, layout, packets, Batch(100, 512 * 1024))
        assert len(messages) == len(packets)
        for message, (_, packet) in zip(messages, packets, strict=True):
            plain = without_padding(layout, message)
            (record,) = records_untrusted(plain[layout.prefix_size :])
            assert len(plain) == len(packet) + layout.frame_size + layout.prefix_size + OVERHEAD
            assert record.epoch == 1
        received = [without_padding(layout, message) for message in messages]
        assert opened_by(opens, layout, received, Batch(100, 512 * 1024)) == packets
        assert (seals.refused, opens.refused) == (0, 0)


@pytest.mark.parametrize("opening", KINDS)
@pytest.mark.parametrize("sealing", KINDS)
def test_a_record_is_what_the_association_makes_of_it_by_itself(
    sealing: str, opening: str, pair: Pair
) -> None:
    seals, opens = records(sealing, pair.client), records(opening, pair.server)
    messages = sealed_by(seals, FRAMED, [(7, b"hello")], Batch())
    (payload,) = pair.server.receive_datagram(messages[0][4:], 0.0)
    assert (datagram_flow(payload), payload[4:]) == (7, b"hello")
    record = pair.client.encrypt(Datagram(9, memoryview(b"world")).encode())
    message = FRAMED.prefix(len(record)) + record
    assert opened_by(opens, FRAMED, [message], Batch()) == [(9, b"world")]


@pytest.mark.parametrize("kind", KINDS)
@all_layouts
def test_what_fits_no_record_is_counted_and_the_others_are_sealed(
    kind: str, layout: RecordLayout, pair: Pair
) -> None:
    small = RecordLayout(
        channel=layout.channel, padded=layout.padded, framed=layout.framed, most=1000
    )
    fitting = 1000 - small.frame_size
    sizes = [fitting, fitting + 1, 1, 0, 20_000, fitting, 2000]
    packets = [(1 if small.framed else 0, bytes([size % 251]) * size) for size in sizes]
    seals, opens = records(kind, pair.client), records(kind, pair.server)
    messages = sealed_by(seals, small, packets, Batch())
    expected = [packets[i] for i in (0, 2, *([3] if small.framed else []), 5)]
    received = [without_padding(small, message) for message in messages]
    assert opened_by(opens, small, received, Batch()) == expected
    assert seals.refused == len(packets) - len(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_fits_leaves_nothing_sealed(kind: str, pair: Pair) -> None:
    into = messages_batch([b"left from before"])
    seals = records(kind, pair.client)
    batch = batch_of([(0, b"")])
    assert seals.seal(RAW, batch, 0, 1, into) == 1
    assert (into.count, into.end, seals.refused) == (0, 0, 1)
    assert seals.seal(RAW, batch, 1, 1, into) == 1
    assert into.count == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("capacity", "size"), [(1, 70_000), (3, 70_000), (100, 65_543)])
@all_layouts
def test_full_batches_are_told_and_lose_nothing(
    kind: str, capacity: int, size: int, layout: RecordLayout, pair: Pair
) -> None:
    random = Random(2)
    sizes = [1, 16_000, 16_000, 16_000, 16_000, 9, 16_380, 16_380, *[1200] * 60]
    packets = [(0, random.randbytes(size)) for size in sizes]
    seals, opens = records(kind, pair.server), records(kind, pair.client)
    messages = sealed_by(seals, layout, packets, Batch(capacity, size))
    received = [without_padding(layout, message) for message in messages]
    assert opened_by(opens, layout, received, Batch(capacity, size)) == packets


@pytest.mark.parametrize("kind", KINDS)
def test_payloads_are_appended_to_those_that_are_there(kind: str, pair: Pair) -> None:
    seals, opens = records(kind, pair.client), records(kind, pair.server)
    into = Batch()
    for number in range(3):
        messages = messages_batch(sealed_by(seals, FRAMED, [(number, b"%d" % number)], Batch()))
        assert opens.open(FRAMED, messages, 0, 1, into) == (1, Stopped.DONE)
    assert [(into.flows[i], bytes(into.packet(i))) for i in range(3)] == [
        (0, b"0"),
        (1, b"1"),
        (2, b"2"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_messages_that_were_named_are_touched(kind: str, pair: Pair) -> None:
    seals, opens = records(kind, pair.client), records(kind, pair.server)
    messages = sealed_by(seals, RAW, [(0, b"%d" % number) for number in range(6)], Batch())
    received, into = messages_batch(messages), Batch()
    assert opens.open(RAW, received, 2, 4, into) == (4, Stopped.DONE)
    assert opens.open(RAW, received, 4, 4, into) == (4, Stopped.DONE)
    assert opens.open(RAW, received, 0, 2, into) == (2, Stopped.DONE)
    assert [bytes(packet) for packet in into] == [b"2", b"3", b"0", b"1"]


# What stops it.


@pytest.mark.parametrize("kind", KINDS)
@all_layouts
def test_what_is_no_record_stops_before_it_and_is_left_alone(
    kind: str, layout: RecordLayout, pair: Pair
) -> None:
    seals, opens = records(kind, pair.client), records(kind, pair.server)
    into = Batch()
    sent = sealed_by(seals, layout, [(1, b"before"), (1, b"after"), (1, b"later")], Batch())
    first, second, third = (without_padding(layout, message) for message in sent)
    flipped = bytes([first[layout.prefix_size] ^ 1])
    at = layout.prefix_size
    foreign = [
        b"",
        second[:1],
        second[: layout.least - 1],
        second + b"\0",
        second[:-1],
        second[:at] + flipped + second[at + 1 :],
        second + third[at:],
        b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
    ]
    if layout.channel is not None:
        foreign += [second[at:], b"\x4a\xbd" + second[2:], layout.prefix(0)]
    for message in foreign:
        received = messages_batch([message, second])
        assert opens.open(layout, received, 0, 2, into) == (0, Stopped.FOREIGN), message
    received = messages_batch([first, foreign[4], second, third])
    assert opens.open(layout, received, 0, 4, into) == (1, Stopped.FOREIGN)
    assert opens.open(layout, received, 2, 4, into) == (4, Stopped.DONE)
    assert [bytes(packet) for packet in into] == [b"before", b"after", b"later"]


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_frame_stops_after_it_and_is_handed_over(kind: str, pair: Pair) -> None:
    seals, opens = records(kind, pair.client), records(kind, pair.server)
    layout = LAYOUTS[1]
    assert layout.framed
    ping = Ping(1, 2).encode()
    raw = [Datagram(5, memoryview(b"a")).encode(), ping, b"\x10", b"\x10\0\0", b"t", ping]
    messages = sealed_by(seals, LAYOUTS[0], [(0, record) for record in raw], Batch())
    messages += sealed_by(seals, layout, [(5, b"z")], Batch())
    received, into = messages_batch(messages), Batch()
    index, told = 0, []
    while True:
        index, stopped = opens.open(layout, received, index, 7, into)
        if stopped is Stopped.DONE:
            break
        assert stopped is Stopped.CONTROL
        told.append((index, opens.control))
    assert told == [(number + 1, raw[number]) for number in range(1, 6)]
    assert [bytes(packet) for packet in into] == [b"a", b"z"]
    assert into.flows[:2] == [5, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_replayed_or_forged_gives_nothing_and_what_follows_is_opened(
    kind: str, pair: Pair
) -> None:
    seals, opens = records(kind, pair.client), records(kind, pair.server)
    one, two, three = sealed_by(seals, RAW, [(0, b"one"), (0, b"two"), (0, b"three")], Batch())
    forged = bytearray(two)
    forged[-1] ^= 1
    received, into = messages_batch([one, one, bytes(forged), two, three]), Batch()
    assert opens.open(RAW, received, 0, 5, into) == (2, Stopped.VOID)
    assert opens.open(RAW, received, 2, 5, into) == (3, Stopped.VOID)
    assert opens.open(RAW, received, 3, 5, into) == (5, Stopped.DONE)
    assert [bytes(packet) for packet in into] == [b"one", b"two", b"three"]


@dataclass(frozen=True)
class Fate:
    """What becomes of one message on its way."""

    how: str
    where: float = 0.0
    bit: int = 0

    def apply(self, message: bytes, earlier: list[bytes]) -> bytes:
        at = int(self.where * len(message))
        match self.how:
            case "flipped":
                flipped = bytearray(message)
                flipped[at] ^= 1 << self.bit
                return bytes(flipped)
            case "cut":
                return message[:at]
            case "longer":
                return message + bytes(at)
            case "again" if earlier:
                return earlier[at % len(earlier)]
        return message


FATES = st.builds(
    Fate,
    st.sampled_from(["whole", "whole", "flipped", "flipped", "cut", "longer", "again"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(FATES, max_size=30), st.sampled_from(LAYOUTS), st.booleans())
@pytest.mark.usefixtures("dataplane")
def test_whatever_becomes_of_messages_the_whole_ones_are_opened(
    fates: list[Fate], layout: RecordLayout, to_server: bool
) -> None:
    # Far apart in sequence, or the window for replays would not tell them from what is new.
    pair = PAIRS.get()
    near, far = (pair.client, pair.server) if to_server else (pair.server, pair.client)
    packets = [(3 * layout.framed, bytes([number]) * (number + 1)) for number in range(len(fates))]
    into = Batch()
    sent: list[bytes] = []
    batch, index = batch_of(packets), 0
    while index < len(packets):
        index = near.seal(layout, batch, index, len(packets), into)
        sent += [without_padding(layout, bytes(message)) for message in into]
    received = messages_batch(
        [
            fate.apply(message, sent[:i])
            for i, (fate, message) in enumerate(zip(fates, sent, strict=True))
        ]
    )
    into.clear()
    taken: list[tuple[int, bytes]] = []
    index, stopped = 0, Stopped.FULL
    while index < received.count:
        index, stopped = far.open(layout, received, index, received.count, into)
        if stopped is Stopped.FOREIGN:
            # As a lane does: what is alone may be several records, or a bit of one.
            message = bytes(received.packet(index))
            for payload in far.receive_datagram(message[layout.prefix_size :], 0.0):
                if not layout.framed:
                    into.append(payload, 0)
                elif datagram_flow(payload) >= 0:
                    into.append(payload[4:], datagram_flow(payload))
            index += 1
    taken = [(into.flows[i], bytes(into.packet(i))) for i in range(into.count)]
    assert far.state is State.ESTABLISHED
    assert far.next_event() is None
    assert len(taken) == len(set(taken)), "none twice"
    assert set(taken) <= set(packets)
    whole = {packet for packet, fate in zip(packets, fates, strict=True) if fate.how == "whole"}
    assert whole <= set(taken)


class Pairs:
    """Associations for many examples: each is used by both data planes in turn."""

    def __init__(self) -> None:
        self._made: dict[bool, Pair] = {}

    def get(self) -> Pair:
        return self._made.setdefault(native.wanted(), Pair())


PAIRS = Pairs()


# The end.


@pytest.mark.usefixtures("dataplane")
def test_a_farewell_in_the_middle_of_a_batch_ends_it_there() -> None:
    pair = Pair()
    into = Batch()
    batch = batch_of([(0, b"before"), (0, b"after")])
    assert pair.client.seal(RAW, batch, 0, 2, into) == 2
    before, after = map(bytes, into)
    pair.client.close()
    (farewell,) = pair.client.datagrams_to_send()
    received = messages_batch([before, farewell, after])
    into.clear()
    assert pair.server.open(RAW, received, 0, 3, into) == (1, Stopped.FOREIGN)
    assert pair.server.receive_datagram(farewell, 0.0) == []
    assert pair.server.next_event() == AssociationClosed("close_notify")
    assert pair.server.next_event() is None
    assert pair.server.open(RAW, received, 2, 3, into) == (2, Stopped.FOREIGN)
    assert pair.server.receive_datagram(after, 0.0) == []
    assert [bytes(packet) for packet in into] == [b"before"]
    for ended in (pair.server, pair.client):
        with pytest.raises(AssociationStateError):
            ended.seal(RAW, batch, 0, 2, into)


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_seals_no_more_says_so(kind: str) -> None:
    pair = Pair()
    sealing = records(kind, pair.client)
    pair.client.close()
    with pytest.raises(RecordError):
        sealing.seal(RAW, batch_of([(0, b"x")]), 0, 1, Batch())
    openssl.clear_error_queue()


@pytest.mark.usefixtures("dataplane")
def test_what_an_association_did_not_seal_or_open_is_counted() -> None:
    pair = Pair()
    into = Batch()
    assert (pair.client.unsealed, pair.client.control) == (0, b"")
    assert pair.client.seal(RAW, batch_of([(0, b""), (0, b"x")]), 0, 2, into) == 2
    assert pair.client.unsealed == 1
    (message,) = map(bytes, into)
    received = messages_batch([message, message, message])
    into.clear()
    assert pair.server.open(RAW, received, 0, 3, into) == (3, Stopped.DONE)
    assert into.count == 1
    assert pair.server.statistics.discarded == 2


@pytest.mark.parametrize("state", ["idle", "handshaking"])
def test_before_the_handshake_is_done_nothing_is_opened_or_sealed(state: str) -> None:
    association = DtlsAssociation.client(pin=None)
    if state == "handshaking":
        association.start(0.0)
    received = messages_batch([b"\x17\xfe\xfd" + bytes(30)])
    assert association.open(RAW, received, 0, 1, Batch()) == (0, Stopped.FOREIGN)
    with pytest.raises(AssociationStateError):
        association.seal(RAW, received, 0, 1, Batch())


# Ciphers.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("cipher", "overhead"),
    [
        (b"ECDHE-ECDSA-AES128-GCM-SHA256", OVERHEAD),
        (b"ECDHE-ECDSA-AES256-GCM-SHA384", OVERHEAD),
        (b"ECDHE-ECDSA-CHACHA20-POLY1305", CHACHA20_OVERHEAD),
    ],
)
@all_layouts
def test_every_cipher_adds_what_is_foretold(
    kind: str,
    cipher: bytes,
    overhead: int,
    layout: RecordLayout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dtls_context, "CIPHERS", cipher)
    pair = Pair()
    assert pair.cipher == cipher.decode()
    assert pair.client.overhead == pair.server.overhead == overhead
    packets = [(0, bytes(size)) for size in (1, 7, 1200, 1200, 16_000)]
    seals, opens = records(kind, pair.client), records(kind, pair.server)
    messages = sealed_by(seals, layout, packets, Batch())
    received = [without_padding(layout, message) for message in messages]
    assert [len(message) for message in received] == [
        layout.prefix_size + layout.frame_size + len(packet) + overhead for _, packet in packets
    ]
    assert opened_by(opens, layout, received, Batch()) == packets
