"""The provider does what the conformance kit asks of every provider, with a real command."""

import json
from pathlib import Path

from turnlane.testing.providers import ProviderCase, ProviderConformance
from turnlane_exec import plugin

ANSWER = {
    "username": "planted-user",
    "password": "planted-password",
    "ttl": 3600,
    "urls": ["turn:turn.example:3478?transport=udp"],
}


def prepare(config_dir: Path) -> None:
    """Write a script that prints credentials, and the file that names it."""
    script = config_dir / "credentials.sh"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(ANSWER)}\nEND\n")
    script.chmod(0o700)
    path = config_dir / "exec.toml"
    argv = json.dumps([str(script), "planted-argument"])
    path.write_text(f'[commands.office]\nargv = {argv}\nenv = {{ TOKEN = "planted-token" }}\n')
    path.chmod(0o600)


class TestExec(ProviderConformance):
    case = ProviderCase(
        plugin=plugin,
        provider="exec",
        link="exec:office",
        bad_links=("exec:planted-user", "exec:", "exec:planted/../token", "generic-turn:office"),
        secrets=("planted-user", "planted-password", "planted-argument", "planted-token"),
        prepare=prepare,
    )
