"""Settings: a plugin declares what it can be told as a msgspec Struct; violations name the field.

    class AcmeSettings(msgspec.Struct, frozen=True, kw_only=True):
        region: Annotated[str, setting("Where to ask.", pattern="[a-z]{2}")] = "eu"
        api_key: Annotated[Secret[str], setting("The account's key.", write_only=True)]
        lifetime: Annotated[int, setting("Seconds.", minimum=60, maximum=86400)] = 3600

Front ends read the marks: `profile` settings are kept with a profile, `ephemeral` ones are asked
anew each time, and what is `write_only` is never shown again. Secrets are of type `Secret[str]`.

What the fields' types cannot say, a schema checks in `__post_init__` and raises `SettingsError`
with a `Violation` of each field. Of two settings that exclude each other the one that is less
wanted is `unknown`: beside the other there is no such setting; one that another needs is
`required`.
"""

from enum import StrEnum
from typing import Any, Literal

import msgspec

from turnlane.api.errors import PolicyError


class Kept(StrEnum):
    """For how long a front end keeps a setting."""

    PROFILE = "profile"
    """With the profile, until it is changed."""
    EPHEMERAL = "ephemeral"
    """For one session: it is asked anew each time."""


ViolationCode = Literal["required", "unknown", "type", "enum", "pattern", "range"]
"""What can be wrong with a field; the codes are stable, and there are no others."""


class Violation(msgspec.Struct, frozen=True, order=True):
    """What is wrong with one field."""

    field: str
    """The field; inside of a table or a list with the way to it, such as `servers[0].port`."""
    code: ViolationCode
    """What kind of thing is wrong: `required`, `unknown`, `type`, `enum`, `pattern` or `range`."""
    message: str
    """What is wrong, in words that never repeat the value."""


class SettingsError(PolicyError):
    """Settings that do not fit their schema; `violations` has all of them, by field.

    `owner` says whose settings they are, such as `the provider acme`.
    """

    violations: tuple[Violation, ...]
    """Every field that does not fit."""

    def __init__(self, owner: str, violations: tuple[Violation, ...], advice: str = "") -> None:
        fields = ", ".join(dict.fromkeys(each.field for each in violations))
        super().__init__(
            "invalid_settings", f"the settings of {owner} do not fit: {fields}", advice
        )
        self.violations = violations
        self.details = tuple(f"{each.field}: {each.message} ({each.code})" for each in violations)


def setting(
    description: str,
    *,
    kept: Kept = Kept.PROFILE,
    write_only: bool = False,
    pattern: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> msgspec.Meta:
    """Describe a field of a settings schema, for `Annotated`.

    `pattern` is a regular expression for the whole of a text; `minimum` and `maximum` bound a
    number, both included.
    """
    constraints: dict[str, Any] = {}
    if pattern is not None:
        constraints["pattern"] = rf"\A(?:{pattern})\Z"
    if minimum is not None:
        constraints["ge"] = minimum
    if maximum is not None:
        constraints["le"] = maximum
    extra = {"kept": kept.value, "write_only": write_only}
    return msgspec.Meta(description=description, extra=extra, **constraints)
