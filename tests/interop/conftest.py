"""Fixtures of the tests against software that is not ours."""

import pytest

from turnlane_tests.coturn import Coturn
from turnlane_tests.pion import Pion, build_pion
from turnlane_tests.real import require


@pytest.fixture
def coturn() -> type[Coturn]:
    """Give the class that starts a coturn; skip where there is none."""
    require("turnserver")
    return Coturn


@pytest.fixture(scope="session")
def pion(tmp_path_factory: pytest.TempPathFactory) -> Pion:
    """Build the Go program once and give what starts it; skip where there is no Go."""
    return Pion(build_pion(tmp_path_factory.mktemp("pion")))
