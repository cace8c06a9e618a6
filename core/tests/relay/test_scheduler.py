"""Which lane carries what: flows stay together, new ones go where few are, dead lanes get none."""

from math import inf

from turnlane.api import Batch
from turnlane.proto.lane_estimate import LaneEstimate
from turnlane.relay import scheduler
from turnlane.relay.scheduler import FlowSticky, RoundRobin, dispatch


class RecordingLane:
    def __init__(self) -> None:
        self.ready = True
        self.estimate: LaneEstimate | None = None
        self.backlog = 0
        self.probes: list[float] = []
        self.carried: list[tuple[int, bytes]] = []

    def probe(self, now: float) -> None:
        self.probes.append(now)
        if self.estimate is not None:
            self.estimate.asked_at = now
            self.estimate.frames_at_asking = self.estimate.frames

    def send(self, batch: Batch, start: int, stop: int) -> None:
        for index in range(start, stop):
            self.carried.append((batch.flows[index], bytes(batch.packet(index))))


def batch_of(*flows: int) -> Batch:
    batch = Batch()
    for number, flow in enumerate(flows):
        batch.append(b"%d" % number, flow)
    return batch


def test_a_flow_stays_on_its_lane_and_flows_spread_over_lanes() -> None:
    lanes = [RecordingLane(), RecordingLane()]
    sticky = FlowSticky(lanes)
    for _ in range(3):
        assert dispatch(sticky, batch_of(1, 2, 3, 4, 1, 1), 0.0) == 0
    flows_by_lane = [{flow for flow, _ in lane.carried} for lane in lanes]
    assert flows_by_lane[0].isdisjoint(flows_by_lane[1])
    assert sorted(map(len, flows_by_lane)) == [2, 2]


def test_packets_of_a_flow_keep_their_order() -> None:
    lane = RecordingLane()
    dispatch(FlowSticky([lane]), batch_of(7, 7, 8, 7), 0.0)
    assert [packet for flow, packet in lane.carried if flow == 7] == [b"0", b"1", b"3"]


def test_a_flow_moves_when_its_lane_dies_and_does_not_come_back_by_itself() -> None:
    first, second = RecordingLane(), RecordingLane()
    sticky = FlowSticky([first, second])
    dispatch(sticky, batch_of(1), 0.0)
    first.ready = False
    dispatch(sticky, batch_of(1), 0.0)
    first.ready = True
    dispatch(sticky, batch_of(1), 0.0)
    assert len(first.carried) == 1
    assert len(second.carried) == 2


def test_flows_that_left_a_lane_no_longer_count_as_its_load() -> None:
    first, second = RecordingLane(), RecordingLane()
    sticky = FlowSticky([first, second])
    second.ready = False
    dispatch(sticky, batch_of(1, 2, 3), 0.0)
    first.ready, second.ready = False, True
    dispatch(sticky, batch_of(1, 2, 3), 0.0)
    first.ready = True
    dispatch(sticky, batch_of(4), 1.0)
    assert (4, b"0") in first.carried


def test_no_ready_lane_means_unsent_packets_are_counted() -> None:
    lane = RecordingLane()
    lane.ready = False
    assert dispatch(FlowSticky([lane]), batch_of(1, 1, 2), 0.0) == 3
    assert dispatch(RoundRobin([lane]), batch_of(1, 1, 2), 0.0) == 3
    assert lane.carried == []


def test_round_robin_gives_each_packet_to_the_next_ready_lane() -> None:
    lanes = [RecordingLane(), RecordingLane(), RecordingLane()]
    lanes[1].ready = False
    dispatch(RoundRobin(lanes), batch_of(1, 1, 1, 1), 0.0)
    assert [len(lane.carried) for lane in lanes] == [2, 0, 2]


def test_the_memory_of_flows_is_bounded() -> None:
    lanes = [RecordingLane(), RecordingLane()]
    sticky = FlowSticky(lanes)
    for flow in range(scheduler.MAX_FLOWS + 10):
        lane, stop = sticky.choose(batch_of(flow), 0, 0.0)
        assert (lane in lanes, stop) == (True, 1)
    assert len(sticky._assigned) == scheduler.MAX_FLOWS
    assert sum(path.flows for path in sticky._usable) == scheduler.MAX_FLOWS


def test_a_lane_alone_takes_whole_batches_and_no_flow_is_remembered() -> None:
    first, second = RecordingLane(), RecordingLane()
    second.ready = False
    sticky = FlowSticky([first, second])
    assert sticky.choose(batch_of(1, 2, 3), 0, 0.0) == (first, 3)
    assert not sticky._assigned
    first.ready, second.ready = False, True
    assert dispatch(sticky, batch_of(1, 2, 3), 1.0) == 0
    assert len(second.carried) == 3


# What is measured.


def measured(*delays: float, rate: float = inf) -> list[RecordingLane]:
    """Return lanes whose empty delay is known."""
    lanes = []
    for delay in delays:
        lane = RecordingLane()
        lane.estimate = LaneEstimate()
        lane.estimate.base = delay
        lane.estimate.round_trip = 2 * delay
        lane.estimate.rate = rate
        lanes.append(lane)
    return lanes


def run_of(packets: int, flow: int = 1, size: int = 1000) -> Batch:
    batch = Batch()
    for _ in range(packets):
        batch.append(bytes(size), flow)
    return batch


