"""Fixtures of the tests against software that is not ours."""

import pytest

from turnlane_tests.coturn import Coturn
from turnlane_tests.real import require


@pytest.fixture
def coturn() -> type[Coturn]:
    """Give the class that starts a coturn; skip where there is none."""
    require("turnserver")
    return Coturn
