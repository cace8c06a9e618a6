"""The TURN server without its sockets (RFC 8656 over RFC 8489): bytes and time in, bytes out.

Data goes straight through: `receive_untrusted` and `receive_from_peer` return what is to be sent.
Everything else leaves as commands, which the driver carries out in order.
"""

import ipaddress
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from turnlane.proto import channel_data
from turnlane.proto.stun import (
    Address,
    MessageClass,
    Method,
    StunError,
    StunMessage,
    build,
    parse_untrusted,
)
from turnlane_lab.allocations import (
    Allocation,
    ChannelTakenError,
    FiveTuple,
    TableFullError,
)
from turnlane_lab.config import RelayConfig
from turnlane_lab.faults import Refusal
from turnlane_lab.nonces import Nonces
from turnlane_lab.relay_commands import CloseRelay, Command, OpenRelay, SendToClient, ToPeer
from turnlane_lab.users import Users

SOFTWARE = "turnlane-lab"

MAX_ANSWERS = 4096
"""Answers remembered for retransmitted requests; beyond, the oldest is forgotten."""

ANSWER_LIFETIME = 40.0
"""Seconds for which a request may be retransmitted (RFC 8489, section 6.3.1)."""

COUNTERS = (
    "allocations_alive",
    "allocations_made",
    "refreshes",
    "deallocations",
    "expired",
    "disconnected",
    "permissions_made",
    "permission_refreshes",
    "channel_binds",
    "channel_rebinds",
    "challenges",
    "unauthorized",
    "stale_nonces",
    "quota_refusals",
    "errors",
    "retransmissions",
    "packets_up",
    "bytes_up",
    "packets_down",
    "bytes_down",
    "dropped",
    "malformed",
)
"""What the machine counts; up is from client to peer, bytes are those of payloads."""

REASONS = {
    300: "Try Alternate",
    400: "Bad Request",
    401: "Unauthenticated",
    403: "Forbidden",
    420: "Unknown Attribute",
    437: "Allocation Mismatch",
    438: "Stale Nonce",
    440: "Address Family not Supported",
    441: "Wrong Credentials",
    442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch",
    486: "Allocation Quota Reached",
    500: "Server Error",
    508: "Insufficient Capacity",
}

_UDP = 17
_FAMILIES = {1: 4, 2: 6}
# Known to the parser, not to this relay: optional features that a client must not rely on.
_UNSUPPORTED = {"DONT-FRAGMENT": 0x001A, "RESERVATION-TOKEN": 0x0022}
_MUST_BE_SOUND = {
    "CHANNEL-NUMBER",
    "EVEN-PORT",
    "LIFETIME",
    "REQUESTED-TRANSPORT",
    "XOR-PEER-ADDRESS",
}


@dataclass(frozen=True, slots=True)
class _Request:
    five_tuple: FiveTuple
    message: StunMessage
    data: bytes
    now: float
    username: str = ""
    key: bytes | None = None

    def get(self, name: str) -> Any:
        return self.message.attributes.get(name)


@dataclass(frozen=True, slots=True)
class _Answer:
    request: bytes
    response: bytes
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Opening:
    request: _Request
    version: int


class _RefusedError(Exception):
    def __init__(self, code: int, **attributes: Any) -> None:
        super().__init__(code)
        self.code = code
        self.attributes = attributes


