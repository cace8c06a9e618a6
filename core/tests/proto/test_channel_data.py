"""ChannelData messages alone and mixed with STUN on a stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.proto.channel_data import (
    HEADER_SIZE,
    MAX_CHANNEL,
    MIN_CHANNEL,
    ChannelDataError,
    FramingError,
    StreamFramer,
    decode_untrusted,
    encode,
    messages_untrusted,
)
from turnlane.proto.stun import MessageClass, Method, build

STUN = build(Method.DATA, MessageClass.INDICATION, bytes(12), {"DATA": b"hello"})


class TestMessages:
    def test_the_bytes_are_those_of_the_rfc(self) -> None:
        assert encode(0x4001, b"abcde", padded=False) == b"\x40\x01\x00\x05abcde"

    def test_streams_are_padded_to_four_and_the_length_does_not_count_it(self) -> None:
        assert encode(0x4001, b"abcde", padded=True) == b"\x40\x01\x00\x05abcde\0\0\0"
        assert encode(0x4001, b"abcd", padded=True) == b"\x40\x01\x00\x04abcd"

    def test_an_empty_datagram_is_a_datagram(self) -> None:
        channel, payload = decode_untrusted(encode(0x4000, b"", padded=False))
        assert (channel, bytes(payload)) == (0x4000, b"")

    def test_padding_on_a_datagram_is_ignored(self) -> None:
        channel, payload = decode_untrusted(encode(0x4000, b"abcde", padded=True))
        assert (channel, bytes(payload)) == (0x4000, b"abcde")

    @pytest.mark.parametrize("channel", [0, MIN_CHANNEL - 1, MAX_CHANNEL + 1, 0x10000])
    def test_only_channel_numbers_are_encoded(self, channel: int) -> None:
        with pytest.raises(ValueError):
            encode(channel, b"", padded=False)

    def test_what_its_length_field_cannot_count_is_not_encoded(self) -> None:
        assert len(encode(MIN_CHANNEL, bytes(0xFFFF), padded=False)) == HEADER_SIZE + 0xFFFF
        with pytest.raises(ValueError):
            encode(MIN_CHANNEL, bytes(0x10000), padded=False)

    @pytest.mark.parametrize(
        "datagram",
        [b"", b"\x40\x00\x00", b"\x40\x00\x00\x01", b"\x3f\xff\x00\x00", b"\x50\x00\x00\x00"],
    )
    def test_what_is_none_is_refused(self, datagram: bytes) -> None:
        with pytest.raises(ChannelDataError):
            decode_untrusted(datagram)

    @given(st.integers(MIN_CHANNEL, MAX_CHANNEL), st.binary(max_size=2000), st.booleans())
    def test_what_is_encoded_is_decoded_back(
        self, channel: int, payload: bytes, padded: bool
    ) -> None:
        message = encode(channel, payload, padded=padded)
        assert not padded or len(message) % 4 == 0
        number, decoded = decode_untrusted(message)
        assert (number, bytes(decoded)) == (channel, payload)

    @given(st.binary(max_size=40))
    def test_random_bytes_raise_nothing_but_its_error(self, data: bytes) -> None:
        try:
            channel, payload = decode_untrusted(data)
        except ChannelDataError:
            return
        assert MIN_CHANNEL <= channel <= MAX_CHANNEL
        assert data[HEADER_SIZE:].startswith(payload)


def frames_of(framer: StreamFramer, data: bytes) -> list[bytes]:
    return [bytes(frame) for frame in framer.receive_untrusted(data)]


MESSAGES = st.lists(
    st.one_of(
        st.binary(max_size=60).map(lambda payload: encode(0x4ABC, payload, padded=True)),
        st.binary(max_size=60).map(
            lambda payload: build(
                Method.DATA, MessageClass.INDICATION, bytes(12), {"DATA": payload}
            )
        ),
    ),
    max_size=12,
)


def without_padding(message: bytes) -> bytes:
    if message[0] & 0xC0 == 0x40:
        return message[: HEADER_SIZE + int.from_bytes(message[2:4])]
    return message


class TestStreams:
    def test_messages_come_out_whole_and_without_padding(self) -> None:
        data = encode(0x4000, b"abcde", padded=True) + STUN + encode(0x4001, b"", padded=True)
        assert frames_of(StreamFramer(), data) == [
            b"\x40\x00\x00\x05abcde",
            STUN,
            b"\x40\x01\x00\x00",
        ]

    def test_a_message_waits_for_its_padding(self) -> None:
        framer = StreamFramer()
        assert frames_of(framer, b"\x40\x00\x00\x05abcde") == []
        assert frames_of(framer, b"\0\0") == []
        assert frames_of(framer, b"\0" + STUN[:7]) == [b"\x40\x00\x00\x05abcde"]
        assert frames_of(framer, STUN[7:]) == [STUN]

    @given(MESSAGES, st.data())
    def test_however_the_stream_is_cut_the_messages_are_the_same(
        self, messages: list[bytes], data: st.DataObject
    ) -> None:
        stream = b"".join(messages)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
        framer = StreamFramer()
        frames = []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            frames += frames_of(framer, stream[start:end])
        assert frames == [without_padding(message) for message in messages]

    @pytest.mark.parametrize(
        "garbage",
        [
            b"SSH-2.0-OpenSSH\r\n",
            b"\x16\x03\x01\x02\x00",
            b"\x50\x00\x00\x00",
            b"\xff" * 4,
            b"\x00\x01\x00\x03",
            b"\x00\x01\x00\x00\x21\x12\xa4\x43",
        ],
    )
    def test_anything_else_breaks_it_for_good(self, garbage: bytes) -> None:
        framer = StreamFramer()
        with pytest.raises(FramingError):
            framer.receive_untrusted(STUN + garbage)
        with pytest.raises(FramingError):
            framer.receive_untrusted(STUN)

    def test_frames_do_not_change_when_more_comes(self) -> None:
        framer = StreamFramer()
        data = bytearray(encode(0x4000, b"abcd", padded=True))
        (frame,) = framer.receive_untrusted(data)
        data[:] = bytes(len(data))
        framer.receive_untrusted(encode(0x4000, b"efgh", padded=True))
        assert bytes(frame) == b"\x40\x00\x00\x04abcd"

    @given(st.binary(max_size=200))
    def test_random_bytes_raise_nothing_but_its_error(self, data: bytes) -> None:
        framer = StreamFramer()
        try:
            frames = framer.receive_untrusted(data)
        except FramingError:
            return
        assert sum(len(frame) for frame in frames) <= len(data)

    def test_the_largest_messages_pass(self) -> None:
        framer = StreamFramer()
        largest = encode(0x4000, bytes(0xFFFF), padded=True)
        frames = []
        for start in range(0, len(largest), 1000):
            frames += framer.receive_untrusted(largest[start : start + 1000])
        assert [len(frame) for frame in frames] == [HEADER_SIZE + 0xFFFF]


class TestMessagesInPlace:
    """`messages_untrusted`, which the data plane uses, against the framer, which copies."""

    @given(MESSAGES, st.data())
    def test_however_the_stream_is_cut_and_wherever_it_lies_the_messages_are_the_same(
        self, messages: list[bytes], data: st.DataObject
    ) -> None:
        stream = b"".join(messages)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
        offset = data.draw(st.integers(0, 9))
        limit = data.draw(st.integers(1, 13))
        found: list[bytes] = []
        rest = b""
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            # What stands around is none of its business.
            piece = rest + stream[start:end]
            buffer = bytearray(b"\xff" * offset + piece + b"\xff" * 30)
            begin = offset
            while True:
                starts, sizes, begin = messages_untrusted(buffer, begin, offset + len(piece), limit)
                found += [
                    bytes(buffer[at : at + size]) for at, size in zip(starts, sizes, strict=True)
                ]
                if len(starts) < limit:
                    break
            rest = bytes(buffer[begin : offset + len(piece)])
        assert rest == b""
        assert found == [without_padding(message) for message in messages]

    @given(st.one_of(st.binary(max_size=200), MESSAGES.map(b"".join)), st.data())
    def test_random_bytes_are_what_they_are_to_the_framer(
        self, stream: bytes, data: st.DataObject
    ) -> None:
        flipped = bytearray(stream)
        if stream:
            flipped[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(0, 255))
        framer = StreamFramer()
        try:
            expected = frames_of(framer, bytes(flipped))
        except FramingError:
            with pytest.raises(FramingError):
                messages_untrusted(flipped, 0, len(flipped), 1000)
            return
        starts, sizes, rest = messages_untrusted(flipped, 0, len(flipped), 1000)
        assert [
            bytes(flipped[at : at + size]) for at, size in zip(starts, sizes, strict=True)
        ] == expected
        assert rest == len(flipped) - len(framer._buffer)

    def test_a_limit_leaves_the_others_for_later(self) -> None:
        data = encode(0x4000, b"abcde", padded=True) * 3 + b"\x40"
        assert messages_untrusted(data, 0, len(data), 2) == ([0, 12], [9, 9], 24)
        assert messages_untrusted(data, 24, len(data), 2) == ([24], [9], 36)
