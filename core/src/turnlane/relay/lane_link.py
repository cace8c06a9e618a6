"""The way between two processes of one server for the lanes that belong to both."""

import socket
from collections import deque
from collections.abc import Callable

import anyio

from turnlane.api.batch import Batch
from turnlane.net.reactor import Readiness
from turnlane.net.system import SOCKET_BUFFER
from turnlane.relay.lane_messages import (
    MAX_MESSAGE,
    Kind,
    LaneMessageError,
    Message,
    decode,
    encode,
    encode_payload,
    following,
)

MAX_WAITING = 16_384
"""Messages that wait for room: what opens and closes lanes is never shed, and each is two of it."""

_AT_ONCE = 16
"""Messages that are taken before others have their turn."""


class _LinkEndedError(Exception):
    """The process at the other end has gone."""


def link_pair() -> tuple[socket.socket, socket.socket]:
    """Open both ends of a link; raises OSError."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        # The bytes under way are the sender's, and so is their bound.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    return ends


class LaneLink:
    """Sends and takes messages; never waits.

    What does not fit the system's buffer is dropped and counted, as on any wire, but for the
    messages that open and close lanes. `received` is where messages are read into; it may be shared
    by all that is used up at once.
    """

    def __init__(self, opened: socket.socket, received: Batch) -> None:
        self.dropped = 0
        self.ended = False
        self._socket = opened
        self._received = received
        self._waiting: deque[bytes] = deque()
        self._lane = 0
        self._readiness: Readiness | None = None

    def new_lane(self) -> int:
        """Return a number for a lane that this end holds."""
        self._lane = following(self._lane)
        return self._lane

    async def run(self, take: Callable[[Message, Batch], None]) -> None:
        """Give `take` each message, with its payload, until the other end is gone; then close."""
        receive, view = self._socket.recv_into, self._received.view[:MAX_MESSAGE]

        def on_readable() -> int:
            packets = 0
            for _ in range(_AT_ONCE):
                try:
                    size = receive(view)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:
                    raise _LinkEndedError from None
                if not size:
                    raise _LinkEndedError
                try:
                    message = decode(self._received, size)
                except LaneMessageError:
                    raise _LinkEndedError from None
                packets += max(self._received.count, 1)
                take(message, self._received)
                self._received.clear()
            return packets

        if self.ended:
            return
        self._readiness = Readiness(self._socket, on_readable)
        try:
            await self._readiness.run()
        except _LinkEndedError:
            pass
        finally:
            self.close()

    def send(self, kind: Kind, lane: int, *records: bytes) -> None:
        """Send records; dropped where there is no room."""
        if not self.flush() or not self._send(encode(kind, lane, *records)):
            self.dropped += 1

    def send_surely(self, kind: Kind, lane: int, *records: bytes) -> None:
        """Send what must not be lost; where there is no room now, `flush` sends it."""
        message = encode(kind, lane, *records)
        if (not self.flush() or not self._send(message)) and not self.ended:
            if len(self._waiting) >= MAX_WAITING:
                self.close()  # nobody reads at the other end: as good as gone
            else:
                self._waiting.append(message)

    def send_payload(self, kind: Kind, lane: int, batch: Batch, start: int, stop: int) -> int:
        """Send packets of `batch`; return how many there was room for."""
        sent = 0
        if self.flush():
            for count, pieces in encode_payload(kind, lane, batch, start, stop):
                try:
                    self._socket.sendmsg(pieces)
                except OSError:
                    break  # the newest is shed; that the other end is gone is found by reading
                sent += count
        self.dropped += stop - start - sent
        return sent

    def flush(self) -> bool:
        """Send what waits; return whether nothing waits any more."""
        while self._waiting:
            if not self._send(self._waiting[0]):
                return False
            self._waiting.popleft()
        return not self.ended

    def close(self) -> None:
        """End the link; `run` at the other end returns."""
        if not self.ended:
            self.ended = True
            self._waiting.clear()
            if self._readiness is not None:
                self._readiness.end(_LinkEndedError())
                anyio.notify_closing(self._socket)
            self._socket.close()

    def _send(self, message: bytes) -> bool:
        try:
            self._socket.send(message)
        except OSError:
            return False
        return True
