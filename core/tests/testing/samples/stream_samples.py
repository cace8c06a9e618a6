"""Stream adapters that pass the conformance kit, and others each with one fault."""

import threading
from collections import deque
from collections.abc import Callable
from select import select
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
from adapter_samples import KEPT, Egress, Ingress

from turnlane.api import (
    AdapterError,
    ByteStream,
    Stage,
    StreamDestination,
    StreamListener,
    StreamOffer,
    TrafficClass,
    TurnlaneError,
)


class Stream:
    """A stream around the context's, every step of which can be replaced."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        data: bytes = await self.inner.receive(max_bytes)
        return data

    async def send(self, item: bytes) -> None:
        await self.inner.send(item)

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Offer:
    """An offer without a destination."""

    destination: StreamDestination | None = None

    def __init__(self, inner: Any, stream: Callable[[Any], Any]) -> None:
        self.inner = inner
        self.stream = stream

    async def accept(self) -> ByteStream:
        accepted: ByteStream = self.stream(await self.inner.accept())
        return accepted

    async def refuse(self, error: TurnlaneError) -> None:
        await self.inner.refuse(error)


class Listener:
    """A listener around the context's."""

    offer: ClassVar[Callable[..., Any]] = Offer

    def __init__(self, inner: Any, stream: Callable[[Any], Any]) -> None:
        self.inner = inner
        self.stream = stream
        self.local_address = inner.local_address

    async def accept(self) -> StreamOffer:
        offer: StreamOffer = type(self).offer(await self.inner.accept(), self.stream)
        return offer

    async def aclose(self) -> None:
        await self.inner.aclose()


class StreamIngress(Ingress):
    """Sound: TCP that names no destination."""

    traffic = TrafficClass.STREAM
    listener: ClassVar[Callable[..., Any]] = Listener
    stream: ClassVar[Callable[[Any], Any]] = Stream

    async def open(self) -> StreamListener:
        inner = await self.context.listen_tcp(*self.parsed())
        listener: StreamListener = type(self).listener(inner, type(self).stream)
        return listener


class StreamEgress(Egress):
    """Sound: forwards to a fixed address, which is tried once beforehand."""

    traffic = TrafficClass.STREAM
    stream: ClassVar[Callable[[Any], Any]] = Stream

    async def prepare(self) -> None:
        await (await self.context.connect_tcp(*self.parsed())).aclose()

    async def connect(self, destination: StreamDestination | None) -> ByteStream:
        assert destination is None
        connected = await self.context.connect_tcp(*self.parsed())
        stream: ByteStream = type(self).stream(connected)
        return stream


class ChoosingEgress(StreamEgress):
    """Sound: dials what the client names."""

    dials_client_choice = True

    async def prepare(self) -> None:
        self.parsed()

    async def connect(self, destination: StreamDestination | None) -> ByteStream:
        assert destination is not None
        return Stream(await self.context.connect_tcp(destination.host, destination.port))


class GreetingEgress(StreamEgress):
    """Sound: says hello to its upstream and waits for an answer."""

    async def connect(self, destination: StreamDestination | None) -> ByteStream:
        stream = await super().connect(destination)
        try:
            await stream.send(b"hello\n")
            if await stream.receive(3) != b"ok\n":
                raise AdapterError(self.stage, "no_greeting", "no ok came back", "look there")
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            raise
        return stream


async def welcome(stream: ByteStream, destination: StreamDestination) -> None:
    """Answer the greeting."""
    assert await stream.receive(6) == b"hello\n"
    await stream.send(b"ok\n")


class Asking:
    """An application that has not asked for all of its line yet, or has: then it is an offer."""

    destination: StreamDestination

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.line = b""

    async def hear(self) -> None:
        while not self.line.endswith(b"\n"):
            if len(self.line) > 100:
                raise ValueError
            self.line += await self.stream.receive(1)
        host, port = self.line.split()
        self.destination = StreamDestination(host.decode(), int(port))

    async def accept(self) -> ByteStream:
        try:
            await self.stream.send(b"ok\n")
        except anyio.BrokenResourceError:
            raise AdapterError(
                Stage.FORWARDING_LOOP, "application_gone", "the application is gone", "none needed"
            ) from None
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.stream.aclose()
            raise
        accepted: ByteStream = self.stream
        return accepted

    async def refuse(self, error: TurnlaneError) -> None:
        await self.stream.send(b"no\n")
        await self.stream.aclose()


