"""The conformance kit for platform tunnels.

In pytest, with nothing else to set up:

    class TestAcme(TunnelConformance):
        case = TunnelCase(plugin=acme_tun.plugin, tunnel="acme", available=..., inject=...)

Anywhere else: `findings = await run_checks(case)`. The checks themselves are plain async functions
in `turnlane.testing.tunnel_checks`. Only `TunnelConformance` needs pytest.
"""

from typing import TYPE_CHECKING, Any

from turnlane.testing.findings import Finding, findings
from turnlane.testing.tunnel_bench import TunnelCase
from turnlane.testing.tunnel_checks import CHECKS

if TYPE_CHECKING:
    from turnlane.testing.tunnel_pytest import TunnelConformance

__all__ = ["Finding", "TunnelCase", "TunnelConformance", "run_checks"]


async def run_checks(case: TunnelCase) -> list[Finding]:
    """Run all checks on the backend that is running; return a finding of each, in order."""
    return await findings(CHECKS, case)


def __getattr__(name: str) -> Any:
    if name == "TunnelConformance":
        from turnlane.testing.tunnel_pytest import TunnelConformance  # noqa: PLC0415 pytest

        return TunnelConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
