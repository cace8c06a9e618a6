"""`turnlane server`: a tunnel server in front of an upstream, and `turnlane server link`."""

import logging
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnlane.api import PolicyError, Secret
from turnlane.cli import options

if TYPE_CHECKING:
    from turnlane.runtime.host import ServerHandle

PEER_LINK_FILE = "peer-link"
TOKEN_FILE = "token"  # noqa: S105 - the name of the file, not what is in it

_EPILOG = """\
Each option may stand in the environment as TURNLANE_SERVER_<OPTION>, or in the section [server] of
a TOML file. Exit codes: 0 stopped, 1 failed, 2 bad input, 3 not available.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def server(
    ctx: typer.Context,
    *,
    connect: Annotated[
        str | None,
        options.option("--connect", metavar="HOST:PORT", help="The upstream.  [required]"),
    ] = None,
    egress: Annotated[
        str, options.option("--egress", metavar="ID", help="The upstream end: `adapters list`.")
    ] = "udp",
    egress_settings: Annotated[
        list[options.SettingText] | None, options.adapter_option("egress")
    ] = None,
    listen: Annotated[
        str, options.option("--listen", metavar="HOST:PORT", help="Where relays send to.")
    ] = "0.0.0.0:56000",
    identity: options.Identity = None,
    token_file: Annotated[
        Path | None,
        options.option(
            "--token-file",
            metavar="FILE",
            help="The access token; a fresh one is written there where there is none.  "
            "[default: `token` in the identity's folder]",
        ),
    ] = None,
    no_token: Annotated[
        bool, options.switch("--no-token", help="Let in anybody who knows the address.")
    ] = False,
    legacy_listen: Annotated[
        str | None,
        options.option(
            "--legacy-listen",
            metavar="HOST:PORT",
            help="Serve older clients there, none of whom is authenticated.",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        options.option(
            "--advertise", metavar="HOST[:PORT]", help="The public address for the peer link."
        ),
    ] = None,
    show_link: Annotated[
        bool,
        options.switch("--show-link/--no-show-link", help="Print the peer link itself, a secret."),
    ] = False,
    handshake_timeout: Annotated[
        float,
        options.duration(
            "--handshake-timeout", help="How long a handshake may take.  [default: 30s]"
        ),
    ] = 30.0,
    idle_timeout: Annotated[
        float,
        options.duration(
            "--idle-timeout", help="How long a session may be silent.  [default: 30m]"
        ),
    ] = 1800.0,
    max_sessions: Annotated[
        int, options.option("--max-sessions", metavar="N", help="How many sessions at once.")
    ] = 256,
    workers: Annotated[
        int | None,
        options.option(
            "--workers",
            metavar="N",
            help="How many processes serve.  [default: one for each processor it may use]",
        ),
    ] = None,
    strict_plugins: options.StrictPlugins = False,
    json: options.Json = False,
    log_format: options.LogFormat = "console",
    log_level: options.LogLevel = "info",
    config: options.Config = None,
) -> None:
    """Run a tunnel server in front of an upstream.

    Prints one `ready` line on standard output with the address, the pin and the file that holds
    the peer link, logs to standard error, and runs until SIGINT or SIGTERM.
    """
    if ctx.invoked_subcommand is not None:
        return
    del (
        config,
        token_file,
        no_token,
        egress_settings,
    )  # read through ctx, which knows where they came from
    from turnlane.cli.output import write_ready
    from turnlane.cli.sessions import run_server
    from turnlane.runtime.peer_link import join_host_port
    from turnlane.runtime.profiles import ServerProfile
    from turnlane.runtime.secret_files import write_secret_file
    from turnlane.telemetry.logging import configure

    configure(log_format, log_level)
    if connect is None:
        raise PolicyError("missing_connect", "there is no upstream", "give --connect HOST:PORT")
    folder = options.identity_folder(identity)
    public = _advertised(advertise)
    token = _token(ctx, folder)
    profile = ServerProfile(
        listen=listen,
        egress=egress,
        egress_settings=options.file_settings(ctx, "egress_settings"),
        egress_text_settings=options.adapter_text_settings(ctx, "egress"),
        connect=connect,
        identity=folder,
        token=token,
        open_access=token is None,
        legacy_listen=legacy_listen,
        advertise=advertise,
        handshake_timeout=handshake_timeout,
        idle_timeout=idle_timeout,
        max_sessions=max_sessions,
        workers=_processors() if workers is None else workers,
    )

    def announce(handle: "ServerHandle") -> None:
        link = handle.link(*(public or _own_address(handle)))
        path = folder / PEER_LINK_FILE
        write_secret_file(path, link)
        fields: dict[str, object] = {
            "listen": join_host_port(*handle.listen),
            "pin": str(handle.pin),
            "peer_link_file": str(path),
        }
        if handle.legacy_listen is not None:
            fields["legacy_listen"] = join_host_port(*handle.legacy_listen)
        if show_link:
            fields["peer_link"] = link.reveal()
        write_ready(fields, as_json=json)

    run_server(profile, announce, strict_plugins=strict_plugins)


@app.command()
def link(
    ctx: typer.Context,
    *,
    identity: options.IdentityOfServer = None,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Print the peer link, a secret.

    It is the one that the server wrote when it last started.
    """
    from turnlane.cli.output import write_json, write_line
    from turnlane.runtime.secret_files import read_secret_file

    del config
    if identity is None and ctx.parent is not None:
        identity = ctx.parent.params.get("identity")
    path = options.identity_folder(identity) / PEER_LINK_FILE
    if not path.exists():
        raise PolicyError(
            "missing_peer_link",
            f"there is no {path}",
            "start the server once, or give the --identity that it was started with",
        )
    found = read_secret_file(path).reveal()
    if json:
        write_json({"peer_link": found, "peer_link_file": str(path)})
    else:
        write_line(found)


