"""The legacy port: one upstream socket a peer, raw datagrams, nobody authenticated."""

from typing import Any

import anyio
import pytest

from turnlane.net.dtls import MAX_PAYLOAD

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("dataplane")]


async def settled() -> None:
    await anyio.wait_all_tasks_blocked()


async def test_each_peer_has_an_upstream_socket_and_gets_its_replies(open_legacy_port: Any) -> None:
    async with open_legacy_port() as port:
        clients = [port.client(number).handshake() for number in (1, 2)]
        for number, client in enumerate(clients):
            client.send_raw(b"one of %d" % number, b"two of %d" % number)
            await settled()
        for number, upstream in enumerate(port.upstream.sockets):
            assert upstream.taken == [b"one of %d" % number, b"two of %d" % number]
            upstream.say(b"to %d" % number)
        await settled()
        for number, client in enumerate(clients):
            client.settle()
            assert client.raw == [b"to %d" % number]
        assert len(port.upstream.sockets) == 2
        assert port.told.accepted == [("legacy", 0, True)] * 2


async def test_replies_that_no_record_holds_are_dropped_and_counted(open_legacy_port: Any) -> None:
    async with open_legacy_port() as port:
        client = port.client().handshake()
        client.send_raw(b"x")
        await settled()
        for reply in (b"", bytes(MAX_PAYLOAD + 1), b"fits"):
            port.upstream.sockets[0].say(reply)
            await settled()
        client.settle()
        assert client.raw == [b"fits"]
        assert port.peers.peers[client.address].association.unsealed == 2


async def test_a_peer_that_is_silent_for_too_long_is_let_go(open_legacy_port: Any) -> None:
    async with open_legacy_port(idle_timeout=60.0) as port:
        silent, speaking = (port.client(number).handshake() for number in (1, 2))
        for client in (silent, speaking):
            client.send_raw(b"x")
            await settled()
        port.tick(50.0)
        speaking.send_raw(b"y")
        port.tick(10.0)
        silent.settle()
        assert [end.reason for end in silent.ends] == ["close_notify"]
        assert [upstream.closed for upstream in port.upstream.sockets] == [True, False]
        assert port.told.lost == [(0, "idle")]
        assert port.dtls.association_count == 1


async def test_a_peer_that_leaves_has_its_upstream_closed(open_legacy_port: Any) -> None:
    async with open_legacy_port() as port:
        client = port.client().handshake()
        client.send_raw(b"x")
        await settled()
        client.association.close()
        client.settle()
        assert port.upstream.sockets[0].closed
        assert port.peers.peers == {}
        port.upstream.open.set()
        await settled()


async def test_a_peer_that_comes_back_from_its_address_begins_anew(open_legacy_port: Any) -> None:
    async with open_legacy_port() as port:
        port.client(1).handshake().send_raw(b"old")
        await settled()
        again = port.client(1).handshake()
        again.send_raw(b"new")
        await settled()
        old, new = port.upstream.sockets
        assert (old.closed, new.closed) == (True, False)
        assert new.taken == [b"new"]
        assert port.told.lost == [(0, "replaced")]


async def test_an_upstream_that_fails_is_told_and_harms_no_other_peer(
    open_legacy_port: Any,
) -> None:
    async with open_legacy_port() as port:
        port.upstream.failing = True
        port.client(1).handshake().send_raw(b"x")
        await settled()
        port.upstream.failing = False
        port.client(2).handshake().send_raw(b"y")
        await settled()
        assert port.told.failed == [(1, "upstream_unreachable")]
        assert port.upstream.sockets[0].taken == [b"y"]


async def test_closing_the_port_says_goodbye_to_everybody(open_legacy_port: Any) -> None:
    async with open_legacy_port() as port:
        client = port.client().handshake()
        client.send_raw(b"x")
        await settled()
        port.peers.close(port.now)
        port.listener.flush()
        client.settle()
        assert [end.reason for end in client.ends] == ["close_notify"]
        assert port.upstream.sockets[0].closed
        assert port.told.lost == [(0, "shutdown")]


async def test_a_burst_is_carried_in_order_whatever_its_first_bytes_are(
    open_legacy_port: Any,
) -> None:
    """Raw payload has no frame: what looks like one is payload, too."""
    packets = [
        b"\x10\0\0\1",
        b"\x30\1\0\x08" + bytes(8),
        b"t",
        *(bytes([n]) * 900 for n in range(40)),
    ]
    async with open_legacy_port() as port:
        client = port.client().handshake()
        client.send_raw(*packets)
        await settled()
        (upstream,) = port.upstream.sockets
        assert upstream.taken == packets
        for packet in packets:
            upstream.say(packet)
        await settled()
        client.settle()
        assert client.raw == packets
