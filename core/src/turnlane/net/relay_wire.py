"""The wire to a TURN server: UDP, TCP or TLS behind one non-blocking interface."""

import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import NoReturn, Protocol

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from turnlane.api.batch import Batch
from turnlane.api.credentials import RelayEndpoint, RelayTransport
from turnlane.api.errors import TransportError
from turnlane.api.stages import Stage
from turnlane.net.datagrams import datagrams_of
from turnlane.net.path_mtu import forbid_fragments, largest_payload
from turnlane.net.reactor import Readiness
from turnlane.net.system import (
    SocketAddress,
    family_of,
    is_address,
    literal_address,
    open_socket,
    reason,
    resolve,
)
from turnlane.net.tls_layer import CHUNK, TlsLayer, tls_context
from turnlane.proto.channel_data import messages_untrusted

MAX_BACKLOG = 512 * 1024
"""Bytes that may wait for a stream to take them; beyond, datagrams are dropped and counted."""

READ_LIMIT = 8
"""Chunks of a stream taken per wake-up, so that one busy wire does not starve its neighbours."""


class BrokenWireError(Exception):
    """Nothing comes over the wire any more; whoever owns it knows at which stage that is."""

    def __init__(self, code: str, message: str, advice: str) -> None:
        super().__init__(code, message, advice)
        self.code = code
        self.message = message
        self.advice = advice


class RelayWire(Protocol):
    """Carries TURN messages.

    `dropped` counts messages that were not sent, `too_large` those among them that are larger than
    the path bears, `backlog` the bytes that wait to be sent. `refused` is what the network last
    said against sending to the relay, in the system's words, or empty.
    """

    reliable: bool

    @property
    def dropped(self) -> int:
        """Messages that were not sent."""
        ...

    @property
    def too_large(self) -> int:
        """Messages that the path does not bear."""
        ...

    @property
    def largest_payload(self) -> int | None:
        """Bytes of the largest message, as far as the system knows; None without a bound."""
        ...

    @property
    def backlog(self) -> int:
        """Bytes that wait until the connection takes them."""
        ...

    @property
    def refused(self) -> str:
        """What the network said."""
        ...

    def read(self, batch: Batch) -> int:
        """Put the messages that are there into `batch`, which is cleared; return how many.

        Raises `BrokenWireError` once nothing more comes.
        """
        ...

    def write(self, message: bytes, *, droppable: bool = True) -> bool:
        """Send one message now; False when it was dropped."""
        ...

    def write_batch(self, batch: Batch) -> int:
        """Send messages that stand in `batch` without gaps; return how many were not dropped."""
        ...

    async def wait(self) -> None:
        """Wait until `read` may have something, moving any backlog meanwhile."""
        ...

    async def pump(self, on_readable: Callable[[], int]) -> NoReturn:
        """Call `on_readable` whenever `read` may have something; raises what that raises."""
        ...

    def interrupt(self, error: Exception) -> None:
        """Make a `pump` that is under way raise `error`."""
        ...

    def close(self) -> None:
        """Release the socket."""
        ...


