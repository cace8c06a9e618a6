"""One DTLS 1.2 association as a machine: datagrams and time go in, datagrams and events come out.

OpenSSL does the cryptography on memory BIOs; retransmission runs on the caller's clock, because
OpenSSL's own timer reads the wall clock and knows nothing of ours.
"""

from collections import deque
from typing import Self

from OpenSSL import SSL

from turnlane.api.batch import Batch
from turnlane.net import openssl
from turnlane.net.dtls_context import Witness, client_context, new_connection, server_context
from turnlane.net.dtls_state import (
    TRANSITIONS,
    AssociationClosed,
    AssociationStateError,
    DtlsEvent,
    DtlsStatistics,
    HandshakeCompleted,
    HandshakeFailed,
    PayloadSizeError,
    State,
)
from turnlane.net.identity import Identity, Pin
from turnlane.net.record_layout import RecordError, RecordLayout, Stopped
from turnlane.net.records import Records, records_of
from turnlane.proto.dtls_flight import FlightPacker
from turnlane.proto.dtls_records import (
    RECORD_HEADER_SIZE,
    AlertDescription,
    ClientHello,
    ContentType,
    DtlsRecordError,
    Record,
    alert_name,
    encode_fatal_alert,
    handshake_fragments_untrusted,
    records_untrusted,
)

DEFAULT_MTU = 1200
"""Bytes of a datagram that fit every path that carries IPv6, a TURN header included."""

MIN_MTU = 256
"""OpenSSL fragments its handshake to no less."""

OVERHEAD = 37
"""What an AES-GCM record adds: header 13, explicit nonce 8, tag 16 (RFC 5288)."""

CHACHA20_OVERHEAD = 29
"""What a ChaCha20-Poly1305 record adds: it has no explicit nonce (RFC 7905)."""

DEFAULT_HANDSHAKE_TIMEOUT = 20.0

INITIAL_RETRANSMISSION = 1.0
MAX_RETRANSMISSION = 16.0
"""Seconds until a flight is sent again: they double (RFC 6347, section 4.2.4.1)."""

TIMER_MARGIN = 0.05
"""Seconds that every such pause is longer, for OpenSSL's own timer to have run out by then.

That one starts a little after the moment that we are told, by as much as the handshake's
arithmetic takes.
"""

LAST_FLIGHT_INTERVAL = 0.5
"""Seconds between two copies of the last flight; anyone can send what asks for one."""

MAX_RECORDS = 64
"""Records of one datagram that are looked at."""

MAX_PAYLOAD = 2**14
"""Bytes of the largest payload of one record (RFC 6347, section 4.3.1)."""

_APPLICATION_DATA = int(ContentType.APPLICATION_DATA)

_NO_FLIGHT: list[Record] = []

# OpenSSL keeps messages of the handshake that came too early: up to ten, of the length they claim.
# A client's messages are small, a server's include its certificate.
_MAX_MESSAGE_FROM_CLIENT = 4096
_MAX_MESSAGE_FROM_SERVER = 16384

# It also keeps records of the next epoch, up to a hundred. Only Finished (61 bytes) belongs there.
_MAX_EARLY_RECORD = 256


