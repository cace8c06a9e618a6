"""Drivers: sockets, TURN and DTLS on anyio; the one place where OSError becomes ours."""
