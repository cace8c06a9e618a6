"""A server's ports without a socket: their DTLS, their peers, and clients that speak to them."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from secrets import token_bytes
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import pytest

from turnlane.api import AdapterError, Batch, DatagramSocket, Secret, Stage, TurnlaneError
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import DtlsServer
from turnlane.net.dtls_state import AssociationClosed
from turnlane.net.identity import Identity, Pin
from turnlane.net.system import SocketAddress
from turnlane.proto.frames import Datagram, datagram_flow
from turnlane.proto.hello import EXPORTER_LABEL, EXPORTER_SIZE, HelloParameters
from turnlane.proto.lane_client import LaneClient
from turnlane.proto.lane_events import ClientEvent, LaneEstablished
from turnlane.relay.lane_link import LaneLink, link_pair
from turnlane.relay.legacy_peers import LegacyPeers
from turnlane.relay.listener import Listener
from turnlane.relay.server_session import ServerSession
from turnlane.relay.session_peers import SessionPeers, SessionTerms
from turnlane.relay.shared_peers import Nobody, Owner, SharedPeers
from turnlane.relay.workspace import Workspace

TOKEN = Secret(b"the token of this server")


@cache
def identity() -> Identity:
    return Identity.generate(0.0)


@pytest.fixture
def server_pin() -> Pin:
    """The pin of every server here."""
    return identity().pin


class Wires:
    """What stands in for the listening socket: datagrams for each address, as they were sent."""

    def __init__(self) -> None:
        self.dropped = 0
        self.too_large = 0
        self.largest: int | None = None
        """Bytes of the largest datagram that leaves, as a system would know it."""
        self._addresses: list[SocketAddress] = []
        self.boxes: dict[SocketAddress, list[bytes]] = {}
        self.news = anyio.Event()

    def send(self, data: bytes, address: SocketAddress) -> None:
        if self.largest is not None and len(data) > self.largest:
            self.too_large += 1
            return
        self.boxes.setdefault(address, []).append(data)
        self.news.set()
        self.news = anyio.Event()

    def target(self, address: SocketAddress) -> SocketAddress:
        return address

    def send_batch(self, batch: Batch, target: SocketAddress) -> int:
        refused = self.too_large
        for datagram in batch:
            self.send(bytes(datagram), target)
        return len(batch) - (self.too_large - refused)

    def largest_payload(self, address: SocketAddress) -> int | None:
        return self.largest

    def number(self, address: SocketAddress) -> int:
        if address not in self._addresses:
            self._addresses.append(address)
        return self._addresses.index(address)

    def address(self, number: int) -> SocketAddress:
        return self._addresses[number]

    def take(self, address: SocketAddress) -> list[bytes]:
        return self.boxes.pop(address, [])


class UpstreamSocket:
    """One flow's upstream; what `say` is given comes back to the client."""

    local_address = ("192.0.2.1", 1)

    def __init__(self, flow: int) -> None:
        self.flow = flow
        self.taken: list[bytes] = []
        self.closed = False
        self._send, self._receive = anyio.create_memory_object_stream[bytes](1000)

    def say(self, packet: bytes) -> None:
        self._send.send_nowait(packet)

    async def receive(self, batch: Batch) -> None:
        try:
            packet = await self._receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            raise anyio.ClosedResourceError from None
        batch.clear()
        batch.append(packet, self.flow)

    def send(self, batch: Batch) -> int:
        self.taken += map(bytes, batch)
        return len(batch)

    def close(self) -> None:
        self.closed = True
        self._send.close()
        self._receive.close()


class Upstream:
    """An egress whose sockets a test can see, hold back and have fail."""

    def __init__(self) -> None:
        self.sockets: list[UpstreamSocket] = []
        self.open = anyio.Event()
        self.open.set()
        self.failing = False

    async def prepare(self) -> None:
        """Nothing to prepare."""

    async def connect(self, flow: int) -> DatagramSocket:
        await self.open.wait()
        if self.failing:
            raise AdapterError(Stage.UPSTREAM_DIAL, "upstream_unreachable", "no")
        self.sockets.append(UpstreamSocket(flow))
        return self.sockets[-1]


