"""The one file that uses names which pyOpenSSL keeps to itself, checked when it is imported."""

from contextlib import suppress
from functools import cache
from typing import Any

from OpenSSL import SSL, _util

from turnlane.api.batch import HEADROOM, Batch
from turnlane.api.errors import TransportError
from turnlane.api.stages import Stage
from turnlane.net import native
from turnlane.net.native import memory_of
from turnlane.net.record_layout import RecordError, RecordLayout, Stopped
from turnlane.proto.frames import datagram_header, header_flow, header_word

_lib: Any = _util.lib
_ffi: Any = _util.ffi

# What is missing, `usable` finds out.
_write: Any = getattr(_lib, "SSL_write", None)
_read: Any = getattr(_lib, "SSL_read", None)
_write_bio: Any = getattr(_lib, "BIO_write", None)
_read_bio: Any = getattr(_lib, "BIO_read", None)

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
        # What `seal` and `open` found out about the size that came last: the next is often equal.
        self._sealing: tuple[RecordLayout | None, int, int, int] = (None, -1, 0, 0)
        self._opening: tuple[RecordLayout | None, int, tuple[int, ...]] = (None, -1, ())

    def seal(self, layout: RecordLayout, batch: Batch, start: int, stop: int, sealed: Batch) -> int:
        """Put packets into records in `sealed`; see `turnlane.net.records.Records`."""
        ssl, outgoing = self._ssl, self._outgoing
        prefix, prefix_size, frame_size = self._prefix, layout.prefix_size, layout.frame_size
        base, into, buffer = memory_of(batch).base, memory_of(sealed).base, batch.buffer
        starts, sizes, flows = batch.starts, batch.sizes, batch.flows
        sealed_starts, sealed_sizes = sealed.starts, sealed.sizes
        room, most = len(sealed.buffer), sealed.capacity
        known, size, step, padding = self._sealing
        if known is not layout:
            size = -1
        flow = -1
        header = b""
        end = count = 0
        for index in range(start, stop):
            length = sizes[index] + frame_size
            if length != size:
                if not 0 < length <= layout.most:
                    self.refused += 1
                    continue
                size = length
                message = prefix_size + length + self._overhead
                padding = -message % 4 if layout.padded else 0
                step = message + padding
                if prefix_size:
                    self._prefix_bytes[:prefix_size] = layout.prefix(length + self._overhead)
                self._sealing = (layout, size, step, padding)
            if end + step > room or count == most:
                stop = index
                break
            begin = starts[index]
            if frame_size:
                if flows[index] != flow:
                    flow = flows[index]
                    header = datagram_header(flow)
                buffer[begin - frame_size : begin] = header
                begin -= frame_size
            if prefix_size:
                _write_bio(outgoing, prefix, prefix_size)
            if _write(ssl, base + begin, length) <= 0:
                raise RecordError
            if padding:
                _write_bio(outgoing, prefix + prefix_size, padding)
            sealed_starts[count] = end
            sealed_sizes[count] = step
            count += 1
            end += step
        # What came out is what was foretold, or it is not sent.
        if end and _read_bio(outgoing, into, room) != end:
            raise RecordError
        sealed.count = count
        sealed.end = end
        return stop

    def open(
        self, layout: RecordLayout, received: Batch, start: int, stop: int, opened: Batch
    ) -> tuple[int, Stopped]:
        """Append payloads of messages to `opened`; see `turnlane.net.records.Records`."""
        ssl, incoming = self._ssl, self._incoming
        base, into = memory_of(received).base, memory_of(opened).base
        unpack, skip, frame_size = layout.unpack, layout.prefix_size, layout.frame_size
        source, target = received.buffer, opened.buffer
        starts, sizes = received.starts, received.sizes
        opened_starts, opened_sizes, opened_flows = opened.starts, opened.sizes, opened.flows
        count, end = opened.count, opened.end or HEADROOM
        last_end, most = len(target) - MAX_PLAINTEXT, opened.capacity
        laid_out, size, expected = self._opening
        if laid_out is not layout:
            size = -1
        known = -2  # no word is that; -1 is for a record too short for one
        flow = 0
        stopped = Stopped.DONE
        for index in range(start, stop):
            begin, length = starts[index], sizes[index]
            if length != size:
                size = length
                expected = layout.expected(length)
                self._opening = (layout, size, expected)
            if length < layout.least or unpack(source, begin) != expected:
                stop, stopped = index, Stopped.FOREIGN
                break
            if end > last_end or count == most:
                stop, stopped = index, Stopped.FULL
                break
            _write_bio(incoming, base + (begin + skip), length - skip)
            taken = _read(ssl, into + end, MAX_PLAINTEXT)
            if taken <= 0:
                stop, stopped = index + 1, Stopped.VOID
                break
            if frame_size:
                word = header_word(target, end)[0] if taken >= frame_size else -1
                if word != known:
                    flow = header_flow(word)
                    if flow < 0:
                        self.control = bytes(target[end : end + taken])
                        stop, stopped = index + 1, Stopped.CONTROL
                        break
                    known = word
            opened_starts[count] = end + frame_size
            opened_sizes[count] = taken - frame_size
            opened_flows[count] = flow
            count += 1
            end += taken
        opened.count = count
        opened.end = end
        return stop, stopped


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
        if _read_bio(outgoing, pointer, 3) != 3 or buffer[:1] != b"\x16":
            return False
        # A record cut short is nothing to OpenSSL, and gone after it was looked at.
        pointer[0:3] = b"\x16\xfe\xfd"
        return bool(
            _write_bio(incoming, pointer, 3) == 3
            and _read(_ssl(connection), pointer, 8) <= 0
            and _read_bio(incoming, pointer, 3) <= 0
            and _write(_ssl(connection), pointer, 3) <= 0
        )
    except (AttributeError, TypeError):
        return False
    finally:
        clear_error_queue()
