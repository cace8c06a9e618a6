"""The C programs beside Turnlane, compiled where there is a compiler."""

import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).with_name("native")
FLAGS = ("-O2", "-std=gnu11", "-Wall")


def compiled(name: str, folder: Path) -> str | None:
    """Compile `native/NAME.c` into `folder`; return the program, or None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / name
    subprocess.run([compiler, *FLAGS, "-o", program, SOURCES / f"{name}.c"], check=True)
    return str(program)
