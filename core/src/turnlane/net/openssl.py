"""The one file that uses names which pyOpenSSL keeps to itself, checked when it is imported."""

from contextlib import suppress
from functools import cache
from typing import Any

from OpenSSL import SSL, _util

from turnlane.api.batch import HEADROOM, Batch
from turnlane.api.errors import TransportError
from turnlane.api.stages import Stage
from turnlane.net import native
from turnlane.net.record_layout import RecordError, RecordLayout, Stopped
from turnlane.proto.frames import datagram_header, header_flow, header_word

_lib: Any = _util.lib
_ffi: Any = _util.ffi

MAX_PLAINTEXT = 2**14
"""Bytes that one record holds at most (RFC 6347, section 4.3.1)."""


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


class FastRecords:
    """Seals and opens records in place, a batch at a time, through names pyOpenSSL keeps private.

    Nothing is made per record: OpenSSL reads from and writes to the memory of the batches. A memory
    BIO is a byte stream, so one record goes in and its payload comes out before the next.
    """

    def __init__(self, connection: SSL.Connection, overhead: int) -> None:
        self.control = b""
        self.refused = 0
        self._connection = connection  # owns what the next three point to
        self._ssl = _ssl(connection)
        self._incoming = connection._into_ssl
        self._outgoing = connection._from_ssl
        self._overhead = overhead
        self._prefix = _ffi.new("char[8]")
        self._prefix_bytes = _ffi.buffer(self._prefix)

    def seal(self, layout: RecordLayout, batch: Batch, start: int, stop: int, sealed: Batch) -> int:
        """Put packets into records in `sealed`; see `turnlane.net.records.Records`."""
        ssl, outgoing, overhead = self._ssl, self._outgoing, self._overhead
        write, write_bio = _lib.SSL_write, _lib.BIO_write
        prefix, prefix_size, frame_size = self._prefix, layout.prefix_size, layout.frame_size
        base, buffer = native.memory_of(batch).base, batch.buffer
        room = len(sealed.buffer)
        size = flow = -1
        header = b""
        plain = step = padding = end = 0
        starts: list[int] = []
        sizes: list[int] = []
        index = start
        for begin, length, of in zip(
            batch.starts[start:stop], batch.sizes[start:stop], batch.flows[start:stop], strict=True
        ):
            if length != size:
                plain = length + frame_size
                if not 0 < plain <= layout.most:
                    self.refused += 1
                    index += 1
                    continue
                size = length
                message = prefix_size + plain + overhead
                padding = -message % 4 if layout.padded else 0
                step = message + padding
                if prefix_size:
                    self._prefix_bytes[:prefix_size] = layout.prefix(plain + overhead)
            if end + step > room or len(sizes) == sealed.capacity:
                break
            if frame_size:
                if of != flow:
                    flow = of
                    header = datagram_header(of)
                buffer[begin - frame_size : begin] = header
            if prefix_size:
                write_bio(outgoing, prefix, prefix_size)
            if write(ssl, base + (begin - frame_size), plain) <= 0:
                raise RecordError
            if padding:
                write_bio(outgoing, prefix + prefix_size, padding)
            starts.append(end)
            sizes.append(step)
            end += step
            index += 1
        # What came out is what was foretold, or it is not sent.
        if end and _lib.BIO_read(outgoing, native.memory_of(sealed).base, room) != end:
            raise RecordError
        sealed.starts[: len(starts)] = starts
        sealed.sizes[: len(sizes)] = sizes
        sealed.count = len(sizes)
        sealed.end = end
        return index

    def open(
        self, layout: RecordLayout, received: Batch, start: int, stop: int, opened: Batch
    ) -> tuple[int, Stopped]:
        """Append payloads of messages to `opened`; see `turnlane.net.records.Records`."""
        ssl, incoming = self._ssl, self._incoming
        read, write_bio = _lib.SSL_read, _lib.BIO_write
        base, into = native.memory_of(received).base, native.memory_of(opened).base
        unpack, least, skip = layout.unpack, layout.least, layout.prefix_size
        frame_size = layout.frame_size
        source, target = received.buffer, opened.buffer
        end = opened.end or HEADROOM
        last_end = len(target) - MAX_PLAINTEXT
        room = opened.capacity - opened.count
        starts: list[int] = []
        sizes: list[int] = []
        flows: list[int] = []
        expected: tuple[int, ...] = ()
        size = known = -1
        flow = 0
        index = start
        stopped = Stopped.DONE
        for begin, length in zip(
            received.starts[start:stop], received.sizes[start:stop], strict=True
        ):
            if length != size:
                size = length
                expected = layout.expected(length)
            if length < least or unpack(source, begin) != expected:
                stopped = Stopped.FOREIGN
                break
            if end > last_end or len(sizes) == room:
                stopped = Stopped.FULL
                break
            write_bio(incoming, base + (begin + skip), length - skip)
            taken = read(ssl, into + end, MAX_PLAINTEXT)
            index += 1
            if taken <= 0:
                stopped = Stopped.VOID
                break
            if frame_size:
                word = header_word(target, end)[0] if taken >= frame_size else -1
                if word != known:
                    flow = header_flow(word)
                    if flow < 0:
                        self.control = bytes(target[end : end + taken])
                        stopped = Stopped.CONTROL
                        break
                    known = word
            starts.append(end + frame_size)
            sizes.append(taken - frame_size)
            flows.append(flow)
            end += taken
        count = opened.count
        after = count + len(sizes)
        opened.starts[count:after] = starts
        opened.sizes[count:after] = sizes
        opened.flows[count:after] = flows
        opened.count = after
        opened.end = end
        return index, stopped


@cache
def usable() -> bool:
    """Whether the private names mean here what they should: a client's first record is read."""
    try:
        connection = SSL.Connection(SSL.Context(SSL.DTLS_CLIENT_METHOD), None)
        connection.set_connect_state()
        connection.set_ciphertext_mtu(1200)
        with suppress(SSL.WantReadError):
            connection.do_handshake()
        buffer = bytearray(8)
        pointer = native.ffi.from_buffer("char[]", buffer)
        outgoing, incoming = connection._from_ssl, connection._into_ssl
        if _lib.BIO_read(outgoing, pointer, 3) != 3 or buffer[:1] != b"\x16":
            return False
        # A record cut short is nothing to OpenSSL, and gone after it was looked at.
        pointer[0:3] = b"\x16\xfe\xfd"
        return bool(
            _lib.BIO_write(incoming, pointer, 3) == 3
            and _lib.SSL_read(_ssl(connection), pointer, 8) <= 0
            and _lib.BIO_read(incoming, pointer, 3) <= 0
        )
    except (AttributeError, TypeError):
        return False
    finally:
        clear_error_queue()
