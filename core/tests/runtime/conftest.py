"""What the tests of the runtime share: a provider that does what the test wrote down."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
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
    ProviderCapabilities,
    ProviderContext,
    ProviderDescriptor,
    RelayEndpoint,
    Renewal,
    Resolution,
    ResolveRequest,
    Secret,
    hookimpl,
)
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.host import NobodyToAsk
from turnlane.runtime.profiles import ProviderProfile
from turnlane.runtime.resolver import Resolver

UDP = RelayEndpoint("relay.example", 3478)


class Settings(msgspec.Struct):
    """What the scripted provider can be told."""

    colour: str = "red"
    key: Secret[str] | None = None


class Scripted:
    """A provider that does what the test wrote down; a function is called with the context."""

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
        resolution: Resolution = await step(self.context) if callable(step) else step
        return resolution


@pytest.fixture
def scripted() -> Iterator[type[Scripted]]:
    """The provider's class, with an empty script."""
    planted = ModuleType("planted_provider")
    vars(planted).update(Scripted=Scripted, Settings=Settings)
    sys.modules["planted_provider"] = planted
    Scripted.script, Scripted.requests = [], []
    yield Scripted
    del sys.modules["planted_provider"]


class Clock:
    """The wall's clock, which the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


Good = Callable[..., Resolution]


@pytest.fixture
def good() -> Good:
    """Return a function that makes a resolution as a provider should give it."""

    def good(
        *endpoints: RelayEndpoint,
        expires_at: float | None = None,
        name: str = "u",
        renewal: Renewal | None = None,
    ) -> Resolution:
        return Resolution(
            Credentials(endpoints or (UDP,), Secret(name), Secret("p"), expires_at),
            Artifact("scripted", "static", {}, (), ArtifactOutcome("resolution")),
            renewal,
        )

    return good


@pytest.fixture
def profile() -> Callable[..., ProviderProfile]:
    """Return a function that makes a profile for the scripted provider."""

    def profile(**more: Any) -> ProviderProfile:
        given = {"provider": "scripted", "link": Secret("acme://planted-secret"), **more}
        return ProviderProfile(**given)

    return profile


@pytest.fixture
def resolver(scripted: type[Scripted], clock: Clock, tmp_path: Path) -> Callable[..., Resolver]:
    """Return a function that makes a resolver which knows the scripted provider, twice.

    The one called `bare` has no settings.
    """

    def resolver(**capabilities: Any) -> Resolver:
        class Planted:
            @hookimpl
            def turnlane_providers(self) -> list[ProviderDescriptor]:
                described = ProviderDescriptor(
                    "scripted",
                    "Scripted",
                    "A provider.",
                    "planted_provider:Scripted",
                    settings="planted_provider:Settings",
                    capabilities=ProviderCapabilities(**capabilities),
                )
                return [described, msgspec.structs.replace(described, id="bare", settings=None)]

        manager = PluginManager.from_modules([Planted()])
        assert [record.reason for record in manager.records] == [""]
        return Resolver(manager, NobodyToAsk(), clock, tmp_path)

    return resolver
