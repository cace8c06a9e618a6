"""The commands `turnlane lab run` and `turnlane demo`.

The command line imports this module once one of them is called, for its help too: what runs is
imported when it runs.
"""

import dataclasses
import json as json_format
import logging
import re
import shlex
import sys
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from turnlane.api import PolicyError, RelayTransport, TurnlaneError
from turnlane.telemetry import REDACTOR, log_event

if TYPE_CHECKING:
    from turnlane.runtime.events import Event
    from turnlane_lab.demo import Demo
    from turnlane_lab.stand import Stand

MAX_COUNT = 1_000_000

lab_app = typer.Typer(rich_markup_mode=None, add_completion=False)
demo_app = typer.Typer(rich_markup_mode=None, add_completion=False)

LOCAL_END = "127.0.0.1:9000"
"""Where the client that is suggested listens: what it listens on by default."""

_READY = """\
relay        {relay} over UDP, {relay_tcp} over TCP
server       {server}
echo         {echo}

link         {link}
over TCP     {link_tcp}
peer link    {peer}

In another terminal, a client, and something to say to the echo:

  {command}
  nc -u {nc}

Ctrl-C ends all of this."""

_LOG = logging.getLogger("turnlane.lab")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def _duration(text: str | float) -> float:
    """Read a duration as seconds, written as in every command; a default is seconds already."""
    if isinstance(text, int | float):
        return float(text)
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter("a duration is a number with ms, s, m or h, such as 30s")
    return float(found[1]) * _SECONDS[found[2]]


def _option(*names: str, **settings: Any) -> Any:
    """Declare an option; that each has its variable in the environment is told once for all."""
    return typer.Option(*names, show_envvar=False, **settings)


def _port(name: str, what: str) -> Any:
    return _option(name, min=0, max=65535, metavar="PORT", help=f"{what}; 0 takes a free one.")


Json = Annotated[bool, _option("--json", help="Write JSON to standard output.")]


@lab_app.callback()
def lab() -> None:
    """Run what a client needs on the other side, to try things out."""


@lab_app.command()
def run(
    *,
    bind_address: Annotated[
        str,
        _option("--bind-address", metavar="IP", help="Where relay and server listen."),
    ] = "127.0.0.1",
    advertise_address: Annotated[
        str | None,
        _option(
            "--advertise-address",
            metavar="IP",
            help="The address in the links, where clients see another than --bind-address.",
        ),
    ] = None,
    turn_port: Annotated[int, _port("--turn-port", "The relay's UDP port")] = 0,
    turn_tcp_port: Annotated[int, _port("--turn-tcp-port", "The relay's TCP port")] = 0,
    peer_port: Annotated[int, _port("--peer-port", "The tunnel server's port")] = 0,
    peer_idle_timeout: Annotated[
        float,
        _option(
            "--peer-idle-timeout",
            parser=_duration,
            metavar="DURATION",
            show_default=False,
            help="How long a session may be silent.  [default: 30m]",
        ),
    ] = 1800.0,
    json: Json = False,
    log_format: Annotated[
        Literal["console", "json"],
        _option(
            "--log-format",
            help="How log lines look on standard error (TURNLANE_LOG_FORMAT).",
            envvar="TURNLANE_LOG_FORMAT",
        ),
    ] = "console",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _option(
            "--log-level",
            help="The least important log line that is written (TURNLANE_LOG_LEVEL).",
            envvar="TURNLANE_LOG_LEVEL",
        ),
    ] = "info",
) -> None:
    """Run a relay, a tunnel server and an echo until SIGINT or SIGTERM.

    Prints a link to the relay, the peer link of the server and the command of a client that uses
    both. Everything is forgotten at the end.
    """
    from turnlane.telemetry.logging import configure  # noqa: PLC0415 - see the module's docstring
    from turnlane_lab.stand import Stand  # noqa: PLC0415

    configure(log_format, log_level)
    _check_addresses(bind_address, advertise_address)
    stand = Stand(
        relay={
            "hosts": (bind_address,),
            "advertise": () if advertise_address is None else (advertise_address,),
            "udp_port": turn_port,
            "tcp_port": turn_tcp_port,
        },
        server={
            "listen": _joined(bind_address, peer_port),
            "idle_timeout": peer_idle_timeout,
        },
        on_event=_log_event,
    )
    _exit_with(lambda: _keep(stand, as_json=json))


@demo_app.command()
def demo(
    *,
    connections: Annotated[
        int, _option("--connections", metavar="N", help="How many lanes to make.")
    ] = 1,
    count: Annotated[
        int,
        _option("--count", min=1, max=MAX_COUNT, metavar="N", help="How many datagrams to send."),
    ] = 1000,
    transport: Annotated[
        Literal["udp", "tcp"], _option("--transport", help="How to reach the relay.")
    ] = "udp",
    json: Json = False,
) -> None:
    """Send datagrams through a relay to a tunnel server and back, all on this machine.

    The relay, the server, the echo behind it and the client are real and speak over sockets; every
    datagram is counted where it left, where it was echoed and where it came back.
    """
    from turnlane_lab.demo import Demo, DemoPlan  # noqa: PLC0415

    plan = DemoPlan(connections=connections, count=count, transport=RelayTransport(transport))
    _exit_with(lambda: _demonstrate(Demo(plan), as_json=json))


