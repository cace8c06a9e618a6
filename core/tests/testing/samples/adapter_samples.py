"""What samples of adapters share: an address, settings, and the plugin that offers one."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import msgspec

from turnlane.api import (
    AdapterContext,
    AdapterDescriptor,
    AdapterError,
    Direction,
    Secret,
    Stage,
    TrafficClass,
    hookimpl,
    setting,
)

ID = "sample"
SECRET = "planted/s3cret+value"
MODULE = __name__
BAD_ADDRESSES = ("nowhere", "127.0.0.1:port")
PATIENCE = 1.0
"""Seconds that the kit waits for what a faulty sample never does."""

KEPT: list[Any] = []
"""What faulty samples never give back; `nothing_kept` does it for them."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    ttl: Annotated[int, setting("Hops.", minimum=1, maximum=255)] = 64
    key: Annotated[Secret[str], setting("The key.", write_only=True)] = Secret("")


class LaxSettings(msgspec.Struct, frozen=True, kw_only=True):
    ttl: Annotated[int, setting("Hops.")] = 64
    key: Annotated[Secret[str], setting("The key.", write_only=True)] = Secret("")


class SilentSettings(Settings, frozen=True, kw_only=True):
    ttl: Annotated[int, msgspec.Meta(ge=1, le=255)] = 64


class ShowySettings(msgspec.Struct, frozen=True, kw_only=True):
    ttl: Annotated[int, setting("Hops.", minimum=1, maximum=255)] = 64
    key: Annotated[str, setting("The key.", write_only=True)] = ""


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """Release in the end what faulty samples kept."""
    yield
    while KEPT:
        KEPT.pop().close()


class Sample:
    """Sound: has an address HOST:PORT, and settings."""

    direction: ClassVar[Direction]
    traffic: ClassVar[TrafficClass]
    stage: ClassVar[Stage]
    settings_schema: ClassVar[type[msgspec.Struct] | None] = Settings
    dials_client_choice: ClassVar[bool] = False

    def __init__(self, context: AdapterContext, address: str, settings: Any) -> None:
        self.context = context
        self.address = address
        self.settings = settings

    def parsed(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        fine = host == "127.0.0.1" and port.isascii() and port.isdigit() and int(port) < 65536
        if not fine:
            raise self.refusal()
        return host, int(port)

    def refusal(self) -> Exception:
        return AdapterError(
            self.stage, "invalid_address", "the address is malformed", "write HOST:PORT"
        )


class Ingress(Sample):
    """Sound."""

    direction = Direction.INGRESS
    stage = Stage.LOCAL_BIND


class Egress(Sample):
    """Sound."""

    direction = Direction.EGRESS
    stage = Stage.UPSTREAM_DIAL


def plugin(sample: Any, **changes: Any) -> Any:
    """Return a plugin that offers the class `sample` in its direction."""
    schema = sample.settings_schema
    fields: dict[str, Any] = {
        "id": ID,
        "title": "Sample",
        "summary": "Carries what the kit sends",
        "direction": sample.direction,
        "traffic": sample.traffic,
        "implementation": f"{sample.__module__}:{sample.__name__}",
        "pairs_with": (ID,),
        "settings": None if schema is None else f"{MODULE}:{schema.__name__}",
        "dials_client_choice": sample.dials_client_choice,
    }
    descriptor = AdapterDescriptor(**fields | changes)
    if sample.direction is Direction.INGRESS:

        class IngressPlugin:
            @hookimpl
            def turnlane_ingress_adapters(self) -> list[AdapterDescriptor]:
                return [descriptor]

        return IngressPlugin()

    class EgressPlugin:
        @hookimpl
        def turnlane_egress_adapters(self) -> list[AdapterDescriptor]:
            return [descriptor]

    return EgressPlugin()
