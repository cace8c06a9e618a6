"""The process: what a command gets, how it is ended, and that nothing of it is left."""

import json
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from turnlane.api import LinkError, ProviderError, Secret
from turnlane.telemetry.redaction import find_leaks
from turnlane_exec.config import Command
from turnlane_exec.process import DEFAULT_LANG, MAX_STDOUT, PATH, Ending, Run, check, run

pytestmark = pytest.mark.anyio

HELD = """
import os, signal, subprocess, sys
held = os.open(sys.argv[1], os.O_WRONLY)
"""
"""Holds the watch open; children that are given it hold it too."""

FAMILY = (
    HELD
    + """
grandchild = f"import os, signal; os.write({held}, b'x'); signal.pause()"
child = f'''
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-S", "-c", {grandchild!r}], pass_fds=[{held}])
signal.pause()
'''
subprocess.Popen([sys.executable, "-S", "-c", child], pass_fds=[held])
"""
)
"""A child that heeds no SIGTERM and a grandchild, which says when it is there."""


def python(code: str, *arguments: str, timeout: float = 20.0, **more: Any) -> Command:
    argv = [sys.executable, "-S", "-c", code, *arguments]
    return Command("office", tuple(map(Secret, argv)), timeout, **more)


def shell(script: str, timeout: float = 20.0) -> Command:
    return Command("office", tuple(map(Secret, ["sh", "-c", script])), timeout)


def refusal(ended: Run) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        check(ended, shell("", timeout=0.5))
    error = caught.value
    assert error.provider_stage == "run_command"
    assert error.advice
    assert not isinstance(error, LinkError)
    return error


async def test_what_a_command_prints_is_its_answer() -> None:
    ended = await run(shell("printf answer; printf told >&2"), {})

    assert ended == Run(Ending.EXITED, 0, Secret(b"answer"), 6, 4)
    check(ended, shell(""))


async def test_a_command_gets_its_arguments_as_they_are_and_no_shell() -> None:
    code = "import json, os, sys; print(json.dumps([os.fsencode(a).hex() for a in sys.argv[1:]]))"
    arguments = ["$HOME", "a b", "; exit 3", "*", "", "тест"]

    ended = await run(python(code, *arguments), {})

    given = [bytes.fromhex(each).decode() for each in json.loads(ended.stdout.reveal())]
    assert given == arguments


async def test_a_command_gets_a_scrubbed_environment() -> None:
    environ = {
        "HOME": "/home/alice",
        "LANG": "de_DE.UTF-8",
        "PATH": "/planted",
        "LD_PRELOAD": "/planted.so",
        "TURNLANE_LINK": "planted",
        "SSH_AUTH_SOCK": "/run/agent",
    }
    command = python(
        "import json, os; print(json.dumps(dict(os.environ)))",
        env={"SITE": Secret("nörth"), "LC_ALL": Secret("C.UTF-8")},
        pass_env=("SSH_AUTH_SOCK", "NOT_SET"),
    )

    ended = await run(command, environ)

    assert json.loads(ended.stdout.reveal()) == {
        "PATH": PATH,
        "HOME": "/home/alice",
        "LANG": "de_DE.UTF-8",
        "SSH_AUTH_SOCK": "/run/agent",
        "SITE": "nörth",
        "LC_ALL": "C.UTF-8",
    }


