"""Strangers, and a relay that plays foul, while a session carries traffic: it lives on.

All of it is loopback, seeded, and bounded in number and time.
"""

import random
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import cycle

import anyio
import pytest

from turnlane.net.dtls import DtlsAssociation
from turnlane.net.relay_wire import UdpWire
from turnlane.net.udp import ListeningUdpSocket
from turnlane.proto.channel_data import MIN_CHANNEL, encode
from turnlane.relay import session_peers
from turnlane.runtime.events import LaneLost, PeerLost, PeerRefused
from turnlane.runtime.host import ClientHandle
from turnlane.runtime.server_ports import MAX_HANDSHAKES
from turnlane_lab.stand import Stand
from turnlane_tests.backends import ASYNCIO
from turnlane_tests.leaks import Held
from turnlane_tests.local_peers import EventLog, LocalPeer, local_peers
from turnlane_tests.stranger import Stranger

pytestmark = pytest.mark.anyio

LIMIT = 20.0
"""Seconds that any attack may take."""

ROUNDS = 1500
"""Datagrams of one attack, each mutated by itself."""

BURST = 40
"""Datagrams sent before the others get their turn: fewer than a socket is read of at once."""


class Under:
    """A session that carries traffic, and what it has sent and received so far."""

    def __init__(self, stand: Stand, client: ClientHandle, peer: LocalPeer, log: EventLog) -> None:
        self.stand = stand
        self.client = client
        self.peer = peer
        self.log = log
        self.to_relay: list[bytes] = []
        self.from_server: list[bytes] = []

    @property
    def relayed(self) -> socket.socket:
        """The relay's socket towards the server, of the first lane."""
        relayed = self.client.lanes[0].relayed
        sockets = self.stand.relay._relayed.values()
        return next(opened for opened in sockets if opened.getsockname() == relayed)

    def port(self, which: int) -> socket.socket:
        """The socket of the server's main (0) or legacy (1) port."""
        return self.stand.server._server.ports.listeners[which].socket._socket

    @property
    def wire(self) -> socket.socket:
        """The first lane's socket towards the relay."""
        lane = self.client.lanes[0].lane
        assert lane is not None
        assert lane._path is not None
        return lane._path._wire._socket

    async def lives(self) -> None:
        """Show that the session goes on as if nothing had happened."""
        for size in (0, 100, 1100):
            await self.peer.echoed(self.peer.send(size))
        assert self.log.of(LaneLost) == []
        assert self.log.of(PeerLost) == []
        assert self.stand.server.sessions == 1
        assert self.client.ready_lanes == 2
        assert self.peer.strays == []
        server = self.stand.server._server
        assert server.ports is not None
        assert len(server.ports.peers.lanes) <= 2 + len(self.log.of(PeerRefused))
        for listener in server.ports.listeners:
            assert listener.dtls.handshake_count <= MAX_HANDSHAKES
            assert listener.dtls.association_count <= 3


@asynccontextmanager
async def under_attack(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Under]:
    write, send = UdpWire.write, ListeningUdpSocket.send
    to_relay: list[bytes] = []
    from_server: list[bytes] = []

    def remember_write(self: UdpWire, message: bytes, *, droppable: bool = True) -> bool:
        to_relay.append(message)
        return write(self, message, droppable=droppable)

    def remember_send(self: ListeningUdpSocket, data: bytes, address: tuple[str, int]) -> None:
        from_server.append(data)
        send(self, data, address)

    monkeypatch.setattr(UdpWire, "write", remember_write)
    monkeypatch.setattr(ListeningUdpSocket, "send", remember_send)
    with anyio.fail_after(LIMIT):
        async with Stand(server={"legacy_listen": "127.0.0.1:0"}, on_event=log) as stand:
            client = await stand.connect(2)
            async with local_peers(client.listen, "ann") as [peer]:
                for size in (0, 10, 300, 1000):
                    await peer.echoed(peer.send(size))
                monkeypatch.undo()
                under = Under(stand, client, peer, log)
                under.to_relay, under.from_server = to_relay, from_server
                yield under


# What is sent.


