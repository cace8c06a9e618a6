"""Adapters that are open, and what goes through them between the adapter and the kit's own peer."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from turnlane.api import (
    AdapterError,
    Batch,
    ByteStream,
    DatagramSocket,
    StreamDestination,
    StreamListener,
    StreamOffer,
)
from turnlane.testing.adapter_bench import AdapterCase, Bench, calling
from turnlane.testing.adapter_peers import Address, TcpPeer, TcpUpstream, UdpPeer
from turnlane.testing.findings import NotJudgedError, fail
from turnlane.testing.leftovers import SETTLING

ASKED = StreamDestination("upstream.example", 443)
"""What the kit's application asks an ingress for; nothing dials it."""

MARK = b"!"
"""The first byte of each stream inward."""

T = TypeVar("T")

Runner = Callable[[str, Coroutine[Any, Any, Any]], Awaitable[Any]]
"""Awaits one operation of the adapter, which it is given by name."""


async def run_through(operation: str, coroutine: Coroutine[Any, Any, T]) -> T:  # noqa: ARG001
    """Await an operation to its end (a `Runner`)."""
    return await coroutine


class DatagramEnd:
    """A datagram adapter; `run` awaits its operations.

    Where `late` is set, peers speak only once everybody else waits, so that waits are tried too.
    """

    def __init__(self, made: Bench, run: Runner = run_through, *, late: bool = False) -> None:
        self.made = made
        self.run = run
        self.late = late
        self.wires: list[Wire] = []
        self.sockets: list[DatagramSocket] = []
        self.upstream = UdpPeer()
        self.adapter: Any = None

    @property
    def shown(self) -> list[object]:
        """What the adapter has given."""
        return [self.adapter, *self.sockets]

    async def open(self) -> None:
        """Open an ingress, or prepare an egress."""
        made = self.made
        if made.ingress:
            self.adapter = made.make(made.address())
            self.sockets.append(await self.run("open", self.adapter.open()))
        else:
            self.adapter = made.make(made.address(self.upstream.address[1]))
            await self.run("prepare", self.adapter.prepare())

    async def flow(self) -> "Wire":
        """Have a new flow whose first datagram was carried; raises `CheckFailedError`."""
        number = len(self.wires) + 1
        hello = b"the first of flow %d" % number
        if self.made.ingress:
            socket = self.sockets[0]
            address = reachable(socket.local_address)
            wire = Wire(self, socket, UdpPeer(address[0]), address)
            self.wires.append(wire)
            found = {}
            while hello not in found:
                found = dict(await wire.inward(hello))
            wire.flow = found[hello]
            return wire
        with calling("connect"):
            socket = await self.run("connect", self.adapter.connect(number))
        self.sockets.append(socket)
        wire = Wire(self, socket, self.upstream, socket.local_address, number)
        self.wires.append(wire)
        await wire.outward(hello)
        return wire

    def close(self) -> None:
        """Release the adapter's sockets and the kit's own."""
        for peer in {self.upstream, *(wire.peer for wire in self.wires)}:
            peer.close()
        for socket in self.sockets:
            with suppress(Exception):  # told by the check of closing
                socket.close()


@dataclass
class Wire:
    """One flow of datagrams: `peer` reaches the adapter's `socket` at `address`."""

    end: DatagramEnd
    socket: DatagramSocket
    peer: UdpPeer
    address: Address
    flow: int = 0

    async def inward(self, *packets: bytes) -> list[tuple[bytes, int]]:
        """Let the peer send; return what the adapter receives, each with its flow."""
        got: list[tuple[bytes, int]] = []
        with self.end.made.within(f"of {len(packets)} datagrams of the peer not all are received"):
            async with beside(self._say, packets):
                while len(got) < len(packets):
                    got += await self.receive(Batch())
        return got

    async def receive(self, batch: Batch) -> list[tuple[bytes, int]]:
        """Receive once; return what is in the batch."""
        with calling("receive"):
            await self.end.run("receive", self.socket.receive(batch))
        return [(bytes(data), batch.flows[at]) for at, data in enumerate(batch)]

    def send(self, *packets: bytes) -> object:
        """Let the adapter send all packets as one batch; return what it says."""
        batch = Batch()
        for packet in packets:
            batch.append(packet, self.flow)
        with calling("send"):
            return self.socket.send(batch)

    async def outward(self, *packets: bytes) -> list[bytes]:
        """Let the adapter send; return what the peer gets."""
        self.send(*packets)
        return await self.heard(len(packets))

    async def heard(self, count: int) -> list[bytes]:
        """Return the next datagrams that the peer gets."""
        got: list[bytes] = []
        with self.end.made.within(f"of {count} datagrams that are sent not all arrive"):
            while len(got) < count:
                data, self.address = await self.peer.receive()
                got.append(data)
        return got

    async def _say(self, packets: tuple[bytes, ...]) -> None:
        if self.end.late:
            await others_wait()
        for packet in packets:
            self.peer.send(packet, self.address)


