"""The adapters' conformance kit over streams: each fault fails one check and no other."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from turnlane.testing import datagram_checks, stream_checks
from turnlane.testing.adapter_checks import CHECKS, name_of
from turnlane.testing.adapters import AdapterCase, run_checks

SAMPLES = Path(__file__).parent / "samples"

pytestmark = pytest.mark.anyio

SOUND = ["StreamIngress", "StreamEgress", "ChoosingEgress", "GreetingEgress", "AskingIngress"]
TALKS = {
    "GreetingEgress": "welcome",
    "AskingIngress": "ask",
    "Mishears": "ask",
    "OneAtATime": "ask",
}

FAULTS: dict[str, list[str]] = {
    "carries_bytes": ["IgnoresLimit", "LosesRest", "Swaps", "Garbles"],
    "ends_one_half_at_a_time": ["EofIsNothing", "EofCloses", "EndIsBroken", "EndEndsAll"],
    "waits_for_the_slower_side": ["KeepsAll", "ReadsAhead"],
    "streams_stand_alone": ["SharesFate", "ClosesLate"],
    "answers_each_application": ["KeepsRefused", "TellsNonsense", "Mishears", "OneAtATime"],
    "closing_ends_what_waits": ["SendsWhenClosed", "AcceptsForEver", "ClosesStreamOnce"],
    "cancellation_at_every_await": ["ForgetsConnection", "LosesOffer"],
    "errors_are_typed": ["CrashesOnUnheard", "TellsUnheardElsewhere"],
}
"""By the check that each fails: classes of the samples."""


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make the samples importable by name, as an installed adapter is."""
    monkeypatch.syspath_prepend(SAMPLES)
    with import_module("adapter_samples").nothing_kept():
        yield import_module("stream_samples")


def case_of(samples: Any, name: str) -> AdapterCase:
    sample = getattr(samples, name)
    common = import_module("adapter_samples")
    return AdapterCase(
        plugin=common.plugin(sample),
        direction=sample.direction,
        adapter=common.ID,
        address="127.0.0.1:{port}",
        bad_addresses=common.BAD_ADDRESSES,
        settings={"ttl": 9, "key": common.SECRET},
        bad_settings=({"ttl": 256},),
        secrets=(common.SECRET,),
        talk=getattr(samples, TALKS[name]) if name in TALKS else None,
        patience=common.PATIENCE,
    )


@pytest.mark.parametrize("name", SOUND)
async def test_a_sound_stream_adapter_passes_every_check(samples: Any, name: str) -> None:
    findings = await run_checks(case_of(samples, name))

    assert [finding for finding in findings if not finding.passed] == []
    unjudged = {finding.check for finding in findings if not finding.judged}
    expected = {name_of(check) for check in datagram_checks.CHECKS}
    assert unjudged == expected | ({"answers_each_application"} if "Egress" in name else set())


@pytest.mark.parametrize(
    ("check", "name"), [(check, name) for check, names in FAULTS.items() for name in names]
)
async def test_a_fault_fails_its_check_and_no_other(samples: Any, check: str, name: str) -> None:
    findings = await run_checks(case_of(samples, name))

    failed = {finding.check: finding.message for finding in findings if not finding.passed}
    assert list(failed) == [check], failed
    assert "unexpected" not in failed[check]


def test_every_check_of_streams_has_a_faulty_adapter() -> None:
    assert {name_of(check) for check in stream_checks.CHECKS} <= set(FAULTS)
    assert set(FAULTS) <= {name_of(check) for check in CHECKS}