def _processors() -> int:
    """Return how many workers there are unless told: one where they could not share the port."""
    import os

    from turnlane.net.shared_port import can_share
    from turnlane.runtime.policy import MAX_WORKERS

    return min(len(os.sched_getaffinity(0)), MAX_WORKERS) if can_share() else 1


def _token(ctx: typer.Context, folder: Path) -> Secret[str] | None:
    """Return the access token, made on first use, or None for an open server."""
    from turnlane.runtime.secret_files import load_or_create_token
    from turnlane.telemetry import REDACTOR

    if options.strongest(ctx, "token_file", "no_token") == "no_token":
        return None
    path: Path | None = ctx.params["token_file"]
    token = load_or_create_token(folder / TOKEN_FILE if path is None else path.expanduser())
    REDACTOR.add(token)
    return token


def _advertised(advertise: str | None) -> tuple[str, int | None] | None:
    """Return the host and the port of `--advertise`; raises `PolicyError`."""
    from turnlane.runtime.peer_link import split_host_port

    if advertise is None:
        return None
    try:
        host, port = split_host_port(advertise, 0)
    except ValueError as error:
        raise PolicyError(
            "invalid_advertise",
            f"--advertise takes HOST[:PORT]: {error}",
            "write it like vpn.example.org:56000",
        ) from None
    return host, port or None


def _own_address(handle: "ServerHandle") -> tuple[str, int]:
    """Return the listen address where it is a specific one, else a placeholder for its host."""
    from turnlane.runtime.peer_link import PLACEHOLDER_HOST
    from turnlane.telemetry import log_event

    host, port = handle.listen
    if not ip_address(host.partition("%")[0]).is_unspecified:
        return host, port
    log_event(
        logging.getLogger("turnlane.server"),
        logging.WARNING,
        "peer_link_incomplete",
        message=f"the peer link says {PLACEHOLDER_HOST}, for nothing tells the public address",
        advice="put the address there by hand, or start the server with --advertise HOST",
    )
    return PLACEHOLDER_HOST, port
