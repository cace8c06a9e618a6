"""A listening port of the server: datagrams in, DTLS undone, payload to whoever handles peers."""

from collections.abc import Iterable
from typing import Protocol

import anyio

from turnlane.api.errors import TurnlaneError
from turnlane.api.stages import Stage
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import Accepted, Closed, DtlsServer, Failed
from turnlane.net.system import SocketAddress, plain_address
from turnlane.net.udp import ListeningUdpSocket


class PeerHandler(Protocol):
    """What happens with the peers of a port; called in the one thread of the loop."""

    def accepted(self, address: SocketAddress, association: DtlsAssociation, now: float) -> None:
        """Take a peer whose handshake has completed."""
        ...

    def received(self, address: SocketAddress, records: list[bytes], now: float) -> None:
        """Take the records of one datagram of an accepted peer."""
        ...

    def closed(self, address: SocketAddress, reason: str, now: float) -> None:
        """Forget a peer whose association has ended."""
        ...

    def burst_ended(self) -> None:
        """Send on what a burst of datagrams has left."""
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

    def flow_failed(self, session: str, flow: int, error: TurnlaneError) -> None:
        """Hear of a flow whose upstream failed."""
        ...


class Listener:
    """Drives one `DtlsServer` on one socket."""

    def __init__(
        self,
        socket: ListeningUdpSocket,
        dtls: DtlsServer,
        handler: PeerHandler,
        observer: ServerObserver,
    ) -> None:
        self.socket = socket
        self.dtls = dtls
        self._handler = handler
        self._observer = observer

    async def run(self) -> None:
        """Serve until cancelled; raises `TransportError` when the socket breaks."""
        while True:
            self.take(await self.socket.receive(), anyio.current_time())

    def take(self, burst: Iterable[tuple[bytes, SocketAddress]], now: float) -> None:
        """Take datagrams with their sources, and send what they lead to."""
        handler, dtls = self._handler, self.dtls
        for data, address in burst:
            records = dtls.receive_datagram(data, address, now)
            self._events(now)
            if records:
                handler.received(address, records, now)
        handler.burst_ended()
        self.flush()

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
