"""The contract of the local ends for streams: connections in at the client, out at the server."""

from typing import Protocol

import msgspec

from turnlane.api.errors import TurnlaneError


class StreamDestination(msgspec.Struct, frozen=True):
    """Where a local application wants a stream to go: a host name or address, and a port."""

    host: str
    """A name, or an address literal without brackets."""
    port: int
    """The port, from 1 to 65535."""


class ByteStream(Protocol):
    """One connection. Has the methods of `anyio.abc.ByteStream`, so that anyio's streams fit."""

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return the next bytes, at least one.

        Raises `anyio.EndOfStream` once the other side has ended its half,
        `anyio.BrokenResourceError` when the connection is lost, and `anyio.ClosedResourceError`
        once it is closed here.
        """
        ...

    async def send(self, item: bytes) -> None:
        """Send all of `item`; waits while the other side takes nothing.

        Raises `anyio.BrokenResourceError` and `anyio.ClosedResourceError` as `receive` does.
        """
        ...

    async def send_eof(self) -> None:
        """End this side's half; the other half stays open."""
        ...

    async def aclose(self) -> None:
        """Release the connection; a second call does nothing."""
        ...


class StreamOffer(Protocol):
    """A connection that a local application asks for, before it is known whether it can be had."""

    @property
    def destination(self) -> StreamDestination | None:
        """What the application asks for; None where it names nothing."""
        ...

    async def accept(self) -> ByteStream:
        """Tell the application that the other end is there; return its stream.

        Raises `AdapterError` at `forwarding_loop` when the application is gone.
        """
        ...

    async def refuse(self, error: TurnlaneError) -> None:
        """Tell the application, as far as its protocol can, and release the connection."""
        ...


class StreamListener(Protocol):
    """A local end that takes connections."""

    @property
    def local_address(self) -> tuple[str, int]:
        """Host and port on which it listens."""
        ...

    async def accept(self) -> StreamOffer:
        """Wait for a connection and learn what it asks for.

        One that asks for nothing sensible is answered and dropped within, and harms no other.
        Raises `AdapterError` when listening is over for good, and `anyio.ClosedResourceError` once
        it is closed.
        """
        ...

    async def aclose(self) -> None:
        """Stop listening; a second call does nothing. A waiting `accept` ends."""
        ...


class StreamIngress(Protocol):
    """A local end at the client for streams. Made as `Class(context, address, settings)`."""

    async def open(self) -> StreamListener:
        """Bind and return what the session accepts from, and closes.

        Raises `AdapterError` at `local_bind`.
        """
        ...


class StreamEgress(Protocol):
    """An upstream end at the server for streams. Made as `Class(context, address, settings)`."""

    async def prepare(self) -> None:
        """Check once, before the server is ready, that streams can be opened.

        Raises `AdapterError` at `upstream_dial`.
        """
        ...

    async def connect(self, destination: StreamDestination | None) -> ByteStream:
        """Open the upstream of one stream; raises `AdapterError` at `upstream_dial`.

        `destination` is what the client's application named, and None unless the descriptor says
        `dials_client_choice`.
        """
        ...
