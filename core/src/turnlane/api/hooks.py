"""The hooks a plugin implements: synchronous, free of side effects, returning descriptors.

A plugin is a module named by an entry point of the group `turnlane.plugins.v1`:

    from turnlane.api import ProviderDescriptor, hookimpl

    @hookimpl
    def turnlane_providers() -> list[ProviderDescriptor]:
        return [ProviderDescriptor(id="acme", ..., implementation="acme_turn.provider:Acme")]

Commands are not a hook: they are entry points of the group `turnlane.commands.v1` (name: the
command, value: a typer application), so that `--help` lists them without importing a plugin.
"""

from collections.abc import Iterable

import pluggy

from turnlane.api.descriptors import AdapterDescriptor, PlatformTunnelDescriptor, ProviderDescriptor

PROJECT = "turnlane"

PLUGIN_GROUP = "turnlane.plugins.v1"
"""The entry-point group of plugins; the number is the contract's major version."""

COMMAND_GROUP = "turnlane.commands.v1"
"""The entry-point group of commands."""

hookspec = pluggy.HookspecMarker(PROJECT)
"""Marks what a hook is; for Turnlane itself."""

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as its answer to the hook of the same name."""


@hookspec
def turnlane_providers() -> Iterable[ProviderDescriptor]:  # type: ignore[empty-body]
    """Return the providers of this plugin."""


@hookspec
def turnlane_ingress_adapters() -> Iterable[AdapterDescriptor]:  # type: ignore[empty-body]
    """Return the ingress adapters of this plugin (`direction` is `ingress`)."""


@hookspec
def turnlane_egress_adapters() -> Iterable[AdapterDescriptor]:  # type: ignore[empty-body]
    """Return the egress adapters of this plugin (`direction` is `egress`)."""


@hookspec
def turnlane_platform_tunnels() -> Iterable[PlatformTunnelDescriptor]:  # type: ignore[empty-body]
    """Return the platform tunnels of this plugin."""
