"""What the tests of the whole path share."""

import pytest

from turnlane_tests.local_peers import EventLog


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run an async test on both backends."""
    backend: str = request.param
    return backend


@pytest.fixture
def event_log() -> EventLog:
    """Keep the events of a host."""
    return EventLog()
