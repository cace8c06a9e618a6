"""Events as log lines: every kind has a name, a level and the stable fields."""

import inspect
import io
import json

import pytest

from turnlane.api import AdapterError, SessionError, Stage, TransportError
from turnlane.cli.events import EVENTS, EventLog
from turnlane.runtime import events
from turnlane.telemetry.logging import configure

LOST = TransportError(Stage.TURN_ALLOCATE, "turn_quota", "the quota is used up", "wait")


@pytest.fixture
def log():
    """Return a function that logs an event and returns the line as an object."""
    written = io.StringIO()
    configure("json", "debug", written)
    event_log = EventLog(runtime="client", provider="acme", turn_mode="auto", peer_mode="legacy")

    def write(event: events.Event) -> dict:
        written.seek(0)
        written.truncate()
        event_log(event)
        entry = json.loads(written.getvalue())
        del entry["ts"]
        return entry

    write.stage = event_log.current_stage
    return write


BASE = {
    "runtime": "client",
    "session_id": "s1",
    "provider": "acme",
    "turn_mode": "auto",
    "peer_mode": "legacy",
}


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            events.StageReached("s1", 0, Stage.TURN_DIAL),
            {"event": "stage_reached", "level": "info", "stage": "turn_dial"},
        ),
        (
            events.CredentialsResolved("s1", 0, "acme", ("h:1", "h:2"), None),
            {
                "event": "credentials_resolved",
                "level": "info",
                "stage": "provider_resolve",
                "result": "ok",
                "endpoints": "h:1,h:2",
            },
        ),
        (
            events.LaneReady("s1", 0, 2, 3, "192.0.2.1:5", "tcp", 1, "a5"),
            {
                "event": "lane_ready",
                "level": "info",
                "turn_mode": "tcp",
                "result": "ok",
                "lane": 2,
                "ready_lanes": 3,
                "restart": 1,
                "relayed": "192.0.2.1:5",
                "peer_session": "a5",
            },
        ),
        (
            events.LaneLost("s1", 0, 2, 1, LOST, 0.4),
            {
                "event": "lane_lost",
                "level": "warning",
                "stage": "turn_allocate",
                "code": "turn_quota",
                "result": "restarting",
                "message": "the quota is used up",
                "advice": "wait",
                "lane": 2,
                "ready_lanes": 1,
                "backoff": 0.4,
            },
        ),
        (
            events.SessionReady("s1", 0, "127.0.0.1:1", 4, 1427),
            {
                "event": "session_ready",
                "level": "info",
                "result": "ok",
                "listen": "127.0.0.1:1",
                "lanes": 4,
                "mtu": 1427,
                "wireguard_mtu": 1395,
            },
        ),
        (
            events.MtuChanged("s1", 0, 1231),
            {"event": "mtu_changed", "level": "info", "mtu": 1231, "wireguard_mtu": 1199},
        ),
        (
            events.DatagramTooLarge("s1", 0, 2, 1452, 1427, 7),
            {
                "event": "datagram_too_large",
                "level": "warning",
                "result": "refused",
                "lane": 2,
                "size": 1452,
                "mtu": 1427,
                "count": 7,
                "message": "datagrams of 1452 bytes do not fit: the path bears 1427",
                "advice": "send smaller ones; with WireGuard, set MTU = 1395 or less at both ends",
            },
        ),
        (
            events.ReplyTooLarge("s1", 0, "c1", 2, 1452, 1427, 7),
            {
                "event": "reply_too_large",
                "level": "warning",
                "session_id": "c1",
                "result": "refused",
                "lane": 2,
                "size": 1452,
                "mtu": 1427,
                "count": 7,
                "message": "datagrams of 1452 bytes do not fit: the path bears 1427",
                "advice": "send smaller ones; with WireGuard, set MTU = 1395 or less at both ends",
            },
        ),
        (events.PeerDrained("s1", 0, 1), {"event": "peer_drained", "level": "info", "lane": 1}),
        (
            events.SessionEnded("s1", 0, None),
            {"event": "session_ended", "level": "info", "result": "stopped"},
        ),
        (
            events.ServerReady("s1", 0, "0.0.0.0:1", "pin", None),
            {
                "event": "server_ready",
                "level": "info",
                "result": "ok",
                "listen": "0.0.0.0:1",
                "pin": "pin",
            },
        ),
        (
            events.PeerAccepted("s1", 0, "c1", 1, "192.0.2.1:5", True),
            {
                "event": "peer_accepted",
                "level": "info",
                "session_id": "c1",
                "result": "ok",
                "lane": 1,
                "peer": "192.0.2.1:5",
                "new_session": True,
            },
        ),
        (
            events.PeerRefused("s1", 0, "192.0.2.1:5", Stage.SESSION_HELLO, "wrong_token", "no"),
            {
                "event": "peer_refused",
                "level": "warning",
                "stage": "session_hello",
                "code": "wrong_token",
                "result": "refused",
                "peer": "192.0.2.1:5",
                "message": "no",
            },
        ),
        (
            events.PeerLost("s1", 0, "c1", 1, "idle"),
            {
                "event": "peer_lost",
                "level": "info",
                "session_id": "c1",
                "lane": 1,
                "reason": "idle",
            },
        ),
        (
            events.FlowFailed("s1", 0, "c1", 9, AdapterError(Stage.UPSTREAM_DIAL, "gone", "no")),
            {
                "event": "flow_failed",
                "level": "warning",
                "session_id": "c1",
                "stage": "upstream_dial",
                "code": "gone",
                "result": "failed",
                "message": "no",
                "flow": 9,
            },
        ),
        (
            events.ServerEnded("s1", 0, None, {"dropped": 3}),
            {
                "event": "server_ended",
                "level": "info",
                "result": "stopped",
                "counters": {"dropped": 3},
            },
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_event_is_told_with_its_fields(log, event, told) -> None:
    assert log(event) == {**BASE, **told}


def test_no_kind_of_event_is_without_a_name(log) -> None:
    kinds = {
        kind
        for _, kind in inspect.getmembers(events, inspect.isclass)
        if issubclass(kind, events.Event) and kind is not events.Event
    }
    assert set(EVENTS) == kinds


def test_a_failed_end_has_its_stage_and_code(log) -> None:
    error = SessionError(Stage.SESSION_SUPERVISION, "lanes_exhausted", "all lanes are gone")
    told = log(events.SessionEnded("s1", 0, error))
    assert (told["stage"], told["code"], told["result"]) == (
        "session_supervision",
        "lanes_exhausted",
        "failed",
    )


def test_a_lane_without_budget_is_given_up(log) -> None:
    told = log(events.LaneLost("s1", 0, 0, 0, LOST, None))
    assert told["result"] == "given_up"
    assert "backoff" not in told


def test_the_current_stage_is_the_last_one_before_the_end(log) -> None:
    assert log.stage() is Stage.POLICY_VALIDATE
    log(events.StageReached("s1", 0, Stage.TURN_ALLOCATE))
    log(events.StageReached("s1", 0, Stage.SHUTDOWN))
    assert log.stage() is Stage.TURN_ALLOCATE
