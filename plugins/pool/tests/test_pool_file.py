"""The operator's file: what it says, all that is wrong at once, and who may have written it."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import ProviderError, Secret
from turnlane.telemetry.redaction import find_leaks
from turnlane_pool.local_files import LocalFileError, read_local
from turnlane_pool.pool_file import (
    MAX_MEMBERS,
    MAX_POOLS,
    Member,
    Pool,
    PoolFileError,
    Strategy,
    _Checker,
    read_pools,
)


def write(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "pool.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def refusal(folder: Path, text: str | bytes, mode: int = 0o600) -> PoolFileError:
    write(folder, text, mode)
    with pytest.raises(PoolFileError) as caught:
        read_pools(folder)
    return caught.value


def violations(folder: Path, text: str) -> list[tuple[str, str]]:
    error = refusal(folder, text)
    assert error.code == "invalid_pool_file"
    return [(each.field, each.code) for each in error.violations]


MEMBER = '{ provider = "plain", link = "x" }'


def test_a_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        [pools.home]
        strategy = "ordered"
        [[pools.home.members]]
        provider = "generic-turn"
        link_file = "own.link"
        [[pools.home.members]]
        name = "spare"
        provider = "http"
        link = "x"
        settings = { lifetime = 600 }

        [pools.Even-2]
        strategy = "weighted"
        backoff_first = 1.5
        backoff_last = 60
        members = [{ provider = "plain", link_env = "LINK", weight = 3 }]
        """,
    )

    assert read_pools(tmp_path) == {
        "home": Pool(
            "home",
            Strategy.ORDERED,
            (
                Member("generic-turn", "generic-turn", "link_file", Secret("own.link")),
                Member("spare", "http", "link", Secret("x"), {"lifetime": 600}),
            ),
            5.0,
            300.0,
        ),
        "Even-2": Pool(
            "Even-2",
            Strategy.WEIGHTED,
            (Member("plain", "plain", "link_env", Secret("LINK"), weight=3),),
            1.5,
            60.0,
        ),
    }


def test_the_examples_of_the_readme_are_files_that_are_taken(tmp_path: Path) -> None:
    readme = Path(__file__).parents[1] / "README.md"
    blocks = re.split(r"\n(?=\S)", readme.read_text())
    indented = [line for block in blocks for line in block.splitlines() if line.startswith("    ")]
    start, end = indented.index("    [pools.home]"), indented.index("    ]")
    shell = next(n for n, line in enumerate(indented) if line.startswith("    cd "))
    shared = indented.index("    [pools.shared]")
    write(tmp_path, "\n".join(indented[start:shell] + indented[shared : end + 1]))

    pools = read_pools(tmp_path)

    assert [member.name for member in pools["home"].members] == ["own", "rented"]
    assert [member.weight for member in pools["shared"].members] == [3, 1]


def test_all_violations_of_the_file_are_told_at_once(tmp_path: Path) -> None:
    text = """
        colour = "red"
        [pools.a]
        strategy = "random"
        backoff_first = true
        backoff_last = 0.5
        shape = 1
        members = [
            { name = "planted secret", link = "planted-link", provider = "planted://provider" },
            { provider = "plain" },
            { provider = "plain", link = "planted-link", link_env = "planted env" },
            { provider = 7, link = "", weight = 1.5, settings = "planted", "planted-k" = 1 },
            { link_env = "planted env", provider = "plain", weight = 0 },
            "planted-member",
        ]
        [pools.b]
        strategy = 1
        members = []
        [pools.c]
        [pools.d]
        strategy = "ordered"
        backoff_first = 400
        members = [{ name = "n", provider = "plain", link = "x", weight = 2 },
                   { name = "n", provider = "plain", link = "y" }]
        [pools.e]
        strategy = "ordered"
        members = "planted-members"
        [[pools.x.members]]
        [extra]
        f = "planted-extra"
        """

    found = violations(tmp_path, text)

    assert found == [
        ("colour", "unknown"),
        ("extra", "unknown"),
        ("pools.a.backoff_first", "type"),
        ("pools.a.backoff_last", "range"),
        ("pools.a.members[0].name", "pattern"),
        ("pools.a.members[0].provider", "pattern"),
        ("pools.a.members[1].link", "required"),
        ("pools.a.members[2].link_env", "unknown"),
        ("pools.a.members[3].?", "unknown"),
        ("pools.a.members[3].link", "range"),
        ("pools.a.members[3].provider", "type"),
        ("pools.a.members[3].settings", "type"),
        ("pools.a.members[3].weight", "type"),
        ("pools.a.members[4].link_env", "pattern"),
        ("pools.a.members[4].weight", "range"),
        ("pools.a.members[5]", "type"),
        ("pools.a.shape", "unknown"),
        ("pools.a.strategy", "enum"),
        ("pools.b.members", "range"),
        ("pools.b.strategy", "type"),
        ("pools.c.members", "required"),
        ("pools.c.strategy", "required"),
        ("pools.d.backoff_last", "range"),
        ("pools.d.members[0].weight", "unknown"),
        ("pools.d.members[1].name", "enum"),
        ("pools.e.members", "type"),
        ("pools.x.members[0].link", "required"),
        ("pools.x.members[0].provider", "required"),
        ("pools.x.strategy", "required"),
    ]
    told = str(refusal(tmp_path, text))
    assert all(f"{field}: " in told for field, _ in found)
    assert "planted" not in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("pools", "required")]),
        ("pools = 1", [("pools", "type")]),
        ("[pools]", [("pools", "range")]),
        ('[pools]\nf = "planted"', [("pools.f", "type")]),
        (
            f'[pools."a planted b"]\nstrategy = "ordered"\nmembers = [{MEMBER}]',
            [("pools[0]", "pattern")],
        ),
        (
            f'[pools.a]\nstrategy = "ordered"\nbackoff_last = nan\nmembers = [{MEMBER}]',
            [("pools.a.backoff_last", "range")],
        ),
        (
            f'[pools.a]\nstrategy = "ordered"\nbackoff_first = {10**400}\nmembers = [{MEMBER}]',
            [("pools.a.backoff_first", "range")],
        ),
        (
            f'[pools.a]\nstrategy = "weighted"\nmembers = [{MEMBER[:-2]}, weight = true }}]',
            [("pools.a.members[0].weight", "type")],
        ),
    ],
)
def test_what_does_not_fit_is_told_by_field(
    tmp_path: Path, text: str, expected: list[tuple[str, str]]
) -> None:
    assert violations(tmp_path, text) == expected
    assert "planted" not in str(refusal(tmp_path, text))


