"""The conformance kit for platform tunnels as a class for pytest; only this module needs it."""

from typing import ClassVar

import pytest

from turnlane.testing.provider_bench import NotJudgedError
from turnlane.testing.tunnel_bench import TunnelCase
from turnlane.testing.tunnel_checks import CHECKS, Check


class TunnelConformance:
    """Subclass it as `class TestAcme(TunnelConformance)` and give it a `case`.

    Each check is a test of its own on asyncio and on trio (where that is installed); one that does
    not apply to the tunnel, or that this host cannot judge, is skipped.
    """

    case: ClassVar[TunnelCase]

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """Run each check on both backends."""
        backend: str = request.param
        if backend != "asyncio":
            pytest.importorskip(backend)
        return backend

    @pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
    async def test_conforms(self, check: Check) -> None:
        """The tunnel does what the check's docstring says."""
        try:
            await check(self.case)
        except NotJudgedError as reason:
            pytest.skip(str(reason))