class UdpWire:
    """One connected UDP socket."""

    reliable = False
    backlog = 0

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._datagrams = datagrams_of(opened)
        self._readiness: Readiness | None = None
        self._single = Batch()

    @property
    def dropped(self) -> int:
        """Datagrams that the system did not take."""
        return self._datagrams.dropped

    @property
    def too_large(self) -> int:
        """Those among them that were larger than the path bears."""
        return self._datagrams.too_large

    @property
    def largest_payload(self) -> int | None:
        """Bytes of the largest datagram that leaves whole."""
        return largest_payload(self._socket)

    @property
    def refused(self) -> str:
        """What ICMP said last."""
        return self._datagrams.trouble

    def read(self, batch: Batch) -> int:
        """Take the datagrams that are there."""
        try:
            return self._datagrams.read(batch, 0)
        except OSError as error:
            raise _broken(error) from None

    def write(self, message: bytes, *, droppable: bool = True) -> bool:  # noqa: ARG002
        """Send one datagram; what the system does not take is lost, as datagrams may be."""
        self._single.clear()
        return self._single.append(message) and bool(self.write_batch(self._single))

    def write_batch(self, batch: Batch) -> int:
        """Send a batch of datagrams."""
        return self._datagrams.send(batch, 0, batch.count)

    async def wait(self) -> None:
        """Wait until the socket is readable."""
        await anyio.wait_readable(self._socket)

    async def pump(self, on_readable: Callable[[], int]) -> NoReturn:
        """Call `on_readable` whenever the socket is readable."""
        self._readiness = Readiness(self._socket, on_readable)
        try:
            await self._readiness.run()
        finally:
            self._readiness = None

    def interrupt(self, error: Exception) -> None:
        """End the pump."""
        if self._readiness is not None:
            self._readiness.end(error)

    def close(self) -> None:
        """Release the socket."""
        self.interrupt(anyio.ClosedResourceError())
        anyio.notify_closing(self._socket)
        self._socket.close()


