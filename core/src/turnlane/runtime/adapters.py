"""Adapters behind a guard: whatever a plugin raises reaches the runtime as `AdapterError`."""

from collections.abc import Iterator
from contextlib import contextmanager

from turnlane.api import (
    AdapterDescriptor,
    AdapterError,
    DatagramEgress,
    DatagramSocket,
    Stage,
    TurnlaneError,
)
from turnlane.net.udp import SocketContext
from turnlane.plugins.manager import PluginManager


async def open_ingress(
    descriptor: AdapterDescriptor, plugins: PluginManager, address: str
) -> DatagramSocket:
    """Make an ingress and open it; raises `AdapterError` at `local_bind`."""
    implementation = plugins.load_adapter(descriptor)
    with guarded(descriptor, Stage.LOCAL_BIND):
        opened: DatagramSocket = await implementation(SocketContext(), address, None).open()
        return opened


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
            return await self._egress.connect(flow)


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
