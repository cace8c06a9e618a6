"""What the tests of this distribution share: both backends, a configuration, a watched command."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from turnlane.api import Challenge, ChallengeAnswer, Resolution, Secret

NOW = 1_700_000_000.75


class Context:
    """A provider's context with a clock that stands still; notes the spans that were opened."""

    def __init__(self, config_dir: Path) -> None:
        self.now = NOW
        self.spans: list[tuple[str, dict[str, str | float | bool]]] = []
        self._config_dir = config_dir
        self._memory: dict[str, object] = {}

    @property
    def config_dir(self) -> Path:
        return self._config_dir

    @property
    def memory(self) -> MutableMapping[str, object]:
        return self._memory

    def wall_time(self) -> float:
        return self.now

    async def resolve_with(
        self, provider: str, link: Secret[str], settings: Mapping[str, object] | None = None
    ) -> Resolution:
        raise AssertionError(provider)

    @contextmanager
    def span(self, name: str, **attributes: str | float | bool) -> Iterator[None]:
        self.spans.append((name, attributes))
        yield


class NoChallenges:
    """Fails when it is asked anything."""

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        raise AssertionError(challenge.kind)


class Watch:
    """A named pipe that processes hold open: it tells when they have started, and are gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # Without a writer of our own the end would be there before the first process is.
        self._own: int | None = os.open(path, os.O_WRONLY | os.O_NONBLOCK)

    async def line(self) -> bytes:
        """Return what a process has written to it."""
        with anyio.fail_after(20):
            await anyio.wait_readable(self._end)
        return os.read(self._end, 1024)

    async def all_gone(self) -> None:
        """Return when nobody holds it any longer; fails if somebody still does."""
        if self._own is not None:
            os.close(self._own)
            self._own = None
        with anyio.fail_after(20):
            while True:
                await anyio.wait_readable(self._end)
                if not os.read(self._end, 1024):
                    return

    def close(self) -> None:
        os.close(self._end)
        if self._own is not None:
            os.close(self._own)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def context(config_dir: Path) -> Context:
    return Context(config_dir)


@pytest.fixture
def challenges() -> NoChallenges:
    return NoChallenges()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    watch = Watch(tmp_path / "watch")
    yield watch
    watch.close()


@pytest.fixture
def write_config(config_dir: Path) -> Callable[[str], Path]:
    """Write `exec.toml` as an operator would."""

    def write(text: str) -> Path:
        path = config_dir / "exec.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def command(write_config: Callable[[str], Path]) -> Callable[..., Path]:
    """Configure a piece of Python as the command `office`; more lines of its table may follow."""

    def configure(code: str, *arguments: str, more: str = "timeout = 20") -> Path:
        argv = json.dumps([sys.executable, "-S", "-c", code, *arguments])
        return write_config(f"[commands.office]\nargv = {argv}\n{more}\n")

    return configure
