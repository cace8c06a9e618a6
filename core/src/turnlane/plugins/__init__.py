"""Discovery, isolation and lookup of plugins."""

from turnlane.plugins.discovery import (
    Candidate,
    chosen_names,
    disabled_names,
    discover_commands,
    discover_plugins,
)
from turnlane.plugins.loader import Kind, gate
from turnlane.plugins.manager import Pair, PluginManager, PluginsNotLoadedError
from turnlane.plugins.records import PluginRecord, PluginStatus

__all__ = [
    "Candidate",
    "Kind",
    "Pair",
    "PluginManager",
    "PluginRecord",
    "PluginStatus",
    "PluginsNotLoadedError",
    "chosen_names",
    "disabled_names",
    "discover_commands",
    "discover_plugins",
    "gate",
]
