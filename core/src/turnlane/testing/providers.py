"""The conformance kit for providers.

In pytest, with nothing else to set up:

    class TestAcme(ProviderConformance):
        case = ProviderCase(plugin=acme_turn.plugin, provider="acme", link=..., bad_links=(...,))

Anywhere else: `findings = await run_checks(case)`. The checks themselves are plain async functions
in `turnlane.testing.provider_checks`. Only `ProviderConformance` needs pytest.
"""

from typing import TYPE_CHECKING, Any

from turnlane.testing.findings import Finding, findings
from turnlane.testing.provider_bench import ProviderCase
from turnlane.testing.provider_checks import CHECKS

if TYPE_CHECKING:
    from turnlane.testing.provider_pytest import ProviderConformance

__all__ = ["Finding", "ProviderCase", "ProviderConformance", "run_checks"]


async def run_checks(case: ProviderCase) -> list[Finding]:
    """Run all checks on the backend that is running; return a finding of each, in order."""
    return await findings(CHECKS, case)


def __getattr__(name: str) -> Any:
    if name == "ProviderConformance":
        from turnlane.testing.provider_pytest import ProviderConformance  # noqa: PLC0415 pytest

        return ProviderConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
