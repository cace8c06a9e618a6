"""A client's lane, on a path that leads straight to a server's port."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from secrets import token_bytes
from typing import Any, NoReturn

import anyio
import pytest

from turnlane.api import (
    Batch,
    Credentials,
    RelayEndpoint,
    Secret,
    SessionError,
    Stage,
    TransportError,
    TurnlaneError,
)
from turnlane.net.dtls import MAX_PAYLOAD
from turnlane.net.identity import Pin
from turnlane.net.relayed_path import PathSettings
from turnlane.proto.channel_data import decode_untrusted, encode
from turnlane.proto.frames import ByeCode
from turnlane.proto.lane_health import LaneHealth
from turnlane.relay import lane as module
from turnlane.relay.lane import Lane, LanePlan, Security
from turnlane.relay.membership import Membership
from turnlane.relay.workspace import Workspace

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("dataplane")]

TOKEN = Secret(b"the token of this server")
ADDRESS = ("198.51.100.7", 7)
SOON = 5.0
CHANNEL = 0x4001
ETHERNET = 1500 - 20 - 8
"""Bytes of UDP payload."""


def batch_of(*packets: bytes, flow: int = 1) -> Batch:
    batch = Batch()
    for packet in packets:
        batch.append(packet, flow)
    return batch


class StraightPath:
    """Stands in for a relayed path: datagrams go to a port and come from it.

    Without a `channel` they travel as they are, in place of indications; with one, as ChannelData.
    """

    relayed = ADDRESS

    def __init__(self, port: Any, channel: int | None, *, padded: bool) -> None:
        self.stage = Stage.PEER_SETUP
        self.broken: TransportError | None = None
        self.full = False
        self.too_large = 0
        self.largest_payload: int | None = None
        self.backlog = 0
        self.released = False
        self.channel = channel
        self.padded = padded
        self.bursts: list[int] = []
        """Datagrams of each batch that went out."""
        self.timer: float | None = None
        self._port = port
        self._pumping: anyio.CancelScope | None = None
        self._interruption: Exception | None = None

    def send(self, payload: bytes) -> bool:
        return self._burst([payload]) == 1

    def send_messages(self, batch: Batch) -> int:
        messages = [bytes(message) for message in batch]
        for message in messages:
            channel, record = decode_untrusted(message)
            assert channel == self.channel
            assert not self.padded or len(message) % 4 == 0
            assert len(message) - 4 - len(record) <= (3 if self.padded else 0)
        taken = self._burst([bytes(decode_untrusted(message)[1]) for message in messages])
        if taken:
            self.bursts.append(taken)
        return taken

    def _burst(self, payloads: list[bytes]) -> int:
        if self.full:
            return 0
        self._port.now = anyio.current_time()
        room = 2**16 if self.largest_payload is None else self.largest_payload - 4
        fitting = [payload for payload in payloads if len(payload) <= room]
        self.too_large += len(payloads) - len(fitting)
        self._port.take(*((payload, ADDRESS) for payload in fitting))
        return len(fitting)

    def read(self, now: float) -> list[bytes]:
        if self.broken is not None:
            raise self.broken
        taken: list[bytes] = self._port.wires.take(ADDRESS)
        return taken

    def read_messages(self, batch: Batch) -> int:
        batch.clear()
        for payload in self.read(0.0):
            wrapped = self.channel is not None
            message = encode(self.channel, payload, padded=False) if wrapped else payload  # type: ignore[arg-type]
            assert batch.append(message)
        return batch.count

    def receive(self, message: bytes, now: float) -> list[bytes]:
        return [message if self.channel is None else bytes(decode_untrusted(message)[1])]

    def flush(self) -> None:
        """Nothing waits."""

    def break_down(self) -> None:
        self.broken = TransportError(self.stage, "turn_socket_failed", "broken")
        self._port.wires.send(b"", ADDRESS)

    def get_timer(self) -> float | None:
        return self.timer

    def handle_timer(self, now: float) -> None:
        self.timer = None

    async def wait(self, deadline: float | None) -> None:
        with anyio.CancelScope(deadline=float("inf") if deadline is None else deadline):
            while ADDRESS not in self._port.wires.boxes:
                await self._port.wires.news.wait()

    async def pump(self, on_readable: Callable[[], int]) -> NoReturn:
        with anyio.CancelScope() as self._pumping:
            while True:
                await self.wait(None)
                on_readable()
        assert self._interruption is not None
        raise self._interruption

    def interrupt(self, error: Exception) -> None:
        self._interruption = error
        if self._pumping is not None:
            self._pumping.cancel()


class Bench:
    """A lane under test, what came over it and how it ended."""

    def __init__(
        self,
        port: Any,
        pin: Pin,
        *,
        raw: bool,
        token: Secret[bytes],
        channel: int | None,
        padded: bool,
    ) -> None:
        self.path = StraightPath(port, channel, padded=padded)
        self.workspace = Workspace()
        self.membership = Membership(token_bytes)
        self.delivered: list[tuple[int, bytes]] = []
        self.stages: list[Stage] = []
        self.drained = 0
        self.limits: list[int] = []
        self.too_large: list[int] = []
        self.ready = anyio.Event()
        self.ended = anyio.Event()
        self.error: TurnlaneError | None = None
        endpoint = RelayEndpoint("192.0.2.1", 3478)
        self.lane = Lane(
            LanePlan(
                index=0,
                lanes=1,
                path=PathSettings(
                    endpoint,
                    Credentials((endpoint,), Secret("u"), Secret("p")),
                    "192.0.2.2",
                    56000,
                    token_bytes,
                ),
                security=Security(pin, None if raw else token),
                membership=None if raw else self.membership,
            ),
            workspace=self.workspace,
            deliver=self._deliver,
            on_stage=self.stages.append,
            on_drain=self._drain,
            on_path=lambda: self.limits.append(self.lane.max_datagram),
            on_too_large=self.too_large.append,
        )

    async def run(self) -> None:
        try:
            await self.lane.run(self.ready.set)
        except TurnlaneError as error:
            self.error = error
        finally:
            self.ended.set()

    def send(self, flow: int, *packets: bytes) -> None:
        batch = batch_of(*packets, flow=flow)
        self.lane.send(batch, 0, len(batch))

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(SOON):
            while not holds():
                await anyio.lowlevel.checkpoint()

    async def end(self) -> TurnlaneError | None:
        with anyio.fail_after(SOON):
            await self.ended.wait()
        assert self.path.released
        assert not self.lane.ready
        return self.error

    def _deliver(self, batch: Batch) -> None:
        self.delivered += [(batch.flows[i], bytes(batch.packet(i))) for i in range(len(batch))]

    def _drain(self) -> None:
        self.drained += 1


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch,
    port: Any,
    pin: Pin,
    *,
    raw: bool = False,
    token: Secret[bytes] = TOKEN,
    ready: bool = True,
    channel: int | None = CHANNEL,
    padded: bool = False,
    largest_payload: int | None = None,
) -> AsyncIterator[Bench]:
    bench = Bench(port, pin, raw=raw, token=token, channel=channel, padded=padded)
    bench.path.largest_payload = largest_payload

    @asynccontextmanager
    async def straight(
        _settings: object, _on_stage: object, _received: object
    ) -> AsyncIterator[StraightPath]:
        try:
            yield bench.path
        finally:
            bench.path.released = True

    monkeypatch.setattr(module, "relayed_path", straight)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run)
        if ready:
            with anyio.fail_after(SOON):
                await bench.ready.wait()
        yield bench
        tasks.cancel_scope.cancel()
    assert bench.path.released


async def test_a_lane_comes_up_carries_packets_both_ways_and_ends_its_session(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port:
        async with running(monkeypatch, port, server_pin) as bench:
            assert bench.stages == [Stage.DTLS_HANDSHAKE, Stage.SESSION_HELLO]
            assert bench.path.stage is Stage.FORWARDING_LOOP
            bench.send(7, b"one", b"two")
            await bench.until(lambda: bool(port.upstream.sockets))
            (upstream,) = port.upstream.sockets
            await bench.until(lambda: upstream.taken == [b"one", b"two"])
            upstream.say(b"reply")
            await bench.until(lambda: bench.delivered == [(7, b"reply")])
            assert (bench.lane.packets_sent, bench.lane.packets_received) == (2, 1)
        # Cancelled, as with its session: nothing of it is kept.
        assert port.peers.sessions == {}
        assert port.told.lost == [(0, "session_closed")]


async def test_a_lane_whose_path_breaks_leaves_its_session_for_another(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.path.break_down()
        error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.FORWARDING_LOOP, "turn_socket_failed")
        assert port.told.lost == [(0, "lane_closed")]
        assert len(port.peers.sessions) == 1
        bench.send(1, b"nobody carries this")
        assert bench.lane.packets_sent == 0


async def test_packets_that_the_path_does_not_take_or_no_record_holds_are_not_counted_as_sent(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.send(1, bytes(MAX_PAYLOAD), b"")
        assert (bench.lane.packets_sent, bench.lane.unsendable) == (1, 1)
        bench.path.full = True
        bench.send(1, b"x")
        assert bench.lane.packets_sent == 1


async def test_a_ping_finds_the_payload_before_it_counted(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    receive_ping = LaneHealth.receive_ping

    def receive(self: LaneHealth, ping: Any, now: float) -> None:
        counted.append(self.frames_received)
        receive_ping(self, ping, now)

    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.send(1, b"x")
        await bench.until(lambda: bool(port.upstream.sockets))
        await anyio.wait_all_tasks_blocked()
        monkeypatch.setattr(LaneHealth, "receive_ping", receive)
        # Replies and the server's ping are read in one go.
        (server_lane,) = port.peers.lanes.values()
        batch = Batch()
        for number in range(5):
            batch.append(b"%d" % number, 1)
        server_lane.send(batch, 0, 5)
        server_lane.handle_timer(anyio.current_time() + 2)
        await bench.until(lambda: bool(counted))
        assert counted == [5]
        assert [payload for _, payload in bench.delivered] == [b"0", b"1", b"2", b"3", b"4"]


async def test_each_end_of_a_lane_measures_it_when_asked(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.path.backlog = 7
        assert bench.lane.backlog == 7
        (server_lane,) = port.peers.lanes.values()
        await bench.until(lambda: server_lane.ready)
        assert server_lane.backlog == 0
        for end in (bench.lane, server_lane):
            estimate = end.estimate
            assert estimate is not None
            now = anyio.current_time()
            end.probe(now)
            assert estimate.asked_at == now
            await bench.until(lambda told=estimate: told.base is not None)  # type: ignore[misc]
        # The two ends here have one clock.
        assert bench.lane.estimate is not None
        assert bench.lane.estimate.base is not None
        assert 0 <= bench.lane.estimate.base < SOON
    assert bench.lane.backlog == 0


async def test_a_server_that_drains_and_leaves_is_told_as_such(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        now = anyio.current_time()
        port.peers.drain(now + 1, now)
        await bench.until(lambda: bench.drained == 1)
        assert bench.lane.ready, "it is for the server to end"
        port.peers.close(now)
        port.listener.flush()
        error = await bench.end()
        assert isinstance(error, SessionError)
        assert (error.stage, error.code) == (Stage.FORWARDING_LOOP, "peer_left")
        assert "shutdown" in error.message


async def test_an_association_that_ends_without_a_bye_is_told_with_its_stage(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        port.dtls.drop(ADDRESS)
        port.listener.flush()
        error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.FORWARDING_LOOP, "peer_closed")
        assert error.advice


async def test_a_wrong_pin_and_a_wrong_token_end_a_lane_where_they_show(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port:
        wrong = Pin(bytes(32))
        async with running(monkeypatch, port, wrong, ready=False) as bench:
            error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.DTLS_HANDSHAKE, "pin_mismatch")
        assert port.told.refused == [(Stage.DTLS_HANDSHAKE, "peer_alert")]
        async with running(
            monkeypatch, port, server_pin, token=Secret(b"guessed"), ready=False
        ) as bench:
            error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "token_mismatch")


async def test_a_lane_of_a_session_that_the_server_forgot_begins_another(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port:
        async with running(monkeypatch, port, server_pin, ready=False) as bench:
            async with bench.membership.ticket() as ticket:
                bench.membership.established(ticket, Secret(token_bytes(32)))
            error = await bench.end()
        assert error is not None
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "unknown_session")
        assert bench.membership.session_id != ticket.session_id
        async with bench.membership.ticket() as fresh:
            assert fresh.secret is None


async def test_a_raw_lane_carries_datagrams_as_they_are_to_whoever_spoke_last(
    open_legacy_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_legacy_port() as port:
        async with running(monkeypatch, port, server_pin, raw=True) as bench:
            assert bench.stages == [Stage.DTLS_HANDSHAKE]
            bench.send(4, b"from four", b"")
            bench.send(5, b"from five")
            await bench.until(lambda: bool(port.upstream.sockets))
            (upstream,) = port.upstream.sockets
            await bench.until(lambda: upstream.taken == [b"from four", b"from five"])
            assert (bench.lane.packets_sent, bench.lane.unsendable) == (2, 1)
            upstream.say(b"reply")
            await bench.until(lambda: bench.delivered == [(5, b"reply")])
        await anyio.wait_all_tasks_blocked()
        assert port.peers.peers == {}


async def test_a_server_may_leave_one_lane_and_say_why(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        (server_lane,) = port.peers.lanes.values()
        server_lane.close(ByeCode.LANE_DEAD, anyio.current_time())
        error = await bench.end()
        assert error is not None
        assert "lane_dead" in error.message


async def test_a_lane_that_has_ended_takes_nothing_before_its_owner_knows(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop calls `_on_readable` by itself: who runs the lane hears of it a turn later."""
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        port.dtls.drop(ADDRESS)
        port.listener.flush()
        with pytest.raises(TransportError) as caught:
            bench.lane._on_readable()
        assert not bench.lane.ready
        bench.send(1, b"too late")
        assert bench.lane.packets_sent == 0
        bench.path.timer = 0.0
        bench.path.interrupt(caught.value)
        assert await bench.end() is caught.value


