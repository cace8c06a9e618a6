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
from turnlane.testing.adapter_checks import CHECKS, Check, name_of
from turnlane.testing.provider_bench import CheckFailedError, NotJudgedError
from turnlane.testing.providers import Finding

if TYPE_CHECKING:
    from turnlane.testing.adapter_pytest import AdapterConformance

__all__ = ["AdapterCase", "AdapterConformance", "Finding", "run_checks"]


async def run_checks(case: AdapterCase) -> list[Finding]:
    """Run all checks on the backend that is running; return a finding of each, in order."""
    return [await _find(check, case) for check in CHECKS]


async def _find(check: Check, case: AdapterCase) -> Finding:
    name = name_of(check)
    try:
        await check(case)
    except CheckFailedError as error:
        return Finding(name, False, str(error))
    except NotJudgedError as error:
        return Finding(name, True, str(error), judged=False)
    except Exception as error:
        # Neither the kit's nor an expected fault of an adapter; its text may hold anything.
        return Finding(name, False, f"the check ended with an unexpected {type(error).__name__}")
    return Finding(name, True)


def __getattr__(name: str) -> Any:
    if name == "AdapterConformance":
        from turnlane.testing.adapter_pytest import AdapterConformance  # noqa: PLC0415 pytest

        return AdapterConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