@dataclass(frozen=True)
class Line:
    """One stream: `near` is the adapter's end of it, `far` the kit's."""

    near: ByteStream
    far: TcpPeer


class StreamEnd:
    """A stream adapter; `run` and `late` are as for datagrams."""

    def __init__(self, made: Bench, run: Runner = run_through, *, late: bool = False) -> None:
        self.made = made
        self.run = run
        self.late = late
        self.upstream = TcpUpstream()
        self.adapter: Any = None
        self._listener: StreamListener | None = None
        self._fars: list[TcpPeer] = []
        self._nears: list[ByteStream] = []
        self._talked: Exception | None = None

    @property
    def shown(self) -> list[object]:
        """What the adapter has given."""
        return [self.adapter, self._listener, *self._nears]

    @property
    def listener(self) -> StreamListener:
        """What an ingress has opened."""
        assert self._listener is not None
        return self._listener

    async def open(self) -> None:
        """Open an ingress, or prepare an egress."""
        made = self.made
        if made.ingress:
            self.adapter = made.make(made.address())
            self._listener = await self.run("open", self.adapter.open())
        else:
            self.adapter = made.make(made.address(self.upstream.address[1]))
            async with beside(self._take, []):
                await self.run("prepare", self.adapter.prepare())
            self.upstream.drop_waiting()

    async def dial(self) -> TcpPeer:
        """Let an application connect to an ingress, and say nothing yet."""
        far = await TcpPeer.connect(reachable(self.listener.local_address))
        self._fars.append(far)
        return far

    async def offer(self, far: TcpPeer) -> StreamOffer:
        """Take what the application at `far` asks for, as far as it asks before it is answered."""
        with self.made.within("no offer is made of an application that asks"):
            async with beside(self._talk, far):
                with calling("accept"):
                    offer: StreamOffer = await self.listener.accept()
        return offer

    async def line(self) -> Line:
        """Have a new stream that carried one byte inward; raises `CheckFailedError`."""
        self._talked = None
        with self.made.within("a stream does not come to be, or its first byte not through"):
            line = await (self._let_in() if self.made.ingress else self._go_out())
        if self._talked is not None:
            fail(f"the talk of the case ended with {type(self._talked).__name__}")
        return line

    async def _let_in(self) -> Line:
        far = await self.dial()
        async with beside(self._speak, far):
            while True:
                with calling("accept"):
                    offer: StreamOffer = await self.run("accept", self.listener.accept())
                with suppress(AdapterError):  # an earlier application, which is gone by now
                    near = await self._accepted(offer)
                    if await self._marked(near):
                        return Line(near, far)

    async def _accepted(self, offer: StreamOffer) -> ByteStream:
        near: ByteStream = await self.run("accept of the offer", offer.accept())
        self._nears.append(near)
        return near

    async def _go_out(self) -> Line:
        taken: list[TcpPeer] = []
        self.upstream.drop_waiting()
        async with beside(self._take, taken):
            with calling("connect"):
                near = await self.run("connect", self.adapter.connect(self.destination))
            self._nears.append(near)
            if not await self._marked(near):
                fail("a stream ends before its first byte came through")
        return Line(near, taken[0])

    async def _marked(self, near: ByteStream) -> bool:
        """Whether the first byte comes through."""
        with calling("receive"), suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            return bytes(await self.run("receive", near.receive(1))) == MARK
        return False

    def hang_up(self) -> None:
        """Let all applications and upstreams there were be gone."""
        for far in self._fars:
            far.close()

    @property
    def destination(self) -> StreamDestination | None:
        """Where an egress is told to go, if it is told."""
        return self.made.destination(self.upstream.address[1])

    async def close(self) -> None:
        """Release the adapter's streams and listener, and the kit's own."""
        self.hang_up()
        self.upstream.close()
        opened: list[Any] = [*self._nears, self._listener]
        for each in opened:
            with suppress(Exception):  # told by the check of closing; None where none was opened
                await each.aclose()

    async def _take(self, taken: list[TcpPeer]) -> None:
        """Let the upstream take what comes, and speak."""
        while True:
            far = await self.upstream.accept()
            self._fars.append(far)
            taken.append(far)
            await self._speak(far)

    async def _speak(self, far: TcpPeer) -> None:
        """Talk, then send the first byte."""
        if self.late:
            await others_wait()
        await self._talk(far)
        if self.late:
            await others_wait()
        with suppress(anyio.BrokenResourceError):  # such as one that only prepared
            await far.send(MARK)

    async def _talk(self, far: TcpPeer) -> None:
        if self.made.case.talk is not None:
            destination = ASKED if self.made.ingress else StreamDestination(*self.upstream.address)
            try:
                await self.made.case.talk(far, destination)
            except Exception as error:  # such as an answer that the talk does not take
                self._talked = error


