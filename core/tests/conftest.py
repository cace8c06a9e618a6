"""Fixtures that all of core's tests share."""

import pytest

from turnlane.net import native, openssl


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run an async test on both backends."""
    backend: str = request.param
    return backend


@pytest.fixture(params=["fast", "portable"])
def dataplane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test on both ways to move data, as far as there are two here."""
    way: str = request.param
    if way == "portable":
        monkeypatch.setenv(native.DATAPLANE_VARIABLE, "portable")
    else:
        monkeypatch.delenv(native.DATAPLANE_VARIABLE, raising=False)
        if not (native.usable() and openssl.usable()):
            pytest.skip("there is only the portable way here")
    return way
