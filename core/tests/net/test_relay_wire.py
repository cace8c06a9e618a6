"""The wire to a relay over UDP, and dialling, on real sockets with a far end that obeys."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import ClosedResourceError

from turnlane.api import Batch, RelayEndpoint, RelayTransport, Stage, TransportError
from turnlane.net.datagrams import receive_batch
from turnlane.net.native import MESSAGES
from turnlane.net.relay_wire import (
    BrokenWireError,
    UdpWire,
    dial,
)
from turnlane.net.system import open_socket

pytestmark = pytest.mark.anyio

SOON = 5.0
"""Seconds within which what must happen on loopback happens."""


class SpokenError(Exception):
    """What a test has a wire interrupted with."""


def taken(wire: UdpWire) -> list[bytes]:
    """Return the messages that one read brings."""
    batch = receive_batch()
    count = wire.read(batch)
    assert count == len(batch)
    return [bytes(message) for message in batch]


def batch_of(*messages: bytes) -> Batch:
    """Return messages as they are sealed: from the beginning, without gaps."""
    batch = Batch(max(len(messages), 1), max(sum(map(len, messages)), 70_000))
    for index, message in enumerate(messages):
        batch.starts[index] = batch.end
        batch.sizes[index] = len(message)
        batch.buffer[batch.end : batch.end + len(message)] = message
        batch.end += len(message)
    batch.count = len(messages)
    return batch


# UDP.


@contextmanager
def udp_pair() -> Iterator[tuple[UdpWire, socket.socket]]:
    """Give a wire and the socket of its relay."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(SOON)
        near = open_socket(socket.AF_INET, socket.SOCK_DGRAM, connect=far.getsockname())
        far.connect(near.getsockname())
        wire = UdpWire(near)
        try:
            yield wire, far
        finally:
            wire.close()


@pytest.mark.usefixtures("dataplane")
async def test_datagrams_go_both_ways_whole_and_a_busy_wire_leaves_some_for_later() -> None:
    with udp_pair() as (wire, far):
        for size in (0, 1, 65_507):
            assert wire.write(bytes(size))
            assert len(far.recv(65_535)) == size
        sent = [number.to_bytes(2, "big") for number in range(MESSAGES + 3)]
        for data in sent:
            far.send(data)
        await wire.wait()
        assert taken(wire) == sent[:MESSAGES]
        assert taken(wire) == sent[MESSAGES:]
        assert taken(wire) == []


@pytest.mark.usefixtures("dataplane")
async def test_a_batch_of_datagrams_is_sent_whole() -> None:
    messages = [bytes([number]) * 1200 for number in range(40)] + [b"last", b"", b"x" * 9000]
    with udp_pair() as (wire, far):
        assert wire.write_batch(batch_of(*messages)) == len(messages)
        assert [far.recv(65_535) for _ in messages] == messages
        assert wire.write_batch(batch_of()) == 0
        assert (wire.dropped, wire.backlog) == (0, 0)


@pytest.mark.usefixtures("dataplane")
async def test_a_datagram_larger_than_any_is_dropped_and_counted() -> None:
    with udp_pair() as (wire, far):
        assert not wire.write(bytes(65_508))
        assert (wire.dropped, wire.too_large) == (1, 1)
        assert wire.write(b"next")
        assert far.recv(100) == b"next"


@pytest.mark.usefixtures("dataplane")
async def test_a_udp_wire_is_pumped_until_it_is_interrupted_or_closed() -> None:
    with udp_pair() as (wire, far):
        received: list[bytes] = []

        def on_readable() -> int:
            messages = taken(wire)
            received.extend(messages)
            return len(messages)

        for end in (lambda: wire.interrupt(SpokenError()), wire.close):
            far.send(b"more")
            async with anyio.create_task_group() as tasks:

                async def interrupt(end: Callable[[], None] = end) -> None:
                    await anyio.wait_all_tasks_blocked()
                    end()

                tasks.start_soon(interrupt)
                with anyio.fail_after(SOON), pytest.raises((SpokenError, ClosedResourceError)):
                    await wire.pump(on_readable)
            wire.interrupt(SpokenError())  # nobody is interrupted
        assert received == [b"more", b"more"]


@pytest.mark.usefixtures("dataplane")
async def test_a_relay_that_was_away_for_a_while_is_heard_again() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as away:
        away.bind(("127.0.0.1", 0))
        address = away.getsockname()
    near = open_socket(socket.AF_INET, socket.SOCK_DGRAM, connect=address)
    wire = UdpWire(near)
    try:
        assert wire.write(b"anybody there?")
        with anyio.fail_after(SOON):
            await wire.wait()
        assert taken(wire) == []
        assert wire.refused == "Connection refused"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(address)
            back.sendto(b"back", near.getsockname())
            with anyio.fail_after(SOON):
                await wire.wait()
            assert taken(wire) == [b"back"]
    finally:
        wire.close()