def test_new_flows_go_where_delivery_is_soonest_and_share_what_is_about_as_good() -> None:
    far, near, nearly = lanes = measured(0.08, 0.02, 0.021)
    dispatch(FlowSticky(lanes), batch_of(1, 2, 3, 4), 0.0)
    assert [len(lane.carried) for lane in (far, near, nearly)] == [0, 2, 2]


def test_a_flow_begins_on_the_lane_that_is_preferred_unless_it_is_clearly_worse() -> None:
    lanes = measured(0.02, 0.02, 0.08)
    for preferred, used in ((1, 1), (2, 0)):
        sticky = FlowSticky(lanes, lambda _, lane=lanes[preferred]: lane)  # type: ignore[misc]
        assert sticky.choose(batch_of(7), 0, 0.0)[0] is lanes[used]


def test_a_flow_leaves_a_lane_that_has_become_clearly_worse_and_no_other() -> None:
    lanes = measured(0.02, 0.02)
    first, second = lanes
    sticky = FlowSticky(lanes)
    dispatch(sticky, batch_of(1), 0.0)
    first.estimate.base = 0.022  # type: ignore[union-attr]
    dispatch(sticky, batch_of(1), 1.0)
    assert (len(first.carried), len(second.carried)) == (2, 0)
    first.estimate.base = 0.05  # type: ignore[union-attr]
    dispatch(sticky, batch_of(1), 2.0)
    assert (len(first.carried), len(second.carried)) == (2, 1)


def test_loss_makes_a_lane_worse() -> None:
    lossy, clean = lanes = measured(0.02, 0.02)
    assert lossy.estimate is not None
    lossy.estimate.loss = 0.05
    dispatch(FlowSticky(lanes), batch_of(1, 2, 3), 0.0)
    assert (len(lossy.carried), len(clean.carried)) == (0, 3)


def test_a_run_of_one_flow_is_cut_where_another_lane_is_sooner_and_none_is_overtaken_far() -> None:
    rate = 1e6
    lanes = measured(0.02, 0.02, rate=rate)
    sticky = FlowSticky(lanes)
    batch = run_of(60)
    chunks, start = [], 0
    due = [0.0, 0.0]
    while start < len(batch):
        lane, stop = sticky.choose(batch, start, 0.0)
        index = lanes.index(lane)  # type: ignore[arg-type]
        due[index] += (stop - start) * 1000 / rate
        assert due[index] >= max(due) - 0.02 / 4 - 0.001, "in order, but for the slack"
        chunks.append((index, stop - start))
        start = stop
    assert {index for index, _ in chunks} == {0, 1}
    assert max(size for _, size in chunks) > 3, "chunks, not packets"
    assert abs(due[0] - due[1]) <= 0.0101


def test_a_lane_without_a_rate_takes_a_run_whole() -> None:
    lanes = measured(0.02, 0.02)
    assert FlowSticky(lanes).choose(run_of(64), 0, 0.0) == (lanes[0], 64)


def test_what_waits_in_a_lanes_own_connection_steers_new_chunks_away() -> None:
    for rate in (inf, 1e6):
        lanes = measured(0.02, 0.02, rate=rate)
        sticky = FlowSticky(lanes)
        dispatch(sticky, batch_of(1), 0.0)
        lanes[0].backlog = 100_000
        dispatch(sticky, batch_of(1, 1), 0.5)
        assert [len(lane.carried) for lane in lanes] == [1, 2]


def test_a_silent_lane_gets_nothing_while_another_answers() -> None:
    silent, heard = lanes = measured(0.02, 0.02)
    assert silent.estimate is not None
    assert heard.estimate is not None
    silent.estimate.asked(0.0)
    sticky = FlowSticky(lanes)
    dispatch(sticky, batch_of(1, 2), 5.0)
    assert (len(silent.carried), len(heard.carried)) == (0, 2)
    heard.estimate.asked(5.0)
    dispatch(sticky, batch_of(3), 10.0)
    assert len(silent.carried) + len(heard.carried) == 3, "when none answers, all are tried"


def test_a_lane_is_measured_often_while_it_is_busy_and_seldom_otherwise() -> None:
    def times(packets: int, every: float) -> int:
        lanes = measured(0.02, 0.02)
        sticky = FlowSticky(lanes)
        for step in range(round(10 / every)):
            dispatch(sticky, run_of(packets), 100 + step * every)
        idle = lanes[1]
        assert 9 <= len(idle.probes) <= 11
        return len(lanes[0].probes)

    assert 150 <= times(20, 0.01) <= 200
    assert 9 <= times(1, 0.1) <= 11


def test_the_only_lane_is_not_measured() -> None:
    (lane,) = measured(0.02)
    sticky = FlowSticky([lane])
    for step in range(100):
        dispatch(sticky, run_of(20), step / 10)
    assert lane.probes == []
    assert len(lane.carried) == 2000


def test_a_lane_that_was_made_anew_is_another_lane() -> None:
    lanes = measured(0.02, 0.02)
    first, second = lanes
    sticky = FlowSticky(lanes)
    dispatch(sticky, batch_of(1), 0.0)
    first.estimate = LaneEstimate()
    first.estimate.base = 0.08
    dispatch(sticky, batch_of(1), 1.0)
    assert (len(first.carried), len(second.carried)) == (1, 1)
