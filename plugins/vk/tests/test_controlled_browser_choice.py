"""Which Chromium is driven, and how: by what the operator set, and by what is there."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from turnlane_vk.browser import BrowserUnavailable
from turnlane_vk.browser_choice import choose


@pytest.fixture(autouse=True)
def playwright_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        path = tmp_path / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return str(path)

    return make


Program = Callable[[str], str]


def test_chromium_is_looked_up_on_the_path(tmp_path: Path, program: Program) -> None:
    chromium = program("chromium")
    program("google-chrome")

    assert choose({"PATH": str(tmp_path)}).executable == chromium


def test_chrome_serves_where_chromium_is_not(tmp_path: Path, program: Program) -> None:
    chrome = program("google-chrome")

    assert choose({"PATH": str(tmp_path)}).executable == chrome


@pytest.mark.parametrize("absolute", [True, False])
def test_the_operator_names_another(tmp_path: Path, program: Program, absolute: bool) -> None:
    program("chromium")
    mine = program("my-chromium")
    named = mine if absolute else "my-chromium"

    choice = choose({"PATH": str(tmp_path), "VK_PROVIDER_BROWSER": named})

    assert choice.executable == mine


def test_a_named_program_that_is_not_there_is_not_replaced(
    tmp_path: Path, program: Program
) -> None:
    program("chromium")

    with pytest.raises(BrowserUnavailable) as caught:
        choose({"PATH": str(tmp_path), "VK_PROVIDER_BROWSER": "/nowhere/chromium"})

    assert "VK_PROVIDER_BROWSER" in caught.value.message
    assert "/nowhere" not in caught.value.message + caught.value.advice


def test_without_any_chromium_the_advice_is_to_install_one(tmp_path: Path) -> None:
    with pytest.raises(BrowserUnavailable) as caught:
        choose({"PATH": str(tmp_path)})

    assert "no Chromium on PATH" in caught.value.message
    assert "apt-get install chromium" in caught.value.advice


def test_without_playwright_the_advice_is_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(BrowserUnavailable) as caught:
        choose({})

    assert "turnlane-vk[browser]" in caught.value.advice


@pytest.mark.parametrize(
    ("environ", "headless"),
    [
        ({}, True),
        ({"DISPLAY": ":0"}, False),
        ({"WAYLAND_DISPLAY": "wayland-0"}, False),
        ({"DISPLAY": ":0", "CI": "true"}, True),
        ({"DISPLAY": ":0", "VK_PROVIDER_BROWSER_HEADLESS": "true"}, True),
        ({"CI": "true", "VK_PROVIDER_BROWSER_HEADLESS": "false"}, False),
        ({"VK_PROVIDER_BROWSER_HEADLESS": "False"}, False),
        ({"DISPLAY": ":0", "VK_PROVIDER_BROWSER_HEADLESS": ""}, False),
    ],
)
def test_there_is_a_window_where_somebody_can_see_it_or_the_operator_says_so(
    tmp_path: Path, program: Program, environ: dict[str, str], headless: bool
) -> None:
    program("chromium")

    assert choose({"PATH": str(tmp_path), **environ}).headless is headless


def test_a_macintosh_has_a_display_without_a_variable(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("chromium")
    monkeypatch.setattr("sys.platform", "darwin")

    assert not choose({"PATH": str(tmp_path)}).headless


def test_headless_is_true_or_false(tmp_path: Path, program: Program) -> None:
    program("chromium")

    with pytest.raises(BrowserUnavailable, match="VK_PROVIDER_BROWSER_HEADLESS is neither"):
        choose({"PATH": str(tmp_path), "VK_PROVIDER_BROWSER_HEADLESS": "yes"})


@pytest.mark.parametrize(("user", "sandbox"), [(0, False), (1000, True)])
def test_only_root_goes_without_chromiums_sandbox(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch, user: int, sandbox: bool
) -> None:
    program("chromium")
    monkeypatch.setattr(os, "geteuid", lambda: user)

    assert choose({"PATH": str(tmp_path)}).sandbox is sandbox
