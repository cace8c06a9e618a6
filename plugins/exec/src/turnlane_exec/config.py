"""The configuration file: which commands there are. Its owner alone decides what is run.

    [commands.office]
    argv = ["/usr/local/bin/relay-credentials", "--site", "office"]
    timeout = 10
    env = { VAULT_ADDR = "https://vault.example" }
    pass_env = ["SSH_AUTH_SOCK"]

The file is read as a whole and refused as a whole. Arguments and variables may hold secrets: they
are kept as such, and no error repeats one.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnlane.api import LinkError, ProviderError, Secret, Violation
from turnlane_exec.violations import ViolationsError

STAGE = "read_config"
"""The provider's stage that every error here carries."""

FILE_NAME = "exec.toml"
SCHEME = "exec:"

DEFAULT_TIMEOUT = 30.0
MIN_TIMEOUT = 0.1
MAX_TIMEOUT = 55.0
"""Seconds; the most is less than what a provider is given as a whole."""

MAX_SIZE = 64 * 1024
MAX_ARGUMENTS = 256
MAX_VARIABLES = 64
MAX_LISTED = 10

_LINK_FORM = f"write {SCHEME}NAME for the table [commands.NAME] of {FILE_NAME}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_WORD = re.compile(r"[a-z][a-z_]{0,23}")
_POSITION = re.compile(r"\((at (?:line \d+, column \d+|end of document))\)$")


@dataclass(frozen=True)
class Command:
    """What is run; `timeout` is in seconds, the first of `argv` a path or a bare name.

    `env` are variables with their values, `pass_env` names of those that are handed on.
    """

    name: str
    argv: tuple[Secret[str], ...]
    timeout: float = DEFAULT_TIMEOUT
    env: Mapping[str, Secret[str]] = field(default_factory=dict)
    pass_env: tuple[str, ...] = ()


def command_name(link: Secret[str]) -> str:
    """Return the name in a link; raises `LinkError` with `wrong_scheme` or `invalid_name`."""
    text = link.reveal()
    if text[: len(SCHEME)].lower() != SCHEME:
        raise LinkError(
            "wrong_scheme",
            f"the link does not begin with {SCHEME}",
            _LINK_FORM,
            provider_stage=STAGE,
        )
    name = text[len(SCHEME) :]
    if _NAME.fullmatch(name) is None:
        raise LinkError(
            "invalid_name",
            "what the link names is not the name of a command: letters, digits, _ and -, at most "
            "64, a letter or digit first",
            f"{_LINK_FORM}; a link never holds the command itself",
            provider_stage=STAGE,
        )
    return name


def choose(commands: Mapping[str, Command], name: str) -> Command:
    """Return the command called `name`; raises `LinkError` with `unknown_command`."""
    if name in commands:
        return commands[name]
    listed = ", ".join(sorted(commands)[:MAX_LISTED])
    raise LinkError(
        "unknown_command",
        f"{FILE_NAME} has no command of the name in the link",
        f"it has: {listed}" if listed else f"add a table [commands.NAME] to {FILE_NAME}",
        provider_stage=STAGE,
    )


def read_config(folder: Path) -> dict[str, Command]:
    """Return the commands of `exec.toml` in `folder`, by name.

    Raises `ProviderError` with `missing_config`, `unreadable_config`, `insecure_config` (somebody
    else could write it) or `invalid_config` (a `ViolationsError` with every field that is wrong).
    """
    document = _document(_read(folder), folder / FILE_NAME)
    wrong: list[Violation] = []
    commands = _commands(document, wrong)
    if wrong:
        raise ViolationsError(
            "invalid_config",
            f"{folder / FILE_NAME} is not valid",
            "correct what is named; the README of turnlane-exec describes the file",
            STAGE,
            wrong,
        )
    return commands


def _read(folder: Path) -> bytes:
    """Return what the file holds, after whoever could have written it has been checked.

    What is checked is what has been opened, so that nothing can be put in its place in between.
    """
    path = folder / FILE_NAME
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check_owner(os.fstat(directory), folder)
            # Not to be held up by a pipe that lies there instead of a file.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            opened = os.open(FILE_NAME, flags, dir_fd=directory)
        finally:
            os.close(directory)
        with os.fdopen(opened, "rb") as file:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise _unreadable(path, "it is not a regular file")
            _check_owner(status, path)
            data = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise ProviderError(
            "missing_config",
            f"there is no {path}",
            "write one with a table [commands.NAME] in it, mode 0600",
            provider_stage=STAGE,
        ) from None
    except OSError as error:
        raise _unreadable(path, os.strerror(error.errno or 0)) from None
    if len(data) > MAX_SIZE:
        raise _unreadable(path, f"it has over {MAX_SIZE // 1024} KiB")
    return data


def _unreadable(path: Path, told: str) -> ProviderError:
    return ProviderError(
        "unreadable_config",
        f"cannot read {path}: {told}",
        "put a small text file there that the user who runs Turnlane can read",
        provider_stage=STAGE,
    )


def _check_owner(status: os.stat_result, path: Path) -> None:
    told = ""
    if status.st_uid not in (0, os.geteuid()):
        told = "it belongs to another user"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        told = "its group or others may write to it"
    if told:
        raise ProviderError(
            "insecure_config",
            f"{path} is not trusted: {told}",
            "whoever writes to it decides what is run: check it, then chown it, or chmod go-w",
            provider_stage=STAGE,
        )


def _document(data: bytes, path: Path) -> dict[str, Any]:
    document, told = _toml(data)
    if document is None:
        raise ViolationsError(
            "invalid_config",
            f"{path} is not valid",
            "it is TOML, in UTF-8",
            STAGE,
            [Violation("document", "type", told)],
        )
    return document


