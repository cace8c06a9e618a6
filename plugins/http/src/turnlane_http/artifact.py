"""The artifact of a resolution: what was asked and answered, with placeholders for secrets.

Nothing of an answer is copied: what was understood is written anew, so that a field nobody knows,
or a key that an error page repeats, is never part of it.
"""

from dataclasses import dataclass, field

from turnlane.api import (
    Artifact,
    ArtifactError,
    ArtifactOutcome,
    ArtifactResolution,
    ProviderError,
    StageOutcome,
    StageRecord,
    StageRequest,
    StageResponse,
)
from turnlane.api.artifact import Json
from turnlane_http.answer import Answer
from turnlane_http.errors import ANSWER_STAGE, REQUEST_STAGE, ExchangeError
from turnlane_http.settings import HttpSettings
from turnlane_http.turn_uri import format_turn_uri

PROVIDER_ID = "http"

_LINK = "<redacted:link>"
_USERNAME = "<redacted:turn-username>"
_PASSWORD = "<redacted:turn-password>"  # noqa: S105 a placeholder


@dataclass
class Record:
    """Collects the stages; `shown` is the link as far as it may be shown."""

    shown: str = _LINK
    stages: list[StageRecord] = field(default_factory=list)

    def requested(
        self, settings: HttpSettings, status: int | None, error: ExchangeError | None = None
    ) -> None:
        """Note how the request went."""
        outcome = StageOutcome("continue")
        if error is not None:
            wait = error.retry_after
            extracted = None if wait is None else {"retry_after": str(wait)}
            outcome = StageOutcome("provider_error", extracted, error.code)
        names = ("link", *settings.sent_secrets)
        self._add(
            REQUEST_STAGE,
            StageRequest(settings.method, names, names),
            StageResponse(status_code=status),
            outcome,
        )

    def answered(self, answer: Answer) -> None:
        """Note what was understood of an answer."""
        uris: list[Json] = [format_turn_uri(endpoint) for endpoint in answer.endpoints]
        body: dict[str, Json] = {
            "username": _USERNAME,
            "password": _PASSWORD,
            "ttl": answer.lifetime,
            "uris": uris,
            "ignored": answer.ignored,
        }
        extracted = {
            "username": _USERNAME,
            "password": _PASSWORD,
            "normalized_address": answer.endpoints[0].address,
        }
        self._add(
            ANSWER_STAGE,
            StageRequest("PARSE", ("body",), ("body",)),
            StageResponse(body=body),
            StageOutcome("resolution", extracted),
        )

    def failed(self, stage: str, code: str) -> None:
        """Note that reading the link or the answer failed."""
        read = ("body",) if stage == ANSWER_STAGE else ("link",)
        self._add(
            stage,
            StageRequest("PARSE", read, read),
            StageResponse(),
            StageOutcome("provider_error", error_code=code),
        )

    def resolution(self, answer: Answer) -> Artifact:
        """Return the artifact of a success."""
        shown = ArtifactResolution(_USERNAME, _PASSWORD, answer.endpoints[0].address)
        return self._artifact(answer.format, ArtifactOutcome("resolution", shown))

    def refusal(self, error: ProviderError) -> Artifact:
        """Return the artifact of a failure."""
        told = ArtifactError(error.provider_stage, error.code)
        outcome = ArtifactOutcome("provider_error", provider_error=told)
        return self._artifact(REQUEST_STAGE, outcome)

    def _add(
        self, name: str, request: StageRequest, response: StageResponse, outcome: StageOutcome
    ) -> None:
        self.stages.append(StageRecord(name, name, request, response, outcome))

    def _artifact(self, method: str, outcome: ArtifactOutcome) -> Artifact:
        shown = {"link_redacted": self.shown}
        return Artifact(PROVIDER_ID, method, shown, tuple(self.stages), outcome)
