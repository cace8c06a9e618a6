"""What the contract advises against goes on working, and warns whoever uses it."""

import ast
import subprocess
import sys

import msgspec
import pytest

import turnlane.api
from turnlane.api import Renewal, TurnlaneDeprecationWarning
from turnlane.api.deprecation import RENAMED, Renamed, moved_field, renamed_parameter


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a name of the contract a former one."""
    monkeypatch.setitem(RENAMED, "Refresh", Renamed("Renewal", "1.2"))


class Asked(msgspec.Struct, frozen=True):
    """A struct of which a field has a better name since 1.3."""

    place: str = "eu"
    region: str | None = None

    def __post_init__(self) -> None:
        moved_field(self, "region", "place", "1.3")


@renamed_parameter("lowest", "minimum", "1.4")
def bounds(text: str, *, minimum: int = 0) -> tuple[str, int]:
    return text, minimum


def only(caught: pytest.WarningsRecorder) -> str:
    """Return the one text that was warned with, which is told of the line that is to blame."""
    assert {each.filename for each in caught} == {__file__}
    (text,) = {str(each.message) for each in caught}
    return text


def test_a_former_name_means_what_the_name_means_now(renamed: None) -> None:
    with pytest.warns(TurnlaneDeprecationWarning) as caught:
        found = getattr(turnlane.api, "Refresh")  # noqa: B009 mypy knows no such name
    assert found is Renewal
    assert only(caught) == (
        "turnlane.api.Refresh is deprecated since version 1.2 of the plugin contract: "
        "use turnlane.api.Renewal"
    )


def test_a_former_name_can_be_imported(renamed: None) -> None:
    namespace: dict[str, object] = {}
    code = compile(ast.parse("from turnlane.api import Refresh"), __file__, "exec")
    with pytest.warns(TurnlaneDeprecationWarning) as caught:
        exec(code, namespace)
    assert namespace["Refresh"] is Renewal
    assert only(caught).endswith("use turnlane.api.Renewal")


def test_a_name_that_never_was_is_missing() -> None:
    with pytest.raises(AttributeError, match=r"'turnlane\.api' has no attribute 'Nonsense'"):
        getattr(turnlane.api, "Nonsense")  # noqa: B009 as above
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec("from turnlane.api import Nonsense")


def test_every_former_name_leads_to_one_that_there_is() -> None:
    assert {now.instead for now in RENAMED.values()} <= set(turnlane.api.__all__)
    assert not RENAMED.keys() & set(turnlane.api.__all__)


def test_a_former_field_is_moved() -> None:
    with pytest.warns(TurnlaneDeprecationWarning) as caught:
        asked = Asked(region="us")
    assert asked.place == "us"
    assert only(caught).startswith("Asked.region is deprecated since version 1.3")
    assert Asked("us").place == "us"


def test_a_former_parameter_is_taken() -> None:
    with pytest.warns(TurnlaneDeprecationWarning) as caught:
        found = bounds("a", lowest=5)  # type: ignore[call-arg]
    assert found == ("a", 5)
    assert only(caught).endswith("use bounds(minimum=)")
    assert bounds("a", minimum=5) == ("a", 5)


def test_tests_see_what_operators_do_not() -> None:
    script = (
        "import warnings\n"
        "from turnlane.api.deprecation import warn_deprecated\n"
        "def plugin(): warn_deprecated('this', 'that', '1.1')\n"
        "exec(compile('plugin()', 'acme.py', 'exec'), {'__name__': 'acme', 'plugin': plugin})\n"
    )
    for options, shown in (([], False), (["-W", "default"], True)):
        run = subprocess.run(
            [sys.executable, *options, "-c", script], capture_output=True, text=True, check=True
        )
        assert ("TurnlaneDeprecationWarning" in run.stderr) is shown
    assert issubclass(TurnlaneDeprecationWarning, DeprecationWarning)
