"""Shared by the lab's tests: both backends, and a dialogue with the relay's machine."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest

from turnlane.api import RelayTransport, Secret
from turnlane.proto.stun import (
    Address,
    MessageClass,
    Method,
    StunMessage,
    build,
    long_term_key,
    parse_untrusted,
)
from turnlane_lab.allocations import Allocation, FiveTuple
from turnlane_lab.config import RelayConfig
from turnlane_lab.faults import Faults
from turnlane_lab.relay_commands import CloseRelay, OpenRelay, SendToClient
from turnlane_lab.relay_machine import RelayMachine

UDP = 17 << 24


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
