"""`turnlane plugins check`: what it judges, what it leaves out, and how it exits."""

import json
import textwrap

import pytest

SOUND = """
from typing import Annotated

import msgspec
from turnlane.api import (
    Artifact, ArtifactError, ArtifactOutcome, ArtifactResolution, Credentials, LinkError,
    ProviderDescriptor, ProviderError, RelayEndpoint, Resolution, Secret, StageOutcome,
    StageRecord, StageRequest, StageResponse, hookimpl, setting,
)

@hookimpl
def turnlane_providers():
    return [ProviderDescriptor(
        id="sound", title="Sound", summary="For tests.", implementation="sound:Sound",
        settings="sound:Settings", example_links=("sound://example",),
    )]

class Settings(msgspec.Struct):
    region: Annotated[str, setting("Where.", pattern="[a-z]{2}")] = "eu"
    key: Annotated[Secret[str], setting("A key.", write_only=True)] = Secret("")

def artifact(outcome, kind):
    stage = StageRecord("read", "read", StageRequest("PARSE"), StageResponse(), StageOutcome(kind))
    return Artifact("sound", "static", {}, (stage,), outcome)

class Sound:
    def __init__(self, context):
        pass
    async def resolve(self, request, challenges):
        scheme, _, rest = request.link.reveal().partition("://")
        if scheme != "sound" or not rest:
            failed = ArtifactOutcome("provider_error", None, ArtifactError("read", "not_ours"))
            raise LinkError("not_ours", "it is not ours", "write sound://", provider_stage="read",
                            artifact=artifact(failed, "provider_error"))
        await self.work(rest, request)
        where = ArtifactResolution("<redacted>", "<redacted>", "198.51.100.7:3478")
        return Resolution(
            Credentials((RelayEndpoint("198.51.100.7", 3478),), Secret("user"), Secret("pass")),
            artifact(ArtifactOutcome("resolution", where), "resolution"))
    async def work(self, rest, request):
        BODY
"""


@pytest.fixture
def install(site, blocked, monkeypatch):
    """Install the sound provider, with what else it does before it resolves."""

    def install(body="pass", name="turnlane-sound"):
        source = textwrap.dedent(SOUND).replace("BODY", body)
        site.plant(name, "[turnlane.plugins.v1]\nsound = sound\n", sound=source)
        return site

    return install


def findings(run, *arguments):
    finished = run("plugins", "check", *arguments, "--json")
    found = json.loads(finished.out)
    results: dict[str, set[str]] = {}
    for one in found["findings"]:
        results.setdefault(one["check"], set()).add(one["result"])
    return finished, found, results


def test_generic_turn_passes_as_it_is_installed(run) -> None:
    finished = run("plugins", "check", "turnlane-generic-turn")
    assert (finished.code, finished.err) == (0, "")
    lines = finished.out.splitlines()
    assert lines[0].split() == ["OF", "CHECK", "ON", "RESULT", "FINDING"]
    (row,) = [line for line in lines if "resolves_the_link" in line]
    assert row.split() == [
        "provider",
        "generic-turn",
        "resolves_the_link",
        "asyncio,",
        "trio",
        "passed",
    ]
    (row,) = [line for line in lines if "refuses_bad_settings" in line]
    assert "not judged" in row
    assert "the provider has no settings" in row
    summary = lines[-1]
    assert summary.startswith("turnlane-generic-turn ")
    assert summary.endswith(" on asyncio, trio: 25 passed, 0 failed, 2 not judged")


def test_everything_is_told_as_json(run, install) -> None:
    install()
    finished, found, results = findings(run, "Turnlane_Sound")
    assert (finished.code, finished.err) == (0, "")
    assert (found["distribution"], found["version"]) == ("turnlane-sound", "1.2")
    assert (found["passed"], found["failed"], found["not_judged"]) == (27, 0, 0)
    assert {name for name, result in results.items() if result != {"passed"}} == set()
    assert found["findings"][0] == {
        "kind": "plugin",
        "id": "sound",
        "check": "plugin_loads",
        "backend": "",
        "result": "passed",
        "message": "",
    }
    assert {one["backend"] for one in found["findings"][1:]} == {"asyncio", "trio"}


