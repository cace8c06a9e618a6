"""The resolver: settings and results are checked, faults told as the plugin's, others usable."""

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from turnlane.api import (
    Artifact,
    ArtifactOutcome,
    LinkError,
    ProviderError,
    RelayEndpoint,
    Renewal,
    Secret,
    SettingsError,
    UnavailableError,
)
from turnlane.plugins.manager import PluginManager
from turnlane.runtime import resolver as module
from turnlane.runtime.host import NobodyToAsk
from turnlane.runtime.resolver import CONFIG_VARIABLE, MAX_DEPTH, default_config_dir
from turnlane.telemetry import REDACTOR

pytestmark = pytest.mark.anyio

UDP = RelayEndpoint("relay.example", 3478)


async def failure(resolver, profile, **more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await resolver().resolve(profile(**more))
    return caught.value


async def test_a_crash_is_told_without_its_text(scripted, resolver, profile) -> None:
    for crash in (ValueError, SystemExit, TimeoutError):
        scripted.script = [crash("acme://planted-secret")]
        error = await failure(resolver, profile)
        assert error.code == "provider_crashed"
        assert "planted-secret" not in f"{error} {error!r}"
        assert crash.__name__ in str(error)


async def test_a_providers_own_error_passes_as_it_is(scripted, resolver, profile) -> None:
    error = LinkError("no_such_call", "the call has ended", "ask for a new link")
    for raised in (error, ExceptionGroup("tasks", [ExceptionGroup("more", [error])])):
        scripted.script = [raised]
        assert await failure(resolver, profile) is error


async def test_an_error_loses_an_artifact_that_is_none(scripted, resolver, profile) -> None:
    sound = Artifact("scripted", "static", {}, (), ArtifactOutcome("provider_error"))
    broken: Any = msgspec.structs.replace(sound, stages="none")
    for artifact, kept in ((sound, sound), (broken, None), ("text", None), (None, None)):
        scripted.script = [ProviderError("refused", "refused", artifact=artifact)]
        assert (await failure(resolver, profile)).artifact is kept


async def test_a_provider_that_hangs_is_cancelled(
    scripted, resolver, profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESOLVE_TIMEOUT", 0.01)
    scripted.script = ["hang"]
    assert (await failure(resolver, profile)).code == "provider_timeout"


@pytest.mark.parametrize("interactive", [False, True])
async def test_a_human_is_given_more_time(
    scripted, resolver, profile, monkeypatch: pytest.MonkeyPatch, interactive
) -> None:
    left = []

    async def look(context):
        left.append(anyio.current_effective_deadline() - anyio.current_time())
        raise ProviderError("enough", "enough")

    scripted.script = [look]
    await failure(resolver, profile, interactive=interactive)
    limit = module.INTERACTIVE_TIMEOUT if interactive else module.RESOLVE_TIMEOUT
    assert left == [pytest.approx(limit, abs=1)]


@pytest.mark.parametrize(
    "changes",
    [
        {"credentials": None},
        {"username": "plain text"},
        {"username": Secret("")},
        {"password": Secret(b"bytes")},
        {"password": Secret("\ud800")},
        {"username": Secret("\ud800")},
        {"username": Secret("u" * 509)},
        {"endpoints": ()},
        {"endpoints": [UDP]},
        {"endpoints": (UDP,) * 33},
        {"endpoints": ("relay:3478",)},
        {"endpoints": (RelayEndpoint("", 3478),)},
        {"endpoints": (RelayEndpoint("h", 0),)},
        {"endpoints": (RelayEndpoint("h", 65536),)},
        {"endpoints": (msgspec.structs.replace(UDP, transport="udp"),)},
        {"endpoints": (msgspec.structs.replace(UDP, server_name=5),)},
        {"expires_at": "tomorrow"},
        {"expires_at": True},
        {"expires_at": float("nan")},
        {"expires_at": float("inf")},
        {"renewal": "resolve"},
        {"artifact": None},
        {"artifact": Artifact("scripted", "static", {}, "stages", ArtifactOutcome("resolution"))},
        {"artifact": Artifact("scripted", "static", {"x": object()}, (), None)},
    ],
)
async def test_what_a_plugin_returns_is_checked_at_the_boundary(
    scripted, resolver, profile, good, changes: dict[str, Any]
) -> None:
    resolution = good()
    inner = {k: v for k, v in changes.items() if k in ("username", "password", "endpoints")}
    inner |= {k: v for k, v in changes.items() if k == "expires_at"}
    outer = {k: v for k, v in changes.items() if k not in inner}
    if inner:
        outer["credentials"] = msgspec.structs.replace(resolution.credentials, **inner)
    scripted.script = [msgspec.structs.replace(resolution, **outer)]
    error = await failure(resolver, profile)
    assert error.code == "invalid_resolution"
    assert "plain text" not in str(error)


@pytest.mark.parametrize("returned", [None, "credentials", object()])
async def test_what_is_no_resolution_is_told_as_such(scripted, resolver, profile, returned) -> None:
    async def give(context):
        return returned

    scripted.script = [give]
    assert (await failure(resolver, profile)).code == "invalid_resolution"


async def test_settings_are_made_into_the_schema_or_refused_before_anything_happens(
    scripted, resolver, profile, good
) -> None:
    scripted.script = [good(), good()]
    await resolver().resolve(profile(settings={"colour": "blue"}))
    await resolver().resolve(profile())
    assert [request.settings.colour for request in scripted.requests] == ["blue", "red"]
    with pytest.raises(SettingsError) as caught:
        await resolver().resolve(profile(settings={"colour": 5, "shape": "round"}))
    assert [(one.field, one.code) for one in caught.value.violations] == [
        ("colour", "type"),
        ("shape", "unknown"),
    ]
    assert caught.value.advice == "see `turnlane providers show scripted`"
    assert len(scripted.requests) == 2


async def test_settings_that_are_texts_win_and_are_read_by_the_schema(
    scripted, resolver, profile, good
) -> None:
    scripted.script = [good()]
    texts = {"colour": Secret("green"), "key": Secret("k")}
    await resolver().resolve(profile(settings={"colour": "blue"}, text_settings=texts))
    assert scripted.requests[0].settings.colour == "green"
    assert scripted.requests[0].settings.key == Secret("k")
    with pytest.raises(SettingsError):
        await resolver().resolve(profile(text_settings={"shape": Secret("round")}))


async def test_the_log_hides_what_is_secret_among_the_settings(
    scripted, resolver, profile, good
) -> None:
    scripted.script = [good()] * 2
    host = resolver()
    for _ in range(2):
        await host.resolve(profile(settings={"colour": "blue", "key": "planted-setting"}))
    assert REDACTOR.redact("planted-setting blue") == "*** blue"
    REDACTOR.remove(Secret("planted-setting"))
    assert REDACTOR.redact("planted-setting") == "planted-setting"


async def test_a_provider_without_a_schema_knows_no_setting(
    scripted, resolver, profile, good
) -> None:
    scripted.script = [good()]
    await resolver().resolve(profile(provider="bare"))
    assert scripted.requests[0].settings is None
    with pytest.raises(SettingsError) as caught:
        await resolver().resolve(profile(provider="bare", settings={"a": 1, "b": 2}))
    assert [(one.field, one.code) for one in caught.value.violations] == [
        ("a", "unknown"),
        ("b", "unknown"),
    ]


async def test_a_provider_remembers_what_no_other_sees(scripted, resolver, profile, good) -> None:
    async def remember(context):
        context.memory["seen"] = context.memory.get("seen", 0) + 1
        return good(name=f"user-{context.memory['seen']}")

    scripted.script = [remember] * 4
    host, other = resolver(), resolver()
    names = []
    for asked, provider in ((host, "scripted"), (host, "scripted"), (host, "bare")):
        names.append((await asked.resolve(profile(provider=provider))).credentials.username)
    names.append((await other.resolve(profile())).credentials.username)
    assert names == [Secret("user-1"), Secret("user-2"), Secret("user-1"), Secret("user-1")]


async def test_a_provider_sees_the_clock_the_configuration_and_traces(
    *, scripted, resolver, profile, good, clock, tmp_path: Path
) -> None:
    async def look(context):
        with context.span("step", number=1):
            assert context.config_dir == tmp_path
        return good(expires_at=context.wall_time())

    scripted.script = [look]
    assert (await resolver().resolve(profile())).credentials.expires_at == clock.now


def test_the_configuration_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_config_dir() == tmp_path / "turnlane"


@pytest.mark.parametrize(
    ("chosen", "found"),
    [("{}/here", "here"), ("relative/here", "relative/here"), ("~/here", "home/here")],
)
def test_a_variable_names_another_folder_of_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TURNLANE_CONFIG_DIR", chosen.format(tmp_path))
    resolver = module.Resolver(PluginManager.from_modules([]), NobodyToAsk(), lambda: 0.0)
    assert resolver.config_dir == tmp_path / found


def test_an_empty_variable_names_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TURNLANE_CONFIG_DIR", "")
    assert default_config_dir() == tmp_path / "turnlane"


async def test_a_provider_uses_another_with_settings_of_its_own(
    scripted, resolver, profile, good
) -> None:
    async def delegate(context):
        return await context.resolve_with("scripted", Secret("acme://inner"), {"colour": "blue"})

    scripted.script = [delegate, good(name="inner")]
    resolution = await resolver().resolve(profile(provider="bare", interactive=True))
    assert resolution.credentials.username == Secret("inner")
    outer, inner = scripted.requests
    assert (outer.link, inner.link) == (Secret("acme://planted-secret"), Secret("acme://inner"))
    assert (inner.settings.colour, inner.interactive) == ("blue", True)


@pytest.mark.parametrize(
    ("renewable", "given", "found"),
    [
        (True, None, Renewal.RESOLVE),
        (False, None, Renewal.NEVER),
        (True, Renewal.CHALLENGE, Renewal.CHALLENGE),
        (True, Renewal.NEVER, Renewal.NEVER),
    ],
)
async def test_a_provider_sees_how_what_it_got_through_another_is_renewed(
    scripted, resolver, profile, good, *, renewable, given, found
) -> None:
    seen = []

    async def delegate(context):
        resolution = await context.resolve_with("scripted", Secret("acme://inner"))
        seen.append(resolution.renewal)
        return resolution

    scripted.script = [delegate, good(renewal=given)]
    resolution = await resolver(renewable=renewable).resolve(profile(provider="bare"))
    assert seen == [found]
    assert resolution.renewal is found


async def test_providers_that_use_each_other_without_end_are_stopped(
    scripted, resolver, profile
) -> None:
    async def again(context):
        return await context.resolve_with("scripted", Secret("acme://inner"))

    scripted.script = [again] * 9
    assert (await failure(resolver, profile)).code == "provider_cycle"
    assert len(scripted.requests) == MAX_DEPTH


async def test_a_provider_that_uses_what_is_not_there_is_told_which(
    scripted, resolver, profile
) -> None:
    async def missing(context):
        return await context.resolve_with("nope", Secret("acme://inner"))

    async def untyped(context):
        return await context.resolve_with("scripted", "acme://planted-secret")

    scripted.script = [missing, untyped]
    with pytest.raises(UnavailableError) as caught:
        await resolver().resolve(profile())
    assert caught.value.code == "unknown_provider"
    assert (await failure(resolver, profile)).code == "provider_crashed"
    assert len(scripted.requests) == 2
