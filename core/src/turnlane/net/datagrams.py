"""Datagrams in batches: what a non-blocking UDP socket has taken, what it shall send.

Two ways lie behind one interface: `FastDatagrams` makes one system call for many datagrams,
`PortableDatagrams` makes one for each. `datagrams_of` chooses.
"""

import errno
import socket
from collections.abc import Callable, Hashable
from typing import Protocol

from turnlane.api.batch import Batch
from turnlane.net import native
from turnlane.net.system import SocketAddress, is_path_error, reason

SEGMENTS = 16
"""Datagrams that leave in one system call: a burst that common buffers on the way can hold."""

Number = Callable[[Hashable], int]
"""Turns a source, as `Datagrams.address` understands it, into a flow."""

_MAX_RUN = 65_535 - 40 - 8
"""Bytes of UDP payload that fit one packet of IPv6, which is what a run is until it is cut."""

_NOTHING = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR})
_GSO_REFUSED = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP})


class Datagrams(Protocol):
    """Reads and sends batches on a socket that somebody else opens, waits for and closes.

    `dropped` counts datagrams that the system did not take, `too_large` those among them that are
    larger than the path bears. `refused` counts how often the network said of something sent
    earlier that it did not arrive; `trouble` is what it said last, in the system's words, or empty.
    """

    dropped: int
    too_large: int
    refused: int
    trouble: str

    def read(self, batch: Batch, flow: int | Number) -> int:
        """Put what is there into `batch`, which is cleared, and return how many that are.

        Each belongs to `flow`, or to the number that `flow` gives its source. Raises OSError when
        the socket is broken, not for what ICMP says.
        """
        ...

    def send(self, batch: Batch, start: int, stop: int, to: Hashable | None = None) -> int:
        """Send packets `start` to `stop - 1`; return how many the system took.

        `to` is a source that `read` has told or `target` has made; None for a connected socket.
        """
        ...

    def target(self, address: SocketAddress) -> Hashable:
        """Return what `send` takes for an address."""
        ...

    def address(self, target: Hashable) -> SocketAddress:
        """Return the address of a source or target."""
        ...


def receive_batch() -> Batch:
    """Make a batch that holds whatever one read may bring."""
    return Batch(native.MESSAGES * native.MAX_SEGMENTS, native.MESSAGES * native.SLOT)


def datagrams_of(opened: socket.socket) -> Datagrams:
    """Return the fastest way that works here for this socket."""
    if native.wanted() and native.usable():
        return FastDatagrams(opened)
    return PortableDatagrams(opened)


class PortableDatagrams:
    """One plain call of the socket module for each datagram."""

    def __init__(self, opened: socket.socket) -> None:
        self.dropped = 0
        self.too_large = 0
        self.refused = 0
        self.trouble = ""
        self._socket = opened

    def read(self, batch: Batch, flow: int | Number) -> int:
        """Read until nothing is left or the batch is full."""
        batch.clear()
        receive = self._socket.recvfrom_into
        try:
            while not batch.full and batch.count < native.MESSAGES:
                size, source = receive(batch.slot())
                batch.commit(size, flow if isinstance(flow, int) else flow(source))
        except BlockingIOError:
            pass
        except OSError as error:
            if not is_path_error(error):
                raise
            self.refused += 1
            self.trouble = reason(error)
        return batch.count

    def send(self, batch: Batch, start: int, stop: int, to: Hashable | None = None) -> int:
        """Send one after the other."""
        taken = 0
        for index in range(start, stop):
            begin = batch.starts[index]
            taken += self._send(batch.view[begin : begin + batch.sizes[index]], to)
        self.dropped += stop - start - taken
        return taken

    def target(self, address: SocketAddress) -> Hashable:
        """Return the address itself."""
        return address

    def address(self, target: Hashable) -> SocketAddress:
        """Return the target itself."""
        return target  # type: ignore[return-value]

    def _send(self, packet: memoryview, to: Hashable | None) -> bool:
        for _ in range(2):
            try:
                if to is None:
                    self._socket.send(packet)
                else:
                    self._socket.sendto(packet, self.address(to))
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self.too_large += 1
                    return False
                if not is_path_error(error):
                    return False
                # It is about something sent before, and told: this one may go.
                self.refused += 1
                self.trouble = reason(error)
            else:
                return True
        return False


