"""Settings of the local and the upstream end: from options, from a file, shown, refused."""

import json

import pytest

from turnlane.api import Secret
from turnlane.runtime.peer_link import PeerLink
from turnlane.runtime.profiles import ClientProfile, ProviderProfile, ServerProfile

ENDS = """
from typing import Annotated
import msgspec
from turnlane.api import (
    AdapterDescriptor, AdapterError, Direction, Secret, Stage, TrafficClass, hookimpl, setting)

def adapter(direction):
    return AdapterDescriptor(
        id="told", title="Told", summary="For tests.", direction=direction,
        traffic=TrafficClass.DATAGRAM, implementation="told:Told", settings="told:Settings",
        pairs_with=("told",))

@hookimpl
def turnlane_ingress_adapters():
    return [adapter(Direction.INGRESS)]

@hookimpl
def turnlane_egress_adapters():
    return [adapter(Direction.EGRESS)]

class Settings(msgspec.Struct, frozen=True, kw_only=True):
    ttl: Annotated[int, setting("Hops.", minimum=1, maximum=255)] = 64
    key: Annotated[Secret[str], setting("The key.", write_only=True)] = Secret("default-k")

class Told:
    def __init__(self, context, address, settings):
        self.settings = settings
    async def open(self):
        await self.prepare()
    async def prepare(self):
        told = f"ttl {self.settings.ttl} key {self.settings.key} {len(self.settings.key.reveal())}"
        raise AdapterError(Stage.LOCAL_BIND, "told", told + " " + self.settings.key.reveal())
    async def connect(self, flow):
        raise AssertionError
"""

CLIENT = ("client", "--provider", "planted", "--link", "x", "--peer", "192.0.2.1:1")
CLIENT += ("--insecure-peer", "--ingress", "told")
SERVER = ("server", "--connect", "192.0.2.1:1", "--egress", "told", "--no-token")
ENDS_OF = [(CLIENT, "ingress"), (SERVER, "egress")]


@pytest.fixture(autouse=True)
def _told(planted) -> None:
    planted.plant("turnlane-told", "[turnlane.plugins.v1]\ntold = told\n", told=ENDS)


def test_without_any_there_are_the_defaults(run) -> None:
    for command, _ in ENDS_OF:
        assert "code=told: ttl 64 key *** 9" in run(*command).err


@pytest.mark.parametrize(("command", "end"), ENDS_OF)
def test_options_are_read_as_what_the_setting_is_and_win_over_the_file(
    run, tmp_path, command, end
) -> None:
    path = tmp_path / "turnlane.toml"
    path.write_text(f'[{command[0]}.{end}_settings]\nttl = 7\nkey = "from-file"\n')

    from_file = run(*command, "--config", path)
    both = run(*command, "--config", path, f"--{end}-set", "ttl=9", f"--{end}-set", "key=s3cret=x")

    assert "code=told: ttl 7 key *** 9" in from_file.err
    assert "code=told: ttl 9 key *** 8" in both.err
    # What the schema says is secret is hidden from the log, even where an adapter tells it.
    logged = [line for line in both.err.splitlines() if " info " in line]
    assert logged
    assert "s3cret" not in "".join(logged)


@pytest.mark.parametrize(("command", "end"), ENDS_OF)
def test_each_violation_has_a_line_and_nothing_was_started(run, command, end) -> None:
    given = ("ttl=0", "tll=planted-1", "ttl2=planted-2")
    options = [part for one in given for part in (f"--{end}-set", one)]

    finished = run(*command, *options, "--log-format", "json")

    assert finished.code == 2
    lines = finished.err.splitlines()
    told = f"the settings of the {end} told do not fit: tll, ttl, ttl2"
    advice = f"see `turnlane adapters show {end} told`"
    assert [line for line in lines if not line.startswith("{")] == [
        "  tll: there is no such setting (unknown)",
        "  ttl: it is not at least 1 and at most 255 (range)",
        "  ttl2: there is no such setting (unknown)",
        f"stage=policy_validate code=invalid_settings: {told}; {advice}",
    ]
    stages = {json.loads(line).get("stage") for line in lines if line.startswith("{")}
    assert stages <= {"policy_validate", "shutdown"}
    assert "planted-" not in finished.output


@pytest.mark.parametrize(("command", "end"), ENDS_OF)
def test_an_option_that_is_no_setting_is_told_without_its_value(run, command, end) -> None:
    finished = run(*command, f"--{end}-set", "s3cret")
    twice = run(*command, f"--{end}-set", "ttl=1", f"--{end}-set", "ttl=2")

    assert finished.err == (
        f"stage=policy_validate code=invalid_setting: --{end}-set takes NAME=VALUE; "
        f"see `turnlane adapters show {end} ID` for the names\n"
    )
    assert f"code=conflicting_options: --{end}-set names a setting twice" in twice.err


def test_an_adapter_without_settings_takes_none(run) -> None:
    finished = run(*CLIENT[:-1], "planted", "--ingress-set", "ttl=1")

    assert finished.code == 2
    assert "  ttl: there is no such setting (unknown)\n" in finished.err


@pytest.mark.parametrize("end", ["ingress", "egress"])
def test_what_an_adapter_can_be_told_is_shown(run, end) -> None:
    shown = run("adapters", "show", end, "told").out
    told = json.loads(run("adapters", "show", end, "told", "--json").out)

    assert "whole number, at least 1, at most 255" in " ".join(shown.split())
    assert "default-k" not in shown
    assert (told["direction"], told["distribution"]) == (end, "turnlane-told")
    assert [each["name"] for each in told["settings_schema"]] == ["ttl", "key"]
    assert run("adapters", "show", end, "nothing").code == 3


def test_profiles_do_not_print_settings(tmp_path) -> None:
    provider = ProviderProfile(provider="acme", link=Secret("s3cret"))
    client = ClientProfile(
        provider=provider,
        peer=PeerLink.parse(Secret("192.0.2.1:1")),
        ingress_settings={"key": "s3cret"},
        ingress_text_settings={"ttl": Secret("s3cret")},
    )
    server = ServerProfile(connect="a:1", identity=tmp_path, egress_settings={"key": "s3cret"})

    assert "s3cret" not in repr(client) + repr(server)
    assert "ingress_settings=['key'], ingress_text_settings=['ttl']" in repr(client)
    assert "connect='a:1'" in repr(server)
    assert "egress_settings=['key'], egress_text_settings=[]" in repr(server)