class StreamWire:
    """A TCP connection, plain or under TLS.

    Messages enter the stream whole or not at all: what is dropped is dropped before it is
    encrypted, and what the connection does not take at once waits in the backlog.
    """

    reliable = True
    refused = ""
    too_large = 0
    largest_payload = None

    def __init__(self, opened: socket.socket, tls: TlsLayer | None = None) -> None:
        self._socket = opened
        self._tls = tls
        self._backlog: deque[bytes] = deque()
        self.backlog = 0
        self._writable = True
        self._waiting: anyio.CancelScope | None = None
        self._pumping: anyio.CancelScope | None = None
        self._interruption: Exception = anyio.ClosedResourceError()
        self._rest = b""
        self._more = False
        self.dropped = 0

    def read(self, batch: Batch) -> int:
        """Take what is there, and cut it into messages.

        Raises `BrokenWireError` at the end of the stream, and `FramingError` when it holds what is
        no message.
        """
        batch.clear()
        end = len(self._rest)
        batch.buffer[:end] = self._rest
        for chunk in () if self._more else self._take(len(batch.buffer) - end):
            batch.buffer[end : end + len(chunk)] = chunk
            end += len(chunk)
        starts, sizes, begin = messages_untrusted(batch.buffer, 0, end, batch.capacity)
        batch.count = len(starts)
        self._more = batch.count == batch.capacity
        batch.starts[: batch.count] = starts
        batch.sizes[: batch.count] = sizes
        self._rest = bytes(batch.view[begin:end])
        return batch.count

    def write(self, message: bytes, *, droppable: bool = True) -> bool:
        """Queue one message and send as much as the connection takes.

        What is not `droppable` may exceed the bound on what waits: its sender has a bound.
        """
        if not self._writable or (droppable and self.backlog + len(message) > MAX_BACKLOG):
            self.dropped += 1
            return False
        if self._tls is not None:
            try:
                message = self._tls.encrypt(message)
            except ssl.SSLError:
                # TLS has ended; as with a broken connection, the reading side tells.
                self.dropped += 1
                return False
        self._send(message)
        return True

    def write_batch(self, batch: Batch) -> int:
        """Queue all messages that the backlog has room for, and send as much as it takes."""
        count = batch.count
        room = MAX_BACKLOG - self.backlog
        if batch.end > room:
            # The newest work is what is shed.
            while count and batch.starts[count - 1] + batch.sizes[count - 1] > room:
                count -= 1
            self.dropped += batch.count - count
        if not count:
            return 0
        whole = bytes(batch.view[: batch.starts[count - 1] + batch.sizes[count - 1]])
        return count if self.write(whole) else 0

    async def wait(self) -> None:
        """Wait until the socket is readable; while there is a backlog, also move that.

        Returns early, with nothing to read, when a write meanwhile has left a backlog, and when a
        backlog has gone.
        """
        if self._more or (self._tls is not None and self._tls.ended):
            await checkpoint()
        elif self._backlog:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._until_readable, tasks)
                tasks.start_soon(self._until_flushed, tasks)
        else:
            try:
                with anyio.CancelScope() as self._waiting:
                    await anyio.wait_readable(self._socket)
            finally:
                self._waiting = None

    async def pump(self, on_readable: Callable[[], int]) -> NoReturn:
        """Wait and call, for ever."""
        with anyio.CancelScope() as self._pumping:
            while True:
                await self.wait()
                on_readable()
        raise self._interruption

    def interrupt(self, error: Exception) -> None:
        """End the pump."""
        self._interruption = error
        if self._pumping is not None:
            self._pumping.cancel()

    def close(self) -> None:
        """Release the socket; TLS ends with its close_notify where that can still be sent."""
        if self._tls is not None and self._writable:
            self._send(self._tls.farewell())
        anyio.notify_closing(self._socket)
        self._socket.close()

    def _take(self, room: int) -> list[bytes]:
        chunks: list[bytes] = []
        try:
            while room >= 2 * CHUNK and len(chunks) < READ_LIMIT:
                chunk = self._socket.recv(CHUNK)
                if not chunk:
                    if chunks:
                        break  # told on the next read, after these bytes were used
                    raise _ended()
                chunks.append(chunk)
                room -= len(chunk)
        except BlockingIOError:
            pass
        except OSError as error:
            raise _broken(error) from None
        return chunks if self._tls is None else self._decrypt(self._tls, chunks)

    def _decrypt(self, tls: TlsLayer, chunks: list[bytes]) -> list[bytes]:
        try:
            plain = tls.decrypt(chunks)
        except ssl.SSLError as error:
            raise BrokenWireError(*_tls_trouble(error)) from None
        if tls.ended and not plain:
            raise _ended()
        self._send(tls.pending_output())
        return plain

    async def _until_readable(self, tasks: TaskGroup) -> None:
        await anyio.wait_readable(self._socket)
        tasks.cancel_scope.cancel()

    async def _until_flushed(self, tasks: TaskGroup) -> None:
        while self._backlog:
            await anyio.wait_writable(self._socket)
            self._flush()
        tasks.cancel_scope.cancel()

    def _send(self, data: bytes) -> None:
        if data:
            self._backlog.append(data)
            self.backlog += len(data)
            self._flush()

    def _flush(self) -> None:
        try:
            while self._backlog:
                data = self._backlog[0]
                sent = self._socket.send(data)
                self.backlog -= sent
                if sent < len(data):
                    self._backlog[0] = data[sent:]
                    break
                self._backlog.popleft()
        except BlockingIOError:
            pass
        except OSError:
            # The reading side tells of the broken connection; here there is nobody to tell.
            self._writable = False
            self._backlog.clear()
            self.backlog = 0
        if self._backlog and self._waiting is not None:
            self._waiting.cancel()


