"""Generator and sink in a process of their own: `python -m turnlane_lab.bench.peer`.

A peer has either connected sockets, one for each flow, or one bound socket that answers whoever
said hello; all of them were opened by the process that starts it. It reads commands, a line each,
from its standard input, and answers each with a line of JSON:

    hello                                     opens its flows: {"flows": how many are known}
    expect RUN ACKS                           counts what comes of this run from now on: {}
    count                                     {"received": datagrams, "bytes": their payload}
    send RUN RATE BURST WINDOW SECONDS SIZES  sends, then {"sent": …, "seconds": …}
    ping RUN COUNT SECONDS SIZE               one at a time: {"lost": …, "ns": [each round trip]}

`RATE` is in datagrams a second and evenly spaced by `BURST`, 0 for as many as possible; `WINDOW`
bounds those under way (0: no bound) by what the other peer acknowledges past the path, over a
socket that the two share, where it was told to (`ACKS` is 1). It ends when its input does.
"""

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from turnlane_lab.bench.wire import (
    CHANNEL,
    HEADER,
    MAGIC,
    MIN_SIZE,
    Inbox,
    Kind,
    Volley,
    datagram,
    framed,
    receives_coalesced,
)

ACK = struct.Struct("!IQ")
"""A run's number and how many datagrams of it have arrived."""

STALL = 0.02
"""Seconds without an acknowledgement after which what is under way counts as lost."""

PATIENCE = 0.5
"""Seconds until a ping counts as lost."""

MAX_BEHIND = 0.02
"""Seconds that a schedule may be late before it is given up and goes on from now."""

MAX_FLOWS = 256

Address = tuple[str, int]


