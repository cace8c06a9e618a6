"""Flows: every local peer hears its own replies, and the upstream one stable source for each."""

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest

from turnlane.api import AdapterError, RelayTransport, Stage
from turnlane.net.dtls import MAX_PAYLOAD
from turnlane.net.udp import BoundUdpSocket
from turnlane.proto.frames import HEADER_SIZE
from turnlane.relay import flows, server_session
from turnlane.runtime.events import Event, FlowFailed, LaneLost, LaneReady, PeerLost
from turnlane.runtime.host import ClientHandle
from turnlane.runtime.peer_link import PeerLink, join_host_port
from turnlane.runtime.profiles import (
    PeerMode,
    SchedulerKind,
)
from turnlane_lab.echo import EchoTarget, SilentTarget, UdpTarget
from turnlane_lab.stand import Stand
from turnlane_tests.local_peers import EventLog, LocalPeer, local_peers

pytestmark = pytest.mark.anyio

LIMIT = 10.0
"""Seconds that anything may take here."""

WINDOW = 32
"""Datagrams under way at once: far fewer than a socket's buffer holds."""

LARGEST = MAX_PAYLOAD - HEADER_SIZE
"""Bytes of the largest datagram that a lane takes."""

LARGEST_UDP = 65_507


@contextmanager
def application(listen: tuple[str, int]) -> Iterator[socket.socket]:
    """Open a socket of an application behind the client."""
    family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.connect(listen)
        yield opened


async def receive(opened: socket.socket) -> bytes:
    with anyio.fail_after(LIMIT):
        await anyio.wait_readable(opened)
    return opened.recv(65_535)


async def exchange(opened: socket.socket, payloads: list[bytes]) -> None:
    """Send all payloads and get each of them back, once and as it was."""
    for start in range(0, len(payloads), WINDOW):
        window = payloads[start : start + WINDOW]
        for payload in window:
            opened.send(payload)
        assert Counter([await receive(opened) for _ in window]) == Counter(window)


