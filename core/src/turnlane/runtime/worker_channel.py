"""What a server and its workers tell each other, and the channel that carries it.

One message is one packet of a socket pair, in MessagePack; sockets travel with the message that
speaks of them. Neither end outlives the other: the channel's end is the worker's end.
"""

import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from turnlane.api import Secret, Stage, TurnlaneError
from turnlane.runtime.profiles import ServerProfile

MAX_MESSAGE = 256 * 1024
"""Bytes of one message: the profile is the longest."""

MAX_DESCRIPTORS = 2

MAX_WAITING = 16_384
"""Messages that wait until the other end takes them."""

SHED_ABOVE = 1024
"""Messages that wait, above which those that only tell what happened are shed."""


class Failure(msgspec.Struct, frozen=True):
    """A `TurnlaneError` on its way."""

    stage: Stage
    code: str
    message: str
    advice: str

    @classmethod
    def of(cls, error: TurnlaneError) -> "Failure":
        """Take an error apart."""
        return cls(error.stage, error.code, error.message, error.advice)


# To the worker.


class Start(msgspec.Struct, tag=True, frozen=True):
    """Serve the sockets that come with this: the main port's, and the legacy port's if any."""

    index: int
    profile: ServerProfile
    identity: Secret[bytes]
    log_level: int


class Link(msgspec.Struct, tag=True, frozen=True):
    """The socket that comes with this leads to `worker`, in place of an earlier one."""

    worker: int


class Owned(msgspec.Struct, tag=True, frozen=True):
    """The answer to a `Claim`: who owns the session; None where nobody does, and why."""

    request: int
    owner: int | None
    full: bool = False


class MakeRoom(msgspec.Struct, tag=True, frozen=True):
    """End a deserted session."""

    session_id: bytes


class Stop(msgspec.Struct, tag=True, frozen=True):
    """Drain and end."""


ToWorker = Start | Link | Owned | MakeRoom | Stop


# To the server.


class Serving(msgspec.Struct, tag=True, frozen=True):
    """The worker serves."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker ends because of a failure."""

    failure: Failure


class Claim(msgspec.Struct, tag=True, frozen=True):
    """Who owns this session? A `new` one becomes the worker's where nobody does."""

    request: int
    session_id: bytes
    new: bool


class Released(msgspec.Struct, tag=True, frozen=True):
    """A session of the worker has ended."""

    session_id: bytes


class Deserted(msgspec.Struct, tag=True, frozen=True):
    """These are the sessions of the worker that have no lane."""

    session_ids: tuple[bytes, ...]


class Counted(msgspec.Struct, tag=True, frozen=True):
    """What the worker has counted so far."""

    counters: dict[str, int]


class LaneAccepted(msgspec.Struct, tag=True, frozen=True):
    """What `ServerObserver.peer_accepted` is told."""

    address: str
    session: str
    lane: int
    new_session: bool
    traceparent: str


class PeerRefused(msgspec.Struct, tag=True, frozen=True):
    """What `ServerObserver.peer_refused` is told."""

    address: str
    stage: Stage
    code: str
    message: str


class LaneLost(msgspec.Struct, tag=True, frozen=True):
    """What `ServerObserver.peer_lost` is told."""

    session: str
    lane: int
    reason: str


class RepliesTooLarge(msgspec.Struct, tag=True, frozen=True):
    """What `ServerObserver.datagrams_too_large` is told."""

    session: str
    lane: int
    size: int
    max_datagram: int
    count: int


class FlowFailed(msgspec.Struct, tag=True, frozen=True):
    """What `ServerObserver.flow_failed` is told."""

    session: str
    flow: int
    failure: Failure


class Logged(msgspec.Struct, tag=True, frozen=True):
    """Something in the worker, such as an adapter, has logged an event."""

    logger: str
    level: int
    event: str
    fields: dict[str, Any]


ToServer = (
    Serving
    | Failed
    | Claim
    | Released
    | Deserted
    | Counted
    | LaneAccepted
    | PeerRefused
    | LaneLost
    | RepliesTooLarge
    | FlowFailed
    | Logged
)

