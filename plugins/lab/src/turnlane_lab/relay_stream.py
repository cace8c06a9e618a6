"""One TCP connection of a client: messages in and out, its backlog bounded."""

import socket
from collections.abc import Callable

import anyio

from turnlane.proto.channel_data import FramingError, StreamFramer
from turnlane_lab.allocations import FiveTuple

MAX_BACKLOG = 256 * 1024
"""Bytes that may wait for the connection to take them; beyond, relayed data is dropped."""

RESERVED_BACKLOG = 64 * 1024
"""Bytes more that answers may take; a client that does not read even those is disconnected."""

_CHUNK = 65_536

Receive = Callable[[list[memoryview], float], None]
"""Takes whole messages, unpadded, and the time at which they arrived."""


class ClientConnection:
    """A client's TCP connection, served until either side closes it."""

    def __init__(self, opened: socket.socket, five_tuple: FiveTuple) -> None:
        self.five_tuple = five_tuple
        self.closed = anyio.Event()
        self._socket = opened
        self._framer = StreamFramer()
        self._backlog = bytearray()
        self._has_backlog = anyio.Event()
        self._scope = anyio.CancelScope()

    async def serve(self, receive: Receive) -> bool:
        """Hand messages to `receive` until the connection ends.

        Return False when it ended because the client sent neither STUN nor ChannelData.
        """
        sound = True
        with self._scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                sound = await self._read(receive)
                tasks.cancel_scope.cancel()
        return sound

    def send(self, message: bytes, *, droppable: bool) -> bool:
        """Send one message now, or as soon as the connection takes it; False: it was dropped."""
        limit = MAX_BACKLOG if droppable else MAX_BACKLOG + RESERVED_BACKLOG
        if len(self._backlog) + len(message) > limit:
            if not droppable:
                self.disconnect()
            return False
        if self._backlog:
            self._backlog += message
            return True
        try:
            sent = self._socket.send(message)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent < len(message):
            self._backlog += message[sent:]
            self._has_backlog.set()
        return True

    def disconnect(self) -> None:
        """End the connection; `closed` is set once it has ended."""
        self._scope.cancel()

    def release(self) -> None:
        """Close the socket; only after `serve` has ended or if it never ran."""
        self._socket.close()
        self.closed.set()

    async def _read(self, receive: Receive) -> bool:
        while True:
            await anyio.wait_readable(self._socket)
            try:
                chunk = self._socket.recv(_CHUNK)
                if not chunk:
                    return True
                receive(self._framer.receive_untrusted(chunk), anyio.current_time())
            except BlockingIOError:
                continue
            except OSError:
                return True
            except FramingError:
                return False

    async def _write(self) -> None:
        while True:
            await self._has_backlog.wait()
            await anyio.wait_writable(self._socket)
            try:
                sent = self._socket.send(self._backlog)
            except BlockingIOError:
                continue
            except OSError:
                # The reading side sees the broken connection too, and ends it.
                self._backlog.clear()
                sent = 0
            del self._backlog[:sent]
            if not self._backlog:
                self._has_backlog = anyio.Event()