def mutated(originals: Sequence[bytes], seed: int, count: int = ROUNDS) -> Iterator[bytes]:
    """Give spoilt copies of what was really sent, and here and there pure noise."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(originals))
        match chance.randrange(8):
            case 0:
                data = bytearray(chance.randbytes(chance.randrange(1500)))
            case 1:
                del data[chance.randrange(len(data) + 1) :]
            case 2:
                data += chance.randbytes(chance.randrange(1, 64))
            case 3:
                data += chance.choice(originals)
            case 4:
                start = chance.randrange(len(data) + 1)
                data[start : start + 13] = chance.randbytes(13)
            case 5 if data:
                data[chance.randrange(min(len(data), 13))] = chance.randrange(256)
            case 6:
                pass  # a replay
            case _ if data:
                for _ in range(chance.randrange(1, 8)):
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield bytes(data)


def dtls_of(messages: Iterable[bytes]) -> list[bytes]:
    """Return what ChannelData messages carry."""
    return [message[4:] for message in messages if message and message[0] & 0xC0 == 0x40]


async def attack(
    datagrams: Iterable[bytes], send: Callable[[bytes], object], target: socket.socket
) -> None:
    """Send datagrams as fast as `target` takes them; return when it has taken all."""
    for number, datagram in enumerate(datagrams):
        send(datagram)
        if number % BURST == 0:
            await taken(target)
    await taken(target)


async def taken(target: socket.socket) -> None:
    while select.select([target], [], [], 0)[0]:
        await anyio.lowlevel.checkpoint()


@contextmanager
def strangers(count: int) -> Iterator[list[socket.socket]]:
    """Open sockets on ports of their own."""
    with ExitStack() as opened:
        sockets = []
        for _ in range(count):
            one = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
            sockets.append(one)
        yield sockets


async def stranger_datagrams(stand: Stand) -> list[bytes]:
    """Return what a DTLS client of no session sends, from its first hello to its last record."""
    made = Stranger(stand.server.listen, stand.server.pin)
    try:
        await made.shake_hands()
        made.say(b"turnlane" + bytes(30))
    finally:
        made.close()
    return made.sent


# Who attacks what.


@pytest.mark.parametrize("which", [0, 1], ids=["main", "legacy"])
async def test_a_port_of_the_server_bears_whatever_strangers_send(
    which: int, event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with under_attack(event_log, monkeypatch) as under:
        server, target = under.stand.server, under.port(which)
        address = target.getsockname()
        originals = await stranger_datagrams(under.stand) + dtls_of(under.to_relay)
        with strangers(5) as sockets:
            for number, one in enumerate(sockets):
                await attack(
                    mutated(originals, number, ROUNDS // 5),
                    lambda data, one=one: one.sendto(data, address),
                    target,
                )
        counters = server.counters
        assert counters["malformed"] > 0
        assert counters["unknown"] > 0
        assert counters["challenges_sent"] > 0
        await under.lives()


async def test_an_association_bears_what_comes_from_its_own_address(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a relay that plays foul, or of anybody who forges the relay's address."""
    async with under_attack(event_log, monkeypatch) as under:
        originals = dtls_of(under.to_relay) + await stranger_datagrams(under.stand)
        server = under.stand.server
        await attack(
            mutated(originals, 1),
            lambda data: under.relayed.sendto(data, server.listen),
            under.port(0),
        )
        assert server.counters["malformed"] > 0
        await under.lives()


