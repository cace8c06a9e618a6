"""The conformance kit: a sound provider passes, and each fault fails one check and no other."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from turnlane.api import UnavailableError
from turnlane.testing import provider_checks
from turnlane.testing.cancellation import CancelAt
from turnlane.testing.context import FakeProviderContext, ManualClock
from turnlane.testing.findings import NotJudgedError
from turnlane.testing.leftovers import Holdings, left_since
from turnlane.testing.observation import observed
from turnlane.testing.provider_bench import bench
from turnlane.testing.provider_checks import CHECKS, name_of
from turnlane.testing.providers import Finding, ProviderCase, run_checks

SAMPLES = Path(__file__).parent / "samples"

pytestmark = pytest.mark.anyio

FAULTS: dict[str, list[str]] = {
    "class_is_importable": ["NeedsMore", "NotAsync", "TakesRequestAlone", "SilentAboutSettings"],
    "resolves_the_link": ["WithoutEndpoint", "Crashing", "NotJson"],
    "artifact_is_sound": [
        "OtherName",
        "NoStage",
        "WrongOutcome",
        "OtherAddress",
        "UnendingStages",
        "NotUtf8",
        "Unstable",
    ],
    "refuses_bad_links": [
        "TakesAnything",
        "RefusesOtherwise",
        "RefusesWithoutArtifact",
        "RefusesWithoutStage",
        "RefusesWithTwoCodes",
        "RefusesWithGoodOutcome",
    ],
    "refuses_bad_settings": ["Lax"],
    "cancellation_at_every_await": [
        "Swallowing",
        "Translating",
        "KeepsSocket",
        "ForgetsSocket",
        "KeepsProcess",
        "KeepsThread",
        "KeepsFile",
        "KeepsLock",
    ],
    "secrets_stay_secret": [
        "ShowsInArtifact",
        "ShowsInEndpoint",
        "ShowsInLog",
        "ShowsInSpan",
        "ShowsOnOutput",
        "ShowsInError",
        "ShowsInCause",
        "ShowsInSettings",
        "ShowsMintedPassword",
    ],
    "expiry_and_renewal": [
        "Expired",
        "RealClock",
        "UndeclaredRenewal",
        "UndeclaredChallenge",
        "NeverFresh",
        "RefusesToRenew",
    ],
    "errors_are_typed": ["CodeInWords", "WithoutAdvice", "CrashesOnOddLinks"],
    "does_not_touch_transport": ["Touching"],
    "challenges_only_when_allowed": [
        "AsksAlways",
        "CrashesWithoutHuman",
        "CrashesOnRefusal",
        "AsksUnclearly",
    ],
    "memory_survives": ["StumblesOverMemory", "StumblesOverRefusal"],
}
"""By the check that each fails: classes of the samples."""

INCOMPLETE: dict[str, dict[str, Any]] = {
    "no title": {"title": " "},
    "a summary of two lines": {"summary": "one\ntwo"},
    "no input kinds": {"input_kinds": ()},
    "no example link": {"example_links": ()},
    "a real secret in the example": {"example_links": ("sample://planted/s3cret+value",)},
    "a homepage that is no URL": {"homepage": "acme"},
    "no stability": {"stability": ""},
    "a minor version to come": {"contract_minor": 10_000},
    "not offered": {"id": "other"},
    "not even a reference": {"implementation": "nowhere"},
}

UNIMPORTABLE = {
    "no such module": {"implementation": "conformance_nowhere:Sound"},
    "no such class": {"implementation": "conformance_samples:Nowhere"},
    "a module that raises": {"implementation": "conformance_broken_import:Sound"},
    "no schema": {"settings": "conformance_samples:Sound"},
}

INTERACTIVE = ("Asking", "CrashesWithoutHuman", "CrashesOnRefusal", "AsksUnclearly")


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make the samples importable by name, as an installed provider is."""
    monkeypatch.syspath_prepend(SAMPLES)
    module = import_module("conformance_samples")
    with module.nothing_kept():
        yield module


def implementation(samples: Any, name: str) -> Any:
    if name == "Touching":
        return import_module("conformance_touching").Touching
    return getattr(samples, name)


def case_of(samples: Any, name: str = "Sound", **changes: Any) -> ProviderCase:
    sample = implementation(samples, name)
    settings: dict[str, Any] = {"region": "us", "key": "settings-s3cret"}
    return ProviderCase(
        plugin=samples.plugin(sample, **changes),
        provider=samples.ID,
        link=samples.LINK,
        bad_links=("other://planted/s3cret+value", "planted/s3cret+value"),
        settings=settings if sample.settings is not None else {},
        bad_settings=({"region": "Europe"},) if sample.settings is not None else (),
        secrets=(samples.SECRET, "settings-s3cret"),
        interactive=name in INTERACTIVE,
        prepare=configure,
    )


def configure(folder: Path) -> None:
    (folder / "sample.conf").touch()


def failed(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if not finding.passed]


