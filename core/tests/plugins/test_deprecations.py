"""A plugin that uses what is deprecated is loaded all the same, and told."""

import logging
import warnings
from collections.abc import Callable

import pytest

from turnlane.api import Renewal, TurnlaneDeprecationWarning
from turnlane.api.deprecation import RENAMED, Renamed
from turnlane.plugins import PluginManager, PluginStatus

SOURCE = """
from turnlane.api import Refresh

class Acme:
    async def resolve(self, request, challenges): ...

@hookimpl
def turnlane_providers():
    from turnlane.api import Refresh
    return [provider("acme", implementation="acme_turn_code:Acme")]
"""


@pytest.fixture(autouse=True)
def installed(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a plugin that uses a former name at each chance that it has."""
    monkeypatch.setitem(RENAMED, "Refresh", Renamed("Renewal", "1.2"))
    install("acme-turn", SOURCE)
    install("acme-turn-code", SOURCE, entry_points="")


def load() -> PluginManager:
    return PluginManager.load({"TURNLANE_PLUGINS": "acme-turn"})


def test_it_is_loaded_even_where_warnings_are_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "turnlane.plugins.deprecations")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugins = load()
        found = plugins.load_provider("acme")
    assert [each.status for each in plugins.records if each.name == "acme-turn"] == [
        PluginStatus.LOADED
    ]
    assert vars(__import__("acme_turn_code"))["Refresh"] is Renewal
    assert found.__name__ == "Acme"
    assert "use turnlane.api.Renewal" in str([vars(each) for each in caplog.records])


def test_who_wants_to_see_it_does() -> None:
    with pytest.warns(TurnlaneDeprecationWarning) as caught:
        load()
    assert {each.filename.rpartition("/")[2] for each in caught} == {"acme_turn.py"}


def test_other_warnings_of_a_plugin_are_neither_lost_nor_tolerated(
    install: Callable[..., None],
) -> None:
    install("acme-noisy", "import warnings\nwarnings.warn('noise', stacklevel=1)")
    environ = {"TURNLANE_PLUGINS": "acme-noisy"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (code,) = {each.code for each in PluginManager.load(environ).records if not each.wanted}
    assert code == "import_failed"
    with pytest.warns(UserWarning, match="noise"):
        PluginManager.load(environ)
