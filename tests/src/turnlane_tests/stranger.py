"""A peer that speaks DTLS with a tunnel server and is bound to nothing beyond that."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from turnlane.api import Secret
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_state import HandshakeCompleted, HandshakeFailed
from turnlane.net.identity import Pin
from turnlane.proto.hello import (
    EXPORTER_LABEL,
    EXPORTER_SIZE,
    HelloParameters,
    Reject,
    Welcome,
    build_hello,
    parse_message_untrusted,
)
from turnlane_lab.stand import Stand

LIMIT = 10.0
"""Seconds that anything may take here."""


class Stranger:
    """A DTLS client straight to the server that may say what ours never would.

    `sent` are the datagrams it has sent, oldest first.
    """

    def __init__(self, server: tuple[str, int], pin: Pin | None = None) -> None:
        self.association = DtlsAssociation.client(pin=pin)
        self.records: list[bytes] = []
        self.failed: HandshakeFailed | None = None
        self.ready = False
        self.sent: list[bytes] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(server)

    @property
    def exporter(self) -> bytes:
        return self.association.export(EXPORTER_LABEL, EXPORTER_SIZE)

    def hello(
        self,
        session_id: bytes = b"stranger" * 2,
        *,
        token: Secret[bytes] | None = None,
        secret: Secret[bytes] | None = None,
    ) -> bytes:
        parameters = HelloParameters(session_id=session_id, lane=0, lanes=1)
        return build_hello(parameters, exporter=self.exporter, token=token, session_secret=secret)

    async def shake_hands(self) -> None:
        self.association.start(anyio.current_time())
        await self._until(lambda: self.ready or self.failed is not None)

    async def shake_halfway(self) -> None:
        """Bring the cookie back, and then say nothing more."""
        self.association.start(anyio.current_time())
        await self._until(lambda: len(self.sent) == 2)

    async def ask(self, record: bytes) -> Reject | Welcome:
        """Send a record and return the handshake message that answers it."""
        self.say(record)
        await self._until(lambda: bool(self.records))
        message = parse_message_untrusted(self.records.pop(0))
        assert isinstance(message, Reject | Welcome)
        return message

    def say(self, record: bytes) -> None:
        self._send(self.association.encrypt(record))

    async def hear(self, fits: Callable[[bytes], bool]) -> None:
        await self._until(lambda: any(map(fits, self.records)))

    def close(self) -> None:
        self.association.close()
        self._flush()
        self._socket.close()

    async def _until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(LIMIT):
            self._flush()
            while not holds():
                with anyio.CancelScope(deadline=self.association.get_timer() or float("inf")):
                    await anyio.wait_readable(self._socket)
                now = anyio.current_time()
                try:
                    self.records += self.association.receive_datagram(
                        self._socket.recv(65_535), now
                    )
                except BlockingIOError:
                    self.association.handle_timer(now)
                while (event := self.association.next_event()) is not None:
                    self.ready = self.ready or isinstance(event, HandshakeCompleted)
                    if isinstance(event, HandshakeFailed):
                        self.failed = event
                self._flush()

    def _flush(self) -> None:
        for datagram in self.association.datagrams_to_send():
            self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        self.sent.append(datagram)
        self._socket.send(datagram)


@asynccontextmanager
async def stranger(stand: Stand) -> AsyncIterator[Stranger]:
    """Shake hands with the server of `stand`."""
    made = Stranger(stand.server.listen, stand.server.pin)
    try:
        await made.shake_hands()
        assert made.ready
        yield made
    finally:
        made.close()
