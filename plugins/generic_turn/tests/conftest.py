"""What the tests of this distribution share."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from turnlane.api import Challenge, ChallengeAnswer

NOW = 1_700_000_000.75


class Context:
    """A provider's context with a clock that stands still; notes the spans that were opened."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.spans: list[tuple[str, dict[str, str | float | bool]]] = []

    def wall_time(self) -> float:
        return self.now

    @contextmanager
    def span(self, name: str, **attributes: str | float | bool) -> Iterator[None]:
        self.spans.append((name, attributes))
        yield


class NoChallenges:
    """Fails when it is asked anything."""

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        raise AssertionError(challenge.kind)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def challenges() -> NoChallenges:
    return NoChallenges()
