"""What every DTLS association is set to, and what OpenSSL's callbacks leave behind of one."""

from dataclasses import dataclass
from functools import cache

from OpenSSL import SSL, crypto

from turnlane.net.identity import Identity, Pin

CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
)
"""All authenticated by the identity's ECDSA key, all with forward secrecy, all AEAD."""

_DTLS_1_2 = 0xFEFD
_FATAL = 2


@dataclass(slots=True)
class Witness:
    """What callbacks saw of one handshake; a connection carries it as its application data."""

    pin: Pin | None
    """The pin to insist on; None takes any peer."""

    peer_pin: Pin | None = None
    """The pin the peer showed."""

    alert: int | None = None
    """The last alert that came from the peer and ends the association."""

    @property
    def pin_differs(self) -> bool:
        """Whether the peer showed a key, and it was another one."""
        return self.pin is not None and self.peer_pin is not None and self.peer_pin != self.pin


@cache
def client_context() -> SSL.Context:
    """Return the context that all clients share; the pin is in each connection's witness."""
    context = _context(SSL.DTLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_PEER, _verify)
    return context


def server_context(identity: Identity) -> SSL.Context:
    """Return a context for servers that show `identity`."""
    context = _context(SSL.DTLS_SERVER_METHOD)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.key)
    # The cookie has been verified before OpenSSL sees a ClientHello.
    context.set_cookie_verify_callback(_accept_cookie)
    return context


def new_connection(context: SSL.Context, witness: Witness, mtu: int) -> SSL.Connection:
    """Make a connection on memory BIOs that writes records of at most `mtu` bytes."""
    connection = SSL.Connection(context, None)
    connection.set_app_data(witness)
    connection.set_ciphertext_mtu(mtu)
    return connection


def _context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    # Without NO_QUERY_MTU OpenSSL asks the memory BIO for a path MTU and breaks on the answer.
    context.set_options(
        SSL.OP_NO_QUERY_MTU
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_TICKET
        | SSL.OP_NO_COMPRESSION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(CIPHERS)
    context.set_info_callback(_note_alert)
    return context


def _verify(
    connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _ok: int
) -> bool:
    """Judge the peer by its own key alone; who signed its certificate does not matter.

    Refusing here makes OpenSSL tell the peer so in an alert.
    """
    if depth != 0:
        return True
    witness: Witness = connection.get_app_data()
    try:
        # OpenSSL has parsed the certificate already; nothing else of it counts but the key.
        key = crypto.dump_publickey(crypto.FILETYPE_ASN1, certificate.get_pubkey())
        witness.peer_pin = Pin.of_public_key(key)
    except Exception:  # a stranger wrote it: whatever is wrong with it, the answer is no
        return False
    return not witness.pin_differs


def _note_alert(connection: SSL.Connection, where: int, value: int) -> None:
    if where & SSL.SSL_CB_READ_ALERT == SSL.SSL_CB_READ_ALERT:
        level, description = value >> 8, value & 0xFF
        if level == _FATAL or description == 0:
            witness: Witness = connection.get_app_data()
            witness.alert = description


def _accept_cookie(_connection: SSL.Connection, _cookie: bytes) -> bool:
    return True