@pytest.mark.usefixtures("dataplane")
@pytest.mark.parametrize(
    "number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EMSGSIZE]
)
async def test_what_icmp_says_of_one_datagram_does_not_break_the_wire(
    number: int, trouble: Any
) -> None:
    with udp_pair() as (wire, far):
        troubled = trouble(wire._socket)
        received: list[bytes] = []
        for expected in (b"one", b"two"):
            troubled.reading.append(number)
            far.send(expected)
            while not received:
                received = taken(wire)
            assert received == [expected]
            assert wire.refused == os.strerror(number)
            received.clear()


@pytest.mark.usefixtures("dataplane")
@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH])
async def test_what_icmp_says_to_a_sender_is_of_something_earlier_and_costs_no_datagram(
    number: int, trouble: Any
) -> None:
    with udp_pair() as (wire, far):
        trouble(wire._socket).sending.append(number)
        assert wire.write(b"x")
        assert far.recv(100) == b"x"
        assert (wire.dropped, wire.refused) == (0, os.strerror(number))


@pytest.mark.usefixtures("dataplane")
async def test_a_socket_that_is_broken_for_good_breaks_the_wire(trouble: Any) -> None:
    with udp_pair() as (wire, _):
        troubled = trouble(wire._socket)
        troubled.reading.append(errno.ENETDOWN)
        with pytest.raises(BrokenWireError) as caught:
            taken(wire)
        assert caught.value.code == "turn_socket_failed"
        assert "Network is down" in caught.value.message
        troubled.sending += [errno.EAGAIN, errno.ENOBUFS]
        assert not wire.write(b"x")
        assert not wire.write(b"x")
        assert (wire.dropped, wire.refused) == (2, "")


# Dialling.


def endpoint(port: int, transport: RelayTransport, **changes: str) -> RelayEndpoint:
    return RelayEndpoint("127.0.0.1", port, transport, **changes)


@contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def nobody_called(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return True
    return False


async def test_a_tls_relay_that_cannot_be_verified_is_not_even_called(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with listener() as listening:
        port = listening.getsockname()[1]
        for settings, ca_file, code in (
            ({}, str(tmp_path / "absent.pem"), "invalid_ca_file"),
            ({}, str(empty), "invalid_ca_file"),
            ({"server_name": ".example"}, None, "invalid_server_name"),
            ({"server_name": "a" * 300 + ".\N{SNOWMAN}"}, None, "invalid_server_name"),
        ):
            with pytest.raises(TransportError) as caught:
                await dial(endpoint(port, RelayTransport.TLS, **settings), ca_file=ca_file)
            assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, code)
        assert nobody_called(listening)


async def test_a_relay_that_says_nothing_under_tls_is_given_up() -> None:
    with listener() as listening:
        with pytest.raises(TransportError) as caught:
            await dial(endpoint(listening.getsockname()[1], RelayTransport.TLS), timeout=0.05)
        assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, "turn_dial_timeout")


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "turn_tls_failed"), (b"", "turn_unreachable")],
)
async def test_a_relay_that_speaks_no_tls_is_told_as_such(answer: bytes, code: str) -> None:
    with listener() as listening:
        async with anyio.create_task_group() as tasks:

            async def answer_once() -> None:
                await anyio.wait_readable(listening)
                accepted, _ = listening.accept()
                with accepted:
                    accepted.setblocking(False)
                    await anyio.wait_readable(accepted)
                    accepted.recv(65_536)
                    accepted.send(answer)

            tasks.start_soon(answer_once)
            with anyio.fail_after(SOON), pytest.raises(TransportError) as caught:
                await dial(endpoint(listening.getsockname()[1], RelayTransport.TLS))
        assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, code)


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_an_address_to_send_from_must_be_one_of_ours(transport: RelayTransport) -> None:
    with listener() as listening:
        relay = endpoint(listening.getsockname()[1], transport)
        for bind, code in (("192.0.2.1", "bind_failed"), ("::1", "bind_family_mismatch")):
            with pytest.raises(TransportError) as caught:
                await dial(relay, bind=bind)
            assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, code)
        wire = await dial(relay, bind="127.0.0.2")
        wire.close()
        assert transport is RelayTransport.UDP or not nobody_called(listening)


async def test_dialling_can_be_cancelled_and_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []

    def remember(*arguments: object, **named: object) -> socket.socket:
        made.append(open_socket(*arguments, **named))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr("turnlane.net.relay_wire.open_socket", remember)
    with listener() as listening:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dial, endpoint(listening.getsockname()[1], RelayTransport.TLS))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert [opened.fileno() for opened in made] == [-1]


async def test_a_relay_whose_name_has_no_address_is_told_as_that() -> None:
    with pytest.raises(TransportError) as caught:
        await dial(RelayEndpoint("no-such-host.invalid", 3478))
    assert (caught.value.stage, caught.value.code) == (Stage.TURN_DIAL, "turn_name_unresolved")
    assert "no-such-host.invalid" in caught.value.message
