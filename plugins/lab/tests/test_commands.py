"""`turnlane demo` and `turnlane lab run`, as a user types them."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

from turnlane.api import PolicyError
from turnlane_lab.commands import demo_app, lab_app

TURNLANE = [sys.executable, "-c", "from turnlane.cli.main import run; run()"]

needs_plugins = pytest.mark.skipif(
    find_spec("turnlane_adapters") is None or find_spec("turnlane_generic_turn") is None,
    reason="these commands need the plugins generic-turn and adapters",
)


@pytest.fixture
def environment(tmp_path):
    """An environment without settings of its own, with a temporary folder that is watched."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TURNLANE_")}
    return {**kept, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error", "COLUMNS": "100"}


def turnlane(environment, *arguments):
    return subprocess.run(
        [*TURNLANE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(environment, *arguments) -> Iterator[subprocess.Popen[str]]:
    """A command that keeps running; it is killed when the test did not end it."""
    started = subprocess.Popen(
        [*TURNLANE, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    """Wait for the line that says that a command is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    fields: dict[str, str] = json.loads(line)
    return fields


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal; return the exit code and what was written since the ready line."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def is_free(kind: socket.SocketKind, where: str) -> bool:
    with socket.socket(socket.AF_INET, kind) as opened:
        try:
            opened.bind(address(where))
        except OSError:
            return False
    return True


def ask(listen: str, payload: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.settimeout(10)
        opened.sendto(payload, address(listen))
        return opened.recv(65_535)


@needs_plugins
def test_a_demo_is_a_short_report_and_exit_code_0(environment, tmp_path):
    done = turnlane(environment, "demo", "--count", "50")
    assert (done.returncode, done.stderr) == (0, "")
    assert "50 sent, 50 echoed, 50 returned" in done.stdout
    assert "p50" in done.stdout
    assert "p99" in done.stdout
    assert len(done.stdout.splitlines()) < 25
    assert all(line == line.rstrip() for line in done.stdout.splitlines()[16:])
    assert list(tmp_path.iterdir()) == []


@needs_plugins
def test_a_demo_as_data_is_one_json_document(environment, tmp_path):
    done = turnlane(
        environment,
        *("demo", "--json", "--count", "40", "--connections", "2", "--transport", "tcp"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["result"], report["transport"], report["connections"]) == ("ok", "tcp", 2)
    assert report["datagrams"]["returned"] == report["datagrams"]["echoed"] == 40
    assert list(tmp_path.iterdir()) == []


@needs_plugins
def test_a_demo_that_fails_tells_its_stage_and_code_in_both_places(environment, tmp_path):
    done = turnlane(environment, "demo", "--json", "--connections", "65")
    assert done.returncode == 2
    failure = json.loads(done.stdout)["failure"]
    assert (failure["stage"], failure["code"]) == ("policy_validate", "invalid_connections")
    assert done.stderr.startswith("stage=policy_validate code=invalid_connections: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@needs_plugins
def test_a_demo_without_its_plugins_is_not_available(environment):
    done = turnlane({**environment, "TURNLANE_DISABLE_PLUGINS": "generic-turn"}, "demo")
    assert done.returncode == 3
    assert "code=unknown_provider" in done.stderr


@needs_plugins
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_lab_in_order_and_leaves_nothing(environment, tmp_path, number):
    with running(environment, "lab", "run", "--json") as lab:
        told = ready(lab)
        assert len(list(tmp_path.iterdir())) == 1
        code, out, err = ended(lab, number)
    assert (code, out) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert is_free(socket.SOCK_STREAM, told["relay_tcp"])
    assert all(is_free(socket.SOCK_DGRAM, told[name]) for name in ("relay", "server", "echo"))
    assert "server_ended" in err
    assert "Traceback" not in err
    assert "lab_exposed" not in err


@needs_plugins
def test_what_the_lab_prints_is_ready_to_paste(environment, tmp_path):
    with running(environment, "lab", "run", "--json") as lab:
        told = ready(lab)
        program, *arguments = shlex.split(told["client_command"])
        assert program == "turnlane"
        arguments[arguments.index("127.0.0.1:9000")] = "127.0.0.1:0"
        with running(environment, *arguments, "--json") as client:
            assert ask(ready(client)["listen"], b"hello") == b"hello"
            assert ended(client, signal.SIGTERM)[0] == 0
        over_tcp = ["client", "--provider", "generic-turn", "--link", told["link_tcp"]]
        over_tcp += ["--peer", told["peer"], "--listen", "127.0.0.1:0", "--json"]
        with running(environment, *over_tcp) as client:
            assert ask(ready(client)["listen"], b"again") == b"again"
            assert ended(client, signal.SIGTERM)[0] == 0
        code, _, err = ended(lab, signal.SIGTERM)
    assert code == 0
    assert err.count("peer_accepted") == 2
    password = told["link"].partition("://lab:")[2].partition("@")[0]
    token = told["peer"].partition("token=")[2]
    assert password not in err
    assert token not in err


@needs_plugins
def test_the_lab_is_where_it_was_told_to_be(environment):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
        first.bind(("127.0.0.1", 0))
        port = str(first.getsockname()[1])
    arguments = ["--bind-address", "0.0.0.0", "--advertise-address", "127.0.0.1"]
    arguments += ["--peer-port", port, "--peer-idle-timeout", "5s", "--json"]
    with running(environment, "lab", "run", *arguments) as lab:
        told = ready(lab)
        code, _, err = ended(lab, signal.SIGTERM)
    assert code == 0
    assert told["server"] == f"127.0.0.1:{port}"
    assert told["peer"].startswith(f"turnlane://127.0.0.1:{port}?")
    assert f"@{told['relay']}?transport=udp" in told["link"]
    assert f"@{told['relay_tcp']}?transport=tcp" in told["link_tcp"]
    assert "warning lab_exposed" in err


@needs_plugins
def test_people_get_links_and_a_command_they_can_copy_whole(environment):
    with running(environment, "lab", "run", "--log-level", "error") as lab:
        assert lab.stdout is not None
        lines = []
        while not (lines and lines[-1].startswith("Ctrl-C")):
            lines.append(lab.stdout.readline().rstrip("\n"))
            assert lab.poll() is None
        code, out, err = ended(lab, signal.SIGINT)
    assert (code, out, err) == (0, "", "")
    named = {line.partition("  ")[0]: line.rpartition("  ")[2] for line in lines if "  " in line}
    (command,) = [line.strip() for line in lines if line.strip().startswith("turnlane client ")]
    arguments = shlex.split(command)
    assert arguments[arguments.index("--link") + 1] == named["link"].strip()
    assert arguments[arguments.index("--peer") + 1] == named["peer link"].strip()
    assert named["over TCP"].strip().endswith("?transport=tcp")


@needs_plugins
def test_a_lab_that_cannot_listen_says_so_and_exits_with_1(environment, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        done = turnlane(environment, "lab", "run", "--turn-port", port, "--log-level", "error")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("stage=listen code=listen_failed: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--bind-address", "localhost"], "invalid_bind_address"),
        (["--advertise-address", "example.org"], "invalid_advertise_address"),
        (["--advertise-address", "::1"], "invalid_advertise_address"),
        (["--bind-address", "0.0.0.0"], "missing_advertise_address"),
        (["--bind-address", "::"], "missing_advertise_address"),
    ],
)
def test_addresses_that_no_client_could_use_are_bad_input(arguments, code):
    done = CliRunner().invoke(lab_app, ["run", *arguments])
    assert isinstance(done.exception, PolicyError)
    assert done.exception.code == code
    assert done.exception.exit_code == 2


@pytest.mark.parametrize(
    ("application", "arguments"),
    [
        (lab_app, ["run", "--peer-idle-timeout", "5"]),
        (lab_app, ["run", "--peer-idle-timeout", "a while"]),
        (lab_app, ["run", "--turn-port", "65536"]),
        (lab_app, ["run", "--turn-tcp-port", "-1"]),
        (lab_app, []),
        (demo_app, ["--count", "0"]),
        (demo_app, ["--transport", "tls"]),
    ],
)
def test_options_that_make_no_sense_are_bad_input(application, arguments):
    done = CliRunner().invoke(application, arguments)
    assert done.exit_code == 2


def test_the_help_imports_none_of_what_runs():
    script = (
        "import sys, turnlane_lab.commands\n"
        "print([n for n in ('anyio', 'OpenSSL', 'turnlane.runtime.host') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
