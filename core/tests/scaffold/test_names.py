"""The names of a new plugin: what follows from its distribution's, and what is refused."""

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import PolicyError
from turnlane.scaffold.names import MAX_LENGTH, Names, read_name


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("acme-turn", Names("acme-turn", "acme_turn", "acme-turn", "Acme Turn", "AcmeTurn")),
        ("turnlane-acme", Names("turnlane-acme", "turnlane_acme", "acme", "Acme", "Acme")),
        ("a2-4", Names("a2-4", "a2_4", "a2-4", "A2 4", "A24")),
        ("turnlane-email", Names("turnlane-email", "turnlane_email", "email", "Email", "Email")),
    ],
)
def test_all_names_follow_from_the_distributions(text: str, names: Names) -> None:
    assert read_name(text) == names


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "kebab case"),
        ("Acme", "kebab case"),
        ("acme_turn", "kebab case"),
        ("acme.turn", "kebab case"),
        ("acme--turn", "kebab case"),
        ("-acme", "kebab case"),
        ("acme-", "kebab case"),
        ("acme-\n", "kebab case"),
        ("acme\n", "kebab case"),
        ("4acme", "kebab case"),
        ("turnlane-4acme", "kebab case"),
        ("turnlane-", "kebab case"),
        ("turnlane-turnlane-", "kebab case"),
        ("../acme", "kebab case"),
        ("акме", "kebab case"),
        ("a" * (MAX_LENGTH + 1), "characters"),
        ("class", "Python"),
        ("email", "Python"),
        ("turnlane", "need themselves"),
        ("pytest", "need themselves"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_as_bad_input(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_name(text)
    assert caught.value.code == "invalid_plugin_name"
    assert caught.value.exit_code == 2
    assert problem in caught.value.message
    assert caught.value.advice


@given(
    st.one_of(st.text(max_size=50), st.from_regex(r"(turnlane-)?[a-z0-9-]{1,40}", fullmatch=True))
)
def test_any_text_gives_names_of_python_or_is_refused(text: str) -> None:
    try:
        names = read_name(text)
    except PolicyError:
        return
    assert names.package.isidentifier()
    assert not keyword.iskeyword(names.package)
    assert names.classes.isidentifier()
    assert names.distribution == text
