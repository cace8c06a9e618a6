"""What the tests of sockets share: calls of the system that fail as a test has them fail."""

import os
import socket
from typing import Any

import pytest

from turnlane.net import native


class Trouble:
    """The next calls on one socket fail with these numbers, whichever data plane makes them.

    A number of 0 lets one call pass; when none are left, all pass.
    """

    def __init__(self, opened: socket.socket) -> None:
        self.reading: list[int] = []
        self.sending: list[int] = []
        self.runs: list[int] = []
        """Sizes of the segments that were asked for, 0 for a datagram by itself."""
        self._opened = opened

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand between the data planes and the system."""
        descriptor = self._opened.fileno()
        receive, send = native.ReceiveVectors.receive, native.SendVectors.send

        def receive_many(vectors: native.ReceiveVectors, of: int) -> int:
            number = self._next(self.reading) if of == descriptor else 0
            if number:
                raise OSError(number, os.strerror(number))
            return receive(vectors, of)

        def send_many(vectors: native.SendVectors, of: int, pieces: int, segment: int) -> int:
            if of != descriptor:
                return send(vectors, of, pieces, segment)
            self.runs.append(segment)
            return self._next(self.sending) or send(vectors, of, pieces, segment)

        monkeypatch.setattr(native.ReceiveVectors, "receive", receive_many)
        monkeypatch.setattr(native.SendVectors, "send", send_many)
        for name, numbers in (
            *(("recv", self.reading), ("recvfrom_into", self.reading)),
            *(("send", self.sending), ("sendto", self.sending)),
        ):
            monkeypatch.setattr(socket.socket, name, self._call(name, numbers))

    def _call(self, name: str, numbers: list[int]) -> Any:
        original = getattr(socket.socket, name)

        def call(opened: socket.socket, *arguments: Any) -> Any:
            number = self._next(numbers) if opened is self._opened else 0
            if number:
                raise OSError(number, os.strerror(number))
            return original(opened, *arguments)

        return call

    @staticmethod
    def _next(numbers: list[int]) -> int:
        return numbers.pop(0) if numbers else 0


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that makes calls on a socket fail: `trouble(opened).reading.append(…)`."""

    def make(opened: socket.socket) -> Trouble:
        made = Trouble(opened)
        made.install(monkeypatch)
        return made

    return make
