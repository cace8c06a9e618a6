"""The provider `generic-turn`: reads its link and, for TURN REST, mints credentials from it."""

from turnlane.api import (
    Artifact,
    ArtifactError,
    ArtifactOutcome,
    ArtifactResolution,
    ChallengePort,
    Credentials,
    LinkError,
    ProviderContext,
    ProviderError,
    RelayEndpoint,
    Renewal,
    Resolution,
    ResolveRequest,
    StageOutcome,
    StageRecord,
    StageRequest,
    StageResponse,
)
from turnlane_generic_turn.link import (
    REST_SCHEME,
    STAGE,
    STATIC_SCHEME,
    RestLink,
    StaticLink,
    parse_link,
)
from turnlane_generic_turn.turn_rest import expiry_of, mint

PROVIDER_ID = "generic-turn"
MINT_STAGE = "mint_credentials"

_LINK = "<redacted:link>"
_USERNAME = "<redacted:turn-username>"
_PASSWORD = "<redacted:turn-password>"  # noqa: S105 a placeholder
_LABEL = "<redacted:turn-rest-label>"
_SHARED_SECRET = "<redacted:turn-rest-secret>"  # noqa: S105 a placeholder


class GenericTurn:
    """Resolves `generic-turn` and `generic-turn+rest` links; asks nobody and nothing."""

    def __init__(self, context: ProviderContext) -> None:
        self._context = context

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:  # noqa: ARG002
        """Return the link's credentials, or ones minted from it.

        Raises `LinkError` for a link that cannot be read, and `ProviderError` with the code
        `expired_credentials` for one whose user name says that its time has passed.
        """
        try:
            with self._context.span(STAGE):
                link = parse_link(request.link)
        except LinkError as error:
            error.artifact = _refused(_LINK, error.code, StageResponse())
            raise
        if isinstance(link, RestLink):
            return self._mint(link)
        return self._take(link)

    def _take(self, link: StaticLink) -> Resolution:
        now = self._context.wall_time()
        expires_at = expiry_of(link.username, now)
        shown = _shown(STATIC_SCHEME, _USERNAME, _PASSWORD, link.endpoint)
        response = _response(link.endpoint, username=_USERNAME, password=_PASSWORD)
        if expires_at is not None and expires_at <= now:
            raise ProviderError(
                "expired_credentials",
                "the TURN REST credentials in the link have expired",
                "get a fresh link, check this machine's clock, or use a "
                f"{REST_SCHEME}:// link that renews itself",
                provider_stage=STAGE,
                artifact=_refused(shown, "expired_credentials", response),
            )
        stages = (_parsed(response, _resolved(link.endpoint)),)
        return Resolution(
            Credentials((link.endpoint,), link.username, link.password, expires_at),
            _artifact("static_link", shown, stages, link.endpoint),
            Renewal.NEVER,
        )

    def _mint(self, link: RestLink) -> Resolution:
        with self._context.span(MINT_STAGE, lifetime=link.lifetime):
            expires_at = int(self._context.wall_time()) + link.lifetime
            username, password = mint(link.shared_secret, link.label, expires_at)
        shown = _shown(REST_SCHEME, _LABEL if link.label else "", _SHARED_SECRET, link.endpoint)
        parsing = _parsed(
            _response(link.endpoint, shared_secret=_SHARED_SECRET),
            StageOutcome("continue", {"shared_secret": _SHARED_SECRET}),
        )
        minting = StageRecord(
            name=MINT_STAGE,
            endpoint_id=MINT_STAGE,
            request=StageRequest(
                "HMAC-SHA1", ("label", "shared_secret", "lifetime"), ("label", "shared_secret")
            ),
            response=StageResponse(
                body={"username": _USERNAME, "password": _PASSWORD, "lifetime": link.lifetime}
            ),
            outcome=_resolved(link.endpoint),
        )
        return Resolution(
            Credentials((link.endpoint,), username, password, expires_at),
            _artifact("turn_rest", shown, (parsing, minting), link.endpoint),
            Renewal.RESOLVE,
        )


def _artifact(
    method: str, shown: str, stages: tuple[StageRecord, ...], endpoint: RelayEndpoint
) -> Artifact:
    return Artifact(
        provider=PROVIDER_ID,
        resolution_method=method,
        input={"link_redacted": shown},
        stages=stages,
        outcome=ArtifactOutcome(
            "resolution", ArtifactResolution(_USERNAME, _PASSWORD, endpoint.address)
        ),
    )


def _refused(shown: str, code: str, response: StageResponse) -> Artifact:
    return Artifact(
        provider=PROVIDER_ID,
        resolution_method="static_link",
        input={"link_redacted": shown},
        stages=(_parsed(response, StageOutcome("provider_error", error_code=code)),),
        outcome=ArtifactOutcome("provider_error", provider_error=ArtifactError(STAGE, code)),
    )


def _parsed(response: StageResponse, outcome: StageOutcome) -> StageRecord:
    return StageRecord(
        name=STAGE,
        endpoint_id=STAGE,
        request=StageRequest("PARSE", ("link",), ("link",)),
        response=response,
        outcome=outcome,
    )


def _resolved(endpoint: RelayEndpoint) -> StageOutcome:
    return StageOutcome(
        "resolution",
        {"username": _USERNAME, "password": _PASSWORD, "normalized_address": endpoint.address},
    )


def _response(endpoint: RelayEndpoint, **placeholders: str) -> StageResponse:
    return StageResponse(
        body={
            "host": endpoint.host,
            "port": endpoint.port,
            "transport": endpoint.transport.value,
            "server_name": endpoint.server_name,
            **placeholders,
        }
    )


def _shown(scheme: str, user: str, password: str, endpoint: RelayEndpoint) -> str:
    return f"{scheme}://{user}:{password}@{endpoint.address}?transport={endpoint.transport}"
