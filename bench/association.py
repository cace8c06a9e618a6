"""Client straight to server, without a relay: one association between two processes.

`datagrams_per_second` starts this file twice. What is measured is what `Sender` and `Receiver`
drive; other ways of driving an association are measured by changing those two.
"""

import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from turnlane.api.batch import Batch
from turnlane.net.datagrams import datagrams_of, receive_batch
from turnlane.net.dtls import MAX_PAYLOAD, DtlsAssociation
from turnlane.net.dtls_state import State
from turnlane.net.identity import Identity
from turnlane.net.record_layout import RecordLayout, Stopped
from turnlane.net.udp import PeerTable
from turnlane_lab.bench.measures import BURST
from turnlane_lab.bench.processes import Part
from turnlane_lab.bench.wire import BUFFER

HOST = "127.0.0.1"
HANDSHAKE = 10.0


LAYOUT = RecordLayout(channel=None, padded=False, framed=True, most=MAX_PAYLOAD)


class Receiver:
    """The server's end: counts the payloads that come."""

    def __init__(self, opened: socket.socket) -> None:
        self.received = 0
        self._datagrams = datagrams_of(opened)
        self._association = DtlsAssociation.server(Identity.generate(time.time()))  # noqa: TID251
        self._association.start(time.monotonic())
        self._taken, self._opened = receive_batch(), receive_batch()
        self._peers = PeerTable()

    def work(self) -> None:
        """Take what is there, and answer what is to be answered."""
        association, taken = self._association, self._taken
        count = self._datagrams.read(taken, self._peers.flow)
        index = 0
        while index < count:
            self._opened.clear()
            index, stopped = association.open(LAYOUT, taken, index, count, self._opened)
            self.received += self._opened.count
            if stopped is Stopped.FOREIGN:
                association.receive_datagram(bytes(taken.packet(index)), time.monotonic())
                answers = Batch()
                for answer in association.datagrams_to_send():
                    answers.append(answer)
                source = self._peers.source(taken.flows[index])
                self._datagrams.send(answers, 0, answers.count, source)
                index += 1


class Sender:
    """The client's end: sends as many payloads as it can."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._datagrams = datagrams_of(opened)
        self._association = DtlsAssociation.client(pin=None)
        self._batch, self._sealed = Batch(), Batch()
        self._shake_hands()

    def send(self, payload: bytes, count: int) -> None:
        """Send a payload some times."""
        batch, sealed = self._batch, self._sealed
        batch.clear()
        for _ in range(count):
            batch.append(payload, 1)
        self._association.seal(LAYOUT, batch, 0, count, sealed)
        self._datagrams.send(sealed, 0, sealed.count)

    def _shake_hands(self) -> None:
        association = self._association
        association.start(time.monotonic())
        deadline = time.monotonic() + HANDSHAKE
        while association.state is State.HANDSHAKING and time.monotonic() < deadline:
            for datagram in association.datagrams_to_send():
                self._socket.send(datagram)
            if select.select([self._socket], [], [], 0.1)[0]:
                association.receive_datagram(self._socket.recv(65_535), time.monotonic())
        if association.state is not State.ESTABLISHED:
            raise RuntimeError("no association")


def datagrams_per_second(size: int, seconds: float, folder: Path) -> float:
    """Return how many datagrams a second cross one association, from sender to receiver."""
    command = [sys.executable, __file__]
    with Part("receiver", [*command, "receive"], folder / "receiver.log") as receiver:
        port = receiver.answer()["port"]
        words = ["send", str(port), str(size), str(seconds)]
        with Part("sender", [*command, *words], folder / "sender.log") as sender:
            told = sender.answer(timeout=seconds + 30)
            received = receiver.ask("count")["received"]
    return float(received / told["seconds"])


def _receive() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        opened.bind((HOST, 0))
        opened.setblocking(False)
        _tell({"port": opened.getsockname()[1]})
        receiver = Receiver(opened)
        while True:
            ready, _, _ = select.select([opened, sys.stdin], [], [])
            if opened in ready:
                receiver.work()
            if sys.stdin in ready:
                if not sys.stdin.readline():
                    return
                _tell({"received": receiver.received})


def _send(port: int, size: int, seconds: float) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        opened.connect((HOST, port))
        sender = Sender(opened)
        payload = bytes(size)
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            sender.send(payload, BURST)
        _tell({"seconds": time.perf_counter() - began})
        sys.stdin.readline()


def _tell(fields: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main(words: Sequence[str]) -> None:
    """Be one of the two ends."""
    match words:
        case ["receive"]:
            _receive()
        case ["send", port, size, seconds]:
            _send(int(port), int(size), float(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
