"""The main port: who is let in, who gives way, when sessions end, and what nobody can break."""

from typing import Any

import anyio
import pytest

from turnlane.net.dtls import DtlsAssociation

pytestmark = pytest.mark.anyio


async def test_a_client_that_joins_reaches_the_upstream_and_hears_it(open_port: Any) -> None:
    async with open_port() as port:
        client = port.client().join()
        client.send(7, b"one", b"two")
        await anyio.wait_all_tasks_blocked()
        (upstream,) = port.upstream.sockets
        assert (upstream.flow, upstream.taken) == (7, [b"one", b"two"])
        upstream.say(b"reply")
        await anyio.wait_all_tasks_blocked()
        client.settle()
        assert client.payloads == [(7, b"reply")]
        assert port.told.accepted == [((b"s" * 16).hex(), 0, True)]


async def test_an_association_that_ended_with_its_handshake_harms_nobody(open_port: Any) -> None:
    """The peer's Finished and its close_notify may come in one datagram."""
    async with open_port() as port:
        gone = DtlsAssociation.client(pin=None)
        gone.close()
        port.peers.accepted(("198.51.100.9", 9), gone, port.now)
        port.peers.closed(("198.51.100.9", 9), "close_notify", port.now)
        assert port.peers.lanes == {}
        port.client().join()
        assert len(port.peers.sessions) == 1