_ONLY_TOLD = (PeerRefused, RepliesTooLarge, FlowFailed, Logged, Counted)

T = TypeVar("T")


class Channel:
    """One end of the channel: `receive` waits, `send` never does.

    `run` sends what waits; what `send` gives while it runs goes out at once where there is room.
    """

    def __init__(self, opened: socket.socket) -> None:
        opened.setblocking(False)
        self.shed = 0
        self._socket = opened
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_encode)
        self._waiting: deque[tuple[bytes, Sequence[socket.socket]]] = deque()
        self._more = anyio.Event()
        self._closed = False

    def send(self, message: ToWorker | ToServer, sockets: Sequence[socket.socket] = ()) -> None:
        """Send a message; `sockets` go with it and are closed here."""
        if self._closed or (
            len(self._waiting) >= (SHED_ABOVE if isinstance(message, _ONLY_TOLD) else MAX_WAITING)
        ):
            self.shed += 1
            _close(sockets)
            return
        self._waiting.append((self._encoder.encode(message), sockets))
        self.flush()

    def flush(self) -> bool:
        """Send what waits as far as there is room; return whether nothing waits any more."""
        while self._waiting:
            data, sockets = self._waiting[0]
            try:
                socket.send_fds(self._socket, [data], [each.fileno() for each in sockets])
            except (BlockingIOError, InterruptedError):
                self._more.set()
                return False
            except OSError:
                pass  # the other end has gone, which `receive` tells
            self._waiting.popleft()
            _close(sockets)
        return True

    async def run(self) -> None:
        """Send what waits whenever there is room, until cancelled or closed."""
        with suppress(anyio.ClosedResourceError):
            while True:
                await self._more.wait()
                if self._closed:
                    return
                await anyio.wait_writable(self._socket)
                if self.flush():
                    self._more = anyio.Event()

    async def drain(self) -> None:
        """Wait until everything is sent; not while `run` does."""
        while not self.flush():
            await anyio.wait_writable(self._socket)

    async def receive(self, kind: Callable[[bytes], T]) -> tuple[T, list[socket.socket]]:
        """Return the next message, read by `kind`, and what came with it.

        Raises `anyio.EndOfStream` when the other end is gone.
        """
        await checkpoint()
        while not self._closed:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._socket, MAX_MESSAGE, MAX_DESCRIPTORS
                )
            except (BlockingIOError, InterruptedError):
                with suppress(anyio.ClosedResourceError):
                    await anyio.wait_readable(self._socket)
                continue
            except OSError:
                break
            if not data:
                break
            sockets = [socket.socket(fileno=each) for each in descriptors]
            for received in sockets:
                received.set_inheritable(False)  # recv_fds does not take the flag for that
            return kind(data), sockets
        raise anyio.EndOfStream

    def close(self) -> None:
        """Close this end, and the sockets that wait to be sent."""
        if not self._closed:
            self._closed = True
            for _, sockets in self._waiting:
                _close(sockets)
            self._waiting.clear()
            self._more.set()
            anyio.notify_closing(self._socket)
            self._socket.close()


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Open both ends of a channel; raises OSError."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE)
    return ends


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _encode(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"objects of type {type(value).__name__} are not sent")


def _decode(kind: Any, value: Any) -> object:
    if kind is Path:
        return Path(value)
    if getattr(kind, "__origin__", None) is Secret:
        return Secret(value)
    raise NotImplementedError(f"objects of type {kind} are not received")


read_by_worker: Callable[[bytes], ToWorker] = msgspec.msgpack.Decoder(
    ToWorker, dec_hook=_decode
).decode
"""Reads what the server sends; raises `msgspec.MsgspecError`."""

read_by_server: Callable[[bytes], ToServer] = msgspec.msgpack.Decoder(
    ToServer, dec_hook=_decode
).decode
"""Reads what a worker sends; raises `msgspec.MsgspecError`."""
