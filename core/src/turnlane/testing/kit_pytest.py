"""What the conformance kits' classes for pytest share; like them, this module needs it."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from turnlane.testing.findings import NotJudgedError

C = TypeVar("C")


class Conformance:
    """Runs each test on asyncio, and on trio where that is installed."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """Run each check on both backends."""
        backend: str = request.param
        if backend != "asyncio":
            pytest.importorskip(backend)
        return backend


async def judge(check: Callable[[C], Awaitable[None]], case: C) -> None:
    """Run one check; one that cannot be judged is skipped with the reason."""
    try:
        await check(case)
    except NotJudgedError as reason:
        pytest.skip(str(reason))
