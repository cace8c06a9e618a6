"""The provider does what the conformance kit asks of every provider, over planted members."""

from pathlib import Path

import anyio.lowlevel

from turnlane.api import (
    Artifact,
    ArtifactOutcome,
    ChallengePort,
    Credentials,
    ProviderCapabilities,
    ProviderContext,
    ProviderDescriptor,
    ProviderError,
    RelayEndpoint,
    Resolution,
    ResolveRequest,
    Secret,
    hookimpl,
)
from turnlane.testing.providers import ProviderCase, ProviderConformance
from turnlane_pool import plugin

POOL = """
[pools.home]
strategy = "{strategy}"

[[pools.home.members]]
provider = "broken"
link = "planted-first-link"

[[pools.home.members]]
provider = "sound"
link_file = "planted-file.link"
"""


class Broken:
    """A member that never resolves."""

    def __init__(self, context: ProviderContext) -> None:
        pass

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        await anyio.lowlevel.checkpoint()
        raise ProviderError("down", f"no answer to {request.link}", provider_stage="ask")


class Sound:
    """A member that resolves, for an hour."""

    def __init__(self, context: ProviderContext) -> None:
        self.context = context

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        await anyio.lowlevel.checkpoint()
        expires_at = self.context.wall_time() + 3600
        endpoint = RelayEndpoint("turn.example", 3478)
        return Resolution(
            Credentials(
                (endpoint,), Secret("planted-user"), Secret("planted-password"), expires_at
            ),
            Artifact("sound", "planted", {}, (), ArtifactOutcome("resolution")),
        )


class Members:
    """The plugin that offers them."""

    @hookimpl
    def turnlane_providers(self) -> list[ProviderDescriptor]:
        sound = ProviderCapabilities(renewable=True)
        return [
            ProviderDescriptor("broken", "Broken", "Planted.", f"{__name__}:Broken"),
            ProviderDescriptor(
                "sound", "Sound", "Planted.", f"{__name__}:Sound", capabilities=sound
            ),
        ]


def case_of(strategy: str) -> ProviderCase:
    def prepare(config_dir: Path) -> None:
        for name, text in (
            ("pool.toml", POOL.format(strategy=strategy)),
            ("planted-file.link", "planted-second-link\n"),
        ):
            path = config_dir / name
            path.write_text(text)
            path.chmod(0o600)

    return ProviderCase(
        plugin=plugin,
        provider="pool",
        link="pool:home",
        bad_links=("pool:planted-user", "pool:", "generic-turn:home"),
        secrets=(
            "planted-first-link",
            "planted-second-link",
            "planted-file.link",
            "planted-user",
            "planted-password",
        ),
        prepare=prepare,
        others=(Members(),),
    )


class TestOrderedPool(ProviderConformance):
    case = case_of("ordered")


class TestWeightedPool(ProviderConformance):
    case = case_of("weighted")
