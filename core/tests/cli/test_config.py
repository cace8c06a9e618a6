"""The configuration file and the environment: precedence, names, types."""

import pytest

from turnlane.cli import config
from turnlane.cli.client import client
from turnlane.cli.server import server


@pytest.fixture
def file(tmp_path):
    """Write a configuration file and return its path."""

    def write(text):
        path = tmp_path / "turnlane.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def profiles(monkeypatch):
    """Keep the profiles of clients and servers instead of running them."""
    kept = []

    def keep(profile, _announce, *, strict_plugins):
        kept.append(profile)

    monkeypatch.setattr("turnlane.cli.sessions.run_client", keep)
    monkeypatch.setattr("turnlane.cli.sessions.run_server", keep)
    return kept


BASE = """
[client]
provider = "acme"
link = "acme://from-file"
peer = "192.0.2.1:56000"
listen = "127.0.0.1:1001"
connections = 3
"""


def test_an_option_wins_over_the_environment_and_that_over_the_file(
    run, file, profiles, monkeypatch
) -> None:
    path = file(BASE)
    run("client", "--config", path)
    monkeypatch.setenv("TURNLANE_CLIENT_LISTEN", "127.0.0.1:1002")
    run("client", "--config", path)
    run("client", "--config", path, "--listen", "127.0.0.1:1003")
    assert [profile.listen[-1] for profile in profiles] == ["1", "2", "3"]
    assert {profile.connections for profile in profiles} == {3}
    assert {profile.ingress for profile in profiles} == {"udp"}


def test_the_variables_that_hold_an_empty_text_count_as_unset(
    run, file, profiles, monkeypatch
) -> None:
    monkeypatch.setenv("TURNLANE_CLIENT_CONNECTIONS", "")
    path = file(BASE)
    run("client", "--config", path)
    assert profiles[0].connections == 3


def test_the_file_itself_may_be_named_by_the_environment(run, file, profiles, monkeypatch) -> None:
    monkeypatch.setenv("TURNLANE_CONFIG", str(file(BASE)))
    assert run("client").code == 0
    assert profiles[0].provider.link.reveal() == "acme://from-file"


def test_switches_come_from_the_environment_too(run, file, profiles, monkeypatch) -> None:
    path = file(BASE)
    for value in ("false", "0", "no", "true", "1", "yes"):
        monkeypatch.setenv("TURNLANE_CLIENT_DTLS", value)
        run("client", "--config", path)
    assert [profile.mode for profile in profiles] == ["plain"] * 3 + ["turnlane/1"] * 3


def test_a_switch_of_the_file_is_turned_off_by_an_option(run, file, profiles) -> None:
    path = file(BASE + "legacy = true\ninsecure_peer = true\n")
    run("client", "--config", path)
    run("client", "--config", path, "--no-legacy", "--no-insecure-peer")
    assert [profile.mode for profile in profiles] == ["legacy", "turnlane/1"]
    assert [profile.insecure_peer for profile in profiles] == [True, False]


def test_a_rival_in_the_file_is_set_aside_by_an_option(run, file, profiles) -> None:
    run("client", "--config", file(BASE + 'link_file = "x"\n'), "--link", "acme://typed")
    assert profiles[0].provider.link.reveal() == "acme://typed"


def test_durations_and_paths_of_a_file_are_read_as_such(run, file, profiles, tmp_path) -> None:
    path = file(
        '[server]\nconnect = "192.0.2.9:1"\nidentity = "keys"\nidle_timeout = "5m"\n'
        'token_file = "~/token"\n'
    )
    (tmp_path / "elsewhere").mkdir()
    run("server", "--config", path)
    profile = profiles[0]
    assert profile.idle_timeout == 300.0
    assert profile.handshake_timeout == 30.0
    assert profile.identity == tmp_path / "keys"
    assert (tmp_path / "home" / "token").read_text().strip() == profile.token.reveal()


def test_every_wrong_name_and_type_is_told_at_once(run, file) -> None:
    path = file(
        "toplevel = 1\n"
        "[client]\nconnectons = 4\nconnections = true\nlegacy = 1\nlisten = 9000\nconfig = 'x'\n"
        "[servr]\n"
        "[server]\nidle_timeout = 30\nmax_sessions = 1.5\ntoken = 'x'\n"
        "[log]\nlog_level = 'debug'\nformat = []\n"
    )
    finished = run("probe", "--config", path)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == (
        f"stage=policy_validate code=invalid_config: {path}: "
        "[toplevel] is not one of [client], [server], [probe], [log]; "
        "[client] connectons is not an option; "
        "[client] connections is not an integer; "
        "[client] legacy is not true or false; "
        "[client] listen is not a string; "
        "[client] config is not an option; "
        "[servr] is not one of [client], [server], [probe], [log]; "
        "[server] idle_timeout is not a string; "
        "[server] max_sessions is not an integer; "
        "[server] token is not an option; "
        "[log] log_level is not an option; "
        "[log] format is not a string; "
        "see `turnlane COMMAND --help`: names are those of the options, with _ for -\n"
    )


