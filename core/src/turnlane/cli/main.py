"""The entry of the command line: parses what was typed, imports what is called, tells failures."""

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from turnlane.cli.commands import Commands

PROGRAM = "turnlane"

_EPILOG = """\
Options may also stand in the environment (TURNLANE_<COMMAND>_<OPTION>, such as
TURNLANE_CLIENT_LISTEN) and in a TOML file (--config). An option wins over the environment, the
environment over the file.
"""

app = typer.Typer(
    name=PROGRAM,
    cls=Commands,
    help="UDP traffic through TURN relays to a server you own, encrypted end to end.",
    epilog=_EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version('turnlane')}")
        raise typer.Exit


@app.callback()
def turnlane(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Print the help where no command was given."""
    del version
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(2)


def main(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    try:
        command = typer.main.get_command(app)
        result = command.main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from turnlane.cli.failures import report

        return report(error, arguments)
    return result if isinstance(result, int) else 0


def run() -> NoReturn:
    """Run what was typed; the console script."""
    sys.exit(main(sys.argv[1:]))
