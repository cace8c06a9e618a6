"""What stands in for the runtime around an adapter in its own unit tests: it opens nothing.

context = FakeAdapterContext()
opened = await AcmeIngress(context, "[::1]:9000", None).open()
assert context.calls == [("bind_udp", "::1", 9000)]
"""

from typing import NoReturn

from turnlane.api import AdapterError, Batch


class FakeSocket:
    """A datagram socket that only knows where it is and whether it was closed."""

    def __init__(self, host: str, port: int) -> None:
        self.local_address = (host, port)
        self.closed = False

    async def receive(self, batch: Batch) -> None:  # noqa: ARG002 the contract's
        """Raise `AssertionError`: an adapter hands the socket on."""
        _unused()

    def send(self, batch: Batch) -> int:  # noqa: ARG002 the contract's
        """Raise `AssertionError`: an adapter hands the socket on."""
        _unused()

    def close(self) -> None:
        """Note it."""
        self.closed = True


class FakeListener:
    """A listener that only knows where it is and whether it was closed."""

    def __init__(self, host: str, port: int) -> None:
        self.local_address = (host, port)
        self.closed = False

    async def accept(self) -> NoReturn:
        """Raise `AssertionError`: nobody connects."""
        _unused()

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True


class FakeStream:
    """A connection that only knows where it leads and whether it was closed."""

    def __init__(self, host: str, port: int) -> None:
        self.remote_address = (host, port)
        self.closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:  # noqa: ARG002 the contract's
        """Raise `AssertionError`: nobody is there."""
        _unused()

    async def send(self, item: bytes) -> None:  # noqa: ARG002 the contract's
        """Raise `AssertionError`: nobody is there."""
        _unused()

    async def send_eof(self) -> None:
        """Raise `AssertionError`: nobody is there."""
        _unused()

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True


class FakeAdapterContext:
    """An `AdapterContext` that opens nothing.

    `calls` has the name and the arguments of each call, `opened` what was given; where `error` is
    set, whatever is asked next raises it.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.opened: list[FakeSocket | FakeListener | FakeStream] = []
        self.error: AdapterError | None = None

    async def bind_udp(self, host: str, port: int) -> FakeSocket:
        """Note the call; return a socket."""
        self._note("bind_udp", host, port)
        opened = FakeSocket(host, port)
        self.opened.append(opened)
        return opened

    async def connect_udp(self, host: str, port: int, flow: int) -> FakeSocket:
        """Note the call; return a socket."""
        self._note("connect_udp", host, port, flow)
        opened = FakeSocket(host, port)
        self.opened.append(opened)
        return opened

    async def listen_tcp(self, host: str, port: int) -> FakeListener:
        """Note the call; return a listener."""
        self._note("listen_tcp", host, port)
        opened = FakeListener(host, port)
        self.opened.append(opened)
        return opened

    async def connect_tcp(self, host: str, port: int) -> FakeStream:
        """Note the call; return a connection."""
        self._note("connect_tcp", host, port)
        opened = FakeStream(host, port)
        self.opened.append(opened)
        return opened

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error


def _unused() -> NoReturn:
    raise AssertionError("an adapter hands on what it opens; a FakeAdapterContext opens nothing")
