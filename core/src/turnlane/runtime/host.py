"""The host: the one embeddable object behind the command line, a daemon and other shells.

    async with Host(PluginManager.load(), on_event=print) as host:
        client = await host.start_client(profile)
        ...
        await client.stop()

Leaving the block ends everything that was started in it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from turnlane.api import Challenge, ChallengeAnswer, ChallengePort, Resolution, Secret
from turnlane.net.identity import Pin
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.client import ClientSession, LaneSlot
from turnlane.runtime.events import Event
from turnlane.runtime.failures import is_again
from turnlane.runtime.profiles import ClientProfile, ProviderProfile, ServerProfile
from turnlane.runtime.resolver import Resolver
from turnlane.runtime.server import Server, TunnelServer


class NobodyToAsk:
    """A challenge port for hosts without a human: every challenge is cancelled."""

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:  # noqa: ARG002 - nobody reads it
        """Cancel."""
        return ChallengeAnswer("cancel")


class ClientHandle:
    """A running client session."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    @property
    def session_id(self) -> str:
        """How events and logs call the session."""
        return self._session.name

    @property
    def listen(self) -> tuple[str, int]:
        """Where the local end listens."""
        return self._session.listen

    @property
    def lanes(self) -> list[LaneSlot]:
        """The lanes; what of them may change later is not part of any contract yet."""
        return list(self._session.lanes)

    @property
    def ready_lanes(self) -> int:
        """How many lanes carry traffic now."""
        return self._session.ready_lanes

    @property
    def mtu(self) -> int:
        """Bytes of the largest datagram that fits, as things stand."""
        return self._session.mtu

    async def stop(self) -> None:
        """End the session in order and wait until everything is released."""
        self._session.stop()
        await self._session.ended.wait()

    async def wait(self) -> None:
        """Wait for the end; raises the `TurnlaneError` that the session ended with, if any."""
        await self._session.ended.wait()
        if self._session.error is not None:
            raise self._session.error


class ServerHandle:
    """A running tunnel server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def listen(self) -> tuple[str, int]:
        """Where the server listens."""
        return self._server.listen

    @property
    def legacy_listen(self) -> tuple[str, int] | None:
        """Where legacy peers are served, if they are."""
        return self._server.legacy_listen

    @property
    def pin(self) -> Pin:
        """Who the server is."""
        assert self._server.identity is not None
        return self._server.identity.pin

    @property
    def sessions(self) -> int:
        """How many sessions there are now."""
        return self._server.sessions

    @property
    def counters(self) -> dict[str, int]:
        """What the server's ports have counted so far, without what is 0."""
        return self._server.counters()

    def link(self, host: str, port: int | None = None) -> Secret[str]:
        """Return the peer link under the name or address `host`."""
        return self._server.link(host, port)

    async def stop(self) -> None:
        """Drain and end the server; returns when everything is released."""
        self._server.stop()
        await self._server.ended.wait()

    async def wait(self) -> None:
        """Wait for the end; raises the `TurnlaneError` that the server ended with, if any."""
        await self._server.ended.wait()
        if self._server.error is not None:
            raise self._server.error


class Host:
    """Runs sessions and servers from profiles; challenges go out through `challenges`.

    `on_event` is called in the host's own thread and must not block.
    """

    def __init__(
        self,
        plugins: PluginManager,
        *,
        challenges: ChallengePort | None = None,
        on_event: Callable[[Event], None] | None = None,
        wall_time: Callable[[], float] | None = None,
        config_dir: Path | None = None,
    ) -> None:
        self.plugins = plugins
        self._on_event = on_event or _drop
        self._wall_time = wall_time or time.time  # noqa: TID251 - the one place that reads it
        self._resolver = Resolver(plugins, challenges or NobodyToAsk(), self._wall_time, config_dir)
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        try:
            return await self._tasks.__aexit__(kind, error, traceback)
        except BaseException as raised:
            if is_again(raised, error):
                return False
            raise
        finally:
            self._tasks = None

    async def probe(self, profile: ProviderProfile) -> Resolution:
        """Resolve a link and start nothing.

        Raises `ProviderError` with its artifact, `UnavailableError` or `PolicyError`.
        """
        return await self._resolver.resolve(profile)

    async def start_client(self, profile: ClientProfile) -> ClientHandle:
        """Start a client session and return when all its lanes carry traffic.

        Raises the `TurnlaneError` of the stage that failed, when everything is released again.
        """
        session = ClientSession(
            profile,
            self._resolver,
            on_event=self._on_event,
        )
        await self._start(session)
        return ClientHandle(session)

    async def start_server(self, profile: ServerProfile) -> ServerHandle:
        """Start a tunnel server and return when it listens; raises as `start_client`."""
        self._entered()
        server = _kind_of_server(profile)(
            profile, self.plugins, on_event=self._on_event, wall_time=self._wall_time
        )
        await self._start(server)
        return ServerHandle(server)

    def _entered(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the host is used inside `async with`")
        return self._tasks

    async def _start(self, started: ClientSession | Server) -> None:
        self._entered().start_soon(started.run)
        try:
            async with anyio.create_task_group() as race:

                async def first(event: anyio.Event) -> None:
                    await event.wait()
                    race.cancel_scope.cancel()

                race.start_soon(first, started.ready)
                race.start_soon(first, started.ended)
        except BaseException:
            started.stop()
            with anyio.CancelScope(shield=True):
                await started.ended.wait()
            raise
        if started.error is not None:
            await started.ended.wait()
            raise started.error


def _kind_of_server(profile: ServerProfile) -> type[Server]:
    if profile.workers == 1:
        return TunnelServer
    from turnlane.runtime.worker_pool import WorkerPool  # noqa: PLC0415 - few are so large

    return WorkerPool


def _drop(_event: Event) -> None:
    """Let an event go that nobody wants."""
