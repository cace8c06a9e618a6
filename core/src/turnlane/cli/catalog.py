"""`turnlane providers | adapters | pairs | tunnels | plugins`: what is installed, and its fate."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from turnlane.cli import options
from turnlane.cli.plugins import check_plugin, new_plugin

if TYPE_CHECKING:
    from turnlane.api import AdapterDescriptor, PlatformTunnelDescriptor, ProviderDescriptor
    from turnlane.plugins.loader import Kind
    from turnlane.plugins.manager import PluginManager

providers = typer.Typer(rich_markup_mode=None, add_completion=False)
adapters = typer.Typer(rich_markup_mode=None, add_completion=False)
pairs = typer.Typer(rich_markup_mode=None, add_completion=False)
tunnels = typer.Typer(rich_markup_mode=None, add_completion=False)
plugins = typer.Typer(rich_markup_mode=None, add_completion=False)


@providers.callback()
def providers_group() -> None:
    """List the providers that are installed, or show one."""


@providers.command("list")
def list_providers(json: options.Json = False) -> None:
    """List the providers that are installed."""
    from turnlane.cli.output import write_json, write_table
    from turnlane.plugins.loader import Kind

    manager = _manager()
    found = manager.providers().values()
    if json:
        write_json([_told(manager, Kind.PROVIDER, one) for one in found])
        return
    rows = [(one.id, one.title, ", ".join(one.input_kinds), one.stability) for one in found]
    write_table(("ID", "TITLE", "TAKES", "STABILITY"), rows, empty="No provider is installed.")


@providers.command("show")
def show_provider(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="As `providers list` names it.")],
    json: options.Json = False,
) -> None:
    """Show what one provider takes, needs and can do, and what it can be told."""
    from turnlane.plugins.loader import Kind

    manager = _manager()
    _show(manager, Kind.PROVIDER, manager.provider(identifier), json=json)


def _show(
    manager: "PluginManager",
    kind: "Kind",
    descriptor: "ProviderDescriptor | AdapterDescriptor",
    *,
    json: bool,
) -> None:
    from turnlane.cli.output import write_fields, write_json, write_line, write_table
    from turnlane.plugins.settings import describe

    told = _told(manager, kind, descriptor)
    schema = descriptor.settings
    settings = [] if schema is None else describe(manager.load_settings(schema))
    if json:
        write_json({**told, "settings_schema": settings})
        return
    capabilities = told.pop("capabilities", {})
    del told["settings"]
    write_fields({**told, **capabilities})
    if settings:
        write_line("")
        columns = ("SETTING", "VALUE", "DEFAULT", "KEPT", "MEANING")
        write_table(columns, _setting_rows(settings), empty="")


def _setting_rows(settings: list[dict[str, Any]], prefix: str = "") -> Iterator[tuple[str, ...]]:
    from json import dumps

    for one in settings:
        value = ", ".join((one["type"], *one.get("limits", ())))
        default = "required" if one["required"] else ""
        if one.get("default") is not None:
            written = one["default"]
            default = written if isinstance(written, str) else dumps(written)
        yield (prefix + one["name"], value, default, one["kept"], one["description"])
        inside = "." if one["type"] == "table" else "[]."
        yield from _setting_rows(one.get("fields", []), prefix + one["name"] + inside)


@adapters.callback()
def adapters_group() -> None:
    """List the local and upstream ends that are installed, or show one."""


@adapters.command("list")
def list_adapters(json: options.Json = False) -> None:
    """List the local ends (ingress) and upstream ends (egress) that are installed."""
    from turnlane.cli.output import write_json, write_table
    from turnlane.plugins.loader import Kind

    manager = _manager()
    found = [(Kind.INGRESS, one) for one in manager.ingress_adapters().values()]
    found += [(Kind.EGRESS, one) for one in manager.egress_adapters().values()]
    if json:
        write_json([_told(manager, kind, one) for kind, one in found])
        return
    rows = [(one.id, one.direction, one.traffic, one.title, one.stability) for _, one in found]
    columns = ("ID", "DIRECTION", "TRAFFIC", "TITLE", "STABILITY")
    write_table(columns, rows, empty="No adapter is installed.")


@adapters.command("show")
def show_adapter(
    direction: Annotated[Literal["ingress", "egress"], typer.Argument(help="Which end.")],
    identifier: Annotated[str, typer.Argument(metavar="ID", help="As `adapters list` names it.")],
    json: options.Json = False,
) -> None:
    """Show what one local or upstream end carries and pairs with, and what it can be told."""
    from turnlane.plugins.loader import Kind

    manager = _manager()
    if direction == "ingress":
        _show(manager, Kind.INGRESS, manager.ingress_adapter(identifier), json=json)
    else:
        _show(manager, Kind.EGRESS, manager.egress_adapter(identifier), json=json)


@pairs.command()
def list_pairs(json: options.Json = False) -> None:
    """List the combinations of local and upstream end that are supported."""
    from msgspec import to_builtins

    from turnlane.cli.output import write_json, write_table

    found = _manager().pairs()
    if json:
        write_json(to_builtins(found))
        return
    rows = [(pair.ingress, pair.egress, pair.traffic) for pair in found]
    write_table(("INGRESS", "EGRESS", "TRAFFIC"), rows, empty="No pair is supported.")


@tunnels.callback()
def tunnels_group() -> None:
    """List the platform tunnels that are installed."""


@tunnels.command("list")
def list_tunnels(json: options.Json = False) -> None:
    """List the platform tunnels that are installed: a host's ways to capture traffic."""
    from turnlane.cli.output import write_json, write_table
    from turnlane.plugins.loader import Kind

    manager = _manager()
    found = manager.platform_tunnels().values()
    if json:
        write_json([_told(manager, Kind.PLATFORM_TUNNEL, one) for one in found])
        return
    rows = [(one.id, ", ".join(one.platforms), one.title, one.stability) for one in found]
    columns = ("ID", "PLATFORMS", "TITLE", "STABILITY")
    write_table(columns, rows, empty="No platform tunnel is installed.")


