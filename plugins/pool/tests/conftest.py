"""What the tests of this distribution share: a real resolver over planted members."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import msgspec
import pytest

from turnlane.api import (
    Artifact,
    ArtifactOutcome,
    Challenge,
    ChallengeAnswer,
    ChallengePort,
    Credentials,
    ProviderContext,
    ProviderDescriptor,
    ProviderError,
    RelayEndpoint,
    Resolution,
    ResolveRequest,
    Secret,
    hookimpl,
)
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.profiles import ProviderProfile
from turnlane.runtime.resolver import Resolver
from turnlane_pool import plugin

NOW = 1_700_000_000.0


class Settings(msgspec.Struct):
    """What a planted member can be told."""

    colour: str = "red"


class NoChallenges:
    """Fails when it is asked anything."""

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        raise AssertionError(challenge.kind)


class World:
    """Two planted providers, a clock that is set by hand, and a folder for `pool.toml`.

    A member's link is `NAME#planted-secret`; `answers[NAME]` is what it does: an error it raises,
    a resolution it gives, or "hang". Without one it resolves, with its name as the user name.
    """

    def __init__(self, config_dir: Path) -> None:
        self.config_dir = config_dir
        self.now = NOW
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.requests: list[ResolveRequest] = []
        self.hanging = anyio.Event()
        self.resolver = Resolver(
            PluginManager.from_modules([plugin, self]), NoChallenges(), lambda: self.now, config_dir
        )

    @hookimpl
    def turnlane_providers(self) -> list[ProviderDescriptor]:
        plain = ProviderDescriptor("plain", "Plain", "Planted.", "planted_members:Planted")
        tunable = msgspec.structs.replace(plain, id="tunable", settings="planted_members:Settings")
        return [plain, tunable]

    async def answer(self, request: ResolveRequest) -> Resolution:
        name = request.link.reveal().partition("#")[0]
        self.asked.append(name)
        self.requests.append(request)
        answer = self.answers.get(name) or self.resolution(name)
        if answer == "hang":
            self.hanging.set()
            await anyio.sleep_forever()
        if isinstance(answer, BaseException):
            raise answer
        await anyio.lowlevel.checkpoint()
        resolution: Resolution = answer
        return resolution

    def resolution(self, name: str, **more: Any) -> Resolution:
        endpoint = RelayEndpoint(f"{name}.example", 3478)
        return Resolution(
            Credentials((endpoint,), Secret(name), Secret("planted-password"), NOW + 600),
            Artifact("plain", f"by_{name}", {}, (), ArtifactOutcome("resolution")),
            **more,
        )

    def fail(self, *names: str, code: str = "http_500") -> None:
        for name in names:
            self.answers[name] = ProviderError(code, f"the text of {name} with planted-text")

    def write(self, text: str, name: str = "pool.toml", mode: int = 0o600) -> Path:
        path = self.config_dir / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def write_pool(self, strategy: str, members: Mapping[str, int | None], **keys: Any) -> None:
        """Write the pool `home`: members by name, with their weight."""
        lines = ["[pools.home]", f'strategy = "{strategy}"']
        lines += [f"{key} = {value}" for key, value in keys.items()]
        for name, weight in members.items():
            lines += ["[[pools.home.members]]", f'name = "{name}"', 'provider = "plain"']
            lines += [f'link = "{name}#planted-secret"']
            lines += [f"weight = {weight}"] if weight is not None else []
        self.write("\n".join(lines))

    async def resolve(self, link: str = "pool:home") -> Resolution:
        return await self.resolver.resolve(ProviderProfile(provider="pool", link=Secret(link)))

    async def user(self, link: str = "pool:home") -> str:
        """Resolve and return the user name, which is the name of the member that answered."""
        return (await self.resolve(link)).credentials.username.reveal()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)

    class Planted:
        def __init__(self, context: ProviderContext) -> None:
            self.context = context

        async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
            return await made.answer(request)

    planted = ModuleType("planted_members")
    vars(planted).update(Planted=Planted, Settings=Settings)
    sys.modules["planted_members"] = planted
    yield made
    del sys.modules["planted_members"]
