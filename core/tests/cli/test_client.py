"""`turnlane client`: from options to a profile, and the `ready` line."""

import json
from types import SimpleNamespace

import pytest

from turnlane.api import RelayTransport, Secret
from turnlane.net.identity import Pin
from turnlane.runtime.peer_link import PeerLink
from turnlane.runtime.profiles import ClientProfile, PeerMode, ProviderProfile, SchedulerKind

PIN = "A" * 43
OTHER_PIN = "B" * 42 + "A"
TOKEN = "t" * 32
BASE = ("client", "--provider", "acme", "--link", "acme://x")


@pytest.fixture
def profiles(monkeypatch):
    """Keep the profiles instead of running them, and announce a made-up session."""
    kept = []
    handle = SimpleNamespace(listen=("::1", 9000), session_id="0123abcd", lanes=[1, 2], mtu=1427)

    def run_client(profile, announce, *, strict_plugins):
        kept.append(profile)
        announce(handle)

    monkeypatch.setattr("turnlane.cli.sessions.run_client", run_client)
    return kept


def test_the_defaults_are_those_of_the_profile(run, profiles) -> None:
    run(*BASE, "--peer", "192.0.2.1:5")
    assert profiles == [
        ClientProfile(
            provider=ProviderProfile(provider="acme", link=Secret("acme://x")),
            peer=PeerLink("192.0.2.1", 5),
        )
    ]


def test_every_option_reaches_the_profile(run, profiles, tmp_path) -> None:
    run(
        *BASE, "--peer", f"turnlane://h:5?pin={PIN}&token={TOKEN}", "--interactive-provider",
        "--insecure-peer", "--legacy", "--ingress", "other", "--listen", "[::1]:1",
        "--connections", "4", "--mode", "tls", "--bind-interface", "192.0.2.7",
        "--turn", "relay.example", "--port", "443", "--ca-file", "ca.pem",
        "--scheduler", "round-robin",
    )  # fmt: skip
    profile = profiles[0]
    assert profile.provider.interactive is True
    assert profile.peer == PeerLink("h", 5, Pin.parse(PIN), Secret(TOKEN))
    assert profile.insecure_peer is True
    assert profile.mode is PeerMode.LEGACY
    assert (profile.ingress, profile.listen, profile.connections) == ("other", "[::1]:1", 4)
    assert profile.transport is RelayTransport.TLS
    assert (profile.turn_host, profile.turn_port) == ("relay.example", 443)
    assert profile.bind_interface == "192.0.2.7"
    assert str(profile.ca_file) == "ca.pem"
    assert profile.scheduler is SchedulerKind.ROUND_ROBIN


@pytest.mark.parametrize(
    ("switches", "mode"), [((), "turnlane/1"), (("--legacy",), "legacy"), (("--no-dtls",), "plain")]
)
def test_switches_choose_how_to_speak_with_the_peer(run, profiles, switches, mode) -> None:
    run(*BASE, "--peer", "h:5", *switches)
    assert profiles[0].mode == mode


def test_legacy_and_no_dtls_exclude_each_other(run, profiles) -> None:
    finished = run(*BASE, "--peer", "h:5", "--legacy", "--no-dtls")
    assert finished.code == 2
    assert "code=conflicting_options: --legacy and --no-dtls exclude each other" in finished.err


def test_a_pin_and_a_token_are_added_to_a_bare_address(run, profiles, tmp_path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    run(*BASE, "--peer", "h:5", "--pin", PIN, "--token-file", tmp_path / "token")
    assert profiles[0].peer == PeerLink("h", 5, Pin.parse(PIN), Secret(TOKEN))


def test_the_same_pin_and_token_twice_are_no_contradiction(run, profiles) -> None:
    peer = f"turnlane://h:5?pin={PIN}&token={TOKEN}"
    assert run(*BASE, "--peer", peer, "--pin", PIN, "--token", TOKEN).code == 0


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (("--pin", OTHER_PIN), "contradicting_pins"),
        (("--token", "u" * 32), "contradicting_tokens"),
        (("--pin", "x"), "invalid_pin"),
        (("--token", "short"), "weak_token"),
    ],
)
def test_a_pin_or_token_that_does_not_fit_is_refused(run, profiles, extra, code) -> None:
    finished = run(*BASE, "--peer", f"turnlane://h:5?pin={PIN}&token={TOKEN}", *extra)
    assert (finished.code, finished.out) == (2, "")
    assert f"code={code}: " in finished.err
    assert profiles == []


def test_a_peer_link_comes_from_a_file(run, profiles, tmp_path) -> None:
    (tmp_path / "peer").write_text(f"turnlane://h:5?pin={PIN}&token={TOKEN}\n")
    run(*BASE, "--peer-file", tmp_path / "peer")
    assert profiles[0].peer.token == Secret(TOKEN)


def test_the_ready_line_tells_address_session_and_lanes(run, profiles) -> None:
    finished = run(*BASE, "--peer", "h:5")
    assert finished.out == "ready listen=[::1]:9000 session_id=0123abcd lanes=2 mtu=1427\n"
    assert json.loads(run(*BASE, "--peer", "h:5", "--json").out) == {
        "event": "ready",
        "listen": "[::1]:9000",
        "session_id": "0123abcd",
        "lanes": 2,
        "mtu": 1427,
    }


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (("--connections", "0"), 2, "invalid_connections"),
        (("--bind-interface", "eth0"), 2, "invalid_bind_interface"),
        (("--listen", "nonsense"), 2, "invalid_listen"),
        (("--port", "70000"), 2, "invalid_turn_port"),
        ((), 2, "missing_pin"),
        (("--insecure-peer", "--pin", PIN), 2, "pin_and_insecure"),
        (("--no-dtls", "--pin", PIN), 2, "no_dtls_with_identity"),
        (("--pin", PIN, "--ingress", "nope"), 3, "unknown_adapter"),
        (("--pin", PIN, "--ingress", "planted", "--provider", "nope"), 3, "unknown_provider"),
    ],
)
def test_policy_refuses_before_anything_happens(run, planted, arguments, exit_code, code) -> None:
    base = ("client", "--provider", "planted", "--link", "planted://crash", "--peer", "h:5")
    finished = run(*base, *arguments)
    assert (finished.code, finished.out) == (exit_code, "")
    assert finished.err.splitlines()[-1].startswith(f"stage=policy_validate code={code}: ")


def test_a_failure_of_the_provider_ends_the_session_with_its_stage(run, planted) -> None:
    base = ("client", "--provider", "planted", "--link", "planted://refuse", "--peer", "h:5")
    finished = run(*base, "--pin", PIN, "--ingress", "planted", "--listen", "127.0.0.1:0")
    assert (finished.code, finished.out) == (1, "")
    last = finished.err.splitlines()[-1]
    assert last.startswith("stage=provider_resolve code=planted_refused: ")
    assert "session_ended" in finished.err
    assert "runtime=client" in finished.err
    assert "provider=planted" in finished.err
    assert "peer_mode=turnlane/1" in finished.err