@dataclass
class Told:
    """A `ServerObserver` that remembers."""

    accepted: list[tuple[str, int, bool]] = field(default_factory=list)
    refused: list[tuple[Stage, str]] = field(default_factory=list)
    lost: list[tuple[int, str]] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)
    too_large: list[tuple[int, int, int, int]] = field(default_factory=list)

    def peer_accepted(
        self, address: str, session: str, lane: int, *, new_session: bool, traceparent: str
    ) -> None:
        self.accepted.append((session, lane, new_session))

    def peer_refused(self, address: str, stage: Stage, code: str, message: str) -> None:
        self.refused.append((stage, code))

    def peer_lost(self, session: str, lane: int, reason: str) -> None:
        self.lost.append((lane, reason))

    def datagrams_too_large(
        self, session: str, lane: int, size: int, max_datagram: int, count: int
    ) -> None:
        self.too_large.append((lane, size, max_datagram, count))

    def flow_failed(self, session: str, flow: int, error: TurnlaneError) -> None:
        self.failed.append((flow, error.code))


P = TypeVar("P", SessionPeers, LegacyPeers)


class Port(Generic[P]):
    """A port of a server. Time is `now`, which tests move; a flow's retries read the real clock."""

    def __init__(self, make_peers: Callable[["Port[P]"], P]) -> None:
        self.now = float(int(anyio.current_time()))  # whole, so that sums of seconds are exact
        self.wires = Wires()
        self.told = Told()
        self.upstream = Upstream()
        self.dtls = DtlsServer(identity(), random_bytes=token_bytes)
        self.workspace = Workspace()
        self.workspace.clock = lambda: self.now
        self.peers = make_peers(self)
        self.listener = Listener(
            self.wires,  # type: ignore[arg-type]
            self.dtls,
            self.peers,
            self.told,
            self.workspace,
        )

    def client(self, number: int = 1) -> "PortClient":
        """Return a client at an address of its own that has done nothing yet."""
        return PortClient(self, ("198.51.100.1", number))

    def take(self, *datagrams: tuple[bytes, SocketAddress]) -> None:
        """Take datagrams from the wire as one burst."""
        received = self.workspace.received
        received.clear()
        for data, address in datagrams:
            assert received.append(data, self.wires.number(address))
        self.listener.take(received)

    def session(self, session_id: bytes) -> ServerSession:
        assert isinstance(self.peers, SessionPeers)
        return self.peers.sessions[session_id]

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass and everything that is due happen."""
        self.now += seconds
        self.listener.tick(self.now)
        self.peers.tick(self.now)
        self.listener.flush()


class PortClient:
    """One lane of a client at one address."""

    def __init__(self, port: Port[Any], address: SocketAddress) -> None:
        self.port = port
        self.address = address
        self.association = DtlsAssociation.client(pin=identity().pin)
        self.lane: LaneClient | None = None
        self.events: list[ClientEvent] = []
        self.ends: list[AssociationClosed] = []
        self.payloads: list[tuple[int, bytes]] = []
        self.raw: list[bytes] = []
        self.secret: Secret[bytes] | None = None

    def handshake(self) -> "PortClient":
        """Make the association."""
        self.association.start(self.port.now)
        self.settle()
        assert self.association.state.name == "ESTABLISHED"
        return self

    def greet(
        self,
        session_id: bytes = b"s" * 16,
        secret: Secret[bytes] | None = None,
        *,
        lane: int = 0,
        token: Secret[bytes] | None = TOKEN,
    ) -> "PortClient":
        """Say hello and take the answer."""
        self.lane = LaneClient(
            HelloParameters(session_id=session_id, lane=lane, lanes=64),
            exporter=self.association.export(EXPORTER_LABEL, EXPORTER_SIZE),
            token=token,
            session_secret=secret,
        )
        self.lane.start(self.port.now)
        self.settle()
        return self

    def join(
        self, session_id: bytes = b"s" * 16, secret: Secret[bytes] | None = None, *, lane: int = 0
    ) -> "PortClient":
        """Shake hands, say hello and confirm the welcome."""
        self.handshake().greet(session_id, secret, lane=lane)
        assert any(isinstance(event, LaneEstablished) for event in self.events), self.events
        assert self.lane is not None
        self.lane.handle_timer(self.port.now)
        self.settle()
        return self

    def send(self, flow: int, *payloads: bytes) -> None:
        """Send datagrams of one flow."""
        self.send_raw(*(Datagram(flow, memoryview(payload)).encode() for payload in payloads))

    def send_raw(self, *records: bytes) -> None:
        """Send records as they are, in one burst."""
        self.deliver(map(self.association.encrypt, records))
        self.settle()

    def deliver(self, datagrams: Iterable[bytes]) -> None:
        """Hand datagrams to the port as one burst."""
        self.port.take(*((data, self.address) for data in datagrams))

    def outgoing(self) -> list[bytes]:
        """Give up what the client's machines want to send."""
        records = [] if self.lane is None else self.lane.records_to_send()
        return [self.association.encrypt(one) for one in records] + (
            self.association.datagrams_to_send()
        )

    def settle(self) -> None:
        """Move datagrams both ways until nobody has anything to say."""
        while True:
            datagrams = self.outgoing()
            if datagrams:
                self.deliver(datagrams)
            received = self.port.wires.take(self.address)
            for data in received:
                for record in self.association.receive_datagram(data, self.port.now):
                    self._receive(record)
            self._collect()
            if not datagrams and not received:
                return

    def leave(self, code: int) -> None:
        """Say bye."""
        assert self.lane is not None
        self.lane.leave(code)  # type: ignore[arg-type]
        self.settle()

    def _receive(self, record: bytes) -> None:
        self.raw.append(record)
        flow = datagram_flow(record)
        if flow >= 0:
            self.payloads.append((flow, record[4:]))
        elif self.lane is not None:
            self.lane.receive(record, self.port.now)

    def _collect(self) -> None:
        while (event := self.association.next_event()) is not None:
            if isinstance(event, AssociationClosed):
                self.ends.append(event)
        while self.lane is not None and (told := self.lane.next_event()) is not None:
            self.events.append(told)
            if isinstance(told, LaneEstablished):
                self.secret = told.session_secret


