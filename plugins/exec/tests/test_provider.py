"""The provider: credentials, renewal, and the artifact for success and failure."""

import json
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from turnlane.api import (
    ChallengePort,
    LinkError,
    ProviderContext,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Renewal,
    Resolution,
    ResolveRequest,
    Secret,
)
from turnlane.telemetry.redaction import find_leaks
from turnlane_exec import plugin
from turnlane_exec.provider import Exec

pytestmark = pytest.mark.anyio

Configure = Callable[..., Path]

ANSWER = {
    "endpoints": [
        {"host": "turn.example", "port": 3479, "transport": "tcp"},
        {"host": "2001:db8::1", "transport": "tls", "server_name": "turn.example"},
    ],
    "username": "planted-username",
    "password": "planted-password",
}
PRINT = "import sys; print(sys.argv[1])"
PLANTED = ["planted-argument", "planted-value", "planted-out", "planted-err"]


async def resolve(
    context: ProviderContext, challenges: ChallengePort, link: str = "exec:office"
) -> Resolution:
    return await Exec(context).resolve(ResolveRequest(Secret(link)), challenges)


async def refused(
    context: ProviderContext, challenges: ChallengePort, link: str = "exec:office"
) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await resolve(context, challenges, link)
    return caught.value


def shown(artifact: object) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(artifact))
    return decoded


async def test_a_link_gives_what_the_command_prints(
    context: Any, challenges: ChallengePort, command: Configure
) -> None:
    command(PRINT, json.dumps(ANSWER))

    resolution = await resolve(context, challenges)

    credentials = resolution.credentials
    assert credentials.endpoints == (
        RelayEndpoint("turn.example", 3479, RelayTransport.TCP),
        RelayEndpoint("2001:db8::1", 5349, RelayTransport.TLS, "turn.example"),
    )
    assert credentials.username.reveal() == "planted-username"
    assert credentials.password.reveal() == "planted-password"
    assert credentials.expires_at is None
    assert context.spans == [
        ("read_config", {}),
        ("run_command", {"command": "office"}),
        ("parse_output", {}),
    ]


@pytest.mark.parametrize(
    ("fields", "expires_at", "renewal"),
    [
        ({}, None, Renewal.NEVER),
        ({"expires_at": 1_700_003_600}, 1_700_003_600, Renewal.RESOLVE),
        ({"ttl": 3600}, 1_700_003_600.75, Renewal.RESOLVE),
    ],
)
async def test_an_answer_that_expires_is_renewed_by_resolving_again(
    context: Any,
    challenges: ChallengePort,
    command: Configure,
    *,
    fields: dict[str, float],
    expires_at: float | None,
    renewal: Renewal,
) -> None:
    command(PRINT, json.dumps({**ANSWER, **fields}))

    resolution = await resolve(context, challenges)

    assert resolution.credentials.expires_at == expires_at
    assert resolution.renewal is renewal


async def test_the_command_runs_anew_for_each_resolution(
    context: Any, challenges: ChallengePort, command: Configure
) -> None:
    command(PRINT, json.dumps({**ANSWER, "ttl": 60}))
    await resolve(context, challenges)
    command(PRINT, json.dumps({**ANSWER, "username": "bob", "ttl": 60}))

    assert (await resolve(context, challenges)).credentials.username.reveal() == "bob"