def test_a_fault_is_told_in_its_line_and_the_exit_code_is_1(run, install) -> None:
    install("import logging; logging.getLogger('sound').warning('%s', request.link.reveal())")
    finished = run("plugins", "check", "turnlane-sound", "--link", "sound://planted-s3cret")
    assert finished.code == 1
    (row,) = [line for line in finished.out.splitlines() if " failed " in line]
    assert "secrets_stay_secret" in row
    assert "log record" in row
    assert "s3cret" not in finished.output
    assert finished.err.endswith(
        "stage=policy_validate code=checks_failed: 2 of 27 checks of turnlane-sound failed; "
        "each says above what is wrong; docs/plugins.md says what it asks for\n"
    )


def test_backends_that_do_not_agree_have_a_line_each(run, install) -> None:
    install("import anyio; assert 'trio' not in anyio.get_cancelled_exc_class().__module__")
    lines = run("plugins", "check", "turnlane-sound").out.splitlines()
    at = [number for number, line in enumerate(lines) if "resolves_the_link  " in line][:2]
    assert [lines[number].split()[3:5] for number in at] == [
        ["asyncio", "passed"],
        ["trio", "failed"],
    ]
    assert at[1] == at[0] + 1


@pytest.mark.parametrize(
    "body",
    [
        "import socket; await Reached.by(lambda: socket.getaddrinfo('turn.example.org', 3478))",
        "import socket; await Reached.by(lambda: socket.create_connection(('192.0.2.1', 9), 1))",
        "import anyio; await Reached.by(lambda: __import__('subprocess').Popen(['true']))",
    ],
)
def test_an_example_link_that_leads_off_this_machine_is_not_judged(run, install, body) -> None:
    site = install(body)
    with (site.folder / "sound.py").open("a") as file:
        file.write(
            "\nclass Reached:\n"
            "    @staticmethod\n"
            "    async def by(reach):\n"
            "        try:\n"
            "            reach()\n"
            "        except OSError as error:\n"
            "            raise ProviderError('unreachable', 'no network', 'look') from error\n"
        )
    finished, found, results = findings(run, "turnlane-sound")
    assert finished.code == 0
    assert results["resolves_the_link"] == {"not_judged"}
    assert results["memory_survives"] == {"not_judged"}
    assert results["refuses_bad_links"] == {"passed"}
    (message,) = {
        one["message"] for one in found["findings"] if one["check"] == "resolves_the_link"
    }
    assert "(unreachable)" in message
    assert "--link-file" in message


def test_a_crash_at_the_example_link_is_a_fault(run, install) -> None:
    install("raise KeyError(rest)")
    finished, _, results = findings(run, "turnlane-sound")
    assert finished.code == 1
    assert results["resolves_the_link"] == {"failed"}


def test_what_a_plugin_prints_does_not_mix_with_the_answer(run, install) -> None:
    install("print('hello')")
    finished, found, _ = findings(run, "turnlane-sound")
    assert found["failed"] == 0
    assert "hello" in finished.err


def test_settings_are_told_and_searched_for(run, install) -> None:
    install("assert request.settings.region == 'us'; print(request.settings.key.reveal())")
    told = ["--set", "region=us", "--set", "key=planted-key"]
    finished, _, results = findings(run, "turnlane-sound", *told)
    assert finished.code == 1
    assert {name for name, result in results.items() if result == {"failed"}} == {
        "secrets_stay_secret"
    }


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--set", "region=Europe"], "invalid_settings"),
        (["--set", "region"], "invalid_setting"),
        (["--link", "sound://x", "--link-file", "there"], "conflicting_options"),
        (["--cases", "nowhere.py:CASE"], "invalid_cases"),
        (["--cases", "cases.py"], "invalid_cases"),
        (["--cases", "cases.py:NOTHING"], "invalid_cases"),
        (["--cases", "cases.py:NUMBER"], "invalid_cases"),
        (["--cases", "cases.py:OTHER"], "unknown_case"),
        (["--cases", "cases.py:CASE", "--link", "sound://x"], "ambiguous_provider"),
    ],
)
def test_bad_input_exits_with_2(run, install, tmp_path, arguments, code) -> None:
    install()
    write_cases(tmp_path)
    finished = run("plugins", "check", "turnlane-sound", *arguments)
    assert finished.code == 2, finished.err
    assert f"code={code}: " in finished.err
    assert finished.out == ""


def test_a_provider_without_settings_takes_none(run) -> None:
    finished = run("plugins", "check", "turnlane-generic-turn", "--set", "region=eu")
    assert finished.code == 2
    assert "code=unknown_setting: the provider generic-turn has no settings" in finished.err


