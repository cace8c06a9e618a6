"""The choice of the browser: which Chromium is driven, with a window or without, in its sandbox."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping

import msgspec

from turnlane_vk.browser import BrowserUnavailable

EXECUTABLE = "VK_PROVIDER_BROWSER"
HEADLESS = "VK_PROVIDER_BROWSER_HEADLESS"
"""The environment variables with which an operator decides."""

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""What is looked for on PATH, in this order, where the operator names nothing."""


class Choice(msgspec.Struct, frozen=True):
    """How Chromium is started."""

    executable: str
    headless: bool
    sandbox: bool
    """Off for root alone: Chromium does not start for root in its sandbox."""


def choose(environ: Mapping[str, str]) -> Choice:
    """Return how Chromium is started here, by `environ` and what is installed.

    Raises `BrowserUnavailable` where playwright or Chromium is missing, or a variable is wrong.
    """
    if importlib.util.find_spec("playwright") is None:
        raise BrowserUnavailable(
            "a controlled browser needs playwright, which is not installed",
            "install the extra: pip install 'turnlane-vk[browser]'",
        )
    return Choice(_executable(environ), _headless(environ), sandbox=os.geteuid() != 0)


def _executable(environ: Mapping[str, str]) -> str:
    path = environ.get("PATH")
    named = environ.get(EXECUTABLE)
    if named:
        found = shutil.which(named, path=path)
        if found is None:
            raise BrowserUnavailable(
                f"{EXECUTABLE} names no program that can be run",
                "give it the absolute path of Chromium, or unset it to have Chromium looked up",
            )
        return os.path.abspath(found)
    for name in PROGRAMS:
        found = shutil.which(name, path=path)
        if found is not None:
            return os.path.abspath(found)
    raise BrowserUnavailable(
        "there is no Chromium on PATH",
        f"install it (Debian: apt-get install chromium), or name it with {EXECUTABLE}",
    )


def _headless(environ: Mapping[str, str]) -> bool:
    match environ.get(HEADLESS, "").strip().lower():
        case "true":
            return True
        case "false":
            return False
        case "":
            shown = any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
            return bool(environ.get("CI")) or not (shown or sys.platform == "darwin")
        case _:
            raise BrowserUnavailable(
                f"{HEADLESS} is neither true nor false",
                "set it to one of them, or unset it: no window where CI or no display is",
            )
