"""What the tests of this distribution share: a context that opens nothing and remembers all."""

import pytest

from turnlane.api import AdapterError, Stage
from turnlane.testing.adapter_context import FakeAdapterContext


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def context() -> FakeAdapterContext:
    return FakeAdapterContext()


@pytest.fixture
def refusing_context(context: FakeAdapterContext) -> FakeAdapterContext:
    context.error = AdapterError(Stage.UPSTREAM_DIAL, "no_route", "no route", "check the network")
    return context
