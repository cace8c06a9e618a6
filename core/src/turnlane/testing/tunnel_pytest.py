"""The conformance kit for platform tunnels as a class for pytest."""

from typing import ClassVar

import pytest

from turnlane.testing.kit_pytest import Conformance, judge
from turnlane.testing.tunnel_bench import TunnelCase
from turnlane.testing.tunnel_checks import CHECKS, Check


class TunnelConformance(Conformance):
    """Subclass it as `class TestAcme(TunnelConformance)` and give it a `case`.

    Each check is a test of its own on asyncio and on trio (where that is installed); one that does
    not apply to the tunnel, or that this host cannot judge, is skipped.
    """

    case: ClassVar[TunnelCase]

    @pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
    async def test_conforms(self, check: Check) -> None:
        """The tunnel does what the check's docstring says."""
        await judge(check, self.case)
