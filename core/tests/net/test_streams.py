"""TCP of the local ends, on real loopback sockets and both backends."""

import errno
import socket
from typing import Any

import anyio
import pytest

from turnlane.api import AdapterError, PolicyError, Stage
from turnlane.api.streams import ByteStream, StreamListener
from turnlane.net import streams
from turnlane.net.adapter_context import SocketContext

pytestmark = pytest.mark.anyio

CONTEXT = SocketContext()


async def pair() -> tuple[StreamListener, ByteStream, ByteStream]:
    listener = await CONTEXT.listen_tcp("127.0.0.1", 0)
    near = await CONTEXT.connect_tcp(*listener.local_address)
    offer = await listener.accept()
    assert offer.destination is None
    return listener, near, await offer.accept()


async def close(*opened: Any) -> None:
    for each in opened:
        await each.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_bytes_arrive_in_order_in_both_directions(host: str) -> None:
    listener = await CONTEXT.listen_tcp(host, 0)
    near = await CONTEXT.connect_tcp(host, listener.local_address[1])
    far = await (await listener.accept()).accept()
    sent = bytes(range(256)) * 8192
    got = bytearray()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(near.send, sent)
        while len(got) < len(sent):
            got += await far.receive()
    await far.send(b"answer")

    assert bytes(got) == sent
    assert await near.receive(3) == b"ans"
    assert await near.receive(3) == b"wer"
    await close(near, far, listener)


async def test_one_half_ends_and_the_other_stays_open() -> None:
    listener, near, far = await pair()

    await near.send_eof()
    with pytest.raises(anyio.EndOfStream):
        await far.receive()
    await far.send(b"still")

    assert await near.receive() == b"still"
    await close(near, far, listener)


async def test_what_nobody_reads_makes_the_sender_wait() -> None:
    listener, near, far = await pair()
    with anyio.move_on_after(0.1) as patience:
        await near.send(bytes(64 * 1024 * 1024))

    assert patience.cancelled_caught
    await close(near, far, listener)


async def test_a_lost_connection_is_a_broken_resource() -> None:
    listener, near, far = await pair()
    far._socket.setsockopt(  # type: ignore[attr-defined]
        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    )
    await far.aclose()

    with pytest.raises(anyio.BrokenResourceError):
        await near.receive()
    with pytest.raises(anyio.BrokenResourceError):
        await near.send(b"lost")
    with pytest.raises(anyio.BrokenResourceError):
        await near.send_eof()
    await close(near, listener)


async def test_closing_ends_who_waits_and_may_be_done_twice() -> None:
    listener, near, far = await pair()
    ended: list[str] = []

    async def wait(what: Any, name: str) -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await what()
        ended.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, listener.accept, "accept")
        tasks.start_soon(wait, near.receive, "receive")
        await anyio.wait_all_tasks_blocked()
        await close(listener, listener, near, near)

    assert sorted(ended) == ["accept", "receive"]
    for closed in (listener.accept, near.receive, near.send_eof):
        with pytest.raises(anyio.ClosedResourceError):
            await closed()
    with pytest.raises(anyio.ClosedResourceError):
        await near.send(b"late")
    await close(far)


async def test_a_refused_offer_ends_its_connection_alone() -> None:
    listener, near, far = await pair()
    other = await CONTEXT.connect_tcp(*listener.local_address)
    await (await listener.accept()).refuse(PolicyError("no_way", "there is none"))

    with pytest.raises(anyio.EndOfStream):
        await other.receive()
    await far.send(b"lives")
    assert await near.receive() == b"lives"
    await close(near, far, other, listener)


async def test_an_address_in_use_is_told_at_local_bind() -> None:
    listener = await CONTEXT.listen_tcp("127.0.0.1", 0)

    with pytest.raises(AdapterError) as caught:
        await CONTEXT.listen_tcp(*listener.local_address)

    assert (caught.value.stage, caught.value.code) == (Stage.LOCAL_BIND, "local_bind_failed")
    await close(listener)


async def test_an_upstream_that_does_not_listen_is_told_at_upstream_dial() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(AdapterError) as caught:
            await CONTEXT.connect_tcp(*unheard.getsockname())

    assert (caught.value.stage, caught.value.code) == (Stage.UPSTREAM_DIAL, "upstream_unreachable")
    assert "refused" in caught.value.message


async def test_a_name_that_does_not_resolve_is_told_with_its_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(anyio, "getaddrinfo", unknown)

    with pytest.raises(AdapterError) as dialled:
        await CONTEXT.connect_tcp("nowhere.example", 1)
    with pytest.raises(AdapterError) as bound:
        await CONTEXT.listen_tcp("nowhere.example", 1)

    assert dialled.value.stage is Stage.UPSTREAM_DIAL
    assert dialled.value.code == "upstream_name_unresolved"
    assert (bound.value.stage, bound.value.code) == (Stage.LOCAL_BIND, "listen_name_unresolved")


async def test_an_upstream_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "CONNECT_TIMEOUT", 0.0)

    with pytest.raises(AdapterError, match="no answer in time") as caught:
        await CONTEXT.connect_tcp("127.0.0.1", 1)

    assert caught.value.code == "upstream_unreachable"


async def test_the_second_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = await CONTEXT.listen_tcp("127.0.0.1", 0)
    port = listener.local_address[1]

    async def two(*_: object, **__: object) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(anyio, "getaddrinfo", two)
    near = await CONTEXT.connect_tcp("two.example", port)

    await close(near, listener)


class Accepting:
    """A listening socket of which each `accept` raises the next of `errors`, or blocks."""

    def __init__(self, errors: list[int]) -> None:
        self.errors = errors

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def accept(self) -> None:
        raise OSError(self.errors.pop(0), "accept")


async def test_only_a_broken_socket_ends_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [errno.ECONNABORTED, errno.EMFILE, errno.EPROTO, errno.EBADF, errno.EIO]
    monkeypatch.setattr(streams, "PAUSE", 0.0)
    listener = streams.TcpListener(Accepting(errors))  # type: ignore[arg-type]

    with pytest.raises(AdapterError) as caught:
        await listener.accept()

    assert (caught.value.stage, caught.value.code) == (
        Stage.FORWARDING_LOOP,
        "local_socket_failed",
    )
    assert errors == [errno.EIO]
