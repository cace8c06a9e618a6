"""The tunnels' conformance kit: a sound tunnel passes, each fault fails one check and no other."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from turnlane.api import TunnelRequest
from turnlane.testing import tunnel_checks
from turnlane.testing.findings import NotJudgedError
from turnlane.testing.tunnel_bench import (
    WaitedError,
    ip_packet,
    network_state,
    not_waiting,
    peers,
)
from turnlane.testing.tunnel_checks import CHECKS
from turnlane.testing.tunnels import Finding, run_checks

SAMPLES = Path(__file__).parent / "samples"
NAMES = [check.__name__ for check in CHECKS]

pytestmark = pytest.mark.anyio

FAULTS: dict[str, list[str]] = {
    "class_is_importable": [
        "NeedsMore",
        "NotAsync",
        "TakesNoRequest",
        "RaisesWhenMade",
        "SilentAboutSettings",
    ],
    "capability_is_told": [
        "RaisesOnLook",
        "ChangesOnLook",
        "GivesNoReason",
        "CapabilityInWords",
        "SaysTwoThings",
        "ClaimsWhatIsNot",
        "AnswersWithTruth",
    ],
    "unavailable_is_refused": [
        "CrashesWithoutDevice",
        "RefusesElsewhere",
        "OpensAnyway",
        "LeavesWithoutDevice",
    ],
    "opens_a_device": ["NeverOpens", "Nameless", "SendsAsync", "ReceivesPlainly"],
    "carries_packets": ["KeepsHeader", "Shortens", "DropsUnsaid", "Miscounts"],
    "fills_batches": ["LosesOverflow", "DoesNotClear"],
    "send_never_waits": [
        "WaitsToSend",
        "RaisesUnderFlood",
        "CountsNothingUnderFlood",
        "RaisesAfterClose",
        "TakesAfterClose",
    ],
    "refuses_bad_requests": [
        "TakesAnyMtu",
        "TakesAnyRoute",
        "RefusesUntyped",
        "LeavesAfterRefusal",
    ],
    "refuses_bad_settings": ["Lax"],
    "cancellation_at_every_await": [
        "Swallowing",
        "Translating",
        "LeavesAddress",
        "KeepsDevice",
        "StaysBusy",
    ],
    "closes_for_good": ["LeavesRoute", "ForgetsSocket", "ClosesOnce"],
    "closes_when_cancelled": ["ClosesUnshielded"],
    "closing_ends_a_receive": ["HangsOnClose", "EndsUntyped", "ReceivesOnAfterClose"],
    "tells_that_the_device_is_gone": ["EndsAsClosed", "RaisesIntoNothing"],
    "errors_are_typed": ["CodeInWords", "WithoutAdvice"],
    "secrets_stay_secret": [
        "ShowsInLog",
        "ShowsOnOutput",
        "ShowsInError",
        "ShowsInPrint",
        "ShowsInSettings",
    ],
}
"""By the check that each fails: classes of the samples."""

INCOMPLETE: dict[str, dict[str, Any]] = {
    "no title": {"title": " "},
    "a summary of two lines": {"summary": "one\ntwo"},
    "no platforms": {"platforms": ()},
    "a platform that is none": {"platforms": ("Linux",)},
    "no stability": {"stability": ""},
    "a minor version to come": {"contract_minor": 10_000},
    "not offered": {"id": "other"},
    "not even a reference": {"implementation": "nowhere"},
}

UNIMPORTABLE = {
    "no such module": {"implementation": "tunnel_nowhere:Sound"},
    "no such class": {"implementation": "tunnel_samples:Nowhere"},
    "a class without the methods": {"implementation": "tunnel_samples:Settings"},
    "no schema": {"settings": "tunnel_samples:Sound"},
}


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make the samples importable by name, and let the kit miss what does not come soon."""
    monkeypatch.setattr(tunnel_checks, "PATIENCE", 0.25)
    monkeypatch.syspath_prepend(SAMPLES)
    module = import_module("tunnel_samples")
    with module.nothing_kept():
        yield module


