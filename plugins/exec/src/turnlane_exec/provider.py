"""The provider `exec`: finds its command in the configuration, runs it, reads what it prints."""

import os

import anyio.to_thread

from turnlane.api import (
    Artifact,
    ArtifactError,
    ArtifactOutcome,
    ArtifactResolution,
    ChallengePort,
    Credentials,
    ProviderContext,
    ProviderError,
    Renewal,
    Resolution,
    ResolveRequest,
    Secret,
    StageOutcome,
    StageRecord,
    StageRequest,
    StageResponse,
)
from turnlane_exec import config, output, process
from turnlane_exec.config import Command

PROVIDER_ID = "exec"
METHOD = "command"

_LINK = "<redacted:link>"
_ARGV = "<redacted:argv>"
_ENV = "<redacted:env>"
_USERNAME = "<redacted:turn-username>"
_PASSWORD = "<redacted:turn-password>"  # noqa: S105 a placeholder

_REQUESTS = {
    config.STAGE: StageRequest("READ", ("link",), ("link",)),
    process.STAGE: StageRequest("EXEC", ("argv", "env"), ("argv", "env")),
    output.STAGE: StageRequest("PARSE", ("stdout",), ("stdout",)),
}


class Exec:
    """Resolves `exec:NAME` links; what is run is decided by `exec.toml` alone."""

    def __init__(self, context: ProviderContext) -> None:
        self._context = context

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:  # noqa: ARG002
        """Run the command that the link names and return the credentials it prints.

        Raises `LinkError` for a link that names no command, and `ProviderError`, each with the
        artifact of the stages until then. When it is cancelled, the command and all that it
        started is killed first.
        """
        record = _Record()
        try:
            with self._context.span(config.STAGE):
                command = await self._command(request.link)
            record.read(command)
            # Before it runs, so that a ttl is rather taken for too short than for too long.
            now = self._context.wall_time()
            with self._context.span(process.STAGE, command=command.name):
                run = await process.run(command, os.environ)
                record.response = _ran(run)
                process.check(run, command)
            record.ran()
            with self._context.span(output.STAGE):
                credentials = output.parse_output_untrusted(run.stdout.reveal(), now)
        except ProviderError as error:
            error.artifact = record.refused(error)
            raise
        renewal = Renewal.NEVER if credentials.expires_at is None else Renewal.RESOLVE
        return Resolution(credentials, record.resolved(credentials), renewal)

    async def _command(self, link: Secret[str]) -> Command:
        name = config.command_name(link)
        # In a thread: a home folder on a network must not hold up what is being carried.
        commands = await anyio.to_thread.run_sync(config.read_config, self._context.config_dir)
        return config.choose(commands, name)


class _Record:
    """What becomes the artifact: the stages that are done, and the response of the current one."""

    def __init__(self) -> None:
        self.response = StageResponse()
        self._shown = _LINK
        self._stages: list[StageRecord] = []

    def read(self, command: Command) -> None:
        """Note the command that was found; its name comes from the file, and is no secret."""
        self._shown = f"{config.SCHEME}{command.name}"
        self.response = StageResponse(
            body={
                "command": command.name,
                "argv": _ARGV,
                "env": _ENV,
                "timeout": command.timeout,
            }
        )
        self._end(config.STAGE, StageOutcome("continue"))

    def ran(self) -> None:
        """Note a command that ended well."""
        self._end(process.STAGE, StageOutcome("continue"))

    def resolved(self, credentials: Credentials) -> Artifact:
        """Return the record of a success."""
        address = credentials.endpoints[0].address
        self.response = StageResponse(
            body={
                "endpoints": [
                    {
                        "host": endpoint.host,
                        "port": endpoint.port,
                        "transport": endpoint.transport.value,
                        "server_name": endpoint.server_name,
                    }
                    for endpoint in credentials.endpoints
                ],
                "username": _USERNAME,
                "password": _PASSWORD,
                "expires_at": credentials.expires_at,
            }
        )
        extracted = {
            "username": _USERNAME,
            "password": _PASSWORD,
            "normalized_address": address,
        }
        self._end(output.STAGE, StageOutcome("resolution", extracted))
        return self._artifact(
            ArtifactOutcome("resolution", ArtifactResolution(_USERNAME, _PASSWORD, address))
        )

    def refused(self, error: ProviderError) -> Artifact:
        """Return the record up to the stage that failed."""
        self._end(error.provider_stage, StageOutcome("provider_error", error_code=error.code))
        return self._artifact(
            ArtifactOutcome(
                "provider_error", provider_error=ArtifactError(error.provider_stage, error.code)
            )
        )

    def _end(self, stage: str, outcome: StageOutcome) -> None:
        self._stages.append(StageRecord(stage, stage, _REQUESTS[stage], self.response, outcome))
        self.response = StageResponse()

    def _artifact(self, outcome: ArtifactOutcome) -> Artifact:
        return Artifact(
            provider=PROVIDER_ID,
            resolution_method=METHOD,
            input={"link_redacted": self._shown},
            stages=tuple(self._stages),
            outcome=outcome,
        )


def _ran(run: process.Run) -> StageResponse:
    return StageResponse(
        run.status, {"stdout_bytes": run.stdout_bytes, "stderr_bytes": run.stderr_bytes}
    )
