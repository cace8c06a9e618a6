"""Batches of datagrams on real loopback sockets: both data planes, byte for byte."""

import errno
import os
import socket
import struct
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnlane.api.batch import HEADROOM, Batch
from turnlane.net import native
from turnlane.net.datagrams import (
    SEGMENTS,
    Datagrams,
    FastDatagrams,
    PortableDatagrams,
    datagrams_of,
    receive_batch,
)
from turnlane.net.system import SocketAddress, open_socket

pytestmark = pytest.mark.usefixtures("dataplane")

HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAMILIES = pytest.mark.parametrize("family", HOSTS)
LARGEST = 65_507

RECEIVED = receive_batch()
"""Shared, as it is where it is used; it is two megabytes."""


class End:
    """One socket and its datagrams."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.socket = open_socket(family, socket.SOCK_DGRAM, bind=(HOSTS[family], 0))
        self.datagrams: Datagrams = datagrams_of(self.socket)
        self.address: SocketAddress = self.socket.getsockname()

    def send(self, *packets: bytes, to: "End | None" = None, gap: int = HEADROOM) -> int:
        """Send packets that stand `gap` bytes apart in a batch."""
        batch = laid_out(packets, gap)
        target = None if to is None else self.datagrams.target(to.address)
        return self.datagrams.send(batch, 0, batch.count, target)

    def take(self, batch: Batch = RECEIVED) -> list[bytes]:
        """Return all that is there, by as many reads as it takes."""
        taken: list[bytes] = []
        while self.datagrams.read(batch, 5):
            assert batch.flows[: batch.count] == [5] * batch.count
            assert batch.count <= batch.capacity
            taken += map(bytes, batch)
        return taken

    def take_with_sources(self) -> list[tuple[SocketAddress, bytes]]:
        """Return all that is there, each with the address it came from."""
        sources: list[Hashable] = []

        def number(source: Hashable) -> int:
            sources.append(source)
            return len(sources) - 1

        taken: list[tuple[SocketAddress, bytes]] = []
        while self.datagrams.read(RECEIVED, number):
            taken += [
                (self.datagrams.address(sources[RECEIVED.flows[i]]), bytes(RECEIVED.packet(i)))
                for i in range(RECEIVED.count)
            ]
        return taken


def laid_out(packets: tuple[bytes, ...] | list[bytes], gap: int = HEADROOM) -> Batch:
    """Return a batch of packets that stand `gap` bytes apart."""
    total = sum(map(len, packets)) + gap * (len(packets) + 1)
    batch = Batch(max(1, len(packets)), max(total, 70_000))
    for index, packet in enumerate(packets):
        begin = batch.end + gap
        batch.starts[index], batch.sizes[index] = begin, len(packet)
        batch.end = begin + len(packet)
        batch.buffer[begin : batch.end] = packet
    batch.count = len(packets)
    return batch


@contextmanager
def ends(family: socket.AddressFamily = socket.AF_INET, number: int = 2) -> Iterator[list[End]]:
    made = [End(family) for _ in range(number)]
    try:
        yield made
    finally:
        for end in made:
            end.socket.close()


@contextmanager
def connected(family: socket.AddressFamily = socket.AF_INET) -> Iterator[tuple[End, End]]:
    with ends(family) as (near, far):
        near.socket.connect(far.address)
        far.socket.connect(near.address)
        yield near, far


def numbered(size: int, count: int) -> list[bytes]:
    return [number.to_bytes(2, "big") * (size // 2) + bytes(size % 2) for number in range(count)]


def counts(end: End) -> tuple[int, int, int]:
    return end.datagrams.dropped, end.datagrams.too_large, end.datagrams.refused


def test_the_way_is_the_one_that_was_asked_for(dataplane: str) -> None:
    with ends() as (end, _):
        expected = FastDatagrams if dataplane == "fast" else PortableDatagrams
        assert type(end.datagrams) is expected


# Both ways, whole.


@FAMILIES
@pytest.mark.parametrize("size", [0, 1, 1200, 9000, LARGEST])
def test_a_datagram_of_any_size_passes_whole(family: socket.AddressFamily, size: int) -> None:
    packet = Random(size).randbytes(size if family == socket.AF_INET else min(size, 65_487))
    with connected(family) as (near, far):
        assert near.send(packet) == 1
        assert far.take() == [packet]
        assert far.send(packet) == 1
        assert near.take() == [packet]
        assert counts(near) == counts(far) == (0, 0, 0)
    with ends(family) as (near, far):
        assert near.send(packet, to=far) == 1
        assert far.take_with_sources() == [(near.address, packet)]


def test_one_byte_more_than_the_largest_is_counted_and_harms_no_other() -> None:
    with connected() as (near, far):
        batch = laid_out([b"before", bytes(65_508), b"after"])
        assert near.datagrams.send(batch, 0, 3) == 2
        assert far.take() == [b"before", b"after"]
        assert counts(near) == (1, 1, 0)


def test_only_the_packets_that_were_named_are_sent() -> None:
    with connected() as (near, far):
        batch = laid_out(numbered(100, 10))
        assert near.datagrams.send(batch, 3, 7) == 4
        assert near.datagrams.send(batch, 3, 3) == 0
        assert far.take() == numbered(100, 10)[3:7]


@FAMILIES
def test_sources_are_told_apart_and_answered(family: socket.AddressFamily) -> None:
    with ends(family, 4) as (server, *clients):
        expected: list[tuple[SocketAddress, bytes]] = []
        for turn in range(3):
            for number, client in enumerate(clients):
                packets = numbered(60 + number, 1 + turn)
                assert client.send(*packets, to=server) == len(packets)
                expected += [(client.address, packet) for packet in packets]
        assert server.take_with_sources() == expected
        for number, client in enumerate(clients):
            assert server.send(b"to %d" % number, b"again", to=client) == 2
        for number, client in enumerate(clients):
            assert client.take() == [b"to %d" % number, b"again"]


@FAMILIES
def test_a_target_is_told_as_the_address_it_was_made_of(family: socket.AddressFamily) -> None:
    with ends(family) as (end, other):
        assert end.datagrams.address(end.datagrams.target(other.address)) == other.address


def test_a_link_local_target_keeps_its_scope() -> None:
    with ends(socket.AF_INET6) as (end, _):
        address = ("fe80::1", 4321, 0, 1)
        assert end.datagrams.address(end.datagrams.target(address)) == address


def test_the_place_of_what_was_read_has_headroom_and_ascends() -> None:
    with connected() as (near, far):
        near.send(*numbered(700, 20), b"", b"x", *numbered(3000, 5))
        while far.datagrams.read(RECEIVED, 0):
            starts, sizes = RECEIVED.starts, RECEIVED.sizes
            assert starts[0] >= HEADROOM
            for index in range(1, RECEIVED.count):
                # The headroom may be the end of the packet before.
                assert starts[index] >= starts[index - 1] + sizes[index - 1]


# Runs, coalesced or not.


@pytest.mark.parametrize("gap", [0, 4, HEADROOM, 41])
@pytest.mark.parametrize(
    "sizes",
    [
        [1200] * 40,
        [1200] * 15 + [700],
        [1200] * 16 + [700],
        [1200] * 20 + [700] * 20,
        [700] * 3 + [1200] * 3 + [1] * 200,
        [1200, 0, 1200, 0, 0, 5, 0],
        [5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5],
        [30_000] * 3 + [10],
        [LARGEST, LARGEST, 1],
        [4095] * 17,
        [4094] * 16 + [4093],
    ],
    ids=lambda sizes: "-".join(map(str, sizes[:3])) + f"-x{len(sizes)}",
)
def test_runs_of_sizes_arrive_whole_and_in_order(sizes: list[int], gap: int) -> None:
    random = Random(len(sizes))
    packets = [random.randbytes(size) for size in sizes]
    with connected() as (near, far):
        taken: list[bytes] = []
        batch = laid_out(packets, gap)
        # In parts that a receiver's buffer holds.
        for start in range(0, len(packets), 16):
            stop = min(start + 16, len(packets))
            assert near.datagrams.send(batch, start, stop) == stop - start
            taken += far.take()
        assert taken == packets
        assert counts(near) == counts(far) == (0, 0, 0)


SIZES = st.one_of(st.sampled_from([0, 1, 1200]), st.integers(0, 1500))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(SIZES, st.integers(1, 20), st.booleans()), max_size=8),
    st.integers(0, 40),
    st.integers(0, 2**32),
)
def test_any_sequence_arrives_whole_in_order_and_adds_up(
    runs: list[tuple[int, int, bool]], gap: int, seed: int
) -> None:
    random = Random(seed)
    packets = [(first, random.randbytes(size)) for size, count, first in runs for _ in range(count)]
    batch = laid_out([packet for _, packet in packets], gap)
    with ends(number=3) as (server, one, two):
        sent = 0
        taken: list[tuple[SocketAddress, bytes]] = []
        start = 0
        for index in range(1, len(packets) + 1):
            whole = index == len(packets) or packets[index][0] != packets[start][0]
            if whole or index - start == 30:
                client = one if packets[start][0] else two
                target = client.datagrams.target(server.address)
                sent += client.datagrams.send(batch, start, index, target)
                taken += server.take_with_sources()
                start = index
        assert taken == [((one if first else two).address, packet) for first, packet in packets]
        assert sent == len(packets)
        assert counts(one) == counts(two) == counts(server) == (0, 0, 0)


def coalesced(opened: socket.socket, data: bytes, segment: int) -> None:
    """Send `data` as a sender does that has the system cut it."""
    control = [(native.SOL_UDP, native.UDP_SEGMENT, struct.pack("=H", segment))]
    assert opened.sendmsg([data], control) == len(data)


needs_gso = pytest.mark.skipif(not native.usable(), reason="nothing coalesces here")


@needs_gso
@pytest.mark.parametrize(
    ("size", "segment"),
    [(12_000, 1200), (12_001, 1200), (2400, 1200), (1201, 1200), (60_000, 1000), (64, 1), (128, 1)],
)
@pytest.mark.parametrize("small", [False, True])
def test_what_comes_coalesced_is_cut_as_it_was_sent(size: int, segment: int, small: bool) -> None:
    data = Random(size).randbytes(size)
    expected = [data[at : at + segment] for at in range(0, size, segment)]
    with connected() as (near, far):
        coalesced(near.socket, data, segment)
        near.socket.send(b"alone")
        coalesced(near.socket, data[:100] or b"x", 33)
        taken = far.take(Batch(capacity=3) if small else RECEIVED)
        assert taken == [
            *expected,
            b"alone",
            *(data[at : min(at + 33, 100, size)] for at in range(0, min(100, size), 33)),
        ]


@needs_gso
def test_coalesced_input_of_several_sources_is_told_apart() -> None:
    with ends(number=3) as (server, one, two):
        for client in (one, two, one):
            client.socket.connect(server.address)
            coalesced(client.socket, b"aabbc", 2)
        assert server.take_with_sources() == [
            (client.address, data) for client in (one, two, one) for data in (b"aa", b"bb", b"c")
        ]


@pytest.mark.parametrize("capacity", [1, 2, 5, 64, 127])
def test_a_small_batch_is_filled_as_far_as_it_goes_and_nothing_is_lost(capacity: int) -> None:
    packets = numbered(800, 50)
    with connected() as (near, far):
        batch = Batch(capacity)
        near.send(*packets[:20])
        near.send(*packets[20:])
        most = 0
        taken: list[bytes] = []
        while count := far.datagrams.read(batch, 9):
            assert batch.flows[:count] == [9] * count
            most = max(most, count)
            taken += map(bytes, batch)
        assert taken == packets
        assert most <= capacity
        assert most == capacity or most >= native.MESSAGES
        # A large one takes what a small one has left.
        near.send(*packets)
        taken = []
        for into in (batch, *[RECEIVED] * 3):
            far.datagrams.read(into, 9)
            taken += map(bytes, into)
        assert taken == packets


def test_a_batch_of_few_bytes_holds_what_fits() -> None:
    packets = [bytes([number]) * 30_000 for number in range(4)] + [bytes(LARGEST)]
    with connected() as (near, far):
        batch = Batch(64, 65_535 + HEADROOM)
        for packet in packets:
            near.send(packet)
        assert far.take(batch) == packets


def test_reading_nothing_leaves_an_empty_batch() -> None:
    with connected() as (near, far):
        near.send(b"x")
        assert far.datagrams.read(RECEIVED, 0) == 1
        assert far.datagrams.read(RECEIVED, 0) == 0
        assert RECEIVED.count == 0


# Trouble.


def test_a_peer_that_is_gone_is_counted_and_told_and_costs_no_later_datagram() -> None:
    with connected() as (near, far):
        address = far.address
        far.socket.close()
        near.send(b"lost")
        # The answer to this is the error of the next call, whichever that is.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(address)
            assert near.send(b"heard", b"and this") == 2
            assert (back.recv(100), back.recv(100)) == (b"heard", b"and this")
        assert counts(near) == (0, 0, 1)
        assert near.datagrams.trouble == os.strerror(errno.ECONNREFUSED)
        near.send(b"lost again")
        assert near.take() == []
        assert counts(near) == (0, 0, 2)


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPROTO])
def test_what_icmp_says_is_told_once_and_costs_nothing(number: int, trouble: Any) -> None:
    with connected() as (near, far):
        troubled = trouble(near.socket)
        troubled.sending.append(number)
        assert near.send(*numbered(1000, 10)) == 10
        troubled.sending.append(number)
        assert near.send(b"x") == 1
        troubled.reading.append(number)
        assert near.datagrams.read(RECEIVED, 0) == 0
        assert far.take() == [*numbered(1000, 10), b"x"]
        assert counts(near) == (0, 0, 3)
        assert near.datagrams.trouble == os.strerror(number)


def test_a_path_that_does_not_recover_costs_the_datagrams_and_they_are_counted(
    trouble: Any,
) -> None:
    with connected() as (near, far):
        troubled = trouble(near.socket)
        troubled.sending += [errno.ENETUNREACH] * 3000  # there is no way to it any more
        assert near.send(b"x") == 0
        assert counts(near) == (1, 0, 2)
        assert near.send(*numbered(1000, 20)) == 0
        assert near.datagrams.dropped == 21
        troubled.sending.clear()
        assert near.send(b"y") == 1
        assert far.take() == [b"y"]


def test_it_is_the_same_with_a_target(trouble: Any) -> None:
    with ends() as (near, far):
        troubled = trouble(near.socket)
        troubled.sending += [errno.ENETUNREACH] * 3000
        assert near.send(b"x", *numbered(1000, 20), to=far) == 0
        assert near.datagrams.dropped == 21
        troubled.sending[:] = [errno.ECONNREFUSED]
        assert near.send(b"y", to=far) == 1
        assert far.take() == [b"y"]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.EPERM])
def test_what_a_full_buffer_does_not_take_is_dropped_and_counted(
    number: int, trouble: Any, dataplane: str
) -> None:
    with connected() as (near, far):
        troubled = trouble(near.socket)
        troubled.sending.append(number)
        packets = numbered(1000, 40)
        sent = near.send(*packets)
        # One call is refused: a run of datagrams, or one.
        assert 40 - sent == (SEGMENTS if dataplane == "fast" else 1)
        assert far.take() == packets[40 - sent :]
        assert counts(near) == (40 - sent, 0, 0)


def test_a_broken_socket_is_told_by_reading(trouble: Any) -> None:
    with connected() as (near, _):
        trouble(near.socket).reading.append(errno.ENETDOWN)
        with pytest.raises(OSError, match="Network is down"):
            near.datagrams.read(RECEIVED, 0)


@needs_gso
def test_a_segment_above_the_paths_mtu_is_sent_singly_and_runs_go_on(
    trouble: Any, dataplane: str
) -> None:
    with connected() as (near, far):
        troubled = trouble(near.socket)
        # The run does not pass, then two of its packets do not, either.
        troubled.sending += [errno.EMSGSIZE, 0, errno.EMSGSIZE, 0, 0, errno.EMSGSIZE]
        packets = numbered(1000, 8)
        sent = near.send(*packets)
        if dataplane == "fast":
            assert sent == 6
            assert far.take() == [packets[i] for i in (0, 2, 3, 5, 6, 7)]
            assert troubled.runs == [1000] + [0] * 8
            troubled.runs.clear()
            assert near.send(*packets) == 8
            assert troubled.runs == [1000]
        else:
            assert sent == 5
            assert troubled.runs == [0] * 8
        assert counts(near) == (8 - sent, 8 - sent, 0)


@needs_gso
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_socket_that_cannot_cut_runs_sends_everything_singly_from_then_on(
    number: int, trouble: Any, dataplane: str
) -> None:
    if dataplane == "portable":
        pytest.skip("it never asks for that")
    with connected() as (near, far):
        troubled = trouble(near.socket)
        troubled.sending.append(number)
        packets = numbered(1000, 20)
        assert near.send(*packets) == 20
        assert near.send(*packets) == 20
        assert far.take() == packets * 2
        assert troubled.runs == [1000] + [0] * 40
        assert counts(near) == (0, 0, 0)
        # That is about this socket: another one still does.
        other = trouble(far.socket)
        assert far.send(*packets) == 20
        assert 1000 in other.runs


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(SIZES, min_size=1, max_size=30),
    st.lists(
        st.sampled_from(
            [0, errno.EAGAIN, errno.EMSGSIZE, errno.EIO, errno.EHOSTUNREACH, errno.ECONNREFUSED]
        ),
        max_size=30,
    ),
)
def test_whatever_happens_the_counts_add_up(sizes: list[int], numbers: list[int]) -> None:
    packets = [bytes([index]) * size for index, size in enumerate(sizes)]
    with connected() as (near, far), pytest.MonkeyPatch.context() as patched:
        calls = list(numbers)
        fast, plain = native.SendVectors.send, socket.socket.send

        def send_many(vectors: Any, of: int, pieces: int, segment: int) -> int:
            return (calls.pop(0) if calls else 0) or fast(vectors, of, pieces, segment)

        def send(opened: Any, data: Any) -> int:
            number = calls.pop(0) if calls else 0
            if number:
                raise OSError(number, "")
            return plain(opened, data)

        patched.setattr(native.SendVectors, "send", send_many)
        patched.setattr(socket.socket, "send", send)
        sent = near.send(*packets)
        taken = far.take()
        assert len(taken) == sent == len(packets) - near.datagrams.dropped
        remaining = iter(packets)
        assert all(packet in remaining for packet in taken), "in order, none twice"
        assert near.datagrams.too_large <= near.datagrams.dropped
