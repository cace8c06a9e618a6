"""Every hook, setting, capability, stage and code is documented, and named by a test."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import pytest

import turnlane.api
from turnlane.api import ProviderCapabilities, Stage, TurnlaneError, hooks
from turnlane.api.settings import ViolationCode
from turnlane.net import relayed_path
from turnlane.plugins.manager import PluginManager
from turnlane.proto.frames import ByeCode
from turnlane.proto.refusals import RejectCode
from turnlane_pool.local_files import LocalFileError
from turnlane_tests import codes, reference
from turnlane_tests.clean import ROOT
from turnlane_tests.mentions import Mentions, files_of_tests, mentions

REFERENCE = ROOT / "docs" / "reference"
ERRORS = (REFERENCE / "errors.md").read_text()
CONTRACT = (REFERENCE / "contract.md").read_text()
GUIDE = (ROOT / "docs" / "plugins.md").read_text()

SOURCES = [*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
FOUND = codes.find(codes.product(ROOT))
NAMED = mentions([path for path in files_of_tests(ROOT) if path != Path(__file__)])
PLUGINS = PluginManager.load({})

LOCAL_FILE_KINDS = get_args(LocalFileError.__init__.__annotations__["kind"])
# Codes that the source makes out of something else, from where it takes them.
MADE = {
    "core/src/turnlane/net/relayed_path.py: name": {
        "turn_error_<n>",
        *(name for name, _ in relayed_path._CODES.values()),
    },
    "core/src/turnlane/plugins/settings.py: code": set(get_args(ViolationCode)),
    "core/src/turnlane/proto/lane_events.py: def code": {
        "reject_<n>",
        "bye_<n>",
        *(code.name.lower() for code in (*RejectCode, *ByeCode)),
    },
    "plugins/pool/src/turnlane_pool/member_link.py: f'{error.kind}_link_file'": {
        f"{kind}_link_file" for kind in LOCAL_FILE_KINDS
    },
    "plugins/pool/src/turnlane_pool/pool_file.py: f'{error.kind}_pool_file'": {
        f"{kind}_pool_file" for kind in LOCAL_FILE_KINDS
    },
    # A member's own code, told in the log.
    "plugins/pool/src/turnlane_pool/provider.py: code": set[str](),
}
# What the conformance kit refuses an adapter's offer with: no operator ever reads it.
PLAYED = {"refused"}
CODES = set(FOUND.codes).union(*MADE.values()) - PLAYED
# Codes with a number in them, and the example that tests name.
BY_NUMBER = {
    "turn_error_<n>": "turn_error_499",
    "reject_<n>": "reject_4711",
    "bye_<n>": "bye_9",
}
# Codes that a pool tells of its members: no command ends with them.
WITHIN_ANOTHER = {
    "member_timeout",
    "missing_link_variable",
    *(f"{kind}_link_file" for kind in (*LOCAL_FILE_KINDS, "invalid")),
}


@dataclass(frozen=True)
class Row:
    """A code as the page has it: under which heading, and with which exit code."""

    section: str
    code: str
    exit_code: str


def rows(page: str) -> Iterator[Row]:
    section, columns = "", [""]
    for line in page.splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`")
        elif line.startswith("| code |"):
            columns = cells
        elif line.startswith("| `"):
            told = dict(zip(columns, cells, strict=True))
            assert all(told[name] for name in columns if name != "exit"), line
            for code in re.findall(r"`([^`]+)`", cells[0]):
                yield Row(section, code, told.get("exit", ""))


ROWS = list(rows(ERRORS))


def test_every_code_is_documented_and_no_other() -> None:
    documented = {row.code for row in ROWS}
    assert CODES - documented == set(), "docs/reference/errors.md does not have these"
    assert documented - CODES == set(), "docs/reference/errors.md has these, and the sources do not"


def test_every_code_is_named_by_a_test() -> None:
    by_member = {
        code.name.lower() for code in (*RejectCode, *ByeCode)
        if f"{type(code).__name__}.{code.name}" in NAMED.attributes
    }  # fmt: skip
    named = NAMED.texts | by_member
    missing = {code for code in CODES if BY_NUMBER.get(code, code) not in named}
    assert missing == set(), "write a test that brings each of these about"


def test_where_the_source_hides_a_code_is_known() -> None:
    assert FOUND.hidden == set(MADE), "say in MADE which codes these are"


def told_as(code: str) -> Iterator[tuple[str, str]]:
    """Return section and exit code that the sources give a code, as far as they tell."""
    for told in FOUND.codes.get(code, ()):
        name, _, stage = told.partition(" at ")
        error = getattr(turnlane.api, name, None)
        if isinstance(error, type) and issubclass(error, TurnlaneError):
            of_class = {
                "PolicyError": Stage.POLICY_VALIDATE,
                "UnavailableError": Stage.POLICY_VALIDATE,
                "ProviderError": Stage.PROVIDER_RESOLVE,
                "LinkError": Stage.PROVIDER_RESOLVE,
            }
            ending = "" if code in WITHIN_ANOTHER else str(error.exit_code)
            yield of_class.get(name, stage), ending
        elif name == "PluginError":
            yield "Plugins that are not loaded", ""
        elif name == "Violation":
            yield "Violations of settings", ""


@pytest.mark.parametrize("code", sorted(CODES - {"internal_error", "interrupted"}))
def test_a_code_stands_at_its_stages_with_its_exit_code(code: str) -> None:
    documented = {(row.section, row.exit_code) for row in ROWS if row.code == code}
    for section, exit_code in told_as(code):
        if section:
            assert (section, exit_code) in documented
        else:
            assert exit_code in {exit_code for _, exit_code in documented}


def test_every_stage_is_documented_and_named_by_a_test() -> None:
    headings = set(re.findall(r"^## `(\w+)`\n\n\S", ERRORS, re.MULTILINE))
    assert headings == {stage.value for stage in Stage}
    # Nothing is at this stage yet, so that no test can be; the page says so.
    unused = {Stage.METRICS_LISTEN}
    assert not any(f"Stage.{each.name}" in path.read_text() for path in SOURCES for each in unused)
    named = {
        stage
        for stage in Stage
        if stage.value in NAMED.texts or f"Stage.{stage.name}" in NAMED.attributes
    }
    assert named == set(Stage) - unused


def test_every_hook_is_documented_and_implemented_by_a_test() -> None:
    names = {name for name in vars(hooks) if name.startswith("turnlane_")}
    assert len(names) == 4
    assert {name for name in names if f"### `{name}`" in CONTRACT} == names
    assert {name for name in names if f"`{name}`" in GUIDE} == names
    assert {name for name in names if name in NAMED.functions | NAMED.texts} == names


def test_every_capability_is_documented_and_declared_by_a_test() -> None:
    names = set(ProviderCapabilities.__struct_fields__)
    assert {name for name in names if f"`{name}`" in GUIDE} == names
    declared = {name for name in names if f"ProviderCapabilities.{name}" in NAMED.keywords}
    assert declared == names


def settings() -> Iterator[tuple[str, str, Path]]:
    """Return owner, name and folder of every setting of the shipped plugins."""
    for descriptor in reference.shipped(PLUGINS):
        if descriptor.settings is not None:
            for field in msgspec.structs.fields(PLUGINS.load_settings(descriptor.settings)):
                yield descriptor.id, field.encode_name, reference.folder(descriptor)


def test_every_setting_is_documented_and_named_by_a_test() -> None:
    page = (REFERENCE / "providers.md").read_text()
    found = list(settings())
    assert len(found) >= 10
    for owner, name, folder in found:
        section = page.partition(f"\n## `{owner}`\n")[2].partition("\n## ")[0]
        row = re.search(rf"^\| `{name}` \|.*\| (.*) \|$", section, re.MULTILINE)
        assert row is not None, (owner, name)
        assert row[1], (owner, name)
        named = mentions([*(folder / "tests").rglob("*.py")])
        assert name in named.texts | named.keywords, (owner, name)


@pytest.mark.parametrize("path", reference.pages(), ids=lambda path: path.name)
def test_the_reference_is_what_the_docstrings_say(path: Path) -> None:
    message = "run: python -m turnlane_tests.reference"
    assert path.read_text() == reference.pages()[path], message


def test_nothing_of_the_contract_is_without_documentation() -> None:
    page = reference.Page()
    assert page.missing == []
    for name in turnlane.api.__all__:
        assert f"\n### `{name}`\n" in str(page)


UNDOCUMENTED = '''
class Stage(StrEnum):
    A = "a"
    B = "b"
    """Told."""

class Artifact(msgspec.Struct):
    """Told."""
    field: str

class Provider(Protocol):
    """Told."""
    def method(self): ...

def turnlane_providers(): ...

CONTRACT_MAJOR = 1
'''


def test_what_has_no_docstring_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "planted.py").write_text(UNDOCUMENTED)
    monkeypatch.setattr(reference, "API", tmp_path)
    assert set(reference.Page().missing) == {
        "planted",
        "planted.Stage",
        "planted.Stage.A",
        "planted.Artifact.field",
        "planted.Provider.method",
        "planted.turnlane_providers",
        "planted.CONTRACT_MAJOR",
    }


@pytest.mark.parametrize("name", ["contract.md", "errors.md", "providers.md", "../plugins.md"])
def test_links_of_the_pages_lead_somewhere(name: str) -> None:
    page = REFERENCE / name
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        if not target.startswith("https://"):
            place = (page.parent / target).resolve() if target else page.resolve()
            assert place.exists(), target
            assert not anchor or anchor in anchors(place.read_text()), (target, anchor)


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    made = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(made) == len(set(made)), "two headings have one anchor"
    return set(made)


# What planted files are read beside: the errors of the contract, and the loader's.
BESIDE = [
    source
    for source in codes.product(ROOT)
    if re.match(r"core/src/turnlane/(api/|plugins/(loader|records|discovery))", source.place)
]

BEFORE = codes.find(BESIDE)


def planted(text: str) -> codes.Found:
    """Return what is found of a planted file."""
    place = "core/src/turnlane/planted.py"
    found = codes.find([*BESIDE, codes.Source(place, ast.parse(f"{IMPORTS}\n{text}"))])
    return codes.Found(
        {code: told for code, told in found.codes.items() if code not in BEFORE.codes},
        found.hidden - BEFORE.hidden,
    )


IMPORTS = """
from turnlane.api import AdapterError, LinkError, PolicyError, Stage, TunnelCapability, Violation
from turnlane.plugins.loader import PluginError
"""
GIVEN_AS_IT_IS = [
    "PolicyError('planted', 'message')",
    "AdapterError(Stage.LISTEN, 'planted', 'message')",
    "PolicyError(code='planted')",
    "PluginError('planted', 'message')",
    "Violation('field', 'planted', 'message')",
    "TunnelCapability(False, 'planted', 'message')",
    "anything_else(code='planted')",
]
GIVEN_ON_THE_WAY = [
    """
