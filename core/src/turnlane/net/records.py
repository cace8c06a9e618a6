"""Records of an established association in batches: sealed on the way out, opened on the way in."""

from typing import Protocol

from OpenSSL import SSL

from turnlane.api.batch import HEADROOM, Batch
from turnlane.net import native, openssl
from turnlane.net.openssl import MAX_PLAINTEXT, FastRecords
from turnlane.net.record_layout import RecordError, RecordLayout, Stopped
from turnlane.proto.frames import datagram_header, header_flow, header_word


class Records(Protocol):
    """Seals and opens batches.

    `control` is what a message held when opening stopped for `Stopped.CONTROL`; `refused` counts
    packets that fit no record, or are empty where a record would be.
    """

    control: bytes
    refused: int

    def seal(self, layout: RecordLayout, batch: Batch, start: int, stop: int, sealed: Batch) -> int:
        """Put packets `start` to `stop - 1` of `batch` into messages; return the next index.

        `sealed` is filled from its beginning without gaps; where it is full, the index is less
        than `stop`. The headroom of the packets is used. Raises `RecordError`.
        """
        ...

    def open(
        self, layout: RecordLayout, received: Batch, start: int, stop: int, opened: Batch
    ) -> tuple[int, Stopped]:
        """Append the payloads of messages `start` to `stop - 1` of `received` to `opened`.

        Returns the index of the next message, and why it stopped there.
        """
        ...


def records_of(connection: SSL.Connection, overhead: int) -> Records:
    """Return the fastest way that works here for an association that is established.

    `overhead` is how many bytes a record is longer than its payload.
    """
    if native.wanted() and native.usable() and openssl.usable():
        return FastRecords(connection, overhead)
    return PortableRecords(connection)


class PortableRecords:
    """Uses nothing but the public interface of pyOpenSSL."""

    def __init__(self, connection: SSL.Connection) -> None:
        self.control = b""
        self.refused = 0
        self._connection = connection

    def seal(self, layout: RecordLayout, batch: Batch, start: int, stop: int, sealed: Batch) -> int:
        """Seal one packet after the other."""
        sealed.clear()
        for index in range(start, stop):
            begin = batch.starts[index] - layout.frame_size
            plain = batch.sizes[index] + layout.frame_size
            if not 0 < plain <= layout.most:
                self.refused += 1
                continue
            if sealed.count == sealed.capacity or len(sealed.buffer) - sealed.end < _LARGEST:
                return index
            if layout.frame_size:
                header = datagram_header(batch.flows[index])
                batch.buffer[begin : begin + layout.frame_size] = header
            try:
                self._connection.send(batch.view[begin : begin + plain])
                record = self._connection.bio_read(_LARGEST)
            except SSL.Error:
                raise RecordError from None
            message = layout.prefix(len(record)) + record
            if layout.padded:
                message += bytes(-len(message) % 4)
            end = sealed.end + len(message)
            sealed.buffer[sealed.end : end] = message
            sealed.starts[sealed.count] = sealed.end
            sealed.sizes[sealed.count] = len(message)
            sealed.count += 1
            sealed.end = end
        return stop

    def open(
        self, layout: RecordLayout, received: Batch, start: int, stop: int, opened: Batch
    ) -> tuple[int, Stopped]:
        """Open one message after the other."""
        for index in range(start, stop):
            begin, size = received.starts[index], received.sizes[index]
            if size < layout.least or layout.unpack(received.buffer, begin) != layout.expected(
                size
            ):
                return index, Stopped.FOREIGN
            end = opened.end or HEADROOM
            if opened.count == opened.capacity or len(opened.buffer) - end < MAX_PLAINTEXT:
                return index, Stopped.FULL
            self._connection.bio_write(
                bytes(received.view[begin + layout.prefix_size : begin + size])
            )
            try:
                taken = self._connection.recv_into(opened.view[end : end + MAX_PLAINTEXT])
            except SSL.Error:
                taken = 0
            if not taken:
                return index + 1, Stopped.VOID
            flow = 0
            if layout.frame_size:
                whole = taken >= layout.frame_size
                flow = header_flow(header_word(opened.buffer, end)[0]) if whole else -1
                if flow < 0:
                    self.control = bytes(opened.view[end : end + taken])
                    return index + 1, Stopped.CONTROL
            at = opened.count
            opened.starts[at] = end + layout.frame_size
            opened.sizes[at] = taken - layout.frame_size
            opened.flows[at] = flow
            opened.count = at + 1
            opened.end = end + taken
        return stop, Stopped.DONE


_LARGEST = MAX_PLAINTEXT + 128
"""Bytes that the largest message takes: a record, its overhead, a prefix and padding."""
