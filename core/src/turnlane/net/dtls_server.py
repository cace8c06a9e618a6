"""Many DTLS associations on one listening port, told apart by the peer's address; sans-IO."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from turnlane.net.dtls import DEFAULT_MTU, DtlsAssociation
from turnlane.net.dtls_context import server_context
from turnlane.net.dtls_state import AssociationClosed, HandshakeCompleted, HandshakeFailed
from turnlane.net.identity import Identity
from turnlane.net.system import SocketAddress
from turnlane.proto.dtls_cookie import CookieIssuer
from turnlane.proto.dtls_records import (
    ClientHello,
    ContentType,
    DtlsRecordError,
    Record,
    client_hello_untrusted,
    encode_hello_verify_request,
    is_client_hello_untrusted,
    records_untrusted,
)

Address = SocketAddress

MAX_CHALLENGES = 1024
"""Unsent HelloVerifyRequests; more are dropped, and their clients ask again."""


_APPLICATION_DATA = int(ContentType.APPLICATION_DATA)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A handshake completed; `association` is the live one of `address` from now on."""

    address: Address
    association: DtlsAssociation


@dataclass(frozen=True, slots=True)
class Failed:
    """A handshake that had shown a valid cookie came to nothing.

    `code` is one of `HandshakeFailed`'s, or `server_full` or `evicted`.
    """

    address: Address
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A live association ended. `reason` is one of `AssociationClosed`'s, or `replaced`.

    After `replaced` the `Accepted` of the association in its place follows at once.
    """

    address: Address
    association: DtlsAssociation
    reason: str


ServerEvent = Accepted | Failed | Closed


@dataclass(slots=True)
class DtlsServerStatistics:
    """Counts since the server was made."""

    challenges_sent: int = 0
    challenges_suppressed: int = 0
    cookies_rejected: int = 0
    hellos_repeated: int = 0
    hellos_rejected: int = 0
    handshakes_started: int = 0
    handshakes_completed: int = 0
    handshakes_failed: int = 0
    handshakes_superseded: int = 0
    handshakes_evicted: int = 0
    handshakes_refused: int = 0
    associations_replaced: int = 0
    malformed: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class _Peer:
    """An association and the ClientHello that began it, to know copies of that one by."""

    association: DtlsAssociation
    cookie: bytes
    bits: bytes

    def began_with(self, hello: ClientHello) -> bool:
        return self.cookie == hello.cookie and self.bits == hello.bits


class DtlsServer:
    """Answers ClientHellos with cookies, lets handshakes run, and finds associations by address.

    Nothing is kept about an address before it has brought its cookie back. Handshakes under way
    are bounded by `max_handshakes`, never per address or host, because a relay is shared by
    strangers: when there are too many, the oldest gives way, which an honest one has little to
    fear from, being done after two round trips. With `max_associations` alive, new addresses are
    refused.

    A live association goes on while its address shakes hands anew (anyone who once received there
    can ask for that), and gives way when that handshake has completed.

    After each call that takes `now`: first every `next_event`, then the payloads it returned, then
    `datagrams_to_send`.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        random_bytes: Callable[[int], bytes],
        mtu: int = DEFAULT_MTU,
        handshake_timeout: float = 30.0,
        max_handshakes: int = 256,
        max_associations: int = 4096,
    ) -> None:
        """Serve as `identity`; `handshake_timeout` is in seconds, `mtu` in bytes of UDP payload."""
        if max_handshakes < 1 or max_associations < 1:
            raise ValueError("a server has room for one handshake and one association at least")
        self.statistics = DtlsServerStatistics()
        self._context = server_context(identity)
        self._cookies = CookieIssuer(random_bytes)
        self._mtu = mtu
        self._handshake_timeout = handshake_timeout
        self._max_handshakes = max_handshakes
        self._max_associations = max_associations
        self._live: dict[Address, _Peer] = {}
        # In order of arrival, so that the oldest is the first.
        self._handshakes: dict[Address, _Peer] = {}
        self._outbox: list[tuple[bytes, Address]] = []
        self._events: deque[ServerEvent] = deque()

    def receive_datagram(self, data: bytes, address: Address, now: float) -> list[bytes]:
        """Take one datagram; return the payloads that the association of `address` got from it.

        Never raises, whatever the bytes are.
        """
        if data and data[0] == _APPLICATION_DATA:
            peer = self._live.get(address)
            if peer is not None:
                payloads = peer.association.receive_datagram(data, now)
                self.settle(address)
                return payloads
        return self._receive_handshake_untrusted(data, address, now)

    def settle(self, address: Address) -> None:
        """Take note of what became of the live association of `address`, read from by others."""
        peer = self._live.get(address)
        if peer is not None and peer.association.is_pending:
            self._settle_live(address, peer)

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """Give up what is to be sent, in order, each with its destination."""
        datagrams = self._outbox
        self._outbox = []
        return datagrams

    def next_event(self) -> ServerEvent | None:
        """Give up the oldest event, or None."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due, or None. Live associations need no timer."""
        timers = [peer.association.get_timer() for peer in self._handshakes.values()]
        return min((timer for timer in timers if timer is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Let the handshakes that are due send again or give up."""
        for address, peer in list(self._handshakes.items()):
            peer.association.handle_timer(now)
            self._settle_handshake(address, peer)

    def association(self, address: Address) -> DtlsAssociation | None:
        """Return the live association of `address`, or None."""
        peer = self._live.get(address)
        return None if peer is None else peer.association

    @property
    def association_count(self) -> int:
        """Live associations."""
        return len(self._live)

    @property
    def handshake_count(self) -> int:
        """Handshakes under way."""
        return len(self._handshakes)

    def drop(self, address: Address) -> None:
        """Close the live association of `address`, telling the peer, and forget it; no event."""
        peer = self._live.pop(address, None)
        if peer is not None:
            peer.association.close()
            self._collect(address, peer.association)

    def close(self) -> None:
        """Drop every association and every handshake under way."""
        self._handshakes.clear()
        for address in list(self._live):
            self.drop(address)

    # Datagrams that are not plain traffic of a live association

    def _receive_handshake_untrusted(
        self, data: bytes, address: Address, now: float
    ) -> list[bytes]:
        try:
            first = next(records_untrusted(data), None)
            if first is None:
                raise DtlsRecordError("an empty datagram")
            if is_client_hello_untrusted(first):
                self._receive_client_hello(client_hello_untrusted(first), address, now)
                return []
        except DtlsRecordError:
            self.statistics.malformed += 1
            return []
        payloads: list[bytes] = []
        peer = self._live.get(address)
        handshake = self._handshakes.get(address)
        if handshake is not None:
            payloads += handshake.association.receive_datagram(data, now)
            self._settle_handshake(address, handshake)
        elif peer is None:
            self.statistics.unknown += 1
        if peer is not None and (handshake is None or _may_concern_live(first)):
            payloads += peer.association.receive_datagram(data, now)
            if peer.association.is_pending:
                self._settle_live(address, peer)
        return payloads

    def _receive_client_hello(self, hello: ClientHello, address: Address, now: float) -> None:
        if not hello.cookie or not self._cookies.accepts(address, hello, now):
            self.statistics.cookies_rejected += bool(hello.cookie)
            self._challenge(hello, address, now)
            return
        live = self._live.get(address)
        handshake = self._handshakes.get(address)
        if any(peer is not None and peer.began_with(hello) for peer in (live, handshake)):
            # A copy: the handshake's own timer sends again what may have been lost.
            self.statistics.hellos_repeated += 1
            return
        if live is None and len(self._live) >= self._max_associations:
            self.statistics.handshakes_refused += 1
            return
        association = DtlsAssociation.accept(
            self._context, hello, now, mtu=self._mtu, handshake_timeout=self._handshake_timeout
        )
        if association is None:
            self.statistics.hellos_rejected += 1
            return
        if self._handshakes.pop(address, None) is not None:
            self.statistics.handshakes_superseded += 1
        elif len(self._handshakes) >= self._max_handshakes:
            self._evict_oldest()
        peer = _Peer(association, hello.cookie, hello.bits)
        self._handshakes[address] = peer
        self.statistics.handshakes_started += 1
        self._settle_handshake(address, peer)

    def _challenge(self, hello: ClientHello, address: Address, now: float) -> None:
        if len(self._outbox) >= MAX_CHALLENGES:
            self.statistics.challenges_suppressed += 1
            return
        cookie = self._cookies.issue(address, hello, now)
        self._outbox.append((encode_hello_verify_request(hello.sequence, cookie), address))
        self.statistics.challenges_sent += 1

    def _evict_oldest(self) -> None:
        address = next(iter(self._handshakes))
        self._handshakes.pop(address).association.close()
        self.statistics.handshakes_evicted += 1
        self._events.append(
            Failed(address, "evicted", "more handshakes under way than the server has room for")
        )

    # What came of it

    def _settle_handshake(self, address: Address, peer: _Peer) -> None:
        association = peer.association
        self._collect(address, association)
        while (event := association.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self._promote(address, peer)
            elif isinstance(event, HandshakeFailed):
                self._handshakes.pop(address, None)
                self.statistics.handshakes_failed += 1
                self._events.append(Failed(address, event.code, event.message))
            else:  # it completed and ended within one datagram
                self._close_live(address, peer, event)

    def _promote(self, address: Address, peer: _Peer) -> None:
        self._handshakes.pop(address, None)
        old = self._live.get(address)
        if old is None and len(self._live) >= self._max_associations:
            self.statistics.handshakes_refused += 1
            peer.association.close()
            self._collect(address, peer.association)
            self._events.append(
                Failed(address, "server_full", "more associations than the server has room for")
            )
            return
        if old is not None:
            self.statistics.associations_replaced += 1
            self._events.append(Closed(address, old.association, "replaced"))
        self.statistics.handshakes_completed += 1
        self._live[address] = peer
        self._events.append(Accepted(address, peer.association))

    def _settle_live(self, address: Address, peer: _Peer) -> None:
        self._collect(address, peer.association)
        while (event := peer.association.next_event()) is not None:
            if isinstance(event, AssociationClosed):
                self._close_live(address, peer, event)

    def _close_live(self, address: Address, peer: _Peer, event: AssociationClosed) -> None:
        if self._live.get(address) is peer:
            del self._live[address]
            self._events.append(Closed(address, peer.association, event.reason))

    def _collect(self, address: Address, association: DtlsAssociation) -> None:
        self._outbox.extend((datagram, address) for datagram in association.datagrams_to_send())


def _may_concern_live(first: Record) -> bool:
    """Say whether a datagram may be meant for the live association beside a handshake.

    Encrypted alerts may be either's: the one without the key drops it.
    """
    return first.epoch > 0 and first.content_type == ContentType.ALERT
