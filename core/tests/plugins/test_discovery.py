"""Discovery reads metadata and imports nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from turnlane.plugins import chosen_names, disabled_names, discover_commands, discover_plugins

Install = Callable[..., None]


def test_plugins_of_every_major_version_are_found_in_a_stable_order(
    site: Path, install: Install
) -> None:
    install("zeta-turn")
    install("acme-turn", group="turnlane.plugins.v2")
    install("other", group="turnlane.plugins")
    install("unrelated", group="console_scripts")

    found = discover_plugins([str(site)])

    assert [(each.distribution, each.name, each.major, each.version) for each in found] == [
        ("acme-turn", "acme-turn", 2, "1.2.3"),
        ("zeta-turn", "zeta-turn", 1, "1.2.3"),
    ]
    assert "zeta_turn" not in sys.modules


def test_an_installed_distribution_hides_a_later_one_of_its_name(
    site: Path, install: Install, tmp_path: Path
) -> None:
    install("acme-turn", version="2.0")
    later = tmp_path / "later"
    (later / "acme_turn-1.0.dist-info").mkdir(parents=True)
    (later / "acme_turn-1.0.dist-info" / "METADATA").write_text("Name: acme-turn\nVersion: 1.0\n")
    (later / "acme_turn-1.0.dist-info" / "entry_points.txt").write_text(
        "[turnlane.plugins.v1]\nremoved = acme_turn\n"
    )

    found = discover_plugins([str(site), str(later)])

    assert [(each.name, each.version) for each in found] == [("acme-turn", "2.0")]


def test_broken_metadata_of_one_distribution_hides_no_other(site: Path, install: Install) -> None:
    install("acme-turn")
    install("broken", entry_points="[turnlane.plugins.v1]\nno value here\n")

    found = discover_plugins([str(site)])

    assert [each.distribution for each in found if not each.problem] == ["acme-turn"]
    (broken,) = [each for each in found if each.problem]
    assert broken.distribution == "broken"
    with pytest.raises(ImportError):
        broken.load()


def test_commands_are_listed_unless_blocked_by_name_or_distribution(
    site: Path, install: Install
) -> None:
    for name in ("acme-lab", "acme-control", "acme-extra"):
        install(name, "raise RuntimeError", group="turnlane.commands.v1", name=name[5:])

    every = discover_commands(path=[str(site)])
    some = discover_commands(
        disabled_names({"TURNLANE_DISABLE_PLUGINS": "LAB, acme_control"}), [str(site)]
    )

    assert [each.name for each in every] == ["control", "extra", "lab"]
    assert [each.name for each in some] == ["extra"]


@pytest.mark.parametrize(
    ("value", "names"),
    [("", set()), (" , ", set()), ("Acme_Turn, vk", {"acme-turn", "vk"}), ("a.b", {"a-b"})],
)
def test_blocked_names_are_compared_as_packaging_does(value: str, names: set[str]) -> None:
    assert disabled_names({"TURNLANE_DISABLE_PLUGINS": value}) == names


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, None),
        ({"TURNLANE_PLUGINS": ""}, set()),
        ({"TURNLANE_PLUGINS": " , "}, set()),
        ({"TURNLANE_PLUGINS": "Acme_Turn, vk"}, {"acme-turn", "vk"}),
    ],
)
def test_chosen_names_differ_from_none_chosen(
    environ: dict[str, str], names: set[str] | None
) -> None:
    assert chosen_names(environ) == names


def test_commands_of_plugins_that_are_not_chosen_are_left_out(site: Path, install: Install) -> None:
    for name in ("acme-lab", "acme-control"):
        install(name, "raise RuntimeError", group="turnlane.commands.v1", name=name[5:])
    for chosen, names in (({"lab"}, ["lab"]), ({"acme-control"}, ["control"]), (set(), [])):
        found = discover_commands(path=[str(site)], only=frozenset(chosen))
        assert [each.name for each in found] == names


def test_nothing_is_blocked_without_the_variable() -> None:
    assert disabled_names({}) == frozenset()


def test_listing_imports_neither_openssl_nor_a_plugin_nor_opentelemetry(
    site: Path, install: Install
) -> None:
    install("acme-turn", "raise RuntimeError('imported')")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import turnlane.plugins\n"
        "names = [each.name for each in turnlane.plugins.discover_plugins()]\n"
        "turnlane.plugins.discover_commands()\n"
        "assert 'acme-turn' in names, names\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
    )

    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    imported = set(finished.stdout.split())
    assert "turnlane" in imported
    assert not imported & {
        "OpenSSL",
        "acme_turn",
        "opentelemetry",
        "turnlane_adapters",
        "turnlane_generic_turn",
        "turnlane_lab",
    }
