"""What encryption alone costs in Python: pyOpenSSL's public API on memory BIOs, nothing around."""

import secrets
import time

from OpenSSL import SSL

from turnlane.net.identity import Identity

CIPHER = b"ECDHE-ECDSA-AES128-GCM-SHA256"
MTU = 1200


class Floor:
    """An established DTLS association between two connections in memory."""

    def __init__(self) -> None:
        identity = Identity.generate(time.time())  # noqa: TID251 - a certificate has a date
        server = _context()
        server.use_certificate(identity.certificate)
        server.use_privatekey(identity.key)
        self._sender = _connection(_context())
        self._receiver = _connection(server)
        self._sender.set_connect_state()
        self._receiver.set_accept_state()
        self._shake_hands()

    def seconds(self, count: int, size: int) -> tuple[float, float]:
        """Return the CPU seconds to encrypt and to decrypt one record, the mean of `count`."""
        payload = secrets.token_bytes(size)
        send, read = self._sender.send, self._sender.bio_read
        started = time.process_time()
        records = []
        for _ in range(count):
            send(payload)
            records.append(read(2048))
        encrypted = time.process_time()
        write, receive = self._receiver.bio_write, self._receiver.recv
        for record in records:
            write(record)
            receive(2048)
        decrypted = time.process_time()
        return (encrypted - started) / count, (decrypted - encrypted) / count

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