def _toml(data: bytes) -> tuple[dict[str, Any] | None, str]:
    # Nothing is raised from here: these exceptions carry pieces of the file, or all of it.
    try:
        return tomllib.loads(data.decode()), ""
    except UnicodeDecodeError:
        return None, "it is not UTF-8 text"
    except RecursionError:
        return None, "it is nested too deeply"
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        return None, "it is not TOML" + (f", {position[1]}" if position else "")


def _commands(document: dict[str, Any], wrong: list[Violation]) -> dict[str, Command]:
    _unknown(document, ("commands",), "", wrong)
    if "commands" not in document:
        wrong.append(Violation("commands", "required", "there is no table [commands.NAME]"))
    tables = document.get("commands", {})
    if not isinstance(tables, dict):
        wrong.append(Violation("commands", "type", "expected tables [commands.NAME]"))
        return {}
    commands = {}
    for number, (name, table) in enumerate(tables.items(), 1):
        if _NAME.fullmatch(name) is None:
            told = "expected letters, digits, _ and -, a letter or digit first"
            wrong.append(Violation(f"commands.<name {number}>", "pattern", told))
        elif not isinstance(table, dict):
            told = f"expected a table [commands.{name}]"
            wrong.append(Violation(f"commands.{name}", "type", told))
        else:
            commands[name] = _command(name, table, wrong)
    return commands


def _command(name: str, table: dict[str, Any], wrong: list[Violation]) -> Command:
    place = f"commands.{name}."
    _unknown(table, ("argv", "timeout", "env", "pass_env"), place, wrong)
    return Command(
        name,
        _argv(table, f"{place}argv", wrong),
        _timeout(table.get("timeout", DEFAULT_TIMEOUT), f"{place}timeout", wrong),
        _env(table.get("env", {}), f"{place}env", wrong),
        _pass_env(table.get("pass_env", []), f"{place}pass_env", wrong),
    )


def _unknown(
    table: dict[str, Any], known: tuple[str, ...], place: str, wrong: list[Violation]
) -> None:
    for number, key in enumerate(table, 1):
        if key not in known:
            # Only what is clearly a word is repeated.
            shown = key if _WORD.fullmatch(key) else f"<field {number}>"
            told = f"there is no such field; known here: {', '.join(known)}"
            wrong.append(Violation(f"{place}{shown}", "unknown", told))


def _argv(table: dict[str, Any], place: str, wrong: list[Violation]) -> tuple[Secret[str], ...]:
    if "argv" not in table:
        wrong.append(Violation(place, "required", "it has no default"))
        return ()
    given = table["argv"]
    if not isinstance(given, list):
        wrong.append(Violation(place, "type", "expected a list: the program and its arguments"))
        return ()
    if not 1 <= len(given) <= MAX_ARGUMENTS:
        wrong.append(Violation(place, "range", f"expected 1 to {MAX_ARGUMENTS} texts"))
        return ()
    arguments = [_text(each, f"{place}[{number}]", wrong) for number, each in enumerate(given)]
    program = arguments[0]
    if isinstance(given[0], str) and not (
        program.startswith("/") or (program and "/" not in program)
    ):
        told = "expected an absolute path, or a program's name without /"
        wrong.append(Violation(f"{place}[0]", "pattern", told))
    return tuple(map(Secret, arguments))


def _timeout(given: Any, place: str, wrong: list[Violation]) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        wrong.append(Violation(place, "type", "expected a number of seconds"))
    elif not MIN_TIMEOUT <= given <= MAX_TIMEOUT:
        told = f"at least {MIN_TIMEOUT} and at most {MAX_TIMEOUT:.0f} seconds"
        wrong.append(Violation(place, "range", told))
    else:
        return float(given)
    return DEFAULT_TIMEOUT


def _env(given: Any, place: str, wrong: list[Violation]) -> dict[str, Secret[str]]:
    if not isinstance(given, dict):
        wrong.append(Violation(place, "type", "expected a table of texts"))
        return {}
    if len(given) > MAX_VARIABLES:
        wrong.append(Violation(place, "range", f"at most {MAX_VARIABLES} variables"))
        return {}
    variables = {}
    for number, (name, value) in enumerate(given.items(), 1):
        if _VARIABLE.fullmatch(name) is None:
            told = "not the name of a variable"
            wrong.append(Violation(f"{place}.<field {number}>", "pattern", told))
        else:
            variables[name] = Secret(_text(value, f"{place}.{name}", wrong))
    return variables


def _pass_env(given: Any, place: str, wrong: list[Violation]) -> tuple[str, ...]:
    if not isinstance(given, list):
        wrong.append(Violation(place, "type", "expected a list of names of variables"))
        return ()
    if len(given) > MAX_VARIABLES:
        wrong.append(Violation(place, "range", f"at most {MAX_VARIABLES} variables"))
        return ()
    names = []
    for number, each in enumerate(given):
        if not isinstance(each, str):
            wrong.append(Violation(f"{place}[{number}]", "type", "expected text"))
        elif _VARIABLE.fullmatch(each) is None:
            wrong.append(Violation(f"{place}[{number}]", "pattern", "not the name of a variable"))
        else:
            names.append(each)
    return tuple(names)


def _text(given: Any, place: str, wrong: list[Violation]) -> str:
    if not isinstance(given, str):
        wrong.append(Violation(place, "type", "expected text"))
    elif "\0" in given:
        wrong.append(Violation(place, "pattern", "it holds a NUL character"))
    else:
        return given
    return ""