class FastDatagrams:
    """Many datagrams with one call: recvmmsg with UDP GRO, sendmsg with UDP GSO (Linux)."""

    def __init__(self, opened: socket.socket) -> None:
        self.dropped = 0
        self.too_large = 0
        self.refused = 0
        self.trouble = ""
        self._socket = opened
        self._descriptor = opened.fileno()
        self._family = opened.family
        self._name_size = 16 if self._family == socket.AF_INET else 28
        self._sending = native.SendVectors()
        self._gso = True
        self._spare: Batch | None = None
        self._kept: Batch | None = None
        self._kept_from = 0
        opened.setsockopt(native.SOL_UDP, native.UDP_GRO, 1)

    def read(self, batch: Batch, flow: int | Number) -> int:
        """Read with one call, and cut what came coalesced into the datagrams it is made of."""
        memory = native.memory_of(batch)
        vectors = memory.vectors
        if vectors is None:
            vectors = memory.vectors = native.ReceiveVectors(batch, memory)
        if not vectors.count or self._kept is not None:
            return self._read_small(batch, flow)
        batch.count = 0
        try:
            count = vectors.receive(self._descriptor)
        except OSError as error:
            if error.errno not in _NOTHING:
                if not is_path_error(error):
                    raise
                self.refused += 1
                self.trouble = reason(error)
            return 0
        if count == 1 and not vectors.controls[0]:
            batch.starts[0] = vectors.starts[0]
            batch.sizes[0] = vectors.lengths[0]
            batch.flows[0] = (
                flow if isinstance(flow, int) else flow(bytes(vectors.names[: self._name_size]))
            )
            batch.count = 1
            return 1
        if isinstance(flow, int):
            flows = [flow] * count
        else:
            flows = self._flows(bytes(vectors.names[: count * native.NAME_SIZE]), count, flow)
        lengths = vectors.lengths[:count].tolist()
        if any(vectors.controls[:count].tolist()):
            self._fill_coalesced(batch, vectors, lengths, flows)
        else:
            batch.starts[:count] = vectors.starts[:count]
            batch.sizes[:count] = lengths
            batch.flows[:count] = flows
            batch.count = count
        return batch.count

    def send(self, batch: Batch, start: int, stop: int, to: Hashable | None = None) -> int:
        """Send runs of equal size with one call each."""
        if to is not None:
            assert isinstance(to, bytes)
            self._sending.address(to)
        sizes = batch.sizes
        taken = 0
        while start < stop:
            size = sizes[start]
            end = start + 1
            if self._gso and size:
                limit = min(stop, start + SEGMENTS, start + _MAX_RUN // size)
                while end < limit and sizes[end] == size:
                    end += 1
                if end < limit and 0 < sizes[end] < size:
                    end += 1  # only the last may be shorter
            if end - start == 1:
                taken += self._send_one(batch, start, to)
            else:
                taken += self._send_run(batch, start, end, to)
            start = end
        return taken

    def target(self, address: SocketAddress) -> Hashable:
        """Return the address as the system has it."""
        port = address[1].to_bytes(2)
        host = address[0].partition("%")[0]
        if self._family == socket.AF_INET:
            return (
                int(socket.AF_INET).to_bytes(2, "little")
                + port
                + socket.inet_pton(socket.AF_INET, host)
                + bytes(8)
            )
        info, scope = (address[2], address[3]) if len(address) == 4 else (0, 0)
        return (
            int(socket.AF_INET6).to_bytes(2, "little")
            + port
            + info.to_bytes(4)
            + socket.inet_pton(socket.AF_INET6, host)
            + scope.to_bytes(4, "little")
        )

    def address(self, target: Hashable) -> SocketAddress:
        """Return a target as the socket module has it."""
        assert isinstance(target, bytes)
        port = int.from_bytes(target[2:4])
        if self._family == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, target[4:8]), port
        scope = int.from_bytes(target[24:28], "little")
        host = socket.inet_ntop(socket.AF_INET6, target[8:24])
        return host, port, int.from_bytes(target[4:8]), scope

    # Reading

    def _flows(self, names: bytes, count: int, number: Number) -> list[int]:
        size, step = self._name_size, native.NAME_SIZE
        last = names[:size]
        flow = number(last)
        if names == names[:step] * count:
            return [flow] * count
        flows = []
        for begin in range(0, count * step, step):
            name = names[begin : begin + size]
            if name != last:
                last = name
                flow = number(name)
            flows.append(flow)
        return flows

    def _fill_coalesced(
        self, batch: Batch, vectors: native.ReceiveVectors, lengths: list[int], flows: list[int]
    ) -> None:
        at = 0
        for index, length in enumerate(lengths):
            begin = vectors.starts[index]
            segment = vectors.segments[index] if vectors.controls[index] else length
            if length <= segment or not segment:
                whole, last, step = 1, length, 1
            else:
                whole, last = divmod(length, segment)
                step = segment
                whole, last = (whole + 1, last) if last else (whole, segment)
            end = at + whole
            batch.starts[at:end] = range(begin, begin + whole * step, step)
            batch.sizes[at:end] = [step] * whole
            batch.sizes[end - 1] = last
            batch.flows[at:end] = [flows[index]] * whole
            at = end
        batch.count = at

    def _read_small(self, batch: Batch, flow: int | Number) -> int:
        """Read into a batch that cannot hold what one call may bring, keeping what is left over."""
        batch.clear()
        while True:
            kept = self._kept
            if kept is None:
                kept = self._spare = self._spare or Batch(native.MAX_SEGMENTS, native.SLOT)
                if not self.read(kept, flow):
                    return batch.count
                self._kept_from = 0
            for index in range(self._kept_from, kept.count):
                if not batch.append(kept.packet(index), kept.flows[index]):
                    self._kept, self._kept_from = kept, index
                    return batch.count
            self._kept = None

    # Sending

    def _send_one(self, batch: Batch, index: int, to: Hashable | None) -> int:
        begin, size = batch.starts[index], batch.sizes[index]
        error = 0
        for _ in range(2):
            if to is None:
                try:
                    # For a single one the plain call is the fastest there is.
                    self._socket.send(batch.view[begin : begin + size])
                except OSError as caught:
                    error = caught.errno or errno.EIO
                else:
                    return 1
            else:
                self._sending.pieces[0] = native.memory_of(batch).address + begin
                self._sending.pieces[1] = size
                error = self._sending.send(self._descriptor, 1, 0)
                if not error:
                    return 1
            if not self._is_old(error):
                break
        self.dropped += 1
        self.too_large += error == errno.EMSGSIZE
        return 0

    def _send_run(self, batch: Batch, start: int, end: int, to: Hashable | None) -> int:
        address = native.memory_of(batch).address
        sending, sizes = self._sending, batch.sizes
        pieces = sending.pieces
        size, count = sizes[start], end - start
        distance = batch.starts[end - 1] - batch.starts[start]
        if distance == size * (count - 1):
            pieces[0] = address + batch.starts[start]
            pieces[1] = distance + sizes[end - 1]
            parts = 1
        else:
            at = 0
            for begin in batch.starts[start:end]:
                pieces[at] = address + begin
                pieces[at + 1] = size
                at += 2
            pieces[at - 1] = sizes[end - 1]
            parts = count
        error = sending.send(self._descriptor, parts, size)
        if error and self._is_old(error):
            error = sending.send(self._descriptor, parts, size)
        if not error:
            return count
        if error == errno.EMSGSIZE or error in _GSO_REFUSED:
            # Too large a segment for the path may be so for a shorter one, too: each tells itself.
            before = self.too_large
            taken = sum(self._send_one(batch, index, to) for index in range(start, end))
            # Kernels before 6.14 say EINVAL, too, where segments are too large for the path.
            if error != errno.EMSGSIZE and self.too_large == before:
                self._gso = False
            return taken
        self.dropped += count
        return 0

    def _is_old(self, number: int) -> bool:
        """Say whether the error is about something sent before, so that another try is worth it."""
        error = OSError(number, "")
        if number == errno.EMSGSIZE or not is_path_error(error):
            return False
        self.refused += 1
        self.trouble = reason(error)
        return True
