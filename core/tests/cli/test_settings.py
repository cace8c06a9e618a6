"""Settings of a provider: from options, from a file, shown, refused."""

import json

import pytest

from turnlane.api import Secret
from turnlane.runtime.profiles import ProviderProfile

PROVIDER = """
from typing import Annotated, Literal
import msgspec
from turnlane.api import ProviderDescriptor, ProviderError, Secret, hookimpl, setting, Kept

@hookimpl
def turnlane_providers():
    return [
        ProviderDescriptor(
            id="acme", title="Acme", summary="For tests.", implementation="acme:Acme",
            settings="acme:Settings", version="7.1"),
        ProviderDescriptor(id="bare", title="Bare", summary="s", implementation="acme:Acme"),
        ProviderDescriptor(
            id="lost", title="Lost", summary="s", implementation="acme:Acme",
            settings="acme_missing:Settings"),
    ]

class Member(msgspec.Struct, frozen=True):
    name: Annotated[str, setting("Who.")]

class Settings(msgspec.Struct, frozen=True, kw_only=True):
    region: Annotated[str, setting("Where to ask.", pattern="[a-z]{2}")]
    lifetime: Annotated[int, setting("Seconds.", minimum=60)] = 3600
    api_key: Annotated[Secret[str], setting("The key.", kept=Kept.EPHEMERAL)] = Secret("default-k")
    tags: Annotated[list[str], setting("Words.")] = []
    members: list[Member] = []

class Acme:
    def __init__(self, context):
        pass
    async def resolve(self, request, challenges):
        told = request.settings
        raise ProviderError("told", f"{told.region} {told.lifetime} {told.tags} {told.api_key}"
                            f" {len(told.api_key.reveal())} {len(told.members)}")
"""


@pytest.fixture(autouse=True)
def _acme(planted) -> None:
    planted.plant("turnlane-acme", "[turnlane.plugins.v1]\nacme = acme\n", acme=PROVIDER)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "turnlane.toml"
    path.write_text(
        '[probe]\nprovider = "acme"\nlink = "acme://x"\n'
        '[probe.settings]\nregion = "eu"\nlifetime = 61\ntags = ["a"]\napi_key = "planted-key"\n'
        'members = [{ name = "x" }, { name = "y" }]\n'
        '[client]\nprovider = "acme"\nlink = "acme://x"\npeer = "192.0.2.1:1"\n'
        'insecure_peer = true\n[client.settings]\nregion = "planted-region"\n'
    )
    return path


def acme(run, *arguments):
    return run("probe", "--provider", "acme", "--link", "acme://x", *arguments)


def test_options_are_read_as_what_the_setting_is(run) -> None:
    given = ("region=eu", "lifetime=61", 'tags=["a", "b=c"]', "api_key= with=more ")
    finished = acme(run, *(part for one in given for part in ("--set", one)))
    assert "code=told: eu 61 ['a', 'b=c'] *** 11 0\n" in finished.err


def test_a_file_has_them_with_their_types(run, file) -> None:
    assert "code=told: eu 61 ['a'] *** 11 2\n" in run("probe", "--config", file).err


def test_an_option_wins_over_the_file(run, file) -> None:
    finished = run("probe", "--config", file, "--set", "lifetime=99", "--set", "tags=[]")
    assert "code=told: eu 99 [] *** 11 2\n" in finished.err


def test_each_violation_has_a_line_and_no_value_is_repeated(run) -> None:
    given = ("regoin=planted-1", "region=planted-2", "lifetimes=planted-3", "tags=planted-4")
    finished = acme(run, *(part for one in given for part in ("--set", one)))
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == (
        "  lifetimes: there is no such setting (unknown)\n"
        "  region: it does not have the form that is wanted (pattern)\n"
        "  regoin: there is no such setting (unknown)\n"
        "  tags: expected list of text, as JSON (type)\n"
        "stage=policy_validate code=invalid_settings: the settings of the provider acme do not "
        "fit: lifetimes, region, regoin, tags; see `turnlane providers show acme`\n"
    )


def test_a_client_refuses_them_before_anything_starts(run, file) -> None:
    finished = run("client", "--config", file, "--ingress", "planted", "--log-format", "json")
    assert finished.code == 2
    assert "  region: it does not have the form that is wanted (pattern)\n" in finished.err
    events = [json.loads(line) for line in finished.err.splitlines() if line.startswith("{")]
    assert "provider_resolve" not in {event.get("stage") for event in events}
    assert "planted-region" not in finished.output


