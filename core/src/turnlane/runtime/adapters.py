"""Adapters behind a guard: whatever a plugin raises reaches the runtime as `AdapterError`."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio

from turnlane.api import (
    AdapterDescriptor,
    AdapterError,
    Batch,
    DatagramEgress,
    DatagramSocket,
    Stage,
    TurnlaneError,
)
from turnlane.net.adapter_context import SocketContext
from turnlane.net.udp import BatchSocket
from turnlane.plugins.manager import PluginManager


async def open_ingress(
    descriptor: AdapterDescriptor, plugins: PluginManager, address: str
) -> DatagramSocket:
    """Make an ingress and open it; raises `AdapterError` at `local_bind`."""
    implementation = plugins.load_adapter(descriptor)
    with guarded(descriptor, Stage.LOCAL_BIND):
        return _guard(descriptor, await implementation(SocketContext(), address, None).open())


class GuardedEgress:
    """An egress adapter whose every failure is an `AdapterError` at `upstream_dial`."""

    def __init__(self, descriptor: AdapterDescriptor, plugins: PluginManager, address: str) -> None:
        self._descriptor = descriptor
        implementation = plugins.load_adapter(descriptor)
        with guarded(descriptor, Stage.UPSTREAM_DIAL):
            self._egress: DatagramEgress = implementation(SocketContext(), address, None)

    async def prepare(self) -> None:
        """Check once that flows can be opened."""
        with guarded(self._descriptor, Stage.UPSTREAM_DIAL):
            await self._egress.prepare()

    async def connect(self, flow: int) -> DatagramSocket:
        """Open the upstream socket of one flow."""
        with guarded(self._descriptor, Stage.UPSTREAM_DIAL):
            return _guard(self._descriptor, await self._egress.connect(flow))


class GuardedSocket:
    """A socket of a plugin's own making, whose every failure ends its `receive` as told.

    `send` never raises, as the contract has it: what it raised is what `receive` then tells.
    """

    def __init__(self, descriptor: AdapterDescriptor, opened: DatagramSocket) -> None:
        self.local_address = opened.local_address
        self._descriptor = descriptor
        self._socket = opened
        self._closed = False
        self._crash: BaseException | None = None

    async def receive(self, batch: Batch) -> None:
        """Receive; raises `AdapterError`, and `anyio.ClosedResourceError` after `close`."""
        with guarded(self._descriptor, Stage.FORWARDING_LOOP):
            try:
                await self._socket.receive(batch)
            except anyio.ClosedResourceError as error:
                if not self._closed:
                    raise self._crash or error from None
        if self._closed:
            raise anyio.ClosedResourceError

    def send(self, batch: Batch) -> int:
        """Send, as far as the plugin is able to."""
        try:
            return self._socket.send(batch)
        except (Exception, SystemExit) as error:
            self._crash = error  # told by `receive`, which this ends
            self._release()
            return 0

    def close(self) -> None:
        """Release the socket; a second call does nothing."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        with suppress(Exception):
            self._socket.close()


def _guard(descriptor: AdapterDescriptor, opened: DatagramSocket) -> DatagramSocket:
    """Return `opened` where it is ours, which holds to the contract, else a guard before it."""
    return opened if isinstance(opened, BatchSocket) else GuardedSocket(descriptor, opened)


@contextmanager
def guarded(descriptor: AdapterDescriptor, stage: Stage) -> Iterator[None]:
    """Turn what is no `TurnlaneError` into one; of it only the type is told."""
    try:
        yield
    except TurnlaneError:
        raise
    except (Exception, SystemExit) as error:
        raise AdapterError(
            stage,
            "adapter_crashed",
            f"the {descriptor.direction} {descriptor.id} raised {type(error).__name__}",
            "this is a fault of the plugin: tell its authors",
        ) from error