def test_a_section_that_is_a_value_is_refused(run, file) -> None:
    assert (
        "client is not a section: write [client]" in run("probe", "--config", file("client=1")).err
    )


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"[client\n", "invalid_config", "is not TOML: "),
        (b"\xff\xfe", "invalid_config", "is not UTF-8 text"),
        (b"#" * (config.MAX_SIZE + 1), "invalid_config", "is larger than 256 KiB"),
        (None, "unreadable_config", "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_bad_input(run, tmp_path, content, code, said) -> None:
    path = tmp_path / "turnlane.toml"
    if content is not None:
        path.write_bytes(content)
    finished = run("server", "--config", path)
    assert finished.code == 2
    assert f"code={code}: " in finished.err
    assert said in finished.err


def test_a_wrong_value_is_told_with_the_place_it_came_from(run, file, monkeypatch) -> None:
    path = file('[client]\nprovider = "x"\nmode = "quic"\n')
    assert f"'auto', 'udp', 'tcp', 'tls' (from {path});" in run("client", "--config", path).err
    monkeypatch.setenv("TURNLANE_CLIENT_MODE", "pigeon")
    assert "'tls' (from TURNLANE_CLIENT_MODE);" in run("client", "--config", path).err
    monkeypatch.setenv("TURNLANE_LOG_LEVEL", "loud")
    said = run("client", "--config", path, "--mode", "udp").err
    assert "'error' (from TURNLANE_LOG_LEVEL);" in said
    assert "from" not in run("client", "--provider", "x", "--mode", "boat").err


def test_unknown_variables_of_a_command_are_refused_by_name_without_their_values(
    run, monkeypatch
) -> None:
    monkeypatch.setenv("TURNLANE_SERVER_LISTNE", "with-a-secret")
    monkeypatch.setenv("TURNLANE_CLIENT_TOKENS", "with-a-secret")
    finished = run("probe")
    assert finished.code == 2
    assert finished.err == (
        "stage=policy_validate code=unknown_environment: no option has the name of "
        "TURNLANE_CLIENT_TOKENS, TURNLANE_SERVER_LISTNE; "
        "unset it, or see `turnlane COMMAND --help` for the names\n"
    )


def test_what_a_container_platform_sets_for_a_service_called_turnlane_server_is_left_alone(
    run, monkeypatch
) -> None:
    for name in (
        "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_TUNNEL", "PORT", "PORT_56000_UDP",
        "PORT_56000_UDP_ADDR", "PORT_56000_UDP_PROTO",
    ):  # fmt: skip
        monkeypatch.setenv(f"TURNLANE_SERVER_{name}", "udp://10.0.0.1:56000")
    assert "code=missing_connect" in run("server").err


def test_the_log_section_holds_for_every_command(run, file, planted) -> None:
    path = file('[log]\nformat = "json"\nlevel = "info"\n')
    arguments = ("probe", "--provider", "planted", "--link", "planted://crash", "--config", path)
    assert run(*arguments).code == 1
    finished = run(*arguments, "--log-level", "loud")
    assert "code=invalid_usage" in finished.err


def test_commands_on_the_identity_take_it_from_the_servers_section(run, file, tmp_path) -> None:
    path = file('[server]\nidentity = "keys"\nconnect = "192.0.2.9:1"\n')
    assert run("identity", "new", "--config", path).code == 0
    assert (tmp_path / "keys" / "identity.pem").exists()
    assert run("identity", "show", "--config", path).code == 0
    assert str(tmp_path / "keys") in run("server", "link", "--config", path).err
    assert str(tmp_path / "keys") in run("server", "--config", path, "link").err


def test_the_options_of_commands_are_known_by_their_signatures() -> None:
    types = config.option_types(client)
    assert types["connections"] is int
    assert types["dtls"] is bool
    assert types["mode"] is types["link"] is types["provider"] is str
    assert types["link_file"].__name__ == "Path"
    assert config.option_types(server)["idle_timeout"] is str
    assert "ctx" not in types
