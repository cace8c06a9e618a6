"""The files of a new plugin: templates filled with its names, and written where nothing was."""

import shutil
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from string import Template

from turnlane.api import PolicyError
from turnlane.scaffold.names import Names


class Kind(StrEnum):
    """What a new plugin offers."""

    PROVIDER = "provider"
    INGRESS = "ingress"
    EGRESS = "egress"
    PLATFORM_TUNNEL = "platform-tunnel"

    @property
    def module(self) -> str:
        """The module of a plugin that has what is to be written."""
        return "tunnel" if self is Kind.PLATFORM_TUNNEL else self.value


_COMMON = {
    ".github/workflows/ci.yml": "ci.yml",
    ".gitignore": "gitignore",
    "LICENSE": "LICENSE",
    "pyproject.toml": "pyproject.toml",
    "src/$package/py.typed": "py.typed",
}
_OF_KIND = {
    "README.md": "README.md",
    "src/$package/__init__.py": "__init__.py",
    "src/$package/plugin.py": "plugin.py",
    "src/$package/$module.py": "$module.py",
    "tests/test_$module.py": "test_$module.py",
}
"""Where each template goes; both sides are templates themselves."""


def render(names: Names, kind: Kind) -> dict[str, str]:
    """Return the text of every file of a new plugin by its path, `/` between folders."""
    fields = {
        "distribution": names.distribution,
        "package": names.package,
        "id": names.identifier,
        "title": names.title,
        "classes": names.classes,
        "kind": kind.value,
        "module": kind.module,
    }
    templates = files("turnlane.scaffold") / "templates"
    rendered = {}
    for folder, places in (("common", _COMMON), (kind.value, _OF_KIND)):
        for place, source in places.items():
            name = Template(source).substitute(fields)
            text = (templates / folder / f"{name}.tmpl").read_text(encoding="utf-8")
            rendered[Template(place).substitute(fields)] = Template(text).substitute(fields)
    return dict(sorted(rendered.items()))


def write(contents: dict[str, str], project: Path) -> None:
    """Make the folder `project` with these files in it, all of them or none.

    Raises `PolicyError`: `project_exists` where there is anything at that path already,
    `project_unwritable` where the system refuses.
    """
    made = False
    try:
        project.parent.mkdir(parents=True, exist_ok=True)
        project.mkdir()
        made = True
        for place, text in contents.items():
            path = project / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        if made:
            shutil.rmtree(project, ignore_errors=True)
        elif project.exists() or project.is_symlink():
            raise PolicyError(
                "project_exists",
                f"there is already something at {project}",
                "choose another name or --directory; nothing is ever overwritten",
            ) from None
        raise PolicyError(
            "project_unwritable",
            f"{project} cannot be written: {error.strerror}",
            "choose another --directory",
        ) from error
