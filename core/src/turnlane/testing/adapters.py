"""The conformance kit for adapters: both classes, datagram and stream, in both directions.

In pytest, with nothing else to set up:

    class TestAcme(AdapterConformance):
        case = AdapterCase(
            plugin=acme.plugin, direction=Direction.EGRESS, adapter="acme",
            address="127.0.0.1:{port}", bad_addresses=("nowhere",),
        )

Anywhere else: `findings = await run_checks(case)`. The checks themselves are plain async functions
in `turnlane.testing.adapter_checks`. Only `AdapterConformance` needs pytest.
"""

from typing import TYPE_CHECKING, Any

from turnlane.testing.adapter_bench import AdapterCase
from turnlane.testing.adapter_checks import CHECKS
from turnlane.testing.findings import Finding, findings

if TYPE_CHECKING:
    from turnlane.testing.adapter_pytest import AdapterConformance

__all__ = ["AdapterCase", "AdapterConformance", "Finding", "run_checks"]


async def run_checks(case: AdapterCase) -> list[Finding]:
    """Run all checks on the backend that is running; return a finding of each, in order."""
    return await findings(CHECKS, case)


def __getattr__(name: str) -> Any:
    if name == "AdapterConformance":
        from turnlane.testing.adapter_pytest import AdapterConformance  # noqa: PLC0415 pytest

        return AdapterConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
