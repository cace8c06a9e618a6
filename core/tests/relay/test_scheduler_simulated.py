"""The scheduler over simulated lanes, on a virtual clock: what TCP flows reach through it.

Lanes have a delay, a rate, a queue and loss. Their pings and pongs travel through them as payload
does, so that the scheduler knows only what it measures. The flows are TCP as Linux does it in
outline: SACK, a tolerance for reordering that begins at three segments and grows when it was too
small, half a window for each round trip with loss, nothing given back for false alarms.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from random import Random

import pytest

from turnlane.api import Batch
from turnlane.proto.frames import Ping, Pong, parse_untrusted
from turnlane.proto.lane_estimate import LaneEstimate
from turnlane.proto.lane_health import CLIENT_HEALTH, SERVER_HEALTH, LaneHealth
from turnlane.relay.scheduler import FlowSticky, RoundRobin, Scheduler, dispatch

SEGMENT = 1200
"""Bytes of a packet."""

MEGABIT = 125_000.0
PEER_CLOCK = 12_345.678
"""How far the other end's clock is ahead."""


@dataclass(frozen=True)
class Link:
    """A lane's path: `rate` in bytes per second, `delay` one way, `queue` in seconds at `rate`."""

    rate: float = 2 * MEGABIT
    delay: float = 0.02
    queue: float = 0.05
    loss: float = 0.0
    jitter: float = 0.0
    local_backlog: bool = False


class Clock:
    """Virtual time: `run` does what was put off, in order."""

    def __init__(self, seed: int) -> None:
        self.now = 1000.0
        self.random = Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), do))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, do = heapq.heappop(self._due)
            do()
        self.now = end


class SimulatedLane:
    """A `Carrier` over a `Link`; both ends of its session protocol measure it."""

    def __init__(
        self, link: Link, clock: Clock, deliver: Callable[[int, int], None], *, dated: bool
    ) -> None:
        self.link = link
        self.ready = True
        self.broken = False
        self.carried = 0
        self.lost = 0
        self._clock = clock
        self._deliver = deliver
        self._dated = dated
        self._free_at = clock.now
        self._arrived_at = 0.0
        self.near = LaneHealth(CLIENT_HEALTH, clock.now, ping_at_once=True)
        self.far = LaneHealth(SERVER_HEALTH, clock.now, ping_at_once=False)
        clock.after(clock.random.uniform(0, 0.1), self._tick)

    @property
    def estimate(self) -> LaneEstimate:
        return self.near.estimate

    @property
    def backlog(self) -> int:
        waits = max(0.0, self._free_at - self._clock.now)
        return int(waits * self.link.rate) if self.link.local_backlog else 0

    def probe(self, now: float) -> None:
        self.near.probe(now)
        self._flush()

    def send(self, batch: Batch, start: int, stop: int) -> None:
        self.near.note_sent(stop - start, self._clock.now)
        for index in range(start, stop):
            flow = batch.flows[index]
            number = int.from_bytes(batch.packet(index)[:8])
            self._enter(batch.sizes[index], lambda f=flow, n=number: self._payload(f, n))  # type: ignore[misc]
        self.carried += stop - start

    def _tick(self) -> None:
        self.near.handle_timer(self._clock.now)
        self._flush()
        self._clock.after(0.1, self._tick)

    def _flush(self) -> None:
        for record in self.near.records_to_send():
            frame = parse_untrusted(record)
            assert isinstance(frame, Ping)
            self._enter(len(record) + 60, lambda ping=frame: self._pinged(ping))  # type: ignore[misc]

    def _enter(self, size: int, arrive: Callable[[], None]) -> None:
        clock, link = self._clock, self.link
        begins = max(clock.now, self._free_at)
        if begins - clock.now > link.queue or self.broken or clock.random.random() < link.loss:
            self.lost += 1
            return
        self._free_at = begins + size / link.rate
        jitter = clock.random.uniform(0, link.jitter)
        # One socket reads it all: what is late holds up what is behind it.
        self._arrived_at = max(self._arrived_at, self._free_at + link.delay + jitter)
        clock.after(self._arrived_at - clock.now, arrive)

    def _payload(self, flow: int, number: int) -> None:
        self.far.note_received(1, self._clock.now + PEER_CLOCK)
        self._deliver(flow, number)

    def _pinged(self, ping: Ping) -> None:
        self.far.receive_ping(ping, self._clock.now + PEER_CLOCK)
        for record in self.far.records_to_send():
            pong = parse_untrusted(record)
            assert isinstance(pong, Pong)
            if not self._dated:
                pong = Pong(pong.sequence, pong.frames_received)
            self._clock.after(self.link.delay, lambda pong=pong: self._ponged(pong))  # type: ignore[misc]

    def _ponged(self, pong: Pong) -> None:
        if not self.broken:
            self.near.receive_pong(pong, self._clock.now)


