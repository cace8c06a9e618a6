"""`turnlane identity`: the key and certificate by which clients know a tunnel server."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnlane.api import PolicyError
from turnlane.cli import options

if TYPE_CHECKING:
    from turnlane.net.identity import Pin

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def identity() -> None:
    """Show or make the key that a tunnel server proves itself with."""


@app.command()
def show(
    identity: options.IdentityOfServer = None,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Print the pin of a server's identity."""
    from turnlane.net.identity import Identity

    del config
    folder = options.identity_folder(identity)
    _print(Identity.load(folder).pin, folder, as_json=json)


@app.command()
def new(
    identity: options.IdentityOfServer = None,
    force: Annotated[
        bool,
        options.switch(
            "--force", help="Replace the identity that is there; its clients need the new pin."
        ),
    ] = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Make a new identity and print its pin."""
    from turnlane.cli.server import PEER_LINK_FILE
    from turnlane.net.identity import Identity

    del config
    folder = options.identity_folder(identity)
    made = Identity.generate(datetime.now(UTC).timestamp())
    try:
        made.save(folder, replace=force)
    except FileExistsError:
        raise PolicyError(
            "identity_exists",
            f"there is an identity in {folder}",
            "see it with `turnlane identity show`, or replace it with --force",
        ) from None
    # A peer link of before names the old pin; the server writes a new one when it starts.
    (folder / PEER_LINK_FILE).unlink(missing_ok=True)
    _print(made.pin, folder, as_json=json)


def _print(pin: "Pin", folder: Path, *, as_json: bool) -> None:
    from turnlane.cli.output import write_json, write_line

    if as_json:
        write_json({"pin": str(pin), "identity": str(folder)})
    else:
        write_line(f"pin       {pin}")
        write_line(f"identity  {folder}")