CASES = """
import sound
from turnlane.testing.providers import ProviderCase

CASE = ProviderCase(sound, "sound", "sound://mine", ("other://x",), {"region": "us"},
                    ({"region": "USA"},), ("planted-secret",))
OTHER = ProviderCase(sound, "other", "x", ())
NUMBER = 5
CASES = [CASE, CASE]

class TestSound:
    case = CASE
"""


def write_cases(folder) -> None:
    (folder / "cases.py").write_text(CASES)


@pytest.mark.parametrize(("name", "count"), [("CASE", 27), ("TestSound", 27), ("CASES", 53)])
def test_cases_of_the_plugins_own_tests_are_taken(run, install, tmp_path, name, count) -> None:
    install("assert rest == 'mine', rest")
    write_cases(tmp_path)
    finished, found, _ = findings(run, "turnlane-sound", "--cases", f"cases.py:{name}")
    assert (finished.code, found["passed"]) == (0, count)


def test_bad_links_may_be_named(run, install) -> None:
    install()
    _, _, results = findings(run, "turnlane-sound", "--bad-link", "sound://but-good")
    assert results["refuses_bad_links"] == {"failed"}


@pytest.mark.parametrize(
    ("distribution", "code"),
    [
        ("turnlane-nowhere", "distribution_not_installed"),
        ("", "distribution_not_installed"),
        ("turnlane", "nothing_to_check"),
        ("turnlane-empty", "nothing_to_check"),
    ],
)
def test_where_there_is_nothing_to_check_it_exits_with_3(run, site, distribution, code) -> None:
    site.plant("turnlane-empty", "[turnlane.plugins.v1]\nempty = empty\n", empty="")
    finished = run("plugins", "check", distribution)
    assert (finished.code, finished.out) == (3, "")
    assert f"code={code}: " in finished.err


def test_a_plugin_that_does_not_load_has_failed(run, site, blocked) -> None:
    site.plant("turnlane-raising", "[turnlane.plugins.v1]\nr = raising\n", raising="1 / 0")
    finished, found, _ = findings(run, "turnlane-raising")
    assert finished.code == 1
    (one,) = found["findings"]
    assert (one["check"], one["result"]) == ("plugin_loads", "failed")
    assert "ZeroDivisionError" in one["message"]


def test_a_plugin_that_is_blocked_is_not_judged(run, blocked) -> None:
    finished, found, results = findings(run, "turnlane-generic-turn")
    assert (finished.code, results) == (0, {"plugin_loads": {"not_judged"}})
    assert found["findings"][0]["message"] == "blocked by TURNLANE_DISABLE_PLUGINS"


def test_adapters_are_checked_at_addresses_of_this_machine(run, planted) -> None:
    _, found, _ = findings(run, "turnlane-planted")
    results = {
        (one["kind"], one["check"]): one["result"]
        for one in found["findings"]
        if one["backend"] == "asyncio"
    }
    assert results["ingress adapter", "carries_datagrams"] == "passed"
    assert results["egress adapter", "carries_datagrams"] == "passed"
    # Its address is taken apart by a hand that knows no malformed ones.
    assert results["ingress adapter", "refuses_bad_addresses"] == "failed"


TUNNEL = """
from turnlane.api import (
    AdapterError, PlatformTunnelDescriptor, Stage, TunnelCapability, hookimpl,
)

@hookimpl
def turnlane_platform_tunnels():
    return [PlatformTunnelDescriptor("tun", "Tun", "For tests.", ("linux",), "dug:Tun")]

class Tun:
    def __init__(self, settings):
        pass
    async def capability(self):
        return TunnelCapability(True)
    async def open(self, request):
        raise AssertionError("nobody asked for it")
"""


def test_a_tunnel_is_not_opened_unless_a_case_asks_for_it(run, site, blocked, tmp_path) -> None:
    site.plant("turnlane-dug", "[turnlane.plugins.v1]\ndug = dug\n", dug=TUNNEL)
    finished, found, results = findings(run, "turnlane-dug")
    assert finished.code == 0
    assert results["capability_is_told"] == {"passed"}
    assert results["opens_a_device"] == {"not_judged"}
    messages = {one["message"] for one in found["findings"] if one["check"] == "opens_a_device"}
    assert messages == {"it would change this host: say how with --cases"}

    (tmp_path / "cases.py").write_text(
        "import dug\nfrom turnlane.testing.tunnels import TunnelCase\n"
        "CASE = TunnelCase(dug, 'tun')\n"
    )
    finished, _, results = findings(run, "turnlane-dug", "--cases", "cases.py:CASE")
    assert (finished.code, results["opens_a_device"]) == (1, {"failed"})
