"""What stands in for the host around a provider under test: its clock, its operator, its spans.

clock = ManualClock(now)
challenges = ScriptedChallenges("continue")
context = FakeProviderContext(clock, config_dir=tmp_path)
"""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

import anyio.lowlevel

from turnlane.api import (
    Challenge,
    ChallengeAnswer,
    ProviderContext,
    Resolution,
    Secret,
    UnavailableError,
)

NOW = 4_000_000_000.0
"""The Unix time at which clocks of tests stand: far away, so that a real clock's time is told."""

Span = tuple[str, Mapping[str, str | float | bool]]


class ManualClock:
    """A wall clock that a test moves; calling it returns the Unix time in seconds."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the Unix time in seconds."""
        return self.now


class ScriptedChallenges:
    """An operator who gives each challenge the same answer at once; `asked` has what was asked."""

    def __init__(self, action: Literal["continue", "cancel", "timeout"] = "continue") -> None:
        self.action = action
        self.asked: list[Challenge] = []

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        """Note the challenge and answer it."""
        await anyio.lowlevel.checkpoint()
        self.asked.append(challenge)
        return ChallengeAnswer(self.action)


class FakeProviderContext:
    """A `ProviderContext` for a provider's own unit tests, without a host.

    `others` are the resolutions that `resolve_with` gives, by provider; `spans` has what was
    opened.
    """

    def __init__(
        self,
        wall_time: ManualClock | None = None,
        config_dir: Path | None = None,
        others: Mapping[str, Resolution] | None = None,
    ) -> None:
        self.wall_time = wall_time or ManualClock()
        self.config_dir = config_dir or Path("no-such-folder")
        self.memory: MutableMapping[str, object] = {}
        self.spans: list[Span] = []
        self._others = others or {}

    async def resolve_with(
        self,
        provider: str,
        link: Secret[str],  # noqa: ARG002 the contract's
        settings: Mapping[str, object] | None = None,  # noqa: ARG002 the contract's
    ) -> Resolution:
        """Return the resolution prepared for `provider`; raises `UnavailableError` without one."""
        if provider not in self._others:
            raise UnavailableError("unknown_provider", f"there is no provider named {provider!r}")
        return self._others[provider]

    @contextmanager
    def span(self, name: str, **attributes: str | float | bool) -> Iterator[None]:
        """Note a span."""
        self.spans.append((name, attributes))
        yield


class ObservedContext:
    """Hands everything on to a host's context, and notes in `spans` the spans that are opened."""

    def __init__(self, context: ProviderContext, spans: list[Span]) -> None:
        self._context = context
        self._spans = spans

    def wall_time(self) -> float:
        """Return the Unix time in seconds."""
        return self._context.wall_time()

    @property
    def memory(self) -> MutableMapping[str, object]:
        """What the provider remembers."""
        return self._context.memory

    @property
    def config_dir(self) -> Path:
        """The folder of local configuration files."""
        return self._context.config_dir

    async def resolve_with(
        self, provider: str, link: Secret[str], settings: Mapping[str, object] | None = None
    ) -> Resolution:
        """Resolve a link through another provider."""
        return await self._context.resolve_with(provider, link, settings)

    def span(self, name: str, **attributes: str | float | bool) -> AbstractContextManager[None]:
        """Open a span and note it."""
        self._spans.append((name, attributes))
        return self._context.span(name, **attributes)
