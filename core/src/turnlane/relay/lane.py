"""One lane of a client: a TURN allocation, a DTLS association through it, and the session in that.

A lane is driven by `run`; packets of the local end are sent by whoever calls `send`, in the same
thread. While it comes up, everything goes step by step; once a channel is bound, payload passes in
batches: what a relay sends is opened, checked and handed on in place, and only what is no payload
(STUN, alerts, control frames) is looked at by itself.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import anyio

from turnlane.api.batch import MAX_DATAGRAM, Batch
from turnlane.api.errors import SessionError, TransportError, TurnlaneError
from turnlane.api.secrets import Secret
from turnlane.api.stages import Stage
from turnlane.net.dtls import MAX_PAYLOAD, DtlsAssociation
from turnlane.net.dtls_state import (
    AssociationClosed,
    AssociationStateError,
    HandshakeCompleted,
    HandshakeFailed,
)
from turnlane.net.identity import Pin
from turnlane.net.record_layout import RecordLayout, Stopped
from turnlane.net.relayed_path import PathSettings, RelayedPath, relayed_path
from turnlane.proto.frames import HEADER_SIZE, ByeCode, datagram_flow, write_datagram_header
from turnlane.proto.hello import EXPORTER_LABEL, EXPORTER_SIZE, Feature, HelloParameters
from turnlane.proto.lane_client import LaneClient
from turnlane.proto.lane_estimate import LaneEstimate
from turnlane.proto.lane_events import (
    ClientEvent,
    LaneEstablished,
    LaneFailed,
    LaneRefused,
    PeerDraining,
    PeerLeft,
)
from turnlane.proto.lane_health import LaneDead, LaneHealth
from turnlane.proto.path_mtu import largest_datagram
from turnlane.proto.path_probe import PathProbe
from turnlane.proto.refusals import Remedy
from turnlane.relay.membership import Membership
from turnlane.relay.workspace import Workspace

SETTLE_TIMEOUT = 1.0
"""Seconds that a new lane may take to find the path's MTU before it carries traffic anyway."""

MEASURE_INTERVAL = 30.0
"""Seconds after which the system is asked again what it knows of the path."""


@dataclass(frozen=True)
class Security:
    """How a lane's peer is known. `pin` None accepts anybody; `token` None is for open servers."""

    pin: Pin | None = None
    token: Secret[bytes] | None = None


@dataclass(frozen=True)
class LanePlan:
    """What a lane needs to begin.

    `security` None sends bare datagrams without DTLS; `membership` None speaks raw datagrams, one
    per record, as the Go prototypes do.
    """

    index: int
    lanes: int
    path: PathSettings
    security: Security | None
    membership: Membership | None
    traceparent: str = ""


