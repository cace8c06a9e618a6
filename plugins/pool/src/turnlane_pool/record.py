"""The artifact of a pool: who was asked, what came of it, and each member's own record inside."""

import re
from typing import Any

import msgspec

from turnlane.api import (
    Artifact,
    ArtifactError,
    ArtifactOutcome,
    ArtifactResolution,
    LinkError,
    PolicyError,
    ProviderError,
    RelayEndpoint,
    SettingsError,
    StageOutcome,
    StageRecord,
    StageRequest,
    StageResponse,
    TurnlaneError,
    UnavailableError,
)
from turnlane_pool.health import Health
from turnlane_pool.link import PROVIDER_ID, SCHEME
from turnlane_pool.pool_file import STAGE, Member, Pool

_LINK = "<redacted:link>"
_USERNAME = "<redacted:turn-username>"
_PASSWORD = "<redacted:turn-password>"  # noqa: S105 a placeholder

CYCLE = "provider_cycle"
"""The code of the runtime and of this pool for providers that lead back to themselves."""

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


def code_of(error: TurnlaneError) -> str:
    """Return a member's code, or `provider_error` for what does not look like one."""
    code: object = error.code
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "provider_error"


def is_misconfigured(error: TurnlaneError) -> bool:
    """Whether asking again is of no use until the operator has mended something."""
    wrong = isinstance(error, LinkError | UnavailableError | PolicyError)
    return wrong or code_of(error) == CYCLE


def stage_of(name: str) -> str:
    """Return the name of a member's stage."""
    return f"member:{name}"


class Record:
    """Gathers the stages of one resolution."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._stages: list[StageRecord] = []

    def found(self, pool: Pool, aside: list[Health], now: float) -> None:
        """Note the pool that is resolved, and which members are put aside."""
        self._pool = pool
        body: dict[str, Any] = {
            "strategy": pool.strategy.value,
            "members": [member.name for member in pool.members],
            "put_aside": {
                health.member.name: {
                    "code": health.code,
                    "failures": health.failures,
                    "seconds_left": round(health.aside_for(now), 3),
                }
                for health in aside
            },
        }
        self._add(STAGE, STAGE, "READ", StageResponse(body=body), StageOutcome("continue"))

    def refused(self, code: str) -> Artifact:
        """Return the artifact of a link or a file that cannot be used."""
        outcome = StageOutcome("provider_error", error_code=code)
        self._add(STAGE, STAGE, "READ", StageResponse(), outcome)
        return self.failure(STAGE, code)

    def member_failed(self, member: Member, error: TurnlaneError) -> None:
        """Note a member's failure, with its own record of it."""
        body: dict[str, Any] = {
            "provider": member.provider,
            "misconfigured": is_misconfigured(error),
        }
        if isinstance(error, SettingsError):
            body["violations"] = [
                {"field": each.field, "code": each.code} for each in error.violations
            ]
        if isinstance(error, ProviderError):
            body["artifact"] = _plain(error.artifact)
        outcome = StageOutcome("provider_error", error_code=code_of(error))
        self._add_member(member, body, outcome)

    def member_resolved(
        self, member: Member, endpoint: RelayEndpoint, artifact: Artifact
    ) -> Artifact:
        """Return the artifact of a success, the member's own record in its last stage."""
        body = {"provider": member.provider, "artifact": _plain(artifact)}
        extracted = {
            "username": _USERNAME,
            "password": _PASSWORD,
            "normalized_address": endpoint.address,
        }
        self._add_member(member, body, StageOutcome("resolution", extracted))
        resolution = ArtifactResolution(_USERNAME, _PASSWORD, endpoint.address)
        return self._artifact(ArtifactOutcome("resolution", resolution))

    def failure(self, stage: str, code: str) -> Artifact:
        """Return the artifact of a failure."""
        error = ArtifactError(stage, code)
        return self._artifact(ArtifactOutcome("provider_error", provider_error=error))

    def _artifact(self, outcome: ArtifactOutcome) -> Artifact:
        pool = self._pool
        return Artifact(
            provider=PROVIDER_ID,
            resolution_method=f"pool_{pool.strategy.value}" if pool is not None else "pool",
            input={"link_redacted": f"{SCHEME}{pool.name}" if pool is not None else _LINK},
            stages=tuple(self._stages),
            outcome=outcome,
        )

    def _add_member(self, member: Member, body: dict[str, Any], outcome: StageOutcome) -> None:
        self._add(
            stage_of(member.name), member.provider, "RESOLVE", StageResponse(body=body), outcome
        )

    def _add(
        self, name: str, endpoint: str, method: str, response: StageResponse, outcome: StageOutcome
    ) -> None:
        fields = ("link", "settings") if method == "RESOLVE" else ("link",)
        request = StageRequest(method, fields, fields)
        self._stages.append(StageRecord(name, endpoint, request, response, outcome))


def _plain(artifact: Artifact | None) -> Any:
    return None if artifact is None else msgspec.to_builtins(artifact)