def failed(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if not finding.passed]


def unjudged(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if not finding.judged]


@pytest.mark.parametrize("name", ["Sound", "WithoutSettings"])
async def test_a_sound_tunnel_passes_every_check(samples: Any, name: str) -> None:
    findings = await run_checks(samples.case(getattr(samples, name)))

    assert [finding for finding in findings if not finding.passed] == []
    assert [finding.check for finding in findings] == NAMES
    assert unjudged(findings) == (["refuses_bad_settings"] if name == "WithoutSettings" else [])


@pytest.mark.parametrize(
    ("check", "name"), [(check, name) for check, names in FAULTS.items() for name in names]
)
async def test_a_fault_fails_its_check_and_no_other(samples: Any, check: str, name: str) -> None:
    faulty = getattr(import_module("tunnel_faults"), name)

    findings = await run_checks(samples.case(faulty))

    assert failed(findings) == [check], findings
    (message,) = [finding.message for finding in findings if not finding.passed]
    assert message
    assert "unexpected" not in message
    assert "s3cret" not in message


@pytest.mark.parametrize("changes", INCOMPLETE.values(), ids=INCOMPLETE)
async def test_an_incomplete_descriptor_fails_its_check_and_no_other(
    samples: Any, changes: dict[str, Any]
) -> None:
    findings = await run_checks(samples.case(plugin=samples.plugin(**changes)))

    assert failed(findings) == ["descriptor_is_complete"], findings


@pytest.mark.parametrize("changes", UNIMPORTABLE.values(), ids=UNIMPORTABLE)
async def test_what_cannot_be_imported_fails_its_check_and_the_rest_is_not_judged(
    samples: Any, changes: dict[str, Any]
) -> None:
    findings = await run_checks(samples.case(plugin=samples.plugin(**changes)))

    assert failed(findings) == ["class_is_importable"], findings
    assert unjudged(findings) == NAMES[2:]


def test_every_check_has_a_fault_and_says_what_an_author_must_do() -> None:
    assert set(FAULTS) | {"descriptor_is_complete"} == set(NAMES)
    assert all(check.__doc__ for check in CHECKS)


async def test_a_host_that_cannot_have_the_tunnel_leaves_most_unjudged(samples: Any) -> None:
    findings = await run_checks(samples.case(available=samples.Host.unavailable, unavailable=None))

    # What the case says of its host is what it is held to.
    assert failed(findings) == ["capability_is_told"]
    samples.Host.lacking = True
    try:
        findings = await run_checks(samples.case(available=None, unavailable=None))
    finally:
        samples.Host.lacking = False
    assert failed(findings) == []
    judged = [finding.check for finding in findings if finding.judged]
    assert judged == [*NAMES[:4], "refuses_bad_settings", "errors_are_typed"]
    (reason,) = {f.message for f in findings if f.check == "opens_a_device"}
    assert reason == "this host cannot have the tunnel: there is no device"


async def test_without_hooks_what_they_would_show_is_not_judged(samples: Any) -> None:
    bare = samples.case(unavailable=None, inject=None, extract=None, lose=None)

    findings = await run_checks(bare)

    assert failed(findings) == []
    assert unjudged(findings) == [
        "unavailable_is_refused",
        "carries_packets",
        "fills_batches",
        "tells_that_the_device_is_gone",
    ]