async def test_the_artifact_has_three_stages_and_no_secret(
    context: Any, challenges: ChallengePort, command: Configure
) -> None:
    answer = json.dumps({**ANSWER, "ttl": 60})
    more = 'timeout = 20\nenv = { TOKEN = "planted-value" }'
    command("import sys; print(sys.argv[1])", answer, "planted-argument", more=more)

    artifact = (await resolve(context, challenges)).artifact

    assert shown(artifact) == {
        "provider": "exec",
        "resolution_method": "command",
        "input": {"link_redacted": "exec:office"},
        "stages": [
            {
                "name": "read_config",
                "endpoint_id": "read_config",
                "request": {"method": "READ", "form_keys": ["link"], "redacted_fields": ["link"]},
                "response": {
                    "body": {
                        "command": "office",
                        "argv": "<redacted:argv>",
                        "env": "<redacted:env>",
                        "timeout": 20.0,
                    }
                },
                "outcome": {"kind": "continue"},
            },
            {
                "name": "run_command",
                "endpoint_id": "run_command",
                "request": {
                    "method": "EXEC",
                    "form_keys": ["argv", "env"],
                    "redacted_fields": ["argv", "env"],
                },
                "response": {
                    "status_code": 0,
                    "body": {"stdout_bytes": len(answer) + 1, "stderr_bytes": 0},
                },
                "outcome": {"kind": "continue"},
            },
            {
                "name": "parse_output",
                "endpoint_id": "parse_output",
                "request": {
                    "method": "PARSE",
                    "form_keys": ["stdout"],
                    "redacted_fields": ["stdout"],
                },
                "response": {
                    "body": {
                        "endpoints": [
                            {
                                "host": "turn.example",
                                "port": 3479,
                                "transport": "tcp",
                                "server_name": None,
                            },
                            {
                                "host": "2001:db8::1",
                                "port": 5349,
                                "transport": "tls",
                                "server_name": "turn.example",
                            },
                        ],
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                        "expires_at": 1_700_000_060.75,
                    }
                },
                "outcome": {
                    "kind": "resolution",
                    "extracted": {
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                        "normalized_address": "turn.example:3479",
                    },
                },
            },
        ],
        "outcome": {
            "result_kind": "resolution",
            "resolution": {
                "username_redacted": "<redacted:turn-username>",
                "password_redacted": "<redacted:turn-password>",
                "address": "turn.example:3479",
            },
        },
    }
    secrets = [*PLANTED, "planted-username", "planted-password"]
    assert find_leaks(msgspec.json.encode(artifact), secrets) == []


NOISE = "import sys; print('planted-out'); print('planted-err', file=sys.stderr, flush=True);"
FAILURES = {
    "command_failed": f"{NOISE} sys.exit(3)",
    "command_timeout": f"{NOISE} sys.stdout.flush(); import signal; signal.pause()",
    "output_too_large": f"{NOISE} print('planted-out' * 10_000)",
    "invalid_output": NOISE,
    "expired_credentials": (
        "import json; print(json.dumps({'urls': ['turn:h'], 'username': 'planted-out', "
        "'credential': 'planted-out', 'expires_at': 1699999999}))"
    ),
}
STAGES = {
    "invalid_output": "parse_output",
    "expired_credentials": "parse_output",
}


@pytest.mark.parametrize("code", FAILURES)
async def test_a_command_without_a_good_answer_fails_with_its_code_and_no_secret(
    context: Any, challenges: ChallengePort, command: Configure, code: str
) -> None:
    timeout = 0.5 if code == "command_timeout" else 20
    more = f'timeout = {timeout}\nenv = {{ TOKEN = "planted-value" }}'
    command(FAILURES[code], "planted-argument", more=more)

    error = await refused(context, challenges)

    stage = STAGES.get(code, "run_command")
    assert (error.code, error.provider_stage, error.exit_code) == (code, stage, 1)
    assert error.advice
    assert error.artifact is not None
    artifact = shown(error.artifact)
    assert artifact["input"] == {"link_redacted": "exec:office"}
    names = ["read_config", "run_command", "parse_output"]
    assert [each["name"] for each in artifact["stages"]] == names[: names.index(stage) + 1]
    last = artifact["stages"][-1]
    assert last["outcome"] == {"kind": "provider_error", "error_code": code}
    if stage == "run_command":
        assert last["response"]["body"].keys() == {"stdout_bytes", "stderr_bytes"}
    assert artifact["outcome"] == {
        "result_kind": "provider_error",
        "provider_error": {"stage": stage, "code": code},
    }
    hidden = f"{error.__cause__!r} {error.__context__!r} {error.__context__}"
    told = f"{error} {error!r} {error.args} {hidden} {artifact}"
    assert find_leaks(told, [*PLANTED, sys.executable]) == []