def _exit_with(work: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run a command and exit with the code it returns."""
    import anyio  # noqa: PLC0415

    raise typer.Exit(anyio.run(work))


async def _keep(stand: "Stand", *, as_json: bool) -> int:
    """Keep a stand alive until a signal comes; raises the failure that ended it."""
    from anyio.lowlevel import checkpoint  # noqa: PLC0415

    from turnlane_lab.signals import heeded_signals  # noqa: PLC0415

    async with heeded_signals() as signals, stand:
        # A signal that came while it started ends it here, not after the announcement.
        await checkpoint()
        signals.in_order()
        _announce(stand, as_json=as_json)
        await signals.wait_unless(stand.server.wait)
    return 0 if signals.are_in_order else signals.exit_code


async def _demonstrate(demo: "Demo", *, as_json: bool) -> int:
    """Run a demo and write its report, of a failure too, which is raised then."""
    from turnlane_lab.signals import heeded_signals  # noqa: PLC0415

    async with heeded_signals() as signals:
        try:
            await demo.run()
        except TurnlaneError:
            _write_report(demo, as_json=as_json)
            raise
        # A signal from here on comes too late to change anything.
        signals.in_order()
        _write_report(demo, as_json=as_json)
    return 0 if signals.are_in_order else signals.exit_code


def _write_report(demo: "Demo", *, as_json: bool) -> None:
    if as_json:
        typer.echo(demo.report().json())
    else:
        demo.report().show(sys.stdout)


def _announce(stand: "Stand", *, as_json: bool) -> None:
    """Tell where everything is; the links are secrets, and this is their one way out."""
    relay, link, peer = stand.relay, stand.link, stand.peer
    over_tcp = stand.relay_link(RelayTransport.TCP)
    REDACTOR.add(link, over_tcp, peer, *relay.config.users.values())
    command = shlex.join(
        [
            *("turnlane", "client", "--provider", "generic-turn", "--link", link.reveal()),
            *("--peer", peer.reveal(), "--listen", LOCAL_END),
        ]
    )
    places = {
        "relay": _joined(stand.address, relay.udp_port),
        "relay_tcp": _joined(stand.address, relay.tcp_port),
        "server": _joined(stand.address, stand.server.listen[1]),
        "echo": _joined(*stand.echo.address),
    }
    links = {"link": link.reveal(), "link_tcp": over_tcp.reveal(), "peer": peer.reveal()}
    if as_json:
        fields = {"event": "ready", **places, **links, "client_command": command}
        typer.echo(json_format.dumps(fields))
        return
    typer.echo(_READY.format(**places, **links, command=command, nc=LOCAL_END.replace(":", " ")))


def _check_addresses(bind: str, advertise: str | None) -> None:
    """Refuse addresses that no client could use, and warn where others than this machine can.

    Raises `PolicyError`.
    """
    bound = _address("bind-address", bind)
    if advertise is None:
        if bound.is_unspecified:
            raise PolicyError(
                "missing_advertise_address",
                f"nobody can reach the address {bind}",
                "give --advertise-address, or bind to the address that clients use",
            )
    elif _address("advertise-address", advertise).version != bound.version:
        raise PolicyError(
            "invalid_advertise_address",
            "--advertise-address is of another address family than --bind-address",
            "give two addresses of the same family",
        )
    if not bound.is_loopback:
        log_event(
            _LOG,
            logging.WARNING,
            "lab_exposed",
            message="the lab's relay is made for tests: it relays to any address for whoever has "
            "the link, and it is not made to withstand an attack",
            advice="let only your own machines reach it, and use a TURN server like coturn for "
            "lasting service",
        )


def _address(option: str, text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        raise PolicyError(
            f"invalid_{option.replace('-', '_')}",
            f"--{option} takes an IP address",
            "write it like 192.0.2.5 or 2001:db8::5",
        ) from None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _log_event(event: "Event") -> None:
    """Log an event of the server under its own name, with the fields that logs call otherwise."""
    told = {one.name: getattr(event, one.name) for one in dataclasses.fields(event)}
    del told["at"]
    told["session_id"] = told.pop("client_session", told.pop("session"))
    if "address" in told:
        told["peer"] = told.pop("address")
    error = told.pop("error", None)
    if error is not None:
        told |= {"stage": error.stage, "code": error.code, "message": error.message}
    level = logging.WARNING if "code" in told else logging.INFO
    log_event(_LOG, level, _WORD.sub("_", type(event).__name__).lower(), runtime="server", **told)