CODE = 'planted'
LinkError(CODE, 'message')
""",
    """
def refuse(known):
    code = 'planted'
    if known:
        code, message = 'planted', 'message'
    raise LinkError(code, 'message')
""",
    """
def _refusal(code: str):
    return LinkError(code, 'message')
_refusal('planted')
""",
    """
def _refusal(what):
    return LinkError(f"plant{what.replace('-', '')}", 'message')
_refusal('-ed')
""",
    """
def trouble():
    return 'planted', 'message'
LinkError(*trouble())
""",
    """
def check():
    for what, value in (('ed', 1), ('ed', 2)):
        raise LinkError(f'plant{what}', 'message')
""",
    """
class Odd(PolicyError):
    pass
Odd('planted', 'message')
""",
    """
class Odd(PolicyError):
    def __init__(self):
        super().__init__('planted', 'message')
""",
]


@pytest.mark.parametrize("text", GIVEN_AS_IT_IS + GIVEN_ON_THE_WAY)
def test_a_planted_code_is_found(text: str) -> None:
    found = planted(text)
    assert set(found.codes) == {"planted"}
    assert not found.hidden


@pytest.mark.parametrize(
    "text",
    [
        "PolicyError(failure.code, 'message')",
        "def again(failure):\n    code, told = failure.code, ''\n    raise LinkError(code, told)",
        "def again(code: str):\n    raise LinkError(code, 'message')",
        "TunnelCapability(True)",
    ],
)
def test_a_code_that_is_only_passed_on_is_no_new_one(text: str) -> None:
    assert planted(text) == codes.Found()


def test_the_stage_beside_a_planted_code_is_found() -> None:
    found = planted("AdapterError(Stage.LISTEN, 'planted', 'message')")
    assert found.codes == {"planted": {"AdapterError at listen"}}


@pytest.mark.parametrize(
    "given", ["table[number]", "make()", "f'{number}'", "'a' + 'b'", "number", "*numbers", "code"]
)
def test_a_code_that_cannot_be_read_is_found_out(given: str) -> None:
    found = planted(f"def refuse(number):\n    raise LinkError({given})")
    assert found.hidden == {f"core/src/turnlane/planted.py: {given}"}
    assert not found.codes


def test_what_tests_name_is_told_from_what_they_contain() -> None:
    found = Mentions()
    found.add(ast.parse("f('a_code', b=1)\nx = 'stage=listen code=other: text'\nStage.LISTEN"))
    found.add(ast.parse("raise LinkError('raised', code='raised too')"))
    assert {"a_code", "other"} <= found.texts
    assert found.texts.isdisjoint({"text", "raised", "raised too"})
    assert {"b", "f.b"} <= found.keywords
    assert found.attributes == {"Stage.LISTEN"}
