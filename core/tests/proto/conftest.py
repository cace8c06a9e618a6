"""The other side of the TURN client: a relay whose lines a test speaks, and an honest small one."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from turnlane.proto import channel_data
from turnlane.proto.stun import (
    Address,
    MessageClass,
    Method,
    StunMessage,
    build,
    long_term_key,
    parse_untrusted,
)
from turnlane.proto.turn_client import TurnClient
from turnlane.proto.turn_events import (
    AllocationSucceeded,
    ChannelBound,
    PermissionInstalled,
    TurnEvent,
)
from turnlane.testing.network import Conditions, Place, SimulatedNetwork

USERNAME = "alice"
PASSWORD = "correct horse"
REALM = "example.org"
NONCE = b"nonce-1"
KEY = long_term_key(USERNAME, REALM, PASSWORD)
RELAYED = ("203.0.113.7", 50000)
MAPPED = ("198.51.100.9", 40000)
PEER = ("192.0.2.55", 56000)


class Dialogue:
    """A client, and a relay that says what the test tells it to say."""

    username, password, realm, nonce, key = USERNAME, PASSWORD, REALM, NONCE, KEY
    relayed, mapped, peer = RELAYED, MAPPED, PEER

    def __init__(self, **options: Any) -> None:
        options = {"reliable": False, "random_bytes": Random(1).randbytes, **options}
        password = options.pop("password", PASSWORD)
        self.client = TurnClient(USERNAME, password, **options)
        self.reliable: bool = options["reliable"]
        self._stream = b""
        self.now = 1000.0

    def hears(self) -> list[StunMessage]:
        """All that the client has to say now."""
        return [parse_untrusted(message) for message in self.client.datagrams_to_send()]

    def hears_one(self, method: Method, *, signed: bool) -> StunMessage:
        """The one request that the client has to say now."""
        messages = self.hears()
        assert [message.method for message in messages] == [method]
        assert messages[0].message_class is MessageClass.REQUEST
        assert messages[0].verify(KEY) is signed
        return messages[0]

    def says(
        self,
        message: bytes | None = None,
        *,
        to: StunMessage | None = None,
        error: tuple[int, str] | None = None,
        key: bytes | None = KEY,
        **attributes: Any,
    ) -> None:
        """Answer a request; attribute names are written with underscores."""
        if message is None:
            assert to is not None
            named = {name.replace("_", "-"): value for name, value in attributes.items()}
            if error is not None:
                named = {"ERROR-CODE": error, **named}
            message_class = MessageClass.RESPONSE if error is None else MessageClass.ERROR
            message = build(to.method, message_class, to.transaction_id, named, key=key)
        if self.reliable:
            self.streams(message)
        else:
            self.client.receive_datagram(message, self.now)

    def streams(self, data: bytes) -> None:
        """Give the client what comes over a stream, as the wire that carries it does."""
        self._stream += data
        try:
            starts, sizes, rest = channel_data.messages_untrusted(
                self._stream, 0, len(self._stream), 1000
            )
        except channel_data.FramingError as error:
            self.client.lose_stream(str(error))
            return
        for start, size in zip(starts, sizes, strict=True):
            self.client.receive_datagram(self._stream[start : start + size], self.now)
        self._stream = self._stream[rest:]

    def challenges(self, request: StunMessage, code: int = 401, nonce: bytes = NONCE) -> None:
        self.says(to=request, error=(code, ""), key=None, REALM=REALM, NONCE=nonce)

    def grants(self, request: StunMessage, lifetime: int = 600) -> None:
        self.says(
            to=request, XOR_RELAYED_ADDRESS=RELAYED, XOR_MAPPED_ADDRESS=MAPPED, LIFETIME=lifetime
        )

    def events(self) -> list[TurnEvent]:
        """All that has happened since the last call."""
        events = []
        while (event := self.client.next_event()) is not None:
            events.append(event)
        return events

    def passes_until(self, moment: float) -> list[tuple[float, StunMessage]]:
        """Let time pass; return what the client said meanwhile and when."""
        said = [(self.now, message) for message in self.hears()]
        while (timer := self.client.get_timer()) is not None and timer <= moment:
            self.now = max(self.now, timer)
            self.client.handle_timer(self.now)
            said += [(self.now, message) for message in self.hears()]
        self.now = moment
        return said

    def allocates(self, lifetime: int = 600) -> None:
        """Go through a common beginning, up to and including AllocationSucceeded."""
        self.client.start(self.now)
        self.challenges(self.hears_one(Method.ALLOCATE, signed=False))
        self.grants(self.hears_one(Method.ALLOCATE, signed=True), lifetime)
        assert self.events() == [AllocationSucceeded(RELAYED, MAPPED, float(lifetime))]

    def introduces(self, peer: Address = PEER) -> tuple[StunMessage, StunMessage]:
        """Add a peer; return the requests for its permission and its channel."""
        self.client.add_peer(*peer, self.now)
        permission, binding = self.hears()
        assert permission.method is Method.CREATE_PERMISSION
        assert binding.method is Method.CHANNEL_BIND
        return permission, binding

    def connects(self, peer: Address = PEER) -> int:
        """Add a peer and grant it all; return the number of its channel."""
        for request in self.introduces(peer):
            self.says(to=request)
        number = self.client.channel(peer)
        assert number is not None
        assert self.events() == [PermissionInstalled(peer), ChannelBound(peer, number)]
        return number


@pytest.fixture
def dialogue() -> Callable[..., Dialogue]:
    """Make a dialogue; takes the keyword arguments of TurnClient, and `password`."""
    return Dialogue


@dataclass
class Allocation:
    transaction_id: bytes
    expires: float
    permissions: dict[str, float] = field(default_factory=dict)
    channels: dict[int, tuple[Address, float]] = field(default_factory=dict)


class HonestRelay:
    """A TURN server for one client on a simulated network, as RFC 8656 has it.

    `lapses` counts what it refused to pass or let expire; a client that keeps its things fresh
    never adds to it. `releases` counts the requests to delete an allocation that arrived.
    """

    place: Place = "relay"

    def __init__(
        self,
        seed: int,
        *,
        max_lifetime: int = 600,
        permission_lifetime: float = 300.0,
        channel_lifetime: float = 600.0,
        nonce_lifetime: float = 3600.0,
        channels_permit: bool = True,
    ) -> None:
        self.allocations: dict[Place, Allocation] = {}
        self.lapses: Counter[str] = Counter()
        self.handled: Counter[Method] = Counter()
        self.releases = 0
        self._random = Random(seed)
        self._max_lifetime = max_lifetime
        self._permission_lifetime = permission_lifetime
        self._channel_lifetime = channel_lifetime
        self._nonce_lifetime = nonce_lifetime
        self._channels_permit = channels_permit
        self._nonces: dict[bytes, float] = {}
        self._answers: dict[bytes, bytes] = {}
        self._outgoing: list[tuple[bytes, Place]] = []

    def get_timer(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None:
        pass

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive(self, data: bytes, source: Place, now: float) -> None:
        self._expire(now)
        if isinstance(source, tuple):
            self._relay_from_peer(data, source)
        elif data[0] & 0xC0 == 0x40:
            self._relay_channel_data(data, source)
        else:
            message = parse_untrusted(data)
            if message.message_class is MessageClass.INDICATION:
                self._relay_indication(message, source)
            else:
                # A repeated request gets the same answer (RFC 8489, section 6.3.1).
                self.releases += message.attributes.get("LIFETIME") == 0
                answer = self._answers.get(message.transaction_id)
                if answer is None:
                    answer = self._answer(message, source, now)
                    self._answers[message.transaction_id] = answer
                self._outgoing.append((answer, source))

    def _expire(self, now: float) -> None:
        for client, allocation in list(self.allocations.items()):
            for host, expires in list(allocation.permissions.items()):
                if expires <= now:
                    del allocation.permissions[host]
                    self.lapses["permission"] += 1
            for number, (_, expires) in list(allocation.channels.items()):
                if expires <= now:
                    del allocation.channels[number]
                    self.lapses["channel"] += 1
            if allocation.expires <= now:
                del self.allocations[client]
                self.lapses["allocation"] += 1

    def _answer(self, request: StunMessage, client: Place, now: float) -> bytes:
        def refuse(code: int, *, signed: bool = True, **attributes: Any) -> bytes:
            return build(
                request.method,
                MessageClass.ERROR,
                request.transaction_id,
                {"ERROR-CODE": (code, ""), **attributes},
                key=KEY if signed else None,
            )

        def succeed(attributes: dict[str, Any] | None = None) -> bytes:
            self.handled[request.method] += 1
            return build(
                request.method,
                MessageClass.RESPONSE,
                request.transaction_id,
                attributes or {},
                key=KEY,
                fingerprint=True,
            )

        assert not request.unknown_required
        assert not request.malformed
        nonce = request.attributes.get("NONCE")
        stale = nonce is not None and now >= self._nonces.get(nonce, now)
        if stale or not request.verify(KEY):
            new = self._random.randbytes(8).hex().encode()
            self._nonces[new] = now + self._nonce_lifetime
            return refuse(438 if stale else 401, signed=False, REALM=REALM, NONCE=new)
        assert request.attributes["USERNAME"] == USERNAME

        allocation = self.allocations.get(client)
        lifetime = min(request.attributes.get("LIFETIME", 600), self._max_lifetime)
        if request.method is Method.ALLOCATE:
            if allocation is not None:
                return refuse(437)
            self.allocations[client] = Allocation(request.transaction_id, now + lifetime)
            return succeed(
                {
                    "XOR-RELAYED-ADDRESS": RELAYED,
                    "LIFETIME": lifetime,
                    "XOR-MAPPED-ADDRESS": MAPPED,
                }
            )
        if allocation is None:
            return refuse(437)
        if request.method is Method.REFRESH:
            allocation.expires = now + lifetime
            if lifetime == 0:
                del self.allocations[client]
            return succeed({"LIFETIME": lifetime})
        peer = request.attributes["XOR-PEER-ADDRESS"]
        if request.method is Method.CHANNEL_BIND:
            number = request.attributes["CHANNEL-NUMBER"]
            bound = {other: address for other, (address, _) in allocation.channels.items()}
            if bound.get(number, peer) != peer or (peer in bound.values() and number not in bound):
                return refuse(400)
            allocation.channels[number] = (peer, now + self._channel_lifetime)
        if request.method is Method.CREATE_PERMISSION or self._channels_permit:
            allocation.permissions[peer[0]] = now + self._permission_lifetime
        return succeed()

    def _relay_from_peer(self, data: bytes, source: Address) -> None:
        for client, allocation in self.allocations.items():
            if source[0] not in allocation.permissions:
                self.lapses["from a peer without permission"] += 1
                continue
            for number, (peer, _) in allocation.channels.items():
                if peer == source:
                    message = channel_data.encode(number, data, padded=False)
                    break
            else:
                message = build(
                    Method.DATA,
                    MessageClass.INDICATION,
                    self._random.randbytes(12),
                    {"XOR-PEER-ADDRESS": source, "DATA": data},
                )
            self._outgoing.append((message, client))

    def _relay_channel_data(self, data: bytes, client: Place) -> None:
        number, payload = channel_data.decode_untrusted(data)
        allocation = self.allocations.get(client)
        if allocation is None or number not in allocation.channels:
            self.lapses["to an unbound channel"] += 1
        else:
            self._relay_to_peer(allocation, allocation.channels[number][0], bytes(payload))

    def _relay_indication(self, message: StunMessage, client: Place) -> None:
        assert message.method is Method.SEND
        allocation = self.allocations.get(client)
        if allocation is not None:
            self._relay_to_peer(
                allocation, message.attributes["XOR-PEER-ADDRESS"], message.attributes["DATA"]
            )

    def _relay_to_peer(self, allocation: Allocation, peer: Address, payload: bytes) -> None:
        if peer[0] in allocation.permissions:
            self._outgoing.append((payload, peer))
        else:
            self.lapses["to a peer without permission"] += 1


class EchoPeer:
    """Someone behind the relay who says everything back."""

    def __init__(self, place: Address = PEER) -> None:
        self.place: Place = place
        self.received: list[bytes] = []
        self._outgoing: list[tuple[bytes, Place]] = []

    def get_timer(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None:
        pass

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive(self, data: bytes, source: Place, now: float) -> None:
        self.received.append(data)
        self._outgoing.append((b"echo of " + data, source))


class ClientHost:
    """A TURN client with its place in the network, which speaks to the echo every `interval`."""

    place: Place = "client"

    def __init__(self, client: TurnClient, *, interval: float = 0.2) -> None:
        self.client = client
        self.events: list[tuple[float, TurnEvent]] = []
        self.spoken = 0
        self._interval = interval
        self._speaks: float | None = None
        self._now = 0.0
        self._outgoing: list[tuple[bytes, Place]] = []

    def start(self, now: float) -> None:
        self.client.add_peer(*PEER, now)
        self.client.start(now)

    def close(self, now: float) -> None:
        self._speaks = None
        self.client.close(now)

    def happened(self, kind: type[TurnEvent]) -> list[Any]:
        return [event for _, event in self.events if isinstance(event, kind)]

    def get_timer(self) -> float | None:
        timers = [t for t in (self.client.get_timer(), self._speaks) if t is not None]
        return min(timers, default=None)

    def handle_timer(self, now: float) -> None:
        timer = self.client.get_timer()
        if timer is not None and timer <= now:
            self.client.handle_timer(now)
        if self._speaks is not None and self._speaks <= now:
            self.spoken += 1
            payload = self.client.wrap(PEER, b"%d" % self.spoken)
            self._outgoing.append((payload, "relay"))
            self._speaks = now + self._interval

    def receive(self, data: bytes, source: Place, now: float) -> None:
        self.client.receive_datagram(data, now)

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:
        while (event := self.client.next_event()) is not None:
            self.events.append((now, event))
            if isinstance(event, PermissionInstalled):
                self._speaks = now
        outgoing: list[tuple[bytes, Place]] = [
            (message, "relay") for message in self.client.datagrams_to_send()
        ]
        outgoing += self._outgoing
        self._outgoing = []
        return outgoing


class RelayedWorld:
    """A client, an honest relay and an echo on a seeded network."""

    def __init__(
        self,
        seed: int,
        conditions: Conditions,
        *,
        password: str = PASSWORD,
        interval: float = 0.2,
        client: dict[str, Any] | None = None,
        relay: dict[str, Any] | None = None,
    ) -> None:
        self.network = SimulatedNetwork(seed, conditions)
        self.relay = HonestRelay(seed, **(relay or {}))
        self.echo = EchoPeer()
        machine = TurnClient(
            USERNAME,
            password,
            reliable=False,
            random_bytes=Random(seed).randbytes,
            **(client or {}),
        )
        self.host = ClientHost(machine, interval=interval)
        self.endpoints = [self.host, self.relay, self.echo]


@pytest.fixture
def world() -> Callable[..., RelayedWorld]:
    """Make a world from a seed and conditions."""
    return RelayedWorld
