"""Policy: what is refused, with which code, before anything else happens."""

from pathlib import Path
from typing import Any

import pytest

from turnlane.api import (
    AdapterDescriptor,
    Direction,
    PolicyError,
    ProviderDescriptor,
    Secret,
    TrafficClass,
    TurnlaneError,
    UnavailableError,
    hookimpl,
)
from turnlane.net.identity import Pin
from turnlane.plugins.manager import PluginManager
from turnlane.runtime import policy
from turnlane.runtime.peer_link import PeerLink
from turnlane.runtime.policy import validate_client, validate_server
from turnlane.runtime.profiles import ClientProfile, PeerMode, ProviderProfile, ServerProfile

PIN = Pin.parse("A" * 42 + "E")
TOKEN = Secret("t0kenT0kenT0kenT0ken_-planted")


def adapter(
    name: str, direction: Direction, traffic: TrafficClass, **more: Any
) -> AdapterDescriptor:
    return AdapterDescriptor(name, name, name, direction, traffic, "absent:Absent", **more)


class Planted:
    """Descriptors whose classes do not exist: policy must not import them."""

    @hookimpl
    def turnlane_providers(self) -> list[ProviderDescriptor]:
        return [ProviderDescriptor("acme", "Acme", "A provider.", "absent:Absent")]

    @hookimpl
    def turnlane_ingress_adapters(self) -> list[AdapterDescriptor]:
        return [
            adapter("udp", Direction.INGRESS, TrafficClass.DATAGRAM, pairs_with=("udp", "chooser")),
            adapter("tcp", Direction.INGRESS, TrafficClass.STREAM, pairs_with=("tcp",)),
            adapter("lonely", Direction.INGRESS, TrafficClass.DATAGRAM),
        ]

    @hookimpl
    def turnlane_egress_adapters(self) -> list[AdapterDescriptor]:
        return [
            adapter("udp", Direction.EGRESS, TrafficClass.DATAGRAM),
            adapter("chooser", Direction.EGRESS, TrafficClass.DATAGRAM, dials_client_choice=True),
            adapter("tcp", Direction.EGRESS, TrafficClass.STREAM),
            adapter("lonely", Direction.EGRESS, TrafficClass.DATAGRAM),
        ]


PLUGINS = PluginManager.from_modules([Planted()])


def client(**changes: Any) -> ClientProfile:
    profile: dict[str, Any] = {
        "provider": ProviderProfile(provider="acme", link=Secret("acme://link")),
        "peer": PeerLink("192.0.2.1", 56000, PIN, TOKEN),
    }
    return ClientProfile(**(profile | changes))


def server(**changes: Any) -> ServerProfile:
    profile: dict[str, Any] = {
        "connect": "127.0.0.1:51820",
        "identity": Path("unused"),
        "token": TOKEN,
    }
    return ServerProfile(**(profile | changes))


BARE = PeerLink("192.0.2.1", 56000)
PINNED = PeerLink("192.0.2.1", 56000, PIN)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"connections": 0}, "invalid_connections"),
        ({"connections": -1}, "invalid_connections"),
        ({"connections": 65}, "invalid_connections"),
        ({"bind_interface": "eth0"}, "invalid_bind_interface"),
        ({"listen": "9000"}, "invalid_listen"),
        ({"listen": "127.0.0.1:"}, "invalid_listen"),
        ({"turn_port": 0}, "invalid_turn_port"),
        ({"turn_port": 70000}, "invalid_turn_port"),
        ({"peer": BARE}, "missing_pin"),
        ({"peer": PeerLink("h", 1, None, TOKEN)}, "missing_pin"),
        ({"insecure_peer": True}, "pin_and_insecure"),
        ({"mode": PeerMode.PLAIN}, "no_dtls_with_identity"),
        ({"mode": PeerMode.PLAIN, "peer": PeerLink("h", 1, PIN)}, "no_dtls_with_identity"),
        ({"mode": PeerMode.LEGACY}, "legacy_with_token"),
        ({"mode": PeerMode.LEGACY, "peer": BARE}, "missing_pin"),
        ({"mode": PeerMode.LEGACY, "peer": PINNED, "ingress": "tcp"}, "stream_needs_session"),
        ({"mode": PeerMode.PLAIN, "peer": BARE, "ingress": "tcp"}, "stream_needs_session"),
    ],
)
def test_a_client_that_contradicts_itself_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(PolicyError) as caught:
        validate_client(client(**changes), PLUGINS)
    assert caught.value.code == code
    assert caught.value.exit_code == 2
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"provider": ProviderProfile(provider="other", link=Secret("x"))}, "unknown_provider"),
        ({"ingress": "other"}, "unknown_adapter"),
        ({"ingress": "lonely"}, "unsupported_pair"),
        ({"ingress": "tcp"}, "streams_unavailable"),
    ],
)
def test_a_client_that_asks_for_what_is_not_there_is_refused(
    changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(UnavailableError) as caught:
        validate_client(client(**changes), PLUGINS)
    assert caught.value.code == code
    assert caught.value.exit_code == 3
    assert caught.value.advice


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"peer": PeerLink("h", 1, PIN)},
        {"peer": BARE, "insecure_peer": True},
        {"peer": PeerLink("h", 1, None, TOKEN), "insecure_peer": True},
        {"mode": PeerMode.PLAIN, "peer": BARE},
        {"mode": PeerMode.LEGACY, "peer": PeerLink("h", 1, PIN)},
        {"mode": PeerMode.LEGACY, "peer": BARE, "insecure_peer": True},
        {"bind_interface": "::1"},
        {"connections": 64},
    ],
)
def test_a_sound_client_passes(changes: dict[str, Any]) -> None:
    assert validate_client(client(**changes), PLUGINS).id == "udp"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": None}, "missing_token"),
        ({"open_access": True}, "token_and_open_access"),
        ({"connect": "127.0.0.1:0"}, "invalid_connect"),
        ({"connect": "upstream"}, "invalid_connect"),
        ({"listen": "[::1"}, "invalid_listen"),
        ({"legacy_listen": "x"}, "invalid_legacy_listen"),
        ({"max_sessions": 0}, "invalid_max_sessions"),
        ({"workers": 0}, "invalid_workers"),
        ({"workers": 65}, "invalid_workers"),
        ({"idle_timeout": 0.0}, "invalid_idle_timeout"),
        ({"handshake_timeout": -1.0}, "invalid_handshake_timeout"),
        ({"egress": "chooser", "legacy_listen": "127.0.0.1:1"}, "legacy_with_client_choice"),
        ({"egress": "lonely"}, "unsupported_pair"),
        ({"egress": "other"}, "unknown_adapter"),
        ({"egress": "tcp"}, "streams_unavailable"),
    ],
)
def test_a_server_that_contradicts_itself_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(TurnlaneError) as caught:
        validate_server(server(**changes), PLUGINS)
    assert caught.value.code == code
    assert caught.value.stage == "policy_validate"


def test_several_workers_need_a_system_that_shares_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "can_share", lambda: False)
    validate_server(server(workers=1), PLUGINS)
    with pytest.raises(UnavailableError) as caught:
        validate_server(server(workers=2), PLUGINS)
    assert caught.value.code == "workers_unavailable"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"workers": 64},
        {"token": None, "open_access": True},
        {"legacy_listen": "127.0.0.1:0"},
        {"egress": "chooser"},
    ],
)
def test_a_sound_server_passes(changes: dict[str, Any]) -> None:
    assert validate_server(server(**changes), PLUGINS).direction is Direction.EGRESS
