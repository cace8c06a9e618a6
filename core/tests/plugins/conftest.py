"""Distributions made up for a test: metadata and modules in a folder of their own."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

Install = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path`; what was imported from it is forgotten after the test."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if origin.startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    """Install a made-up distribution with one module and any entry points."""

    def install(
        distribution: str,
        source: str = "",
        *,
        name: str | None = None,
        group: str = "turnlane.plugins.v1",
        entry_points: str | None = None,
        version: str = "1.2.3",
    ) -> None:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(PREAMBLE + dedent(source))
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        if entry_points is None:
            entry_points = f"[{group}]\n{name or distribution} = {module}\n"
        (metadata / "entry_points.txt").write_text(entry_points)

    return install


PREAMBLE = """\
from turnlane.api import (
    AdapterDescriptor,
    Direction,
    PlatformTunnelDescriptor,
    ProviderCapabilities,
    ProviderDescriptor,
    TrafficClass,
    hookimpl,
)


def provider(id, implementation="acme.provider:Acme", **more):
    return ProviderDescriptor(
        id=id, title="Acme", summary="Acme relays", implementation=implementation, **more
    )


def adapter(id, direction, traffic="datagram", **more):
    more.setdefault("implementation", "acme.adapter:Acme")
    return AdapterDescriptor(
        id=id, title=id, summary=id, direction=Direction(direction),
        traffic=TrafficClass(traffic), **more
    )

"""
