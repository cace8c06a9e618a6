"""The conformance kit for providers.

In pytest, with nothing else to set up:

    class TestAcme(ProviderConformance):
        case = ProviderCase(plugin=acme_turn.plugin, provider="acme", link=..., bad_links=(...,))

Anywhere else: `findings = await run_checks(case)`. The checks themselves are plain async functions
in `turnlane.testing.provider_checks`. Only `ProviderConformance` needs pytest.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from turnlane.testing.provider_bench import CheckFailedError, NotJudgedError, ProviderCase
from turnlane.testing.provider_checks import CHECKS, Check, name_of

if TYPE_CHECKING:
    from turnlane.testing.provider_pytest import ProviderConformance

__all__ = ["Finding", "ProviderCase", "ProviderConformance", "run_checks"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    `message` says what is wrong, or why the check was not judged: it does not apply, or another
    one that did not pass must pass before. A check that was not judged counts as passed.
    """

    check: str
    passed: bool
    message: str = ""
    judged: bool = True


async def run_checks(case: ProviderCase) -> list[Finding]:
    """Run all checks on the backend that is running; return a finding of each, in order."""
    return [await _find(check, case) for check in CHECKS]


async def _find(check: Check, case: ProviderCase) -> Finding:
    name = name_of(check)
    try:
        await check(case)
    except CheckFailedError as error:
        return Finding(name, False, str(error))
    except NotJudgedError as error:
        return Finding(name, True, str(error), judged=False)
    except Exception as error:
        # Neither the kit's nor an expected fault of a provider; its text may hold anything.
        return Finding(name, False, f"the check ended with an unexpected {type(error).__name__}")
    return Finding(name, True)


def __getattr__(name: str) -> Any:
    if name == "ProviderConformance":
        from turnlane.testing.provider_pytest import ProviderConformance  # noqa: PLC0415 pytest

        return ProviderConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