async def test_a_lane_bears_what_comes_from_its_relay(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with under_attack(event_log, monkeypatch) as under:
        relay = under.stand.relay
        (opened,) = relay._udp.values()
        records = list(mutated(under.from_server, 2))
        wrapped = [encode(MIN_CHANNEL, record, padded=False) for record in records]
        messages = [*wrapped, *mutated(under.to_relay, 3), *mutated(wrapped, 4)]
        client = under.wire.getsockname()
        await attack(messages, lambda data: opened.sendto(data, client), under.wire)
        await under.lives()


async def test_a_lane_bears_what_others_send_to_its_relayed_address(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay lets the server's whole machine through, so that its neighbours get that far."""
    async with under_attack(event_log, monkeypatch) as under:
        relayed = under.client.lanes[0].relayed
        with strangers(1) as [one]:
            await attack(
                mutated(under.from_server, 5),
                lambda data: one.sendto(data, relayed),
                under.relayed,
            )
        await under.lives()


async def test_the_local_end_bears_many_peers_and_gives_each_its_own(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with under_attack(event_log, monkeypatch) as under:
        with strangers(50) as sockets:
            for number, one in enumerate(sockets):
                own = b"%d of 50" % number
                for data in (*mutated([b"payload", bytes(1000)], number, 8), bytes(65_507), own):
                    one.sendto(data, under.client.listen)
                with anyio.fail_after(5):
                    while True:
                        await anyio.wait_readable(one)
                        returned = one.recv(65_535)
                        if returned == own:
                            break
                        assert not returned.endswith(b" of 50"), "somebody else's"
        assert len(under.stand.echo.sources) == 1 + 50
        await under.lives()


async def test_the_relay_bears_strangers_at_its_client_port(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with under_attack(event_log, monkeypatch) as under:
        relay = under.stand.relay
        (target,) = relay._udp.values()
        alive = relay.counters["allocations_alive"]
        with strangers(3) as sockets:
            for number, one in enumerate(sockets):
                await attack(
                    mutated(under.to_relay, number, ROUNDS // 3),
                    lambda data, one=one: one.sendto(data, target.getsockname()),
                    target,
                )
        assert relay.counters["malformed"] > 0
        assert relay.counters["allocations_alive"] == alive
        await under.lives()


# Floods.


def first_hello() -> bytes:
    association = DtlsAssociation.client(pin=None)
    association.start(anyio.current_time())
    (hello,) = association.datagrams_to_send()
    return hello


@ASYNCIO
async def test_a_flood_of_client_hellos_keeps_nobody_out(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with under_attack(event_log, monkeypatch) as under:
        server = under.stand.server
        hello = first_hello()
        before = Held.now()
        with strangers(200) as sockets:
            async with anyio.create_task_group() as flooding:

                async def flood() -> None:
                    ports = cycle(sockets)
                    while True:
                        await attack(
                            [hello] * len(sockets),
                            lambda data: next(ports).sendto(data, server.listen),
                            under.port(0),
                        )

                flooding.start_soon(flood)
                await under.lives()
                late = await under.stand.connect()
                async with local_peers(late.listen, "ben") as [ben]:
                    await ben.echoed(ben.send())
                flooding.cancel_scope.cancel()
            assert server.counters["challenges_sent"] > 1000
            assert server._server.ports.listeners[0].dtls.handshake_count == 0, "nothing was kept"
        await late.stop()
        await before.settled()


@ASYNCIO
async def test_more_half_open_handshakes_than_there_is_room_for_keep_nobody_out(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with under_attack(event_log, monkeypatch) as under:
        server = under.stand.server
        dtls = server._server.ports.listeners[0].dtls
        opened: list[Stranger] = []
        try:
            for number in range(MAX_HANDSHAKES + 20):
                opened.append(Stranger(server.listen))
                await opened[-1].shake_halfway()
                if number % 50 == 0:
                    await under.peer.echoed(under.peer.send())
            with anyio.fail_after(5):
                while server.counters.get("handshakes_evicted", 0) < 20:
                    await anyio.lowlevel.checkpoint()
            assert dtls.handshake_count == MAX_HANDSHAKES
            await under.lives()
            late = await under.stand.connect()
            async with local_peers(late.listen, "ben") as [ben]:
                await ben.echoed(ben.send())
        finally:
            for one in opened:
                one.close()


@ASYNCIO
async def test_more_peers_without_a_hello_than_there_is_room_for_keep_nobody_out(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with under_attack(event_log, monkeypatch) as under:
        monkeypatch.setattr(session_peers, "MAX_GREETING", 10)
        opened: list[Stranger] = []
        try:
            for _ in range(15):
                opened.append(Stranger(under.stand.server.listen))
                await opened[-1].shake_hands()
            peers = under.stand.server._server.ports.peers
            assert peers is not None
            with anyio.fail_after(5):
                while len(event_log.of(PeerRefused)) < 5:
                    await anyio.lowlevel.checkpoint()
            assert len(peers.lanes) == 2 + 10
            late = await under.stand.connect()
            async with local_peers(late.listen, "ben") as [ben]:
                await ben.echoed(ben.send())
            await under.peer.echoed(under.peer.send())
            assert event_log.of(PeerLost) == []
        finally:
            for one in opened:
                one.close()