class RelayMachine:
    """One TURN server.

    `unix_time` says what time TURN REST usernames are measured by, `take_refusal` gives up the
    error that a fault wants a request of a method to be answered with.
    """

    def __init__(
        self,
        config: RelayConfig,
        *,
        random_bytes: Callable[[int], bytes],
        unix_time: Callable[[], float],
        take_refusal: Callable[[Method], Refusal | None] = lambda _: None,
    ) -> None:
        self.config = config
        self._random_bytes = random_bytes
        self._unix_time = unix_time
        self._take_refusal = take_refusal
        self._users = Users(config.users, config.rest_secret, config.realm)
        self._nonces = Nonces(config.nonce_lifetime, random_bytes)
        self._denied = [ipaddress.ip_network(network) for network in config.denied_peers]
        self._hosts = config.relayed_hosts
        self._allocations: dict[FiveTuple, Allocation] = {}
        self._opening: dict[FiveTuple, _Opening] = {}
        self._answers: OrderedDict[tuple[FiveTuple, bytes], _Answer] = OrderedDict()
        self._commands: list[Command] = []
        self._tally: defaultdict[str, int] = defaultdict(int)
        self._handlers: dict[Method, Callable[[_Request], Mapping[str, Any] | None]] = {
            Method.ALLOCATE: self._allocate,
            Method.REFRESH: self._refresh,
            Method.CREATE_PERMISSION: self._create_permission,
            Method.CHANNEL_BIND: self._channel_bind,
        }

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """The allocations alive, oldest first."""
        return tuple(self._allocations.values())

    def commands(self) -> list[Command]:
        """Give up what the driver is to do, in order."""
        commands, self._commands = self._commands, []
        return commands

    def take_tally(self) -> Mapping[str, int]:
        """Give up by how much each of `COUNTERS` changed since the last call."""
        tally, self._tally = self._tally, defaultdict(int)
        return tally

    def receive_untrusted(
        self, five_tuple: FiveTuple, data: bytes | memoryview, now: float
    ) -> ToPeer | None:
        """Take one whole message of a client; return the payload it wants relayed, or None.

        What makes no sense is counted and ignored (RFC 8656, sections 11.2 and 12.6).
        """
        if len(data) and data[0] & 0xC0 == 0x40:
            return self._relay_channel_data(five_tuple, data, now)
        try:
            message = parse_untrusted(data)
        except StunError:
            self._tally["malformed"] += 1
            return None
        if message.message_class is MessageClass.REQUEST:
            self._answer_request(_Request(five_tuple, message, bytes(data), now))
        elif message.message_class is MessageClass.INDICATION and message.method is Method.SEND:
            return self._relay_indication(five_tuple, message, now)
        else:
            self._tally["malformed"] += 1
        return None

    def receive_from_peer(
        self, allocation: Allocation, data: bytes, peer: Address, now: float
    ) -> bytes | None:
        """Take one datagram that arrived at a relayed address; return the client's message.

        None means that it is not for the client: no permission covers its source.
        """
        if not allocation.permitted(peer[0], now) or now >= allocation.expires_at:
            self._tally["dropped"] += 1
            return None
        tally = self._tally
        tally["packets_down"] += 1
        tally["bytes_down"] += len(data)
        channel = allocation.channel_to(peer, now)
        if channel is not None:
            reliable = allocation.five_tuple.reliable
            return channel_data.encode(channel.number, data, padded=reliable)
        return build(
            Method.DATA,
            MessageClass.INDICATION,
            self._random_bytes(12),
            {"XOR-PEER-ADDRESS": peer, "DATA": data},
        )

    def relay_opened(
        self, five_tuple: FiveTuple, relayed: Address, now: float
    ) -> Allocation | None:
        """Carry on after `OpenRelay`: the socket is bound to `relayed`.

        Return the allocation, or None when nobody wants the socket any more.
        """
        opening = self._opening.pop(five_tuple, None)
        if opening is None:
            return None
        request = opening.request
        lifetime = self._lifetime(request)
        allocation = Allocation(
            five_tuple=five_tuple,
            username=request.username,
            version=opening.version,
            relayed=relayed,
            expires_at=now + lifetime,
            max_permissions=self.config.max_permissions,
            max_channels=self.config.max_channels,
        )
        self._allocations[five_tuple] = allocation
        self._tally["allocations_made"] += 1
        self._tally["allocations_alive"] += 1
        self._respond(
            request,
            {
                "XOR-RELAYED-ADDRESS": self.config.told(relayed),
                "LIFETIME": lifetime,
                "XOR-MAPPED-ADDRESS": five_tuple.client,
            },
        )
        return allocation

    def relay_not_opened(self, five_tuple: FiveTuple) -> None:
        """Carry on after `OpenRelay`: the system gave no socket."""
        opening = self._opening.pop(five_tuple, None)
        if opening is not None:
            self._refuse(opening.request, _RefusedError(508))

    def connection_lost(self, five_tuple: FiveTuple) -> None:
        """Take note that a client's TCP connection is gone, and its allocation with it."""
        self._opening.pop(five_tuple, None)
        allocation = self._allocations.get(five_tuple)
        if allocation is not None:
            self._forget(allocation, "disconnected")

    def lose(self, relayed: Address) -> None:
        """Forget the allocation of one relayed address; raises `LookupError` without one."""
        for allocation in self.allocations:
            if allocation.relayed == relayed:
                self._forget(allocation, None)
                return
        raise LookupError("no allocation has that relayed address")

    def restart(self) -> None:
        """Forget everything, as a server does that is started anew."""
        for allocation in self.allocations:
            self._forget(allocation, None)
        self._opening.clear()
        self._answers.clear()
        self._nonces.forget()

    def get_timer(self) -> float | None:
        """Say when the next allocation expires, or None."""
        return min((each.expires_at for each in self._allocations.values()), default=None)

    def handle_timer(self, now: float) -> None:
        """Expire what is due at `now`."""
        for allocation in self.allocations:
            if allocation.expires_at <= now:
                self._forget(allocation, "expired")

    # Data.

    def _relay_channel_data(
        self, five_tuple: FiveTuple, data: bytes | memoryview, now: float
    ) -> ToPeer | None:
        tally = self._tally
        try:
            number, payload = channel_data.decode_untrusted(data)
        except channel_data.ChannelDataError:
            tally["malformed"] += 1
            return None
        allocation = self._allocations.get(five_tuple)
        channel = None if allocation is None else allocation.channel(number, now)
        if allocation is None or channel is None or now >= allocation.expires_at:
            tally["dropped"] += 1
            return None
        tally["packets_up"] += 1
        tally["bytes_up"] += len(payload)
        return allocation, payload, channel.peer

    def _relay_indication(
        self, five_tuple: FiveTuple, message: StunMessage, now: float
    ) -> ToPeer | None:
        attributes = message.attributes
        peer: Address | None = attributes.get("XOR-PEER-ADDRESS")
        payload: bytes | None = attributes.get("DATA")
        if peer is None or payload is None or _not_understood(message):
            self._tally["malformed"] += 1
            return None
        allocation = self._allocations.get(five_tuple)
        if (
            allocation is None
            or now >= allocation.expires_at
            or not allocation.permitted(peer[0], now)
        ):
            self._tally["dropped"] += 1
            return None
        self._tally["packets_up"] += 1
        self._tally["bytes_up"] += len(payload)
        return allocation, payload, peer

    # Requests: who asks, whether that can be, what is answered.

    def _answer_request(self, request: _Request) -> None:
        self.handle_timer(request.now)
        five_tuple, message = request.five_tuple, request.message
        answer = self._answers.get((five_tuple, message.transaction_id))
        if (
            answer is not None
            and answer.request == request.data
            and request.now < answer.expires_at
        ):
            self._tally["retransmissions"] += 1
            self._commands.append(SendToClient(five_tuple, answer.response))
            return
        handler = self._handlers.get(message.method)
        try:
            if message.method is Method.BINDING:
                self._respond(request, {"XOR-MAPPED-ADDRESS": five_tuple.client})
                return
            if handler is None:
                raise _RefusedError(400)
            request = self._authenticated(request)
            self._check(request)
            response = handler(request)
        except _RefusedError as refusal:
            self._refuse(request, refusal)
        else:
            if response is not None:
                self._respond(request, response)

    def _authenticated(self, request: _Request) -> _Request:
        """Return the request with who signed it (RFC 8489, section 9.2.4)."""
        message = request.message
        if message.signed is None:
            self._tally["challenges"] += 1
            raise self._challenge(request, 401)
        username, nonce = request.get("USERNAME"), request.get("NONCE")
        if username is None or nonce is None or request.get("REALM") is None:
            raise _RefusedError(400)
        key = self._users.key(username, self._unix_time())
        if key is None or not message.verify(key):
            self._tally["unauthorized"] += 1
            raise self._challenge(request, 401)
        if not self._nonces.valid(nonce, _name(request.five_tuple), request.now):
            self._tally["stale_nonces"] += 1
            raise self._challenge(request, 438)
        return _Request(request.five_tuple, message, request.data, request.now, username, key)

    def _check(self, request: _Request) -> None:
        """Refuse what no method takes, and what a fault wants refused."""
        refusal = self._take_refusal(request.message.method)
        if refusal is not None:
            if refusal.code in (401, 438):
                raise self._challenge(request, refusal.code)
            if refusal.alternate_server is not None:
                raise _RefusedError(refusal.code, **{"ALTERNATE-SERVER": refusal.alternate_server})
            raise _RefusedError(refusal.code)
        unknown = _not_understood(request.message)
        if unknown:
            raise _RefusedError(420, **{"UNKNOWN-ATTRIBUTES": unknown})
        if _MUST_BE_SOUND.intersection(request.message.malformed):
            raise _RefusedError(400)
        allocation = self._allocations.get(request.five_tuple)
        if request.message.method is Method.ALLOCATE:
            return
        if allocation is None:
            raise _RefusedError(437)
        if allocation.username != request.username:
            raise _RefusedError(441)

    def _allocate(self, request: _Request) -> None:
        """Decide an Allocate request (RFC 8656, section 7.2)."""
        five_tuple, message = request.five_tuple, request.message
        opening = self._opening.get(five_tuple)
        if opening is not None and opening.request.data == request.data:
            return
        if opening is not None or five_tuple in self._allocations:
            raise _RefusedError(437)
        transport = request.get("REQUESTED-TRANSPORT")
        if transport is None:
            raise _RefusedError(400)
        if transport >> 24 != _UDP:
            raise _RefusedError(442)
        version = _FAMILIES[request.get("REQUESTED-ADDRESS-FAMILY") or 1]
        host = self._hosts.get(version)
        if host is None or "REQUESTED-ADDRESS-FAMILY" in message.malformed:
            raise _RefusedError(440)
        even_port = request.get("EVEN-PORT")
        if even_port:
            # The next higher port is to be reserved as well, and that this relay cannot do.
            raise _RefusedError(508)
        self._check_quotas(request.username)
        if self.config.alternate_server is not None:
            raise _RefusedError(300, **{"ALTERNATE-SERVER": self.config.alternate_server})
        self._opening[five_tuple] = _Opening(request, version)
        self._commands.append(OpenRelay(five_tuple, host, even_port is not None))

    def _check_quotas(self, username: str) -> None:
        names = [each.username for each in self._allocations.values()]
        names += [each.request.username for each in self._opening.values()]
        if names.count(username) >= self.config.max_allocations_per_user:
            self._tally["quota_refusals"] += 1
            raise _RefusedError(486)
        if len(names) >= self.config.max_allocations:
            self._tally["quota_refusals"] += 1
            raise _RefusedError(508)

    def _refresh(self, request: _Request) -> Mapping[str, Any]:
        """Decide a Refresh request (RFC 8656, section 8.2)."""
        allocation = self._allocations[request.five_tuple]
        family = request.get("REQUESTED-ADDRESS-FAMILY")
        if "REQUESTED-ADDRESS-FAMILY" in request.message.malformed or (
            family is not None and _FAMILIES[family] != allocation.version
        ):
            raise _RefusedError(443)
        if request.get("LIFETIME") == 0:
            self._forget(allocation, "deallocations")
            return {"LIFETIME": 0}
        lifetime = self._lifetime(request)
        allocation.expires_at = request.now + lifetime
        self._tally["refreshes"] += 1
        return {"LIFETIME": lifetime}

    def _create_permission(self, request: _Request) -> Mapping[str, Any]:
        """Decide a CreatePermission request (RFC 8656, section 10.2)."""
        allocation = self._allocations[request.five_tuple]
        peers = request.message.peer_addresses
        if not peers:
            raise _RefusedError(400)
        for peer in peers:
            self._check_peer(allocation, peer)
        hosts = {host for host, _ in peers}
        try:
            alive = allocation.permit(hosts, request.now, self.config.permission_lifetime)
        except TableFullError:
            raise _RefusedError(508) from None
        self._tally["permission_refreshes"] += alive
        self._tally["permissions_made"] += len(hosts) - alive
        return {}

    def _channel_bind(self, request: _Request) -> Mapping[str, Any]:
        """Decide a ChannelBind request (RFC 8656, section 12.2)."""
        allocation = self._allocations[request.five_tuple]
        field, peer = request.get("CHANNEL-NUMBER"), request.get("XOR-PEER-ADDRESS")
        if (
            field is None
            or peer is None
            or not channel_data.MIN_CHANNEL <= field <= channel_data.MAX_CHANNEL
        ):
            raise _RefusedError(400)
        self._check_peer(allocation, peer)
        try:
            alive = allocation.bind(
                field,
                peer,
                request.now,
                lifetime=self.config.channel_lifetime,
                permission_lifetime=self.config.permission_lifetime,
            )
        except ChannelTakenError:
            raise _RefusedError(400) from None
        except TableFullError:
            raise _RefusedError(508) from None
        self._tally["channel_rebinds" if alive else "channel_binds"] += 1
        return {}

    def _check_peer(self, allocation: Allocation, peer: Address) -> None:
        address = ipaddress.ip_address(peer[0])
        if address.version != allocation.version:
            raise _RefusedError(443)
        if any(address in network for network in self._denied):
            raise _RefusedError(403)

    def _lifetime(self, request: _Request) -> int:
        wanted = request.get("LIFETIME") or 0
        return max(self.config.default_lifetime, min(wanted, self.config.max_lifetime))

    def _forget(self, allocation: Allocation, why: str | None) -> None:
        del self._allocations[allocation.five_tuple]
        self._tally["allocations_alive"] -= 1
        if why is not None:
            self._tally[why] += 1
        self._commands.append(CloseRelay(allocation))

    # Answers.

    def _challenge(self, request: _Request, code: int) -> _RefusedError:
        nonce = self._nonces.issue(_name(request.five_tuple), request.now)
        return _RefusedError(code, REALM=self.config.realm, NONCE=nonce)

    def _refuse(self, request: _Request, refusal: _RefusedError) -> None:
        self._tally["errors"] += 1
        reason = REASONS.get(refusal.code, "Refused")
        attributes = {"ERROR-CODE": (refusal.code, reason), **refusal.attributes}
        self._send(request, MessageClass.ERROR, attributes)

    def _respond(self, request: _Request, attributes: Mapping[str, Any]) -> None:
        self._send(request, MessageClass.RESPONSE, attributes)

    def _send(
        self, request: _Request, message_class: MessageClass, attributes: Mapping[str, Any]
    ) -> None:
        message = request.message
        # Challenges are not signed (RFC 8489, section 9.2.4): the client may not have the key yet.
        signed = "NONCE" not in attributes
        response = build(
            message.method,
            message_class,
            message.transaction_id,
            {**attributes, "SOFTWARE": SOFTWARE},
            key=request.key if signed else None,
            fingerprint="FINGERPRINT" in message.attributes,
        )
        self._commands.append(SendToClient(request.five_tuple, response))
        if request.key is not None:
            self._remember(request, response)

    def _remember(self, request: _Request, response: bytes) -> None:
        """Keep the answer for retransmissions; only authenticated requests take up memory."""
        answers = self._answers
        answers[request.five_tuple, request.message.transaction_id] = _Answer(
            request.data, response, request.now + ANSWER_LIFETIME
        )
        answers.move_to_end((request.five_tuple, request.message.transaction_id))
        while len(answers) > MAX_ANSWERS:
            answers.popitem(last=False)


def _name(five_tuple: FiveTuple) -> str:
    return f"{five_tuple.transport}|{five_tuple.client}|{five_tuple.server}"


def _not_understood(message: StunMessage) -> tuple[int, ...]:
    """Return the types of attributes that this relay would have to understand and does not."""
    unsupported = [
        number
        for name, number in _UNSUPPORTED.items()
        if name in message.attributes or name in message.malformed
    ]
    return (*message.unknown_required, *unsupported)
