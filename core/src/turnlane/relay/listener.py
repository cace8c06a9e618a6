"""A listening port of the server: datagrams in, DTLS undone, payload to whoever handles peers."""

from collections.abc import Hashable
from typing import NoReturn, Protocol

from turnlane.api.batch import Batch
from turnlane.api.errors import TurnlaneError
from turnlane.api.stages import Stage
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import Accepted, Closed, DtlsServer, Failed
from turnlane.net.record_layout import RecordLayout, Stopped
from turnlane.net.system import SocketAddress, plain_address
from turnlane.net.udp import ListeningUdpSocket
from turnlane.relay.workspace import Workspace


class ServerPort(Protocol):
    """How the peers of a port are sent to."""

    @property
    def too_large(self) -> int:
        """Datagrams that were larger than the path bears."""
        ...

    def largest_payload(self, address: SocketAddress) -> int | None:
        """Return the bytes of the largest datagram for an address, as far as the system knows."""
        ...

    def send(self, data: bytes, address: SocketAddress) -> None:
        """Send one datagram now."""
        ...

    def target(self, address: SocketAddress) -> Hashable:
        """Return what `send_batch` takes for an address."""
        ...

    def send_batch(self, batch: Batch, target: Hashable) -> int:
        """Send a batch to one peer now; return how many datagrams the system took."""
        ...


class PeerHandler(Protocol):
    """What happens with the peers of a port; called in the one thread of the loop."""

    layout: RecordLayout
    """How payload stands in the messages of this port."""

    def accepted(self, address: SocketAddress, association: DtlsAssociation, now: float) -> None:
        """Take a peer whose handshake has completed."""
        ...

    def carried(self, address: SocketAddress, batch: Batch, now: float) -> None:
        """Take payload of an accepted peer, in batches."""
        ...

    def received(self, address: SocketAddress, records: list[bytes], now: float) -> None:
        """Take other records of an accepted peer, or records that came in unusual company."""
        ...

    def closed(self, address: SocketAddress, reason: str, now: float) -> None:
        """Forget a peer whose association has ended."""
        ...


class ServerObserver(Protocol):
    """Who is told what the server does with its peers; texts hold no secret."""

    def peer_accepted(
        self, address: str, session: str, lane: int, *, new_session: bool, traceparent: str
    ) -> None:
        """Hear of a lane that joined a session."""
        ...

    def peer_refused(self, address: str, stage: Stage, code: str, message: str) -> None:
        """Hear of a peer that was refused."""
        ...

    def peer_lost(self, session: str, lane: int, reason: str) -> None:
        """Hear of a lane that has ended."""
        ...

    def datagrams_too_large(
        self, session: str, lane: int, size: int, max_datagram: int, count: int
    ) -> None:
        """Hear, once a minute per session, of `count` datagrams that do not fit their lanes' path.

        One of them has `size` bytes, and the lane bears `max_datagram`.
        """
        ...

    def flow_failed(self, session: str, flow: int, error: TurnlaneError) -> None:
        """Hear of a flow whose upstream failed."""
        ...


class Listener:
    """Drives one `DtlsServer` on one socket; `workspace` may be shared by the whole loop."""

    def __init__(
        self,
        socket: ListeningUdpSocket,
        dtls: DtlsServer,
        handler: PeerHandler,
        observer: ServerObserver,
        workspace: Workspace,
    ) -> None:
        self.socket = socket
        self.dtls = dtls
        self._handler = handler
        self._observer = observer
        self._workspace = workspace

    async def run(self) -> NoReturn:
        """Serve until cancelled; raises `TransportError` when the socket breaks."""
        self._workspace.enter_loop()
        await self.socket.pump(self._workspace.received, self.take)

    def take(self, received: Batch) -> None:
        """Take datagrams, whose flows are the socket's numbers of peers; send what they lead to."""
        now = self._workspace.clock()
        flows, count = received.flows, received.count
        start = 0
        while start < count:
            number = flows[start]
            stop = start + 1
            while stop < count and flows[stop] == number:
                stop += 1
            self._take_run(received, start, stop, self.socket.address(number), now)
            start = stop
        self.flush()

    def _take_run(
        self, received: Batch, start: int, stop: int, address: SocketAddress, now: float
    ) -> None:
        """Take datagrams of one peer: payload in bulk, everything else as it comes."""
        dtls, handler, opened = self.dtls, self._handler, self._workspace.opened
        while start < stop:
            stopped = Stopped.FOREIGN
            association = dtls.association(address)
            if association is not None:
                start, stopped = association.open(handler.layout, received, start, stop, opened)
                if opened.count:
                    handler.carried(address, opened, now)
                    opened.clear()
                if stopped is Stopped.CONTROL:
                    handler.received(address, [association.control], now)
                if association.is_pending:
                    dtls.settle(address)
                    self._events(now)
            if stopped is Stopped.FOREIGN:
                records = dtls.receive_datagram(bytes(received.packet(start)), address, now)
                self._events(now)
                if records:
                    handler.received(address, records, now)
                start += 1

    def tick(self, now: float) -> None:
        """Do what is due: called a few times a second."""
        timer = self.dtls.get_timer()
        if timer is not None and timer <= now:
            self.dtls.handle_timer(now)
            self._events(now)
        self.flush()

    def flush(self) -> None:
        """Send what DTLS has to say."""
        for data, address in self.dtls.datagrams_to_send():
            self.socket.send(data, address)

    def _events(self, now: float) -> None:
        while (event := self.dtls.next_event()) is not None:
            match event:
                case Accepted():
                    self._handler.accepted(event.address, event.association, now)
                case Closed():
                    self._handler.closed(event.address, event.reason, now)
                case Failed():
                    self._observer.peer_refused(
                        shown(event.address), Stage.DTLS_HANDSHAKE, event.code, event.message
                    )


def shown(address: SocketAddress) -> str:
    """Write an address for logs."""
    host, port = plain_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