def test_as_json_the_violations_are_a_list(run) -> None:
    finished = acme(run, "--json", "--set", "lifetime=planted", "--set", "region=e")
    assert finished.code == 2
    assert json.loads(finished.out) == {
        "provider": "acme",
        "result": "invalid_settings",
        "stage": "policy_validate",
        "code": "invalid_settings",
        "message": "the settings of the provider acme do not fit: lifetime, region",
        "advice": "see `turnlane providers show acme`",
        "violations": [
            {"field": "lifetime", "code": "type", "message": "expected whole number"},
            {
                "field": "region",
                "code": "pattern",
                "message": "it does not have the form that is wanted",
            },
        ],
    }


def test_a_provider_without_settings_takes_none(run) -> None:
    finished = run("probe", "--provider", "bare", "--link", "x", "--set", "a=b")
    assert finished.code == 2
    assert "  a: there is no such setting (unknown)\n" in finished.err


@pytest.mark.parametrize("given", ["planted", "=planted", " =planted", ""])
def test_what_is_no_setting_is_refused_without_being_repeated(run, given) -> None:
    finished = acme(run, "--set", given)
    assert finished.code == 2
    assert "code=invalid_setting: --set takes NAME=VALUE; " in finished.err
    assert "planted" not in finished.output


def test_a_setting_that_is_given_twice_is_refused(run) -> None:
    finished = acme(run, "--set", "region=eu", "--set", "region=us")
    assert "code=conflicting_options: --set names a setting twice" in finished.err


def test_a_file_has_settings_as_a_table_and_the_environment_has_none(
    run, tmp_path, monkeypatch
) -> None:
    path = tmp_path / "turnlane.toml"
    path.write_text('[client]\nsettings = "region=eu"\n[server]\nsettings = {}\n')
    told = run("probe", "--config", path).err
    assert "[client] settings is not a table" in told
    assert "[server] settings is not an option" in told
    monkeypatch.setenv("TURNLANE_CLIENT_SETTINGS", "region=eu")
    assert "code=unknown_environment" in run("client").err


def test_a_profile_does_not_print_its_settings() -> None:
    profile = ProviderProfile(
        provider="acme",
        link=Secret("planted"),
        settings={"api_key": "planted"},
        text_settings={"region": Secret("planted")},
    )
    for printed in (repr(profile), str(profile), f"{profile}", repr([profile])):
        assert "planted" not in printed
        assert "['api_key', 'region']" in printed


def test_what_a_provider_can_be_told_is_shown(run) -> None:
    lines = [line.rstrip() for line in run("providers", "show", "acme").out.splitlines()]
    assert not [line for line in lines if line.startswith("settings")]
    rows = [line.split(maxsplit=1) for line in lines[lines.index("") + 1 :] if line]
    table = {row[0]: " ".join(row[1].split()) for row in rows if len(row) == 2}
    assert table == {
        "SETTING": "VALUE DEFAULT KEPT MEANING",
        "region": "text, of the form [a-z]{2} required profile Where to ask.",
        "lifetime": "whole number, at least 60 3600 profile Seconds.",
        "api_key": "secret text ephemeral The key.",
        "tags": "list of text [] profile Words.",
        "members": "list of table [] profile",
        "members[].name": "text required profile Who.",
    }
    assert "default-k" not in "".join(lines)


def test_programs_are_shown_the_schema(run) -> None:
    told = json.loads(run("providers", "show", "acme", "--json").out)
    schema = {one["name"]: one for one in told["settings_schema"]}
    assert list(schema) == ["region", "lifetime", "api_key", "tags", "members"]
    assert schema["lifetime"]["constraints"] == {"ge": 60}
    assert (schema["api_key"]["write_only"], "default" in schema["api_key"]) == (True, False)
    assert (told["version"], told["settings"]) == ("7.1", "acme:Settings")
    bare = json.loads(run("providers", "show", "bare", "--json").out)
    assert (bare["settings_schema"], bare["version"]) == ([], "1.2")
    assert "SETTING" not in run("providers", "show", "bare").out


def test_a_schema_that_is_not_there_is_told(run) -> None:
    finished = run("providers", "show", "lost")
    assert finished.code == 3
    assert "code=import_failed" in finished.err