class TcpFlow:
    """A sender that always has something to send, and its receiver; acks take `ack_delay`.

    Every transmission has a number of its own; a segment is lost when one that was sent
    `tolerance` transmissions later has arrived before it.
    """

    def __init__(
        self,
        number: int,
        clock: Clock,
        send: Callable[[int, Sequence[tuple[int, int]]], None],
        ack_delay: float,
    ) -> None:
        self.next_expected = 0
        self.out_of_order = 0
        self.alarms = 0
        self._number = number
        self._clock = clock
        self._send = send
        self._ack_delay = ack_delay
        self._received: set[int] = set()
        self._newest = -1
        self._window = 10.0
        self._threshold = 1e9
        self._next = 0
        self._acked = 0
        self._under_way: dict[int, int] = {}
        self._lost: set[int] = set()
        self._transmissions = 0
        self._newest_arrived = -1
        self._recover = -1
        self._tolerance = 3
        self._heard_at = clock.now
        clock.after(0.0, self._fill)
        clock.after(0.5, self._watch)

    def arrive(self, segment: int, transmission: int) -> None:
        """Take a segment at the receiver; its acknowledgement is on the way."""
        self.out_of_order += transmission < self._newest
        self._newest = max(self._newest, transmission)
        if segment >= self.next_expected:
            self._received.add(segment)
        while self.next_expected in self._received:
            self._received.discard(self.next_expected)
            self.next_expected += 1
        cumulative = self.next_expected
        self._clock.after(self._ack_delay, lambda: self._ack(cumulative, segment, transmission))

    def _ack(self, cumulative: int, segment: int, transmission: int) -> None:
        self._heard_at = self._clock.now
        if transmission < self._newest_arrived:
            late = self._newest_arrived - transmission + 1
            self._tolerance = min(300, max(self._tolerance, late))
        self._newest_arrived = max(self._newest_arrived, transmission)
        self._under_way.pop(segment, None)
        self._lost.discard(segment)
        new = cumulative - self._acked
        for number in range(self._acked, cumulative):
            self._under_way.pop(number, None)
            self._lost.discard(number)
        self._acked = max(self._acked, cumulative)
        given_up = self._newest_arrived - self._tolerance
        for number in [one for one, sent in self._under_way.items() if sent <= given_up]:
            del self._under_way[number]
            self._lost.add(number)
            if number > self._recover:
                self.alarms += 1
                self._recover = self._next
                self._window = self._threshold = max(2.0, self._window / 2)
        if new > 0 and self._acked > self._recover:
            self._window += new if self._window < self._threshold else new / self._window
        self._fill()

    def _fill(self) -> None:
        room = int(self._window) - len(self._under_way)
        again = sorted(self._lost)[: max(0, room)]
        self._lost.difference_update(again)
        fresh = max(0, room - len(again))
        segments = [*again, *range(self._next, self._next + fresh)]
        self._next += fresh
        sent = list(zip(segments, count(self._transmissions)))
        self._transmissions += len(sent)
        self._under_way.update(sent)
        if sent:
            self._send(self._number, sent)

    def _watch(self) -> None:
        if self._clock.now - self._heard_at > 0.5 and (self._under_way or self._lost):
            self._threshold = max(2.0, self._window / 2)
            self._window = 2.0
            self._recover = self._next
            self._lost |= self._under_way.keys()
            self._under_way.clear()
            self._heard_at = self._clock.now
            self._fill()
        self._clock.after(0.25, self._watch)


