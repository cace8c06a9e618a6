"""Shared by the lab's tests: both backends, a dialogue with the machine, a live client."""

import socket
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Self, TypeVar

import anyio
import pytest

from turnlane.api import RelayTransport, Secret
from turnlane.net.system import family_of
from turnlane.proto.channel_data import StreamFramer
from turnlane.proto.stun import (
    Address,
    MessageClass,
    Method,
    StunMessage,
    build,
    long_term_key,
    parse_untrusted,
)
from turnlane.proto.turn_client import DataReceived, TurnClient, TurnEvent
from turnlane_lab.allocations import Allocation, FiveTuple
from turnlane_lab.config import RelayConfig
from turnlane_lab.faults import Faults
from turnlane_lab.relay import Relay
from turnlane_lab.relay_commands import CloseRelay, OpenRelay, SendToClient
from turnlane_lab.relay_machine import RelayMachine

UDP = 17 << 24

Event = TypeVar("Event", bound=TurnEvent)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run an async test on both backends."""
    backend: str = request.param
    return backend


class ScriptedClient:
    """Says exactly what a test wants said, and reads the answer."""

    def __init__(
        self,
        username: str,
        password: str,
        *,
        seed: int,
        exchange: Callable[[bytes], list[bytes]],
    ) -> None:
        self.username = username
        self.password = password
        self.exchange = exchange
        self.realm = ""
        self.nonce = b""
        self._random = Random(seed)

    @property
    def key(self) -> bytes:
        return long_term_key(self.username, self.realm, self.password)

    def request(
        self,
        method: Method,
        attributes: Mapping[str, Any] | None = None,
        *,
        signed: bool = True,
        fingerprint: bool = False,
    ) -> bytes:
        """Build a request, signed with the realm and nonce of the last challenge."""
        told = dict(attributes or {})
        if signed:
            told |= {"USERNAME": self.username, "REALM": self.realm, "NONCE": self.nonce}
        return build(
            method,
            MessageClass.REQUEST,
            self._random.randbytes(12),
            told,
            key=self.key if signed else None,
            fingerprint=fingerprint,
        )

    def tell(self, message: bytes) -> StunMessage:
        """Send `message` and return the one answer to it."""
        (answer,) = self.exchange(message)
        return parse_untrusted(answer)

    def challenged(self) -> StunMessage:
        """Ask without credentials, and keep the realm and nonce of the refusal."""
        answer = self.tell(
            self.request(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP}, signed=False)
        )
        self.realm, self.nonce = answer.attributes["REALM"], answer.attributes["NONCE"]
        return answer

    def ask(self, method: Method, attributes: Mapping[str, Any] | None = None) -> StunMessage:
        """Send a signed request and return its answer, whose signature is checked."""
        if not self.nonce:
            self.challenged()
        answer = self.tell(self.request(method, attributes))
        assert answer.method is method
        if answer.error is None or answer.error[0] not in (401, 438):
            assert answer.verify(self.key)
        return answer

    def allocate(self, **attributes: Any) -> StunMessage:
        """Ask for an allocation."""
        return self.ask(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP, **attributes})

    def refresh(self, lifetime: int) -> StunMessage:
        """Ask for more lifetime, or with 0 for none."""
        return self.ask(Method.REFRESH, {"LIFETIME": lifetime})

    def permit(self, *peers: Address) -> StunMessage:
        """Ask for permissions."""
        return self.ask(Method.CREATE_PERMISSION, {"XOR-PEER-ADDRESS": list(peers)})

    def bind(self, number: int, peer: Address) -> StunMessage:
        """Ask for a channel."""
        return self.ask(Method.CHANNEL_BIND, {"CHANNEL-NUMBER": number, "XOR-PEER-ADDRESS": peer})

    def indication(self, peer: Address, payload: bytes, **attributes: Any) -> bytes:
        """Build a Send indication."""
        return build(
            Method.SEND,
            MessageClass.INDICATION,
            self._random.randbytes(12),
            {"XOR-PEER-ADDRESS": peer, "DATA": payload, **attributes},
        )


class Dialogue:
    """A relay's machine on a virtual clock, and what it wanted done."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("users", {"ada": Secret("swordfish"), "bob": Secret("marlin")})
        self.now = 100.0
        self.unix_time = 1_800_000_000.0
        self.faults: Faults[object] = Faults()
        self.machine = RelayMachine(
            RelayConfig(**settings),
            random_bytes=Random(7).randbytes,
            unix_time=lambda: self.unix_time,
            take_refusal=self.faults.take_refusal,
        )
        self.counted: dict[str, int] = {}
        self.to_peers: list[tuple[bytes, Address]] = []
        self.opened: list[OpenRelay] = []
        self.closed: list[Allocation] = []
        self.out_of_sockets = False
        self._next_port = 50_000

    def client(
        self,
        port: int = 1000,
        username: str = "ada",
        password: str = "swordfish",
        transport: RelayTransport = RelayTransport.UDP,
    ) -> ScriptedClient:
        """Return a client at 192.0.2.1 with this source port."""
        five_tuple = self.five_tuple(port, transport)
        return ScriptedClient(
            username,
            password,
            seed=port,
            exchange=lambda message: self.receive(five_tuple, message),
        )

    @staticmethod
    def five_tuple(port: int = 1000, transport: RelayTransport = RelayTransport.UDP) -> FiveTuple:
        return FiveTuple(transport, ("192.0.2.1", port), ("198.51.100.1", 3478))

    def receive(self, five_tuple: FiveTuple, message: bytes) -> list[bytes]:
        """Let a client's message arrive now; return the messages that go back to it."""
        to_peer = self.machine.receive_untrusted(five_tuple, message, self.now)
        if to_peer is not None:
            _, payload, peer = to_peer
            self.to_peers.append((bytes(payload), peer))
        return [message for to, message in self.carry_out() if to == five_tuple]

    def carry_out(self) -> list[tuple[FiveTuple, bytes]]:
        """Do what the machine wants done, as a driver would; return what clients get."""
        sent = []
        while commands := self.machine.commands():
            for command in commands:
                match command:
                    case SendToClient(five_tuple, message):
                        sent.append((five_tuple, message))
                    case OpenRelay(five_tuple, host):
                        self.opened.append(command)
                        if self.out_of_sockets:
                            self.machine.relay_not_opened(five_tuple)
                        else:
                            self._next_port += 1
                            relayed = (host, self._next_port)
                            self.machine.relay_opened(five_tuple, relayed, self.now)
                    case CloseRelay(allocation):
                        self.closed.append(allocation)
        for name, amount in self.machine.take_tally().items():
            self.counted[name] = self.counted.get(name, 0) + amount
        return sent

    def from_peer(self, payload: bytes, peer: Address) -> bytes | None:
        """Let a datagram arrive at the only allocation now; return the client's message."""
        (allocation,) = self.machine.allocations
        message = self.machine.receive_from_peer(allocation, payload, peer, self.now)
        self.carry_out()
        return message

    def pass_time(self, seconds: float) -> None:
        """Move the clock, stopping where the machine wants to be called."""
        end = self.now + seconds
        while (timer := self.machine.get_timer()) is not None and timer <= end:
            self.now = timer
            self.machine.handle_timer(timer)
            self.carry_out()
        self.now = end
        self.unix_time += seconds