@pytest.fixture
def open_port() -> Callable[..., AbstractAsyncContextManager[Port[SessionPeers]]]:
    """Give `async with open_port(max_sessions=1) as port`: fields of `SessionTerms`, changed."""

    @asynccontextmanager
    async def opened(
        *,
        token: Secret[bytes] | None = TOKEN,
        hello_timeout: float = 5.0,
        idle_timeout: float = 1800.0,
        max_sessions: int = 8,
    ) -> AsyncIterator[Port[SessionPeers]]:
        terms = SessionTerms(token, hello_timeout, idle_timeout, max_sessions, 16_000)
        async with anyio.create_task_group() as tasks:
            port: Port[SessionPeers] = Port(
                lambda port: SessionPeers(
                    terms,
                    port.dtls,
                    port.upstream,
                    tasks,
                    port=port.wires,
                    workspace=port.workspace,
                    observer=port.told,
                    random_bytes=token_bytes,
                )
            )
            yield port
            port.peers.close(port.now)
            tasks.cancel_scope.cancel()

    return opened


@pytest.fixture
def open_legacy_port() -> Callable[..., AbstractAsyncContextManager[Port[LegacyPeers]]]:
    """Give `async with open_legacy_port(idle_timeout=1.0) as port`."""

    @asynccontextmanager
    async def opened(*, idle_timeout: float = 1800.0) -> AsyncIterator[Port[LegacyPeers]]:
        async with anyio.create_task_group() as tasks:
            port: Port[LegacyPeers] = Port(
                lambda port: LegacyPeers(
                    port.dtls,
                    port.upstream,
                    tasks,
                    idle_timeout=idle_timeout,
                    port=port.wires,
                    workspace=port.workspace,
                    observer=port.told,
                )
            )
            yield port
            port.peers.close(port.now)
            tasks.cancel_scope.cancel()

    return opened


