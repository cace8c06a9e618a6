"""A tunnel under test: an echo, a server, a host with the installed plugins, applications."""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_bytes
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import msgspec

from turnlane.api import Secret
from turnlane.net.system import family_of
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.events import Event
from turnlane.runtime.host import ClientHandle, Host, ServerHandle
from turnlane.runtime.peer_link import PeerLink, join_host_port, new_token
from turnlane.runtime.profiles import ClientProfile, ProviderProfile, ServerProfile
from turnlane_lab.echo import EchoTarget

MIXED_SIZES = (0, 1, 3, 4, 5, 64, 200, 555, 1000, 1158)
"""Bytes of payloads; the last is what fits the lane's MTU of 1200 under all headers."""

WINDOW = 16
"""datagrams that an application has under way at once; a socket's buffer holds far more."""

REPLY_TIMEOUT = 5.0

E = TypeVar("E", bound=Event)


class Tunnel:
    """An echo, a tunnel server in front of it and the host of both ends, while the block lasts.

    `events` are all that client sessions and the server told, oldest first; `on_event` also hears
    them, as they happen.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        on_event: Callable[[Event], None] | None = None,
        wall_time: Callable[[], float] | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.echo = EchoTarget(host)
        self.on_event = on_event
        self._host_address = host
        self._directory = directory
        self._changed = anyio.Event()
        self._stack = AsyncExitStack()
        self._host = Host(PluginManager.load(), on_event=self._hear, wall_time=wall_time)
        self._server: ServerHandle | None = None

    @property
    def server(self) -> ServerHandle:
        """The tunnel server."""
        assert self._server is not None, "only inside the async with block"
        return self._server

    @property
    def peer(self) -> PeerLink:
        """The peer link of the server."""
        return PeerLink.parse(self.server.link(self._host_address))

    def profile(self, link: Secret[str], **changes: Any) -> ClientProfile:
        """Return the profile of a session from a `generic-turn` link to the server."""
        profile = ClientProfile(
            provider=ProviderProfile(provider="generic-turn", link=link),
            peer=self.peer,
            listen=join_host_port(self._host_address, 0),
        )
        return msgspec.structs.replace(profile, **changes)

    async def start(self, link: Secret[str], **changes: Any) -> ClientHandle:
        """Start a session; raises the `TurnlaneError` of the stage that failed."""
        return await self._host.start_client(self.profile(link, **changes))

    def told(self, kind: type[E]) -> list[E]:
        """Return the events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, holds: Callable[[], bool], what: str, *, timeout: float = 10.0) -> None:
        """Wait until `holds`, which is asked after every event.

        Raises `AssertionError` that names `what` was waited for.
        """
        try:
            with anyio.fail_after(timeout):
                while not holds():
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"the events did not show {what} in {timeout:g} s") from None

    async def __aenter__(self) -> Self:
        try:
            await self._stack.enter_async_context(self.echo)
            await self._stack.enter_async_context(self._host)
            self._server = await self._host.start_server(
                ServerProfile(
                    listen=join_host_port(self._host_address, 0),
                    connect=join_host_port(*self.echo.address),
                    identity=self._directory / "identity",
                    token=new_token(),
                )
            )
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            shown = "\n".join(map(str, self.events))
            error.add_note(f"--- events ---\n{shown}")
        # The block's own exception is not shown to task groups, which would wrap it.
        await self._stack.aclose()

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = anyio.Event()
        if self.on_event is not None:
            self.on_event(event)


class Application:
    """An application behind the client: one UDP socket, alive while the `with` block lasts."""

    def __init__(self, listen: tuple[str, int]) -> None:
        self._socket = socket.socket(family_of(listen[0]), socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(listen)
        self._tag = token_bytes(4)
        self._sent = 0
        self.exchanged = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    async def exchange(self, rounds: int = 1, sizes: Sequence[int] = MIXED_SIZES) -> None:
        """Send datagrams of all `sizes`, `rounds` times, and get every one of them back.

        Raises `AssertionError` when one is lost, altered, doubled or not ours.
        """
        payloads = [self._payload(size) for _ in range(rounds) for size in sizes]
        for start in range(0, len(payloads), WINDOW):
            window = payloads[start : start + WINDOW]
            for payload in window:
                self._socket.send(payload)
            returned = [await self.receive() for _ in window]
            assert Counter(returned) == Counter(window), "not the datagrams that were sent"
            self.exchanged += len(window)
        self.expect_silence()

    async def answered(self, timeout: float) -> bool:
        """Send one datagram and say whether it came back within `timeout` seconds.

        What was sent earlier may come back too; raises `AssertionError` for what never was ours.
        """
        payload = self._payload(100)
        with anyio.move_on_after(timeout):
            self._socket.send(payload)
            while (returned := await self._receive()) != payload:
                assert returned.startswith(self._tag[: len(returned)]), "somebody else's datagram"
            return True
        return False

    async def receive(self) -> bytes:
        """Return the next datagram; raises `AssertionError` when none comes."""
        try:
            with anyio.fail_after(REPLY_TIMEOUT):
                return await self._receive()
        except TimeoutError:
            raise AssertionError(f"no datagram came back in {REPLY_TIMEOUT:g} s") from None

    def expect_silence(self) -> None:
        """Raise `AssertionError` if there is a datagram that nobody has asked for."""
        try:
            extra = self._socket.recv(65_535)
        except BlockingIOError:
            return
        raise AssertionError(f"an unexpected datagram of {len(extra)} bytes")

    async def _receive(self) -> bytes:
        while True:
            try:
                return self._socket.recv(65_535)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)

    def _payload(self, size: int) -> bytes:
        """Return `size` bytes that say whose they are and which, as far as there is room."""
        self._sent += 1
        pattern = self._tag + self._sent.to_bytes(4, "little")
        return (pattern * (size // len(pattern) + 1))[:size]
