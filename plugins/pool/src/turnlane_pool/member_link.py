"""The link of a member: in the operator's file, in a file beside it, or in the environment."""

from collections.abc import Mapping
from pathlib import Path

from turnlane.api import LinkError, Secret
from turnlane_pool.local_files import LocalFileError, read_local
from turnlane_pool.pool_file import Member

MAX_LINK_FILE = 16 * 1024


def member_link(member: Member, config_dir: Path, environ: Mapping[str, str]) -> Secret[str]:
    """Return the link of a member; paths are taken from `config_dir`.

    Raises `LinkError`: `missing_link_variable`, `missing_link_file`, `unreadable_link_file`,
    `unsafe_link_file` or `invalid_link_file`.
    """
    if member.source == "link":
        return member.value
    if member.source == "link_env":
        found = environ.get(member.value.reveal())
        if not found:
            raise LinkError(
                "missing_link_variable",
                f"the variable that link_env of the member {member.name} names is not set",
                "set it where Turnlane is started",
            )
        return Secret(found)
    return _from_file(member, config_dir)


def _from_file(member: Member, config_dir: Path) -> Secret[str]:
    what = f"the file that link_file of the member {member.name} names"
    try:
        path = config_dir / Path(member.value.reveal()).expanduser()
        data = read_local(path, MAX_LINK_FILE)
    except LocalFileError as error:
        raise LinkError(
            f"{error.kind}_link_file",
            f"{what} is not read: {error.told}",
            "check its path, owner and mode",
        ) from None
    except RuntimeError:  # pathlib's word for a home that is not known
        raise LinkError("unreadable_link_file", f"{what} is in an unknown home", "") from None
    # Undecodable bytes make it no single line of text; an error of decoding would carry them.
    text = data.decode(errors="replace").strip()
    if not text or len(text.splitlines()) != 1 or "\N{REPLACEMENT CHARACTER}" in text:
        raise LinkError("invalid_link_file", f"{what} does not hold exactly one line of text")
    return Secret(text)
