"""Options that several commands share, and how their values are read."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote

import typer

from turnlane.api import PolicyError, Secret

if TYPE_CHECKING:
    from turnlane.runtime.profiles import ProviderProfile

FILE_SETTINGS = "turnlane.settings"
"""Under which the context keeps the tables of settings of the configuration file, by name."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SOURCES = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
"""Where a value may come from, the strongest first (names of click's `ParameterSource`)."""


class SettingText(Secret[str]):
    """NAME=VALUE as it was typed, of which VALUE may be a secret.

    A class, for typer takes no list of what has parameters of its own.
    """

    __slots__ = ()


def parse_duration(text: str | float) -> float:
    """Read `250ms`, `30s`, `5m` or `1h` as seconds; raises `typer.BadParameter`.

    A number is a default that was given in seconds, and returned as it is.
    """
    if isinstance(text, int | float):
        return float(text)
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter("a duration is a number with ms, s, m or h, such as 30s")
    return float(found[1]) * _SECONDS[found[2]]


def parse_secret(text: str) -> Secret[str]:
    """Wrap a value that must not be seen; never raises, for an error would repeat the value."""
    return Secret(text.strip())


def option(*names: str, **settings: Any) -> Any:
    """Declare an option; its variable in the environment is told once for all in the help."""
    return typer.Option(*names, show_envvar=False, **settings)


def switch(*names: str, **settings: Any) -> Any:
    """Declare an option of type `bool`; its names tell which way it points."""
    return option(*names, show_default=False, **settings)


def duration(*names: str, **settings: Any) -> Any:
    """Declare an option of type `float` (seconds) that is written as a duration."""
    shown = {"metavar": "DURATION", "show_default": False}
    return option(*names, parser=parse_duration, **shown, **settings)


def secret(*names: str, **settings: Any) -> Any:
    """Declare an option of type `Secret`: its value is never repeated, not even in an error."""
    return option(*names, parser=parse_secret, show_default=False, **settings)


def _read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    if not ctx.resilient_parsing:
        from turnlane.cli.config import apply

        apply(ctx, path)
    return path


Config = Annotated[
    Path | None,
    option(
        "--config",
        metavar="FILE",
        help="A TOML file with a section for each command.",
        is_eager=True,
        callback=_read_config,
        envvar="TURNLANE_CONFIG",
        allow_from_autoenv=False,
    ),
]
LogFormat = Annotated[
    Literal["console", "json"],
    option(
        "--log-format",
        help="How log lines look on standard error (TURNLANE_LOG_FORMAT).",
        envvar="TURNLANE_LOG_FORMAT",
        allow_from_autoenv=False,
    ),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    option(
        "--log-level",
        help="The least important log line that is written (TURNLANE_LOG_LEVEL).",
        envvar="TURNLANE_LOG_LEVEL",
        allow_from_autoenv=False,
    ),
]
Json = Annotated[bool, switch("--json", help="Write JSON to standard output.")]
Provider = Annotated[
    str, option("--provider", metavar="ID", help="Who resolves the link: see `providers list`.")
]
Link = Annotated[
    Secret[str] | None, secret("--link", metavar="LINK", help="What the provider resolves.")
]
LinkFile = Annotated[
    Path | None, option("--link-file", metavar="FILE", help="A file that holds the link.")
]
Settings = Annotated[
    list[SettingText] | None,
    option(
        "--set",
        metavar="NAME=VALUE",
        help="What else to tell the provider, once for each setting: see `providers show ID`.",
        parser=SettingText,
        show_default=False,
        allow_from_autoenv=False,
    ),
]
Interactive = Annotated[
    bool,
    switch(
        "--interactive-provider/--no-interactive-provider",
        help="Let the provider ask for what only a human can do.",
    ),
]
StrictPlugins = Annotated[
    bool,
    switch(
        "--strict-plugins/--no-strict-plugins",
        help="Do not start where a plugin failed or is incompatible.",
    ),
]
Identity = Annotated[
    Path | None,
    option(
        "--identity",
        metavar="DIR",
        help="The folder of the server's key and certificate.  "
        "[default: in the user's data folder]",
    ),
]
IdentityOfServer = Annotated[
    Path | None,
    option(
        "--identity",
        metavar="DIR",
        help="The folder of the server's key and certificate, as `turnlane server` takes it.",
        envvar="TURNLANE_SERVER_IDENTITY",
        allow_from_autoenv=False,
    ),
]


def identity_folder(given: Path | None) -> Path:
    """Return the folder that was asked for, or the default one."""
    if given is not None:
        return given.expanduser()
    from platformdirs import user_data_path

    return user_data_path("turnlane", appauthor=False) / "server"