class AskingListener(Listener):
    """Hears several applications at once: one that says nothing keeps no other out."""

    def __init__(self, inner: Any, stream: Callable[[Any], Any]) -> None:
        super().__init__(inner, stream)
        self.asking: list[Any] = []

    async def accept(self) -> StreamOffer:
        heard: list[Any] = []
        failed: list[Exception] = []

        async def hear(one: Any) -> None:
            try:
                await one.hear()
            except (ValueError, anyio.EndOfStream, anyio.BrokenResourceError):
                self.asking.remove(one)
                await one.stream.aclose()
            else:
                if not heard:
                    heard.append(one)
                    tasks.cancel_scope.cancel()

        async def take() -> None:
            try:
                while True:
                    one = Asking(self.stream(await (await self.inner.accept()).accept()))
                    self.asking.append(one)
                    tasks.start_soon(hear, one)
            except Exception as error:
                failed.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for each in self.asking:
                tasks.start_soon(hear, each)
            tasks.start_soon(take)
        if failed:
            raise failed[0]
        offer: StreamOffer = heard[0]
        self.asking.remove(offer)
        return offer

    async def aclose(self) -> None:
        await self.inner.aclose()
        for each in self.asking:
            await each.stream.aclose()


class AskingIngress(StreamIngress):
    """Sound: applications name their destination in a first line."""

    listener = AskingListener


async def ask(stream: ByteStream, destination: StreamDestination) -> None:
    """Ask for a destination."""
    await stream.send(f"{destination.host} {destination.port}\n".encode())
    assert await stream.receive(3) == b"ok\n"


# What is wrong with bytes.


class IgnoresLimitStream(Stream):
    async def receive(self, max_bytes: int = 65_536) -> bytes:
        return await super().receive(65_536 if max_bytes > 1 else 1)


class IgnoresLimit(StreamIngress):
    stream = IgnoresLimitStream


class LosesRestStream(Stream):
    async def receive(self, max_bytes: int = 65_536) -> bytes:
        return (await super().receive(65_536 if max_bytes > 1 else 1))[:max_bytes]


class LosesRest(StreamEgress):
    stream = LosesRestStream


class SwapsStream(Stream):
    async def send(self, item: bytes) -> None:
        middle = len(item) // 2 if len(item) > 1000 else 0
        await super().send(item[middle:] + item[:middle])


class Swaps(StreamEgress):
    stream = SwapsStream


class GarblesStream(Stream):
    async def receive(self, max_bytes: int = 65_536) -> bytes:
        data = await super().receive(max_bytes)
        return data[::-1] if len(data) > 100 else data


class Garbles(StreamIngress):
    stream = GarblesStream


# What is wrong with halves.


class EofIsNothingStream(Stream):
    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()


class EofIsNothing(StreamIngress):
    stream = EofIsNothingStream


class EofClosesStream(Stream):
    async def send_eof(self) -> None:
        await self.inner.aclose()


class EofCloses(StreamEgress):
    stream = EofClosesStream


class EndIsBrokenStream(Stream):
    async def receive(self, max_bytes: int = 65_536) -> bytes:
        try:
            return await super().receive(max_bytes)
        except anyio.EndOfStream:
            raise anyio.BrokenResourceError from None


class EndIsBroken(StreamIngress):
    stream = EndIsBrokenStream


class EndEndsAllStream(Stream):
    async def receive(self, max_bytes: int = 65_536) -> bytes:
        try:
            return await super().receive(max_bytes)
        except anyio.EndOfStream:
            await self.inner.aclose()
            raise


class EndEndsAll(StreamEgress):
    stream = EndEndsAllStream


# What is wrong with bounds.


class KeepsAllStream(Stream):
    """Keeps pieces of the size in which the kit sends to who does not read."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.kept: list[bytes] = []

    async def send(self, item: bytes) -> None:
        if len(item) == 256 * 1024:
            await anyio.lowlevel.checkpoint()
            self.kept.append(item)
        else:
            await super().send(item)


class KeepsAll(StreamIngress):
    stream = KeepsAllStream


class ReadsAheadStream(Stream):
    """Reads on in a thread once it has received something."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.ahead: deque[bytes] = deque()
        self.over = False
        self.thread: threading.Thread | None = None

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if self.thread is None:
            data = await super().receive(max_bytes)
            self.thread = threading.Thread(target=self.read)
            self.thread.start()
            return data
        while not self.ahead:
            if self.over:
                raise anyio.ClosedResourceError
            await anyio.sleep(0.001)
        if not self.ahead[0]:
            raise anyio.EndOfStream
        data = self.ahead.popleft()
        if len(data) > max_bytes:
            self.ahead.appendleft(data[max_bytes:])
        return data[:max_bytes]

    def read(self) -> None:
        opened = self.inner._socket
        while not self.over:
            if select([opened], [], [], 0.01)[0]:
                try:
                    self.ahead.append(opened.recv(65_536))
                except OSError:
                    self.ahead.append(b"")
                if not self.ahead[-1]:
                    return

    async def aclose(self) -> None:
        self.over = True
        if self.thread is not None:
            self.thread.join()
        await super().aclose()


