"""What is installed, for people and for programs."""

import json

import pytest


def test_providers_are_listed_as_a_table(run, planted, blocked) -> None:
    finished = run("providers", "list")
    assert (finished.code, finished.err) == (0, note(len(blocked)))
    header, _, row = finished.out.splitlines()
    assert header.split() == ["ID", "TITLE", "TAKES", "STABILITY"]
    assert row.split() == ["planted", "Planted", "link", "stable"]


def note(count: int) -> str:
    return f"{count} plugins are not loaded: see `turnlane plugins list`\n"


def test_providers_as_json_have_their_descriptor_and_distribution(run, planted) -> None:
    (provider,) = json.loads(run("providers", "list", "--json").out)
    assert provider["id"] == "planted"
    assert provider["capabilities"]["default_transport"] is None
    assert (provider["distribution"], provider["version"]) == ("turnlane-planted", "1.2")


def test_one_provider_is_shown(run, planted) -> None:
    finished = run("providers", "show", "planted")
    assert finished.code == 0
    lines = dict(line.split("  ", 1) for line in finished.out.splitlines())
    told = {name.strip(): value.strip() for name, value in lines.items()}
    assert told["id"] == "planted"
    assert told["summary"] == "For tests."
    assert told["example links"] == "planted://user:password@host"
    assert told["interactive"] == "no"
    assert "capabilities" not in told
    assert "default transport" not in told
    assert told["distribution"] == "turnlane-planted"
    assert json.loads(run("providers", "show", "planted", "--json").out)["id"] == "planted"


def test_a_provider_that_is_not_installed_exits_with_3(run, planted) -> None:
    finished = run("providers", "show", "nope")
    assert (finished.code, finished.out) == (3, "")
    assert "code=unknown_provider: there is no provider named 'nope'; available: planted" in (
        finished.err
    )


def test_adapters_are_listed_with_their_direction(run, planted) -> None:
    rows = [line.split() for line in run("adapters", "list").out.splitlines()[2:]]
    assert rows == [
        ["planted", "ingress", "datagram", "Planted", "stable"],
        ["planted", "egress", "datagram", "Planted", "stable"],
    ]
    found = json.loads(run("adapters", "list", "--json").out)
    assert [one["direction"] for one in found] == ["ingress", "egress"]


def test_pairs_are_listed(run, planted) -> None:
    assert run("pairs").out.splitlines()[2].split() == ["planted", "planted", "datagram"]
    assert json.loads(run("pairs", "--json").out) == [
        {"ingress": "planted", "egress": "planted", "traffic": "datagram"}
    ]


TUNNEL = """
from turnlane.api import PlatformTunnelDescriptor, hookimpl

@hookimpl
def turnlane_platform_tunnels():
    return [PlatformTunnelDescriptor("tun", "Tun", "For tests.", ("linux", "darwin"), "dug:Tun")]
"""


def test_platform_tunnels_are_listed_with_their_platforms(run, planted) -> None:
    planted.plant("turnlane-dug", "[turnlane.plugins.v1]\ndug = dug\n", dug=TUNNEL)
    header, _, row = run("tunnels", "list").out.splitlines()
    assert header.split() == ["ID", "PLATFORMS", "TITLE", "STABILITY"]
    assert row.split() == ["tun", "linux,", "darwin", "Tun", "provisional"]
    (found,) = json.loads(run("tunnels", "list", "--json").out)
    assert (found["id"], found["platforms"]) == ("tun", ["linux", "darwin"])
    assert (found["distribution"], found["version"]) == ("turnlane-dug", "1.2")


@pytest.fixture
def broken(planted):
    """Plant a plugin of each kind of trouble beside the good one."""
    sources = {
        "raises": "raise RuntimeError('no [bold]markup[/bold] \\x1b[31m')",
        "exits": "import sys; sys.exit(3)",
        "misspells": "from turnlane.api import hookimpl\n@hookimpl\ndef turnlane_provider(): ...",
    }
    for name, source in sources.items():
        declared = f"[turnlane.plugins.v1]\n{name} = broken_{name}\n"
        planted.plant(f"turnlane-{name}", declared, **{f"broken_{name}": source})
    planted.plant("turnlane-newer", "[turnlane.plugins.v9]\nnewer = broken_newer\n")
    return planted


def test_every_plugin_is_listed_with_what_became_of_it(run, broken, blocked) -> None:
    records = {one["name"]: one for one in json.loads(run("plugins", "list", "--json").out)}
    status = {name: record["status"] for name, record in records.items()}
    assert status == {
        "planted": "loaded",
        "raises": "failed",
        "exits": "failed",
        "misspells": "failed",
        "newer": "incompatible",
        **dict.fromkeys(blocked, "blocked"),
    }
    assert all(record["reason"] for record in records.values() if record["status"] != "loaded")


def test_a_plugin_that_ends_the_process_is_listed_as_well(run, planted) -> None:
    declared = "[turnlane.plugins.v1]\nends = broken_ends\n"
    planted.plant("turnlane-ends", declared, broken_ends="import os; os._exit(0)")
    records = {one["name"]: one for one in json.loads(run("plugins", "list", "--json").out)}
    assert (records["ends"]["status"], records["ends"]["code"]) == ("failed", "died")
    assert records["planted"]["status"] == "loaded"


def test_none_but_the_chosen_are_loaded(run, planted, monkeypatch) -> None:
    monkeypatch.setenv("TURNLANE_PLUGINS", "")
    assert run("providers", "list").out == "No provider is installed.\n"
    monkeypatch.setenv("TURNLANE_PLUGINS", "turnlane-planted")
    assert [one["id"] for one in json.loads(run("providers", "list", "--json").out)] == ["planted"]


def test_the_table_of_plugins_keeps_each_on_one_line_and_its_text_harmless(run, broken) -> None:
    finished = run("plugins", "list")
    assert (finished.code, finished.err) == (0, "")
    (row,) = [line for line in finished.out.splitlines() if line.startswith("raises")]
    assert "turnlane-raises 1.2" in row
    assert "[bold]markup[/bold]" in row
    assert "\x1b" not in finished.out


def test_broken_plugins_leave_the_others_usable_and_are_hinted_at(run, broken, blocked) -> None:
    finished = run("providers", "list")
    assert finished.code == 0
    assert "planted" in finished.out
    assert finished.err == note(len(blocked) + 4)
    assert json.loads(run("pairs", "--json").out) != []


def test_without_any_plugin_the_lists_say_so(run, blocked) -> None:
    assert run("providers", "list").out == "No provider is installed.\n"
    assert run("adapters", "list").out == "No adapter is installed.\n"
    assert run("pairs").out == "No pair is supported.\n"
    assert run("pairs", "--json").out == "[]\n"
    assert run("tunnels", "list").out == "No platform tunnel is installed.\n"
    assert run("tunnels", "list", "--json").out == "[]\n"
