"""The conformance kit for providers as a class for pytest; the one module here that needs it."""

import pytest

from turnlane.testing.provider_bench import NotJudgedError, ProviderCase
from turnlane.testing.provider_checks import CHECKS, Check, name_of


class ProviderConformance:
    """Subclass it as `class TestAcme(ProviderConformance)` and give it a `case`.

    It is an attribute of the class, or one that a fixture (`autouse=True`) sets on `self` where the
    case needs something that runs, such as a server; let that run in a process of its own, since
    what this process holds is looked at.

    Each check is a test of its own on asyncio and on trio (where that is installed); one that does
    not apply to the provider is skipped.
    """

    case: ProviderCase

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
        """The provider does what the check's docstring says."""
        try:
            await check(self.case)
        except NotJudgedError as reason:
            pytest.skip(str(reason))
