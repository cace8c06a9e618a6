"""The provider does what the conformance kit asks of every provider."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from turnlane.testing.providers import ProviderCase, ProviderConformance
from turnlane_vk import plugin


@pytest.fixture(scope="session")
def stand_in() -> Iterator[dict[str, Any]]:
    """Return what a stand-in for VK tells, which is a process of its own.

    The kit looks at what its own process holds.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "turnlane_tests.vk_stand_in"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate()


class TestVk(ProviderConformance):
    @pytest.fixture(autouse=True)
    def served(self, stand_in: dict[str, Any]) -> None:
        settings = stand_in["settings"]
        token = stand_in["link"].rpartition("/")[2]
        self.case = ProviderCase(
            plugin=plugin,
            provider="vk",
            link=stand_in["link"],
            bad_links=(
                f"https://vk.example/call/join/{token}",
                f"https://vk.com/{token}",
                "https://vk.com/call/join/",
                f"vk://{token}",
                f"{token} {token}",
            ),
            settings=settings,
            bad_settings=(
                {**settings, "ok_url": "http://vk.example/fb.do"},
                {**settings, "timeout": 0},
                {**settings, "client_secret": 5},
            ),
            secrets=tuple(stand_in["secrets"]),
            interactive=True,
        )
