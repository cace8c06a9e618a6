"""What the tests of this distribution share: a context that opens nothing and remembers all."""

import pytest

from turnlane.api import AdapterError, Batch, Stage


class Socket:
    """A socket that only knows where it is and whether it was closed."""

    def __init__(self, host: str, port: int) -> None:
        self.local_address = (host, port)
        self.closed = False

    async def receive(self, batch: Batch) -> None:
        raise AssertionError("an adapter hands sockets on and reads from none")

    def send(self, batch: Batch) -> int:
        raise AssertionError("an adapter hands sockets on and writes to none")

    def close(self) -> None:
        self.closed = True


class Context:
    """An `AdapterContext`; `error` is raised by whatever is asked next."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.sockets: list[Socket] = []
        self.error: AdapterError | None = None

    async def bind_udp(self, host: str, port: int) -> Socket:
        return self._open("bind", host, port)

    async def connect_udp(self, host: str, port: int, flow: int) -> Socket:
        return self._open("connect", host, port, flow)

    def _open(self, call: str, host: str, port: int, *more: int) -> Socket:
        self.calls.append((call, host, port, *more))
        if self.error is not None:
            raise self.error
        socket = Socket(host, port)
        self.sockets.append(socket)
        return socket


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def refusing_context(context: Context) -> Context:
    context.error = AdapterError(Stage.UPSTREAM_DIAL, "no_route", "no route", "check the network")
    return context