def patterns(sizes: list[int]) -> list[bytes]:
    """Return one payload of each size; those of four bytes and more differ from each other."""
    return [(size.to_bytes(4, "big") * (size // 4 + 1))[:size] for size in sizes]


def too_large(client: ClientHandle) -> int:
    return sum(slot.lane.unsendable for slot in client.lanes if slot.lane is not None)


async def meet(peers: list[LocalPeer], target: UdpTarget) -> list[tuple[str, int]]:
    """Let every peer be heard once; return the sources that the upstream knows them by."""
    for number, peer in enumerate(peers, 1):
        await peer.echoed(peer.send())
        assert len(target.sources) == number
    return list(target.sources)


# Everyone gets their own.


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
@pytest.mark.parametrize("scheduler", list(SchedulerKind))
async def test_each_of_three_peers_on_four_lanes_gets_its_own_replies_and_is_one_source(
    scheduler: SchedulerKind, transport: RelayTransport
) -> None:
    async with Stand() as stand:
        client = await stand.connect(4, scheduler=scheduler, transport=transport)
        async with local_peers(client.listen, "ann", "ben", "cy") as peers:
            for _ in range(10):
                sent = [(peer, peer.send(100)) for _ in range(8) for peer in peers]
                for peer, data in sent:
                    await peer.echoed(data)
            for peer in peers:
                assert peer.strays == []
                assert len(peer.replies) == len(set(peer.replies)) == peer.sent == 80
        assert len(stand.echo.sources) == 3
        lanes = [slot.lane for slot in client.lanes if slot.lane is not None]
        sending = [lane for lane in lanes if lane.packets_sent]
        if scheduler is SchedulerKind.ROUND_ROBIN:
            assert sending == lanes
        # Otherwise what was measured decides, and on one machine that is chance.
        assert sum(lane.packets_sent for lane in sending) == 240
        assert sum(lane.packets_received for lane in lanes) == 240


async def test_two_sessions_on_one_server_are_not_mixed_up() -> None:
    async with Stand() as stand:
        first, second = await stand.connect(2), await stand.connect(2)
        async with (
            local_peers(first.listen, "ann", "ben") as some,
            local_peers(second.listen, "cy", "dan") as others,
        ):
            peers = [*some, *others]
            sent = [(peer, peer.send(100)) for _ in range(8) for peer in peers]
            for peer, data in sent:
                await peer.echoed(data)
            assert [peer.strays for peer in peers] == [[], [], [], []]
        assert len(stand.echo.sources) == 4
        assert stand.server.sessions == 2


@pytest.mark.parametrize("scheduler", list(SchedulerKind))
async def test_an_upstream_that_speaks_first_is_heard_by_the_right_peer(
    scheduler: SchedulerKind,
) -> None:
    async with Stand() as stand:
        client = await stand.connect(4, scheduler=scheduler)
        async with local_peers(client.listen, "ann", "ben", "cy") as peers:
            sources = await meet(peers, stand.echo)
            for number in range(20):
                for peer, source in zip(peers, sources, strict=True):
                    await stand.echo.speak(source, f"{peer.name}:push{number}:".encode())
            for peer in peers:
                for number in range(20):
                    await peer.echoed(f"{peer.name}:push{number}:".encode())
            assert [peer.strays for peer in peers] == [[], [], []]
            assert [len(peer.replies) for peer in peers] == [21, 21, 21]
        assert stand.echo.sources == sources


async def test_a_stranger_cannot_speak_into_a_flow() -> None:
    """The upstream's socket is connected: only the upstream is heard on it."""
    async with Stand() as stand, EchoTarget() as stranger:
        client = await stand.connect()
        async with local_peers(client.listen, "ann") as [peer]:
            [source] = await meet([peer], stand.echo)
            await stranger.speak(source, b"ann:forged:")
            await stand.echo.speak(source, b"ann:real:")
            await peer.echoed(b"ann:real:")
            assert b"ann:forged:" not in peer.replies


# Sizes.


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_every_size_from_empty_to_1400_bytes_comes_back_whole(
    transport: RelayTransport,
) -> None:
    async with Stand() as stand:
        client = await stand.connect(2, transport=transport)
        with application(client.listen) as opened:
            await exchange(opened, patterns(list(range(1401))))
        assert too_large(client) == 0
        assert len(stand.echo.sources) == 1


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_what_is_too_large_is_dropped_and_counted_and_the_session_lives(
    transport: RelayTransport, event_log: EventLog
) -> None:
    async with Stand(on_event=event_log) as stand:
        client = await stand.connect(2, transport=transport)
        with application(client.listen) as opened:
            await exchange(opened, patterns([1500, 4000, 9000, LARGEST]))
            for size in (LARGEST + 1, 30_000, LARGEST_UDP):
                opened.send(bytes(size))
            await exchange(opened, patterns([100]))
            assert too_large(client) == 3
            [source] = stand.echo.sources
            await stand.echo.speak(source, bytes(LARGEST + 1))
            await stand.echo.speak(source, bytes(LARGEST_UDP))
            await exchange(opened, patterns([200]))
        assert event_log.of(LaneLost) == []
        assert client.ready_lanes == 2


async def test_a_legacy_lane_carries_all_but_empty_datagrams() -> None:
    async with Stand(server={"legacy_listen": "127.0.0.1:0"}) as stand:
        assert stand.server.legacy_listen is not None
        host, port = stand.server.legacy_listen
        peer = PeerLink(host, port, stand.server.pin)
        client = await stand.connect(peer=peer, mode=PeerMode.LEGACY)
        with application(client.listen) as opened:
            opened.send(b"")
            await exchange(opened, patterns([1, 2, 3, 4, 500, 1400]))
            assert too_large(client) == 1
            [source] = stand.echo.sources
            await stand.echo.speak(source, b"")
            await exchange(opened, patterns([600]))


# Bounds: the flow that was unused for longest makes room, and comes back as a new one.


async def test_more_flows_than_a_session_may_have_make_room_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_session, "MAX_FLOWS", 2)
    async with Stand() as stand:
        client = await stand.connect(2)
        async with local_peers(client.listen, "ann", "ben", "cy") as peers:
            await meet(peers, stand.echo)
            ann, ben, cy = peers
            await cy.echoed(cy.send())
            assert len(stand.echo.sources) == 3  # still the one it has
            await ann.echoed(ann.send())
            assert len(stand.echo.sources) == 4  # its flow had made room for cy's
            await cy.echoed(cy.send())
            assert len(stand.echo.sources) == 4
            await ben.echoed(ben.send())
            assert len(stand.echo.sources) == 5
            assert [peer.strays for peer in peers] == [[], [], []]


async def test_a_late_reply_to_a_forgotten_peer_reaches_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = BoundUdpSocket.__init__

    def remember_two(self: BoundUdpSocket, opened: socket.socket) -> None:
        original(self, opened, max_peers=2)

    monkeypatch.setattr(BoundUdpSocket, "__init__", remember_two)
    async with Stand() as stand:
        client = await stand.connect()
        async with local_peers(client.listen, "ann", "ben", "cy") as peers:
            sources = await meet(peers, stand.echo)
            await stand.echo.speak(sources[0], b"ann:late:")
            await stand.echo.speak(sources[1], b"ben:late:")
            await peers[1].echoed(b"ben:late:")
            assert b"ann:late:" not in peers[0].replies
            assert [peer.strays for peer in peers] == [[], [], []]
            await peers[0].echoed(peers[0].send())
            assert len(stand.echo.sources) == 4


# Upstreams that are not there.


async def test_an_upstream_that_comes_later_is_reached_by_the_flow_that_is_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = taken.getsockname()
    async with Stand(server={"connect": join_host_port(*address)}) as stand:
        client = await stand.connect(2)
        async with local_peers(client.listen, "ann") as [peer]:
            for _ in range(3):
                peer.send()
            async with EchoTarget(*address) as late:
                with anyio.fail_after(LIMIT):
                    while not peer.replies:
                        peer.send()
                        await anyio.sleep(0.02)
                await peer.echoed(peer.send())
                assert len(late.sources) == 1


async def test_a_flow_whose_upstream_cannot_be_opened_is_told_and_tried_again(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "RETRY_AFTER", 0.0)
    async with Stand(on_event=event_log) as stand:
        client = await stand.connect(2)

        async def fail(*_: object) -> None:
            raise AdapterError(Stage.UPSTREAM_DIAL, "upstream_unreachable", "no route", "wait")

        async with local_peers(client.listen, "ann") as [peer]:
            with monkeypatch.context() as broken:
                broken.setattr("turnlane_adapters.udp.UdpEgress.connect", fail)
                peer.send()
                failed = await event_log.wait_for(lambda event: isinstance(event, FlowFailed))
            assert isinstance(failed, FlowFailed)
            assert (failed.error.stage, failed.error.code) == (
                Stage.UPSTREAM_DIAL,
                "upstream_unreachable",
            )
            await peer.echoed(peer.send())
        assert event_log.of(LaneLost) == []


# Silence.


async def test_a_session_that_is_idle_is_ended_and_comes_back_by_itself(
    event_log: EventLog,
) -> None:
    async with Stand(on_event=event_log, server={"idle_timeout": 0.5}) as stand:
        client = await stand.connect(2)
        async with local_peers(client.listen, "ann") as [peer]:
            await peer.echoed(peer.send())
            mark = len(event_log.events)
            ended = await event_log.wait_for(
                lambda event: isinstance(event, PeerLost) and event.reason == "idle", after=mark
            )
            assert isinstance(ended, PeerLost)
            for lane in range(2):
                await event_log.wait_for(lane_ready(lane), after=mark)
            mark = len(peer.replies)
            with anyio.fail_after(LIMIT):
                while len(peer.replies) == mark:
                    peer.send()
                    await anyio.sleep(0.02)
            assert len(stand.echo.sources) == 2
            assert peer.strays == []


def lane_ready(lane: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, LaneReady) and event.lane == lane


async def test_a_session_that_carries_traffic_one_way_is_not_idle(event_log: EventLog) -> None:
    target = SilentTarget()
    async with Stand(on_event=event_log, server={"idle_timeout": 0.5}, echo=target) as stand:
        client = await stand.connect(2)
        async with local_peers(client.listen, "ann") as [peer]:
            give_up = anyio.current_time() + 1.2
            while anyio.current_time() < give_up:
                peer.send()
                await anyio.sleep(0.1)
        assert event_log.of(PeerLost) == []
        assert len(target.sources) == 1


# IPv6.


async def test_a_local_end_on_ipv6_is_served_through_an_ipv4_relay() -> None:
    async with Stand() as stand:
        client = await stand.connect(2, listen="[::1]:0")
        assert client.listen[0] == "::1"
        async with local_peers(client.listen, "ann", "ben") as peers:
            await meet(peers, stand.echo)
            assert [peer.strays for peer in peers] == [[], []]
        with application(client.listen) as opened:
            await exchange(opened, patterns([0, 1, 1400]))


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_everything_on_ipv6(transport: RelayTransport) -> None:
    async with Stand(relay={"hosts": ("::1",)}, echo=EchoTarget("::1")) as stand:
        assert stand.server.listen[0] == "::1"
        client = await stand.connect(4, transport=transport, listen="[::1]:0")
        async with local_peers(client.listen, "ann", "ben", "cy") as peers:
            sources = await meet(peers, stand.echo)
            for peer, source in zip(peers, sources, strict=True):
                await stand.echo.speak(source, f"{peer.name}:push:".encode())
                await peer.echoed(f"{peer.name}:push:".encode())
            assert [peer.strays for peer in peers] == [[], [], []]
        with application(client.listen) as opened:
            await exchange(opened, patterns([0, 1, 1400]))
