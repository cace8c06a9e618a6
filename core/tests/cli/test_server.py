"""`turnlane server`: from options to a profile, the `ready` line and the peer link."""

import json
import stat
from types import SimpleNamespace

import pytest

from turnlane.api import Secret
from turnlane.net.identity import Pin
from turnlane.runtime.peer_link import PeerLink

PIN = Pin(bytes(32))
CONNECT = ("server", "--connect", "192.0.2.9:51820")


@pytest.fixture
def profiles(monkeypatch):
    """Keep the profiles instead of running them, and announce a made-up server."""
    kept = []

    def run_server(profile, announce, *, strict_plugins):
        kept.append(profile)
        host = profile.listen.rpartition(":")[0].strip("[]")

        def link(host, port=None):
            return PeerLink(host, 56000 if port is None else port, PIN, profile.token).text()

        legacy = None if profile.legacy_listen is None else ("127.0.0.1", 1)
        handle = SimpleNamespace(listen=(host, 56000), legacy_listen=legacy, pin=PIN, link=link)
        announce(handle)

    monkeypatch.setattr("turnlane.cli.sessions.run_server", run_server)
    return kept


@pytest.fixture
def identity(tmp_path):
    """Return the default folder of the identity."""
    return tmp_path / "data" / "turnlane" / "server"


def test_every_option_reaches_the_profile(run, profiles, tmp_path) -> None:
    run(
        *CONNECT, "--listen", "127.0.0.1:1", "--egress", "other", "--identity", tmp_path / "keys",
        "--legacy-listen", "127.0.0.1:2", "--advertise", "h", "--handshake-timeout", "250ms",
        "--idle-timeout", "1h", "--max-sessions", "5", "--workers", "7",
    )  # fmt: skip
    profile = profiles[0]
    assert (profile.listen, profile.connect) == ("127.0.0.1:1", "192.0.2.9:51820")
    assert (profile.egress, profile.legacy_listen) == ("other", "127.0.0.1:2")
    assert (profile.identity, profile.advertise) == (tmp_path / "keys", "h")
    assert (profile.handshake_timeout, profile.idle_timeout) == (0.25, 3600.0)
    assert (profile.max_sessions, profile.open_access) == (5, False)
    assert profile.workers == 7


@pytest.mark.parametrize(
    ("processors", "shared", "workers"),
    [(3, True, 3), (1, True, 1), (3, False, 1), (200, True, 64)],
)
def test_there_is_a_worker_for_each_processor_where_the_port_can_be_shared(
    run, profiles, monkeypatch, *, processors, shared, workers
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(processors)), raising=False)
    monkeypatch.setattr("turnlane.net.shared_port.can_share", lambda: shared)
    run(*CONNECT)
    assert profiles[0].workers == workers


def test_the_defaults_are_those_of_the_profile(run, profiles, identity) -> None:
    run(*CONNECT)
    profile = profiles[0]
    assert (profile.listen, profile.egress, profile.identity) == ("0.0.0.0:56000", "udp", identity)
    assert (profile.handshake_timeout, profile.idle_timeout) == (30.0, 1800.0)
    assert (profile.max_sessions, profile.legacy_listen) == (256, None)


def test_the_ready_line_names_the_private_file_of_the_peer_link(run, profiles, identity) -> None:
    finished = run(*CONNECT, "--advertise", "vpn.example.org")
    path = identity / "peer-link"
    assert finished.out == f"ready listen=0.0.0.0:56000 pin={PIN} peer_link_file={path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = PeerLink.parse(Secret(path.read_text()))
    assert link == PeerLink("vpn.example.org", 56000, PIN, profiles[0].token)
    assert profiles[0].token.reveal() not in finished.output


def test_the_link_is_shown_only_when_asked_for(run, profiles, identity) -> None:
    finished = run(*CONNECT, "--advertise", "h", "--show-link")
    link = (identity / "peer-link").read_text().strip()
    assert finished.out.endswith(f" peer_link={link}\n")
    told = json.loads(run(*CONNECT, "--advertise", "h", "--show-link", "--json").out)
    assert told == {
        "event": "ready",
        "listen": "0.0.0.0:56000",
        "pin": str(PIN),
        "peer_link_file": str(identity / "peer-link"),
        "peer_link": link,
    }


