"""A broken plugin is recorded with its cause, and the sound one beside it works."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest

from turnlane.api import CONTRACT_MINOR, hookimpl
from turnlane.plugins import PluginManager, PluginRecord, PluginStatus, discover_plugins
from turnlane.plugins.loader import MAX_DESCRIPTORS, load_plugins
from turnlane.plugins.records import describe, one_line

Install = Callable[..., None]

SOUND = """
@hookimpl
def turnlane_providers():
    return [provider("sound")]
"""

BROKEN = {
    "missing_import": ("import_failed", "No module named 'not_there'", "import not_there"),
    "syntax": ("import_failed", "SyntaxError", "def ("),
    "raises": ("import_failed", "ZeroDivisionError", "1 / 0"),
    "exits": ("exited", "sys.exit(3)", "import sys\nsys.exit(3)"),
    "cancelled": (
        "import_failed",
        "Cancelled",
        "class Cancelled(BaseException): pass\nraise Cancelled",
    ),
    "hook_raises": (
        "hook_failed",
        "RuntimeError: no licence",
        """
        @hookimpl
        def turnlane_providers():
            raise RuntimeError("no\\n licence")
        """,
    ),
    "hook_exits": (
        "exited",
        "asking its hooks called sys.exit('bye')",
        """
        @hookimpl
        def turnlane_egress_adapters():
            raise SystemExit("bye")
        """,
    ),
    "iterator_raises": (
        "hook_failed",
        "KeyError",
        """
        @hookimpl
        def turnlane_providers():
            yield provider("half")
            raise KeyError("rest")
        """,
    ),
    "async_hook": (
        "async_hook",
        "turnlane_providers is asynchronous",
        """
        @hookimpl
        async def turnlane_providers():
            return [provider("late")]
        """,
    ),
    "async_generator": (
        "async_hook",
        "turnlane_providers is asynchronous",
        """
        @hookimpl
        async def turnlane_providers():
            yield provider("late")
        """,
    ),
    "hidden_coroutine": (
        "async_hook",
        "turnlane_providers is asynchronous",
        """
        async def later():
            return [provider("late")]

        @hookimpl
        def turnlane_providers():
            return later()
        """,
    ),
    "hidden_async_generator": (
        "async_hook",
        "turnlane_providers is asynchronous",
        """
        async def later():
            yield provider("late")

        @hookimpl
        def turnlane_providers():
            return later()
        """,
    ),
    "misspelt": (
        "unknown_hook",
        "turnlane_provider is not a hook; did you mean turnlane_providers?",
        """
        @hookimpl
        def turnlane_provider():
            return [provider("misspelt")]
        """,
    ),
    "misspelt_specname": (
        "unknown_hook",
        "turnlane_egres_adapters is not a hook; did you mean turnlane_egress_adapters?",
        """
        @hookimpl(specname="turnlane_egres_adapters")
        def egress():
            return []
        """,
    ),
    "unmarked": (
        "unmarked_hook",
        "turnlane_providers is not marked with @hookimpl",
        """
        def turnlane_providers():
            return [provider("unmarked")]
        """,
    ),
    "arguments": (
        "invalid_hook",
        "config",
        """
        @hookimpl
        def turnlane_providers(config):
            return []
        """,
    ),
    "wrapper": (
        "invalid_hook",
        "turnlane_providers wraps the hook",
        """
        @hookimpl(wrapper=True)
        def turnlane_providers():
            yield
            return []
        """,
    ),
    "no_return": (
        "invalid_descriptor",
        "turnlane_providers: returned NoneType, not a list",
        """
        @hookimpl
        def turnlane_providers():
            [provider("lost")]
        """,
    ),
    "single": (
        "invalid_descriptor",
        "turnlane_providers: returned ProviderDescriptor, not a list",
        """
        @hookimpl
        def turnlane_providers():
            return provider("single")
        """,
    ),
    "text": (
        "invalid_descriptor",
        "turnlane_providers: returned str, not a list",
        """
        @hookimpl
        def turnlane_providers():
            return "acme"
        """,
    ),
    "endless": (
        "invalid_descriptor",
        f"turnlane_providers: returned over {MAX_DESCRIPTORS} items",
        """
        import itertools

        @hookimpl
        def turnlane_providers():
            return (provider(f"p{n}") for n in itertools.count())
        """,
    ),
    "wrong_type": (
        "invalid_descriptor",
        "turnlane_providers: dict is no ProviderDescriptor",
        """
        @hookimpl
        def turnlane_providers():
            return [{"id": "acme"}]
        """,
    ),
    "wrong_kind": (
        "invalid_descriptor",
        "turnlane_egress_adapters: ProviderDescriptor is no AdapterDescriptor",
        """
        @hookimpl
        def turnlane_egress_adapters():
            return [provider("acme")]
        """,
    ),
    "wrong_direction": (
        "invalid_descriptor",
        "the direction of 'acme' is not ingress",
        """
        @hookimpl
        def turnlane_ingress_adapters():
            return [adapter("acme", "egress")]
        """,
    ),
    "wrong_field": (
        "invalid_descriptor",
        "$.capabilities.browser",
        """
        @hookimpl
        def turnlane_providers():
            return [provider("acme", capabilities=ProviderCapabilities(browser="yes"))]
        """,
    ),
    "unencodable_field": (
        "invalid_descriptor",
        "turnlane_providers: 'acme'",
        """
        @hookimpl
        def turnlane_providers():
            return [provider("acme", homepage=object())]
        """,
    ),
    "path_as_id": (
        "invalid_descriptor",
        "the id '../etc' is not made of lower-case words",
        """
        @hookimpl
        def turnlane_providers():
            return [provider("../etc")]
        """,
    ),
    "long_id": (
        "invalid_descriptor",
        "is not made of lower-case words",
        """
        @hookimpl
        def turnlane_providers():
            return [provider("a" * 65)]
        """,
    ),
    "class_for_reference": (
        "invalid_descriptor",
        "'acme.provider' is not of the form module:Class",
        """
        @hookimpl
        def turnlane_providers():
            return [provider("acme", implementation="acme.provider")]
        """,
    ),
    "settings_reference": (
        "invalid_descriptor",
        "'Settings' is not of the form module:Class",
        """
        @hookimpl
        def turnlane_providers():
            return [provider("acme", settings="Settings")]
        """,
    ),
    "same_id_twice": (
        "duplicate_id",
        "it offers the provider 'acme' twice",
        """
        @hookimpl
        def turnlane_providers():
            return [provider("acme"), provider("acme")]
        """,
    ),
    "taken_id": (
        "duplicate_id",
        "a-sound (a-sound) already offers the provider 'sound'",
        """
        @hookimpl
        def turnlane_providers():
            return [provider("other"), provider("sound")]
        """,
    ),
}


def load(site: Path, disabled: frozenset[str] = frozenset()) -> PluginManager:
    return PluginManager(*load_plugins(discover_plugins([str(site)]), disabled))


def record(manager: PluginManager, name: str) -> PluginRecord:
    (found,) = [each for each in manager.records if each.name == name]
    return found


@pytest.mark.parametrize(("code", "reason", "source"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_is_recorded_and_harms_no_other(
    site: Path, install: Install, code: str, reason: str, source: str
) -> None:
    install("a-sound", SOUND)
    install("broken-turn", source)
    install("z-sound", SOUND.replace("sound", "also-sound"))

    manager = load(site)

    broken = record(manager, "broken-turn")
    assert (broken.status, broken.code) == (PluginStatus.FAILED, code)
    assert (broken.distribution, broken.version) == ("broken-turn", "1.2.3")
    assert reason in broken.reason
    assert broken.reason.isprintable()
    assert list(manager.providers()) == ["also-sound", "sound"]
    assert manager.egress_adapters() == {}


def test_all_broken_plugins_at_once_leave_the_sound_one(site: Path, install: Install) -> None:
    install("a-sound", SOUND)
    for name, (_, _, source) in BROKEN.items():
        install(f"broken-{name.replace('_', '-')}", source)

    manager = load(site)

    assert list(manager.providers()) == ["sound"]
    failed = [each for each in manager.records if each.status is PluginStatus.FAILED]
    assert len(failed) == len(BROKEN)


def test_ctrl_c_ends_the_loading(site: Path, install: Install) -> None:
    install("acme-turn", "raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        load(site)


def test_a_sound_plugin_is_recorded_with_its_distribution(site: Path, install: Install) -> None:
    install("a-sound", SOUND, name="sound")

    assert load(site).records == (
        PluginRecord("sound", "a-sound", "1.2.3", PluginStatus.LOADED, module="a_sound"),
    )


@pytest.mark.parametrize("blocked", ["broken-turn", "Entry_Name"])
def test_a_blocked_plugin_is_not_imported(site: Path, install: Install, blocked: str) -> None:
    install("broken-turn", "raise KeyboardInterrupt", name="entry-name")
    install("a-sound", SOUND)

    manager = load(site, frozenset({blocked.lower().replace("_", "-")}))

    found = record(manager, "entry-name")
    assert (found.status, found.code) == (PluginStatus.BLOCKED, "blocked")
    assert "TURNLANE_DISABLE_PLUGINS" in found.reason
    assert list(manager.providers()) == ["sound"]


def test_a_blocked_name_that_nothing_has_is_told(site: Path, install: Install) -> None:
    install("a-sound", SOUND)

    manager = load(site, frozenset({"sond"}))

    found = record(manager, "sond")
    assert (found.status, found.code) == (PluginStatus.BLOCKED, "not_installed")
    assert list(manager.providers()) == ["sound"]


@pytest.mark.parametrize(
    ("major", "advice"), [("0", "update the plugin"), ("2", "update Turnlane")]
)
def test_another_major_version_is_incompatible_and_not_imported(
    site: Path, install: Install, major: str, advice: str
) -> None:
    install("acme-turn", "raise KeyboardInterrupt", group=f"turnlane.plugins.v{major}")

    (found,) = load(site).records

    assert (found.status, found.code) == (PluginStatus.INCOMPATIBLE, "incompatible_major")
    assert f"version {major}" in found.reason
    assert advice in found.reason


def test_a_plugin_for_two_major_versions_is_loaded_for_ours_alone(
    site: Path, install: Install
) -> None:
    install(
        "both-turn",
        SOUND,
        entry_points=(
            "[turnlane.plugins.v1]\nboth = both_turn\n[turnlane.plugins.v2]\nboth = both_turn_two\n"
        ),
    )

    (found,) = load(site).records

    assert found.status is PluginStatus.LOADED


def test_broken_metadata_is_recorded(site: Path, install: Install) -> None:
    install("broken", entry_points="[turnlane.plugins.v1]\nno value here\n")

    (found,) = load(site).records

    assert (found.status, found.code) == (PluginStatus.FAILED, "invalid_metadata")
    assert found.distribution == "broken"


def test_the_second_plugin_of_one_name_fails(site: Path, install: Install) -> None:
    install("a-sound", SOUND, name="sound")
    install("b-sound", SOUND.replace("sound", "other"), name="sound")

    first, second = load(site).records

    assert first.status is PluginStatus.LOADED
    assert (second.status, second.code) == (PluginStatus.FAILED, "duplicate_name")
    assert "a-sound" in second.reason


def test_blocking_the_winner_of_a_collision_gives_the_id_to_the_other(
    site: Path, install: Install
) -> None:
    install("a-sound", SOUND)
    install("b-sound", SOUND)

    manager = load(site, frozenset({"a-sound"}))

    assert record(manager, "b-sound").status is PluginStatus.LOADED
    assert list(manager.providers()) == ["sound"]


def test_a_hook_of_a_later_minor_version_may_be_optional(site: Path, install: Install) -> None:
    install(
        "later-turn",
        SOUND
        + """
