"""The bench: an adapter over real loopback sockets, with the kit's own peer at its other side."""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec

from turnlane.api import (
    AdapterDescriptor,
    ByteStream,
    Direction,
    StreamDestination,
    TrafficClass,
    TurnlaneError,
    UnavailableError,
)
from turnlane.net.adapter_context import SocketContext
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.adapters import adapter_settings
from turnlane.testing.adapter_peers import LOOPBACK, free_port
from turnlane.testing.findings import CheckFailedError, NotJudgedError, fail, takes

Talk = Callable[[ByteStream, StreamDestination], Awaitable[None]]


@dataclass(frozen=True)
class AdapterCase:
    """What the checks need to know of an adapter.

    `plugin` is the module (or an object) with the hooks, `direction` and `adapter` say which of
    its adapters. `address` is what `--listen` or `--connect` would say; `{port}` in it becomes the
    port of the kit's upstream on 127.0.0.1 (for an ingress: a free port). An egress that
    `dials_client_choice` is told that upstream as the destination. Each of `bad_addresses` is
    refused with `settings`, each of `bad_settings` with `address`. `secrets` are the values among
    the settings that must be seen nowhere, each of at least four characters.

    `talk` is for adapters that speak a protocol before bytes flow: it says and hears what the
    other side does, an application that asks an ingress for a destination, or an upstream that an
    egress reached. `patience` is for how many seconds anything may let wait.
    """

    plugin: object
    direction: Direction
    adapter: str
    address: str
    bad_addresses: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    bad_settings: tuple[Mapping[str, Any], ...] = ()
    secrets: tuple[str, ...] = ()
    talk: Talk | None = None
    patience: float = 5.0


class CutError(Exception):
    """An operation of the adapter was cancelled on purpose."""


class Bench:
    """Loads and makes the adapter of a case."""

    def __init__(self, case: AdapterCase) -> None:
        self.case = case
        self.plugins = PluginManager.from_modules([case.plugin])

    @property
    def ingress(self) -> bool:
        """Whether it is the local end at the client."""
        return self.case.direction == Direction.INGRESS

    @property
    def offered(self) -> Mapping[str, AdapterDescriptor]:
        """What the plugin offers in the direction of the case."""
        plugins = self.plugins
        return plugins.ingress_adapters() if self.ingress else plugins.egress_adapters()

    @property
    def descriptor(self) -> AdapterDescriptor:
        """The adapter's descriptor; raises `NotJudgedError` when it is not offered."""
        found = self.offered.get(self.case.adapter)
        if found is None:
            raise NotJudgedError("there is no such adapter, see descriptor_is_complete")
        return found

    @property
    def stream(self) -> bool:
        """Whether it carries streams; raises as `descriptor` does."""
        return self.descriptor.traffic is TrafficClass.STREAM

    def load(self) -> None:
        """Import what the descriptor names; raises `NotJudgedError` when that fails."""
        if self.unfit() is not None:
            raise NotJudgedError("there is nothing to run, see class_is_importable")

    def unfit(self) -> str | None:
        """Say why what the descriptor names cannot be imported and made, or return None."""
        descriptor = self.descriptor
        try:
            implementation: Any = self.plugins.load_adapter(descriptor)
            if descriptor.settings is not None:
                self.plugins.load_settings(descriptor.settings)
        except UnavailableError as error:
            return error.message
        if not takes(implementation, 3):
            return "the class is not made with the context, the address and the settings"
        methods = {"open": 1} if self.ingress else {"prepare": 1, "connect": 2}
        for name, count in methods.items():
            method = getattr(implementation, name)
            if not inspect.iscoroutinefunction(method):
                return f"{name} is not an `async def` method"
            if not takes(method, count):
                return f"{name} does not take what the contract gives it"
        return None

    def settings(self, given: Mapping[str, Any] | None = None) -> msgspec.Struct | None:
        """Return settings as the adapter's schema has them; raises `SettingsError`."""
        chosen = self.case.settings if given is None else given
        return adapter_settings(self.descriptor, self.plugins, chosen, {})

    def make(self, address: str, settings: Mapping[str, Any] | None = None) -> Any:
        """Make the adapter as the runtime does; raises what the settings or the class raise."""
        implementation = self.plugins.load_adapter(self.descriptor)
        return implementation(SocketContext(), address, self.settings(settings))

    def address(self, port: int | None = None) -> str:
        """Return the good address for an upstream at `port`."""
        return self.case.address.replace("{port}", str(free_port() if port is None else port))

    def destination(self, port: int) -> StreamDestination | None:
        """Return where an egress is told to go, if it is told."""
        return StreamDestination(LOOPBACK, port) if self.descriptor.dials_client_choice else None

    @contextmanager
    def within(self, message: str) -> Iterator[None]:
        """Raise `CheckFailedError` where the block takes longer than the case's patience."""
        with anyio.move_on_after(self.case.patience) as scope:
            yield
        if scope.cancelled_caught:
            fail(message)

    async def try_address(self, address: str) -> BaseException | None:
        """Make and open the adapter at `address`, and close it; return what it raises."""
        try:
            adapter = self.make(address)
            if not self.ingress:
                await adapter.prepare()
            elif self.stream:
                await (await adapter.open()).aclose()
            else:
                (await adapter.open()).close()
        except (Exception, SystemExit) as error:
            return error
        return None


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Raise `CheckFailedError` where the adapter's `what` raises."""
    try:
        yield
    except (CheckFailedError, NotJudgedError, CutError):
        raise
    except (Exception, SystemExit) as error:
        fail(f"{what} raises {told(error)}")


@contextmanager
def needing(check: str) -> Iterator[None]:
    """Raise `NotJudgedError` where the block finds what is another check's to tell."""
    try:
        yield
    except CheckFailedError:
        raise NotJudgedError(f"it does not come so far, see {check}") from None


def told(error: BaseException) -> str:
    """Say in a few words what was raised; nothing of it is secret."""
    code = f" with the code {error.code!r}" if isinstance(error, TurnlaneError) else ""
    return f"{type(error).__name__}{code}"
