"""Which anyio backends a test runs on."""

import pytest

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""For tests whose point is elsewhere and whose seconds are dear."""

EACH_BACKEND = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