class Run:
    """Flows over lanes, after they have been let run."""

    def __init__(
        self,
        links: Sequence[Link],
        *,
        flows: int,
        make: Callable[[list[SimulatedLane]], Scheduler] = FlowSticky,
        seed: int = 1,
        dated: bool = True,
    ) -> None:
        self.clock = Clock(seed)
        self.lanes = [SimulatedLane(link, self.clock, self._deliver, dated=dated) for link in links]
        self.scheduler = make(self.lanes)
        self.clock.run(0.5)
        least = min(link.delay for link in links)
        self.flows = [TcpFlow(number, self.clock, self._send, least) for number in range(flows)]
        self._batch = Batch()
        self._segment = bytearray(SEGMENT)

    def goodput(self, *, warm_up: float = 3.0, seconds: float = 5.0) -> float:
        """Return bytes per second that all flows had delivered in order."""
        self.clock.run(warm_up)
        before = [flow.next_expected for flow in self.flows]
        self.clock.run(seconds)
        self.shares = [
            (flow.next_expected - start) * SEGMENT / seconds
            for flow, start in zip(self.flows, before, strict=True)
        ]
        return sum(self.shares)

    def _send(self, flow: int, sent: Sequence[tuple[int, int]]) -> None:
        for segment, transmission in sent:
            self._segment[:8] = segment.to_bytes(4) + transmission.to_bytes(4)
            if not self._batch.append(self._segment, flow):
                self._dispatch()
                self._batch.append(self._segment, flow)
        self._dispatch()

    def _dispatch(self) -> None:
        dispatch(self.scheduler, self._batch, self.clock.now)
        self._batch.clear()

    def _deliver(self, flow: int, number: int) -> None:
        self.flows[flow].arrive(*divmod(number, 2**32))


@cache
def alone(link: Link, *, flows: int = 1) -> float:
    """Return the goodput over that lane, if it is the only one."""
    return Run([link], flows=flows).goodput()


