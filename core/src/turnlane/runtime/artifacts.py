"""Writes provider artifacts where the operator asked for them."""

import os
import re
import tempfile
from pathlib import Path

import msgspec

from turnlane.api import Artifact, PolicyError
from turnlane.telemetry import REDACTOR

FILE_NAME = "probe-artifact.json"

_PROVIDER_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")


def write_artifact(artifact: Artifact, directory: Path) -> Path:
    """Write `<directory>/<provider>/probe-artifact.json` in one step and return its path.

    Raises `PolicyError` when the folder cannot be written.
    """
    if _PROVIDER_ID.fullmatch(artifact.provider) is None:
        raise PolicyError("invalid_provider_id", "a provider's id is not fit for a folder's name")
    target = directory / artifact.provider / FILE_NAME
    text = msgspec.json.format(msgspec.json.encode(artifact), indent=2).decode() + "\n"
    # The provider has left its secrets out; should it not have, what the runtime knows is cut here.
    text = REDACTOR.redact(text)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as draft:
            try:
                draft.write(text.encode())
                draft.flush()
                Path(draft.name).chmod(0o644)
                Path(draft.name).replace(target)
            except BaseException:
                Path(draft.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise PolicyError(
            "artifact_not_written",
            f"cannot write the artifact to {target.parent}: {os.strerror(error.errno or 0)}",
            "choose another folder with --output-dir",
        ) from None
    return target