@hookimpl(optionalhook=True)
def turnlane_holograms():
    raise RuntimeError("never called")
""",
    )

    assert list(load(site).providers()) == ["sound"]


def test_the_class_behind_a_provider_is_not_imported(site: Path, install: Install) -> None:
    install("a-sound", SOUND.replace('"sound"', '"sound", "sound_class:Sound"'))
    (site / "sound_class.py").write_text("raise RuntimeError")

    manager = load(site)

    assert manager.providers()["sound"].implementation == "sound_class:Sound"
    assert "sound_class" not in sys.modules


def test_lists_in_a_descriptor_are_taken_as_tuples(site: Path, install: Install) -> None:
    install("a-sound", SOUND.replace('"sound"', '"sound", input_kinds=["link", "file"]'))

    assert load(site).providers()["sound"].input_kinds == ("link", "file")


def test_the_traceback_of_a_failure_is_logged_for_those_who_ask(
    site: Path, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("broken-turn", "1 / 0")

    with caplog.at_level(logging.DEBUG, "turnlane.plugins"):
        load(site)

    (logged,) = caplog.records
    assert logged.message == "plugin_failed"
    assert "ZeroDivisionError" in caplog.text


def test_an_object_with_hooks_is_a_plugin_too() -> None:
    class Plugin:
        @hookimpl
        def turnlane_providers(self) -> list[object]:
            return []

    manager = PluginManager.from_modules([Plugin(), SimpleNamespace()])

    assert [each.status for each in manager.records] == [PluginStatus.LOADED] * 2
    assert manager.records[0].name.endswith("Plugin")


def test_reasons_are_one_printable_line_of_bounded_length() -> None:
    assert one_line("a\n b\x1b[2J\tc") == "a b?[2J c"
    assert len(one_line("x" * 1000)) == 300
    assert describe(ValueError()) == "ValueError"


NEWER = {
    "provider": """
        @hookimpl
        def turnlane_providers():
            return [provider("old"), provider("new", contract_minor=MINOR)]
        """,
    "adapter": """
        @hookimpl
        def turnlane_egress_adapters():
            return [adapter("new", "egress", contract_minor=MINOR)]
        """,
    "tunnel": """
        @hookimpl
        def turnlane_platform_tunnels():
            return [PlatformTunnelDescriptor(
                "new", "t", "s", ("linux",), "acme.t:T", contract_minor=MINOR)]
        """,
    "with_a_hook_of_tomorrow": """
        @hookimpl
        def turnlane_providers():
            return [provider("new", contract_minor=MINOR)]
        @hookimpl
        def turnlane_tomorrow():
            return []
        """,
    "with_a_value_of_tomorrow": """
        @hookimpl
        def turnlane_providers():
            return [provider("new", input_kinds=5, contract_minor=MINOR)]
        """,
}


@pytest.mark.parametrize("kind", NEWER)
def test_a_plugin_that_needs_a_later_minor_version_is_incompatible(
    install: Install, site: Path, kind: str
) -> None:
    install("acme-newer", f"MINOR = {CONTRACT_MINOR + 1}\n" + dedent(NEWER[kind]))
    install("sound", SOUND)
    records, loaded = load_plugins(discover_plugins([str(site)]))
    newer, sound = records
    assert (newer.status, newer.code) == (PluginStatus.INCOMPATIBLE, "incompatible_minor")
    assert newer.reason == (
        f"'new' needs version 1.{CONTRACT_MINOR + 1} of the plugin contract, this Turnlane speaks "
        f"version 1.{CONTRACT_MINOR}; update Turnlane"
    )
    assert sound.status is PluginStatus.LOADED
    assert [one.record for one in loaded] == [sound]


@pytest.mark.parametrize("minor", range(CONTRACT_MINOR + 1))
def test_a_plugin_that_needs_no_later_minor_version_is_loaded(
    install: Install, site: Path, minor: int
) -> None:
    install("acme", f"MINOR = {minor}\n" + dedent(NEWER["provider"]))
    (record,), _ = load_plugins(discover_plugins([str(site)]))
    assert record.status is PluginStatus.LOADED


@pytest.mark.parametrize("minor", ["-1", "'9'", "None", "True", "9.0"])
def test_a_minor_version_that_is_none_is_a_fault(install: Install, site: Path, minor: str) -> None:
    install("acme", f"MINOR = {minor}\n" + dedent(NEWER["provider"]))
    (record,), _ = load_plugins(discover_plugins([str(site)]))
    assert (record.status, record.code) == (PluginStatus.FAILED, "invalid_descriptor")


def test_only_the_chosen_are_imported(install: Install, site: Path) -> None:
    install("acme-one", SOUND, name="one")
    install("acme-two", "raise RuntimeError('imported')", name="two")
    candidates = discover_plugins([str(site)])
    for chosen in ("one", "acme-one"):
        records, loaded = load_plugins(candidates, only=frozenset({chosen}))
        assert [record.status for record in records] == [PluginStatus.LOADED, PluginStatus.BLOCKED]
        assert records[1].code == "not_chosen"
        assert records[1].reason == "not among those that TURNLANE_PLUGINS names"
        assert [one.record for one in loaded] == records[:1]
    records, loaded = load_plugins(candidates, only=frozenset())
    assert {record.code for record in records} == {"not_chosen"}
    assert loaded == []


def test_of_the_chosen_one_may_be_blocked_and_one_not_there(install: Install, site: Path) -> None:
    install("one", "raise RuntimeError('imported')")
    records, _ = load_plugins(
        discover_plugins([str(site)]), frozenset({"one"}), frozenset({"one", "nope"})
    )
    assert [(record.name, record.code) for record in records] == [
        ("one", "blocked"),
        ("nope", "not_installed"),
    ]
    assert (records[1].status, records[1].wanted) == (PluginStatus.FAILED, False)
    assert records[1].reason == "TURNLANE_PLUGINS names it, but no plugin has that name"
