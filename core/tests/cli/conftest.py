"""What the tests of the command line share: a runner, and distributions planted on the path."""

import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from turnlane.cli.main import main
from turnlane.plugins import discover_plugins


@dataclass(frozen=True)
class Finished:
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def output(self) -> str:
        return self.out + self.err


Run = Callable[..., Finished]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give each test an environment without our variables, a home of its own and fresh loggers."""
    for name in [name for name in os.environ if name.startswith("TURNLANE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield
    logger = logging.getLogger("turnlane")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run


PROVIDER = """
from turnlane.api import (
    AdapterDescriptor, Artifact, ArtifactOutcome, ArtifactResolution, Challenge, Credentials,
    Direction, ProviderDescriptor, ProviderError, RelayEndpoint, RelayTransport, Resolution,
    Secret, StageOutcome, StageRecord, StageRequest, StageResponse, TrafficClass, hookimpl,
)

@hookimpl
def turnlane_providers():
    return [ProviderDescriptor(
        id="planted", title="Planted", summary="For tests.", implementation="planted:Planted",
        example_links=("planted://user:password@host",),
    )]

@hookimpl
def turnlane_ingress_adapters():
    return [adapter(Direction.INGRESS, "planted:Ingress")]

@hookimpl
def turnlane_egress_adapters():
    return [adapter(Direction.EGRESS, "planted:Egress")]

def adapter(direction, implementation):
    return AdapterDescriptor(
        id="planted", title="Planted", summary="For tests.", direction=direction,
        traffic=TrafficClass.DATAGRAM, implementation=implementation, pairs_with=("planted",),
    )

class Ingress:
    def __init__(self, context, address, settings):
        self.context, self.address = context, address
    async def open(self):
        host, port = self.address.rsplit(":", 1)
        return await self.context.bind_udp(host, int(port))

class Egress:
    def __init__(self, context, address, settings):
        self.context, self.address = context, address
    async def prepare(self):
        if self.address.endswith(":13"):
            raise SystemExit(0)
        if self.address.endswith(":14"):
            raise RuntimeError("crashed")
    async def connect(self, flow):
        host, port = self.address.rsplit(":", 1)
        return await self.context.connect_udp(host, int(port), flow)

def artifact(outcome):
    stage = StageRecord(
        "parse", "link", StageRequest("LOCAL"), StageResponse(), StageOutcome("continue"))
    return Artifact("planted", "static", {"link": "<redacted>"}, (stage,), outcome)

class Planted:
    def __init__(self, context):
        pass
    async def resolve(self, request, challenges):
        link = request.link.reveal()
        if "refuse" in link:
            failed = ArtifactOutcome("provider_error")
            raise ProviderError("planted_refused", "the planted provider refused", "try another",
                                provider_stage="parse", artifact=artifact(failed))
        if "crash" in link:
            raise RuntimeError("crashed with " + link)
        if "hang" in link:
            import anyio
            print("hanging", flush=True)
            with anyio.CancelScope(shield="stubborn" in link):
                await anyio.sleep_forever()
        if "ask" in link:
            answer = await challenges.ask(Challenge("confirm", "Say yes", Secret("https://x/y")))
            if answer.action != "continue":
                raise ProviderError("planted_" + answer.action, "the challenge was not met", "")
        where = ArtifactResolution("<redacted>", "<redacted>", "198.51.100.7:3478")
        endpoints = (RelayEndpoint("198.51.100.7", 3478),
                     RelayEndpoint("198.51.100.7", 443, RelayTransport.TCP))
        return Resolution(
            Credentials(endpoints, Secret("planted-user"), Secret("planted-password"), 2e9),
            artifact(ArtifactOutcome("resolution", where)))
"""


@dataclass(frozen=True)
class Site:
    """A folder on the import path where distributions are planted."""

    folder: Path

    def plant(self, name: str, entry_points: str, **modules: str) -> None:
        """Install a distribution `name` with its entry points and its modules' source."""
        metadata = self.folder / f"{name.replace('-', '_')}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        for module, source in modules.items():
            (self.folder / f"{module}.py").write_text(textwrap.dedent(source))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Plant distributions for this test, for this process and for those it starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Block every plugin that is installed beside core, and return their names."""
    installed = discover_plugins()
    names = {plugin.distribution for plugin in installed}
    monkeypatch.setenv("TURNLANE_DISABLE_PLUGINS", ",".join(sorted(names)))
    return [plugin.name for plugin in installed]


@pytest.fixture
def planted(blocked: list[str], site: Site) -> Site:
    """Plant a provider and a pair of adapters called `planted`, and nothing else."""
    site.plant("turnlane-planted", "[turnlane.plugins.v1]\nplanted = planted\n", planted=PROVIDER)
    return site
