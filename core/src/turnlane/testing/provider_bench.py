"""The bench: a provider under the real resolver, with everything around it made for one check."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from turnlane.api import (
    Provider,
    ProviderContext,
    ProviderDescriptor,
    Resolution,
    Secret,
    TurnlaneError,
    UnavailableError,
)
from turnlane.plugins.manager import PluginManager, ProviderClass
from turnlane.runtime.profiles import ProviderProfile
from turnlane.runtime.resolver import Resolver
from turnlane.testing.context import NOW, ManualClock, ObservedContext, ScriptedChallenges, Span
from turnlane.testing.findings import NotJudgedError, takes

CRASHED = "provider_crashed"
"""The code under which the resolver tells what is no `TurnlaneError`."""


@dataclass(frozen=True)
class ProviderCase:
    """What the checks need to know of a provider.

    `plugin` is the module (or an object) with the hooks, `provider` the id; `link` resolves with
    `settings`, each of `bad_links` is refused with the same settings, and each of `bad_settings`
    is refused with `link`. `secrets` are the values in link, settings and configuration that must
    be seen nowhere, each of at least four characters. `interactive` says that challenges may be
    raised, and `prepare` writes local configuration into a fresh `config_dir`.

    `others` are the plugins that the provider reaches through `resolve_with`, and `now` is the
    Unix time at which the clock of the checks stands.
    """

    plugin: object
    provider: str
    link: str
    bad_links: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    bad_settings: tuple[Mapping[str, Any], ...] = ()
    secrets: tuple[str, ...] = ()
    interactive: bool = False
    prepare: Callable[[Path], None] | None = None
    others: tuple[object, ...] = ()
    now: float = NOW


class ObservedPlugins(PluginManager):
    """Loads providers whose spans are noted in `spans`."""

    spans: list[Span]

    def load_provider(self, identifier: str) -> ProviderClass:
        """Import the class of a provider; what comes back makes an observed one."""
        implementation = super().load_provider(identifier)

        def make(context: ProviderContext) -> Provider:
            return implementation(ObservedContext(context, self.spans))

        return make


class Bench:
    """A provider with a resolver, a clock, an operator and a configuration folder of its own."""

    def __init__(
        self,
        case: ProviderCase,
        config_dir: Path,
        answer: Literal["continue", "cancel", "timeout"] = "continue",
    ) -> None:
        self.case = case
        self.config_dir = config_dir
        self.clock = ManualClock(case.now)
        self.challenges = ScriptedChallenges(answer)
        self.plugins = ObservedPlugins.from_modules([case.plugin, *case.others])
        self.spans: list[Span] = []
        self.plugins.spans = self.spans
        self.resolver = Resolver(self.plugins, self.challenges, self.clock, config_dir)

    @property
    def descriptor(self) -> ProviderDescriptor:
        """The provider's descriptor; raises `NotJudgedError` when it is not offered."""
        try:
            return self.plugins.provider(self.case.provider)
        except UnavailableError:
            raise NotJudgedError("there is no such provider, see descriptor_is_complete") from None

    def load(self) -> None:
        """Import what the descriptor names; raises `NotJudgedError` when that fails."""
        if self.unfit() is not None:
            raise NotJudgedError("there is nothing to run, see class_is_importable")

    def unfit(self) -> str | None:
        """Say why what the descriptor names cannot be imported and called, or return None."""
        descriptor = self.descriptor
        try:
            # Not the observed one: it is what is looked at.
            implementation: Any = super(ObservedPlugins, self.plugins).load_provider(descriptor.id)
            if descriptor.settings is not None:
                self.plugins.load_settings(descriptor.settings)
        except UnavailableError as error:
            return error.message
        if not takes(implementation, 1):
            return "the class is not made with the context alone"
        if not takes(implementation.resolve, 3):
            return "resolve does not take the request and the challenges"
        return None

    async def attempt(
        self,
        link: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        interactive: bool | None = None,
    ) -> Resolution | TurnlaneError:
        """Resolve once and return what comes of it; what is not given is the case's."""
        case = self.case
        profile = ProviderProfile(
            provider=case.provider,
            link=Secret(case.link if link is None else link),
            settings=dict(case.settings if settings is None else settings),
            interactive=case.interactive if interactive is None else interactive,
        )
        try:
            return await self.resolver.resolve(profile)
        except TurnlaneError as error:
            return error

    async def resolve(self) -> Resolution:
        """Resolve the good link; raises `NotJudgedError` when that fails."""
        self.load()
        outcome = await self.attempt()
        if isinstance(outcome, TurnlaneError):
            raise NotJudgedError("the good link does not resolve, see resolves_the_link")
        return outcome

    async def refusals(self) -> list[tuple[str, Resolution | TurnlaneError]]:
        """Try each bad link; return what came of it beside the words for it."""
        self.load()
        return [
            (f"bad link {number}", await self.attempt(link))
            for number, link in enumerate(self.case.bad_links, 1)
        ]


@contextmanager
def bench(
    case: ProviderCase, answer: Literal["continue", "cancel", "timeout"] = "continue"
) -> Iterator[Bench]:
    """Set up a bench with fresh memory and a fresh configuration folder."""
    with tempfile.TemporaryDirectory(prefix="turnlane-") as folder:
        config_dir = Path(folder)
        if case.prepare is not None:
            case.prepare(config_dir)
        yield Bench(case, config_dir, answer)


def told(outcome: Resolution | TurnlaneError) -> str:
    """Say in a few words what came of a resolution; nothing of it is secret."""
    if isinstance(outcome, TurnlaneError):
        crash = f": {outcome.message}" if outcome.code in (CRASHED, "invalid_resolution") else ""
        return f"{type(outcome).__name__} with the code {outcome.code!r}{crash}"
    return "a resolution"
