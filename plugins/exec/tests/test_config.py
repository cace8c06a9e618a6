"""The configuration: what it says, who may write it, and every violation at once."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import LinkError, ProviderError, Secret, Stage
from turnlane.telemetry.redaction import find_leaks
from turnlane_exec.config import (
    DEFAULT_TIMEOUT,
    MAX_SIZE,
    Command,
    choose,
    command_name,
    read_config,
)
from turnlane_exec.violations import SHOWN, ViolationsError

Write = Callable[[str], Path]


def refused(folder: Path) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read_config(folder)
    error = caught.value
    assert error.stage is Stage.PROVIDER_RESOLVE
    assert error.provider_stage == "read_config"
    assert error.advice
    return error


def violations(folder: Path) -> list[tuple[str, str]]:
    error = refused(folder)
    assert isinstance(error, ViolationsError)
    assert error.code == "invalid_config"
    return [(each.field, each.code) for each in error.violations]


def test_a_command_says_what_is_run_and_with_what(write_config: Write, config_dir: Path) -> None:
    write_config(
        "[commands.office]\n"
        'argv = ["/usr/bin/creds", "--site", "office"]\n'
        "timeout = 10\n"
        'env = { SITE = "north" }\n'
        'pass_env = ["SSH_AUTH_SOCK"]\n'
        "[commands.home-2]\n"
        'argv = ["creds"]\n'
    )

    commands = read_config(config_dir)

    argv = (Secret("/usr/bin/creds"), Secret("--site"), Secret("office"))
    env = {"SITE": Secret("north")}
    assert commands == {
        "office": Command("office", argv, 10.0, env, ("SSH_AUTH_SOCK",)),
        "home-2": Command("home-2", (Secret("creds"),), DEFAULT_TIMEOUT, {}, ()),
    }


def test_a_command_does_not_print_its_arguments_and_variables(
    write_config: Write, config_dir: Path
) -> None:
    write_config(
        '[commands.office]\nargv = ["/bin/x", "planted-argument"]\nenv = { A = "planted-value" }\n'
    )

    command = read_config(config_dir)["office"]

    told = f"{command} {command!r} {command.argv} {command.env}"
    assert find_leaks(told, ["planted-argument", "planted-value"]) == []


@pytest.mark.parametrize("folder_is_there", [True, False])
def test_a_missing_file_is_told_with_its_path(config_dir: Path, folder_is_there: bool) -> None:
    folder = config_dir if folder_is_there else config_dir / "nowhere"

    error = refused(folder)

    assert error.code == "missing_config"
    assert not isinstance(error, LinkError)
    assert str(folder / "exec.toml") in error.message


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(
    write_config: Write, config_dir: Path, mode: int
) -> None:
    write_config('[commands.office]\nargv = ["x"]').chmod(mode)

    assert refused(config_dir).code == "insecure_config"


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644])
def test_a_file_that_others_may_at_most_read_is_taken(
    write_config: Write, config_dir: Path, mode: int
) -> None:
    write_config('[commands.office]\nargv = ["x"]').chmod(mode)

    assert list(read_config(config_dir)) == ["office"]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_file_in_a_folder_that_others_may_write_is_refused(
    write_config: Write, config_dir: Path, mode: int
) -> None:
    write_config('[commands.office]\nargv = ["x"]')
    config_dir.chmod(mode)

    error = refused(config_dir)

    assert error.code == "insecure_config"
    assert str(config_dir) in error.message


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_belongs_to_another_user_is_refused(
    write_config: Write, config_dir: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = write_config('[commands.office]\nargv = ["x"]')
    foreign = os.stat(path if what == "file" else config_dir)
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if status.st_ino != foreign.st_ino:
            return status
        return os.stat_result([*status[:4], os.geteuid() + 1, *status[5:10]])

    monkeypatch.setattr(os, "fstat", fstat)

    error = refused(config_dir)

    assert error.code == "insecure_config"
    assert "another user" in error.message


def test_what_belongs_to_root_is_taken(
    write_config: Write, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config('[commands.office]\nargv = ["x"]')
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        return os.stat_result([*status[:4], 0, *status[5:10]])

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert list(read_config(config_dir)) == ["office"]


def test_a_link_to_a_file_that_others_may_write_is_refused(
    write_config: Write, config_dir: Path, tmp_path: Path
) -> None:
    target = write_config('[commands.office]\nargv = ["x"]').rename(tmp_path / "elsewhere")
    (config_dir / "exec.toml").symlink_to(target)
    assert list(read_config(config_dir)) == ["office"]

    target.chmod(0o666)

    assert refused(config_dir).code == "insecure_config"


def test_what_is_not_a_file_is_refused_without_waiting_for_it(config_dir: Path) -> None:
    os.mkfifo(config_dir / "exec.toml", 0o600)
    assert refused(config_dir).code == "unreadable_config"

    (config_dir / "exec.toml").unlink()
    (config_dir / "exec.toml").mkdir(0o700)
    assert refused(config_dir).code == "unreadable_config"


def test_a_folder_that_is_a_file_is_told_as_unreadable(write_config: Write) -> None:
    error = refused(write_config(""))

    assert error.code == "unreadable_config"
    assert "Not a directory" in error.message


def test_a_file_that_is_too_large_is_refused(write_config: Write, config_dir: Path) -> None:
    text = '[commands.office]\nargv = ["x"]\n#'
    write_config(text + "x" * (MAX_SIZE - len(text)))
    assert list(read_config(config_dir)) == ["office"]

    write_config(text + "x" * (MAX_SIZE - len(text) + 1))
    assert refused(config_dir).code == "unreadable_config"


def test_all_violations_are_told_at_once(write_config: Write, config_dir: Path) -> None:
    write_config(
        "timeout = 3\n"
        "[commands.a]\n"
        'argv = "creds --all"\n'
        "timeout = 0\n"
        'env = { "NOT OK" = "planted-value", B = 1 }\n'
        'pass_env = ["A=B", 3]\n'
        "shell = true\n"
        "[commands.b]\n"
        'argv = ["./creds", 1, "a\\u0000b"]\n'
        'timeout = "planted-timeout"\n'
        'env = ["x"]\n'
        'pass_env = "HOME"\n'
        '[commands."planted name"]\n'
    )

    assert violations(config_dir) == [
        ("commands.<name 3>", "pattern"),
        ("commands.a.argv", "type"),
        ("commands.a.env.<field 1>", "pattern"),
        ("commands.a.env.B", "type"),
        ("commands.a.pass_env[0]", "pattern"),
        ("commands.a.pass_env[1]", "type"),
        ("commands.a.shell", "unknown"),
        ("commands.a.timeout", "range"),
        ("commands.b.argv[0]", "pattern"),
        ("commands.b.argv[1]", "type"),
        ("commands.b.argv[2]", "pattern"),
        ("commands.b.env", "type"),
        ("commands.b.pass_env", "type"),
        ("commands.b.timeout", "type"),
        ("timeout", "unknown"),
    ]
    told = str(refused(config_dir))
    assert "commands.a.timeout: at least 0.1 and at most 55 seconds (range)" in told
    assert find_leaks(told, ["planted-value", "planted-timeout", "planted name"]) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("commands", "required")]),
        ("commands = 3", [("commands", "type")]),
        ("[commands]\na = 3", [("commands.a", "type")]),
        ("[commands.a]", [("commands.a.argv", "required")]),
        ("[commands.a]\nargv = []", [("commands.a.argv", "range")]),
        (f"[commands.a]\nargv = {['x'] * 257}", [("commands.a.argv", "range")]),
        ('[commands.a]\nargv = [""]', [("commands.a.argv[0]", "pattern")]),
        ('[commands.a]\nargv = ["bin/x"]', [("commands.a.argv[0]", "pattern")]),
        ("[commands.a]\nargv = [1]", [("commands.a.argv[0]", "type")]),
        ('[commands.a]\nargv = ["x"]\ntimeout = true', [("commands.a.timeout", "type")]),
        ('[commands.a]\nargv = ["x"]\ntimeout = nan', [("commands.a.timeout", "range")]),
        ('[commands.a]\nargv = ["x"]\ntimeout = 56', [("commands.a.timeout", "range")]),
        (
            f'[commands.a]\nargv = ["x"]\npass_env = {["A"] * 65}',
            [("commands.a.pass_env", "range")],
        ),
        (
            '[commands.a]\nargv = ["x"]\n[commands.a.env]\n'
            + "".join(f'A{number} = ""\n' for number in range(65)),
            [("commands.a.env", "range")],
        ),
        (
            '[commands.a]\nargv = ["x"]\n"Planted-Key" = 1',
            [("commands.a.<field 2>", "unknown")],
        ),
    ],
    ids=range(15),
)
def test_a_field_that_is_wrong_is_named(
    write_config: Write, config_dir: Path, text: str, expected: list[tuple[str, str]]
) -> None:
    write_config(text)

    assert violations(config_dir) == expected


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'[commands.a]\nargv = "planted-secret', "it is not TOML, at"),
        (b"planted-secret", "it is not TOML, at"),
        (b'a = "planted-secret\xff"', "it is not UTF-8 text"),
        (b"a = " + b"[" * 20_000, "it is nested too deeply"),
    ],
    ids=range(4),
)
def test_what_is_not_toml_is_told_without_what_it_is(
    write_config: Write, config_dir: Path, data: bytes, told: str
) -> None:
    write_config("").write_bytes(data)

    error = refused(config_dir)

    assert error.code == "invalid_config"
    assert f"document: {told}" in error.message
    shown = f"{error} {error!r} {error.__cause__!r} {error.__context__!r} {error.__context__}"
    assert find_leaks(shown, ["planted-secret"]) == []


def test_a_message_names_a_bounded_number_of_violations(
    write_config: Write, config_dir: Path
) -> None:
    write_config("[commands]\n" + "".join(f"a{number} = 1\n" for number in range(SHOWN + 7)))

    error = refused(config_dir)

    assert isinstance(error, ViolationsError)
    assert len(error.violations) == SHOWN + 7
    assert error.message.count("(type)") == SHOWN
    assert error.message.endswith("and 7 more")


@pytest.mark.parametrize("text", ["exec:office", "EXEC:office"])
def test_a_link_names_a_command(text: str) -> None:
    assert command_name(Secret(text)) == "office"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "wrong_scheme"),
        ("office", "wrong_scheme"),
        ("exec", "wrong_scheme"),
        ("http://planted-name", "wrong_scheme"),
        ("exec:", "invalid_name"),
        ("exec://planted-name", "invalid_name"),
        ("exec:planted-name --all", "invalid_name"),
        ("exec:/bin/planted-name", "invalid_name"),
        ("exec:planted-name\n", "invalid_name"),
        ("exec:-planted-name", "invalid_name"),
        ("exec:a" + "b" * 64, "invalid_name"),
        ("exec:тест", "invalid_name"),
    ],
)
def test_a_link_that_names_no_command_is_refused(text: str, code: str) -> None:
    with pytest.raises(LinkError) as caught:
        command_name(Secret(text))

    error = caught.value
    assert (error.code, error.provider_stage, error.exit_code) == (code, "read_config", 2)
    assert "exec:NAME" in error.advice
    assert find_leaks(f"{error} {error!r}", ["planted-name"]) == []


def test_an_unknown_command_is_told_with_those_that_there_are() -> None:
    commands = {name: Command(name, (Secret("x"),)) for name in ("office", "home")}

    with pytest.raises(LinkError) as caught:
        choose(commands, "planted-name")

    assert caught.value.code == "unknown_command"
    assert caught.value.advice == "it has: home, office"
    assert find_leaks(str(caught.value), ["planted-name"]) == []


def test_an_unknown_command_of_an_empty_file_is_told_what_to_write() -> None:
    with pytest.raises(LinkError) as caught:
        choose({}, "office")

    assert "[commands.NAME]" in caught.value.advice


ARGUMENTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\x7f"), max_size=20), max_size=4
)


@given(arguments=ARGUMENTS)
def test_arguments_survive_the_way_through_the_file(
    tmp_path_factory: pytest.TempPathFactory, arguments: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("config")
    argv = json.dumps(["/bin/x", *arguments], ensure_ascii=False)
    path = folder / "exec.toml"
    path.write_text(f"[commands.a]\nargv = {argv}\n", encoding="utf-8")
    path.chmod(0o600)

    command = read_config(folder)["a"]

    assert [each.reveal() for each in command.argv] == ["/bin/x", *arguments]