async def dial(
    endpoint: RelayEndpoint,
    *,
    bind: str | None = None,
    ca_file: str | None = None,
    timeout: float = 10.0,
) -> RelayWire:
    """Open the wire to a relay.

    `bind` is a local IP address to send from, `timeout` is in seconds. Raises `TransportError` at
    `turn_dial`.
    """
    kind = socket.SOCK_DGRAM if endpoint.transport is RelayTransport.UDP else socket.SOCK_STREAM
    layer = _tls_layer(endpoint, ca_file) if endpoint.transport is RelayTransport.TLS else None
    if (
        bind is not None
        and is_address(endpoint.host)
        and family_of(bind) != family_of(endpoint.host)
    ):
        raise TransportError(
            Stage.TURN_DIAL,
            "bind_family_mismatch",
            f"{endpoint.host} cannot be reached from {bind}: one is IPv4, the other IPv6",
            "bind to an address of the relay's family, or leave --bind-interface out",
        )
    family, address = await resolve(
        endpoint.host,
        endpoint.port,
        kind,
        stage=Stage.TURN_DIAL,
        code="turn_name_unresolved",
        family=socket.AF_UNSPEC if bind is None else family_of(bind),
    )
    opened = _open(endpoint, family, kind, bind)
    try:
        if kind == socket.SOCK_DGRAM:
            forbid_fragments(opened)
            opened.connect(address)
            return UdpWire(opened)
        with anyio.fail_after(timeout):
            await _connect(opened, address)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if layer is not None:
                await _handshake(opened, layer)
        return StreamWire(opened, layer)
    except TimeoutError:
        opened.close()
        raise TransportError(
            Stage.TURN_DIAL,
            "turn_dial_timeout",
            f"no connection to the relay {endpoint.address} within {timeout:.0f} s",
            "check the address, or try another --mode",
        ) from None
    except ssl.SSLError as error:
        opened.close()
        raise TransportError(Stage.TURN_DIAL, *_tls_trouble(error)) from None
    except OSError as error:
        opened.close()
        raise _unreachable(endpoint, error) from None
    except BaseException:
        opened.close()
        raise


def _tls_layer(endpoint: RelayEndpoint, ca_file: str | None) -> TlsLayer:
    try:
        return TlsLayer(tls_context(ca_file), endpoint.server_name or endpoint.host)
    except ValueError:
        raise TransportError(
            Stage.TURN_DIAL,
            "invalid_server_name",
            "the name that the relay's certificate should bear is no host name",
            "check the relay's name",
        ) from None


def _open(
    endpoint: RelayEndpoint,
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    bind: str | None,
) -> socket.socket:
    if bind is None:
        try:
            return open_socket(family, kind)
        except OSError as error:
            raise _unreachable(endpoint, error) from None
    try:
        return open_socket(family, kind, bind=literal_address(bind, 0))
    except OSError as error:
        raise TransportError(
            Stage.TURN_DIAL,
            "bind_failed",
            f"cannot send from {bind}: {reason(error)}",
            "--bind-interface takes an IP address of this machine",
        ) from None


async def _connect(opened: socket.socket, address: SocketAddress) -> None:
    try:
        opened.connect(address)
    except BlockingIOError:
        await anyio.wait_writable(opened)
        code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None


async def _handshake(opened: socket.socket, layer: TlsLayer) -> None:
    received = b""
    while True:
        complete = layer.handshake(received)
        output = layer.pending_output()
        while output:
            try:
                output = output[opened.send(output) :]
            except BlockingIOError:
                await anyio.wait_writable(opened)
        if complete:
            return
        while True:
            try:
                received = opened.recv(CHUNK)
                break
            except BlockingIOError:
                await anyio.wait_readable(opened)
        if not received:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def _unreachable(endpoint: RelayEndpoint, error: OSError) -> TransportError:
    return TransportError(
        Stage.TURN_DIAL,
        "turn_unreachable",
        f"cannot reach the relay {endpoint.address} over {endpoint.transport}: {reason(error)}",
        "check the address and that the relay runs, or try another --mode",
    )


def _tls_trouble(error: ssl.SSLError) -> tuple[str, str, str]:
    """Return code, message and advice."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            "turn_certificate_invalid",
            f"the relay's certificate is not trusted: {error.verify_message}",
            "give the authority with --ca-file, or check the relay's name",
        )
    return (
        "turn_tls_failed",
        f"TLS with the relay failed: {error.reason or 'protocol error'}",
        "check that this port speaks TLS",
    )


def _ended() -> BrokenWireError:
    return BrokenWireError(
        "turn_connection_closed",
        "the relay closed the connection",
        "it may have restarted or refused the client; see its log",
    )


def _broken(error: OSError) -> BrokenWireError:
    return BrokenWireError(
        "turn_socket_failed",
        f"the relay's socket broke: {reason(error)}",
        "check that the network is up and that the relay runs",
    )
