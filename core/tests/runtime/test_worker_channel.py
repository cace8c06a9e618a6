"""The channel between a server and a worker: messages, sockets, order and the end."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from turnlane.api import Secret, Stage
from turnlane.runtime import worker_channel
from turnlane.runtime.profiles import ServerProfile
from turnlane.runtime.worker_channel import (
    Channel,
    Claim,
    Counted,
    Deserted,
    Failed,
    Failure,
    Link,
    Owned,
    PeerRefused,
    Released,
    Start,
    channel_pair,
    read_by_server,
    read_by_worker,
)

pytestmark = pytest.mark.anyio

PROFILE = ServerProfile(
    connect="127.0.0.1:9",
    identity=Path("/somewhere"),
    token=Secret("the token"),
    egress_settings={"depth": 3, "names": ["a", "b"]},
    egress_text_settings={"key": Secret("the key")},
)


@contextmanager
def channels() -> Iterator[tuple[Channel, Channel]]:
    server, worker = map(Channel, channel_pair())
    try:
        yield server, worker
    finally:
        server.close()
        worker.close()


async def test_a_worker_is_told_everything_secrets_and_sockets_included() -> None:
    with channels() as (server, worker), socket.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        start = Start(2, PROFILE, Secret(b"key and certificate"), 20)
        server.send(start, [bound.dup()])
        message, (received,) = await worker.receive(read_by_worker)
        with received:
            assert received.getsockname() == bound.getsockname()
            assert not received.get_inheritable()
        assert message == start
        assert isinstance(message, Start)
        assert message.profile.token == PROFILE.token
        assert (message.profile.egress_settings, message.profile.identity) == (
            {"depth": 3, "names": ["a", "b"]},
            Path("/somewhere"),
        )
        assert "the key" not in repr(start)


async def test_what_a_worker_tells_arrives_in_order() -> None:
    told = [
        Claim(1, b"\xff" * 16, True),
        Deserted((b"a", b"b")),
        PeerRefused("192.0.2.1:5", Stage.SESSION_HELLO, "malformed", "no hello"),
        Failed(Failure(Stage.LISTEN, "code", "message", "advice")),
        Counted({"dropped": 3}),
    ]
    with channels() as (server, worker):
        for each in told:
            worker.send(each)
        assert [(await server.receive(read_by_server))[0] for _ in told] == told


async def test_the_end_of_one_end_is_told_at_the_other_and_here() -> None:
    with channels() as (server, worker):
        worker.send(Released(b"a"))
        worker.close()
        assert (await server.receive(read_by_server))[0] == Released(b"a")
        with pytest.raises(anyio.EndOfStream):
            await server.receive(read_by_server)
        with pytest.raises(anyio.EndOfStream):
            await worker.receive(read_by_worker)
        server.send(Owned(1, None))  # is nobody's any more
        assert server.flush()


async def test_who_waits_is_told_when_the_channel_is_closed_here() -> None:
    with channels() as (server, _):
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(anyio.EndOfStream):
                    await server.receive(read_by_server)

            tasks.start_soon(wait)
            tasks.start_soon(server.run)
            await anyio.wait_all_tasks_blocked()
            server.close()
            server.close()
        server.send(Owned(1, 2))
        assert server.shed == 1


async def test_what_finds_no_room_waits_and_goes_out_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_channel, "SHED_ABOVE", 20)
    with channels() as (server, worker):
        sent = 0
        while worker.flush():
            sent += 1
            worker.send(Deserted((bytes(60_000), sent.to_bytes(4))))
        for _ in range(30):
            sent += 1
            worker.send(Deserted((bytes(60_000), sent.to_bytes(4))))
        worker.send(Counted({"shed": 1}))  # only tells what the next one tells again
        assert worker.shed == 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            with anyio.fail_after(5):
                numbers = []
                while len(numbers) < sent:
                    message, _ = await server.receive(read_by_server)
                    assert isinstance(message, Deserted)
                    numbers.append(int.from_bytes(message.session_ids[1]))
            tasks.cancel_scope.cancel()
        assert numbers == list(range(1, sent + 1))


async def test_the_last_messages_are_waited_for() -> None:
    with channels() as (server, worker):
        while worker.flush():
            worker.send(Deserted((bytes(60_000),)))
        worker.send(Released(b"last"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.drain)
            with anyio.fail_after(5):
                while (await server.receive(read_by_server))[0] != Released(b"last"):
                    pass


async def test_sockets_that_are_not_sent_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_channel, "MAX_WAITING", 0)
    near, far = socket.socketpair()
    with channels() as (server, _), near:
        server.send(Link(1), [far])
        assert (far.fileno(), near.recv(1)) == (-1, b"")
        monkeypatch.setattr(worker_channel, "MAX_WAITING", 100_000)
        while server.flush():
            server.send(Start(1, PROFILE, Secret(bytes(60_000)), 0))
        near, far = socket.socketpair()
        server.send(Link(1), [far])
        assert far.fileno() != -1
        server.close()
        assert (far.fileno(), near.recv(1)) == (-1, b"")
        near.close()
