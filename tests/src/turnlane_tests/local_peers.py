"""Applications at a client's local end, and a log of a host's events, for tests on loopback."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from turnlane.runtime.events import Event


class LocalPeer:
    """An application at the client's local end: sends numbered datagrams, keeps the replies."""

    def __init__(self, name: str, listen: tuple[str, int]) -> None:
        self.name = name
        self.sent = 0
        self.replies: list[bytes] = []
        self.heard = anyio.Event()
        family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(listen)

    def send(self, size: int = 0) -> bytes:
        """Send the next datagram, of at least `size` bytes, and return it."""
        self.sent += 1
        data = f"{self.name}:{self.sent}:".encode().ljust(size, b".")
        self._socket.send(data)
        return data

    def send_empty(self) -> None:
        """Send a datagram without a payload."""
        self._socket.send(b"")

    async def receive_loop(self) -> None:
        while True:
            await anyio.wait_readable(self._socket)
            try:
                while True:
                    self.replies.append(self._socket.recv(65_535))
                    self.heard.set()
            except BlockingIOError:
                continue
            except ConnectionError:
                continue

    async def echoed(self, data: bytes, timeout: float = 5.0) -> None:
        """Wait until `data` has come back."""
        with anyio.fail_after(timeout):
            while data not in self.replies:
                self.heard = anyio.Event()
                await self.heard.wait()

    def close(self) -> None:
        self._socket.close()

    @property
    def strays(self) -> list[bytes]:
        """Replies that belong to somebody else."""
        return [reply for reply in self.replies if not reply.startswith(f"{self.name}:".encode())]


@asynccontextmanager
async def local_peers(listen: tuple[str, int], *names: str) -> AsyncIterator[list[LocalPeer]]:
    peers = [LocalPeer(name, listen) for name in names]
    try:
        async with anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(peer.receive_loop)
            yield peers
            tasks.cancel_scope.cancel()
    finally:
        for peer in peers:
            peer.close()


class EventLog:
    """Keeps the events of a host; waits for one that fits."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = anyio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(
        self, fits: Callable[[Event], bool], *, after: int = 0, timeout: float = 15.0
    ) -> Event:
        """Wait until one of the events from number `after` on fits, and return it."""
        with anyio.fail_after(timeout):
            while True:
                for event in self.events[after:]:
                    if fits(event):
                        return event
                self._more = anyio.Event()
                await self._more.wait()
