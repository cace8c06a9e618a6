"""The conformance kit for providers as a class for pytest."""

import pytest

from turnlane.testing.kit_pytest import Conformance, judge
from turnlane.testing.provider_bench import ProviderCase
from turnlane.testing.provider_checks import CHECKS, Check, name_of


class ProviderConformance(Conformance):
    """Subclass it as `class TestAcme(ProviderConformance)` and give it a `case`.

    It is an attribute of the class, or one that a fixture (`autouse=True`) sets on `self` where the
    case needs something that runs, such as a server; let that run in a process of its own, since
    what this process holds is looked at.

    Each check is a test of its own on asyncio and on trio (where that is installed); one that does
    not apply to the provider is skipped.
    """

    case: ProviderCase

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_conforms(self, check: Check) -> None:
        """The provider does what the check's docstring says."""
        await judge(check, self.case)
