"""The commands that `turnlane` has: named here or by entry points, imported when called."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

COMMAND_GROUP = "turnlane.commands.v1"

BUILT_IN = {
    "client": "Carry a local UDP address through a relay to a tunnel server.",
    "server": "Run a tunnel server in front of an upstream.",
    "probe": "Resolve a link into relay credentials and do nothing else.",
    "providers": "The providers that are installed.",
    "adapters": "The local and upstream ends that are installed.",
    "pairs": "The combinations of local and upstream end that are supported.",
    "tunnels": "The platform tunnels that are installed.",
    "plugins": "Every plugin that was found, with what became of it.",
    "identity": "The key that a tunnel server proves itself with.",
}
"""Our own commands, in the order of the help: name and what it says about them."""

_MODULES = {
    "client": "turnlane.cli.client:app",
    "server": "turnlane.cli.server:app",
    "probe": "turnlane.cli.probe:app",
    "providers": "turnlane.cli.catalog:providers",
    "adapters": "turnlane.cli.catalog:adapters",
    "pairs": "turnlane.cli.catalog:pairs",
    "tunnels": "turnlane.cli.catalog:tunnels",
    "plugins": "turnlane.cli.catalog:plugins",
    "identity": "turnlane.cli.identity:app",
}
_COMPLETION_OPTIONS = ("install_completion", "show_completion")


class DeferredCommand(TyperCommand):
    """A command known by its name and summary; `load` is called once it is really wanted."""

    def __init__(self, name: str, summary: str, load: Callable[[], Any]) -> None:
        super().__init__(name, help=summary, short_help=summary)
        self._load = load

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the arguments with the real command; what is invoked later is that one.

        Its options have the name of the command in the environment: `TURNLANE_CLIENT_LISTEN`.
        """
        prefix = f"TURNLANE_{self.name}".upper()
        return self._load().make_context(*args, **{"auto_envvar_prefix": prefix, **kwargs})


class Commands(TyperGroup):
    """Our own commands and those of plugins, none of which is imported by listing them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, summary in BUILT_IN.items():
            self.commands[name] = DeferredCommand(name, summary, _built_in(name))
        self._plugins_known = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        self._discover()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, or None; plugins are asked only for what is not ours."""
        if cmd_name not in self.commands:
            self._discover()
        return super().get_command(ctx, cmd_name)

    def _discover(self) -> None:
        if self._plugins_known:
            return
        self._plugins_known = True
        for name, (entry_point, distribution) in plugin_commands().items():
            load = _of_plugin(name, entry_point, distribution)
            self.commands[name] = DeferredCommand(name, f"A command of {distribution}.", load)


def plugin_commands() -> "dict[str, tuple[EntryPoint, str]]":
    """Return the commands that plugins declare, each with its distribution, from metadata alone.

    A name of our own is never given away; where two plugins want one name, the distribution that
    sorts first has it. `TURNLANE_DISABLE_PLUGINS` hides the commands of those it names, and
    `TURNLANE_PLUGINS`, where it is set, those of all others.
    """
    # `turnlane.plugins.discovery` knows more, but what it imports costs more than all of --help.
    import os
    from importlib.metadata import distributions

    disabled = _names(os.environ.get("TURNLANE_DISABLE_PLUGINS", ""))
    chosen = os.environ.get("TURNLANE_PLUGINS")
    only = None if chosen is None else _names(chosen)
    declared: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            if COMMAND_GROUP in (distribution.read_text("entry_points.txt") or ""):
                # The first of its name on the path hides the others.
                declared.setdefault(distribution.name, list(distribution.entry_points))
        except Exception:  # noqa: S112 - broken metadata of one must not hide the others
            continue
    found: dict[str, tuple[EntryPoint, str]] = {}
    for name in sorted(declared):
        for each in declared[name]:
            hidden = each.group != COMMAND_GROUP or each.name in BUILT_IN
            names = {_normalized(each.name), _normalized(name)}
            if not hidden and not disabled & names and (only is None or only & names):
                found.setdefault(each.name, (each, name))
    return dict(sorted(found.items()))


def _names(listed: str) -> set[str]:
    return {_normalized(name) for name in listed.split(",") if name.strip()}


def _normalized(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _built_in(name: str) -> Callable[[], Any]:
    def load() -> Any:
        module, _, attribute = _MODULES[name].partition(":")
        command = typer.main.get_command(getattr(import_module(module), attribute))
        command.name = name
        return command

    return load


def _of_plugin(name: str, entry_point: "EntryPoint", distribution: str) -> Callable[[], Any]:
    def load() -> Any:
        from turnlane.api import UnavailableError

        try:
            application = entry_point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise UnavailableError(
                "command_failed",
                f"the command {name} could not be imported ({type(error).__name__})",
                f"update or remove the distribution {distribution}",
            ) from error
        if not isinstance(application, typer.Typer):
            raise UnavailableError(
                "command_failed",
                f"the command {name} is a {type(application).__name__}, not a typer application",
                f"update or remove the distribution {distribution}",
            )
        command = typer.main.get_command(application)
        command.name = name
        command.params = [p for p in command.params if p.name not in _COMPLETION_OPTIONS]
        return command

    return load