def fairness(shares: Sequence[float]) -> float:
    """Return Jain's index: 1 when all are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


SLOW = Link(rate=2 * MEGABIT)
FAST = Link(rate=8 * MEGABIT)
seeds = pytest.mark.parametrize("seed", [1, 2, 3])


@seeds
@pytest.mark.parametrize("delays", [(0.01, 0.06), (0.06, 0.01), (0.08, 0.04, 0.02, 0.01)])
def test_one_flow_over_lanes_of_unequal_delay_keeps_what_the_best_lane_gives(
    delays: Sequence[float], seed: int
) -> None:
    links = [Link(rate=4 * MEGABIT, delay=delay) for delay in delays]
    best = alone(Link(rate=4 * MEGABIT, delay=min(delays)))
    assert Run(links, flows=1, seed=seed).goodput() >= 0.9 * best


@seeds
def test_packets_in_turn_over_lanes_of_unequal_delay_ruin_a_flow(seed: int) -> None:
    """The simulated TCP suffers from reordering, or the other tests would say nothing."""
    links = [Link(rate=8 * MEGABIT, delay=0.01), Link(rate=8 * MEGABIT, delay=0.06)]
    best = alone(links[0])
    assert Run(links, flows=1, seed=seed, make=RoundRobin).goodput() < 0.7 * best


@seeds
def test_sixteen_flows_over_four_equal_lanes_fill_them_and_share_fairly(seed: int) -> None:
    run = Run([SLOW] * 4, flows=16, seed=seed)
    assert run.goodput() >= 0.95 * 4 * alone(SLOW, flows=16)
    assert fairness(run.shares) >= 0.8


@seeds
def test_sixteen_flows_over_a_slow_and_a_fast_lane_fill_both_and_share_fairly(seed: int) -> None:
    run = Run([SLOW, FAST], flows=16, seed=seed)
    assert run.goodput() >= 0.95 * (SLOW.rate + FAST.rate)
    assert fairness(run.shares) >= 0.8


@seeds
@pytest.mark.parametrize("jitter", [0.0, 0.004])
def test_one_flow_over_four_equal_lanes_exceeds_one_lane(seed: int, jitter: float) -> None:
    links = [Link(jitter=jitter)] * 4
    assert Run(links, flows=1, seed=seed).goodput() >= 2.5 * alone(links[0])


@seeds
def test_one_flow_loses_little_by_a_slow_lane_beside_a_fast_one(seed: int) -> None:
    assert Run([SLOW, FAST], flows=1, seed=seed).goodput() >= 0.9 * alone(FAST)


@seeds
def test_a_peer_that_tells_no_time_is_measured_by_round_trips(seed: int) -> None:
    links = [Link(rate=4 * MEGABIT, delay=0.01), Link(rate=4 * MEGABIT, delay=0.06)]
    assert Run(links, flows=1, seed=seed, dated=False).goodput() >= 0.9 * alone(links[0])
    assert Run([SLOW] * 4, flows=1, seed=seed, dated=False).goodput() >= 1.5 * alone(SLOW)


@seeds
def test_queues_that_are_deep_are_filled_evenly(seed: int) -> None:
    links = [Link(queue=0.5)] * 4
    run = Run(links, flows=1, seed=seed)
    assert run.goodput() >= 3 * alone(links[0])
    waits = [lane.estimate.busy_until - run.clock.now for lane in run.lanes]
    assert max(waits) - min(waits) < 0.05
    assert sum(flow.alarms for flow in run.flows) <= 3


@seeds
def test_a_lossy_lane_is_left_alone_while_another_has_room(seed: int) -> None:
    lossy, clean = Link(rate=FAST.rate, loss=0.05), Link(rate=FAST.rate)
    assert Run([lossy, clean], flows=1, seed=seed).goodput() >= 0.8 * alone(clean)
    assert alone(lossy) < 0.5 * alone(clean)


@seeds
def test_flows_leave_a_lane_that_breaks_and_come_back_to_it(seed: int) -> None:
    run = Run([SLOW] * 2, flows=8, seed=seed)
    broken, sound = run.lanes
    run.clock.run(3.0)
    broken.broken = True
    run.clock.run(1.5)
    carried = broken.carried
    assert run.goodput(warm_up=0.5, seconds=2.0) >= 0.9 * SLOW.rate
    assert broken.carried == carried
    broken.broken = False
    assert run.goodput(warm_up=2.0, seconds=4.0) >= 0.9 * 2 * SLOW.rate
    assert sound.carried > broken.carried > carried


@seeds
def test_a_lane_whose_rate_changes_is_learnt_anew(seed: int) -> None:
    run = Run([FAST, FAST], flows=8, seed=seed)
    assert run.goodput() >= 0.9 * 2 * FAST.rate
    run.lanes[0].link = SLOW
    assert run.goodput() >= 0.9 * (SLOW.rate + FAST.rate)
    run.lanes[0].link = FAST
    assert run.goodput() >= 0.9 * 2 * FAST.rate


@seeds
def test_the_backlog_of_a_connection_steers_flows_away(seed: int) -> None:
    """TCP to the relay: nothing is lost, a lane's queue is here and deep."""
    links = [Link(rate=rate * MEGABIT, queue=2.0, local_backlog=True) for rate in (1, 4)]
    run = Run(links, flows=4, seed=seed)
    assert run.goodput() >= 0.9 * 5 * MEGABIT
    waits = [lane.backlog / lane.link.rate for lane in run.lanes]
    assert max(waits) - min(waits) < 0.15


@pytest.mark.parametrize("seed", range(6))
def test_lanes_of_any_kind_are_no_worse_than_the_best_and_together_nearly_their_sum(
    seed: int,
) -> None:
    random = Random(seed)
    links = [
        Link(
            rate=random.uniform(1, 6) * MEGABIT,
            delay=random.uniform(0.005, 0.06),
            queue=random.uniform(0.04, 0.2),
            jitter=random.uniform(0, 0.003),
        )
        for _ in range(random.randint(2, 5))
    ]
    best = max(alone(link) for link in links)
    assert Run(links, flows=1, seed=seed).goodput() >= 0.8 * best
    assert Run(links, flows=16, seed=seed).goodput() >= 0.85 * sum(link.rate for link in links)