def strongest(ctx: typer.Context, *names: str) -> str | None:
    """Return which of several options that exclude each other counts, or None where none is given.

    One on the command line sets those of the environment and of the file aside. Two from the same
    place contradict each other: raises `PolicyError`.
    """
    for source in _SOURCES:
        given = [name for name in names if _given(ctx, name, source)]
        if len(given) > 1:
            raise PolicyError(
                "conflicting_options",
                f"{_listed(given)} exclude each other",
                "give one of them",
            )
        if given:
            return given[0]
    return None


def read_secret(ctx: typer.Context, name: str) -> Secret[str] | None:
    """Return the secret of `--NAME` or the one in the file of `--NAME-file`, None without both.

    Raises `PolicyError` where both are given or the file does not hold one line.
    """
    chosen = strongest(ctx, name, f"{name}_file")
    if chosen is None:
        return None
    value: Secret[str] | Path = ctx.params[chosen]
    if isinstance(value, Secret):
        return value
    from turnlane.runtime.secret_files import read_secret_file

    return read_secret_file(value.expanduser())


def require_secret(ctx: typer.Context, name: str) -> Secret[str]:
    """Return the secret of `--NAME` or `--NAME-file`; raises `PolicyError` where neither is."""
    found = read_secret(ctx, name)
    if found is None or not found:
        raise PolicyError(
            f"missing_{name}",
            f"there is no {name}",
            f"give --{name}, --{name}-file or {ctx.auto_envvar_prefix}_{name.upper()}",
        )
    return found


def require_link(ctx: typer.Context) -> Secret[str]:
    """Return the link for the provider, hidden from every log from here on, its password too.

    Raises `PolicyError` where there is none.
    """
    return _hidden(require_secret(ctx, "link"))


def optional_link(ctx: typer.Context) -> Secret[str] | None:
    """Return the link, hidden as `require_link` does, or None where there is none."""
    link = read_secret(ctx, "link")
    return None if link is None else _hidden(link)


def _hidden(link: Secret[str]) -> Secret[str]:
    from turnlane.telemetry import REDACTOR

    REDACTOR.add(link)
    password = link.reveal().partition("://")[2].rpartition("@")[0].partition(":")[2]
    REDACTOR.add(Secret(password), Secret(unquote(password)))
    return link


def adapter_option(direction: str) -> Any:
    """Declare an option of type `list[SettingText]` for the settings of an adapter."""
    return option(
        f"--{direction}-set",
        metavar="NAME=VALUE",
        help=f"What else to tell the {direction}, once for each setting: see "
        f"`adapters show {direction} ID`.",
        parser=SettingText,
        show_default=False,
        allow_from_autoenv=False,
    )


def provider_profile(ctx: typer.Context, provider: str, *, interactive: bool) -> "ProviderProfile":
    """Return which provider is to resolve which link with what; raises `PolicyError`."""
    from turnlane.runtime.profiles import ProviderProfile

    return ProviderProfile(
        provider=provider,
        link=require_link(ctx),
        settings=file_settings(ctx, "settings"),
        text_settings=provider_text_settings(ctx),
        interactive=interactive,
    )


def file_settings(ctx: typer.Context, table: str) -> dict[str, Any]:
    """Return a table of settings of the configuration file."""
    tables: dict[str, dict[str, Any]] = ctx.meta.get(FILE_SETTINGS, {})
    return tables.get(table, {})


def provider_text_settings(ctx: typer.Context) -> dict[str, Secret[str]]:
    """Return what `--set` has told; raises `PolicyError`."""
    return _text_settings(ctx.params["settings"] or (), "--set", "turnlane providers show ID")


def adapter_text_settings(ctx: typer.Context, direction: str) -> dict[str, Secret[str]]:
    """Return what the option for an adapter's settings has told; raises `PolicyError`."""
    given = ctx.params[f"{direction}_settings"] or ()
    return _text_settings(given, f"--{direction}-set", f"turnlane adapters show {direction} ID")


def _text_settings(
    given: Iterable[Secret[str]], name_of_option: str, shown_by: str
) -> dict[str, Secret[str]]:
    settings: dict[str, Secret[str]] = {}
    for each in given:
        name, equals, value = each.reveal().partition("=")
        if not equals or not name.strip():
            raise PolicyError(
                "invalid_setting",
                f"{name_of_option} takes NAME=VALUE",
                f"see `{shown_by}` for the names",
            )
        if name in settings:
            raise PolicyError(
                "conflicting_options",
                f"{name_of_option} names a setting twice",
                "give each of them once",
            )
        settings[name] = Secret(value)
    return settings


def _given(ctx: typer.Context, name: str, source: str) -> bool:
    found = ctx.get_parameter_source(name)
    # A switch that is off ("--no-token" left out, `no_token = false`) excludes nothing.
    return found is not None and found.name == source and ctx.params[name] not in (None, False)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)
