"""Things that have one place in the source have only that one."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = [*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]


def importers(prefix: str) -> set[str]:
    found = set()
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if any(name == prefix or name.startswith(f"{prefix}.") for name in names):
                found.add(str(path.relative_to(ROOT)))
    return found


def test_one_file_imports_the_opentelemetry_sdk() -> None:
    assert importers("opentelemetry.sdk") == {"core/src/turnlane/telemetry/setup.py"}


def test_one_file_uses_the_private_names_of_pyopenssl() -> None:
    assert importers("OpenSSL._util") == {"core/src/turnlane/net/openssl.py"}


def test_one_product_module_imports_asyncio_and_none_trio() -> None:
    assert importers("asyncio") == {"core/src/turnlane/net/reactor.py"}
    assert importers("trio") == set()


def test_modules_stay_small() -> None:
    large = {
        str(path.relative_to(ROOT)): lines
        for path in PRODUCT
        if (lines := len(path.read_text().splitlines())) > 600
    }
    assert large == {}


def test_distributions_have_one_version() -> None:
    for project in [*ROOT.glob("core/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")]:
        text = project.read_text()
        assert 'dynamic = ["version"]' in text, project
        assert 'VERSION"' in text, project


def test_no_hook_names_a_provider_outside_its_plugin() -> None:
    core = [path for path in PRODUCT if "core" in path.relative_to(ROOT).parts[:1]]
    naming = {str(path.relative_to(ROOT)) for path in core if "generic_turn" in path.read_text()}
    assert naming == set()


def test_no_module_outside_of_its_plugin_knows_the_provider_vk() -> None:
    known = re.compile(r"(?<![a-z])vk(?![a-z])|okcdn|vkontakte", re.IGNORECASE)
    sources = [path for path in ROOT.glob("*/src/**/*") if path.is_file()]
    sources += [path for path in ROOT.glob("plugins/*/src/**/*") if path.is_file()]
    naming = {
        path.relative_to(ROOT).parts[:2]
        for path in sources
        if path.suffix != ".pyc" and known.search(path.read_text(errors="replace"))
    }
    # The tests' own stand-in plays it.
    assert naming == {("plugins", "vk"), ("tests", "src")}
