"""Descriptors: what a plugin offers, told without importing the class behind it."""

from enum import StrEnum

import msgspec

from turnlane.api.credentials import RelayTransport


class TrafficClass(StrEnum):
    """What an adapter carries."""

    DATAGRAM = "datagram"
    """Datagrams, each for itself."""
    STREAM = "stream"
    """Connections: bytes in order, with an end."""


class Direction(StrEnum):
    """Which end of the tunnel an adapter is."""

    INGRESS = "ingress"
    """At the client: where local applications send to."""
    EGRESS = "egress"
    """At the server: what goes on to the upstream."""


class ProviderCapabilities(msgspec.Struct, frozen=True):
    """What a provider can do and needs."""

    interactive: bool = False
    """It may raise challenges, where the operator allows it (`--interactive-provider`)."""
    browser: bool = False
    """It drives a browser, which has to be there, and so may need a human (`interactive`)."""
    renewable: bool = False
    """Resolving the link again gives fresh credentials without a human.

    Where a resolution does not say how it is renewed, this does: `Renewal.RESOLVE` or `NEVER`.
    """
    default_transport: RelayTransport | None = None
    """How to reach its relays with `--mode auto`; None leaves it to the order of the endpoints."""


class ProviderDescriptor(msgspec.Struct, frozen=True):
    """A provider."""

    id: str
    """What it is chosen by: lower-case words with `-` or `_` between, at most 64 characters."""
    title: str
    """Its name for people."""
    summary: str
    """What it does, in one line."""
    implementation: str
    """The class, a `Provider`, as `"module:Class"`; imported on first use."""
    input_kinds: tuple[str, ...] = ("link",)
    """What it takes."""
    example_links: tuple[str, ...] = ()
    """What its links look like, without real secrets."""
    settings: str | None = None
    """The settings schema as `"module:Class"`; None where there is nothing to tell it."""
    homepage: str = ""
    """Where to read more."""
    stability: str = "stable"
    """What to expect of it: `stable`, `provisional` or another word that operators understand."""
    capabilities: ProviderCapabilities = ProviderCapabilities()
    """What it can do and needs."""
    version: str = ""
    """Its version; empty for that of its distribution."""
    contract_minor: int = 0
    """The least minor version of the contract that it needs."""


class AdapterDescriptor(msgspec.Struct, frozen=True):
    """An ingress or egress adapter."""

    id: str
    """What it is chosen by, as for a provider; unique among those of its direction."""
    title: str
    """Its name for people."""
    summary: str
    """What it does, in one line."""
    direction: Direction
    """Which end of the tunnel it is."""
    traffic: TrafficClass
    """What it carries."""
    implementation: str
    """The class as `"module:Class"`, of the protocol that fits direction and traffic."""
    pairs_with: tuple[str, ...] = ()
    """The ids of the adapters at the other end that it is declared to work with."""
    settings: str | None = None
    """The settings schema as `"module:Class"`; None where there is nothing to tell it."""
    stability: str = "stable"
    """What to expect of it, as for a provider."""
    dials_client_choice: bool = False
    """Of an egress: the client names the upstream. Never offered to peers without a token."""
    contract_minor: int = 0
    """The least minor version of the contract that it needs."""


class PlatformTunnelDescriptor(msgspec.Struct, frozen=True):
    """A host's way to capture traffic."""

    id: str
    """What it is chosen by, as for a provider."""
    title: str
    """Its name for people."""
    summary: str
    """What it does, in one line."""
    platforms: tuple[str, ...]
    """Where it runs: values of `sys.platform`."""
    implementation: str
    """The class, a `PlatformTunnel`, as `"module:Class"`; imported on first use."""
    settings: str | None = None
    """The settings schema as `"module:Class"`; None where there is nothing to tell it."""
    stability: str = "provisional"
    """What to expect of it, as for a provider."""
    contract_minor: int = 0
    """The least minor version of the contract that it needs."""