class DtlsAssociation:
    """One end of an association, made by `client` or `server`; belongs to one thread.

    Call `start`, then move datagrams both ways: `receive_datagram`, and `datagrams_to_send` after
    every call that takes `now`. `get_timer` says when `handle_timer` is due, `next_event` gives
    what happened. `now` is any clock in seconds that does not go back.

    Until the handshake has completed nothing is authenticated: who can write datagrams with the
    peer's address can end it, by an alert or by nonsense. Afterwards only the peer can end it.
    """

    def __init__(
        self, context: SSL.Context, *, pin: Pin | None, mtu: int, handshake_timeout: float
    ) -> None:
        """Use `client` or `server` instead."""
        if not MIN_MTU <= mtu <= MAX_PAYLOAD:
            raise ValueError(f"an MTU is between {MIN_MTU} and {MAX_PAYLOAD}, not {mtu}")
        self.statistics = DtlsStatistics()
        self._witness = Witness(pin)
        self._connection = new_connection(context, self._witness, mtu)
        self._is_client = False
        self._handshake_timeout = handshake_timeout
        self._state = State.IDLE
        self._packer = FlightPacker(mtu)
        self._flight = _NO_FLIGHT
        self._flight_sent_at = 0.0
        self._deadline = 0.0
        self._retransmit_at: float | None = None
        self._retransmit_after = INITIAL_RETRANSMISSION
        self._outbox: deque[bytes] = deque()
        self._events: deque[DtlsEvent] = deque()
        self._records: Records | None = None
        self.overhead = OVERHEAD
        """Bytes by which a record is longer than its payload, once established."""

    @classmethod
    def client(
        cls,
        *,
        pin: Pin | None,
        mtu: int = DEFAULT_MTU,
        handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
    ) -> Self:
        """Make the end that opens the association.

        With a pin only the server with that key is accepted; None accepts any, which protects
        from nobody who can intercept. `mtu` bounds the handshake's datagrams, in bytes of UDP
        payload; a payload's record is as large as the payload makes it.
        """
        association = cls(client_context(), pin=pin, mtu=mtu, handshake_timeout=handshake_timeout)
        association._is_client = True
        association._connection.set_connect_state()
        return association

    @classmethod
    def server(
        cls,
        identity: Identity,
        *,
        mtu: int = DEFAULT_MTU,
        handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
    ) -> Self:
        """Make the end that answers one peer whose address is beyond doubt.

        It asks for no cookie; a listener that strangers reach is a `DtlsServer`.
        """
        association = cls(
            server_context(identity), pin=None, mtu=mtu, handshake_timeout=handshake_timeout
        )
        association._connection.set_accept_state()
        return association

    @classmethod
    def accept(
        cls,
        context: SSL.Context,
        hello: ClientHello,
        now: float,
        *,
        mtu: int,
        handshake_timeout: float,
    ) -> Self | None:
        """Answer a ClientHello that brought a valid cookie; None when OpenSSL makes nothing of it.

        `context` comes from `dtls_context.server_context`.
        """
        association = cls(context, pin=None, mtu=mtu, handshake_timeout=handshake_timeout)
        association._connection.set_accept_state()
        openssl.clear_error_queue()
        try:
            association._connection.bio_write(hello.record)
            association._connection.DTLSv1_listen()
        except SSL.Error:
            return None
        association._packer.start_at(hello.sequence)
        association.start(now)
        return association

    @property
    def state(self) -> State:
        """Where the association is."""
        return self._state

    @property
    def is_pending(self) -> bool:
        """Whether `datagrams_to_send` or `next_event` has something to give."""
        return bool(self._outbox or self._events)

    def start(self, now: float) -> None:
        """Begin the handshake; a client sends its first flight, a server waits for it.

        Raises `AssociationStateError` when called twice.
        """
        if self._state is not State.IDLE:
            raise AssociationStateError("an association starts once")
        self._enter(State.HANDSHAKING)
        self._deadline = now + self._handshake_timeout
        self._shake(now)

    def receive_datagram(self, data: bytes, now: float) -> list[bytes]:
        """Take one datagram; return the payloads in it. Never raises, whatever the bytes are."""
        if (
            self._state is State.ESTABLISHED
            and len(data) > RECORD_HEADER_SIZE
            and data[0] == _APPLICATION_DATA
            and (data[11] << 8) + data[12] == len(data) - RECORD_HEADER_SIZE
        ):
            payload = self._read_record(data)
            if not payload:
                return []
            # Only a peer that has our last flight has keys to send this with.
            self._flight = _NO_FLIGHT
            return [payload]
        return self._receive_records_untrusted(data, now)

    def datagrams_to_send(self) -> list[bytes]:
        """Give up what is to be sent, in order."""
        datagrams = list(self._outbox)
        self._outbox.clear()
        return datagrams

    def next_event(self) -> DtlsEvent | None:
        """Give up the oldest event, or None."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due, or None when nothing waits for time to pass."""
        if self._state is not State.HANDSHAKING:
            return None
        if self._retransmit_at is None:
            return self._deadline
        return min(self._deadline, self._retransmit_at)

    def handle_timer(self, now: float) -> None:
        """Send the flight again, or give up, if it is time to; too early does nothing."""
        if self._state is not State.HANDSHAKING:
            return
        if now >= self._deadline:
            self._fail("dtls_timeout", f"no handshake within {self._handshake_timeout:g} seconds")
        elif self._retransmit_at is not None and now >= self._retransmit_at:
            self._retransmit(now)

    def encrypt(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Return the datagram that carries `payload`: one record, at most `OVERHEAD` bytes longer.

        Whether the path carries it is not known here. Raises `PayloadSizeError` for an empty
        payload and one above `MAX_PAYLOAD`, and `AssociationStateError` when the association is
        not established (any more).
        """
        if self._state is not State.ESTABLISHED:
            raise AssociationStateError("no association to encrypt for")
        if not 0 < len(payload) <= MAX_PAYLOAD:
            raise PayloadSizeError(f"{len(payload)} bytes; a payload has 1 to {MAX_PAYLOAD} bytes")
        self._connection.send(payload)
        return self._connection.bio_read(len(payload) + OVERHEAD)

    def seal(self, layout: RecordLayout, batch: Batch, start: int, stop: int, sealed: Batch) -> int:
        """Put packets of `batch` into messages in `sealed`; see `turnlane.net.records.Records`.

        Raises `AssociationStateError` when the association is not established (any more).
        """
        if self._state is not State.ESTABLISHED or self._records is None:
            raise AssociationStateError("no association to encrypt for")
        try:
            return self._records.seal(layout, batch, start, stop, sealed)
        except RecordError:
            openssl.clear_error_queue()
            raise AssociationStateError("the association takes nothing any more") from None

    def open(
        self, layout: RecordLayout, received: Batch, start: int, stop: int, opened: Batch
    ) -> tuple[int, Stopped]:
        """Append the payloads of messages to `opened`; see `turnlane.net.records.Records`.

        Messages that are more than one record of payload are not touched: `receive_datagram` is
        for them, and for whatever comes while the association is not established.
        """
        records = self._records
        while self._state is State.ESTABLISHED and records is not None:
            start, stopped = records.open(layout, received, start, stop, opened)
            if stopped is not Stopped.VOID:
                return start, stopped
            self._read_payload()  # nothing is left to read, but it tells whether this is the end
            self.statistics.discarded += 1
            if start == stop:
                return start, Stopped.DONE
        return start, Stopped.FOREIGN

    @property
    def unsealed(self) -> int:
        """Packets that `seal` left out: empty where that cannot be told, or too large."""
        return 0 if self._records is None else self._records.refused

    @property
    def control(self) -> bytes:
        """The record for which `open` came to a halt with `Stopped.CONTROL`."""
        return b"" if self._records is None else self._records.control

    def export(self, label: bytes, length: int, context: bytes = b"") -> bytes:
        """Derive `length` bytes that both ends share and nobody else knows (RFC 5705).

        No context and an empty one are the same here (they are not in the RFC). Raises
        `AssociationStateError` when the association is not established.
        """
        if self._state is not State.ESTABLISHED:
            raise AssociationStateError("no association to derive keys from")
        return self._connection.export_keying_material(label, length, context or None)

    def close(self) -> None:
        """End the association; the peer is told, once, if it is established. Gives no event."""
        if self._state is State.ESTABLISHED:
            self._say_goodbye()
        if self._state in (State.IDLE, State.HANDSHAKING, State.ESTABLISHED):
            self._enter(State.CLOSED)

    def _enter(self, state: State) -> None:
        if state not in TRANSITIONS[self._state]:
            raise AssociationStateError(f"{self._state.name} is not followed by {state.name}")
        self._state = state

    # Receiving

    def _receive_records_untrusted(self, data: bytes, now: float) -> list[bytes]:
        payloads: list[bytes] = []
        handshake_again = False
        # One record goes in at a time: a memory BIO is a stream, and after a record that is not to
        # its liking OpenSSL would drop what stands behind it.
        try:
            for count, record in enumerate(records_untrusted(data)):
                if count == MAX_RECORDS:
                    raise DtlsRecordError("a datagram of too many records")
                if self._state is State.HANDSHAKING:
                    if self._is_admissible_untrusted(record):
                        self._connection.bio_write(record.data)
                        self._shake(now, payloads)
                    else:
                        self.statistics.discarded += 1
                elif self._state is State.ESTABLISHED:
                    if record.content_type in (
                        ContentType.HANDSHAKE,
                        ContentType.CHANGE_CIPHER_SPEC,
                    ):
                        handshake_again = True
                    payload = self._read_record(record.data)
                    if payload:
                        payloads.append(payload)
                else:
                    break
        except DtlsRecordError:
            self.statistics.malformed += 1
        if self._state is State.ESTABLISHED:
            self._repeat_last_flight(now, asked=handshake_again)
        return payloads

    def _is_admissible_untrusted(self, record: Record) -> bool:
        """Say whether a record may take up memory before its sender is authenticated."""
        if record.epoch > 0:
            return (
                record.content_type == ContentType.APPLICATION_DATA
                or len(record.data) <= _MAX_EARLY_RECORD
            )
        if record.content_type != ContentType.HANDSHAKE:
            return record.content_type != ContentType.APPLICATION_DATA
        largest = _MAX_MESSAGE_FROM_SERVER if self._is_client else _MAX_MESSAGE_FROM_CLIENT
        try:
            return all(
                fragment.message_length <= largest
                for fragment in handshake_fragments_untrusted(record.body)
            )
        except DtlsRecordError:
            return False

    def _read_record(self, record: bytes) -> bytes:
        """Decrypt one record of an established association; b"" for one without a payload."""
        self._connection.bio_write(record)
        payload = self._read_payload()
        if not payload and self._state is State.ESTABLISHED:
            self.statistics.discarded += 1
        return payload

    def _read_payload(self) -> bytes:
        """Return the next payload, b"" when there is none (any more)."""
        try:
            return self._connection.recv(MAX_PAYLOAD)
        except SSL.WantReadError:
            return b""
        except SSL.Error:
            return self._judge_read_error()

    def _judge_read_error(self) -> bytes:
        """Tell an association that has ended from an error that someone else left behind.

        pyOpenSSL emptied the error queue when it raised; only a real end raises once more.
        """
        try:
            return self._connection.recv(MAX_PAYLOAD)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._say_goodbye()
            self._end("close_notify")
        except SSL.Error:
            self._collect_alert()
            alert = self._witness.alert
            if alert is None:
                self._end("protocol_error")
            else:
                self._end("peer_alert", alert_name(alert))
        openssl.clear_error_queue()
        return b""

    def _end(self, reason: str, alert: str | None = None) -> None:
        self._enter(State.CLOSED)
        self._events.append(AssociationClosed(reason, alert))

    # The handshake

    def _shake(self, now: float, payloads: list[bytes] | None = None) -> None:
        """Let OpenSSL go on with the handshake, as far as it gets."""
        openssl.clear_error_queue()
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._send_flight(self._read_flight(), now)
        except SSL.Error as error:
            self._judge_handshake_error(error)
        else:
            self._complete(now)
            if payloads is not None and self._state is State.ESTABLISHED:
                self._read_early_payloads(payloads)

    def _judge_handshake_error(self, error: SSL.Error) -> None:
        openssl.clear_error_queue()
        if self._witness.alert is not None:
            name = alert_name(self._witness.alert)
            self._fail("peer_alert", f"the peer ended the handshake with the alert {name}", name)
        elif self._witness.pin_differs:
            self._fail("pin_mismatch", f"the server has the pin {self._witness.peer_pin}")
        else:
            self._fail("protocol_error", _reasons(error))

    def _complete(self, now: float) -> None:
        flight = self._read_flight()
        if not openssl.has_extended_master_secret(self._connection):
            self._refuse_without_extended_master_secret()
            return
        if self._witness.pin is not None and self._witness.peer_pin != self._witness.pin:
            # OpenSSL asks the callback for every certificate; should it ever not, this holds.
            self._fail("pin_mismatch", "the server's key was not verified")
            return
        self._retransmit_at = None
        self._enter(State.ESTABLISHED)
        # Only a server's last flight ends a full handshake: the client keeps none.
        self._flight = flight
        self._flight_sent_at = now
        self._outbox.extend(self._packer.pack(flight))
        cipher = self._connection.get_cipher_name() or ""
        self.overhead = CHACHA20_OVERHEAD if "CHACHA20" in cipher else OVERHEAD
        self._records = records_of(self._connection, self.overhead)
        self._events.append(HandshakeCompleted(cipher, self._witness.peer_pin))

    def _refuse_without_extended_master_secret(self) -> None:
        if self._is_client:
            self._say_goodbye()
        else:
            # The client waits for our last flight and gets this instead of it.
            self._outbox.append(
                encode_fatal_alert(
                    self._packer.take_sequence(), AlertDescription.INSUFFICIENT_SECURITY
                )
            )
        self._fail("no_extended_master_secret", "the peer does not use the extended master secret")

    def _read_early_payloads(self, payloads: list[bytes]) -> None:
        """Take what OpenSSL kept of payloads that overtook the end of the handshake."""
        while payload := self._read_payload():
            payloads.append(payload)

    def _fail(self, code: str, message: str, alert: str | None = None) -> None:
        self._collect_alert()
        self._retransmit_at = None
        self._flight = _NO_FLIGHT
        self._enter(State.FAILED)
        self._events.append(HandshakeFailed(code, message, alert))

    # Sending

    def _drain(self) -> bytes:
        chunks = []
        while True:
            try:
                chunks.append(self._connection.bio_read(65536))
            except SSL.WantReadError:
                return b"".join(chunks)

    def _read_flight(self) -> list[Record]:
        # The parser is the one for strangers; what OpenSSL wrote is always well-formed.
        return list(records_untrusted(self._drain()))

    def _send_flight(self, flight: list[Record], now: float) -> None:
        """Send what OpenSSL wrote, and keep it to send it again."""
        if not flight:
            return
        self._outbox.extend(self._packer.pack(flight))
        self._flight = flight
        self._flight_sent_at = now
        self._retransmit_after = INITIAL_RETRANSMISSION
        self._retransmit_at = now + self._retransmit_after + TIMER_MARGIN

    def _retransmit(self, now: float) -> None:
        """Send the flight again, freshly encrypted where OpenSSL's clock agrees that it is time.

        A peer that has seen our Finished drops a second copy of the same record; to hear that its
        own last flight was lost, it must get one with a new number, and only OpenSSL can make it.
        Where the clocks disagree (virtual time, a wall clock that was set back), the copy goes
        out; our own ends take it as the same question.
        """
        openssl.clear_error_queue()
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            self._judge_handshake_error(error)
            return
        self._flight = self._read_flight() or self._flight
        self._outbox.extend(self._packer.pack(self._flight))
        self._flight_sent_at = now
        self._retransmit_after = min(2 * self._retransmit_after, MAX_RETRANSMISSION)
        self._retransmit_at = now + self._retransmit_after + TIMER_MARGIN
        self.statistics.retransmissions += 1

    def _repeat_last_flight(self, now: float, *, asked: bool) -> None:
        """Send the last flight again when the peer, by repeating its own, shows that it is lost."""
        fresh = self._read_flight()
        if not fresh:
            if not asked or not self._flight or now < self._flight_sent_at + LAST_FLIGHT_INTERVAL:
                return
            fresh = self._flight
        self._outbox.extend(self._packer.pack(fresh))
        self._flight_sent_at = now
        self.statistics.retransmissions += 1

    def _say_goodbye(self) -> None:
        try:
            self._connection.shutdown()
        except SSL.Error:
            openssl.clear_error_queue()
        self._collect_alert()

    def _collect_alert(self) -> None:
        self._outbox.extend(self._packer.pack(self._read_flight()))


def _reasons(error: SSL.Error) -> str:
    """Put OpenSSL's reasons into words; they quote no data."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [entry[2] for entry in queue if isinstance(entry, tuple) and len(entry) == 3]
    return ", ".join(reasons) or "the peer broke the protocol"
