"""The targets behind a relay."""

import socket

import anyio
import pytest

from turnlane_lab import echo as echo_module
from turnlane_lab.echo import EchoTarget, SilentTarget

pytestmark = pytest.mark.anyio


@pytest.fixture
def peer():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.setblocking(False)
        yield opened


async def received(opened):
    with anyio.fail_after(10):
        await anyio.wait_readable(opened)
    return opened.recv(65_536)


async def test_an_echo_comes_back_with_its_prefix(peer):
    async with EchoTarget() as plain, EchoTarget(prefix=b"two:") as marked:
        peer.sendto(b"x", plain.address)
        assert await received(peer) == b"x"
        peer.sendto(b"x", marked.address)
        assert await received(peer) == b"two:x"
        assert marked.sources == [peer.getsockname()]
        assert dict(marked.counters) == {"received": 1, "sent": 1, "sources": 1, "dropped": 0}


async def test_a_source_is_told_once_and_the_list_is_bounded(peer, monkeypatch):
    monkeypatch.setattr(echo_module, "MAX_SOURCES", 1)
    async with EchoTarget() as echo:
        for _ in range(2):
            peer.sendto(b"x", echo.address)
            await received(peer)
        assert echo.counters["sources"] == 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"x", echo.address)
            await echo.counters.reached("sources", 2)
        assert echo.sources == [peer.getsockname()]


async def test_an_echo_that_the_system_does_not_take_is_counted(peer):
    async with EchoTarget(prefix=bytes(30_000)) as echo:
        peer.sendto(bytes(40_000), echo.address)
        await echo.counters.reached("dropped", 1)
        assert echo.counters["sent"] == 0


async def test_a_target_may_speak_first(peer):
    async with EchoTarget() as echo:
        await echo.speak(peer.getsockname(), b"hello")
        assert await received(peer) == b"hello"
        assert echo.counters["sent"] == 1
        with pytest.raises(OSError, match="long"):
            await echo.speak(peer.getsockname(), bytes(70_000))


async def test_a_silent_target_keeps_what_it_hears(peer):
    async with SilentTarget() as silent:
        peer.sendto(b"x", silent.address)
        await silent.counters.reached("received", 1)
        assert list(silent.datagrams) == [(b"x", peer.getsockname())]
        assert silent.counters["sent"] == 0


async def test_an_ipv6_echo(peer):
    async with EchoTarget("::1") as echo:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.sendto(b"x", echo.address)
            assert await received(client) == b"x"
            assert echo.sources == [("::1", client.getsockname()[1])]