def test_pools_and_members_are_bounded(tmp_path: Path) -> None:
    members = ", ".join(
        f'{{ name = "m{n}", provider = "plain", link = "x" }}' for n in range(MAX_MEMBERS)
    )
    pools = [f'[pools.p{n}]\nstrategy = "ordered"\nmembers = [{members}]' for n in range(MAX_POOLS)]
    write(tmp_path, "\n".join(pools))
    assert len(read_pools(tmp_path)) == MAX_POOLS

    one_more = f'[pools.q]\nstrategy = "ordered"\nmembers = [{members}, {MEMBER}]'

    assert violations(tmp_path, "\n".join([*pools, one_more])) == [
        ("pools", "range"),
        ("pools.q.members", "range"),
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"a = 1\nb = planted", "is not TOML (at line 2, column 5)"),
        (b"x = { planted = 1, planted = 2 }", "is not TOML (at line 1,"),
        (b"a = " + b"9" * 5000, "is not TOML"),
        (b"a = " + b"[" * 5000, "is not TOML"),
        (b"a = 1999-13-45", "is not TOML"),
        (b"a = '\xff'", "it is not UTF-8 text"),
    ],
)
def test_what_is_no_toml_is_refused_with_the_place_only(
    tmp_path: Path, data: bytes, told: str
) -> None:
    error = refusal(tmp_path, data)

    assert error.code == "invalid_pool_file"
    assert told in error.message
    assert "planted" not in str(error)
    assert error.__context__ is None


def test_a_file_that_is_not_there_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(PoolFileError) as caught:
        read_pools(tmp_path / "absent")

    assert caught.value.code == "missing_pool_file"
    assert str(tmp_path / "absent" / "pool.toml") in caught.value.message
    assert "README" in caught.value.advice
    assert isinstance(caught.value, ProviderError)
    assert (caught.value.exit_code, caught.value.provider_stage) == (2, "read_pool")


GOOD = f'[pools.a]\nstrategy = "ordered"\nmembers = [{MEMBER}]'


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    error = refusal(tmp_path, GOOD, mode)

    assert error.code == "unsafe_pool_file"
    assert "others than its owner may write to it" in error.message
    assert "chmod 600" in error.advice


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_a_file_that_only_its_owner_may_write_is_read(tmp_path: Path, mode: int) -> None:
    write(tmp_path, GOOD, mode)

    assert list(read_pools(tmp_path)) == ["a"]


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD)
    if os.geteuid() == 0:
        os.chown(path, 4242, -1)
    else:
        somebody = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: somebody)

    with pytest.raises(PoolFileError) as caught:
        read_pools(tmp_path)

    assert caught.value.code == "unsafe_pool_file"
    assert "it belongs to another user" in caught.value.message


def test_a_fifo_in_the_files_place_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pool.toml", 0o600)

    with pytest.raises(PoolFileError) as caught:
        read_pools(tmp_path)

    assert caught.value.code == "unreadable_pool_file"


def test_a_file_of_more_than_its_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1025)
    path.chmod(0o600)

    with pytest.raises(LocalFileError) as caught:
        read_local(path, 1024)

    assert (caught.value.kind, caught.value.told) == ("unreadable", "it is larger than 1 KiB")
    assert read_local(path, 1025) == b"x" * 1025


def test_neither_pools_nor_members_print_what_is_secret(tmp_path: Path) -> None:
    write(
        tmp_path,
        '[pools.a]\nstrategy = "ordered"\nmembers = [{ provider = "plain", '
        'link = "planted-link", settings = { key = "planted-key" } }]',
    )

    assert find_leaks(repr(read_pools(tmp_path)), ["planted-link", "planted-key"]) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ax._ \n\x00é", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["strategy", "members", "provider", "link", "name", "weight", "x y"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["pools", "other"]), VALUES))
def test_any_document_is_taken_or_refused_with_a_reason(document: dict[str, Any]) -> None:
    checker = _Checker()

    pools = checker.pools(document)

    assert checker.violations or all(pool.members for pool in pools.values())
