"""Platform tunnels each with one fault, in which alone they differ from the sound one."""

import contextlib
import logging
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import msgspec
from tunnel_samples import Host, Settings, Sound, SoundDevice

from turnlane.api import (
    AdapterError,
    Batch,
    Secret,
    Stage,
    TunnelCapability,
    TunnelDevice,
    TunnelRequest,
    setting,
)

_LOG = logging.getLogger("tunnel_samples")


class LaxSettings(msgspec.Struct, frozen=True, kw_only=True):
    prefix: Annotated[str, setting("How names begin.")] = "sample"
    key: Annotated[Secret[str], setting("A key.", write_only=True)] = Secret("")


class SilentSettings(Settings, frozen=True, kw_only=True):
    prefix: Annotated[str, msgspec.Meta(pattern="^[a-z]{1,8}$")] = "sample"


class ShowySettings(msgspec.Struct, frozen=True, kw_only=True):
    prefix: Annotated[str, setting("How names begin.", pattern="[a-z]{1,8}")] = "sample"
    key: Annotated[str, setting("A key.", write_only=True)] = ""


# class_is_importable


class NeedsMore(Sound):
    def __init__(self, settings: Any, *, needed: object) -> None:
        super().__init__(settings)


class NotAsync(Sound):
    def capability(self) -> Any:  # type: ignore[override]
        return super().capability()


class TakesNoRequest(Sound):
    async def open(self) -> TunnelDevice:  # type: ignore[override]
        raise NotImplementedError


class RaisesWhenMade(Sound):
    def __init__(self, settings: Any) -> None:
        raise RuntimeError


class SilentAboutSettings(Sound):
    settings = SilentSettings


# capability_is_told


class RaisesOnLook(Sound):
    async def capability(self) -> TunnelCapability:
        if Host.lacking:
            raise FileNotFoundError
        return await super().capability()


class ChangesOnLook(Sound):
    async def capability(self) -> TunnelCapability:
        Host.state.add(f"looked {next(Host.numbers)}")
        return await super().capability()


class GivesNoReason(Sound):
    async def capability(self) -> TunnelCapability:
        found = await super().capability()
        return found if found.available else TunnelCapability(False, "no_device")


class CapabilityInWords(Sound):
    async def capability(self) -> TunnelCapability:
        found = await super().capability()
        return found if found.available else TunnelCapability(False, "No device", "none", "load")


class SaysTwoThings(Sound):
    async def capability(self) -> TunnelCapability:
        found = await super().capability()
        if found.available:
            return found
        return TunnelCapability(False, "no_device", f"missed {next(Host.numbers)} times", "load it")


class ClaimsWhatIsNot(Sound):
    async def capability(self) -> TunnelCapability:
        return TunnelCapability(True)


class AnswersWithTruth(Sound):
    async def capability(self) -> TunnelCapability:
        found = await super().capability()
        answer: Any = type("Answer", (), {"available": found.available, "code": found.code})()
        answer.reason, answer.advice = found.reason, found.advice
        answered: TunnelCapability = answer
        return answered


# unavailable_is_refused


class CrashesWithoutDevice(Sound):
    async def lack(self) -> None:
        raise FileNotFoundError


class RefusesElsewhere(Sound):
    async def lack(self) -> None:
        raise AdapterError(Stage.UPSTREAM_DIAL, "no_device", "there is no device", "load it")


class OpensAnyway(Sound):
    async def lack(self) -> None:
        pass


class LeavesWithoutDevice(Sound):
    async def lack(self) -> None:
        Host.state.add(f"left {next(Host.numbers)}")
        await super().lack()


# opens_a_device


class NeverOpens(Sound):
    async def configure(self, device: Any, request: TunnelRequest) -> None:
        self.refuse()


class Nameless(Sound):
    class device(SoundDevice):  # noqa: N801 takes the place of the attribute
        def __init__(self, name: str) -> None:
            super().__init__(" ")


class SendsAsync(Sound):
    class device(SoundDevice):  # noqa: N801
        async def send(self, batch: Batch) -> int:  # type: ignore[override]
            return super().send(batch)


class ReceivesPlainly(Sound):
    class device(SoundDevice):  # noqa: N801
        def receive(self, batch: Batch) -> Any:  # type: ignore[override]
            return super().receive(batch)


# carries_packets


class KeepsHeader(Sound):
    class device(SoundDevice):  # noqa: N801
        def take(self, packet: bytes, batch: Batch) -> None:
            batch.append(
                packet if packet[16:17] != b"\x0a" or len(packet) == 60 else b"00" + packet
            )


class Shortens(Sound):
    class device(SoundDevice):  # noqa: N801
        def give(self, packet: memoryview) -> None:
            self.own.send(packet[:1000])


class DropsUnsaid(Sound):
    class device(SoundDevice):  # noqa: N801
        def give(self, packet: memoryview) -> None:
            self.own.getsockname()


class Miscounts(Sound):
    class device(SoundDevice):  # noqa: N801
        def send(self, batch: Batch) -> int:
            return super().send(batch) and 0


# fills_batches


class LosesOverflow(Sound):
    class device(SoundDevice):  # noqa: N801
        def full(self, batch: Batch) -> bool:
            return False


class DoesNotClear(Sound):
    class device(SoundDevice):  # noqa: N801
        def clear(self, batch: Batch) -> None:
            pass


# send_never_waits


