"""UDP targets behind a relay: one that echoes, one that only listens."""

import socket
from collections import deque

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from turnlane.api import Stage, TurnlaneError
from turnlane.net.system import family_of, open_socket, plain_address, reason
from turnlane.proto.stun import Address
from turnlane_lab.counters import Counters
from turnlane_lab.service import Service

MAX_SOURCES = 4096
"""Distinct sources that a target remembers; later ones are only counted."""

KEPT_DATAGRAMS = 1024
"""The most recent datagrams that a silent target keeps."""

READ_LIMIT = 64
"""Datagrams taken per wake-up."""

_DATAGRAM = 65_535


class UdpTarget(Service):
    """A bound UDP socket that looks at what arrives, alive while its `async with` block lasts.

    `sources` are the distinct addresses it saw, in order of first sight. `counters` has `received`,
    `sent`, `sources` and `dropped`. Entering raises `TurnlaneError` at `listen`.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self.sources: list[Address] = []
        self.counters = Counters(("received", "sent", "sources", "dropped"))
        self._known: set[Address] = set()
        self._socket: socket.socket | None = None

    @property
    def address(self) -> Address:
        """Host and port of the target."""
        return self.host, self.port

    async def speak(self, peer: Address, data: bytes) -> None:
        """Send a datagram to `peer` without having been asked.

        Raises `OSError` when the system does not take it.
        """
        assert self._socket is not None, "only inside the async with block"
        while True:
            try:
                self._socket.sendto(data, peer)
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            else:
                break
        self.counters.add("sent")
        await checkpoint()

    def answer(self, data: bytes, source: Address) -> bytes | None:
        """Return what `source` gets back for `data`, or None."""
        raise NotImplementedError

    def _open(self) -> None:
        try:
            opened = open_socket(family_of(self.host), socket.SOCK_DGRAM)
            self._socket = opened
            opened.bind((self.host, self.port))
        except OSError as error:
            raise TurnlaneError(
                Stage.LISTEN,
                "listen_failed",
                f"the target cannot listen on {self.host} port {self.port}: {reason(error)}",
                "choose another address or port, or stop what uses this one",
            ) from None
        self.port = opened.getsockname()[1]

    def _start(self, tasks: TaskGroup) -> None:
        assert self._socket is not None
        tasks.start_soon(self._serve, self._socket)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _serve(self, opened: socket.socket) -> None:
        while True:
            await anyio.wait_readable(opened)
            received = sent = dropped = 0
            try:
                for _ in range(READ_LIMIT):
                    data, address = opened.recvfrom(_DATAGRAM)
                    received += 1
                    source = plain_address(address)
                    if source not in self._known:
                        self._meet(source)
                    answer = self.answer(data, source)
                    if answer is None:
                        continue
                    try:
                        opened.sendto(answer, address)
                        sent += 1
                    except OSError:
                        dropped += 1
            except OSError:
                # Nothing more to read, or an ICMP error for something sent earlier.
                pass
            self.counters.add("sent", sent)
            self.counters.add("dropped", dropped)
            self.counters.add("received", received)

    def _meet(self, source: Address) -> None:
        if len(self._known) < MAX_SOURCES:
            self._known.add(source)
            self.sources.append(source)
        self.counters.add("sources")


class EchoTarget(UdpTarget):
    """Sends back what it receives, after `prefix`, by which echoes are told apart."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, prefix: bytes = b"") -> None:
        super().__init__(host, port)
        self.prefix = prefix

    def answer(self, data: bytes, source: Address) -> bytes | None:  # noqa: ARG002
        """Return the echo."""
        return self.prefix + data if self.prefix else data


class SilentTarget(UdpTarget):
    """Answers nothing; `datagrams` are the most recent it received, with their sources."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port)
        self.datagrams: deque[tuple[bytes, Address]] = deque(maxlen=KEPT_DATAGRAMS)

    def answer(self, data: bytes, source: Address) -> bytes | None:
        """Keep the datagram and say nothing."""
        self.datagrams.append((data, source))
        return None
