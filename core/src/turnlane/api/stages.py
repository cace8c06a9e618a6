"""The stages of a startup and of a running session: the name that every failure carries."""

from enum import StrEnum


class Stage(StrEnum):
    """Where a startup or a session is. Values are stable: they stand in logs, spans and scripts."""

    # Client, in the order in which a startup passes them.
    POLICY_VALIDATE = "policy_validate"
    """Options, files and plugins are read and checked; nothing is started yet."""
    PROVIDER_RESOLVE = "provider_resolve"
    """The provider turns the link into credentials."""
    LOCAL_BIND = "local_bind"
    """The local end is bound: the ingress adapter, or a platform tunnel."""
    TURN_DIAL = "turn_dial"
    """The relay is reached: its name, its address, TCP and TLS."""
    TURN_ALLOCATE = "turn_allocate"
    """The relay takes the credentials and gives an address of its own."""
    PEER_SETUP = "peer_setup"
    """The relay is told of the tunnel server: permission and channel."""
    DTLS_HANDSHAKE = "dtls_handshake"
    """Client and server agree on keys, and the client checks the server's pin."""
    SESSION_HELLO = "session_hello"
    """Both prove the token, and the lane joins its session."""
    FORWARDING_LOOP = "forwarding_loop"
    """Traffic is carried."""
    SESSION_SUPERVISION = "session_supervision"
    """Lanes that failed are restarted, within a budget."""
    SHUTDOWN = "shutdown"
    """Everything is given back."""
    METRICS_LISTEN = "metrics_listen"
    """The address for metrics is bound."""

    # Server; it shares DTLS_HANDSHAKE, SESSION_HELLO and SHUTDOWN with the client.
    SERVER_INIT = "server_init"
    """The server's key, certificate and token are read or made."""
    LISTEN = "listen"
    """The address that relays send to is bound and read."""
    ACCEPT = "accept"
    """Clients come: those who are not known yet are let in or refused."""
    UPSTREAM_DIAL = "upstream_dial"
    """The upstream of a flow or a stream is reached."""
