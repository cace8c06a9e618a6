"""Case files: the cases of a plugin's own tests, read from a Python file that is named for it."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from turnlane.api import PolicyError
from turnlane.plugins.records import describe
from turnlane.testing.check import Case


def read_cases(reference: str) -> tuple[Case, ...]:
    """Run the file of `FILE.py:NAME` and return what NAME is: a case, or several.

    A class with a `case`, as tests have one, counts as that case. Raises `PolicyError`:
    `invalid_cases`.
    """
    file, separator, name = reference.rpartition(":")
    if not separator or not name.isidentifier() or not file.endswith(".py"):
        raise _invalid("it is not written as FILE.py:NAME")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise _invalid(f"there is no file {path}")
    spec = spec_from_file_location(f"turnlane_cases_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name)
    except Exception as error:
        raise _invalid(f"{path.name} cannot be used: {describe(error)}") from error
    found = getattr(found, "case", found)
    cases = tuple(found) if isinstance(found, tuple | list) else (found,)
    if not cases or not all(isinstance(case, Case) for case in cases):
        raise _invalid(f"{name} is no ProviderCase, AdapterCase or TunnelCase, nor a list of them")
    return cases


def _invalid(problem: str) -> PolicyError:
    return PolicyError(
        "invalid_cases", f"--cases: {problem}", "name a case of the plugin's tests: FILE.py:NAME"
    )
