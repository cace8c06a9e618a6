"""Store the contract as it is now under its version; see test_snapshot.py for when to."""

import json
from pathlib import Path

from turnlane.api import CONTRACT_MAJOR, CONTRACT_MINOR
from turnlane_tests.contract import snapshot

target = Path(__file__).parent / "snapshots" / f"{CONTRACT_MAJOR}.{CONTRACT_MINOR}.json"
target.parent.mkdir(exist_ok=True)
target.write_text(json.dumps(snapshot(), indent=2, sort_keys=True) + "\n")
