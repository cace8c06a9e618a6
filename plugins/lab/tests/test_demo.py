"""The demo and its report: what is counted, and what it says when something is wrong."""

import io
import json
from importlib.util import find_spec

import pytest

import turnlane_lab.demo
from turnlane.api import RelayTransport, SessionError, Stage, TurnlaneError
from turnlane.proto.stun import Method
from turnlane.runtime.host import ClientHandle
from turnlane_lab.demo import PAYLOAD, Demo, DemoPlan
from turnlane_lab.report import DemoReport, RoundTrip

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        find_spec("turnlane_adapters") is None or find_spec("turnlane_generic_turn") is None,
        reason="the demo needs the plugins generic-turn and adapters",
    ),
]

STAGES = [
    ("server", "policy_validate"),
    ("server", "server_init"),
    ("server", "listen"),
    ("client", "policy_validate"),
    ("client", "provider_resolve"),
    ("client", "local_bind"),
    ("client", "turn_dial"),
    ("client", "turn_allocate"),
    ("client", "peer_setup"),
    ("client", "dtls_handshake"),
    ("client", "session_hello"),
    ("client", "forwarding_loop"),
    ("client", "shutdown"),
    ("server", "shutdown"),
]


def stages(report: DemoReport):
    return [(each.runtime, str(each.stage)) for each in report.stages]


async def failed(demo: Demo) -> tuple[TurnlaneError, DemoReport]:
    with pytest.raises(TurnlaneError) as raised:
        await demo.run()
    report = demo.report()
    assert report.result == "failed"
    assert report.failure is not None
    assert (report.failure.stage, report.failure.code) == (raised.value.stage, raised.value.code)
    return raised.value, report


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_every_datagram_is_counted_where_it_left_where_it_was_echoed_and_where_it_returned(
    transport,
):
    demo = Demo(DemoPlan(connections=2, count=31, transport=transport))
    await demo.run()
    report = demo.report()
    assert (report.result, report.failure) == ("ok", None)
    counted = report.datagrams
    assert counted.sent == counted.echoed == counted.returned == 31
    assert demo.stand.echo.counters["received"] == 31
    assert demo.stand.relay.counters["bytes_up"] > 31 * PAYLOAD
    assert (counted.unexpected, counted.peers, counted.sources) == (0, 2, 2)
    assert [lane.lane for lane in report.lanes] == [0, 1]
    assert len({lane.relayed for lane in report.lanes}) == 2
    assert report.round_trip is not None
    assert 0 < report.round_trip.p50_ms <= report.round_trip.p99_ms < report.seconds * 1000
    assert demo.stand.relay.counters["allocations_made"] == 2
    assert report.allocations_left == 0


async def test_every_stage_is_timed_once_in_its_order():
    demo = Demo(DemoPlan(connections=3, count=3))
    await demo.run()
    report = demo.report()
    assert stages(report) == STAGES
    assert all(each.ms >= 0 for each in report.stages)
    assert sum(each.ms for each in report.stages) <= report.seconds * 1000


async def test_the_document_has_the_fields_that_its_readers_know():
    demo = Demo(DemoPlan(count=2))
    await demo.run()
    document = json.loads(demo.report().json())
    assert list(document) == [
        "result",
        "transport",
        "connections",
        "seconds",
        "stages",
        "lanes",
        "datagrams",
        "round_trip",
        "allocations_left",
        "failure",
    ]
    assert list(document["stages"][0]) == ["runtime", "stage", "ms"]
    assert list(document["lanes"][0]) == ["lane", "relayed"]
    assert list(document["datagrams"]) == [
        "bytes",
        "peers",
        "sent",
        "echoed",
        "returned",
        "unexpected",
        "sources",
    ]
    assert list(document["round_trip"]) == ["p50_ms", "p99_ms"]
    assert document["transport"] == "udp"


async def test_datagrams_that_do_not_come_back_fail_it():
    demo = Demo(DemoPlan(count=20, patience=0.05))
    demo.stand.relay.faults.drop_if = lambda _direction, data: len(data) > PAYLOAD
    error, report = await failed(demo)
    assert (error.stage, error.code) == (Stage.FORWARDING_LOOP, "datagrams_missing")
    assert error.exit_code == 1
    counted = report.datagrams
    # It gives up long before it has sent all of them, and says how many it really sent.
    assert (counted.sent, counted.echoed, counted.returned) == (3, 0, 0)
    assert "20 of 20" in error.message
    assert report.round_trip is None
    assert stages(report) == STAGES


