"""The relay with its sockets: one TURN server on UDP and TCP, alive while its block lasts."""

import errno
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote

import anyio
from anyio.abc import TaskGroup

from turnlane.api import RelayEndpoint, RelayTransport, Secret, Stage, TurnlaneError
from turnlane.net.system import family_of, open_socket, plain_address, reason
from turnlane.proto.stun import Address
from turnlane_lab.allocations import Allocation, FiveTuple
from turnlane_lab.config import RelayConfig
from turnlane_lab.counters import Counters
from turnlane_lab.faults import Direction, Faults
from turnlane_lab.relay_commands import CloseRelay, OpenRelay, SendToClient
from turnlane_lab.relay_machine import COUNTERS, RelayMachine
from turnlane_lab.relay_stream import ClientConnection
from turnlane_lab.service import Service

READ_LIMIT = 64
"""Datagrams taken per wake-up, so that one busy socket does not starve its neighbours."""

_DATAGRAM = 65_535
_PORT_ATTEMPTS = 32
_DATA_INDICATIONS = (b"\x00\x16", b"\x00\x17")

Packet = Callable[[float], None]
"""A packet under way: called with the time at which it arrives."""


def _unix_time() -> float:
    return datetime.now(UTC).timestamp()


class Relay(Service):
    """A TURN server in this process.

        async with Relay(RelayConfig(users={"ada": Secret("...")})) as relay:
            link = relay.link("ada")

    `faults` are switched at run time, `counters` are waited on: those of the machine (see
    `relay_machine.COUNTERS`) and `tcp_connections_alive`, `tcp_connections_made`,
    `tcp_connections_refused`, `lost_to_faults`. Entering raises `TurnlaneError` at `listen` when
    an address cannot be listened on. All methods belong to the event loop that entered.
    """

    def __init__(
        self,
        config: RelayConfig,
        *,
        seed: int = 0,
        unix_time: Callable[[], float] = _unix_time,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.config = config
        self.faults: Faults[Packet] = Faults(seed)
        self.counters = Counters(
            (
                *COUNTERS,
                "tcp_connections_alive",
                "tcp_connections_made",
                "tcp_connections_refused",
                "lost_to_faults",
            )
        )
        self.paused = False
        self._machine = RelayMachine(
            config,
            random_bytes=random_bytes,
            unix_time=unix_time,
            take_refusal=self.faults.take_refusal,
        )
        self._udp: dict[Address, socket.socket] = {}
        self._tcp: dict[Address, socket.socket] = {}
        self._relayed: dict[Allocation, socket.socket] = {}
        self._connections: dict[FiveTuple, ClientConnection] = {}
        self._wake = anyio.Event()
        self._timers_changed = False
        self._told_lost = 0

    # What it is.

    @property
    def host(self) -> str:
        """The first address that the relay listens on."""
        return self.config.hosts[0]

    @property
    def udp_port(self) -> int:
        """The port for clients over UDP; the same on every host."""
        return next(iter(self._udp))[1]

    @property
    def tcp_port(self) -> int:
        """The port for clients over TCP; the same on every host."""
        return next(iter(self._tcp))[1]

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """The allocations alive, oldest first; to look at, not to change."""
        return self._machine.allocations

    def endpoint(
        self, transport: RelayTransport = RelayTransport.UDP, *, host: str | None = None
    ) -> RelayEndpoint:
        """Return where clients reach the relay; `host` replaces the first it listens on.

        Raises `ValueError` for TLS, which the lab's relay does not speak.
        """
        if transport is RelayTransport.TLS:
            raise ValueError("the lab's relay speaks UDP and TCP, not TLS")
        port = self.udp_port if transport is RelayTransport.UDP else self.tcp_port
        return RelayEndpoint(host or self.host, port, transport)

    def link(
        self,
        username: str | None = None,
        password: Secret[str] | None = None,
        transport: RelayTransport = RelayTransport.UDP,
        *,
        host: str | None = None,
    ) -> Secret[str]:
        """Return a `generic-turn` link to this relay.

        Without a username the first of the static users, without a password the one that the
        configuration has for the username. Raises `ValueError` where it has none.
        """
        users = self.config.users
        if username is None:
            username = next(iter(users), None)
        if username is None or (password is None and username not in users):
            raise ValueError("no such static user: give a username and a password")
        secret = users[username] if password is None else password
        endpoint = self.endpoint(transport, host=host)
        who = f"{quote(username, safe='')}:{quote(secret.reveal(), safe='')}"
        return Secret(f"generic-turn://{who}@{endpoint.address}?transport={transport}")

    # What can be done to it.

    def pause(self) -> None:
        """Fall silent: whatever arrives from now on is lost. Lifetimes keep running."""
        self.paused = True

    def resume(self) -> None:
        """Answer and relay again."""
        self.paused = False

    async def restart(self) -> None:
        """Be another server on the same ports: allocations and nonces forgotten, TCP closed."""
        self.faults.forget()
        self._machine.restart()
        connections = list(self._connections.values())
        for connection in connections:
            connection.disconnect()
        self._settle(anyio.current_time())
        for connection in connections:
            await connection.closed.wait()

    def lose(self, relayed: Address) -> None:
        """Forget one allocation, as if it had never been; its client is not told.

        Raises `LookupError` when no allocation has that relayed address.
        """
        self._machine.lose(relayed)
        self._settle(anyio.current_time())

    # Opening and closing.

    def _open(self) -> None:
        config = self.config
        self._udp = _listen(config.hosts, config.udp_port, socket.SOCK_DGRAM)
        self._tcp = _listen(config.hosts, config.tcp_port, socket.SOCK_STREAM)

    def _start(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._keep_time)
        for server, opened in self._udp.items():
            tasks.start_soon(self._serve_udp, opened, server)
        for server, opened in self._tcp.items():
            tasks.start_soon(self._accept, opened, server)

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.release()
        for sockets in (self._relayed, self._udp, self._tcp):
            for opened in sockets.values():
                opened.close()
        self._relayed.clear()
        self._connections.clear()

    # Sockets.

    async def _serve_udp(self, opened: socket.socket, server: Address) -> None:
        receive = opened.recvfrom
        while True:
            await anyio.wait_readable(opened)
            now = anyio.current_time()
            try:
                for _ in range(READ_LIMIT):
                    data, address = receive(_DATAGRAM)
                    client = FiveTuple(RelayTransport.UDP, plain_address(address), server)
                    self._arrive_from_client(client, data, now)
            except OSError:
                # Nothing more to read, or an ICMP error for something sent earlier.
                pass
            self._settle(now)

    async def _serve_relayed(self, allocation: Allocation, opened: socket.socket) -> None:
        receive = opened.recvfrom
        try:
            while allocation in self._relayed:
                await anyio.wait_readable(opened)
                now = anyio.current_time()
                try:
                    for _ in range(READ_LIMIT):
                        data, address = receive(_DATAGRAM)
                        self._arrive_from_peer(allocation, data, plain_address(address), now)
                except OSError:
                    # As above; or the allocation was given up in the middle of the batch.
                    pass
                self._settle(now)
        except anyio.ClosedResourceError:
            # The allocation is gone; `_carry_out` has closed its socket.
            return

    async def _accept(self, listener: socket.socket, server: Address) -> None:
        while True:
            await anyio.wait_readable(listener)
            try:
                opened, address = listener.accept()
            except OSError:
                continue
            five_tuple = FiveTuple(RelayTransport.TCP, plain_address(address), server)
            if len(self._connections) >= self.config.max_connections:
                opened.close()
                self.counters.add("tcp_connections_refused")
                continue
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = ClientConnection(opened, five_tuple)
            self._connections[five_tuple] = connection
            self.counters.add("tcp_connections_made")
            self.counters.add("tcp_connections_alive")
            self._tasks.start_soon(self._serve_connection, connection)

    async def _serve_connection(self, connection: ClientConnection) -> None:
        five_tuple = connection.five_tuple

        def receive(messages: list[memoryview], now: float) -> None:
            for message in messages:
                self._arrive_from_client(five_tuple, message, now)
            self._settle(now)

        try:
            sound = await connection.serve(receive)
        finally:
            del self._connections[five_tuple]
            connection.release()
        # Not when the relay itself ends: its last numbers say what its clients left behind.
        if not sound:
            self.counters.add("malformed")
        self.counters.add("tcp_connections_alive", -1)
        self._machine.connection_lost(five_tuple)
        self._settle(anyio.current_time())

    # The ways of packets; each passes the faults of its direction.

    def _arrive_from_client(
        self, five_tuple: FiveTuple, data: bytes | memoryview, now: float
    ) -> None:
        if self.paused:
            self.counters.add("dropped")
        elif self.faults.active(Direction.CLIENT_TO_RELAY) and _may_be_lost(five_tuple, data):
            packet = partial(self._from_client, five_tuple, data)
            self._impaired(Direction.CLIENT_TO_RELAY, data, packet, now)
        else:
            self._from_client(five_tuple, data, now)

    def _from_client(self, five_tuple: FiveTuple, data: bytes | memoryview, now: float) -> None:
        to_peer = self._machine.receive_untrusted(five_tuple, data, now)
        if to_peer is None:
            self._carry_out(now)
            return
        allocation, payload, peer = to_peer
        if self.faults.active(Direction.RELAY_TO_PEER):
            packet = partial(self._to_peer, allocation, payload, peer)
            self._impaired(Direction.RELAY_TO_PEER, payload, packet, now)
        else:
            self._to_peer(allocation, payload, peer, now)

    def _to_peer(
        self,
        allocation: Allocation,
        payload: bytes | memoryview,
        peer: Address,
        now: float,  # noqa: ARG002 - a packet is told the time
    ) -> None:
        opened = self._relayed.get(allocation)
        try:
            if opened is not None:
                opened.sendto(payload, peer)
        except OSError:
            self.counters.add("dropped")

    def _arrive_from_peer(
        self, allocation: Allocation, data: bytes, peer: Address, now: float
    ) -> None:
        if self.paused:
            self.counters.add("dropped")
        elif self.faults.active(Direction.PEER_TO_RELAY):
            packet = partial(self._from_peer, allocation, data, peer)
            self._impaired(Direction.PEER_TO_RELAY, data, packet, now)
        else:
            self._from_peer(allocation, data, peer, now)

    def _from_peer(self, allocation: Allocation, data: bytes, peer: Address, now: float) -> None:
        if allocation not in self._relayed:
            return
        message = self._machine.receive_from_peer(allocation, data, peer, now)
        if message is not None:
            self._leave_to_client(allocation.five_tuple, message, now)

    def _leave_to_client(self, five_tuple: FiveTuple, message: bytes, now: float) -> None:
        if self.faults.active(Direction.RELAY_TO_CLIENT) and _may_be_lost(five_tuple, message):
            packet = partial(self._to_client, five_tuple, message)
            self._impaired(Direction.RELAY_TO_CLIENT, message, packet, now)
        else:
            self._to_client(five_tuple, message, now)

    def _to_client(
        self,
        five_tuple: FiveTuple,
        message: bytes,
        now: float,  # noqa: ARG002 - a packet is told the time
    ) -> None:
        sent = False
        if five_tuple.transport is RelayTransport.UDP:
            try:
                self._udp[five_tuple.server].sendto(message, five_tuple.client)
                sent = True
            except OSError:
                pass
        else:
            connection = self._connections.get(five_tuple)
            if connection is not None:
                sent = connection.send(message, droppable=_is_data(message))
        if not sent:
            self.counters.add("dropped")

    def _impaired(
        self, direction: Direction, data: bytes | memoryview, packet: Packet, now: float
    ) -> None:
        for passing in self.faults.admit(direction, bytes(data), packet, now):
            passing(now)
        self._timers_changed = True

    # Commands, time and numbers.

    def _carry_out(self, now: float) -> None:
        while commands := self._machine.commands():
            self._timers_changed = True
            for command in commands:
                match command:
                    case SendToClient(five_tuple, message):
                        self._leave_to_client(five_tuple, message, now)
                    case OpenRelay():
                        self._open_relay(command, now)
                    case CloseRelay(allocation):
                        opened = self._relayed.pop(allocation, None)
                        if opened is not None:
                            anyio.notify_closing(opened)
                            opened.close()

    def _open_relay(self, command: OpenRelay, now: float) -> None:
        five_tuple = command.five_tuple
        try:
            opened = _bind_relay(command.host, even_port=command.even_port)
        except OSError:
            self._machine.relay_not_opened(five_tuple)
            return
        relayed = plain_address(opened.getsockname())
        allocation = self._machine.relay_opened(five_tuple, relayed, now)
        if allocation is None:
            opened.close()
            return
        self._relayed[allocation] = opened
        self._tasks.start_soon(self._serve_relayed, allocation, opened)

    async def _keep_time(self) -> None:
        while True:
            timers = (self._machine.get_timer(), self.faults.get_timer())
            deadline = min((timer for timer in timers if timer is not None), default=float("inf"))
            self._wake = anyio.Event()
            with anyio.CancelScope(deadline=deadline):
                await self._wake.wait()
            now = anyio.current_time()
            for _, packet in self.faults.due(now):
                if self.paused:
                    self.counters.add("dropped")
                else:
                    packet(now)
            self._machine.handle_timer(now)
            self._settle(now)

    def _settle(self, now: float) -> None:
        """Finish a turn: do what the machine wants, tell the numbers, set the next alarm."""
        self._carry_out(now)
        self._publish()
        if self._timers_changed:
            self._timers_changed = False
            self._wake.set()

    def _publish(self) -> None:
        for name, amount in self._machine.take_tally().items():
            self.counters.add(name, amount)
        lost = self.faults.lost - self._told_lost
        if lost:
            self._told_lost = self.faults.lost
            self.counters.add("lost_to_faults", lost)


def _is_data(message: bytes | memoryview) -> bool:
    """Whether a message carries relayed data: ChannelData, a Send or a Data indication."""
    return bool(message) and (message[0] & 0xC0 == 0x40 or bytes(message[:2]) in _DATA_INDICATIONS)


def _may_be_lost(five_tuple: FiveTuple, message: bytes | memoryview) -> bool:
    return not five_tuple.reliable or _is_data(message)


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Open a non-blocking socket bound to an address; raises OSError."""
    family = family_of(host)
    opened = open_socket(family, kind)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        if kind == socket.SOCK_STREAM:
            opened.listen(128)
    except BaseException:
        opened.close()
        raise
    return opened


def _bind_relay(host: str, *, even_port: bool) -> socket.socket:
    """Bind a UDP socket to a free port, an even one if wanted; raises OSError."""
    with ExitStack() as odd:
        for _ in range(_PORT_ATTEMPTS):
            opened = _bind(host, 0, socket.SOCK_DGRAM)
            if not even_port or opened.getsockname()[1] % 2 == 0:
                return opened
            # Kept until the search is over, so that the system does not offer it again.
            odd.enter_context(opened)
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _listen(
    hosts: tuple[str, ...], port: int, kind: socket.SocketKind
) -> dict[Address, socket.socket]:
    """Bind every host to one and the same port; raises `TurnlaneError` at `listen`."""
    attempts = 1 if port else _PORT_ATTEMPTS
    while True:
        attempts -= 1
        bound: dict[Address, socket.socket] = {}
        chosen = port
        host = hosts[0]
        try:
            for host in hosts:
                opened = _bind(host, chosen, kind)
                chosen = opened.getsockname()[1]
                bound[host, chosen] = opened
        except OSError as error:
            for opened in bound.values():
                opened.close()
            # A port that is free on one host may be taken on the other: choose again.
            if error.errno == errno.EADDRINUSE and attempts and bound:
                continue
            raise TurnlaneError(
                Stage.LISTEN,
                "listen_failed",
                f"the relay cannot listen on {host} port {chosen}: {reason(error)}",
                "choose another address or port, or stop what uses this one",
            ) from None
        return bound
