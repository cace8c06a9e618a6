"""The adapters' conformance kit: sound ones pass, and each fault fails one check and no other."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from turnlane.testing import adapters, stream_checks
from turnlane.testing.adapter_checks import CHECKS, name_of
from turnlane.testing.adapters import AdapterCase, Finding, run_checks

SAMPLES = Path(__file__).parent / "samples"

pytestmark = pytest.mark.anyio

FAULTS: dict[str, list[str]] = {
    "class_is_importable": ["NeedsMore", "NotAsync", "TakesNoFlow", "SilentAboutSettings"],
    "opens_the_good_address": ["OpensWhenMade", "PrepareKeepsOpen", "Crashing", "Nowhere"],
    "carries_datagrams": ["DropsEmpty", "CutsLong", "Doubles", "ChangesInward"],
    "keeps_flows_apart": ["OneFlow", "FreshFlows", "WrongFlow", "SharedSocket", "Crosses"],
    "fills_the_batch_it_is_given": ["KeepsOld", "DropsTheRest", "NoHeadroom", "EmptyBatch"],
    "sends_without_waiting": [
        "RaisesOnStranger",
        "Waits",
        "RaisesOnGone",
        "DiesOfGone",
        "RaisesWhenClosed",
        "SaysNothing",
    ],
    "refuses_bad_addresses": [
        "TakesAnything",
        "RefusesOtherwise",
        "RefusesByPolicy",
        "RefusesElsewhere",
        "KeepsWhatItRefuses",
    ],
    "refuses_bad_settings": ["Lax"],
    "closing_ends_what_waits": [
        "ClosesOnce",
        "WaitsForEver",
        "EndsOtherwise",
        "EndsQuietly",
        "KeepsSocket",
    ],
    "cancellation_at_every_await": [
        "Swallowing",
        "Translating",
        "LeavesSocket",
        "ForgetsSocket",
        "StaysBusy",
    ],
    "secrets_stay_secret": [
        "ShowsInPrint",
        "ShowsInSettings",
        "ShowsInLog",
        "ShowsOnOutput",
        "ShowsInError",
        "ShowsInCause",
    ],
    "errors_are_typed": ["CodeInWords", "WithoutAdvice", "CrashesOnOddAddress"],
}
"""By the check that each fails: classes of the samples."""

INCOMPLETE: dict[str, dict[str, Any]] = {
    "no title": {"title": " "},
    "a summary of two lines": {"summary": "one\ntwo"},
    "a pair without a name": {"pairs_with": ("",)},
    "no stability": {"stability": ""},
    "a minor version to come": {"contract_minor": 10_000},
    "not offered": {"id": "other"},
    "datagrams to where the client likes": {"dials_client_choice": True},
}

UNIMPORTABLE = {
    "no such module": {"implementation": "adapter_nowhere:Sound"},
    "no such class": {"implementation": "datagram_samples:NoSuchClass"},
    "not an adapter": {"implementation": "adapter_samples:Settings"},
    "no schema": {"settings": "datagram_samples:DatagramIngress"},
}


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make the samples importable by name, as an installed adapter is."""
    monkeypatch.syspath_prepend(SAMPLES)
    with import_module("adapter_samples").nothing_kept():
        yield import_module("datagram_samples")


def case_of(samples: Any, name: str, **changes: Any) -> AdapterCase:
    sample = getattr(samples, name)
    common = import_module("adapter_samples")
    told = sample.settings_schema is not None
    return AdapterCase(
        plugin=common.plugin(sample, **changes),
        direction=sample.direction,
        adapter=common.ID,
        address="127.0.0.1:{port}",
        bad_addresses=common.BAD_ADDRESSES,
        settings={"ttl": 9, "key": common.SECRET} if told else {},
        bad_settings=({"ttl": 256}, {"ttl": "9"}) if told else (),
        secrets=(common.SECRET,) if told else (),
        patience=common.PATIENCE,
    )


