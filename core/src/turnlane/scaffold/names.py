"""The names of a new plugin: all of them follow from the name of its distribution."""

import keyword
import re
import sys
from dataclasses import dataclass

from turnlane.api import PolicyError

MAX_LENGTH = 36
PREFIX = "turnlane-"
"""May stand before a distribution's name; ids, and so links, go without it."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_FORM = (
    "use small letters, digits and single hyphens, a letter first, "
    f"at most {MAX_LENGTH} characters: acme-turn"
)
_TAKEN = frozenset(
    {"anyio", "hatchling", "msgspec", "mypy", "pluggy", "pytest", "ruff", "tests", "trio"}
)
"""Packages that a new plugin imports or is tested with; its own may not hide them."""


@dataclass(frozen=True)
class Names:
    """What a plugin is called: `turnlane-acme-turn` is imported as `turnlane_acme_turn`.

    Its provider or adapter has the `identifier` `acme-turn`, the title `Acme Turn`, and classes
    whose names begin with `AcmeTurn`.
    """

    distribution: str
    package: str
    identifier: str
    title: str
    classes: str


def read_name(text: str) -> Names:
    """Derive all names from a distribution's; raises `PolicyError` (`invalid_plugin_name`)."""

    def refuse(problem: str, advice: str = _FORM) -> PolicyError:
        return PolicyError("invalid_plugin_name", f"the name {text!r} {problem}", advice)

    identifier = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(text) or not _NAME.fullmatch(identifier):
        raise refuse("is not in kebab case")
    if len(text) > MAX_LENGTH:
        raise refuse(f"has over {MAX_LENGTH} characters")
    package = text.replace("-", "_")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise refuse("cannot be imported: Python has that name itself", f"try {PREFIX}{text}")
    if package in _TAKEN or package == "turnlane":
        raise refuse("is a package that plugins need themselves", "choose another")
    words = [word.capitalize() for word in identifier.split("-")]
    return Names(text, package, identifier, " ".join(words), "".join(words))
