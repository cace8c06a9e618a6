"""The machines of the README's walk-through, where the software for them is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from turnlane_tests.netns import Internet
from turnlane_tests.real import require
from turnlane_tests.walkthrough import ADDRESSES, Walkthrough

DELAY = 0.02
LOSS = 0.01


@pytest.fixture
def internet(tmp_path: Path) -> Iterator[Internet]:
    """Give the client's, the relay's and the server's machine.

    The client's access is slow and lossy: 40 ms there and back, 1 % lost each way.
    """
    require("turnserver", "wg", "wg-quick", "wireguard-go", "ping")
    with Internet(tmp_path, ADDRESSES) as internet:
        yield internet


@pytest.fixture
def walkthrough(internet: Internet) -> Walkthrough:
    """Give the steps of the walk-through."""
    walkthrough = Walkthrough(internet)
    walkthrough.client.delay = DELAY
    walkthrough.client.loss = LOSS
    return walkthrough