@pytest.mark.parametrize("known", [True, False])
async def test_a_command_has_a_home_and_a_language_where_we_have_none(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    home = pwd.getpwuid(os.geteuid()).pw_dir

    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    if not known:
        monkeypatch.setattr(pwd, "getpwuid", nobody)
        home = "/"

    ended = await run(shell('printf "%s %s" "$HOME" "$LANG"'), {})

    assert ended.stdout.reveal().decode() == f"{home} {DEFAULT_LANG}"


async def test_a_command_gets_no_input_no_terminal_and_a_folder_that_is_not_ours() -> None:
    code = """
import os, sys
print([sys.stdin.read(), os.getcwd(), os.getsid(0) == os.getpid()])
"""

    ended = await run(python(code), {})

    assert ended.stdout.reveal() == b"['', '/', True]\n"


async def test_no_descriptor_of_ours_is_handed_on(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        code = f"import os; os.fstat({ours.fileno()})"

        ended = await run(python(code), {})

    assert ended.status == 1


async def test_a_program_is_found_on_the_fixed_path_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "planted-program"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    by_name = Command("office", (Secret("planted-program"),))
    by_path = Command("office", (Secret(str(program)),))

    assert (await run(by_path, os.environ)).stdout.reveal() == b"found\n"
    with pytest.raises(ProviderError) as caught:
        await run(by_name, os.environ)

    assert caught.value.code == "command_not_found"


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [
        (None, 0, "command_not_found"),
        ("#!/planted-interpreter\n", 0o700, "command_not_found"),
        ("#!/bin/sh\n", 0o600, "command_not_started"),
        ("no program", 0o700, "command_not_started"),
    ],
)
async def test_a_program_that_does_not_start_is_told_without_its_path(
    tmp_path: Path, text: str | None, mode: int, code: str
) -> None:
    program = tmp_path / "planted-program"
    if text is not None:
        program.write_text(text)
        program.chmod(mode)

    with pytest.raises(ProviderError) as caught:
        await run(Command("office", (Secret(str(program)),)), {})

    error = caught.value
    assert (error.code, error.provider_stage) == (code, "run_command")
    assert "[commands.office] of exec.toml" in error.message
    told = f"{error} {error!r} {error.__cause__!r} {error.__context__!r} {error.__context__}"
    assert find_leaks(told, ["planted-program", "planted-interpreter"]) == []


@pytest.mark.parametrize(
    ("script", "status", "how"),
    [("exit 3", 3, "with status 3"), ("kill -9 $$", -9, "by signal 9")],
)
async def test_a_command_that_fails_is_told_with_the_bytes_it_wrote_and_not_the_bytes(
    script: str, status: int, how: str
) -> None:
    ended = await run(shell(f"echo planted-out; echo planted-err >&2; {script}"), {})

    assert (ended.ending, ended.status, ended.stderr_bytes) == (Ending.EXITED, status, 12)
    error = refusal(ended)
    assert error.code == "command_failed"
    assert f"ended {how}; it wrote 12 bytes to its standard error" in error.message
    assert "by hand" in error.advice
    assert find_leaks(f"{error} {ended!r}", ["planted-out", "planted-err"]) == []


async def test_as_much_output_as_is_allowed_is_taken() -> None:
    ended = await run(python(f"print('x' * {MAX_STDOUT - 1})"), {})

    assert (ended.ending, ended.status, ended.stdout_bytes) == (Ending.EXITED, 0, MAX_STDOUT)
    assert len(ended.stdout.reveal()) == MAX_STDOUT


async def test_one_byte_more_is_refused() -> None:
    ended = await run(python(f"print('x' * {MAX_STDOUT})"), {})

    assert ended.ending is Ending.TOO_LARGE
    assert len(ended.stdout.reveal()) == MAX_STDOUT
    assert refusal(ended).code == "output_too_large"


async def test_a_command_that_prints_without_end_is_killed(watch: Any) -> None:
    code = HELD + "while True: sys.stdout.write('planted' * 1000)"

    ended = await run(python(code, str(watch.path)), {})

    assert ended.ending is Ending.TOO_LARGE
    assert len(ended.stdout.reveal()) == MAX_STDOUT
    await watch.all_gone()


async def test_much_on_standard_error_is_counted_and_not_kept() -> None:
    code = "import sys; sys.stderr.write('x' * 3_000_000); print('answer')"

    ended = await run(python(code), {})

    assert (ended.status, ended.stderr_bytes) == (0, 3_000_000)
    assert ended.stdout.reveal() == b"answer\n"


async def test_a_command_that_takes_too_long_is_killed(watch: Any) -> None:
    code = HELD + "sys.stdin.read(); signal.pause()"

    ended = await run(python(code, str(watch.path), timeout=0.3), {})

    assert (ended.ending, ended.status) == (Ending.TIMED_OUT, -9)
    error = refusal(ended)
    assert error.code == "command_timeout"
    assert "within 0.5 s" in error.message
    await watch.all_gone()


async def test_one_that_hands_its_output_to_a_session_of_its_own_is_ended_by_time(
    watch: Any,
) -> None:
    code = (
        HELD
        + """
os.write(held, b"x")
child = [sys.executable, "-S", "-c", "import os, sys; os.read(0, 1)"]
subprocess.Popen(child, stdin=os.open(sys.argv[2], os.O_RDWR), start_new_session=True)
"""
    )
    keep_out = watch.path.with_name("keep-out")
    os.mkfifo(keep_out)

    ended = await run(python(code, str(watch.path), str(keep_out), timeout=1.0), {})

    # What escaped is told to go, and no longer ours.
    descriptor = os.open(keep_out, os.O_RDWR | os.O_NONBLOCK)
    os.write(descriptor, b"x")
    await watch.all_gone()
    os.close(descriptor)
    assert ended.ending is Ending.TIMED_OUT


async def test_cancellation_leaves_no_process_nor_what_it_started(watch: Any) -> None:
    code = FAMILY + "signal.pause()"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, python(code, str(watch.path)), {})
        assert await watch.line() == b"x"
        tasks.cancel_scope.cancel()

    await watch.all_gone()


async def test_what_was_started_ends_with_the_command(watch: Any) -> None:
    code = FAMILY + "print('answer', flush=True); os.read(os.open(sys.argv[2], os.O_RDONLY), 1)"
    go_on = watch.path.with_name("go-on")
    os.mkfifo(go_on)
    descriptor = os.open(go_on, os.O_RDWR)
    outcome: list[Run] = []

    async def keep() -> None:
        outcome.append(await run(python(code, str(watch.path), str(go_on)), {}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
        assert await watch.line() == b"x"
        os.write(descriptor, b"x")

    os.close(descriptor)
    await watch.all_gone()
    (ended,) = outcome
    assert (ended.ending, ended.status) == (Ending.EXITED, 0)
    assert ended.stdout.reveal() == b"answer\n"


async def test_a_command_that_was_cancelled_is_reaped(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    real: Callable[..., Any] = anyio.open_process

    async def noted(*arguments: Any, **options: Any) -> Any:
        process = await real(*arguments, **options)
        started.append(process.pid)
        return process

    monkeypatch.setattr(anyio, "open_process", noted)
    code = HELD + "os.write(held, b'x'); signal.pause()"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, python(code, str(watch.path)), {})
        assert await watch.line() == b"x"
        tasks.cancel_scope.cancel()

    (pid,) = started
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 it does not wait


async def test_who_is_cancelled_while_it_starts_leaves_nothing(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = anyio.open_process
    scope = anyio.CancelScope()

    async def interrupted(*arguments: Any, **options: Any) -> Any:
        process = await real(*arguments, **options)
        assert await watch.line() == b"x"
        scope.cancel()
        await anyio.lowlevel.checkpoint()
        return process

    monkeypatch.setattr(anyio, "open_process", interrupted)

    with scope:
        await run(python(FAMILY + "signal.pause()", str(watch.path)), {})

    await watch.all_gone()
    assert scope.cancelled_caught
