"""The guide names every stage, every code and every setting."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from turnlane.api.settings import ViolationCode
from turnlane_tests import codes
from turnlane_tests.clean import ROOT
from turnlane_vk import recognition
from turnlane_vk.settings import VkSettings

GUIDE = (ROOT / "docs" / "providers" / "vk.md").read_text()
SOURCES = [source for source in codes.product(ROOT) if "/turnlane_vk/" in source.place]
CONTRACT = [source for source in codes.product(ROOT) if "turnlane/api/" in source.place]
CODES = (
    codes.find([*SOURCES, *CONTRACT]).codes.keys()
    - codes.find(CONTRACT).codes.keys()
    - {*get_args(ViolationCode)}
)
STAGES = [
    value
    for name, value in vars(recognition).items()
    if name.isupper() and not name.startswith("_") and isinstance(value, str)
]


def test_codes_and_stages_are_found() -> None:
    assert {"captcha_required", "missing_token", "browser_unavailable"} <= CODES
    assert len(STAGES) == 7


@pytest.mark.parametrize(
    "name",
    [*sorted(CODES), *STAGES, *(each.name for each in msgspec.structs.fields(VkSettings))],
)
def test_the_guide_names_it(name: str) -> None:
    assert f"`{name}`" in GUIDE


def test_the_guide_names_nothing_that_there_is_not() -> None:
    tables = "\n".join(line for line in GUIDE.splitlines() if line.startswith("| `"))
    named = {
        name
        for line in tables.splitlines()
        for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])
    }
    settings = {each.name for each in msgspec.structs.fields(VkSettings)}
    assert named - settings - set(STAGES) - set(CODES) - {"provider_resolve"} == set()


def test_the_schema_of_the_artifact_is_installed_with_the_package() -> None:
    assert Path(recognition.__file__).with_name("artifact.schema.json").is_file()
