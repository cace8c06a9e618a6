"""What the provider and the process of its browser say to each other: one JSON text a line.

The provider sends `Open`, then `Finish`; it cancels by closing the pipe. The process answers with
`Ready` or `NotStarted`, then `Observed` for each answer, and at last `Finished` or `Closed`.
"""

import base64
from typing import Literal, TypeVar

import anyio
import msgspec
from anyio.abc import ByteReceiveStream
from anyio.streams.buffered import BufferedByteReceiveStream

from turnlane.api import Secret
from turnlane_vk.browser import MAX_OBSERVED_BODY, ObservedAnswer, Watch
from turnlane_vk.browser_choice import Choice

T = TypeVar("T")

MAX_LINE = MAX_OBSERVED_BODY * 4 // 3 + 64 * 1024
"""Bytes: a body in base64, and what is around it."""


NotStartedReason = Literal["display", "sandbox", "other"]
"""Why: there is no display, Chromium's sandbox cannot be set up here, or something else."""


class WireError(Exception):
    """The other side has gone, or sent what is none of these messages."""


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Start a browser and open a page."""

    choice: Choice
    watch: Watch


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """The operator has confirmed: report what is still coming in, then end."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The browser is there, and watched."""


class NotStarted(msgspec.Struct, frozen=True, tag="not_started"):
    """The browser could not be started."""

    reason: NotStartedReason


class Observed(msgspec.Struct, frozen=True, tag="observed"):
    """An answer of a known stage has come."""

    answer: ObservedAnswer


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """Everything was reported after `Finish`."""


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """The operator closed the browser, or it crashed."""


Command = Open | Finish
Event = Ready | NotStarted | Observed | Finished | Closed


def encode(message: Command | Event) -> bytes:
    """Return the line of `message`, secrets in clear."""
    return msgspec.json.encode(message, enc_hook=_reveal) + b"\n"


class Lines:
    """Reads messages from a stream."""

    def __init__(self, stream: ByteReceiveStream) -> None:
        self._stream = BufferedByteReceiveStream(stream)

    async def command(self) -> Command:
        """Return the next command; raises `WireError`."""
        return _decoded_untrusted(_COMMANDS, await self._line())

    async def event(self) -> Event:
        """Return the next event; raises `WireError`."""
        return _decoded_untrusted(_EVENTS, await self._line())

    async def _line(self) -> bytes:
        try:
            return await self._stream.receive_until(b"\n", MAX_LINE)
        except (anyio.BrokenResourceError, anyio.DelimiterNotFound, anyio.IncompleteRead):
            raise WireError("the other side has ended, or sends no lines") from None


def _decoded_untrusted(decoder: msgspec.json.Decoder[T], line: bytes) -> T:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise WireError("the other side sent what is no message") from None


def _reveal(value: object) -> str | bytes:
    if isinstance(value, Secret):
        revealed: str | bytes = value.reveal()
        return revealed
    raise NotImplementedError


def _hide(wanted: object, value: str) -> Secret[str] | Secret[bytes]:
    # msgspec makes a ValidationError of what is raised here.
    if not isinstance(value, str):
        raise TypeError("a secret travels as text")
    if wanted == Secret[bytes]:
        return Secret(base64.b64decode(value, validate=True))
    return Secret(value)


_COMMANDS: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command, dec_hook=_hide)
_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event, dec_hook=_hide)
