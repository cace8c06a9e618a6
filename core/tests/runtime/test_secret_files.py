"""Secrets in files: mode 0600, one line, never half written, never repeated in an error."""

import stat
from pathlib import Path

import pytest

from turnlane.api import PolicyError, Secret
from turnlane.runtime.secret_files import (
    load_or_create_token,
    read_secret_file,
    write_secret_file,
)


def test_a_token_is_made_once_and_kept_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "token"
    first = load_or_create_token(path)
    assert load_or_create_token(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["token"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "link"
    write_secret_file(path, Secret("turnlane://somewhere"))
    assert read_secret_file(path) == Secret("turnlane://somewhere")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"one\ntwo\n", b"\xff\xfe", b"x" * 20_000])
def test_a_file_that_does_not_hold_one_line_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        read_secret_file(path)
    assert caught.value.exit_code == 2
    assert "xxx" not in str(caught.value)


def test_a_missing_file_and_an_unwritable_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        read_secret_file(tmp_path / "absent")
    (tmp_path / "plain").write_text("a file, no folder")
    with pytest.raises(PolicyError, match="secret_file_not_written"):
        write_secret_file(tmp_path / "plain" / "token", Secret("x"))
