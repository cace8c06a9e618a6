"""`turnlane client`: a local address, carried through a relay to a tunnel server."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from turnlane.api import PolicyError, RelayTransport, Secret
from turnlane.cli import options

if TYPE_CHECKING:
    from turnlane.runtime.host import ClientHandle
    from turnlane.runtime.peer_link import PeerLink
    from turnlane.runtime.profiles import PeerMode

_EPILOG = """\
Each option may stand in the environment as TURNLANE_CLIENT_<OPTION>, or in the section [client] of
a TOML file. What must not be seen in a list of processes comes from --link-file, --peer-file,
--token-file or the environment. Exit codes: 0 stopped, 1 failed, 2 bad input, 3 not available.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=_EPILOG)
def client(
    ctx: typer.Context,
    *,
    provider: options.Provider,
    link: options.Link = None,
    link_file: options.LinkFile = None,
    settings: options.Settings = None,
    peer: Annotated[
        Secret[str] | None,
        options.secret("--peer", metavar="PEER", help="The server's peer link, or its HOST:PORT."),
    ] = None,
    peer_file: Annotated[
        Path | None,
        options.option("--peer-file", metavar="FILE", help="A file that holds the peer link."),
    ] = None,
    pin: Annotated[
        str | None,
        options.option("--pin", metavar="PIN", help="The server's pin, where PEER has none."),
    ] = None,
    token: Annotated[
        Secret[str] | None,
        options.secret("--token", metavar="TOKEN", help="The access token, where PEER has none."),
    ] = None,
    token_file: Annotated[
        Path | None,
        options.option("--token-file", metavar="FILE", help="A file that holds the access token."),
    ] = None,
    insecure_peer: Annotated[
        bool,
        options.switch(
            "--insecure-peer/--no-insecure-peer",
            help="Go on without a pin: anybody between may be the server.",
        ),
    ] = False,
    legacy: Annotated[
        bool,
        options.switch(
            "--legacy/--no-legacy", help="Speak raw datagrams in DTLS, as older servers do."
        ),
    ] = False,
    dtls: Annotated[
        bool,
        options.switch("--dtls/--no-dtls", help="Without DTLS the peer is the service itself."),
    ] = True,
    ingress: Annotated[
        str, options.option("--ingress", metavar="ID", help="The local end: `adapters list`.")
    ] = "udp",
    ingress_settings: Annotated[
        list[options.SettingText] | None, options.adapter_option("ingress")
    ] = None,
    listen: Annotated[
        str, options.option("--listen", metavar="HOST:PORT", help="Where applications send to.")
    ] = "127.0.0.1:9000",
    connections: Annotated[
        int, options.option("--connections", metavar="N", help="How many lanes to make.")
    ] = 1,
    scheduler: Annotated[
        Literal["flow-sticky", "round-robin"],
        options.option("--scheduler", help="How flows are spread over the lanes."),
    ] = "flow-sticky",
    mode: Annotated[
        Literal["auto", "udp", "tcp", "tls"],
        options.option("--mode", help="How to reach the relay; auto is the provider's default."),
    ] = "auto",
    bind_interface: Annotated[
        str | None,
        options.option(
            "--bind-interface", metavar="IP", help="The local address to reach the relay from."
        ),
    ] = None,
    turn: Annotated[
        str | None,
        options.option("--turn", metavar="HOST", help="Another relay than the one resolved."),
    ] = None,
    port: Annotated[
        int | None,
        options.option("--port", metavar="PORT", help="Another port than the one resolved."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        options.option(
            "--ca-file", metavar="FILE", help="Authorities to verify a TLS relay by, in PEM."
        ),
    ] = None,
    interactive_provider: options.Interactive = False,
    strict_plugins: options.StrictPlugins = False,
    json: options.Json = False,
    log_format: options.LogFormat = "console",
    log_level: options.LogLevel = "info",
    config: options.Config = None,
) -> None:
    """Carry a local UDP address through a relay to a tunnel server.

    Prints one `ready` line on standard output once all lanes are up, logs to standard error, and
    runs until SIGINT or SIGTERM.
    """
    # These are read through ctx, which knows where they came from.
    del link, link_file, settings, peer, peer_file, token, token_file, config, ingress_settings
    from turnlane.cli.output import write_ready
    from turnlane.cli.sessions import run_client
    from turnlane.runtime.peer_link import join_host_port
    from turnlane.runtime.profiles import ClientProfile, SchedulerKind
    from turnlane.telemetry.logging import configure

    configure(log_format, log_level)
    profile = ClientProfile(
        provider=options.provider_profile(ctx, provider, interactive=interactive_provider),
        peer=_peer(ctx, pin),
        insecure_peer=insecure_peer,
        mode=_peer_mode(legacy=legacy, dtls=dtls),
        ingress=ingress,
        ingress_settings=options.file_settings(ctx, "ingress_settings"),
        ingress_text_settings=options.adapter_text_settings(ctx, "ingress"),
        listen=listen,
        connections=connections,
        transport=None if mode == "auto" else RelayTransport(mode),
        bind_interface=bind_interface,
        turn_host=turn,
        turn_port=port,
        ca_file=ca_file,
        scheduler=SchedulerKind(scheduler),
    )

    def announce(handle: "ClientHandle") -> None:
        fields: dict[str, object] = {
            "listen": join_host_port(*handle.listen),
            "session_id": handle.session_id,
            "lanes": len(handle.lanes),
            "mtu": handle.mtu,
        }
        write_ready(fields, as_json=json)

    run_client(profile, announce, strict_plugins=strict_plugins)


def _peer_mode(*, legacy: bool, dtls: bool) -> "PeerMode":
    from turnlane.runtime.profiles import PeerMode

    if legacy and not dtls:
        raise PolicyError(
            "conflicting_options",
            "--legacy and --no-dtls exclude each other",
            "give one of them",
        )
    if legacy:
        return PeerMode.LEGACY
    return PeerMode.SESSION if dtls else PeerMode.PLAIN


def _peer(ctx: typer.Context, pin: str | None) -> "PeerLink":
    """Return the peer with the pin and token that were given beside it.

    Raises `PolicyError` where they contradict what stands in the link.
    """
    from turnlane.runtime.peer_link import PeerLink, check_token, parse_pin
    from turnlane.telemetry import REDACTOR

    peer = PeerLink.parse(options.require_secret(ctx, "peer"))
    if pin is not None:
        given = parse_pin(pin)
        if peer.pin not in (None, given):
            raise _contradiction("pin")
        peer = replace(peer, pin=given)
    token = options.read_secret(ctx, "token")
    if token is not None:
        check_token(token)
        if peer.token not in (None, token):
            raise _contradiction("token")
        peer = replace(peer, token=token)
    if peer.token is not None:
        REDACTOR.add(peer.token)
    return peer


def _contradiction(what: str) -> PolicyError:
    return PolicyError(
        f"contradicting_{what}s",
        f"the peer link has another {what} than the one given beside it",
        f"leave the --{what} out, or give the bare HOST:PORT as --peer",
    )