@pytest.mark.parametrize("name", ["Sound", "Asking", "WithoutSettings"])
async def test_a_sound_provider_passes_every_check(samples: Any, name: str) -> None:
    findings = await run_checks(case_of(samples, name))

    assert [finding for finding in findings if not finding.passed] == []
    assert [finding.check for finding in findings] == [name_of(check) for check in CHECKS]
    unjudged = [finding.check for finding in findings if not finding.judged]
    assert unjudged == (["refuses_bad_settings"] if name == "WithoutSettings" else [])


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
    findings = await run_checks(case_of(samples, **changes))

    assert failed(findings) == ["descriptor_is_complete"], findings


async def test_undeclared_interaction_is_an_incomplete_descriptor(samples: Any) -> None:
    capabilities = samples.ProviderCapabilities(browser=True, renewable=True)

    findings = await run_checks(case_of(samples, capabilities=capabilities))

    assert failed(findings) == ["descriptor_is_complete"], findings


@pytest.mark.parametrize("changes", UNIMPORTABLE.values(), ids=UNIMPORTABLE)
async def test_what_cannot_be_imported_fails_its_check_and_the_rest_is_not_judged(
    samples: Any, changes: dict[str, Any]
) -> None:
    findings = await run_checks(case_of(samples, **changes))

    assert failed(findings) == ["class_is_importable"], findings
    assert [finding.check for finding in findings if finding.judged] == [
        "descriptor_is_complete",
        "class_is_importable",
    ]


def test_every_check_has_a_fault_and_says_what_an_author_must_do() -> None:
    names = [name_of(check) for check in CHECKS]

    assert set(FAULTS) | {"descriptor_is_complete"} == set(names)
    assert all(check.__doc__ for check in CHECKS)


async def test_a_secret_too_short_to_be_searched_for_is_told(samples: Any) -> None:
    case = ProviderCase(samples.plugin(), samples.ID, samples.LINK, ("x",), secrets=("abc",))

    with pytest.raises(AssertionError, match="4 characters"):
        await provider_checks.secrets_stay_secret(case)


async def test_a_case_without_bad_links_fails(samples: Any) -> None:
    case = ProviderCase(samples.plugin(), samples.ID, samples.LINK, ())

    with pytest.raises(AssertionError, match="no bad link"):
        await provider_checks.refuses_bad_links(case)


async def test_bad_settings_without_a_schema_are_a_mistake_in_the_case(samples: Any) -> None:
    plugin = samples.plugin(samples.WithoutSettings)
    case = ProviderCase(plugin, samples.ID, samples.LINK, ("x",), bad_settings=({"region": 1},))

    with pytest.raises(AssertionError, match="no schema"):
        await provider_checks.refuses_bad_settings(case)


async def test_a_check_that_needs_the_good_link_waits_for_it(samples: Any) -> None:
    with pytest.raises(NotJudgedError, match="resolves_the_link"):
        await provider_checks.artifact_is_sound(case_of(samples, "Crashing"))


async def test_what_a_case_itself_does_wrong_is_told_by_its_type_alone(samples: Any) -> None:
    def prepare(folder: Path) -> None:
        raise OSError(samples.SECRET)

    case = ProviderCase(samples.plugin(), samples.ID, samples.LINK, ("x",), prepare=prepare)

    findings = await run_checks(case)

    told = {finding.message for finding in findings if not finding.passed}
    assert told == {"the check ended with an unexpected OSError"}


async def test_a_provider_reaches_the_others_of_its_case(samples: Any) -> None:
    class Reaching(samples.Sound):  # type: ignore[misc, name-defined]
        async def work(self, request: Any, challenges: Any) -> None:
            await self.context.resolve_with("behind", request.link, {"region": "eu"})

    samples.Reaching = Reaching
    behind = samples.plugin(id="behind")
    case = case_of(samples, "Sound", implementation="conformance_samples:Reaching")
    alone = await run_checks(case)
    fields = {name: getattr(case, name) for name in case.__dataclass_fields__}
    together = await run_checks(ProviderCase(**{**fields, "others": (behind,)}))

    assert "resolves_the_link" in failed(alone)
    # A class made by this test is in no module that a fresh process could import.
    assert failed(together) == []


async def test_a_bench_has_a_clock_that_stands_and_fresh_folders(samples: Any) -> None:
    case = case_of(samples)
    with bench(case) as first, bench(case) as second:
        assert first.config_dir != second.config_dir
        assert (first.config_dir / "sample.conf").exists()
        assert first.clock() == first.clock() == case.now == ManualClock()()
    assert not first.config_dir.exists()


async def test_observing_leaves_the_loggers_as_they_were(samples: Any) -> None:
    quiet = logging.getLogger("turnlane_quiet_test")
    quiet.propagate = False
    quiet.setLevel(logging.ERROR)
    root = logging.getLogger()
    before = (root.level, list(root.handlers), quiet.level, list(quiet.handlers))

    await provider_checks.secrets_stay_secret(case_of(samples))

    assert (root.level, list(root.handlers), quiet.level, list(quiet.handlers)) == before


