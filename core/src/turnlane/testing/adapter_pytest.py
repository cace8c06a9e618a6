"""The conformance kit for adapters as a class for pytest."""

import pytest

from turnlane.testing.adapter_bench import AdapterCase
from turnlane.testing.adapter_checks import CHECKS, Check, name_of
from turnlane.testing.kit_pytest import Conformance, judge


class AdapterConformance(Conformance):
    """Subclass it as `class TestAcme(AdapterConformance)` and give it a `case`.

    Each check is a test of its own on asyncio and on trio (where that is installed); one that does
    not apply to the adapter is skipped.
    """

    case: AdapterCase

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_conforms(self, check: Check) -> None:
        """The adapter does what the check's docstring says."""
        await judge(check, self.case)
