"""`turnlane probe`: resolves a link and does nothing else."""

from pathlib import Path
from typing import Annotated

import typer

from turnlane.api import (
    Artifact,
    ArtifactError,
    ArtifactOutcome,
    Credentials,
    ProviderError,
    RelayEndpoint,
    SettingsError,
)
from turnlane.cli import options

_EPILOG = """\
Each option may stand in the environment as TURNLANE_PROBE_<OPTION>, or in the section [probe] of a
TOML file. Exit codes: 0 resolved, 1 not resolved, 2 bad input, 3 not available.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=_EPILOG)
def probe(
    ctx: typer.Context,
    *,
    provider: options.Provider,
    link: options.Link = None,
    link_file: options.LinkFile = None,
    settings: options.Settings = None,
    output_dir: Annotated[
        Path,
        options.option("--output-dir", metavar="DIR", help="Where the artifact is written."),
    ] = Path("artifacts"),
    interactive_provider: options.Interactive = False,
    strict_plugins: options.StrictPlugins = False,
    json: options.Json = False,
    log_format: options.LogFormat = "console",
    log_level: options.LogLevel = "warning",
    config: options.Config = None,
) -> None:
    """Resolve a link into relay credentials and do nothing else.

    Prints the relay's address, the number of stages and the path of the artifact: the record of
    what the provider did, without secrets, written for a failure as well.
    """
    del link, link_file, settings, config  # read through ctx, which knows where they came from
    from msgspec import to_builtins

    from turnlane.cli.output import write_json, write_line
    from turnlane.cli.sessions import run_probe
    from turnlane.runtime.artifacts import write_artifact
    from turnlane.telemetry.logging import configure

    configure(log_format, log_level)
    profile = options.provider_profile(ctx, provider, interactive=interactive_provider)
    try:
        resolution = run_probe(profile, strict_plugins=strict_plugins)
    except ProviderError as error:
        artifact = error.artifact or _without_stages(provider, error)
        path = write_artifact(artifact, output_dir.expanduser())
        told = {"provider": provider, "result": "provider_error"}
        told |= {"stage": str(error.stage), "code": error.code, "message": error.message}
        told |= {"advice": error.advice, "provider_stage": error.provider_stage}
        if json:
            write_json({**told, "stage_count": len(artifact.stages), "artifact": str(path)})
        else:
            write_line(f"stages    {len(artifact.stages)}")
            write_line(f"artifact  {path}")
        raise
    except SettingsError as error:
        if json:
            told = {"provider": provider, "result": "invalid_settings", "stage": str(error.stage)}
            told |= {"code": error.code, "message": error.message, "advice": error.advice}
            write_json({**told, "violations": to_builtins(error.violations)})
        raise
    path = write_artifact(resolution.artifact, output_dir.expanduser())
    stages = len(resolution.artifact.stages)
    if json:
        write_json(
            {
                "provider": provider,
                "result": "resolution",
                "turn_address": resolution.credentials.endpoints[0].address,
                "endpoints": [_endpoint(one) for one in resolution.credentials.endpoints],
                "expires_at": resolution.credentials.expires_at,
                "stage_count": stages,
                "artifact": str(path),
            }
        )
    else:
        write_line(f"turn      {_shown(resolution.credentials)}")
        write_line(f"stages    {stages}")
        write_line(f"artifact  {path}")


def _endpoint(endpoint: RelayEndpoint) -> dict[str, str]:
    return {"address": endpoint.address, "transport": str(endpoint.transport)}


def _shown(credentials: Credentials) -> str:
    return ", ".join(f"{one.address} ({one.transport})" for one in credentials.endpoints)


def _without_stages(provider: str, error: ProviderError) -> Artifact:
    """Return the record of a provider that left none, as one that crashed does."""
    failure = ArtifactError(error.provider_stage or str(error.stage), error.code)
    return Artifact(provider, "none", {}, (), ArtifactOutcome("provider_error", None, failure))
