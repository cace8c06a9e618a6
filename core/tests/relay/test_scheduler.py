"""Which lane carries what: flows stay together, new ones go where few are, dead lanes get none."""

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
    lane = RecordingLane()
    sticky = FlowSticky([lane])
    for flow in range(scheduler.MAX_FLOWS + 10):
        assert sticky.choose(batch_of(flow), 0, 0.0) == (lane, 1)
    assert len(sticky._assigned) == scheduler.MAX_FLOWS
    assert sticky._usable[0].flows == scheduler.MAX_FLOWS
