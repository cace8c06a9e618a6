"""Datagram adapters that pass the conformance kit, and others each with one fault.

Each faulty class differs from a sound one in that fault alone.
"""

import contextlib
import logging
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, ClassVar, cast

import anyio
import anyio.lowlevel
from adapter_samples import (
    BAD_ADDRESSES,
    KEPT,
    PATIENCE,
    SECRET,
    Egress,
    Ingress,
    LaxSettings,
    ShowySettings,
    SilentSettings,
)

from turnlane.api import AdapterError, Batch, DatagramSocket, PolicyError, Stage, TrafficClass


class Socket:
    """A datagram socket around the context's, every step of which can be replaced."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.local_address = inner.local_address

    async def receive(self, batch: Batch) -> None:
        await self.inner.receive(batch)

    def send(self, batch: Batch) -> Any:
        return self.inner.send(batch)

    def close(self) -> None:
        self.inner.close()


class DatagramIngress(Ingress):
    """Sound."""

    traffic = TrafficClass.DATAGRAM
    socket: ClassVar[Callable[[Any], Any]] = Socket

    async def open(self) -> DatagramSocket:
        bound = await self.context.bind_udp(*self.parsed())
        opened: DatagramSocket = type(self).socket(bound)
        return opened


class DatagramEgress(Egress):
    """Sound."""

    traffic = TrafficClass.DATAGRAM
    socket: ClassVar[Callable[[Any], Any]] = Socket

    async def prepare(self) -> None:
        (await self.context.connect_udp(*self.parsed(), 0)).close()

    async def connect(self, flow: int) -> DatagramSocket:
        connected = await self.context.connect_udp(*self.parsed(), flow)
        opened: DatagramSocket = type(self).socket(connected)
        return opened


class WithoutSettings(DatagramIngress):
    """Sound."""

    settings_schema = None


# What is wrong with the class.


class NeedsMore(DatagramIngress):
    def __init__(self, context: Any, address: str, settings: Any, more: Any) -> None:
        super().__init__(context, address, settings)


class NotAsync(DatagramIngress):
    def open(self) -> Any:  # type: ignore[override]
        return super().open()


class TakesNoFlow(DatagramEgress):
    async def connect(self) -> Any:  # type: ignore[override]
        return await super().connect(0)


class SilentAboutSettings(DatagramIngress):
    settings_schema = SilentSettings


# What is wrong with opening.


class OpensWhenMade(DatagramIngress):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.early = socket.socket()
        KEPT.append(self.early)

    async def open(self) -> DatagramSocket:
        self.early.close()
        return await super().open()


class PrepareKeepsOpen(DatagramEgress):
    async def prepare(self) -> None:
        kept: Any = await self.context.connect_udp(*self.parsed(), 0)
        KEPT.append(kept._socket)


class Crashing(DatagramIngress):
    async def open(self) -> DatagramSocket:
        self.parsed()
        raise RuntimeError(SECRET)


class NowhereSocket(Socket):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.local_address = list(inner.local_address)


class Nowhere(DatagramIngress):
    socket = NowhereSocket


# What is wrong with carrying.


def rewritten(batch: Batch, change: Callable[[bytes], list[bytes]]) -> Batch:
    made = Batch()
    for index, packet in enumerate(batch):
        for each in change(bytes(packet)):
            made.append(each, batch.flows[index])
    return made


class Changing(Socket):
    """Sends something else."""

    def change(self, packet: bytes) -> list[bytes]:
        raise NotImplementedError

    def send(self, batch: Batch) -> Any:
        self.inner.send(rewritten(batch, self.change))
        return len(batch)


class DropsEmptySocket(Changing):
    def change(self, packet: bytes) -> list[bytes]:
        return [packet] if packet else []


class DropsEmpty(DatagramIngress):
    socket = DropsEmptySocket


class CutsSocket(Changing):
    def change(self, packet: bytes) -> list[bytes]:
        return [packet[:1000]]


class CutsLong(DatagramEgress):
    socket = CutsSocket


class DoublesSocket(Changing):
    def change(self, packet: bytes) -> list[bytes]:
        return [packet, packet]


class Doubles(DatagramIngress):
    socket = DoublesSocket


class ChangesInwardSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        await self.inner.receive(batch)
        for index in range(len(batch)):
            if batch.sizes[index] == 1200:
                batch.packet(index)[700] ^= 1


class ChangesInward(DatagramEgress):
    socket = ChangesInwardSocket


# What is wrong with flows.


class OneFlowSocket(Socket):
    last = 0

    async def receive(self, batch: Batch) -> None:
        await self.inner.receive(batch)
        for index in range(len(batch)):
            self.last, batch.flows[index] = batch.flows[index], 1

    def send(self, batch: Batch) -> Any:
        for index in range(len(batch)):
            batch.flows[index] = self.last
        return self.inner.send(batch)


class OneFlow(DatagramIngress):
    socket = OneFlowSocket


class FreshFlowsSocket(Socket):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.real: dict[int, int] = {}

    async def receive(self, batch: Batch) -> None:
        await self.inner.receive(batch)
        for index in range(len(batch)):
            fresh = len(self.real) + 1
            self.real[fresh], batch.flows[index] = batch.flows[index], fresh

    def send(self, batch: Batch) -> Any:
        for index in range(len(batch)):
            batch.flows[index] = self.real.get(batch.flows[index], 0)
        return self.inner.send(batch)


class FreshFlows(DatagramIngress):
    socket = FreshFlowsSocket


class WrongFlowSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        await self.inner.receive(batch)
        for index in range(len(batch)):
            batch.flows[index] = 0


class WrongFlow(DatagramEgress):
    socket = WrongFlowSocket


class SharedSocket(DatagramEgress):
    shared: Any = None

    async def connect(self, flow: int) -> DatagramSocket:
        if self.shared is None:
            self.shared = await super().connect(flow)
        return self.shared


class CrossesSocket(Socket):
    """Swaps the flows of a batch that has those of two peers."""

    def send(self, batch: Batch) -> Any:
        if len(batch) == 2 and batch.flows[0] != batch.flows[1]:
            batch.flows[0], batch.flows[1] = batch.flows[1], batch.flows[0]
        return self.inner.send(batch)


class Crosses(DatagramIngress):
    socket = CrossesSocket


# What is wrong with batches.


class KeepsOldSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        own = Batch(capacity=1)
        await self.inner.receive(own)
        batch.append(own.packet(0), own.flows[0])


class KeepsOld(DatagramIngress):
    socket = KeepsOldSocket


class DropsTheRestSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        own = Batch()
        await self.inner.receive(own)
        batch.clear()
        for index, packet in enumerate(own):
            batch.append(packet, own.flows[index])


class DropsTheRest(DatagramIngress):
    socket = DropsTheRestSocket


class NoHeadroomSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        await self.inner.receive(batch)
        size = batch.sizes[0]
        batch.buffer[:size] = bytes(batch.packet(0))
        batch.starts[0] = 0


class NoHeadroom(DatagramEgress):
    socket = NoHeadroomSocket


class EmptyBatchSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        if batch.capacity == 2:
            batch.clear()
            await anyio.lowlevel.checkpoint()
        else:
            await self.inner.receive(batch)


class EmptyBatch(DatagramIngress):
    socket = EmptyBatchSocket


# What is wrong with sending.


class RaisesOnStrangerSocket(Socket):
    def send(self, batch: Batch) -> Any:
        if batch.flows[0] == 0xABCDEF:
            raise KeyError(batch.flows[0])
        return self.inner.send(batch)


class RaisesOnStranger(DatagramIngress):
    socket = RaisesOnStrangerSocket


class WaitsSocket(Socket):
    def send(self, batch: Batch) -> Any:
        if batch.flows[0] == 0xABCDEF:
            time.sleep(PATIENCE * 1.1)
        return self.inner.send(batch)


class Waits(DatagramIngress):
    socket = WaitsSocket


class RaisesOnGoneSocket(Socket):
    def send(self, batch: Batch) -> Any:
        taken = self.inner.send(batch)
        if self.inner.refused:
            raise ConnectionRefusedError
        return taken


class RaisesOnGone(DatagramEgress):
    socket = RaisesOnGoneSocket


class DiesOfGoneSocket(Socket):
    gone = False

    def send(self, batch: Batch) -> Any:
        taken = self.inner.send(batch)
        self.gone = self.gone or self.inner.refused > 0
        return taken

    async def receive(self, batch: Batch) -> None:
        if self.gone:
            raise AdapterError(Stage.FORWARDING_LOOP, "gone", "the peer is gone", "bring it back")
        await self.inner.receive(batch)


class DiesOfGone(DatagramEgress):
    socket = DiesOfGoneSocket


class RaisesWhenClosedSocket(Socket):
    closed = False

    def send(self, batch: Batch) -> Any:
        if self.closed:
            raise anyio.ClosedResourceError
        return self.inner.send(batch)

    def close(self) -> None:
        self.closed = True
        self.inner.close()


class RaisesWhenClosed(DatagramIngress):
    socket = RaisesWhenClosedSocket


class SaysNothingSocket(Socket):
    def send(self, batch: Batch) -> Any:
        self.inner.send(batch)


class SaysNothing(DatagramIngress):
    socket = SaysNothingSocket


# What is wrong with refusing.


class TakesAnything(DatagramIngress):
    def parsed(self) -> tuple[str, int]:
        return ("127.0.0.1", 0) if self.address in BAD_ADDRESSES else super().parsed()


class RefusesOtherwise(DatagramIngress):
    def refusal(self) -> Exception:
        return ValueError("bad") if self.address in BAD_ADDRESSES else super().refusal()


class RefusesByPolicy(DatagramEgress):
    def refusal(self) -> Exception:
        return PolicyError("invalid_address", "the address is malformed", "write HOST:PORT")


class RefusesElsewhere(DatagramEgress):
    stage = Stage.SHUTDOWN


class KeepsWhatItRefuses(DatagramIngress):
    def refusal(self) -> Exception:
        if self.address in BAD_ADDRESSES:
            KEPT.append(socket.socket())
        return super().refusal()


class Lax(DatagramIngress):
    settings_schema = LaxSettings


# What is wrong with closing.


class ClosesOnceSocket(Socket):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        self.inner.close()


class ClosesOnce(DatagramIngress):
    socket = ClosesOnceSocket


class WaitsForEverSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        try:
            await self.inner.receive(batch)
        except anyio.ClosedResourceError:
            await anyio.sleep_forever()


class WaitsForEver(DatagramIngress):
    socket = WaitsForEverSocket


class EndsOtherwiseSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        try:
            await self.inner.receive(batch)
        except anyio.ClosedResourceError:
            raise anyio.EndOfStream from None


class EndsOtherwise(DatagramEgress):
    socket = EndsOtherwiseSocket


class EndsQuietlySocket(Socket):
    async def receive(self, batch: Batch) -> None:
        with contextlib.suppress(anyio.ClosedResourceError):
            await self.inner.receive(batch)


class EndsQuietly(DatagramIngress):
    socket = EndsQuietlySocket


class KeepsSocketSocket(Socket):
    def close(self) -> None:
        KEPT.append(socket.socket())
        self.inner.close()


class KeepsSocket(DatagramIngress):
    socket = KeepsSocketSocket


# What is wrong when it is cancelled.


class SwallowingSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        try:
            await self.inner.receive(batch)
        except anyio.get_cancelled_exc_class():
            batch.clear()
            batch.append(b"not cancelled")


class Swallowing(DatagramIngress):
    socket = SwallowingSocket


class TranslatingSocket(Socket):
    async def receive(self, batch: Batch) -> None:
        try:
            await self.inner.receive(batch)
        except anyio.get_cancelled_exc_class():
            raise AdapterError(Stage.FORWARDING_LOOP, "cancelled", "cancelled", "again") from None


class Translating(DatagramEgress):
    socket = TranslatingSocket


class LeavesSocket(DatagramIngress):
    async def open(self) -> DatagramSocket:
        opened: Any = await super().open()
        KEPT.append(opened.inner._socket)
        await anyio.lowlevel.checkpoint()
        return cast(DatagramSocket, opened)


class ForgetsSocket(DatagramEgress):
    async def connect(self, flow: int) -> DatagramSocket:
        probe = socket.socket()
        await anyio.lowlevel.checkpoint()
        probe.close()
        return await super().connect(flow)


class StaysBusySocket(Socket):
    busy = False

    async def receive(self, batch: Batch) -> None:
        if self.busy:
            raise RuntimeError("somebody receives already")
        self.busy = True
        try:
            await self.inner.receive(batch)
        except anyio.ClosedResourceError:
            self.busy = False
            raise
        self.busy = False


class StaysBusy(DatagramIngress):
    socket = StaysBusySocket


# What is wrong with secrets.


class ShowsInPrint(DatagramIngress):
    def __repr__(self) -> str:
        return f"ShowsInPrint({self.settings.key.reveal()})"


class ShowsInSettings(DatagramIngress):
    settings_schema = ShowySettings


class ShowsInLog(DatagramIngress):
    async def open(self) -> DatagramSocket:
        logging.getLogger(__name__).debug("opening with %s", self.settings.key.reveal())
        return await super().open()


class ShowsOnOutput(DatagramEgress):
    async def connect(self, flow: int) -> DatagramSocket:
        print(b64encode(self.settings.key.reveal().encode()).decode())  # noqa: T201
        return await super().connect(flow)


class ShowsInError(DatagramIngress):
    def refusal(self) -> Exception:
        text = f"the address is malformed with {self.settings.key.reveal()}"
        return AdapterError(self.stage, "invalid_address", text, "write HOST:PORT")


class ShowsInCause(DatagramEgress):
    def parsed(self) -> tuple[str, int]:
        try:
            return super().parsed()
        except AdapterError as error:
            raise error from ValueError(self.settings.key.reveal())


# What is wrong with errors.


class CodeInWords(DatagramIngress):
    def refusal(self) -> Exception:
        return AdapterError(self.stage, "Invalid address", "it is malformed", "write HOST:PORT")


class WithoutAdvice(DatagramEgress):
    def refusal(self) -> Exception:
        return AdapterError(self.stage, "invalid_address", "it is malformed")


class CrashesOnOddAddress(DatagramIngress):
    def refusal(self) -> Exception:
        return super().refusal() if self.address in BAD_ADDRESSES else IndexError("odd")