@pytest.fixture(scope="session")
def dialogue() -> Callable[..., Dialogue]:
    """Make a dialogue; its arguments are settings of the relay."""
    return Dialogue


class LiveClient:
    """A TURN client on a socket of its own, moved on only while a test waits for something."""

    def __init__(
        self,
        relay: Relay,
        transport: RelayTransport = RelayTransport.UDP,
        *,
        username: str = "ada",
        password: str = "swordfish",
        host: str | None = None,
        **settings: Any,
    ) -> None:
        self.endpoint = relay.endpoint(transport, host=host)
        self.reliable = transport is RelayTransport.TCP
        self.passed: list[TurnEvent] = []
        self.ended = False
        self.framer = StreamFramer()
        kind = socket.SOCK_STREAM if self.reliable else socket.SOCK_DGRAM
        self.socket = socket.socket(family_of(self.endpoint.host), kind)
        self.machine = TurnClient(
            username,
            password,
            reliable=self.reliable,
            random_bytes=Random(id(self)).randbytes,
            **settings,
        )

    def __enter__(self) -> Self:
        # Loopback connects at once, also while the relay in this very thread does not accept yet.
        self.socket.connect((self.endpoint.host, self.endpoint.port))
        self.socket.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def address(self) -> Address:
        host, port = self.socket.getsockname()[:2]
        return host, port

    def start(self, *peers: Address) -> None:
        """Ask for an allocation, and for a channel to each of `peers`."""
        now = anyio.current_time()
        self.machine.start(now)
        for host, port in peers:
            self.machine.add_peer(host, port, now)
        self.flush()

    def send(self, peer: Address, *payloads: bytes) -> None:
        """Send payloads to a peer."""
        for payload in payloads:
            self.socket.send(self.machine.wrap(peer, payload))

    async def until(self, kind: type[Event], *, timeout: float = 10.0) -> Event:
        """Wait for an event of `kind`; others are kept in `passed`."""
        with anyio.fail_after(timeout):
            while True:
                while (event := self.machine.next_event()) is not None:
                    if isinstance(event, kind):
                        return event
                    self.passed.append(event)
                await self.step()

    async def payload(self, *, timeout: float = 10.0) -> bytes:
        """Wait for the next payload of any peer."""
        return (await self.until(DataReceived, timeout=timeout)).payload

    async def end(self, *, timeout: float = 10.0) -> None:
        """Wait until the relay closes the connection."""
        with anyio.fail_after(timeout):
            while not self.ended:
                await self.step()

    def flush(self) -> None:
        for message in self.machine.datagrams_to_send():
            self.socket.send(message)

    async def step(self) -> None:
        self.flush()
        timer = self.machine.get_timer()
        with anyio.CancelScope(deadline=float("inf") if timer is None else timer):
            await anyio.wait_readable(self.socket)
        now = anyio.current_time()
        try:
            data = self.socket.recv(65_536)
        except BlockingIOError:
            pass
        else:
            if not self.reliable:
                self.machine.receive_datagram(data, now)
            elif data:
                for message in self.framer.receive_untrusted(data):
                    self.machine.receive_datagram(message, now)
            else:
                self.ended = True
        timer = self.machine.get_timer()
        if timer is not None and timer <= now:
            self.machine.handle_timer(now)
        self.flush()


@pytest.fixture
def live_client() -> type[LiveClient]:
    """Make a live client: `with live_client(relay, transport) as client`."""
    return LiveClient
