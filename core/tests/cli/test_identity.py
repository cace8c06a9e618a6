"""`turnlane identity`: made once, shown, never replaced by accident."""

import json
import re
import stat


def test_a_new_identity_prints_its_pin_and_is_private(run, tmp_path) -> None:
    finished = run("identity", "new", "--identity", tmp_path / "keys")
    assert finished.code == 0
    assert re.fullmatch(
        rf"pin       [\w-]{{43}}\nidentity  {tmp_path}/keys\n", finished.out, re.ASCII
    )
    assert stat.S_IMODE((tmp_path / "keys" / "identity.pem").stat().st_mode) == 0o600


def test_it_is_shown_as_it_was_made(run, tmp_path) -> None:
    made = run("identity", "new").out
    assert run("identity", "show").out == made
    shown = json.loads(run("identity", "show", "--json").out)
    assert shown["pin"] in made
    assert shown["identity"] == str(tmp_path / "data" / "turnlane" / "server")


def test_an_identity_is_replaced_only_with_force_and_its_peer_link_goes_with_it(
    run, tmp_path
) -> None:
    folder = tmp_path / "keys"
    first = run("identity", "new", "--identity", folder).out
    (folder / "peer-link").write_text("turnlane://old")
    refused = run("identity", "new", "--identity", folder)
    assert (refused.code, refused.out) == (2, "")
    assert "code=identity_exists" in refused.err
    assert run("identity", "show", "--identity", folder).out == first
    assert (folder / "peer-link").exists()
    assert run("identity", "new", "--identity", folder, "--force").out != first
    assert not (folder / "peer-link").exists()


def test_a_missing_identity_is_told_with_the_way_to_make_one(run, tmp_path) -> None:
    finished = run("identity", "show", "--identity", tmp_path / "none")
    assert finished.code == 1
    assert "code=identity_missing" in finished.err
    assert "turnlane identity new" in finished.err


def test_the_folder_comes_from_the_servers_variable(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TURNLANE_SERVER_IDENTITY", str(tmp_path / "keys"))
    assert run("identity", "new").code == 0
    assert (tmp_path / "keys" / "identity.pem").exists()
