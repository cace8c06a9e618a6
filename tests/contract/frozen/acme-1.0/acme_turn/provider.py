"""Acme's provider, with all that contract 1.0 gave it."""

from typing import Annotated

import msgspec

from turnlane.api import (
    Artifact,
    ArtifactOutcome,
    ArtifactResolution,
    Challenge,
    Credentials,
    LinkError,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Renewal,
    Resolution,
    Secret,
    StageOutcome,
    StageRecord,
    StageRequest,
    StageResponse,
    setting,
)


class AcmeSettings(msgspec.Struct, frozen=True, kw_only=True):
    region: Annotated[str, setting("Where to ask.", pattern="[a-z]{2}")] = "eu"
    api_key: Annotated[Secret[str], setting("The account's key.", write_only=True)]


class Acme:
    def __init__(self, context):
        self.context = context

    async def resolve(self, request, challenges):
        link = request.link.reveal()
        if not link.startswith("acme://"):
            raise LinkError("wrong_scheme", "an Acme link begins with acme://", "copy it again")
        calls = self.context.memory.setdefault("calls", [])
        calls.append(link)
        with self.context.span("acme_ask", region=request.settings.region):
            if request.interactive:
                answer = await challenges.ask(Challenge("confirm", "Is it you?", deadline=5.0))
                if answer.action != "continue":
                    raise ProviderError("declined", "nobody confirmed", provider_stage="confirm")
        stage = StageRecord(
            "ask",
            "acme_ask",
            StageRequest("POST", ("room",), ("room",)),
            StageResponse(200, {"region": request.settings.region}),
            StageOutcome("resolution", {"username": "<redacted:turn-username>"}),
        )
        endpoint = RelayEndpoint("turn.acme.example", 5349, RelayTransport.TLS, "acme.example")
        artifact = Artifact(
            "acme",
            "static",
            {"link_redacted": "acme://<redacted:room>"},
            (stage,),
            ArtifactOutcome(
                "resolution",
                ArtifactResolution(
                    "<redacted:turn-username>", "<redacted:turn-password>", endpoint.address
                ),
            ),
        )
        expires_at = self.context.wall_time() + 3600
        credentials = Credentials((endpoint,), Secret("u"), request.settings.api_key, expires_at)
        return Resolution(credentials, artifact, Renewal.RESOLVE)
