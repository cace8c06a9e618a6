"""The record of a resolution: its stages, as the artifact shows them."""

import re
from collections.abc import Sequence
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
from turnlane_vk.answers import CAPTCHA_NEEDED, Document, error_code_untrusted
from turnlane_vk.errors import RESOLVE, StageError
from turnlane_vk.link import HostedCall, Invite
from turnlane_vk.observation import StageResult
from turnlane_vk.recognition import ANONYM_TOKEN, BROWSER_LOGIN, OK_LOGIN
from turnlane_vk.sanitized import (
    INVITE,
    JOIN_TOKEN,
    PASSWORD,
    USERNAME,
    extracted,
    sanitize_untrusted,
)
from turnlane_vk.turn_server import TurnServer

PROVIDER_ID = "vk"
STAGED = "staged_http"
OBSERVED = "browser_observed"
"""How it resolves: by requests of its own, or by what a browser was seen to get."""

_SECRET_FIELDS = (
    "client_secret",
    "vk_join_link",
    "join_link",
    "joinLink",
    "access_token",
    "anonymToken",
    "captcha_attempt",
    "captcha_key",
    "captcha_sid",
    "captcha_ts",
    "success_token",
    "session_data",
    "session_key",
)
"""The form's fields whose values are secret, in the order in which they are told."""

_FIELD = re.compile(r"[A-Za-z][A-Za-z_]{0,31}")
"""What the name of a form's field may look like; what is no such name may be a value."""

_MISSING = {
    ANONYM_TOKEN: "missing_anonymous_token",
    BROWSER_LOGIN: "missing_access_token",
    OK_LOGIN: "missing_session_key",
}


@dataclass
class Record:
    """Collects the stages; `method` is how it resolves, `given` is the link as it may be shown."""

    method: str = STAGED
    given: dict[str, str] = field(default_factory=lambda: {"link_redacted": "<redacted:link>"})
    stages: list[StageRecord] = field(default_factory=list)

    def begin(self, target: Invite | HostedCall) -> None:
        """Note what the link is."""
        if isinstance(target, Invite):
            shown = {"invite_url_redacted": INVITE, "normalized_join_token_redacted": JOIN_TOKEN}
            self.given = shown
        else:
            # Not the link: the runtime knows it as a secret.
            self.given = {"entry": "hosted_call"}
            self.method = OBSERVED

    def answered(
        self,
        stage: str,
        form_keys: Sequence[str],
        status: int | None,
        document: Document | None,
        outcome: TurnServer | ProviderError | None,
    ) -> None:
        """Note a stage: what was sent and answered, and the relays or the error it ended with."""
        body = sanitize_untrusted(stage, document or {})
        self._add(stage, form_keys, StageResponse(status, body), _outcome(stage, body, outcome))

    def observed(
        self,
        results: Sequence[StageResult],
        at: int | None,
        ending: TurnServer | ProviderError | None,
    ) -> None:
        """Note what was observed; the answer number `at` led to the relays, the error, or on."""
        for number, result in enumerate(results):
            body = sanitize_untrusted(result.stage, result.document)
            outcome = (
                _outcome(result.stage, body, ending) if number == at else _passed(result, body)
            )
            keys = sorted(result.form_keys)
            self._add(result.stage, keys, StageResponse(result.status, body), outcome)

    def refused(self, error: ProviderError) -> None:
        """Note what failed before any stage of VK's, or beside them."""
        response = StageResponse(body={})
        request = StageRequest("PARSE", ("link",), ("link",))
        outcome = StageOutcome("provider_error", error_code=error.code)
        self.stages.append(StageRecord(RESOLVE, RESOLVE, request, response, outcome))

    def resolution(self, server: TurnServer) -> Artifact:
        """Return the artifact of a success."""
        shown = ArtifactResolution(USERNAME, PASSWORD, server.endpoints[0].address)
        return self._artifact(ArtifactOutcome("resolution", shown))

    def failure(self, error: ProviderError) -> Artifact:
        """Return the artifact of a failure."""
        if not self.stages or error.provider_stage == RESOLVE:
            self.refused(error)
        told = ArtifactError(error.provider_stage, error.code)
        return self._artifact(ArtifactOutcome("provider_error", provider_error=told))

    def _add(
        self,
        stage: str,
        form_keys: Sequence[str],
        response: StageResponse,
        outcome: StageOutcome,
    ) -> None:
        keys = tuple(key for key in form_keys if _FIELD.fullmatch(key))
        redacted = tuple(key for key in _SECRET_FIELDS if key in keys)
        request = StageRequest("POST", keys, redacted)
        self.stages.append(StageRecord(stage, stage, request, response, outcome))

    def _artifact(self, outcome: ArtifactOutcome) -> Artifact:
        return Artifact(PROVIDER_ID, self.method, self.given, tuple(self.stages), outcome)


def _outcome(
    stage: str, body: dict[str, Json], ending: TurnServer | ProviderError | None
) -> StageOutcome:
    if ending is None:
        return StageOutcome("continue", extracted(stage, body))
    if isinstance(ending, TurnServer):
        shown = {
            "username": USERNAME,
            "credential": PASSWORD,
            "normalized_address": ending.endpoints[0].address,
        }
        return StageOutcome("resolution", shown)
    wait = ending.retry_after if isinstance(ending, StageError) else None
    told = None if wait is None else {"retry_after": str(wait)}
    return StageOutcome("provider_error", told, ending.code)


def _passed(result: StageResult, body: dict[str, Json]) -> StageOutcome:
    """Return the outcome of an answer that decided nothing."""
    taken = extracted(result.stage, body)
    if taken is not None or result.stage not in _MISSING:
        return StageOutcome("continue", taken)
    captcha = error_code_untrusted(result.document) == CAPTCHA_NEEDED
    asked_again = result.stage == ANONYM_TOKEN and captcha
    missing = "captcha_required" if asked_again else _MISSING[result.stage]
    return StageOutcome("provider_error", error_code=missing)
