"""The page of limits: every constant on it exists with its value, and no bound is missing."""

import re
from importlib import import_module

import pytest

from turnlane.cli.server import server
from turnlane_tests.clean import ROOT

PAGE = (ROOT / "docs" / "limits.md").read_text()
ROWS = re.findall(r"^\| .+? \| `([\w.]+)` \| ([\d,]+) \| .+ \|$", PAGE, re.MULTILINE)

BOUNDED = (
    "net.dtls_server",
    "net.relay_wire",
    "net.udp",
    "proto.lane_health",
    "proto.lane_server",
    "proto.path_probe",
    "proto.turn_client",
    "relay.flows",
    "relay.scheduler",
    "relay.server_session",
    "relay.session_peers",
    "relay.workspace",
    "runtime.server",
)
"""Modules that hold tables and queues."""

NO_MEMORY = {
    "net.udp.MAX_FLOW": "a number on the wire",
    "proto.path_probe.MAX_TIMEOUT": "seconds",
    "proto.turn_client.MAX_RETRIES": "attempts",
    "proto.turn_client.MAX_STALE_NONCES": "attempts",
    "relay.scheduler.MAX_SLACK": "seconds",
    "runtime.server.MAX_DATAGRAM": "follows from the largest record",
}


@pytest.mark.parametrize(("name", "value"), ROWS)
def test_a_limit_is_what_the_page_says(name: str, value: str) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(import_module(f"turnlane.{module}"), constant) == int(value.replace(",", ""))


def test_every_row_of_the_page_was_looked_at() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (?!what|---)", line)]
    assert len(rows) == len(ROWS) + 1, "all but the one that is an option"
    assert server.__kwdefaults__["max_sessions"] == 256
    assert "| option `--max-sessions` | 256 |" in PAGE


@pytest.mark.parametrize("module", BOUNDED)
def test_every_bound_of_a_table_or_queue_is_on_the_page(module: str) -> None:
    source = (ROOT / "core/src/turnlane" / f"{module.replace('.', '/')}.py").read_text()
    bounds = re.findall(r"^(MAX_\w+)(?:: \w+)? = ", source, re.MULTILINE)
    missing = {f"{module}.{bound}" for bound in bounds} - {name for name, _ in ROWS}
    assert missing <= set(NO_MEMORY)
