"""The artifact: the sanitized record of what a provider did, for success and for failure.

Its shape is common to all providers so that one viewer and one schema serve them all. Nothing in it
may be a secret: a provider writes placeholders such as `<redacted:turn-password>` instead.
"""

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
else:
    Json = Any  # msgspec, which decodes artifacts, knows no type that contains itself


class StageRequest(msgspec.Struct, frozen=True):
    """What a step of a provider asked."""

    method: str
    """What was done: an HTTP method, or a name of the provider's own such as `parse`."""
    form_keys: tuple[str, ...] = ()
    """The names of the fields that were sent; never their values."""
    redacted_fields: tuple[str, ...] = ()
    """Which of the fields were secret."""


class StageResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came back."""

    status_code: int | None = None
    """The status code, where the protocol has one."""
    body: Json = None
    """The answer, with a placeholder for everything that is secret."""


class StageOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a step ended."""

    kind: Literal["continue", "resolution", "provider_error"]
    """Whether another step follows, the credentials are there, or it failed."""
    extracted: dict[str, str] | None = None
    """What later steps use of it: placeholders, never values that are secret."""
    error_code: str | None = None
    """The code of the error, where it failed."""


class StageRecord(msgspec.Struct, frozen=True):
    """One step of a resolution."""

    name: str
    """What the provider calls the step; `ProviderError.provider_stage` says the same."""
    endpoint_id: str
    """Whom or what it asked, by a stable name of the provider's own."""
    request: StageRequest
    """What was asked."""
    response: StageResponse
    """What came back."""
    outcome: StageOutcome
    """How the step ended."""


class ArtifactResolution(msgspec.Struct, frozen=True):
    """The part of a resolution that may be shown."""

    username_redacted: str
    """A placeholder for the user name."""
    password_redacted: str
    """A placeholder for the password."""
    address: str
    """The preferred relay, as `RelayEndpoint.address` has it."""


class ArtifactError(msgspec.Struct, frozen=True):
    """The failure as the provider saw it."""

    stage: str
    """The step that failed."""
    code: str
    """The code of the error."""


class ArtifactOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the resolution as a whole ended."""

    result_kind: Literal["resolution", "provider_error"]
    """Which of the two it was."""
    resolution: ArtifactResolution | None = None
    """The part of the credentials that may be shown, where there are some."""
    provider_error: ArtifactError | None = None
    """The failure, where it failed."""


class Artifact(msgspec.Struct, frozen=True):
    """The whole record; `msgspec.json` encodes it byte for byte the same every time."""

    provider: str
    """The id of the provider."""
    resolution_method: str
    """How it resolves, by a name of its own such as `static` or `turn_rest`."""
    input: dict[str, str]
    """What it was given, with placeholders for what is secret."""
    stages: tuple[StageRecord, ...]
    """The steps, in the order in which they were taken."""
    outcome: ArtifactOutcome
    """How it ended."""