class Census:
    """Who owns which session, for ports in one process; `hold` keeps the answers back."""

    def __init__(self, here: int, owners: dict[bytes, int]) -> None:
        self.asked: list[tuple[bytes, bool]] = []
        self.told_deserted: list[tuple[bytes, ...]] = []
        self.full = False
        self.held: list[Callable[[], None]] | None = None
        self._here = here
        self._owners = owners

    def claim(self, session_id: bytes, *, new: bool, answer: Callable[[Owner], None]) -> None:
        self.asked.append((session_id, new))
        if self.held is None:
            answer(self.owner(session_id, new))
        else:
            self.held.append(lambda: answer(self.owner(session_id, new)))

    def owner(self, session_id: bytes, new: bool) -> Owner:
        if session_id not in self._owners:
            if not new:
                return Nobody.UNKNOWN
            if self.full:
                return Nobody.FULL
            self._owners[session_id] = self._here
        return self._owners[session_id]

    def release(self, session_id: bytes) -> None:
        if self._owners.get(session_id) == self._here:
            del self._owners[session_id]

    def deserted(self, session_ids: tuple[bytes, ...]) -> None:
        self.told_deserted.append(session_ids)


@dataclass
class SharedPorts:
    """Ports of one server in several processes, as far as one process can show that."""

    ports: list[Port[SessionPeers]]
    owners: dict[bytes, int]
    census: list[Census]
    links: dict[tuple[int, int], LaneLink]

    async def until(self, holds: Callable[[], object], *clients: "PortClient") -> None:
        """Move datagrams and messages until something is so."""
        with anyio.fail_after(5.0):
            while not holds():
                for client in clients:
                    client.settle()
                await anyio.lowlevel.checkpoint()
        for client in clients:
            client.settle()

    async def join(self, client: "PortClient", *arguments: Any, lane: int = 0) -> "PortClient":
        """Have a client join a session, and confirm the welcome."""
        client.handshake().greet(*arguments, lane=lane)
        await self.until(lambda: client.events, client)
        assert isinstance(client.events[0], LaneEstablished), client.events
        assert client.lane is not None
        client.lane.handle_timer(client.port.now)
        client.settle()
        return client


@pytest.fixture
def open_shared_ports() -> Callable[..., AbstractAsyncContextManager[SharedPorts]]:
    """Give `async with open_shared_ports() as shared`: two ports with a link between them."""

    @asynccontextmanager
    async def opened(*, max_sessions: int = 8) -> AsyncIterator[SharedPorts]:
        terms = SessionTerms(TOKEN, 5.0, 1800.0, max_sessions, 16_000)
        shared = SharedPorts([], {}, [], {})
        async with anyio.create_task_group() as tasks:
            for here in range(2):
                census = Census(here, shared.owners)
                port: Port[SessionPeers] = Port(
                    lambda port, here=here, census=census: SharedPeers(
                        terms,
                        port.dtls,
                        port.upstream,
                        tasks,
                        port=port.wires,
                        workspace=port.workspace,
                        observer=port.told,
                        random_bytes=token_bytes,
                        here=here,
                        census=census,
                    )
                )
                shared.ports.append(port)
                shared.census.append(census)
            for here, end in enumerate(link_pair()):
                port = shared.ports[here]
                link = shared.links[here, 1 - here] = LaneLink(end, port.workspace.received)
                assert isinstance(port.peers, SharedPeers)
                tasks.start_soon(port.peers.run_link, 1 - here, link)
            await anyio.wait_all_tasks_blocked()
            yield shared
            for port in shared.ports:
                port.peers.close(port.now)
            tasks.cancel_scope.cancel()

    return opened
