"""Policy: what is refused before anything happens, neither a request nor a socket nor a packet."""

import ipaddress
from collections.abc import Iterable

from turnlane.api import AdapterDescriptor, PolicyError, TrafficClass, UnavailableError
from turnlane.net.shared_port import can_share
from turnlane.plugins.manager import Pair, PluginManager
from turnlane.runtime.peer_link import split_host_port
from turnlane.runtime.profiles import ClientProfile, PeerMode, ServerProfile

MAX_CONNECTIONS = 64
"""Lanes of one session; the protocol could name more, no relay should be asked for them."""

MAX_WORKERS = 64
"""Processes of one server; each pair of them is linked."""


def validate_client(profile: ClientProfile, plugins: PluginManager) -> AdapterDescriptor:
    """Check a client profile and return the descriptor of its ingress.

    Raises `PolicyError` (bad input) or `UnavailableError` (not installed, not supported).
    """
    if profile.connections < 1:
        raise PolicyError(
            "invalid_connections", "a session needs at least one connection", "use --connections 1"
        )
    if profile.connections > MAX_CONNECTIONS:
        raise PolicyError(
            "invalid_connections",
            f"a session has at most {MAX_CONNECTIONS} connections",
            "use fewer; more do not make a relay faster",
        )
    if profile.bind_interface is not None:
        _check_ip(profile.bind_interface)
    _check_address(profile.listen, "listen")
    if profile.turn_port is not None and not 1 <= profile.turn_port <= 65535:
        raise PolicyError("invalid_turn_port", "the relay's port is not from 1 to 65535")
    _check_peer(profile)
    plugins.provider(profile.provider.provider)
    ingress = plugins.ingress_adapter(profile.ingress)
    _check_pairs(profile.ingress, [pair.ingress for pair in plugins.pairs()], plugins.pairs())
    if profile.mode is not PeerMode.SESSION and ingress.traffic is TrafficClass.STREAM:
        raise PolicyError(
            "stream_needs_session",
            f"{profile.ingress} carries streams, which {profile.mode} peers cannot",
            "leave --legacy and --no-dtls out",
        )
    if ingress.traffic is TrafficClass.STREAM:
        raise UnavailableError(
            "streams_unavailable",
            f"{profile.ingress} carries streams, which this version does not relay yet",
            "use a datagram adapter such as udp",
        )
    return ingress


def _check_peer(profile: ClientProfile) -> None:
    peer = profile.peer
    if profile.mode is PeerMode.PLAIN:
        if peer.pin is not None or peer.token is not None:
            raise PolicyError(
                "no_dtls_with_identity",
                "without DTLS neither a pin nor a token can be checked",
                "leave --no-dtls out, or give a bare host:port",
            )
        return
    if profile.mode is PeerMode.LEGACY and peer.token is not None:
        raise PolicyError(
            "legacy_with_token",
            "a legacy server cannot prove a token",
            "leave --legacy out, or give a bare host:port",
        )
    if peer.pin is None and not profile.insecure_peer:
        raise PolicyError(
            "missing_pin",
            "nothing says who the server is: there is no pin",
            "use the whole peer link, add --pin, or accept anybody with --insecure-peer",
        )
    if peer.pin is not None and profile.insecure_peer:
        raise PolicyError(
            "pin_and_insecure",
            "a pin and --insecure-peer contradict each other",
            "leave --insecure-peer out",
        )


def validate_server(profile: ServerProfile, plugins: PluginManager) -> AdapterDescriptor:
    """Check a server profile and return the descriptor of its egress.

    Raises `PolicyError` or `UnavailableError`.
    """
    _check_address(profile.listen, "listen")
    _check_address(profile.connect, "connect", port_zero=False)
    if profile.legacy_listen is not None:
        _check_address(profile.legacy_listen, "legacy-listen")
    if profile.token is None and not profile.open_access:
        raise PolicyError(
            "missing_token",
            "the server has no access token",
            "give --token-file, or let anybody in with --no-token",
        )
    if profile.token is not None and profile.open_access:
        raise PolicyError(
            "token_and_open_access", "a token and --no-token contradict each other", "use one"
        )
    if profile.max_sessions < 1:
        raise PolicyError("invalid_max_sessions", "a server needs room for at least one session")
    if not 1 <= profile.workers <= MAX_WORKERS:
        raise PolicyError(
            "invalid_workers",
            f"a server has from 1 to {MAX_WORKERS} workers",
            "leave --workers out for one on each processor",
        )
    if profile.workers > 1 and not can_share():
        raise UnavailableError(
            "workers_unavailable",
            "this system does not keep a client at one of several processes",
            "use --workers 1",
        )
    for name, value in (
        ("handshake-timeout", profile.handshake_timeout),
        ("idle-timeout", profile.idle_timeout),
    ):
        if not 0 < value <= 7 * 86400:
            raise PolicyError(
                f"invalid_{name.replace('-', '_')}", f"--{name} is not above 0 and below a week"
            )
    egress = plugins.egress_adapter(profile.egress)
    _check_pairs(profile.egress, [pair.egress for pair in plugins.pairs()], plugins.pairs())
    if profile.legacy_listen is not None and egress.dials_client_choice:
        raise PolicyError(
            "legacy_with_client_choice",
            f"{profile.egress} dials what the client names; legacy clients are not authenticated",
            "leave --legacy-listen out",
        )
    if egress.traffic is TrafficClass.STREAM:
        raise UnavailableError(
            "streams_unavailable",
            f"{profile.egress} carries streams, which this version does not relay yet",
            "use a datagram adapter such as udp",
        )
    return egress


def _check_pairs(adapter: str, paired: Iterable[str], pairs: Iterable[Pair]) -> None:
    if adapter not in paired:
        known = ", ".join(f"{pair.ingress} -> {pair.egress}" for pair in pairs) or "none"
        raise UnavailableError(
            "unsupported_pair",
            f"no supported pair has the adapter {adapter}",
            f"supported pairs: {known}; see `turnlane pairs`",
        )


def _check_ip(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise PolicyError(
            "invalid_bind_interface",
            "--bind-interface takes an IP address, not the name of an interface",
            "see `ip address` for the addresses of this machine",
        ) from None


def _check_address(text: str, option: str, *, port_zero: bool = True) -> None:
    try:
        _, port = split_host_port(text)
    except ValueError as error:
        raise PolicyError(
            f"invalid_{option.replace('-', '_')}",
            f"--{option} takes HOST:PORT: {error}",
            "write it like 127.0.0.1:9000",
        ) from None
    if port == 0 and not port_zero:
        raise PolicyError(f"invalid_{option.replace('-', '_')}", f"--{option}: the port is 0")
