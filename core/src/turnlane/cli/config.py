"""The configuration file and the environment: read, and refused as a whole where a name is wrong.

A file has a section for each command that runs, and one for the log:

    [client]
    provider = "generic-turn"
    link_file = "link"           # relative to this file
    connections = 4

    [client.settings]            # as `turnlane providers show` tells them
    region = "eu"

    [client.ingress_settings]    # as `turnlane adapters show` tells them; of a server, egress_
    backlog = 16

    [log]
    level = "debug"
"""

import inspect
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer

from turnlane.api import PolicyError
from turnlane.cli.options import FILE_SETTINGS

COMMANDS = {
    "client": "turnlane.cli.client:client",
    "server": "turnlane.cli.server:server",
    "probe": "turnlane.cli.probe:probe",
}
"""Sections, and the commands whose options they hold."""

LOG_OPTIONS = {"format": "log_format", "level": "log_level"}
NOT_IN_FILES = frozenset({"config", *LOG_OPTIONS.values()})
MAX_SIZE = 256 * 1024

_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    str: "a string",
    dict: "a table",
}
_SERVICE_LINK = re.compile(r"(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""What Kubernetes and Docker put into the environment for a service called turnlane-server."""


def apply(ctx: typer.Context, path: Path | None) -> None:
    """Make the file's values the defaults of the command that `ctx` is of, and check names.

    Raises `PolicyError` with every wrong name and type, of the whole file, at once.
    """
    _check_environment(os.environ)
    if path is None:
        return
    sections = read(path)
    section = _section(ctx)
    log = {LOG_OPTIONS[key]: value for key, value in sections.get("log", {}).items()}
    values = sections.get(section, {})
    # These have types that only their plugin knows: they go past the options.
    tables = [name for name, kind in (_options(section) or {}).items() if kind is dict]
    ctx.meta[FILE_SETTINGS] = {name: values.pop(name, {}) for name in tables}
    ctx.default_map = {**values, **log}


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the values of a file by section; paths in it are taken from the file's folder.

    Raises `PolicyError`.
    """
    path = path.expanduser()
    document = _parse(path)
    wrong: list[str] = []
    sections: dict[str, dict[str, Any]] = {}
    for name, table in document.items():
        known = _options(name)
        if known is None:
            known_names = ", ".join(f"[{section}]" for section in (*COMMANDS, "log"))
            wrong.append(f"[{name}] is not one of {known_names}")
        elif not isinstance(table, dict):
            wrong.append(f"{name} is not a section: write [{name}]")
        else:
            sections[name] = _values(name, table, known, path.parent, wrong)
    if wrong:
        raise PolicyError(
            "invalid_config",
            f"{path}: {'; '.join(wrong)}",
            "see `turnlane COMMAND --help`: names are those of the options, with _ for -",
        )
    return sections


def option_types(command: Callable[..., Any]) -> dict[str, type]:
    """Return the options of a command by name, each as `bool`, `int`, `str`, `Path` or `dict`."""
    hints = get_type_hints(command)
    types: dict[str, type] = {}
    for name in inspect.signature(command).parameters:
        if hints[name] is not typer.Context:
            types[name] = _kind(hints[name])
    return types


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise PolicyError("invalid_config", f"{path} is larger than {MAX_SIZE // 1024} KiB")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise PolicyError(
            "unreadable_config",
            f"cannot read {path}: {os.strerror(error.errno or 0)}",
            "check the path and its mode",
        ) from None
    except UnicodeDecodeError:
        raise PolicyError("invalid_config", f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        # The text of the error names a line and column, and at times one character; never a value.
        raise PolicyError(
            "invalid_config", f"{path} is not TOML: {error}", "mend that line"
        ) from None


def _options(section: str) -> dict[str, type] | None:
    if section == "log":
        return dict.fromkeys(LOG_OPTIONS, str)
    if section not in COMMANDS:
        return None
    module, _, attribute = COMMANDS[section].partition(":")
    types = option_types(getattr(import_module(module), attribute))
    return {name: kind for name, kind in types.items() if name not in NOT_IN_FILES}


def _values(
    section: str,
    table: Mapping[str, Any],
    known: Mapping[str, type],
    folder: Path,
    wrong: list[str],
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in table.items():
        kind = known.get(name)
        if kind is None:
            wrong.append(f"[{section}] {name} is not an option")
            continue
        written = str if kind is Path else kind
        if type(value) is not written:
            wrong.append(f"[{section}] {name} is not {_KINDS[written]}")
            continue
        values[name] = folder / Path(str(value)).expanduser() if kind is Path else value
    return values


def _kind(hint: Any) -> type:
    """Return how a value of type `hint` is written in TOML."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is list:  # what is said again and again as an option is a table in a file
        return dict
    return hint if hint in (bool, int, Path) else str


def _section(ctx: typer.Context) -> str:
    """Return the section of a command: a group's own for its subcommands, [server] for the rest.

    What has no section of its own works on the server's identity.
    """
    names = ctx.command_path.split()[1:2]
    return names[0] if names and names[0] in COMMANDS else "server"


def _check_environment(environment: Mapping[str, str]) -> None:
    wrong: list[str] = []
    for section in COMMANDS:
        prefix = f"TURNLANE_{section.upper()}_"
        names = [name.removeprefix(prefix) for name in environment if name.startswith(prefix)]
        if not names:
            continue
        options = (_options(section) or {}).items()
        known = {name.upper() for name, kind in options if kind is not dict}
        wrong += [
            prefix + name
            for name in names
            if name not in known and not _SERVICE_LINK.fullmatch(name)
        ]
    if wrong:
        raise PolicyError(
            "unknown_environment",
            f"no option has the name of {', '.join(sorted(wrong))}",
            "unset it, or see `turnlane COMMAND --help` for the names",
        )