async def test_a_logger_that_keeps_to_itself_is_heard(samples: Any) -> None:
    logger = logging.getLogger("conformance_samples")
    logger.propagate = False
    try:
        with pytest.raises(AssertionError, match="log record of conformance_samples"):
            await provider_checks.secrets_stay_secret(case_of(samples, "ShowsInLog"))
    finally:
        logger.propagate = True


async def test_a_traceback_in_the_log_is_searched() -> None:
    with observed() as shown:
        try:
            raise ValueError("planted")
        except ValueError:
            logging.getLogger("turnlane_test").debug("failed", exc_info=True)

    assert any("ValueError: planted" in text for _, text in shown.texts)


async def test_a_module_that_only_this_process_knows_is_told(
    samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "conformance_only_here", samples)
    case = case_of(samples, implementation="conformance_only_here:Sound")

    assert failed(await run_checks(case)) == ["does_not_touch_transport"]


async def test_a_task_that_runs_on_is_left_over(tmp_path: Path) -> None:
    before = Holdings.take([tmp_path])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        assert await left_since(before, [tmp_path]) == ["task (1)"]
        tasks.cancel_scope.cancel()
    assert await left_since(before, [tmp_path]) == []


async def test_the_thread_in_which_a_backend_waited_for_a_child_is_not_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    plain = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        plain(thread)
        if "waitpid" in thread.name:  # it has told of the child, and takes its time to end
            looked.wait(20)

    monkeypatch.setattr(threading.Thread, "run", run)
    before = Holdings.take([tmp_path])
    try:
        await anyio.run_process([sys.executable, "-S", "-c", ""])
        assert await left_since(before, [tmp_path]) == []
    finally:
        looked.set()


async def test_a_fake_context_serves_unit_tests_without_a_host(samples: Any) -> None:
    prepared = samples.Resolution(
        samples.Credentials((samples.ENDPOINT,), samples.Secret("u"), samples.Secret("p")),
        samples.resolved(),
    )
    clock = ManualClock(5.0)
    context = FakeProviderContext(clock, others={"behind": prepared})
    clock.now += 1

    assert context.wall_time() == 6.0
    assert await context.resolve_with("behind", samples.Secret("link")) is prepared
    with pytest.raises(UnavailableError, match="no provider named 'other'"):
        await context.resolve_with("other", samples.Secret("link"))
    with context.span("step", count=1):
        assert context.spans == [("step", {"count": 1})]
    assert not context.memory
    assert not context.config_dir.exists()


async def test_cancelling_meets_each_await_in_turn() -> None:
    reached: list[int] = []

    async def three() -> str:
        for number in range(3):
            reached.append(number)
            await anyio.lowlevel.cancel_shielded_checkpoint()
        return "done"

    with anyio.CancelScope() as scope:
        run = CancelAt(three(), 99, scope.cancel)
        assert await run == "done"
    assert (run.waits, run.delivered, scope.cancel_called) == (3, False, False)
    assert reached == [0, 1, 2]


async def test_a_shielded_await_is_not_cancelled() -> None:
    async def shielded() -> str:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        return "done"

    with anyio.CancelScope() as scope:
        run = CancelAt(shielded(), 1, scope.cancel)
        assert await run == "done"
    assert scope.cancel_called
    assert not run.delivered
    assert not scope.cancelled_caught


async def test_a_failing_await_fails_inside_the_coroutine() -> None:
    async def failing() -> str:
        try:
            with anyio.fail_after(0):
                await anyio.lowlevel.checkpoint()
        except TimeoutError:
            return "in time"
        raise AssertionError("the time was not up")

    assert await CancelAt(failing(), 99, lambda: None) == "in time"


def test_a_run_that_is_given_up_closes_its_coroutine() -> None:
    closed = threading.Event()

    async def held() -> None:
        try:
            await anyio.lowlevel.cancel_shielded_checkpoint()
        finally:
            closed.set()

    async def start() -> None:
        coroutine = held()
        step = CancelAt(coroutine, 9, lambda: None).__await__()
        next(step)
        step.close()

    anyio.run(start)
    assert closed.is_set()


def test_the_kit_is_imported_and_used_without_pytest() -> None:
    script = """
import sys
sys.modules["pytest"] = None
import turnlane.testing, turnlane.testing.providers as kit
assert kit.run_checks and kit.ProviderCase
try:
    kit.ProviderConformance
except ImportError:
    print("needs pytest")
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "needs pytest\n"


def test_the_kit_has_no_other_names() -> None:
    kit = import_module("turnlane.testing.providers")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = kit.Nothing


MODULE = """
from turnlane.testing.providers import ProviderCase, ProviderConformance
import conformance_samples as samples


def prepare(folder):
    (folder / "sample.conf").write_text("")


class TestSample(ProviderConformance):
    case = ProviderCase(
        plugin=samples.plugin(samples.{name}),
        provider=samples.ID,
        link=samples.LINK,
        bad_links=("other://x",),
        prepare=prepare,
    )
"""


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("Sound", "26 passed"),
        ("WithoutSettings", "24 passed, 2 skipped"),
        ("Swallowing", "2 failed, 24 passed"),
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
    assert "ProviderConformance" not in result.stdout.replace("TestSample", "")
