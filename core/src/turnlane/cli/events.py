"""Events of the host as log lines, with fields that keep their names."""

import logging
from typing import Any

from turnlane.api import Stage, TurnlaneError
from turnlane.proto.path_mtu import wireguard_mtu
from turnlane.runtime import events
from turnlane.telemetry import log_event

_LOG = logging.getLogger("turnlane.events")

EVENTS: dict[type[events.Event], tuple[int, str]] = {
    events.StageReached: (logging.INFO, "stage_reached"),
    events.CredentialsResolved: (logging.INFO, "credentials_resolved"),
    events.LaneReady: (logging.INFO, "lane_ready"),
    events.LaneLost: (logging.WARNING, "lane_lost"),
    events.SessionReady: (logging.INFO, "session_ready"),
    events.MtuChanged: (logging.INFO, "mtu_changed"),
    events.DatagramTooLarge: (logging.WARNING, "datagram_too_large"),
    events.PeerDrained: (logging.INFO, "peer_drained"),
    events.SessionEnded: (logging.INFO, "session_ended"),
    events.ServerReady: (logging.INFO, "server_ready"),
    events.PeerAccepted: (logging.INFO, "peer_accepted"),
    events.PeerRefused: (logging.WARNING, "peer_refused"),
    events.PeerLost: (logging.INFO, "peer_lost"),
    events.ReplyTooLarge: (logging.WARNING, "reply_too_large"),
    events.FlowFailed: (logging.WARNING, "flow_failed"),
    events.WorkerLost: (logging.WARNING, "worker_lost"),
    events.WorkerReplaced: (logging.INFO, "worker_replaced"),
    events.ServerEnded: (logging.INFO, "server_ended"),
}
"""The level and the name in the log of each kind of event."""


class EventLog:
    """Writes each event as one line; give it to the host as `on_event`.

    `fields` stand in every line (`runtime`, `provider`, `peer_mode`, …). `stage` is the last one
    that was reached: where a failure that names none belongs.
    """

    def __init__(self, stage: Stage = Stage.POLICY_VALIDATE, **fields: object) -> None:
        self.stage = stage
        self._fields = fields

    def current_stage(self) -> Stage:
        """Return the last stage that was reached before the end."""
        return self.stage

    def __call__(self, event: events.Event) -> None:
        """Log `event`."""
        # A failure or a signal belongs to the stage that it ended, not to the shutdown.
        if isinstance(event, events.StageReached) and event.stage is not Stage.SHUTDOWN:
            self.stage = event.stage
        level, name = EVENTS.get(type(event), (logging.DEBUG, type(event).__name__))
        fields: dict[str, Any] = {**self._fields, "session_id": event.session, **_told(event)}
        log_event(_LOG, level, name, **fields)


def _told(event: events.Event) -> dict[str, object]:
    match event:
        case events.StageReached():
            return {"stage": event.stage}
        case events.CredentialsResolved():
            return {
                "stage": Stage.PROVIDER_RESOLVE,
                "result": "ok",
                "endpoints": ",".join(event.endpoints),
                "expires_at": event.expires_at,
            }
        case events.LaneReady():
            return {
                "turn_mode": event.transport,
                "result": "ok",
                "lane": event.lane,
                "ready_lanes": event.ready_lanes,
                "restart": event.restarts,
                "relayed": event.relayed,
                "peer_session": event.peer_session,
            }
        case events.LaneLost():
            return {
                **_failure(event.error, "given_up" if event.backoff is None else "restarting"),
                "lane": event.lane,
                "ready_lanes": event.ready_lanes,
                "backoff": event.backoff,
            }
        case events.SessionReady():
            return {
                "result": "ok",
                "listen": event.listen,
                "lanes": event.lanes,
                "mtu": event.mtu,
                "wireguard_mtu": wireguard_mtu(event.mtu),
            }
        case events.MtuChanged():
            return {"mtu": event.mtu, "wireguard_mtu": wireguard_mtu(event.mtu)}
        case events.DatagramTooLarge():
            return {"lane": event.lane, **_too_large(event)}
        case events.PeerDrained():
            return {"lane": event.lane}
        case events.SessionEnded():
            return _end(event.error)
        case events.ServerReady():
            return {
                "result": "ok",
                "listen": event.listen,
                "legacy_listen": event.legacy_listen,
                "pin": event.pin,
            }
        case _:
            return _of_server(event)


def _of_server(event: events.Event) -> dict[str, object]:
    match event:
        case events.PeerAccepted():
            return {
                "session_id": event.client_session,
                "result": "ok",
                "lane": event.lane,
                "peer": event.address,
                "new_session": event.new_session,
            }
        case events.PeerRefused():
            return {
                "stage": event.stage,
                "code": event.code,
                "result": "refused",
                "peer": event.address,
                "message": event.message,
            }
        case events.PeerLost():
            return {"session_id": event.client_session, "lane": event.lane, "reason": event.reason}
        case events.ReplyTooLarge():
            return {
                "session_id": event.client_session,
                "lane": event.lane,
                **_too_large(event),
            }
        case events.FlowFailed():
            return {
                "session_id": event.client_session,
                **_failure(event.error, "failed"),
                "flow": event.flow,
            }
        case events.WorkerLost():
            return {
                **_failure(event.error, "restarting"),
                "worker": event.worker,
                "backoff": event.backoff,
            }
        case events.WorkerReplaced():
            return {"result": "ok", "worker": event.worker}
        case events.ServerEnded():
            return {**_end(event.error), "counters": event.counters or None}
        case _:
            return {}


def _too_large(event: events.DatagramTooLarge | events.ReplyTooLarge) -> dict[str, object]:
    inner = wireguard_mtu(event.mtu)
    return {
        "result": "refused",
        "size": event.size,
        "mtu": event.mtu,
        "count": event.count,
        "message": f"datagrams of {event.size} bytes do not fit: the path bears {event.mtu}",
        "advice": f"send smaller ones; with WireGuard, set MTU = {inner} or less at both ends",
    }


def _end(error: TurnlaneError | None) -> dict[str, object]:
    return {"result": "stopped"} if error is None else _failure(error, "failed")


def _failure(error: TurnlaneError, result: str) -> dict[str, object]:
    return {
        "stage": error.stage,
        "code": error.code,
        "result": result,
        "message": error.message,
        "advice": error.advice or None,
    }