def test_the_link_is_printed_later(run, profiles, identity) -> None:
    run(*CONNECT, "--advertise", "h")
    link = (identity / "peer-link").read_text().strip()
    assert run("server", "link").out == f"{link}\n"
    assert run("server", "--identity", identity, "link").out == f"{link}\n"
    assert run("server", "link", "--identity", identity).out == f"{link}\n"
    assert json.loads(run("server", "link", "--json").out)["peer_link"] == link


def test_there_is_no_link_before_the_first_start(run, identity) -> None:
    finished = run("server", "link")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == (
        f"stage=policy_validate code=missing_peer_link: there is no {identity}/peer-link; "
        "start the server once, or give the --identity that it was started with\n"
    )


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (("--listen", "198.51.100.1:1"), "198.51.100.1:56000"),
        (("--listen", "[2001:db8::1]:1"), "[2001:db8::1]:56000"),
        (("--advertise", "h"), "h:56000"),
        (("--advertise", "h:7"), "h:7"),
        (("--advertise", "[2001:db8::2]:7", "--listen", "198.51.100.1:1"), "[2001:db8::2]:7"),
    ],
)
def test_the_link_has_the_advertised_host_else_a_specific_listen_address(
    run, profiles, identity, arguments, address
) -> None:
    finished = run(*CONNECT, *arguments)
    assert (identity / "peer-link").read_text().startswith(f"turnlane://{address}?")
    assert finished.err == ""


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1"])
def test_otherwise_it_has_a_placeholder_and_a_warning_says_so(
    run, profiles, identity, listen
) -> None:
    finished = run(*CONNECT, "--listen", listen)
    assert (identity / "peer-link").read_text().startswith("turnlane://SERVER-ADDRESS:56000?")
    assert "warning peer_link_incomplete" in finished.err
    assert "--advertise" in finished.err


def test_the_token_is_made_once_and_private(run, profiles, identity) -> None:
    run(*CONNECT)
    run(*CONNECT)
    assert profiles[0].token == profiles[1].token
    assert stat.S_IMODE((identity / "token").stat().st_mode) == 0o600
    assert len(profiles[0].token.reveal()) >= 22


def test_a_token_file_of_ones_own_is_made_or_taken(run, profiles, identity, tmp_path) -> None:
    run(*CONNECT, "--token-file", tmp_path / "made")
    assert (tmp_path / "made").read_text().strip() == profiles[0].token.reveal()
    (tmp_path / "own").write_text("o" * 30)
    run(*CONNECT, "--token-file", tmp_path / "own")
    assert profiles[1].token.reveal() == "o" * 30
    assert not (identity / "token").exists()
    (tmp_path / "weak").write_text("short")
    assert "code=weak_token" in run(*CONNECT, "--token-file", tmp_path / "weak").err


def test_an_open_server_has_no_token_in_its_link(run, profiles, identity) -> None:
    run(*CONNECT, "--no-token", "--advertise", "h")
    assert (profiles[0].token, profiles[0].open_access) == (None, True)
    assert (identity / "peer-link").read_text() == f"turnlane://h:56000?pin={PIN}\n"
    assert not (identity / "token").exists()


def test_an_open_server_has_no_token_file(run, profiles) -> None:
    finished = run(*CONNECT, "--no-token", "--token-file", "x")
    assert finished.code == 2
    assert "--token-file and --no-token exclude each other" in finished.err


def test_the_legacy_address_stands_in_the_ready_line(run, profiles) -> None:
    assert "legacy_listen=127.0.0.1:1" in run(*CONNECT, "--legacy-listen", "127.0.0.1:1").out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        ((), 2, "missing_connect"),
        (("--connect", "h:1", "--advertise", "a b"), 2, "invalid_advertise"),
        (("--connect", "h"), 2, "invalid_connect"),
        (("--connect", "h:1", "--max-sessions", "0"), 2, "invalid_max_sessions"),
        (("--connect", "h:1", "--idle-timeout", "0s"), 2, "invalid_idle_timeout"),
        (("--connect", "h:1", "--egress", "nope"), 3, "unknown_adapter"),
        (("--connect", "h:1", "--listen", "192.0.2.1:1"), 1, ""),
    ],
)
def test_what_is_refused_is_told_with_its_code(run, planted, arguments, exit_code, code) -> None:
    finished = run("server", "--egress", "planted", *arguments)
    assert (finished.code, finished.out) == (exit_code, "")
    assert f"code={code}" in finished.err.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_told(run, planted, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    finished = run(*CONNECT, "--egress", "planted", "--identity", tmp_path / "file" / "x")
    assert finished.code == 2
    assert "code=secret_file_not_written" in finished.err