@pytest.mark.parametrize(
    ("program", "code"),
    [("/nowhere/planted-out", "command_not_found"), ("/", "command_not_started")],
)
async def test_a_program_that_does_not_start_fails_in_its_stage(
    context: Any,
    challenges: ChallengePort,
    write_config: Callable[[str], Path],
    program: str,
    code: str,
) -> None:
    write_config(f'[commands.office]\nargv = ["{program}", "planted-argument"]')

    error = await refused(context, challenges)

    assert (error.code, error.provider_stage) == (code, "run_command")
    assert error.artifact is not None
    assert shown(error.artifact)["stages"][-1]["response"] == {}
    assert find_leaks(f"{error} {error!r} {shown(error.artifact)}", PLANTED) == []


@pytest.mark.parametrize(
    ("config", "mode", "link", "code"),
    [
        (None, 0, "exec:office", "missing_config"),
        ("", 0o622, "exec:office", "insecure_config"),
        ("#" * 70_000, 0o600, "exec:office", "unreadable_config"),
        ("[commands.office]", 0o600, "exec:office", "invalid_config"),
        ('[commands.office]\nargv = ["x"]', 0o600, "exec:planted-link", "unknown_command"),
        ('[commands.office]\nargv = ["x"]', 0o600, "exec:planted-link x", "invalid_name"),
        ('[commands.office]\nargv = ["x"]', 0o600, "planted-link", "wrong_scheme"),
    ],
)
async def test_what_is_wrong_before_anything_runs_fails_in_the_first_stage(
    context: Any,
    challenges: ChallengePort,
    write_config: Callable[[str], Path],
    *,
    config: str | None,
    mode: int,
    link: str,
    code: str,
) -> None:
    if config is not None:
        write_config(config).chmod(mode)

    error = await refused(context, challenges, link)

    assert (error.code, error.provider_stage) == (code, "read_config")
    assert isinstance(error, LinkError) is ("planted" in link)
    assert error.artifact is not None
    artifact = shown(error.artifact)
    assert artifact["input"] == {"link_redacted": "<redacted:link>"}
    assert [each["name"] for each in artifact["stages"]] == ["read_config"]
    assert find_leaks(f"{error} {error!r} {artifact}", ["planted-link"]) == []


async def test_cancelling_a_resolution_leaves_no_process(
    context: Any, challenges: ChallengePort, command: Configure, watch: Any
) -> None:
    code = """
import os, signal, subprocess, sys
held = os.open(sys.argv[1], os.O_WRONLY)
child = f"import os, signal; os.write({held}, b'x'); signal.pause()"
subprocess.Popen([sys.executable, "-S", "-c", child], pass_fds=[held])
signal.pause()
"""
    command(code, str(watch.path))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resolve, context, challenges)
        assert await watch.line() == b"x"
        tasks.cancel_scope.cancel()

    await watch.all_gone()


def test_the_plugin_offers_the_provider_under_its_id() -> None:
    (descriptor,) = plugin.turnlane_providers()

    assert descriptor.id == "exec"
    assert descriptor.settings is None
    assert descriptor.capabilities.renewable
    assert not descriptor.capabilities.interactive
    assert pkgutil.resolve_name(descriptor.implementation) is Exec


async def test_the_example_links_of_the_descriptor_work(
    context: Any, challenges: ChallengePort, command: Configure
) -> None:
    command(PRINT, json.dumps(ANSWER))
    (descriptor,) = plugin.turnlane_providers()

    for link in descriptor.example_links:
        assert (await resolve(context, challenges, link)).credentials.endpoints