async def test_a_single_datagram_that_is_lost_fails_it_too():
    demo = Demo(DemoPlan(count=10, patience=0.2))
    lost = []

    def lose_one(_direction, data):
        # Payload, and no probe of the path, which is larger.
        lost.append(PAYLOAD < len(data) < PAYLOAD + 100)
        return lost[-1] and sum(lost) == 1

    demo.stand.relay.faults.drop_if = lose_one
    error, report = await failed(demo)
    assert error.code == "datagrams_missing"
    assert (report.datagrams.sent, report.datagrams.returned) == (10, 9)


async def test_datagrams_that_come_back_changed_fail_it(monkeypatch):
    demo = Demo(DemoPlan(count=5, patience=0.05))
    monkeypatch.setattr(demo.stand.echo, "answer", lambda data, _source: data[::-1])
    error, report = await failed(demo)
    assert error.code == "datagrams_unexpected"
    assert report.datagrams.unexpected == 3
    assert report.datagrams.returned == 0


async def test_a_startup_that_fails_is_told_with_its_stage():
    demo = Demo(DemoPlan())
    demo.stand.relay.faults.answer(Method.ALLOCATE, 486, times=None)
    error, report = await failed(demo)
    assert error.stage is Stage.TURN_ALLOCATE
    assert stages(report)[-1] == ("client", "turn_allocate")
    assert report.datagrams.sent == 0
    assert report.allocations_left is None


async def test_a_session_that_ends_under_the_traffic_is_told_with_its_own_failure(monkeypatch):
    async def wait(_handle: ClientHandle) -> None:
        raise SessionError(Stage.SESSION_SUPERVISION, "restart_budget_exhausted", "no lane is left")

    monkeypatch.setattr(ClientHandle, "wait", wait)
    error, _ = await failed(Demo(DemoPlan()))
    assert error.stage is Stage.SESSION_SUPERVISION


async def test_allocations_that_are_left_behind_fail_it(monkeypatch):
    monkeypatch.setattr(turnlane_lab.demo, "RELEASE", 0.05)
    demo = Demo(DemoPlan(count=2))
    demo.stand.relay.faults.answer(Method.REFRESH, 400, times=None)
    error, report = await failed(demo)
    assert (error.stage, error.code) == (Stage.SHUTDOWN, "allocations_left")
    assert report.allocations_left == 1


async def test_people_read_the_same_as_programs():
    demo = Demo(DemoPlan(count=4))
    await demo.run()
    report = demo.report()
    written = io.StringIO()
    report.show(written)
    lines = {line.partition("  ")[0]: line for line in written.getvalue().splitlines()}
    assert "1 socket, which the upstream saw as 1 socket" in lines["local end"]
    assert "4 sent, 4 echoed, 4 returned, of 1000 bytes" in lines["datagrams"]
    assert f"p99 {report.round_trip.p99_ms:.2f} ms" in lines["round trip"]
    assert "0 allocations" in lines["left behind"]
    assert lines["result"].endswith(f"ok, in {report.seconds:.1f} s")
    assert [tuple(line.split()[:2]) for line in written.getvalue().splitlines()[2:16]] == STAGES


async def test_people_are_told_of_a_failure_and_not_of_what_never_happened():
    demo = Demo(DemoPlan(connections=0))
    await failed(demo)
    written = io.StringIO()
    demo.report().show(written)
    assert "failed at policy_validate: invalid_connections" in written.getvalue()
    assert "datagrams" not in written.getvalue()
    assert "round trip" not in written.getvalue()


def test_percentiles_are_of_the_nearest_rank():
    assert RoundTrip.of([]) is None
    assert RoundTrip.of([0.002]) == RoundTrip(2.0, 2.0)
    assert RoundTrip.of([n / 1000 for n in range(100, 0, -1)]) == RoundTrip(50.0, 99.0)
    assert RoundTrip.of([0.001, 0.003]) == RoundTrip(1.0, 3.0)
