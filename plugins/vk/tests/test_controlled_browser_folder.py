"""The browser's folder: what belongs to it is found and killed, and nothing else."""

import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import anyio
import pytest
from anyio.abc import Process

from turnlane_vk.browser_folder import BrowserFolder

pytestmark = pytest.mark.anyio

STEP = 20.0
"""Seconds that a step may take on a busy machine."""

SAY_AND_STAY = "import os; os.write(1, b'here'); os.read(0, 1)"
TWICE_AWAY = f"""
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    subprocess.Popen([sys.executable, '-c', {SAY_AND_STAY!r}, *sys.argv[1:]])
os._exit(0)
"""
"""Leaves its parent, its group and its session, as Chromium's crash handlers do."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go, with a path as short as a browser needs."""
    with tempfile.TemporaryDirectory(prefix="tl-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def folder(temporary: Path) -> BrowserFolder:
    return BrowserFolder.make()


@asynccontextmanager
async def stranger(
    *arguments: str,
    code: str = SAY_AND_STAY,
    env: dict[str, str] | None = None,
    own_session: bool = True,
) -> AsyncIterator[Process]:
    """Run a process that stays until its pipe is closed, or it is killed."""
    process = await anyio.open_process(
        [sys.executable, "-c", code, *arguments],
        stdin=PIPE, stdout=PIPE, stderr=None, env=env, start_new_session=own_session,
    )  # fmt: skip
    async with process:
        assert process.stdout is not None
        with anyio.fail_after(STEP):
            assert await process.stdout.receive() == b"here"
        yield process


async def gone(process: Process) -> bool:
    """Whether all that had the process's output has ended, without having been asked to."""
    assert process.stdout is not None
    with anyio.move_on_after(STEP):
        try:
            await process.stdout.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return True
    return False


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for temporary files that is too deep for the socket of a browser."""
    place = tmp_path / ("x" * 40)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_it_is_made_elsewhere_when_the_place_is_too_deep(deep: Path) -> None:
    folder = BrowserFolder.make()

    assert folder.path.parent == Path("/tmp")
    assert list(deep.iterdir()) == []
    folder.path.rmdir()


def test_it_is_the_owners_alone(folder: BrowserFolder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


async def test_clearing_removes_it_with_what_is_in_it(folder: BrowserFolder) -> None:
    (folder.profile / "Default").mkdir(parents=True)
    (folder.profile / "Default" / "Cookies").write_text("secret")

    await folder.clear()

    assert not folder.path.exists()


async def test_clearing_again_does_nothing(folder: BrowserFolder) -> None:
    await folder.clear()
    await folder.clear()

    assert not folder.path.exists()


async def test_a_process_with_the_folder_in_its_arguments_is_killed(folder: BrowserFolder) -> None:
    async with stranger(f"--user-data-dir={folder.profile}") as process:
        await folder.clear()

        assert await gone(process)


async def test_a_process_with_the_folder_in_its_environment_is_killed(
    folder: BrowserFolder,
) -> None:
    async with stranger(env=folder.driver_environment(os.environ)) as process:
        await folder.clear()

        assert await gone(process)


async def test_a_process_that_left_its_group_and_parent_is_killed(folder: BrowserFolder) -> None:
    async with stranger(str(folder.path), code=TWICE_AWAY) as process:
        await folder.clear()

        assert await gone(process)


async def test_others_are_left_alone(folder: BrowserFolder) -> None:
    other = BrowserFolder.make()
    async with stranger(str(other.path)) as process:
        await folder.clear()
        assert process.returncode is None
        assert other.path.exists()
        await other.clear()

        assert await gone(process)


async def test_the_callers_own_group_is_left_alone(folder: BrowserFolder) -> None:
    async with stranger(str(folder.path), own_session=False) as process:
        await folder.clear()

        assert process.returncode is None
        process.kill()


async def test_cancellation_does_not_leave_it_half_cleared(folder: BrowserFolder) -> None:
    async with stranger(str(folder.path)) as process:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await folder.clear()

        assert await gone(process)
    assert not folder.path.exists()


async def test_without_proc_the_folder_still_goes(
    folder: BrowserFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnlane_vk.browser_folder._PROC", tmp_path / "nowhere")

    await folder.clear()

    assert not folder.path.exists()


def test_the_browser_is_at_home_in_the_folder(folder: BrowserFolder) -> None:
    environ = folder.browser_environment({"HOME": "/home/me", "PATH": "/bin", "DISPLAY": ":0"})

    homes = [value for name, value in environ.items() if name not in ("PATH", "DISPLAY")]
    assert {"HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} < environ.keys()
    assert environ["XAUTHORITY"] == "/home/me/.Xauthority"
    assert all(Path(home).is_relative_to(folder.path) for home in homes if "/home/me" not in home)
    assert environ["DISPLAY"] == ":0"


def test_an_xauthority_of_the_operators_own_is_kept(folder: BrowserFolder) -> None:
    environ = folder.browser_environment({"HOME": "/home/me", "XAUTHORITY": "/run/x"})

    assert environ["XAUTHORITY"] == "/run/x"


@pytest.mark.parametrize("of", ["browser", "driver"])
def test_what_is_set_for_turnlane_is_not_passed_on(folder: BrowserFolder, of: str) -> None:
    environ = {"TURNLANE_LINK": "secret", "VK_PROVIDER_BROWSER": "c", "LANG": "C"}

    passed = getattr(folder, f"{of}_environment")(environ)

    assert not passed.keys() & {"TURNLANE_LINK", "VK_PROVIDER_BROWSER"}
    assert passed["LANG"] == "C"
