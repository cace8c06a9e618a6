"""The stages of a startup and of a running session: the name that every failure carries."""

from enum import StrEnum


class Stage(StrEnum):
    """Where a startup or a session is. Values are stable: they stand in logs, spans and scripts."""

    # Client, in the order in which a startup passes them.
    POLICY_VALIDATE = "policy_validate"
    PROVIDER_RESOLVE = "provider_resolve"
    LOCAL_BIND = "local_bind"
    TURN_DIAL = "turn_dial"
    TURN_ALLOCATE = "turn_allocate"
    PEER_SETUP = "peer_setup"
    DTLS_HANDSHAKE = "dtls_handshake"
    SESSION_HELLO = "session_hello"
    FORWARDING_LOOP = "forwarding_loop"
    SESSION_SUPERVISION = "session_supervision"
    SHUTDOWN = "shutdown"
    METRICS_LISTEN = "metrics_listen"

    # Server; it shares DTLS_HANDSHAKE, SESSION_HELLO and SHUTDOWN with the client.
    SERVER_INIT = "server_init"
    LISTEN = "listen"
    ACCEPT = "accept"
    UPSTREAM_DIAL = "upstream_dial"
