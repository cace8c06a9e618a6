"""The unit of the data plane: many datagrams in one buffer, never an object per packet."""

from collections.abc import Iterator

HEADROOM = 8
"""Bytes before every packet that belong to the batch: whoever sends it on writes headers there."""

MAX_DATAGRAM = 65_535
"""No UDP payload is larger (RFC 768: the length field has 16 bits)."""


class Batch:
    """Up to `capacity` datagrams as a struct of arrays over one contiguous buffer.

    Packet `i` is `buffer[starts[i] : starts[i] + sizes[i]]` and belongs to flow `flows[i]`. Only
    the first `len(batch)` entries of the arrays mean anything. A flow is a small integer (24 bits)
    that the local end gives to each of its peers.

    Packets stand in ascending order, and are used once, from the first to the last: the `HEADROOM`
    bytes before a packet are free for headers, and may be the end of the packet before it. Batches
    are filled in place and reused: whoever receives one uses it before the next `receive`, or
    copies.
    """

    __slots__ = ("buffer", "capacity", "count", "end", "flows", "native", "sizes", "starts", "view")

    buffer: bytearray
    """The bytes of all packets."""
    capacity: int
    """The most packets that it holds."""
    count: int
    """Packets that it holds now, as `len` tells."""
    end: int
    """Bytes of the buffer that are taken."""
    flows: list[int]
    """The flow of each packet."""
    native: object
    """What the runtime keeps beside the buffer; nobody else's business."""
    sizes: list[int]
    """The bytes of each packet."""
    starts: list[int]
    """Where each packet begins in the buffer."""
    view: memoryview
    """The buffer, to be sliced without a copy."""

    def __init__(self, capacity: int = 64, size: int = 256 * 1024) -> None:
        """Make an empty batch for `capacity` packets that share `size` bytes, headroom included."""
        if capacity < 1 or size < MAX_DATAGRAM + HEADROOM:
            raise ValueError("a batch holds at least one datagram of the largest size")
        self.buffer = bytearray(size)
        self.view = memoryview(self.buffer)
        self.capacity = capacity
        self.starts = [0] * capacity
        self.sizes = [0] * capacity
        self.flows = [0] * capacity
        self.native = None
        self.count = 0
        self.end = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[memoryview]:
        view = self.view
        for index in range(self.count):
            start = self.starts[index]
            yield view[start : start + self.sizes[index]]

    def clear(self) -> None:
        """Forget all packets; their bytes may be overwritten from now on."""
        self.count = 0
        self.end = 0

    @property
    def full(self) -> bool:
        """Whether a datagram of the largest size might no longer fit."""
        return self.count == self.capacity or len(self.buffer) - self.end < MAX_DATAGRAM + HEADROOM

    def append(self, packet: bytes | bytearray | memoryview, flow: int = 0) -> bool:
        """Copy one packet in; False (and nothing changed) when there is no room for it."""
        start = self.end + HEADROOM
        end = start + len(packet)
        if self.count == self.capacity or end > len(self.buffer):
            return False
        self.buffer[start:end] = packet
        self.commit(len(packet), flow)
        return True

    def slot(self) -> memoryview:
        """Return where the next packet's bytes go, as far as there is room; `commit` keeps them."""
        return self.view[self.end + HEADROOM :]

    def commit(self, size: int, flow: int) -> None:
        """Keep `size` bytes that were written to `slot()` as the next packet, of flow `flow`."""
        index = self.count
        self.starts[index] = self.end + HEADROOM
        self.sizes[index] = size
        self.flows[index] = flow
        self.end += HEADROOM + size
        self.count = index + 1

    def packet(self, index: int) -> memoryview:
        """Return the bytes of packet `index`."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        start = self.starts[index]
        return self.view[start : start + self.sizes[index]]

    def part(self, start: int, stop: int) -> "Batch":
        """Return packets `start` to `stop - 1` as a batch that shares the buffer, to be read."""
        part = object.__new__(Batch)
        part.buffer = self.buffer
        part.view = self.view
        part.native = self.native
        part.starts = self.starts[start:stop]
        part.sizes = self.sizes[start:stop]
        part.flows = self.flows[start:stop]
        part.capacity = part.count = stop - start
        part.end = len(self.buffer)
        return part
