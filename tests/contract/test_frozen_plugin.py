"""A plugin published for contract 1.0 loads and works for as long as major 1 lives."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from turnlane.api import (
    Challenge,
    ChallengeAnswer,
    LinkError,
    ProviderError,
    RelayTransport,
    Renewal,
    Secret,
    SettingsError,
)
from turnlane.plugins.manager import PluginManager
from turnlane.plugins.records import PluginStatus
from turnlane.runtime.profiles import ProviderProfile
from turnlane.runtime.resolver import Resolver

pytestmark = pytest.mark.anyio

FROZEN = Path(__file__).parent / "frozen" / "acme-1.0"
NOW = 1_800_000_000.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


class Operator:
    def __init__(self, action: str) -> None:
        self.action = action
        self.asked: list[Challenge] = []

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        self.asked.append(challenge)
        return ChallengeAnswer(self.action)  # type: ignore[arg-type]


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginManager]:
    monkeypatch.syspath_prepend(str(FROZEN))
    yield PluginManager.load()
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_turn"]:
        del sys.modules[name]


def profile(**changes: object) -> ProviderProfile:
    fields: dict[str, object] = {
        "provider": "acme",
        "link": Secret("acme://room"),
        "settings": {"api_key": "planted-key"},
    }
    return ProviderProfile(**(fields | changes))  # type: ignore[arg-type]


async def test_the_frozen_plugin_is_loaded_from_its_metadata(plugins: PluginManager) -> None:
    (record,) = [record for record in plugins.records if record.name == "acme"]
    assert (record.status, record.distribution, record.version) == (
        PluginStatus.LOADED,
        "acme-turn",
        "1.0",
    )
    assert plugins.provider("acme").title == "Acme TURN"


async def test_the_frozen_plugin_resolves_with_all_that_it_uses(plugins: PluginManager) -> None:
    operator = Operator("continue")
    resolver = Resolver(plugins, operator, lambda: NOW)
    resolution = await resolver.resolve(profile(interactive=True))
    assert [challenge.kind for challenge in operator.asked] == ["confirm"]
    assert resolution.credentials.endpoints[0].transport is RelayTransport.TLS
    assert resolution.credentials.expires_at == NOW + 3600
    assert resolution.renewal is Renewal.RESOLVE
    assert resolver.memory("acme") == {"calls": ["acme://room"]}
    assert "planted-key" not in repr(resolution)


async def test_the_frozen_plugins_refusals_arrive_as_they_are(plugins: PluginManager) -> None:
    resolver = Resolver(plugins, Operator("cancel"), lambda: NOW)
    with pytest.raises(LinkError, match="code=wrong_scheme"):
        await resolver.resolve(profile(link=Secret("http://room")))
    with pytest.raises(ProviderError, match="code=declined"):
        await resolver.resolve(profile(interactive=True))
    with pytest.raises(SettingsError) as caught:
        await resolver.resolve(profile(settings={"region": "EUROPE"}))
    assert [(each.field, each.code) for each in caught.value.violations] == [
        ("api_key", "required"),
        ("region", "pattern"),
    ]
