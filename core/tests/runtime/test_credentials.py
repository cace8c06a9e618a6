"""Credentials: what a plugin gives is checked, kept while good, resolved again in time."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import anyio
import msgspec
import pytest

from turnlane.api import (
    Artifact,
    ArtifactOutcome,
    ChallengePort,
    Credentials,
    PolicyError,
    ProviderCapabilities,
    ProviderContext,
    ProviderDescriptor,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Resolution,
    ResolveRequest,
    Secret,
    hookimpl,
)
from turnlane.plugins.manager import PluginManager
from turnlane.runtime import credentials as module
from turnlane.runtime.credentials import CredentialSource, choose_endpoint
from turnlane.runtime.host import NobodyToAsk
from turnlane.runtime.profiles import ProviderProfile

pytestmark = pytest.mark.anyio

UDP = RelayEndpoint("relay.example", 3478)
TCP = RelayEndpoint("relay.example", 3479, RelayTransport.TCP)
TLS = RelayEndpoint("tls.example", 5349, RelayTransport.TLS)


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What the scripted provider can be told."""

    colour: str = "red"


class Scripted:
    """A provider that does what the test wrote down."""

    script: ClassVar[list[Any]] = []
    requests: ClassVar[list[ResolveRequest]] = []

    def __init__(self, context: ProviderContext) -> None:
        self.context = context

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        self.requests.append(request)
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        if step == "hang":
            await anyio.sleep_forever()
        resolution: Resolution = step
        return resolution


@pytest.fixture(autouse=True)
def scripted() -> Iterator[type[Scripted]]:
    planted = ModuleType("planted_provider")
    vars(planted).update(Scripted=Scripted, Settings=Settings)
    sys.modules["planted_provider"] = planted
    Scripted.script, Scripted.requests = [], []
    yield Scripted
    del sys.modules["planted_provider"]


def good(*endpoints: RelayEndpoint, expires_at: float | None = None, name: str = "u") -> Resolution:
    return Resolution(
        Credentials(endpoints or (UDP,), Secret(name), Secret("p"), expires_at),
        Artifact("scripted", "static", {}, (), ArtifactOutcome("resolution")),
    )


def descriptor(**capabilities: Any) -> ProviderDescriptor:
    return ProviderDescriptor(
        "scripted",
        "Scripted",
        "A provider.",
        "planted_provider:Scripted",
        settings="planted_provider:Settings",
        capabilities=ProviderCapabilities(**capabilities),
    )


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def source(
    clock: Clock,
    *,
    renewable: bool = True,
    on_renewed: Callable[[Credentials], None] | None = None,
    **profile: Any,
) -> CredentialSource:
    class Planted:
        @hookimpl
        def turnlane_providers(self) -> list[ProviderDescriptor]:
            return [descriptor(renewable=renewable)]

    return CredentialSource(
        ProviderProfile(provider="scripted", link=Secret("acme://planted-secret"), **profile),
        PluginManager.from_modules([Planted()]),
        NobodyToAsk(),
        clock,
        on_renewed=on_renewed,
    )


async def test_credentials_are_resolved_once_for_all_lanes(scripted: type[Scripted]) -> None:
    scripted.script = [good()]
    credentials = source(Clock())
    assert await credentials.get() is await credentials.get()
    assert len(scripted.requests) == 1


async def test_lanes_that_ask_at_once_share_one_resolution(scripted: type[Scripted]) -> None:
    scripted.script = [good()]
    credentials = source(Clock())
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(credentials.get)
    assert len(scripted.requests) == 1


async def test_credentials_about_to_expire_are_resolved_again(scripted: type[Scripted]) -> None:
    clock = Clock()
    scripted.script = [good(expires_at=clock.now + 100), good(name="fresh")]
    credentials = source(clock)
    await credentials.get()
    clock.now += 69
    assert (await credentials.get()).username == Secret("u")
    clock.now += 2
    assert (await credentials.get()).username == Secret("fresh")


async def test_refused_credentials_are_resolved_again_once(scripted: type[Scripted]) -> None:
    scripted.script = [good(), good(name="fresh")]
    credentials = source(Clock())
    first = await credentials.get()
    second = await credentials.get(refused=first)
    assert second.username == Secret("fresh")
    assert await credentials.get(refused=first) is second


async def test_a_provider_that_cannot_renew_is_not_asked_again(scripted: type[Scripted]) -> None:
    clock = Clock()
    scripted.script = [good(expires_at=clock.now)]
    credentials = source(clock, renewable=False)
    first = await credentials.get()
    assert await credentials.get(refused=first) is first


