"""Errors that name every field that is wrong, and none of the values."""

from turnlane.api import ProviderError, Violation

SHOWN = 20
"""Violations that the message names; `violations` has all of them."""


class ViolationsError(ProviderError):
    """A document that does not have the form that is wanted; `violations` are sorted by field."""

    def __init__(
        self, code: str, what: str, advice: str, stage: str, violations: list[Violation]
    ) -> None:
        self.violations = tuple(sorted(violations))
        told = [f"{each.field}: {each.message} ({each.code})" for each in self.violations[:SHOWN]]
        if len(self.violations) > SHOWN:
            told.append(f"and {len(self.violations) - SHOWN} more")
        super().__init__(code, f"{what}: {'; '.join(told)}", advice, provider_stage=stage)
