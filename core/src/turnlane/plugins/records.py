"""Records: what became of each plugin that was found."""

from enum import StrEnum

import msgspec


class PluginStatus(StrEnum):
    """What became of a plugin."""

    LOADED = "loaded"
    BLOCKED = "blocked"
    INCOMPATIBLE = "incompatible"
    FAILED = "failed"


class PluginRecord(msgspec.Struct, frozen=True):
    """One plugin, found and judged.

    `name` is its entry point, `module` what that points at; `distribution` and `version` are empty
    for a module that was handed in by an embedding application. `code` is a stable snake_case name
    for the cause and `reason` says it in one line; both are empty for a plugin that is loaded.
    """

    name: str
    distribution: str
    version: str
    status: PluginStatus
    module: str = ""
    code: str = ""
    reason: str = ""

    @property
    def wanted(self) -> bool:
        """Whether it is as the operator wants it: loaded, or blocked on purpose."""
        return self.status in (PluginStatus.LOADED, PluginStatus.BLOCKED)

    def __str__(self) -> str:
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        cause = f": {self.reason}" if self.reason else ""
        return f"plugin {self.name}{origin} {self.status}{cause}"


def one_line(text: str, limit: int = 300) -> str:
    """Return `text` as one printable line of at most `limit` characters."""
    line = "".join(
        character if character.isprintable() else "?" for character in " ".join(text.split())
    )
    return line if len(line) <= limit else line[: limit - 1] + "…"


def describe(error: BaseException) -> str:
    """Return the class and the message of `error` in one line."""
    text = str(error)
    return one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__)