End = DatagramEnd | StreamEnd


def end_of(made: Bench, run: Runner = run_through, *, late: bool = False) -> End:
    """Return the end of an adapter, not open yet; `made` was loaded."""
    return (StreamEnd if made.stream else DatagramEnd)(made, run, late=late)


@asynccontextmanager
async def closing_end(end: End) -> AsyncIterator[None]:
    """Release the end with the block."""
    try:
        yield
    finally:
        if isinstance(end, StreamEnd):
            await end.close()
        else:
            end.close()


@asynccontextmanager
async def opened(case: AdapterCase) -> AsyncIterator[End]:
    """Have an adapter open; raises `NotJudgedError` where it does not open."""
    made = Bench(case)
    made.load()
    end = end_of(made)
    async with closing_end(end):
        try:
            await end.open()
        except (Exception, SystemExit):
            raise NotJudgedError("it does not open, see opens_the_good_address") from None
        yield end


@asynccontextmanager
async def opened_datagrams(case: AdapterCase) -> AsyncIterator[DatagramEnd]:
    """Have a datagram adapter open; raises `NotJudgedError` where it is none."""
    async with opened(case) as end:
        if not isinstance(end, DatagramEnd):
            raise NotJudgedError("the adapter carries streams")
        yield end


@asynccontextmanager
async def opened_streams(case: AdapterCase) -> AsyncIterator[StreamEnd]:
    """Have a stream adapter open; raises `NotJudgedError` where it is none."""
    async with opened(case) as end:
        if not isinstance(end, StreamEnd):
            raise NotJudgedError("the adapter carries datagrams")
        yield end


async def exchange(end: End) -> None:
    """Carry something; raises `CheckFailedError`."""
    if isinstance(end, StreamEnd):
        await end.line()
    else:
        await (await end.flow()).inward(b"more of it")


@asynccontextmanager
async def beside(
    function: Callable[..., Coroutine[Any, Any, None]], *arguments: object
) -> AsyncIterator[None]:
    """Run something beside the block and end it with the block, whose errors stay as they are."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function, *arguments)
        try:
            yield
        except Exception as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def together(*calls: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run all to their ends; what the first one raises comes out as it is, and ends the others."""
    failures: list[Exception] = []

    async def run(call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await call()
        except Exception as error:
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(run, call)
    if failures:
        raise failures[0]


async def others_wait() -> None:
    """Let all other tasks go on until they wait for something outside."""
    for _ in range(SETTLING):
        await anyio.lowlevel.checkpoint()


def reachable(address: Address) -> Address:
    """Return where a local address is reached from this machine."""
    host, port = address
    if not ip_address(host).is_unspecified:
        return host, port
    return "::1" if ":" in host else "127.0.0.1", port
