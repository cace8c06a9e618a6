"""The command line as a process: signals, exit codes, what is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., subprocess.Popen[str]]

PROGRAM = (sys.executable, "-c", "from turnlane.cli.main import run; run()")
LIMIT = 20
"""Seconds that a step of a process may take on a busy machine."""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command line; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PROGRAM, *(str(argument) for argument in arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


@pytest.fixture
def server(planted, tmp_path) -> tuple[object, ...]:
    """Return the arguments of a server on a free port of loopback."""
    return (
        "server", "--egress", "planted", "--listen", "127.0.0.1:0", "--connect", "127.0.0.1:9",
        "--identity", tmp_path / "keys", "--json",
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_server_stops_in_order_on_a_signal_and_leaves_nothing_behind(
    start, server, tmp_path, number
) -> None:
    process = start(*server)
    ready = json.loads(process.stdout.readline())
    host, port = ready["listen"].rsplit(":", 1)
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, out) == (0, "")
    assert f"stop_requested signal={number.name}" in err
    assert "server_ended" in err
    assert "Traceback" not in err
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as freed:
        freed.bind((host, int(port)))
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {
        "identity.pem",
        "token",
        "peer-link",
    }


def test_the_ready_line_is_the_only_thing_on_standard_output_and_has_no_secret(
    start, server, tmp_path
) -> None:
    process = start(*server)
    line = process.stdout.readline()
    process.terminate()
    _, out, err = finish(process)
    token = (tmp_path / "keys" / "token").read_text().strip()
    link = Path(json.loads(line)["peer_link_file"]).read_text()
    assert out == ""
    assert token in link
    assert token not in line + err


def test_a_server_starts_again_with_the_same_identity_and_token(start, server) -> None:
    pins = []
    for _ in range(2):
        process = start(*server)
        pins.append(json.loads(process.stdout.readline())["pin"])
        process.terminate()
        assert finish(process)[0] == 0
    assert pins[0] == pins[1]


def test_an_address_that_is_taken_ends_the_server_with_its_stage(start, server) -> None:
    first = start(*server)
    taken = json.loads(first.stdout.readline())["listen"]
    code, out, err = finish(start(*server, "--listen", taken))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("stage=listen code=")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["probe", "client"])
def test_a_signal_before_readiness_ends_with_128_and_its_number(
    start, planted, command, number
) -> None:
    peer = () if command == "probe" else ("--peer", "h:1", "--insecure-peer", "--ingress")
    arguments = ("--provider", "planted", "--link", "planted://hang")
    process = start(command, *arguments, *peer, *(("planted",) if peer else ()))
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, out) == (128 + number, "")
    assert err.splitlines()[-1] == (
        f"stage=provider_resolve code=interrupted: {number.name} came before it was ready"
    )


def test_a_second_signal_ends_what_does_not_end_by_itself(start, planted) -> None:
    link = ("--link", "planted://hang-stubborn", "--log-level", "info")
    process = start("probe", "--provider", "planted", *link)
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGTERM)
    assert "stop_requested signal=SIGTERM" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 128 + signal.SIGINT
    assert "stop_forced signal=SIGINT" in err


@pytest.mark.parametrize(("port", "kind"), [(13, "SystemExit"), (14, "RuntimeError")])
def test_a_plugin_that_exits_or_crashes_ends_the_server_as_a_failure(
    start, server, port, kind
) -> None:
    code, out, err = finish(start(*server, "--connect", f"127.0.0.1:{port}"))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        f"stage=upstream_dial code=adapter_crashed: the egress planted raised {kind}; "
        "this is a fault of the plugin: tell its authors"
    )
    assert "Traceback" not in err


def test_a_reader_that_goes_away_ends_a_list_quietly(start, planted) -> None:
    process = start("plugins", "list", "--json")
    process.stdout.close()
    process.wait(timeout=LIMIT)
    assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1


def test_json_logs_are_objects_and_stand_on_standard_error(start, server) -> None:
    process = start(*server, "--log-format", "json", "--log-level", "debug")
    process.stdout.readline()
    process.terminate()
    _, _, err = finish(process)
    entries = [json.loads(line) for line in err.splitlines()]
    assert {entry["event"] for entry in entries} >= {"server_ready", "server_ended"}
    assert {entry.get("runtime") for entry in entries} >= {"server"}


def test_the_environment_alone_configures_a_server(start, planted, monkeypatch, tmp_path) -> None:
    for name, value in {
        "EGRESS": "planted", "LISTEN": "127.0.0.1:0", "CONNECT": "127.0.0.1:9",
        "IDENTITY": str(tmp_path / "keys"), "JSON": "1", "ADVERTISE": "vpn.example.org",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TURNLANE_SERVER_{name}", value)
    process = start("server")
    ready = json.loads(process.stdout.readline())
    process.terminate()
    assert finish(process)[0] == 0
    link = Path(ready["peer_link_file"]).read_text()
    assert link.startswith("turnlane://vpn.example.org:")
    assert os.stat(ready["peer_link_file"]).st_mode & 0o077 == 0
