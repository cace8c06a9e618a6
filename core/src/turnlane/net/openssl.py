"""The one file that uses names which pyOpenSSL keeps to itself, checked when it is imported."""

from typing import Any

from OpenSSL import SSL, _util

from turnlane.api.errors import TransportError
from turnlane.api.stages import Stage

_lib: Any = _util.lib


def clear_error_queue() -> None:
    """Empty OpenSSL's error queue, which belongs to the thread and not to an association.

    OpenSSL judges a call by what lies in the queue, so an error left by one association would be
    blamed on the next.
    """
    _lib.ERR_clear_error()


def has_extended_master_secret(connection: SSL.Connection) -> bool:
    """Say whether a finished handshake used the extended master secret (RFC 7627)."""
    return bool(_lib.SSL_get_extms_support(_ssl(connection)) == 1)


def check_library(library: Any) -> None:
    """Refuse an OpenSSL binding that cannot tell whether the extended master secret was used.

    Raises `TransportError`: without that check an association could not be trusted, so there is
    none.
    """
    missing = [
        name for name in ("ERR_clear_error", "SSL_get_extms_support") if not hasattr(library, name)
    ]
    if not missing:
        connection = SSL.Connection(SSL.Context(SSL.DTLS_CLIENT_METHOD), None)
        # Before a handshake OpenSSL answers -1, "not known yet".
        if hasattr(connection, "_ssl") and library.SSL_get_extms_support(_ssl(connection)) == -1:
            return
        missing = ["Connection._ssl"]
    raise TransportError(
        Stage.DTLS_HANDSHAKE,
        "openssl_unsupported",
        f"this pyOpenSSL lacks {', '.join(missing)}",
        "install a supported version: pip install 'pyOpenSSL>=25.1'",
    )


def _ssl(connection: SSL.Connection) -> Any:
    return connection._ssl


check_library(_lib)