@plugins.callback()
def plugins_group() -> None:
    """List every plugin that was found, with what became of it; make one, or check one."""


@plugins.command("list")
def list_plugins(json: options.Json = False) -> None:
    """List every plugin that was found: loaded, blocked, incompatible or failed, and why."""
    from msgspec import to_builtins

    from turnlane.cli.output import write_json, write_table
    from turnlane.plugins.inspect import inspect_plugins

    # They are loaded in a process of their own: what hangs or ends it is a line of the list.
    records = inspect_plugins()
    if json:
        write_json(to_builtins(records))
        return
    rows = [
        (one.name, f"{one.distribution} {one.version}".strip(), one.status, one.reason)
        for one in records
    ]
    write_table(("PLUGIN", "DISTRIBUTION", "STATUS", "REASON"), rows, empty="No plugin was found.")


plugins.command("new")(new_plugin)
plugins.command("check")(check_plugin)


def _manager() -> "PluginManager":
    """Return what is installed; say on standard error where that is not all."""
    from turnlane.plugins.manager import PluginManager
    from turnlane.plugins.records import PluginStatus

    manager = PluginManager.load()
    missing = sum(record.status is not PluginStatus.LOADED for record in manager.records)
    if missing:
        told = "1 plugin is" if missing == 1 else f"{missing} plugins are"
        sys.stderr.write(f"{told} not loaded: see `turnlane plugins list`\n")
    return manager


def _told(
    manager: "PluginManager",
    kind: "Kind",
    descriptor: "ProviderDescriptor | AdapterDescriptor | PlatformTunnelDescriptor",
) -> dict[str, Any]:
    from msgspec import to_builtins

    record = manager.owner(kind, descriptor.id)
    told: dict[str, Any] = to_builtins(descriptor)
    version = told.get("version") or record.version
    return {**told, "distribution": record.distribution, "version": version}