class Lane:
    """Carries packets between the local end and the tunnel server.

    `deliver` takes the batches that come from the server; it uses each before it returns.
    `workspace` may be shared by everything in the loop. `on_path` hears that `max_datagram` has
    changed while the lane was ready, `on_too_large` the size of a datagram that was refused.
    """

    def __init__(
        self,
        plan: LanePlan,
        *,
        workspace: Workspace,
        deliver: Callable[[Batch], object],
        on_stage: Callable[[Stage], None],
        on_drain: Callable[[], None],
        on_path: Callable[[], None],
        on_too_large: Callable[[int], None],
    ) -> None:
        self.plan = plan
        self.ready = False
        self.relayed: tuple[str, int] | None = None
        self.packets_sent = 0
        self.packets_received = 0
        self.too_large = 0
        """Datagrams that the path does not bear."""
        self.max_datagram = MAX_DATAGRAM
        """Bytes of the largest datagram that is sent."""
        self.stray = 0
        self._deliver = deliver
        self._on_stage = on_stage
        self._on_drain = on_drain
        self._on_path = on_path
        self._on_too_large = on_too_large
        self._path: RelayedPath | None = None
        self._association: DtlsAssociation | None = None
        self._protocol: LaneClient | None = None
        self._handshaken = False
        self._established = False
        self._secret: Secret[bytes] | None = None
        self._last_flow = 0
        self._granted = MAX_DATAGRAM if plan.security is None else MAX_PAYLOAD
        self._refused = 0
        self._measure_at = 0.0
        self._unsendable = 0
        self._workspace = workspace
        self._layout: RecordLayout | None = None
        self._nap: anyio.CancelScope | None = None

    @property
    def unsendable(self) -> int:
        """Packets that no record holds: too large, or empty where a record would be."""
        unsealed = 0 if self._association is None else self._association.unsealed
        return self._unsendable + unsealed

    async def run(self, on_ready: Callable[[], None]) -> NoReturn:
        """Bring the lane up, call `on_ready`, carry traffic until it fails or is cancelled.

        Raises `TransportError` or `SessionError` with the stage; on every way out the server is
        told and the allocation released.
        """
        workspace = self._workspace
        workspace.enter_loop()
        async with relayed_path(self.plan.path, self._on_stage, workspace.received) as path:
            self._path = path
            self.relayed = path.relayed
            # A lane is cancelled with its session only; a failure is its own, and it may come back.
            leaving = ByeCode.SESSION_CLOSED
            try:
                if self.plan.security is not None:
                    self._enter(path, Stage.DTLS_HANDSHAKE)
                    await self._handshake(self.plan.security)
                if self.plan.membership is not None and self._association is not None:
                    self._enter(path, Stage.SESSION_HELLO)
                    await self._join(self.plan.membership, self._association)
                self._measure(path)
                await self._settle()
                path.stage = Stage.FORWARDING_LOOP
                self.ready = True
                on_ready()
                await self._forward(path)
            except TurnlaneError:
                leaving = ByeCode.LANE_CLOSED
                raise
            finally:
                self.ready = False
                self._layout = None
                self._farewell(path, leaving)
                self._path = None

    @property
    def estimate(self) -> LaneEstimate | None:
        """What is known of the way to the server; None without the session protocol."""
        health = self._protocol.health if self._protocol is not None else None
        return None if health is None else health.estimate

    @property
    def backlog(self) -> int:
        """Bytes that wait because the connection to the relay does not take them."""
        return 0 if self._path is None else self._path.backlog

    def probe(self, now: float) -> None:
        """Ping the server to measure the way there."""
        if self._protocol is not None and self._protocol.health is not None:
            self._protocol.health.probe(now)
            self._flush()

    def send(self, batch: Batch, start: int, stop: int) -> None:
        """Send packets `start` to `stop - 1` of `batch` to the server."""
        path = self._path
        if path is None or not self.ready:
            return
        if self._protocol is None:
            self._last_flow = batch.flows[stop - 1]
        sealed = self._workspace.sealed
        sent, first = 0, start
        while start < stop and self._layout is not None and self._association is not None:
            start = self._association.seal(self._layout, batch, start, stop, sealed)
            sent += path.send_messages(sealed)
        if start < stop:
            sent += self._send_singly(path, batch, start, stop)
        self.packets_sent += sent
        if sent < stop - first:
            self._look_for_refused(path, max(batch.sizes[first:stop]))
        if self._protocol is not None and self._protocol.health is not None and sent:
            self._note_sent(self._protocol.health, sent)

    def _send_singly(self, path: RelayedPath, batch: Batch, start: int, stop: int) -> int:
        """Send packets while there is no channel yet, or no DTLS."""
        association, protocol = self._association, self._protocol
        sent = 0
        for index in range(start, stop):
            begin = batch.starts[index]
            end = begin + batch.sizes[index]
            if protocol is not None:
                begin -= HEADER_SIZE
                write_datagram_header(batch.buffer, begin, batch.flows[index])
            packet = batch.view[begin:end]
            if association is not None:
                # An empty one can only be raw: DTLS in OpenSSL has no record for it.
                if not packet or batch.sizes[index] > self.max_datagram:
                    self._unsendable += 1
                    continue
                sent += path.send(association.encrypt(packet))
            else:
                sent += path.send(bytes(packet))
        return sent

    def _look_for_refused(self, path: RelayedPath, size: int) -> None:
        """Count and tell what was too large among packets that were not all sent."""
        known, self._refused = self._refused, self.unsendable + path.too_large
        if self._refused > known:
            self._measure(path)
            self._adopt_path()
            self._shorten_nap(self._workspace.clock())
            if size > self.max_datagram:
                self.too_large += self._refused - known
                self._on_too_large(size)

    def _measure(self, path: RelayedPath) -> None:
        """Ask the system what the way to the relay bears, and go by it."""
        now = self._workspace.clock()
        self._measure_at = now + MEASURE_INTERVAL
        framed = self._protocol is not None
        bound = self._granted - HEADER_SIZE * framed
        payload = path.largest_payload
        if payload is not None:
            record = 0 if self._association is None else self._association.overhead
            fits = largest_datagram(payload, channel=True, record=record, framed=framed)
            bound = min(bound, fits)
        probe = self._probe
        if probe is None:
            if bound != self.max_datagram:
                self._go_by(bound)
        elif probe.begun:
            probe.bound(bound, now)
        else:
            probe.begin(bound, now)

    def _adopt_path(self) -> None:
        """Keep to what is known about the path by now."""
        probe = self._probe
        if probe is not None and probe.begun and probe.max_datagram != self.max_datagram:
            self._go_by(probe.max_datagram)

    def _go_by(self, max_datagram: int) -> None:
        self.max_datagram = max_datagram
        if self.ready:
            self._lay_out()
            self._on_path()

    @property
    def _probe(self) -> PathProbe | None:
        return None if self._protocol is None else self._protocol.path

    def _note_sent(self, health: LaneHealth, count: int) -> None:
        quiet = not health.busy
        health.note_sent(count, self._workspace.clock())
        if quiet:
            self._shorten_nap(health.get_timer())

    def _shorten_nap(self, timer: float | None) -> None:
        if self._nap is not None and timer is not None and timer < self._nap.deadline:
            self._nap.deadline = timer

    def _enter(self, path: RelayedPath, stage: Stage) -> None:
        path.stage = stage
        self._on_stage(stage)

    async def _handshake(self, security: Security) -> None:
        self._association = DtlsAssociation.client(pin=security.pin)
        self._association.start(anyio.current_time())
        while not self._handshaken:
            await self._turn()

    async def _join(self, membership: Membership, association: DtlsAssociation) -> None:
        async with membership.ticket() as ticket:
            self._protocol = LaneClient(
                HelloParameters(
                    session_id=ticket.session_id,
                    lane=self.plan.index,
                    lanes=self.plan.lanes,
                    features=Feature.PATH_PROBES,
                    traceparent=self.plan.traceparent,
                ),
                token=self.plan.security.token if self.plan.security else None,
                session_secret=ticket.secret,
                exporter=association.export(EXPORTER_LABEL, EXPORTER_SIZE),
            )
            self._protocol.start(anyio.current_time())
            try:
                while not self._established:
                    await self._turn()
            except _RefusedError as refused:
                if refused.remedy is Remedy.NEW_SESSION:
                    membership.forget(ticket)
                raise refused.error from None
            membership.established(ticket, self._secret)
            self._secret = None

    async def _settle(self) -> None:
        """Give the search for the path's MTU the time that it takes on most paths."""
        probe, give_up = self._probe, anyio.current_time() + SETTLE_TIMEOUT
        while probe is not None and not probe.settled and anyio.current_time() < give_up:
            await self._turn(give_up)
        self._adopt_path()

    async def _turn(self, deadline: float = float("inf")) -> None:
        """Do one turn: send what is due, wait for packets or a timer, handle both."""
        path = self._path
        assert path is not None
        self._flush()
        timer = self._timer()
        await path.wait(deadline if timer is None else min(timer, deadline))
        now = anyio.current_time()
        self._take(path.read(now), now)
        self._handle_timers(now)

    async def _forward(self, path: RelayedPath) -> NoReturn:
        """Carry traffic until the path, the association or the session ends."""
        self._lay_out()
        self._flush()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_time, path)
            try:
                await path.pump(self._on_readable)
            except TurnlaneError as error:
                failure = error
                tasks.cancel_scope.cancel()
        raise failure

    async def _keep_time(self, path: RelayedPath) -> None:
        try:
            while self.ready:
                timer = self._timer()
                with anyio.CancelScope(
                    deadline=float("inf") if timer is None else timer
                ) as self._nap:
                    await anyio.sleep_forever()
                if self.ready:
                    self._handle_timers(anyio.current_time())
        except TurnlaneError as error:
            self.ready = False
            path.interrupt(error)
        finally:
            self._nap = None

    def _timer(self) -> float | None:
        machines = (self._path, self._association, self._protocol)
        timers = [machine.get_timer() for machine in machines if machine is not None]
        return min((timer for timer in timers if timer is not None), default=None)

    def _handle_timers(self, now: float) -> None:
        for machine in (self._path, self._association, self._protocol):
            if machine is None:
                continue
            timer = machine.get_timer()
            if timer is not None and timer <= now:
                machine.handle_timer(now)
        self._events()
        if self.ready and self._path is not None and now >= self._measure_at:
            self._measure(self._path)
        self._flush()
        if self.ready:
            self._adopt_path()
            self._lay_out()

    def _lay_out(self) -> None:
        """Settle how payload stands in messages, as soon as a channel is bound."""
        path = self._path
        if path is None or self._association is None:
            return
        channel, known = path.channel, self._layout
        framed = self._protocol is not None
        most = self.max_datagram + HEADER_SIZE * framed
        if channel is None:
            self._layout = None
        elif known is None or (known.channel, known.most) != (channel, most):
            self._layout = RecordLayout(
                channel=channel, padded=path.padded, framed=framed, most=most
            )

    def _on_readable(self) -> int:
        path, received = self._path, self._workspace.received
        assert path is not None
        try:
            count = path.read_messages(received)
            if count:
                self._take_messages(path, received, count)
        except TurnlaneError:
            self.ready = False  # at once: whoever runs the lane may hear of it a turn later
            raise
        return count

    def _take_messages(self, path: RelayedPath, received: Batch, count: int) -> None:
        """Take a batch off the wire: payload in bulk, everything else as it comes."""
        opened, now = self._workspace.opened, self._workspace.clock()
        index, aside = 0, False
        while index < count:
            stopped = Stopped.FOREIGN
            if self._layout is not None and self._association is not None:
                index, stopped = self._association.open(
                    self._layout, received, index, count, opened
                )
            if stopped is Stopped.DONE:
                break
            # A ping counts the payload that came before it.
            self._hand_over(now)
            if stopped is Stopped.CONTROL and self._association is not None:
                self._take_record(self._association.control, now)
                aside = True
            elif stopped is Stopped.FOREIGN:
                self._take(path.receive(bytes(received.packet(index)), now), now)
                index += 1
                aside = True
        self._hand_over(now)
        if aside:
            path.flush()
            self._handle_timers(now)
            self._shorten_nap(self._timer())

    def _flush(self) -> None:
        path, association, protocol = self._path, self._association, self._protocol
        if path is None or association is None:
            return
        if protocol is not None:
            refused = path.too_large
            for record in protocol.records_to_send():
                path.send(association.encrypt(record))
            if path.too_large > refused:
                # A probe: that the system knows better by now is what it was for.
                self._refused += path.too_large - refused
                self._measure(path)
                for record in protocol.records_to_send():
                    path.send(association.encrypt(record))
        for datagram in association.datagrams_to_send():
            path.send(datagram)

    def _take(self, payloads: list[bytes], now: float) -> None:
        association = self._association
        for payload in payloads:
            records = [payload]
            if association is not None:
                records = association.receive_datagram(payload, now)
                if not self._handshaken:
                    self._events()
            for record in records:
                self._take_record(record, now)
        self._hand_over(now)

    def _take_record(self, record: bytes, now: float) -> None:
        protocol = self._protocol
        if protocol is None:
            if self.ready:
                self._append(record, 0, self._last_flow, now)
            else:
                self.stray += 1
            return
        flow = datagram_flow(record) if self._established else -1
        if flow < 0:
            self._hand_over(now)
            protocol.receive(record, now)
            if not self._established:
                self._events()
            return
        self._append(record, HEADER_SIZE, flow, now)

    def _append(self, record: bytes, offset: int, flow: int, now: float) -> None:
        opened = self._workspace.opened
        payload = memoryview(record)[offset:]
        if not opened.append(payload, flow):
            self._hand_over(now)
            opened.append(payload, flow)

    def _hand_over(self, now: float) -> None:
        opened = self._workspace.opened
        count = opened.count
        if not count:
            return
        self.packets_received += count
        if self._protocol is None:
            opened.flows[:count] = [self._last_flow] * count
        elif self._protocol.health is not None:
            self._protocol.health.note_received(count, now)
        self._deliver(opened)
        opened.clear()

    def _events(self) -> None:
        path, association = self._path, self._association
        assert path is not None
        if self._protocol is not None:
            # First, as a bye says more than the end of the association that comes with it.
            while (told := self._protocol.next_event()) is not None:
                self._on_protocol(told)
        if association is not None:
            while (event := association.next_event()) is not None:
                if isinstance(event, HandshakeCompleted):
                    self._handshaken = True
                elif isinstance(event, HandshakeFailed):
                    raise handshake_error(event.code, event.message)
                elif isinstance(event, AssociationClosed):
                    raise TransportError(
                        path.stage,
                        "peer_closed",
                        f"the server ended the lane: {event.reason}",
                        "see the server's log",
                    )

    def _on_protocol(self, event: ClientEvent) -> None:
        match event:
            case LaneEstablished():
                self._established = True
                self._granted = min(MAX_PAYLOAD, event.terms.max_datagram + HEADER_SIZE)
                self._secret = event.session_secret
            case LaneRefused():
                raise _RefusedError(event.error(), event.remedy)
            case LaneFailed():
                raise event.error()
            case PeerDraining():
                self._on_drain()
            case PeerLeft():
                raise SessionError(
                    Stage.FORWARDING_LOOP,
                    "peer_left",
                    f"the server left the lane ({event.code})",
                    "the lane is made anew by itself",
                )
            case LaneDead():
                raise TransportError(
                    Stage.FORWARDING_LOOP,
                    "lane_silent",
                    f"nothing came over the lane for {event.silence:.0f} s",
                    "the lane is made anew by itself",
                )

    def _farewell(self, path: RelayedPath, code: ByeCode) -> None:
        """Tell the server, as far as the path still carries; it finds out by itself otherwise."""
        association = self._association
        if association is None:
            return
        if self._protocol is not None:
            self._protocol.leave(code)
            # The server may have ended the association already.
            with suppress(AssociationStateError):
                for record in self._protocol.records_to_send():
                    path.send(association.encrypt(record))
        association.close()
        for datagram in association.datagrams_to_send():
            path.send(datagram)


class _RefusedError(Exception):
    def __init__(self, error: SessionError, remedy: Remedy) -> None:
        super().__init__(error)
        self.error = error
        self.remedy = remedy


_HANDSHAKE_ADVICE = {
    "dtls_timeout": "check that the server runs and that its address in the peer link is right",
    "pin_mismatch": "this is not the server of the peer link: take the link from the server again",
    "no_extended_master_secret": "the peer's DTLS is too old to be bound to a session safely",
    "peer_alert": "the peer refused the handshake; see its log",
    "protocol_error": "what answers at the peer's address does not speak our DTLS",
}


def handshake_error(code: str, message: str) -> TransportError:
    """Say why a DTLS handshake failed, with what to do about it."""
    return TransportError(Stage.DTLS_HANDSHAKE, code, message, _HANDSHAKE_ADVICE.get(code, ""))
