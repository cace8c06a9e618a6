"""Runs the host for a command: starts what a profile says, announces it, ends it in order."""

import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from turnlane.api import InternalError, PolicyError, Resolution, Stage
from turnlane.cli.challenges import TerminalChallenges
from turnlane.cli.events import EventLog
from turnlane.cli.failures import staged
from turnlane.cli.lifecycle import run_once, run_until_stopped
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.host import ClientHandle, Host, ServerHandle
from turnlane.runtime.profiles import ClientProfile, ProviderProfile, ServerProfile

T = TypeVar("T")


def run_client(
    profile: ClientProfile,
    announce: Callable[[ClientHandle], None],
    *,
    strict_plugins: bool = False,
) -> None:
    """Run a client session until it is stopped; raises the failure that ended it."""
    log = EventLog(
        runtime="client",
        provider=profile.provider.provider,
        turn_mode=profile.transport or "auto",
        peer_mode=profile.mode,
    )
    challenges = _challenges(profile.provider)

    async def run() -> None:
        with staged(log.current_stage):
            plugins = PluginManager.load(strict=strict_plugins)
            async with Host(plugins, challenges=challenges, on_event=log) as host:
                await run_until_stopped(
                    lambda: host.start_client(profile), announce, log.current_stage
                )

    _run(run, log)


def run_server(
    profile: ServerProfile,
    announce: Callable[[ServerHandle], None],
    *,
    strict_plugins: bool = False,
) -> None:
    """Run a tunnel server until it is stopped; raises the failure that ended it."""
    log = EventLog(runtime="server", peer_mode="turnlane/1")

    async def run() -> None:
        with staged(log.current_stage):
            plugins = PluginManager.load(strict=strict_plugins)
            async with Host(plugins, on_event=log) as host:
                await run_until_stopped(
                    lambda: host.start_server(profile), announce, log.current_stage
                )

    _run(run, log)


def run_probe(profile: ProviderProfile, *, strict_plugins: bool = False) -> Resolution:
    """Resolve a link and return what came of it; raises the provider's failure."""
    log = EventLog(Stage.PROVIDER_RESOLVE, runtime="probe", provider=profile.provider)
    challenges = _challenges(profile)

    async def run() -> Resolution:
        with staged(log.current_stage):
            plugins = PluginManager.load(strict=strict_plugins)
            async with Host(plugins, challenges=challenges, on_event=log) as host:
                return await run_once(lambda: host.probe(profile), log.current_stage)

    return _run(run, log)


def _run(main: Callable[[], Awaitable[T]], log: EventLog) -> T:
    try:
        return anyio.run(main)
    except SystemExit as error:
        # Only a plugin does that while it runs; its exit code would say that we had stopped well.
        raise InternalError(log.current_stage(), error) from error


def _challenges(profile: ProviderProfile) -> TerminalChallenges | None:
    """Return the terminal as the place to ask, where the operator allowed that.

    Raises `PolicyError` where there is nobody to ask.
    """
    if not profile.interactive:
        return None
    try:
        return TerminalChallenges(sys.stderr, sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):
        raise PolicyError(
            "no_input",
            "--interactive-provider needs a standard input to read answers from",
            "run it in a terminal, or leave the option out",
        ) from None
