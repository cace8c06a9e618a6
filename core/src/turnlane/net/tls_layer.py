"""TLS towards a relay, over memory BIOs: bytes in, bytes out, nothing that waits."""

import ssl
from contextlib import suppress

from turnlane.api.errors import TransportError
from turnlane.api.stages import Stage

CHUNK = 65_536
"""Bytes that are read from a connection, or out of TLS, at a time."""


class TlsLayer:
    """TLS over memory BIOs, so that a stream wire stays non-blocking and synchronous.

    `ended` says that the other end has sent its close_notify. Raises `ValueError` for a server
    name that is none.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self.ended = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=False, server_hostname=server_name
        )

    def handshake(self, received: bytes) -> bool:
        """Take handshake bytes; True once the handshake is complete. Raises `ssl.SSLError`."""
        self._incoming.write(received)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def pending_output(self) -> bytes:
        """Give up the bytes that TLS wants to send."""
        return self._outgoing.read()

    def encrypt(self, message: bytes) -> bytes:
        """Return the TLS records of one message."""
        self._object.write(message)
        return self._outgoing.read()

    def decrypt(self, chunks: list[bytes]) -> list[bytes]:
        """Return the plaintext that `chunks` complete. Raises `ssl.SSLError`."""
        for chunk in chunks:
            self._incoming.write(chunk)
        plain: list[bytes] = []
        try:
            while True:
                data = self._object.read(CHUNK)
                if not data:
                    self.ended = True
                    break
                plain.append(data)
        except ssl.SSLWantReadError:
            pass
        return plain

    def farewell(self) -> bytes:
        """Return the close_notify, as far as TLS is still able to say it."""
        # What the other end has to say to that is not waited for.
        with suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Make a verifying client context, with the system's authorities or those of `ca_file`.

    Raises `TransportError` at `turn_dial` when the file is unusable.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise TransportError(
            Stage.TURN_DIAL,
            "invalid_ca_file",
            "the file of certificate authorities cannot be used",
            "give a readable PEM file",
        ) from None
