"""Discovery, isolation and lookup of plugins."""

from turnlane.plugins.discovery import (
    Candidate,
    disabled_names,
    discover_commands,
    discover_plugins,
)
from turnlane.plugins.loader import Kind, gate
from turnlane.plugins.manager import Pair, PluginManager
from turnlane.plugins.records import PluginRecord, PluginStatus

__all__ = [
    "Candidate",
    "Kind",
    "Pair",
    "PluginManager",
    "PluginRecord",
    "PluginStatus",
    "disabled_names",
    "discover_commands",
    "discover_plugins",
    "gate",
]
