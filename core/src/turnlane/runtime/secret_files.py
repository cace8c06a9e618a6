"""Secrets in files of mode 0600: read, and written in one step."""

import os
import secrets
from pathlib import Path

from turnlane.api import PolicyError, Secret
from turnlane.runtime.peer_link import check_token, new_token

MAX_SIZE = 16 * 1024
"""Bytes; no link, peer link or token is longer."""


def read_secret_file(path: Path) -> Secret[str]:
    """Return the one line of a file.

    Raises `PolicyError` when it cannot be read, is empty or has more than one line.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_SIZE + 1)
        text = data.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        told = os.strerror(error.errno or 0) if isinstance(error, OSError) else "not UTF-8 text"
        raise PolicyError(
            "unreadable_secret_file", f"cannot read {path}: {told}", "check the path and its mode"
        ) from None
    if not text or len(data) > MAX_SIZE or len(text.splitlines()) != 1:
        raise PolicyError("invalid_secret_file", f"{path} does not hold exactly one line")
    return Secret(text)


def write_secret_file(path: Path, secret: Secret[str]) -> None:
    """Write `secret` and a newline to `path` with mode 0600; raises `PolicyError`."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                opened.write(secret.reveal() + "\n")
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PolicyError(
            "secret_file_not_written",
            f"cannot write {path}: {os.strerror(error.errno or 0)}",
            "choose another folder, or mend its permissions",
        ) from None


def load_or_create_token(path: Path) -> Secret[str]:
    """Return the access token in `path`; a fresh one is made and written there first if need be."""
    if path.exists():
        return check_token(read_secret_file(path))
    token = new_token()
    write_secret_file(path, token)
    return token
