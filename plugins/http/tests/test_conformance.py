"""The provider does what the conformance kit asks of every provider, over real HTTPS."""

import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from turnlane.testing.providers import ProviderCase, ProviderConformance
from turnlane_http import plugin

SECRETS = (
    "planted-path",
    "planted-key",
    "planted-bearer",
    "planted-api-key",
    "planted-body",
    "planted-user",
    "planted-password",
)
ANSWER = {
    "username": "planted-user",
    "password": "planted-password",
    "ttl": 3600,
    "uris": ["turn:turn.example:3478?transport=udp"],
}
SETTINGS = {
    "method": "POST",
    "ca_file": "authority.pem",
    "bearer_token": "planted-bearer",
    "api_key_header": "X-Api-Key",
    "api_key": "planted-api-key",
    "request_body": '{"secret": "planted-body"}',
}


@pytest.fixture(scope="session")
def port(authority: Any, server_tls: ssl.SSLContext) -> Iterator[int]:
    """Return the port of an endpoint in a process of its own."""
    program = Path(__file__).with_name("endpoint_process.py")
    # `server_tls` has written the certificate.
    arguments = [str(authority.file.with_name("good.pem")), json.dumps(ANSWER)]
    with subprocess.Popen(
        [sys.executable, program, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


class TestHttp(ProviderConformance):
    @pytest.fixture(autouse=True)
    def served(self, port: int, authority: Any) -> None:
        def prepare(config_dir: Path) -> None:
            shutil.copy(authority.file, config_dir / "authority.pem")

        self.case = ProviderCase(
            plugin=plugin,
            provider="http",
            link=f"https://127.0.0.1:{port}/planted-path?key=planted-key",
            bad_links=(
                f"http://turn.example:{port}/planted-path",
                f"https://planted-user:planted-password@127.0.0.1:{port}/",
                "https://127.0.0.1:0/planted-path",
                "generic-turn://planted-path",
            ),
            settings=SETTINGS,
            bad_settings=(
                {**SETTINGS, "method": "DELETE"},
                {**SETTINGS, "timeout": 0},
                {**SETTINGS, "bearer_token": 5},
                {**SETTINGS, "user": "planted-user"},
            ),
            secrets=SECRETS,
            prepare=prepare,
        )
