"""A TURN client without I/O (RFC 8656, RFC 8489): one allocation, its permissions and channels.

Bytes and the time come in as arguments, what is to be sent is fetched, what has happened comes out
as events. The driver calls `datagrams_to_send`, `next_event` and `get_timer` after every call that
takes the time. Everything that the relay holds for us is an `Upkeep`, asked for and asked for
again before it runs out; every question is a `Request`, which lives on through a stale nonce.
"""

import ipaddress
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

from turnlane.api.secrets import Secret
from turnlane.proto.channel_data import (
    MIN_CHANNEL,
    ChannelDataError,
    decode_untrusted,
    encode,
)
from turnlane.proto.stun import (
    TRANSACTION_ID_SIZE,
    Address,
    MessageClass,
    Method,
    StunError,
    StunMessage,
    build,
    parse_untrusted,
)
from turnlane.proto.turn_answers import (
    ALLOCATION_GONE,
    PEER_UNWANTED,
    describe_error,
    find_problem,
    is_authentic,
)
from turnlane.proto.turn_credentials import LongTermCredentials
from turnlane.proto.turn_events import (
    AllocationFailed,
    AllocationLost,
    AllocationRefreshed,
    AllocationSucceeded,
    AlternateServer,
    ChannelBound,
    DataReceived,
    Deallocated,
    PeerRefused,
    PermissionInstalled,
    TurnEvent,
)
from turnlane.proto.turn_state import TRANSITIONS, AllocationState, Statistics, Step
from turnlane.proto.turn_transactions import (
    RELEASE_RELIABLE,
    RELEASE_UNRELIABLE,
    RELIABLE,
    UNRELIABLE,
    Transaction,
    Transactions,
)
from turnlane.proto.turn_upkeep import (
    ALLOCATION_LIFETIME,
    CHANNEL_LIFETIME,
    PERMISSION_LIFETIME,
    Peer,
    Request,
    Upkeep,
)

__all__ = [
    "AllocationFailed",
    "AllocationLost",
    "AllocationRefreshed",
    "AllocationState",
    "AllocationSucceeded",
    "AlternateServer",
    "ChannelBound",
    "DataReceived",
    "Deallocated",
    "PeerRefused",
    "PermissionInstalled",
    "Statistics",
    "TurnClient",
    "TurnEvent",
]

Buffer = bytes | bytearray | memoryview

MAX_PEERS = 64
MAX_QUEUED_PAYLOADS = 4096
MAX_STALE_NONCES = 5
MAX_RETRIES = 3

_UDP = 17 << 24
_RELEASE_LIMIT = {False: 1.5, True: 2.0}
_FAMILY_NUMBERS: Mapping[int, int] = {4: 1, 6: 2}


