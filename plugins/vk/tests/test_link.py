"""Links: every form that VK shows, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import LinkError, Secret
from turnlane_vk.link import MAX_LINK, MAX_TOKEN, HostedCall, Invite, read_link_untrusted

TOKEN = "Ab3_-xYz"


@pytest.mark.parametrize(
    "link",
    [
        TOKEN,
        f"https://vk.com/call/join/{TOKEN}",
        f"http://vk.com/call/join/{TOKEN}",
        f"vk.com/call/join/{TOKEN}",
        f"www.vk.com/call/join/{TOKEN}",
        f"https://www.vk.com/call/join/{TOKEN}",
        f"HTTPS://VK.com/call/join/{TOKEN}",
        f"https://vk.com/call/join/{TOKEN}/",
        f"https://vk.com/call/join/{TOKEN}/more/behind",
        f"https://vk.com/call/join/{TOKEN}?utm=1&to=a/b",
        f"https://vk.com/call/join/{TOKEN}#part/of",
        f"https://vk.com/call/join/{TOKEN}/more?a=https://x.example/#part",
    ],
)
def test_an_invite_is_its_token_in_whatever_form(link: str) -> None:
    assert read_link_untrusted(Secret(link)) == Invite(Secret(TOKEN))


@pytest.mark.parametrize(
    "link", ["https://calls.vk.com/", "https://calls.vk.com", "HTTPS://Calls.VK.com/"]
)
def test_the_root_of_the_calls_host_hosts_a_call(link: str) -> None:
    assert read_link_untrusted(Secret(link)) == HostedCall()


@pytest.mark.parametrize(
    ("link", "code"),
    [
        ("", "missing_token"),
        ("https://vk.com/call/join/", "missing_token"),
        ("https://vk.com/call/join//x", "missing_token"),
        ("https://vk.com/call/join/?token", "missing_token"),
        ("vk.com/call/join/#x", "missing_token"),
        ("https://vk.com/call/join", "wrong_path"),
        ("https://vk.com/call/Join/token", "wrong_path"),
        ("https://vk.com/", "wrong_path"),
        ("https://vk.com", "wrong_path"),
        ("https://vk.com/?/call/join/token", "wrong_path"),
        ("https://vk.com/feed/call/join/token", "wrong_path"),
        ("https://calls.vk.com/call/join/token", "wrong_path"),
        ("https://calls.vk.com/?a", "wrong_path"),
        ("https://calls.vk.com/#", "wrong_path"),
        ("http://calls.vk.com/", "wrong_path"),
        ("calls.vk.com", "wrong_path"),
        ("https://example.com/call/join/token", "wrong_host"),
        ("https://vk.com.example/call/join/token", "wrong_host"),
        ("https://m.vk.com/call/join/token", "wrong_host"),
        ("https://vk.com:8443/call/join/token", "wrong_host"),
        ("https://me:you@vk.com/call/join/token", "wrong_host"),
        ("https://example.com#@vk.com/call/join/token", "wrong_host"),
        ("https://example.com\\@vk.com/call/join/token", "wrong_host"),
        ("https:///call/join/token", "wrong_host"),
        ("/call/join/token", "wrong_host"),
        ("some.host", "wrong_host"),
        ("ftp://vk.com/call/join/token", "wrong_scheme"),
        ("://vk.com/call/join/token", "wrong_scheme"),
        ("to ken", "whitespace"),
        ("https://vk.com/call/join/to ken", "whitespace"),
        ("https://vk.com/call/join/token\n", "whitespace"),
        ("\u00a0token", "whitespace"),
        ("https://vk.com/call/join/to%20ken", "invalid_token"),
        ("https://vk.com/call/join/tök", "invalid_token"),
        ("to\0ken", "invalid_token"),
        (f"https://vk.com/call/join/{'x' * (MAX_TOKEN + 1)}", "invalid_token"),
        ("x" * (MAX_LINK + 1), "link_too_long"),
    ],
)
def test_anything_else_is_refused_as_bad_input(link: str, code: str) -> None:
    with pytest.raises(LinkError) as caught:
        read_link_untrusted(Secret(link))
    error = caught.value
    assert (error.code, error.provider_stage) == (code, "provider_resolve")
    assert "token" not in link or link not in str(error)


@given(st.text(max_size=60) | st.from_regex(r"(https?://)?(www\.)?vk\.com/call/join/.*"))
def test_whatever_is_given_is_a_link_or_refused(link: str) -> None:
    try:
        target = read_link_untrusted(Secret(link))
    except LinkError:
        return
    if isinstance(target, Invite):
        assert target.token.reveal() in link
