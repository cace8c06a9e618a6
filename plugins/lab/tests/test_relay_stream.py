"""One TCP connection of a client, its other end in the test's hand."""

import socket

import anyio
import pytest

from turnlane.api import RelayTransport
from turnlane.proto.channel_data import encode
from turnlane_lab.allocations import FiveTuple
from turnlane_lab.relay_stream import MAX_BACKLOG, RESERVED_BACKLOG, ClientConnection

pytestmark = pytest.mark.anyio

FIVE_TUPLE = FiveTuple(RelayTransport.TCP, ("192.0.2.1", 1), ("198.51.100.1", 2))
CHUNK = bytes(8192)


@pytest.fixture
async def ends(anyio_backend):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    connection = ClientConnection(ours, FIVE_TUPLE)
    yield connection, theirs
    connection.release()
    theirs.close()


def fill(connection):
    """Send data until it is refused; return how many bytes were taken."""
    taken = 0
    while connection.send(CHUNK, droppable=True):
        taken += len(CHUNK)
    return taken


async def read(end, size):
    received = 0
    while received < size:
        await anyio.wait_readable(end)
        received += len(end.recv(65_536))
    return received


async def serving(connection, seen):
    seen.append(await connection.serve(lambda messages, _: seen.extend(map(bytes, messages))))


async def test_data_is_refused_beyond_the_backlog_and_answers_are_not_yet(ends):
    connection, _ = ends
    fill(connection)
    assert MAX_BACKLOG - len(CHUNK) < len(connection._backlog) <= MAX_BACKLOG
    assert connection.send(CHUNK, droppable=False)
    assert not connection.send(CHUNK, droppable=True)


async def test_a_client_that_takes_no_answers_is_disconnected(ends):
    connection, _ = ends
    fill(connection)
    seen = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving, connection, seen)
        await anyio.wait_all_tasks_blocked()
        while connection.send(CHUNK, droppable=False):
            assert len(connection._backlog) <= MAX_BACKLOG + RESERVED_BACKLOG
    assert seen == [True]


async def test_a_backlog_leaves_in_order_once_the_client_reads(ends):
    connection, theirs = ends
    seen = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving, connection, seen)
        for _ in range(2):
            taken = fill(connection)
            assert await read(theirs, taken) == taken
            assert connection.send(b"last", droppable=True)
            await anyio.wait_readable(theirs)
            assert theirs.recv(10) == b"last"
        theirs.shutdown(socket.SHUT_WR)
    assert seen == [True]


async def test_messages_are_handed_over_whole(ends):
    connection, theirs = ends
    seen = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving, connection, seen)
        stream = encode(0x4000, b"hello", padded=True) * 2
        theirs.send(stream[:9])
        await anyio.wait_all_tasks_blocked()
        theirs.send(stream[9:])
        theirs.shutdown(socket.SHUT_WR)
    assert seen == [encode(0x4000, b"hello", padded=False)] * 2 + [True]


async def test_a_stream_that_cannot_be_followed_ends_unsoundly(ends):
    connection, theirs = ends
    seen = []
    theirs.send(b"\xff\xff\xff\xff")
    await serving(connection, seen)
    assert seen == [False]


async def test_a_broken_connection_ends_and_takes_nothing(ends):
    connection, theirs = ends
    seen = []
    fill(connection)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving, connection, seen)
        await anyio.wait_all_tasks_blocked()
        theirs.close()
    assert seen == [True]
    connection._backlog.clear()
    assert not connection.send(b"x", droppable=True)


async def test_a_disconnected_connection_ends_and_says_so_when_released(ends):
    connection, _ = ends
    seen = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving, connection, seen)
        await anyio.wait_all_tasks_blocked()
        connection.disconnect()
    assert seen == [True]
    assert not connection.closed.is_set()
    connection.release()
    await connection.closed.wait()
