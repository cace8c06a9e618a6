"""Drives the DTLS machines on real loopback sockets, against programs that are not ours."""

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, Self

from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import Accepted, DtlsServer, ServerEvent
from turnlane.net.dtls_state import DtlsEvent

Address = tuple[str, int]
LOOPBACK = "127.0.0.1"
LARGEST = 65_536

TO_SERVER = True
TO_CLIENT = False


class Part(Protocol):
    """Something that `pump` keeps going."""

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """What to read from."""
        ...

    def readable(self, ready: socket.socket, now: float) -> None:
        """Read one datagram from `ready`."""
        ...

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due."""
        ...

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        ...


def pump(parts: Sequence[Part], until: Callable[[], bool], what: str, timeout: float = 15) -> float:
    """Keep `parts` going until `until()`; return the seconds it took.

    Raises `AssertionError` that names `what` was waited for. `until` is asked at least ten times a
    second, so it may look at a process.
    """
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for part in parts:
            for opened in part.sockets:
                selector.register(opened, selectors.EVENT_READ, part)
        while not until():
            now = time.monotonic()
            if now > began + timeout:
                raise AssertionError(f"no {what} in {timeout:g} s")
            timers = [part.get_timer() for part in parts]
            due = min((timer for timer in timers if timer is not None), default=now + 0.1)
            for key, _events in selector.select(min(max(due - now, 0.0), 0.1)):
                assert isinstance(key.fileobj, socket.socket)
                key.data.readable(key.fileobj, time.monotonic())
            now = time.monotonic()
            for part, timer in zip(parts, timers, strict=True):
                if timer is not None and timer <= now:
                    part.handle_timer(now)
    return time.monotonic() - began


def open_socket() -> socket.socket:
    """Open a UDP socket on a free loopback port."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.bind((LOOPBACK, 0))
    return opened


class SocketPart:
    """One socket, open while the `with` block lasts."""

    def __init__(self) -> None:
        self.socket = open_socket()

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """What to read from."""
        return [self.socket]

    @property
    def address(self) -> Address:
        """Where this part is reached."""
        address: Address = self.socket.getsockname()
        return address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def _receive(self) -> tuple[bytes, Address] | None:
        # A peer that is not there (yet) shows as a refused connection.
        with suppress(BlockingIOError, ConnectionRefusedError):
            data, address = self.socket.recvfrom(LARGEST)
            return data, address
        return None


class ClientPart(SocketPart):
    """A client association on a socket, talking to `server`."""

    def __init__(self, association: DtlsAssociation, server: Address) -> None:
        super().__init__()
        self.association = association
        self.server = server
        self.events: list[DtlsEvent] = []
        self.payloads: list[bytes] = []

    def start(self) -> None:
        """Send the first flight."""
        self.association.start(time.monotonic())
        self._flush()

    def send(self, payload: bytes) -> None:
        """Send one payload."""
        self.socket.sendto(self.association.encrypt(payload), self.server)

    def close(self) -> None:
        """Say goodbye."""
        self.association.close()
        self._flush()

    def readable(self, ready: socket.socket, now: float) -> None:
        """Read one datagram."""
        received = self._receive()
        if received is not None and received[1] == self.server:
            self.payloads += self.association.receive_datagram(received[0], now)
            self._flush()

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due."""
        return self.association.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self.association.handle_timer(now)
        self._flush()

    def _flush(self) -> None:
        for datagram in self.association.datagrams_to_send():
            self.socket.sendto(datagram, self.server)
        while (event := self.association.next_event()) is not None:
            self.events.append(event)


class ServerPart(SocketPart):
    """A listening server on a socket; with `echo` it sends every payload back."""

    def __init__(self, server: DtlsServer, *, echo: bool = False) -> None:
        super().__init__()
        self.server = server
        self.events: list[ServerEvent] = []
        self.payloads: list[bytes] = []
        self._echo = echo

    @property
    def accepted(self) -> list[Accepted]:
        """The associations that were accepted so far."""
        return [event for event in self.events if isinstance(event, Accepted)]

    def send(self, payload: bytes) -> None:
        """Send one payload to the latest peer."""
        peer = self.accepted[-1]
        self.socket.sendto(peer.association.encrypt(payload), peer.address)

    def readable(self, ready: socket.socket, now: float) -> None:
        """Read one datagram."""
        received = self._receive()
        if received is None:
            return
        data, address = received
        payloads = self.server.receive_datagram(data, address, now)
        self._flush()
        self.payloads += payloads
        association = self.server.association(address)
        if self._echo and association is not None:
            for payload in payloads:
                self.socket.sendto(association.encrypt(payload), address)

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due."""
        return self.server.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self.server.handle_timer(now)
        self._flush()

    def drop(self, address: Address) -> None:
        """Close the association of a peer."""
        self.server.drop(address)
        self._flush()

    def _flush(self) -> None:
        for datagram, address in self.server.datagrams_to_send():
            self.socket.sendto(datagram, address)
        while (event := self.server.next_event()) is not None:
            self.events.append(event)


class LossyPath(SocketPart):
    """Stands between one client and `server`, and loses what `loses` says True to.

    `loses` gets the datagram and its direction, `TO_SERVER` or `TO_CLIENT`.
    """

    def __init__(self, server: Address, loses: Callable[[bytes, bool], bool]) -> None:
        super().__init__()
        self.lost = 0
        self._server = server
        self._loses = loses
        self._towards_server = open_socket()
        self._client: Address | None = None

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """What to read from: the client's side and the server's."""
        return [self.socket, self._towards_server]

    def __exit__(self, *error: object) -> None:
        self._towards_server.close()
        super().__exit__(*error)

    def readable(self, ready: socket.socket, now: float) -> None:
        """Pass one datagram on, or lose it."""
        to_server = ready is self.socket
        with suppress(BlockingIOError, ConnectionRefusedError):
            data, source = ready.recvfrom(LARGEST)
            if to_server:
                self._client = source
            if self._loses(data, to_server):
                self.lost += 1
            elif to_server:
                self._towards_server.sendto(data, self._server)
            elif self._client is not None:
                self.socket.sendto(data, self._client)

    def get_timer(self) -> float | None:
        """Say that nothing is ever due."""
        return None

    def handle_timer(self, now: float) -> None:
        """Do nothing."""


def loses_first(is_meant: Callable[[bytes, bool], bool]) -> Callable[[bytes, bool], bool]:
    """Return what loses the first datagram that `is_meant`, and no other."""
    lost = False

    def loses(data: bytes, to_server: bool) -> bool:
        nonlocal lost
        if lost or not is_meant(data, to_server):
            return False
        lost = True
        return True

    return loses


FLIGHTS: dict[str, Callable[[bytes, bool], bool]] = {
    "first hello": lambda data, to_server: to_server and data[13] == 1,
    "cookie request": lambda data, to_server: not to_server and data[13] == 3,
    "hello with cookie": lambda data, to_server: to_server and data[13] == 1 and data[18] == 1,
    "server's certificate": lambda data, to_server: not to_server and data[13] in (2, 11),
    "client's finished": lambda data, to_server: to_server and data[13] == 16,
    "server's finished": lambda data, to_server: not to_server and data[0] == 20,
}
"""Which datagram of a handshake is meant, by the first record in it."""