async def test_a_crash_is_told_without_its_text(scripted: type[Scripted]) -> None:
    scripted.script = [ValueError("acme://planted-secret")]
    with pytest.raises(ProviderError) as caught:
        await source(Clock()).get()
    assert caught.value.code == "provider_crashed"
    assert "planted-secret" not in f"{caught.value} {caught.value!r}"
    assert "ValueError" in str(caught.value)


async def test_a_providers_own_error_passes_as_it_is(scripted: type[Scripted]) -> None:
    error = ProviderError("no_such_call", "the call has ended", "ask for a new link")
    scripted.script = [error]
    with pytest.raises(ProviderError) as caught:
        await source(Clock()).get()
    assert caught.value is error


async def test_a_provider_that_hangs_is_cancelled(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESOLVE_TIMEOUT", 0.01)
    scripted.script = ["hang"]
    with pytest.raises(ProviderError) as caught:
        await source(Clock()).get()
    assert caught.value.code == "provider_timeout"


async def test_a_timeout_of_the_providers_own_is_not_taken_for_ours(
    scripted: type[Scripted],
) -> None:
    scripted.script = [TimeoutError()]
    with pytest.raises(ProviderError) as caught:
        await source(Clock()).get()
    assert caught.value.code == "provider_crashed"


async def test_what_is_resolved_for_use_is_told_each_time(scripted: type[Scripted]) -> None:
    told: list[Credentials] = []
    scripted.script = [good(), ProviderError("down", "down"), good(name="fresh")]
    credentials = source(Clock(), on_renewed=told.append)
    first = await credentials.get()
    with pytest.raises(ProviderError):
        await credentials.get(refused=first)
    fresh = await credentials.get(refused=first)
    await credentials.get()
    assert told == [first, fresh]


def malformed(**changes: Any) -> Resolution:
    resolution = good()
    return msgspec.structs.replace(
        resolution, credentials=msgspec.structs.replace(resolution.credentials, **changes)
    )


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "credentials",
        msgspec.structs.replace(good(), credentials=None),
        malformed(username="plain text"),
        malformed(username=Secret("")),
        malformed(username=Secret("u" * 509)),
        malformed(username=Secret("\ud800")),
        malformed(password=Secret(b"bytes")),
        malformed(password=Secret("\ud800")),
        msgspec.structs.replace(good(), artifact=None),
        msgspec.structs.replace(
            good(), artifact=msgspec.structs.replace(good().artifact, input={"link": object()})
        ),
        malformed(endpoints=()),
        malformed(endpoints=[UDP]),
        malformed(endpoints=(UDP,) * 33),
        malformed(endpoints=("relay:3478",)),
        malformed(endpoints=(RelayEndpoint("", 3478),)),
        malformed(endpoints=(RelayEndpoint("h", 0),)),
        malformed(endpoints=(RelayEndpoint("h", 65536),)),
        malformed(endpoints=(msgspec.structs.replace(UDP, transport="udp"),)),
        malformed(endpoints=(msgspec.structs.replace(UDP, server_name=5),)),
        malformed(expires_at="tomorrow"),
    ],
)
async def test_what_a_plugin_returns_is_checked_at_the_boundary(
    scripted: type[Scripted], returned: Any
) -> None:
    scripted.script = [returned]
    with pytest.raises(ProviderError) as caught:
        await source(Clock()).get()
    assert caught.value.code == "invalid_resolution"
    assert "plain text" not in str(caught.value)


async def test_settings_are_made_into_the_schema_or_refused(scripted: type[Scripted]) -> None:
    scripted.script = [good(), good()]
    await source(Clock(), settings={"colour": "blue"}).get()
    assert scripted.requests[0].settings == Settings("blue")
    for wrong in ({"colour": 5}, {"shape": "round"}):
        with pytest.raises(PolicyError) as caught:
            await source(Clock(), settings=wrong).get()
        assert caught.value.code == "invalid_setting"
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    ("endpoints", "transport", "host", "port", "chosen"),
    [
        ((TCP, UDP), None, None, None, UDP),
        ((TCP, TLS), None, None, None, TCP),
        ((UDP, TCP), RelayTransport.TCP, None, None, TCP),
        ((UDP,), RelayTransport.TCP, None, None, msgspec.structs.replace(TCP, port=3478)),
        ((UDP, TLS), RelayTransport.TLS, None, None, TLS),
        ((UDP,), None, "192.0.2.9", None, RelayEndpoint("192.0.2.9", 3478)),
        ((UDP,), None, None, 99, RelayEndpoint("relay.example", 99)),
    ],
)
def test_the_endpoint_of_a_session(
    endpoints: tuple[RelayEndpoint, ...],
    transport: RelayTransport | None,
    host: str | None,
    port: int | None,
    chosen: RelayEndpoint,
) -> None:
    credentials = good(*endpoints).credentials
    assert choose_endpoint(credentials, descriptor(), transport, host, port) == chosen
