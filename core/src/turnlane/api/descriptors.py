"""Descriptors: what a plugin offers, told without importing the class behind it."""

from enum import StrEnum

import msgspec

from turnlane.api.credentials import RelayTransport


class TrafficClass(StrEnum):
    """What an adapter carries."""

    DATAGRAM = "datagram"
    STREAM = "stream"


class Direction(StrEnum):
    """Which end of the tunnel an adapter is."""

    INGRESS = "ingress"
    EGRESS = "egress"


class ProviderCapabilities(msgspec.Struct, frozen=True):
    """What a provider can do and needs.

    `default_transport` None leaves the choice to the order of the endpoints that it gives.
    """

    interactive: bool = False
    browser: bool = False
    renewable: bool = False
    default_transport: RelayTransport | None = None


class ProviderDescriptor(msgspec.Struct, frozen=True):
    """A provider. `implementation` and `settings` are `"module:Class"`, imported on first use.

    `input_kinds` name what it takes (`link`), `example_links` show it without real secrets,
    `contract_minor` is the least minor version of the contract that it needs.
    """

    id: str
    title: str
    summary: str
    implementation: str
    input_kinds: tuple[str, ...] = ("link",)
    example_links: tuple[str, ...] = ()
    settings: str | None = None
    homepage: str = ""
    stability: str = "stable"
    capabilities: ProviderCapabilities = ProviderCapabilities()
    version: str = ""
    contract_minor: int = 0


class AdapterDescriptor(msgspec.Struct, frozen=True):
    """An ingress or egress adapter.

    `pairs_with` names the adapters at the other end that this one is declared to work with.
    `dials_client_choice` says of an egress that the client names the upstream; such an egress is
    never offered to peers that do not authenticate. `contract_minor` is as for a provider.
    """

    id: str
    title: str
    summary: str
    direction: Direction
    traffic: TrafficClass
    implementation: str
    pairs_with: tuple[str, ...] = ()
    settings: str | None = None
    stability: str = "stable"
    dials_client_choice: bool = False
    contract_minor: int = 0


class PlatformTunnelDescriptor(msgspec.Struct, frozen=True):
    """A host's way to capture traffic.

    `platforms` are values of `sys.platform`; `contract_minor` is as for a provider.
    """

    id: str
    title: str
    summary: str
    platforms: tuple[str, ...]
    implementation: str
    settings: str | None = None
    stability: str = "provisional"
    contract_minor: int = 0
