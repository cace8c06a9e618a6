"""Clean environments: virtual environments that know this product by its wheels only."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import turnlane_tests
from turnlane_tests.real import missing

ROOT = Path(turnlane_tests.__file__).parents[3]
CONSTRAINTS = ROOT / "constraints.txt"


def run(
    *command: str | Path, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment without settings of ours or of Python, plus `variables`."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TURNLANE_", "PYTHON", "PYTEST", "COV", "COVERAGE"))
    }
    environment["PIP_CONSTRAINT"] = str(CONSTRAINTS)
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    environment.update(variables)
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=cwd
    )


def wheel(source: Path, target: Path) -> Path:
    """Build the wheel of a source tree; skip the test where what it takes cannot be had."""
    result = run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, source
    )
    if result.returncode != 0:
        missing(f"no wheel of {source.name} (is the package registry reachable?): {result.stderr}")
    (built,) = target.glob("*.whl")
    return built


def wheels(target: Path, *folders: str) -> dict[str, Path]:
    """Build the wheels of distributions of this repository, each named by its folder."""
    return {folder: wheel(ROOT / folder, target / folder.replace("/", "-")) for folder in folders}


class CleanEnvironment:
    """A virtual environment that knows this product by its wheels only."""

    def __init__(self, folder: Path, wheels: dict[str, Path]) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        self.wheels = wheels

    def install(self, *folders: str) -> None:
        """Install distributions of this repository."""
        self.pip("install", *(str(self.wheels[folder]) for folder in folders))

    def uninstall(self, *distributions: str) -> None:
        """Remove distributions by name."""
        self.pip("uninstall", "--yes", *distributions)

    def pip(self, *arguments: str) -> None:
        """Run pip and expect it to succeed."""
        result = run(self.bin / "python", "-m", "pip", "--quiet", *arguments)
        assert result.returncode == 0, result.stderr

    def turnlane(self, *arguments: str) -> list[dict[str, object]]:
        """Run a command that lists something and return the list."""
        result = run(self.bin / "turnlane", *arguments, "--json")
        assert result.returncode == 0, result.stderr
        listed: list[dict[str, object]] = json.loads(result.stdout)
        return listed
