"""What encryption alone costs: bare SSL_write and SSL_read into and out of preallocated space."""

import secrets
import time
from typing import Any

from OpenSSL import SSL, _util

from turnlane.net.identity import Identity

CIPHER = b"ECDHE-ECDSA-AES128-GCM-SHA256"
MTU = 1500
AT_ONCE = 10
"""Records that a memory BIO holds at once; beyond 16 KiB it would begin to lose them."""

ROOM = 32_768

_lib: Any = _util.lib
_ffi: Any = _util.ffi


class Floor:
    """An established DTLS association between two connections in memory."""

    def __init__(self) -> None:
        identity = Identity.generate(time.time())  # noqa: TID251 - a certificate has a date
        server = _context()
        server.use_certificate(identity.certificate)
        server.use_privatekey(identity.key)
        self._sender: Any = _connection(_context())
        self._receiver: Any = _connection(server)
        self._sender.set_connect_state()
        self._receiver.set_accept_state()
        self._shake_hands()
        self._out = _ffi.new("char[]", ROOM)
        self._in = _ffi.new("char[]", ROOM)

    def seconds(self, count: int, size: int) -> tuple[float, float]:
        """Return the CPU seconds to encrypt and to decrypt one record, the mean of `count`.

        Encrypting is SSL_write, decrypting BIO_write of one record and SSL_read. What moves
        records between the two is not counted.
        """
        payload = _ffi.from_buffer(secrets.token_bytes(size))
        clock = time.process_time
        encrypting = decrypting = 0.0
        rounds = max(1, count // AT_ONCE)
        for _ in range(rounds):
            began = clock()
            self._write(payload, size)
            written = clock()
            length = _lib.BIO_read(self._sender._from_ssl, self._out, ROOM)
            read = clock()
            self._read(length // AT_ONCE, size)
            encrypting += written - began
            decrypting += clock() - read
        return encrypting / (rounds * AT_ONCE), decrypting / (rounds * AT_ONCE)

    def _write(self, payload: Any, size: int) -> None:
        write, ssl = _lib.SSL_write, self._sender._ssl
        for _ in range(AT_ONCE):
            if write(ssl, payload, size) != size:
                raise RuntimeError("a record was not written")

    def _read(self, record: int, size: int) -> None:
        put, read = _lib.BIO_write, _lib.SSL_read
        bio, ssl, out, into = self._receiver._into_ssl, self._receiver._ssl, self._out, self._in
        for index in range(AT_ONCE):
            put(bio, out + index * record, record)
            if read(ssl, into, ROOM) != size:
                raise RuntimeError("a record was not read")

    def _shake_hands(self) -> None:
        ends = [self._sender, self._receiver]
        done: set[int] = set()
        while len(done) < 2:
            for number, (one, other) in enumerate((ends, ends[::-1])):
                try:
                    one.do_handshake()
                    done.add(number)
                except SSL.WantReadError:
                    pass
                try:
                    while True:
                        other.bio_write(one.bio_read(65_536))
                except SSL.WantReadError:
                    pass


def _context() -> SSL.Context:
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.set_cipher_list(CIPHER)
    return context


def _connection(context: SSL.Context) -> SSL.Connection:
    connection = SSL.Connection(context, None)
    connection.set_ciphertext_mtu(MTU)
    return connection