async def test_a_platform_that_is_not_declared_has_no_tunnel(
    samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(AssertionError, match="win32, which is not declared"):
        await tunnel_checks.capability_is_told(samples.case(available=None))


async def test_bad_requests_of_the_case_are_tried_as_well(samples: Any) -> None:
    good = TunnelRequest(("10.9.0.2/24",))

    with pytest.raises(AssertionError, match="bad request 1 open gives a device"):
        await tunnel_checks.refuses_bad_requests(samples.case(bad_requests=(good,)))


async def test_mistakes_of_a_case_are_told(samples: Any) -> None:
    with pytest.raises(AssertionError, match="4 characters"):
        await tunnel_checks.secrets_stay_secret(samples.case(secrets=("abc",)))
    with pytest.raises(AssertionError, match="no schema"):
        await tunnel_checks.refuses_bad_settings(
            samples.case(samples.WithoutSettings, bad_settings=({"prefix": 1},))
        )
    wrong = samples.case(settings={"prefix": 1})
    with pytest.raises(AssertionError, match="settings of the case do not fit: prefix"):
        await tunnel_checks.refuses_bad_settings(wrong)
    with pytest.raises(NotJudgedError, match="refuses_bad_settings"):
        await tunnel_checks.opens_a_device(wrong)


async def test_ipv6_is_carried_too(samples: Any) -> None:
    request = TunnelRequest(("2001:db8::2/64",), ("192.0.2.0/24", "2001:db8:1::/48"), mtu=1400)

    assert failed(await run_checks(samples.case(request=request))) == []


def test_packets_are_valid_and_between_the_two_ends() -> None:
    four, six = ip_packet("10.0.0.2", "10.1.0.1", 61, 7), ip_packet("2001:db8::2", "::1", 60, 7)

    def total(data: bytes) -> int:
        padded = data + bytes(len(data) % 2)
        summed = sum(int.from_bytes(padded[at : at + 2]) for at in range(0, len(padded), 2))
        return summed % 0xFFFF

    assert (len(four), len(six)) == (61, 60)
    assert total(four[:20]) == 0
    assert total(four[12:20] + bytes([0, 17, 0, 41]) + four[20:]) == 0
    assert total(six[8:40] + bytes([0, 20, 0, 17]) + six[40:]) == 0
    assert peers(TunnelRequest(("10.0.0.1/24",))) == ("10.0.0.1", "10.0.0.2")
    assert peers(TunnelRequest(("10.0.0.1/24",), ("0.0.0.0/0",)))[1] != "10.0.0.1"


def test_the_state_of_the_network_names_interfaces_and_is_the_same_twice() -> None:
    assert "interface lo" in set(network_state())
    assert set(network_state()) == set(network_state())


def test_what_waits_is_woken_and_the_timer_before_goes_on() -> None:
    before = signal.getsignal(signal.SIGALRM)
    started = time.monotonic()
    with pytest.raises(WaitedError), not_waiting(0.05):
        threading.Event().wait(5)
    assert time.monotonic() - started < 4
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_outside_the_main_thread_nothing_is_watched() -> None:
    passed = []

    def run() -> None:
        with not_waiting(0.0):
            passed.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert passed == [True]


def test_the_kit_is_imported_and_used_without_pytest() -> None:
    script = """
import sys
sys.modules["pytest"] = None
import turnlane.testing.tunnels as kit
assert kit.run_checks and kit.TunnelCase
try:
    kit.TunnelConformance
except ImportError:
    print("needs pytest")
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "needs pytest\n"


def test_the_kit_has_no_other_names() -> None:
    kit = import_module("turnlane.testing.tunnels")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = kit.Nothing


MODULE = """
from turnlane.testing.tunnels import TunnelConformance
import tunnel_faults as faults
import tunnel_samples as samples


class TestSample(TunnelConformance):
    case = samples.case({name})
"""


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("samples.Sound", "34 passed"),
        ("samples.WithoutSettings", "32 passed, 2 skipped"),
        ("faults.Swallowing", "2 failed, 32 passed"),
    ],
)
def test_the_pytest_class_needs_no_setting_up(tmp_path: Path, name: str, counts: str) -> None:
    (tmp_path / "test_sample.py").write_text(MODULE.format(name=name))
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\npythonpath = samples\n")
    (tmp_path / "samples").symlink_to(SAMPLES)

    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert counts in result.stdout.splitlines()[-1], result.stdout
