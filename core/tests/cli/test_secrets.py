"""A planted secret stands in no output, wherever it was given and whatever goes wrong."""

import itertools

import pytest

from turnlane.telemetry.redaction import find_leaks

PASSWORD = "pl4nted/Pa%ssword+tail"
LINK = f"planted://user:{PASSWORD}@relay.example:3478"
TOKEN = "Pl4ntedTokenOfMoreThan22Characters"
PIN = "A" * 43
PEER = f"turnlane://192.0.2.1:56000?pin={PIN}&token={TOKEN}"
SECRETS = (PASSWORD, LINK, TOKEN, PEER)

WRONG = (
    (),
    ("--connections", "many"),
    ("--mode", "pigeon"),
    ("--nope",),
    ("stray",),
    ("--pin", "short"),
    ("--pin", "B" * 42 + "A"),
    ("--config", "/missing"),
    ("--link-file", "/missing", "--link", LINK),
    ("--bind-interface", "eth0"),
    ("--ingress", "nope"),
    ("--no-dtls",),
    ("--legacy",),
    ("--insecure-peer",),
    ("--log-level", "debug", "--port", "0"),
)


def check(finished, *secrets) -> None:
    assert find_leaks(finished.output, secrets or SECRETS) == []
    assert finished.code in (1, 2, 3)


@pytest.mark.parametrize("wrong", WRONG)
def test_none_of_the_options(run, planted, wrong) -> None:
    given = ("--provider", "planted", "--link", LINK, "--peer", PEER, "--token", TOKEN)
    check(run("client", *given, "--connections", "0", *wrong))


@pytest.mark.parametrize("wrong", WRONG)
def test_none_of_the_environment(run, planted, monkeypatch, wrong) -> None:
    monkeypatch.setenv("TURNLANE_CLIENT_LINK", LINK)
    monkeypatch.setenv("TURNLANE_CLIENT_PEER", PEER)
    monkeypatch.setenv("TURNLANE_CLIENT_TOKEN", TOKEN)
    check(run("client", "--provider", "planted", "--connections", "0", *wrong))


@pytest.mark.parametrize("wrong", WRONG)
def test_none_of_the_files(run, planted, tmp_path, wrong) -> None:
    for name, value in (("link", LINK), ("peer", PEER), ("token", TOKEN)):
        (tmp_path / name).write_text(value + "\n")
    given = itertools.chain(*((f"--{n}-file", tmp_path / n) for n in ("link", "peer", "token")))
    check(run("client", "--provider", "planted", *given, "--connections", "0", *wrong))


@pytest.mark.parametrize("wrong", WRONG)
def test_none_of_the_configuration(run, planted, tmp_path, wrong) -> None:
    path = tmp_path / "turnlane.toml"
    path.write_text(f'[client]\nlink = "{LINK}"\npeer = "{PEER}"\ntoken = "{TOKEN}"\n')
    given = ("--provider", "planted", "--connections", "0", "--config", path)
    check(run("client", *given, *wrong))


@pytest.mark.parametrize(
    "arguments",
    [
        (LINK,),
        ("client", LINK),
        ("client", f"--{LINK}"),
        ("client", f"-{LINK}"),
        ("client", f"--links={LINK}"),
        ("client", "--provider", LINK, "--link", LINK, "--peer", PEER),
        ("client", "--provider", "planted", "--connections", LINK),
        ("client", "--provider", "planted", "--connections", PEER),
        ("client", "--provider", "planted", "--connections", TOKEN),
        ("client", "--provider", "planted", f"--mode={LINK}"),
        ("client", "--provider", "planted", "--link", LINK, "--pin", LINK, "--peer", "h:1"),
        ("client", "--provider", "planted", "--link", LINK, "--listen", PEER, "--peer", PEER),
        ("client", "--provider", "planted", "--link", LINK, "--ingress", LINK, "--peer", PEER),
        ("client", "--provider", "planted", "--link", LINK, "--peer", PEER + "x&y=z"),
        ("client", "--provider", "planted", "--link", LINK, "--peer", PEER, "--token", "short"),
        ("server", "--connect", LINK),
        ("server", "--connect", "127.0.0.1:1", "--idle-timeout", LINK),
        ("probe", "--provider", "planted", "--link", LINK, TOKEN),
        ("providers", "show", LINK),
        ("identity", PEER),
    ],
)
def test_none_that_was_put_in_the_wrong_place(run, planted, arguments) -> None:
    check(run(*arguments))


@pytest.mark.parametrize("name", ["CLIENT_CONNECTIONS", "CLIENT_MODE", "LOG_LEVEL", "CLIENT_DTLS"])
def test_none_that_was_put_into_the_wrong_variable(run, planted, monkeypatch, name) -> None:
    monkeypatch.setenv(f"TURNLANE_{name}", LINK)
    check(run("client", "--provider", "planted"))


@pytest.mark.parametrize(
    "text", [f'[client]\nmode = "{LINK}"', f'[client]\nlink = "{LINK}', f"[client]\nlink = {LINK}"]
)
def test_none_that_was_put_into_the_wrong_key_or_is_not_toml(run, planted, tmp_path, text) -> None:
    path = tmp_path / "turnlane.toml"
    path.write_text(text + "\n")
    check(run("client", "--provider", "planted", "--config", path))


@pytest.mark.parametrize("kind", ["refuse", "crash", "ask", "fine"])
@pytest.mark.parametrize("extra", [(), ("--json",), ("--log-level", "debug")])
def test_none_in_what_a_probe_says_and_writes(run, planted, tmp_path, kind, extra) -> None:
    link = f"planted://{kind}:{PASSWORD}@relay.example"
    finished = run("probe", "--provider", "planted", "--link", link, *extra)
    secrets = (PASSWORD, link, "planted-password")
    assert find_leaks(finished.output, secrets) == []
    artifact = tmp_path / "artifacts" / "planted" / "probe-artifact.json"
    assert find_leaks(artifact.read_bytes(), secrets) == []