async def test_the_first_packet_after_a_pause_hurries_the_ping_that_follows_it(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        await anyio.wait_all_tasks_blocked()
        nap = bench.lane._nap
        assert nap is not None
        idle = nap.deadline
        bench.send(1, b"x")
        hurried = nap.deadline
        assert anyio.current_time() < hurried < idle
        bench.send(1, b"y")
        assert nap.deadline == hurried


@pytest.mark.parametrize("padded", [False, True])
async def test_bursts_leave_as_batches_and_arrive_as_batches(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch, padded: bool
) -> None:
    packets = [bytes([number]) * (number * 37 % 1300) for number in range(1, 61)]
    async with (
        open_port() as port,
        running(monkeypatch, port, server_pin, padded=padded) as bench,
    ):
        await anyio.wait_all_tasks_blocked()
        bench.path.bursts.clear()
        bench.send(7, *packets)
        assert bench.path.bursts == [60]
        await bench.until(lambda: bool(port.upstream.sockets))
        (upstream,) = port.upstream.sockets
        await bench.until(lambda: upstream.taken == packets)
        (server_lane,) = port.peers.lanes.values()
        batch = Batch(capacity=100)
        for packet in packets:
            batch.append(packet, 7)
        server_lane.send(batch, 0, 60)
        await bench.until(lambda: bool(bench.delivered))
        assert bench.delivered == [(7, packet) for packet in packets]
        assert (bench.lane.packets_sent, bench.lane.packets_received) == (60, 60)


async def test_a_lane_goes_over_to_its_channel_and_to_another_one_as_they_are_bound(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_port() as port,
        running(monkeypatch, port, server_pin, channel=None) as bench,
    ):
        expected: list[tuple[int, bytes]] = []
        for number, channel in enumerate((None, CHANNEL, CHANNEL + 1, None, CHANNEL)):
            # Whatever binds it is an answer of the relay, after which the lane looks.
            bench.path.channel = channel
            bench.lane._handle_timers(anyio.current_time())
            bench.path.bursts.clear()
            bench.send(3, b"up %d" % number, b"and %d" % number)
            assert bench.path.bursts == ([2] if channel is not None else [])
            await anyio.wait_all_tasks_blocked()
            (upstream,) = port.upstream.sockets
            assert upstream.taken[-2:] == [b"up %d" % number, b"and %d" % number]
            upstream.say(b"down %d" % number)
            expected.append((3, b"down %d" % number))
            await bench.until(lambda: bench.delivered == expected)
        assert bench.lane.packets_sent == 10


async def test_what_comes_over_a_channel_that_is_not_ours_or_is_no_record_harms_nothing(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        bench.send(1, b"x")
        await bench.until(lambda: bool(port.upstream.sockets))
        (server_lane,) = port.peers.lanes.values()
        received = bench.workspace.received
        batch = Batch()
        for number in range(4):
            batch.append(b"%d" % number, 1)
        server_lane.send(batch, 0, 4)
        records = port.wires.take(ADDRESS)
        forged = bytearray(records[1])
        forged[-1] ^= 1
        received.clear()
        for message in (
            encode(CHANNEL, records[0], padded=False),
            encode(CHANNEL + 1, records[1], padded=False),
            b"",
            b"\x40",
            encode(CHANNEL, b"", padded=False),
            encode(CHANNEL, records[0], padded=False),
            encode(CHANNEL, bytes(forged), padded=False),
            encode(CHANNEL, records[2], padded=False)[:-1],
            encode(CHANNEL, b"\x17" + bytes(12), padded=False),
            encode(CHANNEL, records[3], padded=False),
        ):
            received.append(message)
        monkeypatch.setattr(bench.path, "receive", lambda *_: [])
        bench.lane._take_messages(bench.path, received, received.count)  # type: ignore[arg-type]
        assert bench.delivered == [(1, b"0"), (1, b"3")]


async def test_a_relay_that_pads_where_it_need_not_is_understood(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over UDP padding is optional, and ignored by who receives it (RFC 8656, section 12.5)."""
    async with open_port() as port, running(monkeypatch, port, server_pin) as bench:
        await anyio.wait_all_tasks_blocked()
        (server_lane,) = port.peers.lanes.values()
        batch = Batch()
        for number in range(4):
            batch.append(b"x" * number, 1)
        server_lane.send(batch, 0, 4)
        received = bench.workspace.received
        received.clear()
        for record in port.wires.take(ADDRESS):
            received.append(encode(CHANNEL, record, padded=True))
        bench.lane._take_messages(bench.path, received, received.count)  # type: ignore[arg-type]
        assert bench.delivered == [(1, b"x" * number) for number in range(4)]


async def test_a_lane_is_ready_when_both_ends_know_what_the_path_bears(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_port() as port:
        port.wires.largest = ETHERNET - 100
        async with running(monkeypatch, port, server_pin, largest_payload=ETHERNET) as bench:
            (lane,) = port.peers.lanes.values()
            assert bench.lane.max_datagram == lane.max_datagram == ETHERNET - 100 - 37 - 4
            assert bench.limits == [], "nobody was told another before"


async def test_what_fits_the_path_passes_and_what_is_larger_is_refused_counted_and_told(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_port() as port,
        running(monkeypatch, port, server_pin, largest_payload=ETHERNET) as bench,
    ):
        fits = bench.lane.max_datagram
        assert fits == ETHERNET - 4 - 37 - 4
        bench.send(1, bytes(fits), bytes(fits + 1), bytes(fits + 2))
        assert (bench.lane.packets_sent, bench.lane.too_large) == (1, 2)
        assert bench.too_large == [fits + 2]
        await bench.until(lambda: bool(port.upstream.sockets))
        (upstream,) = port.upstream.sockets
        await bench.until(lambda: upstream.taken == [bytes(fits)])

        upstream.say(bytes(fits + 1))
        await bench.until(lambda: bool(port.told.too_large))
        upstream.say(bytes(fits + 1))
        upstream.say(bytes(fits))
        await bench.until(lambda: bench.delivered == [(1, bytes(fits))])
        assert port.told.too_large == [(0, fits + 1, fits, 1)], "once a minute at most"
        assert port.peers.too_large == 2


async def test_a_path_that_becomes_narrower_is_heard_of_from_the_system(
    open_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_port() as port,
        running(monkeypatch, port, server_pin, largest_payload=ETHERNET) as bench,
    ):
        fits = bench.lane.max_datagram
        bench.path.largest_payload = ETHERNET - 200
        bench.send(1, bytes(fits))
        assert bench.lane.max_datagram == fits - 200
        assert (bench.limits, bench.too_large, bench.lane.too_large) == ([fits - 200], [fits], 1)
        (lane,) = port.peers.lanes.values()
        await bench.until(lambda: lane.max_datagram == fits - 200)
        bench.send(1, bytes(fits - 200))
        assert bench.lane.packets_sent == 1

        port.wires.largest = ETHERNET - 300
        lane.send(batch_of(bytes(fits - 200)), 0, 1)
        await bench.until(lambda: bench.lane.max_datagram == ETHERNET - 300 - 37 - 4)
        assert lane.too_large == 1


async def test_a_lane_that_speaks_raw_datagrams_goes_by_the_system_alone(
    open_legacy_port: Any, server_pin: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_legacy_port() as port,
        running(monkeypatch, port, server_pin, raw=True, largest_payload=ETHERNET) as bench,
    ):
        fits = ETHERNET - 4 - 37
        assert bench.lane.max_datagram == fits
        bench.send(1, bytes(fits + 1), bytes(fits))
        assert (bench.lane.packets_sent, bench.lane.too_large) == (1, 1)
