"""The stand: a relay, a tunnel server and an echo in this process, to put clients in front of."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec

from turnlane.api import RelayTransport, Secret
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.events import Event
from turnlane.runtime.failures import is_again
from turnlane.runtime.host import ClientHandle, Host, ServerHandle
from turnlane.runtime.peer_link import PeerLink, join_host_port
from turnlane.runtime.profiles import ClientProfile, ProviderProfile, ServerProfile
from turnlane.runtime.secret_files import load_or_create_token
from turnlane_lab.config import RelayConfig
from turnlane_lab.echo import EchoTarget, UdpTarget
from turnlane_lab.relay import Relay

PROVIDER = "generic-turn"
ADAPTER = "udp"
USER = "lab"


class Stand:
    """Everything a client needs on the other side of its network, alive while the block lasts.

        async with Stand() as stand:
            client = await stand.connect(connections=2)
            ...

    `relay` are fields of `RelayConfig`, `server` fields of `ServerProfile`, each in place of what
    the stand would choose: loopback, free ports, one user with a random password, an identity and
    a token in a temporary folder, the echo as upstream. `echo` is another upstream than a plain
    echo. `on_event` gets the events of the server and of the stand's own clients.

    Plugins are those that are installed unless given; the stand needs `generic-turn` and `udp`.
    Entering raises `TurnlaneError` (an address that cannot be listened on, a plugin that is not
    there), and `ValueError` or `TypeError` for fields that are wrong. Leaving ends the clients,
    the server and the relay in this order; the folder is removed in any case.
    """

    relay: Relay
    echo: UdpTarget
    host: Host
    server: ServerHandle

    def __init__(
        self,
        *,
        relay: Mapping[str, Any] | None = None,
        server: Mapping[str, Any] | None = None,
        echo: UdpTarget | None = None,
        plugins: PluginManager | None = None,
        on_event: Callable[[Event], None] | None = None,
        seed: int = 0,
    ) -> None:
        users = {USER: Secret(secrets.token_urlsafe(18))}
        self.relay = Relay(RelayConfig(**{"users": users, **(relay or {})}), seed=seed)
        self.echo = EchoTarget() if echo is None else echo
        self.clients: list[ClientHandle] = []
        self._server_fields = dict(server or {})
        self._plugins = plugins
        self._on_event = on_event
        self._profile: ServerProfile | None = None
        self._opened: AsyncExitStack | None = None

    # What it is.

    @property
    def address(self) -> str:
        """The address under which the relay and the server are reached."""
        config = self.relay.config
        return config.told((config.hosts[0], 0))[0]

    @property
    def link(self) -> Secret[str]:
        """A `generic-turn` link to the relay, over UDP."""
        return self.relay_link()

    @property
    def peer(self) -> Secret[str]:
        """The peer link of the tunnel server."""
        return self.server.link(self.address)

    def relay_link(self, transport: RelayTransport = RelayTransport.UDP) -> Secret[str]:
        """Return a `generic-turn` link; raises `ValueError` for TLS, which the relay lacks."""
        return self.relay.link(transport=transport, host=self.address)

    # What can be done with it.

    async def connect(
        self,
        connections: int = 1,
        *,
        transport: RelayTransport = RelayTransport.UDP,
        **overrides: Any,
    ) -> ClientHandle:
        """Start a client session on a free local port and return when all its lanes are up.

        `overrides` are fields of `ClientProfile`. Raises the `TurnlaneError` of the stage that
        failed.
        """
        profile = ClientProfile(
            provider=ProviderProfile(provider=PROVIDER, link=self.relay_link(transport)),
            peer=PeerLink.parse(self.peer),
            ingress=ADAPTER,
            listen="127.0.0.1:0",
            connections=connections,
            transport=transport,
        )
        client = await self.host.start_client(msgspec.structs.replace(profile, **overrides))
        self.clients.append(client)
        return client

    async def restart_relay(self) -> None:
        """Make the relay forget everything, as a restart of its process would."""
        await self.relay.restart()

    async def restart_server(self) -> None:
        """Stop the tunnel server in order, unless it has ended, and start it as it was.

        Port, identity and token stay; sessions are forgotten. Raises `TurnlaneError` at `listen`
        when somebody took the port in between.
        """
        assert self._profile is not None, "only inside the async with block"
        listen = join_host_port(*self.server.listen)
        await self.server.stop()
        self._profile = msgspec.structs.replace(self._profile, listen=listen)
        self.server = await self.host.start_server(self._profile)

    # Its life.

    async def __aenter__(self) -> Self:
        self._opened = AsyncExitStack()
        try:
            await self._open(self._opened)
        except BaseException as error:
            if not await self._leave(error):
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._leave(error)

    async def _open(self, opened: AsyncExitStack) -> None:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="turnlane-lab-")))
        await opened.enter_async_context(self.relay)
        await opened.enter_async_context(self.echo)
        plugins = self._plugins or PluginManager.load()
        self.host = await opened.enter_async_context(Host(plugins, on_event=self._on_event))
        profile = ServerProfile(
            listen=join_host_port(self.relay.host, 0),
            egress=ADAPTER,
            connect=join_host_port(*self.echo.address),
            identity=folder,
            token=load_or_create_token(folder / "token"),
        )
        self._profile = msgspec.structs.replace(profile, **self._server_fields)
        self.server = await self.host.start_server(self._profile)
        opened.push_async_callback(self._stop)

    async def _stop(self) -> None:
        async with anyio.create_task_group() as tasks:
            for client in self.clients:
                tasks.start_soon(client.stop)
        await self.server.stop()

    async def _leave(self, error: BaseException | None) -> bool:
        """Release everything; what the block raised reaches its caller as it was raised."""
        assert self._opened is not None
        traceback = None if error is None else error.__traceback__
        try:
            leaving = self._opened.__aexit__(
                None if error is None else type(error), error, traceback
            )
            return bool(await leaving)
        except BaseException as raised:
            if is_again(raised, error):
                return False
            raise
