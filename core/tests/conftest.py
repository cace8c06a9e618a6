"""Fixtures that all of core's tests share."""

import os
import socket
from typing import Any

import pytest

from turnlane.net import native, openssl


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run an async test on both backends."""
    backend: str = request.param
    return backend


@pytest.fixture(params=["fast", "portable"])
def dataplane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test on both ways to move data, as far as there are two here."""
    way: str = request.param
    if way == "portable":
        monkeypatch.setenv(native.DATAPLANE_VARIABLE, "portable")
    else:
        monkeypatch.delenv(native.DATAPLANE_VARIABLE, raising=False)
        if not (native.usable() and openssl.usable()):
            pytest.skip("there is only the portable way here")
    return way


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
            if opened is not self._opened:
                return original(opened, *arguments)
            if numbers is self.sending:
                self.runs.append(0)
            number = self._next(numbers)
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
