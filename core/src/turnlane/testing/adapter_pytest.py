"""The conformance kit for adapters as a class for pytest; the one module here that needs it."""

import pytest

from turnlane.testing.adapter_bench import AdapterCase
from turnlane.testing.adapter_checks import CHECKS, Check, name_of
from turnlane.testing.provider_bench import NotJudgedError


class AdapterConformance:
    """Subclass it as `class TestAcme(AdapterConformance)` and give it a `case`.

    Each check is a test of its own on asyncio and on trio (where that is installed); one that does
    not apply to the adapter is skipped.
    """

    case: AdapterCase

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """Run each check on both backends."""
        backend: str = request.param
        if backend != "asyncio":
            pytest.importorskip(backend)
        return backend

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_conforms(self, check: Check) -> None:
        """The adapter does what the check's docstring says."""
        try:
            await check(self.case)
        except NotJudgedError as reason:
            pytest.skip(str(reason))
