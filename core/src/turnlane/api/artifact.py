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


class StageRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a provider's stage asked: the method, the names of its fields, which were secret."""

    method: str
    form_keys: tuple[str, ...] = ()
    redacted_fields: tuple[str, ...] = ()


class StageResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came back: a status code where the protocol has one, and a sanitized body."""

    status_code: int | None = None
    body: Json = None


class StageOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a stage ended. `extracted` holds placeholders, never values that are secret."""

    kind: Literal["continue", "resolution", "provider_error"]
    extracted: dict[str, str] | None = None
    error_code: str | None = None


class StageRecord(msgspec.Struct, frozen=True):
    """One step of a resolution."""

    name: str
    endpoint_id: str
    request: StageRequest
    response: StageResponse
    outcome: StageOutcome


class ArtifactResolution(msgspec.Struct, frozen=True):
    """The part of a resolution that may be shown."""

    username_redacted: str
    password_redacted: str
    address: str


class ArtifactError(msgspec.Struct, frozen=True):
    """The failure as the provider saw it."""

    stage: str
    code: str


class ArtifactOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the resolution as a whole ended."""

    result_kind: Literal["resolution", "provider_error"]
    resolution: ArtifactResolution | None = None
    provider_error: ArtifactError | None = None


class Artifact(msgspec.Struct, frozen=True):
    """The whole record; `msgspec.json` encodes it byte for byte the same every time."""

    provider: str
    resolution_method: str
    input: dict[str, str]
    stages: tuple[StageRecord, ...]
    outcome: ArtifactOutcome