class ReadsAhead(StreamEgress):
    stream = ReadsAheadStream


# What is wrong with several streams.


class SharesFate(StreamEgress):
    """Closing a stream closes all."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.streams: list[Any] = []

    async def connect(self, destination: StreamDestination | None) -> ByteStream:
        adapter = self

        class Fated(Stream):
            async def aclose(self) -> None:
                for each in adapter.streams:
                    await each.inner.aclose()

        stream = Fated(await self.context.connect_tcp(*self.parsed()))
        self.streams.append(stream)
        return stream


class ClosesLateStream(Stream):
    """Is not released before its listener."""

    closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        self.check()
        return await super().receive(max_bytes)

    async def send(self, item: bytes) -> None:
        self.check()
        await super().send(item)

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            anyio.notify_closing(self.inner._socket)
        await anyio.lowlevel.checkpoint()

    def check(self) -> None:
        if self.closed:
            raise anyio.ClosedResourceError


class ClosesLateListener(Listener):
    def __init__(self, inner: Any, stream: Callable[[Any], Any]) -> None:
        super().__init__(inner, self.made)
        self.streams: list[Any] = []

    def made(self, inner: Any) -> Any:
        self.streams.append(ClosesLateStream(inner))
        return self.streams[-1]

    async def aclose(self) -> None:
        await super().aclose()
        for each in self.streams:
            await each.inner.aclose()


class ClosesLate(StreamIngress):
    listener = ClosesLateListener


# What is wrong with offers.


class KeepsRefusedOffer(Offer):
    async def refuse(self, error: TurnlaneError) -> None:
        KEPT.append((await self.inner.accept())._socket)


class KeepsRefusedListener(Listener):
    offer = KeepsRefusedOffer


class KeepsRefused(StreamIngress):
    listener = KeepsRefusedListener


class TellsNonsenseOffer(Offer):
    destination: Any = ("upstream.example", 443)


class TellsNonsenseListener(Listener):
    offer = TellsNonsenseOffer


class TellsNonsense(StreamIngress):
    listener = TellsNonsenseListener


class MishearsListener(AskingListener):
    async def accept(self) -> StreamOffer:
        offer: Any = await super().accept()
        offer.destination = StreamDestination(offer.destination.host, 80)
        accepted: StreamOffer = offer
        return accepted


class Mishears(AskingIngress):
    listener = MishearsListener


class OneAtATimeListener(Listener):
    """Hears out one application before the next."""

    async def accept(self) -> StreamOffer:
        while True:
            one = Asking(self.stream(await (await self.inner.accept()).accept()))
            try:
                await one.hear()
            except (ValueError, anyio.EndOfStream, anyio.BrokenResourceError):
                await one.stream.aclose()
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await one.stream.aclose()
                raise
            else:
                return one


class OneAtATime(AskingIngress):
    listener = OneAtATimeListener


# What is wrong with closing.


class SendsWhenClosedStream(Stream):
    async def send(self, item: bytes) -> None:
        try:
            await super().send(item)
        except anyio.ClosedResourceError:
            return


class SendsWhenClosed(StreamIngress):
    stream = SendsWhenClosedStream


class AcceptsForEverListener(Listener):
    async def accept(self) -> StreamOffer:
        try:
            return await super().accept()
        except anyio.ClosedResourceError:
            await anyio.sleep_forever()
            raise


class AcceptsForEver(StreamIngress):
    listener = AcceptsForEverListener


class ClosesOnceStream(Stream):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        await super().aclose()


class ClosesStreamOnce(StreamEgress):
    stream = ClosesOnceStream


# What is wrong when it is cancelled.


class ForgetsConnection(StreamEgress):
    async def connect(self, destination: StreamDestination | None) -> ByteStream:
        stream: Any = await super().connect(destination)
        KEPT.append(stream.inner._socket)
        await anyio.lowlevel.checkpoint()
        accepted: ByteStream = stream
        return accepted


class LosesOfferListener(Listener):
    async def accept(self) -> StreamOffer:
        offer: Any = await self.inner.accept()
        KEPT.append(offer._stream._socket)
        await anyio.lowlevel.checkpoint()
        return Offer(offer, self.stream)


class LosesOffer(StreamIngress):
    listener = LosesOfferListener


# What is wrong with errors.


class CrashesOnUnheard(StreamEgress):
    async def connect(self, destination: StreamDestination | None) -> ByteStream:
        try:
            return await super().connect(destination)
        except AdapterError:
            raise ConnectionRefusedError from None


class TellsUnheardElsewhere(StreamEgress):
    async def connect(self, destination: StreamDestination | None) -> ByteStream:
        try:
            return await super().connect(destination)
        except AdapterError as error:
            raise AdapterError(Stage.ACCEPT, error.code, error.message, error.advice) from None
