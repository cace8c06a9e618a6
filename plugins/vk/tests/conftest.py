"""What the tests of this distribution share: a stand-in for VK, and clients of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from turnlane.api import Artifact, Challenge, ChallengePort, ProviderError, Resolution, Secret
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.profiles import ProviderProfile
from turnlane.runtime.resolver import Resolver
from turnlane.telemetry.redaction import find_leaks
from turnlane.testing.context import ScriptedChallenges
from turnlane_tests.json_schema import violations
from turnlane_tests.vk_stand_in import VkStandIn
from turnlane_vk import browser, plugin
from turnlane_vk.browser import BrowserUnavailable, Observations, ObservedAnswer, Watch

HERE = Path(__file__).parent
SCHEMA = HERE.parent / "src" / "turnlane_vk" / "artifact.schema.json"
NOW = 1_700_000_000.75
"""What the provider's clock says."""


class FakeBrowser:
    """Plays the browser: has seen `answers` by the time the operator has answered."""

    def __init__(self) -> None:
        self.answers: list[ObservedAnswer] = []
        self.closed = False
        self.unavailable: BrowserUnavailable | None = None
        self.watched: list[Watch] = []

    def sees(
        self, stage: str, document: object, *, status: int = 200, keys: tuple[str, ...] = ()
    ) -> None:
        """Let the page get an answer; bytes are a body as it stands."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers.append(
            ObservedAnswer(stage=stage, status=status, form_keys=keys, body=Secret(body))
        )

    async def observe(
        self, watch: Watch, challenge: Challenge, challenges: ChallengePort
    ) -> Observations:
        if self.unavailable is not None:
            raise self.unavailable
        self.watched.append(watch)
        answer = await challenges.ask(challenge)
        return Observations(tuple(self.answers), "closed" if self.closed else answer.action)


@dataclass
class Client:
    """Resolves links through the runtime, as a session does."""

    vk: VkStandIn
    browser: FakeBrowser
    settings: dict[str, Any] = field(default_factory=dict)
    action: Literal["continue", "cancel", "timeout"] = "continue"
    now: float = NOW
    asked: list[Challenge] = field(default_factory=list)

    async def resolve(self, link: str | None = None, *, interactive: bool = False) -> Resolution:
        """Resolve a link, the invite unless given."""
        challenges = ScriptedChallenges(self.action)
        self.asked = challenges.asked
        resolver = Resolver(
            PluginManager.from_modules([plugin]), challenges, lambda: self.now, HERE / "nowhere"
        )
        profile = ProviderProfile(
            provider="vk",
            link=Secret(self.vk.link if link is None else link),
            settings={**self.vk.settings, **self.settings},
            interactive=interactive,
        )
        resolution = await resolver.resolve(profile)
        told = f"{resolution} {resolution!r}"
        self.check(resolution.artifact, told)
        return resolution

    async def failing(self, link: str | None = None, *, interactive: bool = False) -> ProviderError:
        """Return the error of a resolution, after checking what holds for all of them."""
        with pytest.raises(ProviderError) as caught:
            await self.resolve(link, interactive=interactive)
        error = caught.value
        assert error.message
        assert error.advice
        assert error.artifact is not None
        failure = error.artifact.outcome.provider_error
        assert failure is not None
        assert (failure.stage, failure.code) == (error.provider_stage, error.code)
        self.check(error.artifact, f"{error} {error!r} {error.args}")
        assert (error.__cause__, error.__context__) == (None, None)
        return error

    def check(self, artifact: Artifact, told: str) -> None:
        """Check that an artifact fits its schema, and that nothing planted is to be seen."""
        encoded = msgspec.json.encode(artifact)
        assert list(violations(json.loads(SCHEMA.read_text()), json.loads(encoded))) == []
        assert find_leaks(told.encode() + encoded, self.vk.planted.all()) == []


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run an async test on both backends."""
    backend: str = request.param
    return backend


@pytest.fixture
def vk() -> Iterator[VkStandIn]:
    """Return a stand-in for VK, which finds no fault in what it was asked."""
    with VkStandIn() as stand_in:
        yield stand_in
    assert stand_in.faults == []


@pytest.fixture
def fake_browser(monkeypatch: pytest.MonkeyPatch) -> FakeBrowser:
    """Return the browser that the provider gets."""
    fake = FakeBrowser()
    monkeypatch.setattr(browser, "make_browser", lambda: fake)
    return fake


@pytest.fixture
def client(vk: VkStandIn, fake_browser: FakeBrowser) -> Client:
    return Client(vk, fake_browser)


@pytest.fixture
def fixture_named() -> Callable[[str], dict[str, Any]]:
    """Return a way to the replayable cases."""

    def load(name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((HERE / "fixtures" / f"{name}.json").read_text())
        return loaded

    return load