class WaitsToSend(Sound):
    class device(SoundDevice):  # noqa: N801
        def give(self, packet: memoryview) -> None:
            self.own.setblocking(True)
            try:
                super().give(packet)
            finally:
                self.own.setblocking(False)


class RaisesUnderFlood(Sound):
    class device(SoundDevice):  # noqa: N801
        def send(self, batch: Batch) -> int:
            try:
                for packet in batch:
                    self.give(packet)
            except BlockingIOError:
                raise RuntimeError from None
            except OSError:
                return 0
            return len(batch)


class CountsNothingUnderFlood(Sound):
    class device(SoundDevice):  # noqa: N801
        def send(self, batch: Batch) -> Any:
            taken = super().send(batch)
            return None if 1 < len(batch) != taken and not self.closed else taken


class RaisesAfterClose(Sound):
    class device(SoundDevice):  # noqa: N801
        def send(self, batch: Batch) -> int:
            if self.closed:
                raise anyio.ClosedResourceError
            return super().send(batch)


class TakesAfterClose(Sound):
    class device(SoundDevice):  # noqa: N801
        def send(self, batch: Batch) -> int:
            return len(batch) if self.closed else super().send(batch)


# refuses_bad_requests


class TakesAnyMtu(Sound):
    def check_mtu(self, request: TunnelRequest) -> None:
        pass


class TakesAnyRoute(Sound):
    def check_routes(self, request: TunnelRequest) -> None:
        pass


class RefusesUntyped(Sound):
    def refuse(self) -> None:
        raise ValueError("it cannot be had")


class LeavesAfterRefusal(Sound):
    def refuse(self) -> None:
        Host.state.add(f"left {next(Host.numbers)}")
        super().refuse()


# refuses_bad_settings


class Lax(Sound):
    settings = LaxSettings


# cancellation_at_every_await


class Swallowing(Sound):
    async def configure(self, device: Any, request: TunnelRequest) -> None:
        with contextlib.suppress(BaseException):
            await anyio.lowlevel.checkpoint()


class Translating(Sound):
    async def configure(self, device: Any, request: TunnelRequest) -> None:
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException:
            raise AdapterError(Stage.LOCAL_BIND, "cancelled", "it was", "try again") from None


class LeavesAddress(Sound):
    async def undo(self, device: Any) -> None:
        device.own.close()
        device.host.close()


class KeepsDevice(Sound):
    async def undo(self, device: Any) -> None:
        Host.kept.append(device)
        Host.state.difference_update(device.changes)


class StaysBusy(Sound):
    async def configure(self, device: Any, request: TunnelRequest) -> None:
        if Host.busy:
            self.refuse()
        Host.busy = True
        await super().configure(device, request)
        Host.busy = False


# closes_for_good


class LeavesRoute(Sound):
    class device(SoundDevice):  # noqa: N801
        async def release(self) -> None:
            self.changes.pop()
            await super().release()


class ForgetsSocket(Sound):
    class device(SoundDevice):  # noqa: N801
        async def release(self) -> None:
            Host.kept.append(self.own.dup())
            await super().release()


class ClosesOnce(Sound):
    class device(SoundDevice):  # noqa: N801
        async def aclose(self) -> None:
            if self.closed:
                raise RuntimeError
            await super().aclose()


# closes_when_cancelled


class ClosesUnshielded(Sound):
    class device(SoundDevice):  # noqa: N801
        async def aclose(self) -> None:
            if not self.closed:
                self.closed = True
                await self.release()

    async def undo(self, device: Any) -> None:
        with anyio.CancelScope(shield=True):
            await device.aclose()


# closing_ends_a_receive


class HangsOnClose(Sound):
    class device(SoundDevice):  # noqa: N801
        async def receive(self, batch: Batch) -> None:
            try:
                await super().receive(batch)
            except anyio.ClosedResourceError:
                await anyio.sleep_forever()


class EndsUntyped(Sound):
    class device(SoundDevice):  # noqa: N801
        def end(self) -> None:
            raise OSError


class ReceivesOnAfterClose(Sound):
    class device(SoundDevice):  # noqa: N801
        ended = False

        def end(self) -> None:
            if self.ended:
                self.gone()
            self.ended = True
            super().end()


# tells_that_the_device_is_gone


class EndsAsClosed(Sound):
    class device(SoundDevice):  # noqa: N801
        def gone(self) -> None:
            raise anyio.ClosedResourceError


class RaisesIntoNothing(Sound):
    class device(SoundDevice):  # noqa: N801
        def give(self, packet: memoryview) -> None:
            try:
                super().give(packet)
            except BrokenPipeError:
                raise RuntimeError from None


# errors_are_typed


class CodeInWords(Sound):
    code = "Bad request"


class WithoutAdvice(Sound):
    advice = ""


# secrets_stay_secret


class ShowsInLog(Sound):
    async def configure(self, device: Any, request: TunnelRequest) -> None:
        _LOG.debug("opening with %s", self.given.key.reveal())
        await super().configure(device, request)


class ShowsOnOutput(Sound):
    async def configure(self, device: Any, request: TunnelRequest) -> None:
        print(self.given.key.reveal())  # noqa: T201 the fault
        await super().configure(device, request)


class ShowsInError(Sound):
    def refuse(self) -> None:
        raise AdapterError(Stage.LOCAL_BIND, self.code, self.given.key.reveal(), self.advice)


class ShowsInPrint(Sound):
    def __repr__(self) -> str:
        return f"ShowsInPrint({self.given.key.reveal()})"


class ShowsInSettings(Sound):
    settings = ShowySettings