class TurnClient:
    """One allocation at one relay over one 5-tuple, from `start` to `close`.

    `reliable` says that the relay is reached over TCP or TLS. `random_bytes(n)` gives n
    unpredictable bytes. `family` asks for a relayed address of that IP version, `lifetime` is what
    is asked for in seconds; the relay decides. `permission_lifetime` and `channel_lifetime` are
    fixed by the RFC and differ only in laboratories.

    Once `finished`, a client stays so, and another attempt takes another client; what it still has
    to send then is a last word to the relay. `Deallocated` follows every `close`, whatever came
    before it.
    """

    def __init__(
        self,
        username: str,
        password: str,
        *,
        reliable: bool,
        random_bytes: Callable[[int], bytes],
        family: Literal[4, 6] | None = None,
        lifetime: int = ALLOCATION_LIFETIME,
        software: str = "turnlane",
        permission_lifetime: float = PERMISSION_LIFETIME,
        channel_lifetime: float = CHANNEL_LIFETIME,
    ) -> None:
        self.state = AllocationState.IDLE
        self._credentials = LongTermCredentials(username, Secret(password))
        self._reliable = reliable
        self._random_bytes = random_bytes
        self._family = family
        self._lifetime = lifetime
        self._software = {"SOFTWARE": software} if software else {}
        self._permission_lifetime = permission_lifetime
        self._channel_lifetime = channel_lifetime
        self._allocation = Upkeep(Method.ALLOCATE, float(lifetime))
        self._upkeeps = [self._allocation]
        self._peers: dict[Address, Peer] = {}
        self._peers_by_number: dict[int, Address] = {}
        self._transactions: Transactions[Request] = Transactions()
        self._closing_until = 0.0
        self._events: deque[TurnEvent] = deque()
        self._statistics = Statistics()

    @property
    def finished(self) -> bool:
        """Whether nothing will happen any more: closed, or failed."""
        return self.state in (AllocationState.CLOSED, AllocationState.FAILED)

    @property
    def statistics(self) -> Statistics:
        """Counters, up to date whenever they are read."""
        self._statistics.retransmissions = self._transactions.retransmissions
        return self._statistics

    def start(self, now: float) -> None:
        """Ask for the allocation; raises `RuntimeError` when called a second time.

        Raises `ValueError` for a username, lifetime or software that no attribute can hold.
        """
        self._advance(Step.START)
        self._ask(self._allocation, now)

    def add_peer(self, host: str, port: int, now: float) -> None:
        """Have a permission and a channel for a peer, as soon as there is an allocation.

        `host` is an address literal. A peer that is known already is left as it is. Raises
        `ValueError` for anything but a literal and a port, and beyond `MAX_PEERS`.
        """
        address = (_literal(host), port)
        if not 0 < port <= 0xFFFF:
            raise ValueError(f"not a port: {port}")
        if address in self._peers:
            return
        if len(self._peers) == MAX_PEERS:
            raise ValueError(f"more than {MAX_PEERS} peers")
        peer = Peer(address, MIN_CHANNEL + len(self._peers))
        self._peers[address] = peer
        if self.state is AllocationState.ALLOCATED:
            self._introduce(peer, now)

    def close(self, now: float) -> None:
        """Give the allocation back; `Deallocated` follows in 1.5 s (2 s over TCP) at the latest.

        It follows at once where there is nothing to give back. A second call does nothing.
        """
        if (self.state, Step.CLOSE) not in TRANSITIONS:
            return
        allocated = self.state is AllocationState.ALLOCATED
        self._advance(Step.CLOSE)
        if self.finished:
            self._events.append(Deallocated())
            return
        self._closing_until = now + _RELEASE_LIMIT[self._reliable]
        for transaction_id, transaction in self._transactions.pending():
            if transaction.purpose.method is Method.ALLOCATE:
                # Its answer still matters, as it may be an allocation; that it arrives does not.
                transaction.stop_sending(self._closing_until)
            else:
                self._transactions.end(transaction_id)
        if allocated or self._credentials.key is not None:
            self._release(now)

    def receive_datagram(self, data: Buffer, now: float) -> None:
        """Take one datagram from the relay, or one whole message from its stream."""
        if self.finished:
            return
        if data and data[0] & 0xC0 == 0x40:
            try:
                number, payload = decode_untrusted(data)
            except ChannelDataError:
                self._statistics.malformed += 1
                return
            address = self._peers_by_number.get(number)
            if address is None:
                self._statistics.unexpected += 1
            else:
                self._deliver(address, bytes(payload))
            return
        try:
            message = parse_untrusted(data)
        except StunError:
            self._statistics.malformed += 1
            return
        transaction = self._transactions.get(message.transaction_id)
        if message.message_class is MessageClass.INDICATION:
            self._receive_indication(message)
        elif (
            message.message_class is MessageClass.REQUEST
            or transaction is None
            or transaction.purpose.method is not message.method
        ):
            self._statistics.unexpected += 1
        else:
            self._receive_answer(transaction, message, now)

    def lose_stream(self, reason: str) -> None:
        """Take note that the relay's stream holds what is no message, and can't be followed."""
        if self.finished:
            return
        self._statistics.malformed += 1
        # Nothing that is sent now would be answered: dropping the stream is the release.
        self._transactions.clear()
        if self.state is AllocationState.CLOSING:
            self._settle()
        else:
            self._fail(None, f"the relay's stream cannot be followed: {reason}", release=False)

    def datagrams_to_send(self) -> list[bytes]:
        """Give up what is to be sent to the relay now, in this order."""
        return self._transactions.datagrams_to_send()

    def next_event(self) -> TurnEvent | None:
        """Give up the next event, or None."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Say when `handle_timer` wants to be called, or None."""
        if self.finished:
            return None
        moments = [upkeep.due for upkeep in self._upkeeps if upkeep.due is not None]
        if self.state is AllocationState.CLOSING:
            moments = [self._closing_until]
        pending = self._transactions.get_timer()
        if pending is not None:
            moments.append(pending)
        return min(moments, default=None)

    def handle_timer(self, now: float) -> None:
        """Send again, give up, refresh: whatever is due."""
        for transaction in self._transactions.handle_timer(now):
            if not self.finished:
                reason = f"no answer within {now - transaction.first_sent:.1f} s"
                if transaction.ignored is not None:
                    reason = _unauthenticated(transaction.ignored)
                self._take_failure(transaction.purpose, None, reason, now)
        if self.state is AllocationState.CLOSING:
            if now >= self._closing_until:
                self._transactions.clear()
            self._settle()
        elif self.state is AllocationState.ALLOCATED:
            for upkeep in self._upkeeps:
                if upkeep.due is not None and upkeep.due <= now:
                    self._ask(upkeep, now)

    def wrap(self, peer: Address, payload: Buffer) -> bytes:
        """Return what carries `payload` to `peer`, to be sent to the relay as it is.

        That is ChannelData once the channel is bound, a Send indication until then; the relay drops
        it where there is no permission. Raises `ValueError` for an address that is none, and for a
        payload that does not fit.
        """
        known = self._peers.get(peer) or self._peers.get((_literal(peer[0]), peer[1]))
        if known is not None and known.bound:
            return encode(known.number, payload, padded=self._reliable)
        return build(
            Method.SEND,
            MessageClass.INDICATION,
            self._random_bytes(TRANSACTION_ID_SIZE),
            {"XOR-PEER-ADDRESS": peer, "DATA": bytes(payload)},
        )

    def channel(self, peer: Address) -> int | None:
        """Return the number that `peer`'s datagrams may be sent under, or None if there is none.

        It is good from `ChannelBound` until the allocation or the peer is lost.
        """
        known = self._peers.get(peer)
        return known.number if known is not None and known.bound else None

    # Questions.

    def _ask(self, upkeep: Upkeep, now: float) -> None:
        """Ask the relay to hold something, or to hold it for longer."""
        upkeep.due = None
        attributes: dict[str, Any] = {}
        if upkeep.method is Method.ALLOCATE:
            attributes["REQUESTED-TRANSPORT"] = _UDP
            if self._family is not None:
                attributes["REQUESTED-ADDRESS-FAMILY"] = _FAMILY_NUMBERS[self._family]
        if upkeep.peer is None:
            attributes["LIFETIME"] = self._lifetime
        else:
            if upkeep.method is Method.CHANNEL_BIND:
                attributes["CHANNEL-NUMBER"] = upkeep.peer.number
            attributes["XOR-PEER-ADDRESS"] = upkeep.peer.address
        self._send(Request(upkeep.method, attributes, upkeep), now)

    def _release(self, now: float) -> None:
        """Ask the relay to hold the allocation for no longer."""
        self._send(Request(Method.REFRESH, {"LIFETIME": 0}), now)

    def _send(self, request: Request, now: float) -> None:
        if request.upkeep is None:
            schedule = RELEASE_RELIABLE if self._reliable else RELEASE_UNRELIABLE
        else:
            schedule = RELIABLE if self._reliable else UNRELIABLE
        transaction_id, message = self._build(request)
        self._transactions.begin(
            transaction_id, message, request, key=self._credentials.key, schedule=schedule, now=now
        )

    def _build(self, request: Request) -> tuple[bytes, bytes]:
        transaction_id = self._random_bytes(TRANSACTION_ID_SIZE)
        attributes = {**request.attributes, **self._software, **self._credentials.attributes()}
        message = build(
            request.method,
            MessageClass.REQUEST,
            transaction_id,
            attributes,
            key=self._credentials.key,
            fingerprint=True,
        )
        return transaction_id, message

    # Answers.

    def _receive_answer(
        self, transaction: Transaction[Request], message: StunMessage, now: float
    ) -> None:
        failed = message.message_class is MessageClass.ERROR
        if failed and message.error is None:
            self._statistics.malformed += 1
            return
        request = transaction.purpose
        code, phrase = message.error or (None, "")
        reason = describe_error(code, phrase, message) if code is not None else "a success"
        if not is_authentic(message, transaction.key):
            self._statistics.unauthenticated += 1
            transaction.ignored = reason
            if self._reliable:
                # Nothing else will come (RFC 8489, section 9.2.5).
                self._transactions.end(message.transaction_id)
                self._take_failure(request, None, _unauthenticated(reason), now)
            return
        self._transactions.end(message.transaction_id)
        if not failed:
            self._take_success(transaction, message, now)
        elif self.state is AllocationState.CLOSING and request.method is Method.ALLOCATE:
            self._settle()
        elif code == 438 or (code == 401 and transaction.key is None):
            self._take_challenge(request, code, reason, message, now)
        elif code == 300 and request.method is Method.ALLOCATE:
            self._take_redirection(request, message, now)
        else:
            self._take_failure(request, code, reason, now)

    def _take_success(
        self, transaction: Transaction[Request], message: StunMessage, now: float
    ) -> None:
        request = transaction.purpose
        upkeep = request.upkeep
        if upkeep is None:
            self._transactions.clear()
            self._settle()
            return
        if self.state is AllocationState.CLOSING:
            # Of what was asked before closing, only the allocation's answer is still waited for.
            self._release(now)
            return
        problem = find_problem(message, self._family)
        if problem is not None:
            self._take_failure(request, None, problem, now)
            return
        peer = upkeep.peer
        if peer is None:
            upkeep.lifetime = float(message.attributes["LIFETIME"])
        upkeep.keep(transaction.first_sent, now)
        if upkeep.method is Method.ALLOCATE:
            upkeep.method = Method.REFRESH
            self._advance(Step.GRANT)
            attributes = message.attributes
            self._events.append(
                AllocationSucceeded(
                    attributes["XOR-RELAYED-ADDRESS"],
                    attributes.get("XOR-MAPPED-ADDRESS"),
                    upkeep.lifetime,
                )
            )
            for known in self._peers.values():
                self._introduce(known, now)
        elif peer is None:
            self._events.append(AllocationRefreshed(upkeep.lifetime))
        else:
            # A channel brings its permission along (RFC 8656, section 12.2). That is believed for
            # the first news only: refreshing the permission stays a matter of its own, since a
            # relay that let it lapse would drop datagrams without a word.
            if not peer.permitted:
                peer.permitted = True
                self._events.append(PermissionInstalled(peer.address))
            if upkeep.method is Method.CHANNEL_BIND and not peer.bound:
                peer.bound = True
                self._events.append(ChannelBound(peer.address, peer.number))

    def _take_challenge(
        self, request: Request, code: int | None, reason: str, message: StunMessage, now: float
    ) -> None:
        """Ask again with what a 401 or 438 brought, as often as that makes sense."""
        realm, nonce = message.attributes.get("REALM"), message.attributes.get("NONCE")
        if nonce is None:
            self._take_failure(request, code, f"{reason}, without a nonce", now)
        elif code == 401 and realm is None:
            self._take_failure(request, code, f"{reason}, without a realm", now)
        elif code == 401:
            self._credentials.answer_challenge(realm or "", nonce)
            self._send(request, now)
        elif request.stale_nonces == MAX_STALE_NONCES:
            self._take_failure(request, code, f"{reason}, {MAX_STALE_NONCES} times in a row", now)
        else:
            request.stale_nonces += 1
            self._credentials.renew_nonce(nonce)
            self._send(request, now)

    def _take_redirection(self, request: Request, message: StunMessage, now: float) -> None:
        address = message.attributes.get("ALTERNATE-SERVER")
        if address is None:
            self._take_failure(request, 300, "sent elsewhere, but not told where", now)
            return
        self._advance(Step.FAIL)
        self._transactions.clear()
        self._events.append(AlternateServer(address, message.attributes.get("ALTERNATE-DOMAIN")))

    def _take_failure(self, request: Request, code: int | None, reason: str, now: float) -> None:
        """Draw the consequences of a request that was refused or not answered (code None)."""
        upkeep = request.upkeep
        if upkeep is None or self.state is AllocationState.CLOSING:
            self._settle()
            return
        peer = upkeep.peer
        if upkeep.method is Method.ALLOCATE or code in ALLOCATION_GONE:
            self._fail(code, reason)
        elif peer is not None and code is not None and code in PEER_UNWANTED:
            self._refuse(peer, code, reason)
        elif code is not None and upkeep.retries < MAX_RETRIES:
            upkeep.due = now + 2**upkeep.retries
            upkeep.retries += 1
        elif upkeep.method is not Method.CHANNEL_BIND or (peer is not None and peer.bound):
            self._fail(code, reason)
        # Else there never was a channel: indications do, and its permission is kept.

    def _receive_indication(self, message: StunMessage) -> None:
        # Not signed, like all indications: what it brings is only as good as what it carries.
        payload = message.attributes.get("DATA")
        peer = self._peers.get(message.attributes.get("XOR-PEER-ADDRESS", ("", 0)))
        if message.malformed or message.unknown_required:
            self._statistics.malformed += 1
        elif message.method is not Method.DATA or payload is None or peer is None or peer.refused:
            self._statistics.unexpected += 1
        else:
            self._deliver(peer.address, payload)

    def _deliver(self, address: Address, payload: bytes) -> None:
        if len(self._events) >= MAX_QUEUED_PAYLOADS:
            self._statistics.dropped += 1
        else:
            self._events.append(DataReceived(address, payload))

    # Consequences.

    def _introduce(self, peer: Peer, now: float) -> None:
        self._peers_by_number[peer.number] = peer.address
        for upkeep in (
            Upkeep(Method.CREATE_PERMISSION, self._permission_lifetime, peer),
            Upkeep(Method.CHANNEL_BIND, self._channel_lifetime, peer),
        ):
            self._upkeeps.append(upkeep)
            self._ask(upkeep, now)

    def _refuse(self, peer: Peer, code: int, reason: str) -> None:
        peer.refused = True
        peer.bound = False
        self._peers_by_number.pop(peer.number, None)
        self._upkeeps = [upkeep for upkeep in self._upkeeps if upkeep.peer is not peer]
        for transaction_id, transaction in self._transactions.pending():
            upkeep = transaction.purpose.upkeep
            if upkeep is not None and upkeep.peer is peer:
                self._transactions.end(transaction_id)
        self._events.append(PeerRefused(peer.address, code, reason))

    def _fail(self, code: int | None, reason: str, *, release: bool = True) -> None:
        """End as failed or lost, giving back what the relay may still hold."""
        allocated = self.state is AllocationState.ALLOCATED
        if allocated:
            held = code not in ALLOCATION_GONE
            self._events.append(AllocationLost(code, reason))
        else:
            # Without an error code the answer was unusable or lost, the allocation perhaps not.
            held = code is None and self._credentials.key is not None
            self._events.append(AllocationFailed(code, reason))
        self._advance(Step.FAIL)
        self._transactions.clear()
        if held and release:
            self._transactions.send_once(self._build(Request(Method.REFRESH, {"LIFETIME": 0}))[1])

    def _settle(self) -> None:
        """End closing once nothing is waited for any more."""
        if self.state is AllocationState.CLOSING and not len(self._transactions):
            self._advance(Step.RELEASE)
            self._events.append(Deallocated())

    def _advance(self, step: Step) -> None:
        following = TRANSITIONS.get((self.state, step))
        if following is None:
            raise RuntimeError(f"{step.name} does not follow {self.state.name}")
        self.state = following


def _literal(host: str) -> str:
    """Return an address literal as the relay's messages will spell it."""
    return str(ipaddress.ip_address(host))


def _unauthenticated(what: str) -> str:
    return f"no answer that proves to know the password, only: {what}"