def failed(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if not finding.passed]


@pytest.mark.parametrize("name", ["DatagramIngress", "DatagramEgress", "WithoutSettings"])
async def test_a_sound_datagram_adapter_passes_every_check(samples: Any, name: str) -> None:
    findings = await run_checks(case_of(samples, name))

    assert failed(findings) == [], findings
    assert [finding.check for finding in findings] == [name_of(check) for check in CHECKS]
    unjudged = {finding.message for finding in findings if not finding.judged}
    without = {"the adapter has no settings", "the case has no secrets"}
    streams = {"the adapter carries datagrams"}
    assert unjudged == (streams | without if name == "WithoutSettings" else streams)


@pytest.mark.parametrize(
    ("check", "name"), [(check, name) for check, names in FAULTS.items() for name in names]
)
async def test_a_fault_fails_its_check_and_no_other(samples: Any, check: str, name: str) -> None:
    findings = await run_checks(case_of(samples, name))

    assert failed(findings) == [check], findings
    (message,) = [finding.message for finding in findings if not finding.passed]
    assert message
    assert "unexpected" not in message
    assert "s3cret" not in message


@pytest.mark.parametrize("changes", INCOMPLETE.values(), ids=INCOMPLETE)
async def test_an_incomplete_descriptor_fails_its_check_and_no_other(
    samples: Any, changes: dict[str, Any]
) -> None:
    findings = await run_checks(case_of(samples, "DatagramEgress", **changes))

    assert failed(findings) == ["descriptor_is_complete"], findings


@pytest.mark.parametrize("changes", UNIMPORTABLE.values(), ids=UNIMPORTABLE)
async def test_what_cannot_be_imported_fails_its_check_and_the_rest_is_not_judged(
    samples: Any, changes: dict[str, Any]
) -> None:
    findings = await run_checks(case_of(samples, "DatagramIngress", **changes))

    assert failed(findings) == ["class_is_importable"], findings
    judged = [finding.check for finding in findings if finding.judged]
    assert judged == ["descriptor_is_complete", "class_is_importable"]


async def test_what_no_check_expects_is_told_without_its_text(
    samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stumbles(case: AdapterCase) -> None:
        raise KeyError(samples.SECRET)

    monkeypatch.setattr(adapters, "CHECKS", (stumbles,))

    (finding,) = await run_checks(case_of(samples, "DatagramIngress"))

    message = "the check ended with an unexpected KeyError"
    assert finding == Finding("stumbles", False, message)


@pytest.mark.parametrize(
    "changes",
    [{"bad_settings": ({"ttl": 0},)}, {"secrets": ("abc",)}],
    ids=["bad settings without a schema", "a secret too short to be searched for"],
)
async def test_a_case_that_cannot_be_judged_is_told(samples: Any, changes: dict[str, Any]) -> None:
    findings = await run_checks(replace(case_of(samples, "WithoutSettings"), **changes))

    checks = {"bad_settings": "refuses_bad_settings", "secrets": "secrets_stay_secret"}
    assert failed(findings) == [checks[name] for name in changes]


def test_every_check_has_a_faulty_adapter_and_every_faulty_adapter_a_check(samples: Any) -> None:
    checks = {name_of(check) for check in CHECKS}
    streams = {name_of(check) for check in stream_checks.CHECKS}
    assert set(FAULTS) == checks - streams - {"descriptor_is_complete"}
    named = {name for names in FAULTS.values() for name in names}
    classes = {name for name, each in vars(samples).items() if _is_faulty(each)}
    assert named == classes


def _is_faulty(sample: object) -> bool:
    return hasattr(sample, "parsed") and "Sound." not in str(sample.__doc__)


def test_the_facade_offers_the_class_for_pytest_and_no_more() -> None:
    assert adapters.AdapterConformance.__module__ == "turnlane.testing.adapter_pytest"
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = adapters.Nothing
