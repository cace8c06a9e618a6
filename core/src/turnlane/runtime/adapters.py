"""Adapters: settings checked before, and a guard that tells what a plugin raises as its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import msgspec

from turnlane.api import (
    AdapterDescriptor,
    AdapterError,
    Batch,
    DatagramEgress,
    DatagramSocket,
    Secret,
    Stage,
    TurnlaneError,
)
from turnlane.net.adapter_context import SocketContext
from turnlane.net.udp import BatchSocket
from turnlane.plugins.manager import PluginManager
from turnlane.plugins.settings import secrets, validate
from turnlane.runtime.resolver import NoSettings
from turnlane.telemetry import REDACTOR


def adapter_settings(
    descriptor: AdapterDescriptor,
    plugins: PluginManager,
    given: Mapping[str, Any],
    texts: Mapping[str, Secret[str]],
) -> msgspec.Struct | None:
    """Return settings as the schema of an adapter has them, None without one.

    `texts` win over `given`. Raises `UnavailableError`, or `SettingsError` with all violations.
    """
    schema = descriptor.settings
    revealed = {name: text.reveal() for name, text in texts.items()}
    made = validate(
        NoSettings if schema is None else plugins.load_settings(schema),
        {**given, **revealed},
        f"the {descriptor.direction} {descriptor.id}",
        text=revealed.keys(),
        advice=f"see `turnlane adapters show {descriptor.direction} {descriptor.id}`",
    )
    REDACTOR.add(*secrets(made))
    return None if schema is None else made


async def open_ingress(
    descriptor: AdapterDescriptor,
    plugins: PluginManager,
    address: str,
    settings: msgspec.Struct | None = None,
) -> DatagramSocket:
    """Make an ingress and open it; raises `AdapterError` at `local_bind`."""
    implementation = plugins.load_adapter(descriptor)
    with guarded(descriptor, Stage.LOCAL_BIND):
        return _guard(descriptor, await implementation(SocketContext(), address, settings).open())


class GuardedEgress:
    """An egress adapter whose every failure is an `AdapterError` at `upstream_dial`."""

    def __init__(
        self,
        descriptor: AdapterDescriptor,
        plugins: PluginManager,
        address: str,
        settings: msgspec.Struct | None = None,
    ) -> None:
        self._descriptor = descriptor
        implementation = plugins.load_adapter(descriptor)
        with guarded(descriptor, Stage.UPSTREAM_DIAL):
            self._egress: DatagramEgress = implementation(SocketContext(), address, settings)

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