class Sending:
    """A run of datagrams, on a schedule or as fast as the window opens."""

    def __init__(self, peer: "Peer", run: int, *, interval: float, seconds: float) -> None:
        self.run = run
        self.sent = 0
        self.acknowledged = 0
        self._peer = peer
        self._interval = interval
        self._window = 0
        self._given_up = 0
        self._began = self._next = self._progress = time.perf_counter()
        self._end = self._began + seconds
        self._volleys: list[Volley] = []
        self._shots = 0

    def load(self, sizes: Sequence[int], burst: int, window: int) -> "Sending":
        """Prepare the volleys: as many as it takes for the sizes to come round again."""
        self._window = window
        count = 1 if len(sizes) == 1 else max(1, len(sizes) // burst)
        for first in range(0, count * burst, burst):
            payloads = (
                datagram(Kind.DATA, self.run, 0, sizes[index % len(sizes)])
                for index in range(first, first + burst)
            )
            self._volleys.append(Volley([framed(each, self._peer.channel) for each in payloads]))
        return self

    def due(self, now: float) -> float:
        """Say when there is something to do, unless an acknowledgement comes before."""
        if self._window and not self._open():
            return min(self._progress + STALL, self._end)
        return min(self._next, self._end) if self._interval else now

    def work(self, now: float) -> dict[str, object] | None:
        """Send what is due; return the answer at the end."""
        if now >= self._end:
            return {"sent": self.sent, "seconds": now - self._began}
        if self._window and not self._open() and now >= self._progress + STALL:
            self._given_up = self.sent - self.acknowledged
            self._progress = now
        if self._interval and now - self._next > MAX_BEHIND:
            self._next = now
        for _ in range(16):
            if (self._interval and self._next > now) or (self._window and not self._open()):
                return None
            volley = self._volleys[self._shots % len(self._volleys)]
            self.sent += self._peer.shoot(volley, self._shots)
            self._shots += 1
            self._next += self._interval
        return None

    def acknowledge(self, run: int, received: int) -> None:
        """Take note of what has arrived; what belongs to an older run is not ours."""
        if run == self.run:
            self.acknowledged = max(self.acknowledged, received)
            self._progress = time.perf_counter()

    def _open(self) -> bool:
        under_way = self.sent - self.acknowledged - self._given_up
        return under_way + self._volleys[0].count <= self._window


class Pinging:
    """Round trips, one at a time."""

    def __init__(self, peer: "Peer", run: int, count: int, seconds: float, size: int) -> None:
        self.run = run
        self._peer = peer
        self._count = count
        self._size = size
        self._end = time.perf_counter() + seconds
        self._number = 0
        self._sent_at: float | None = None
        self._taken: list[int] = []
        self._lost = 0

    def due(self, now: float) -> float:
        """Say when there is something to do, unless a PONG comes before."""
        return now if self._sent_at is None else self._sent_at + PATIENCE

    def work(self, now: float) -> dict[str, object] | None:
        """Send the next ping once the last one is back or lost; return the answer at the end."""
        if self._sent_at is not None:
            if now < self._sent_at + PATIENCE:
                return None
            self._lost += 1
        if self._number == self._count or now >= self._end:
            return {"lost": self._lost, "ns": self._taken}
        self._number += 1
        ping = datagram(Kind.PING, self.run, self._number, self._size)
        self._sent_at = time.perf_counter()
        self._peer.shoot(Volley([framed(ping, self._peer.channel)]), 0)
        return None

    def returned(self, run: int, number: int) -> None:
        """Take a PONG; one that comes too late, or twice, belongs to no ping under way."""
        if self._sent_at is not None and (run, number) == (self.run, self._number):
            self._taken.append(int((time.perf_counter() - self._sent_at) * 1e9))
            self._sent_at = None


class Peer:
    """One peer: its sockets, what it counts and what it is doing."""

    def __init__(
        self,
        near: Sequence[socket.socket],
        far: socket.socket | None,
        acks: socket.socket | None,
        channel: int = 0,
    ) -> None:
        self.channel = channel
        self._near = list(near)
        self._far = far
        self._acks = acks
        self._flows: list[Address] = []
        self._run = -1
        self._received = 0
        self._bytes = 0
        self._acknowledges = False
        self._job: Sending | Pinging | None = None
        self._inbox = Inbox()
        self._acks_rest = b""

    def serve(self, commands: int, answers: int) -> None:
        """Do what is asked until `commands` ends."""
        inner = [*self._near, *([self._far] if self._far else [])]
        for opened in inner:
            opened.setblocking(False)
            receives_coalesced(opened)
        watched = {each.fileno(): each for each in [*inner, *([self._acks] if self._acks else [])]}
        lines = _Lines()
        while True:
            if self._job is not None:
                self._work(time.perf_counter(), answers)
            wait = None
            if self._job is not None:
                now = time.perf_counter()
                wait = max(0.0, self._job.due(now) - now)
            for each in select.select([commands, *watched], [], [], wait)[0]:
                found = watched.get(each)
                if found is self._acks and found is not None:
                    self._read_acks(found)
                elif found is not None:
                    self._receive(found)
                elif not (data := os.read(commands, 4096)):
                    return
                else:
                    self._obey(lines.take(data), answers)

    def shoot(self, volley: Volley, number: int) -> int:
        """Send a volley on one of the flows, in turn; return how many the system took."""
        if self._near:
            return volley.send(self._near[number % len(self._near)])
        if not self._flows or self._far is None:
            return 0
        return volley.send(self._far, self._flows[number % len(self._flows)])

    def _work(self, now: float, answers: int) -> None:
        assert self._job is not None
        answer = self._job.work(now)
        if answer is not None:
            self._job = None
            _write(answers, answer)

    def _obey(self, lines: Iterable[str], answers: int) -> None:
        for line in lines:
            answer = self._do(line.split())
            if answer is not None:
                _write(answers, answer)

    def _do(self, words: list[str]) -> dict[str, object] | None:
        match words:
            case ["hello"]:
                for number in range(len(self._near)):
                    hello = datagram(Kind.HELLO, 0, number, MIN_SIZE)
                    self.shoot(Volley([framed(hello, self.channel)]), number)
                return {"flows": len(self._near) or len(self._flows)}
            case ["expect", run, acks]:
                self._run, self._received, self._bytes = int(run), 0, 0
                self._acknowledges = acks == "1"
                return {}
            case ["count"]:
                return {"received": self._received, "bytes": self._bytes}
            case ["send", run, rate, burst, window, seconds, sizes]:
                interval = int(burst) / float(rate) if float(rate) else 0.0
                sending = Sending(self, int(run), interval=interval, seconds=float(seconds))
                listed = [int(size) for size in sizes.split(",")]
                self._job = sending.load(listed, int(burst), int(window))
            case ["ping", run, count, seconds, size]:
                self._job = Pinging(self, int(run), int(count), float(seconds), int(size))
            case _:
                raise SystemExit(f"not a command: {' '.join(words)}")
        return None

    def _receive(self, opened: socket.socket) -> None:
        before = self._received
        framing = CHANNEL.size if self.channel else 0
        for taken, source in self._inbox.take(opened):
            packet = taken[framing:]
            if len(packet) < MIN_SIZE:
                continue
            magic, kind, run, number = HEADER.unpack_from(packet)
            if magic != MAGIC:
                continue
            if kind == Kind.DATA:
                if run == self._run:
                    self._received += 1
                    self._bytes += len(packet)
            elif kind == Kind.PING and self._far:
                self._far.sendto(datagram(Kind.PONG, run, number, len(packet)), source)
            elif kind == Kind.PONG and isinstance(self._job, Pinging):
                self._job.returned(run, number)
            elif kind == Kind.HELLO and source not in self._flows[:MAX_FLOWS]:
                self._flows = [*self._flows, source][-MAX_FLOWS:]
        if self._acknowledges and self._acks and self._received != before:
            self._acks.send(ACK.pack(self._run, self._received))

    def _read_acks(self, acks: socket.socket) -> None:
        data = self._acks_rest + acks.recv(65_536)
        whole = len(data) - len(data) % ACK.size
        self._acks_rest = data[whole:]
        if whole and isinstance(self._job, Sending):
            self._job.acknowledge(*ACK.unpack_from(data, whole - ACK.size))


class _Lines:
    """Cuts what was read into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> Iterator[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return (line.decode() for line in lines)


def _write(answers: int, answer: dict[str, object]) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(answers, data) :]


def main(arguments: Sequence[str]) -> None:
    """Be a peer over the sockets that were inherited."""
    parser = argparse.ArgumentParser(prog="turnlane_lab.bench.peer")
    parser.add_argument("--near", default="", help="descriptors of connected sockets")
    parser.add_argument("--far", type=int, default=-1, help="descriptor of a bound socket")
    parser.add_argument("--acks", type=int, default=-1, help="descriptor of what peers share")
    parser.add_argument("--channel", type=int, default=0, help="a TURN channel to frame for")
    told = parser.parse_args(arguments)
    near = [socket.socket(fileno=int(each)) for each in told.near.split(",") if each]
    far = socket.socket(fileno=told.far) if told.far >= 0 else None
    acks = socket.socket(fileno=told.acks) if told.acks >= 0 else None
    # By default the system may wake us 50 µs late, a quarter of what lies between two datagrams.
    slack = Path("/proc/self/timerslack_ns")
    if slack.exists():
        slack.write_text("1000")
    Peer(near, far, acks, told.channel).serve(sys.stdin.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main(sys.argv[1:])
