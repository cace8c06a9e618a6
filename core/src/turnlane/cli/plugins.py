"""`turnlane plugins new`: a plugin of one's own, as a whole distribution that works at once."""

from pathlib import Path
from typing import Annotated

import typer

from turnlane.cli import options
from turnlane.scaffold.project import Kind


def new_plugin(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The distribution's name, such as acme-turn.")
    ],
    kind: Annotated[Kind, options.option("--kind", help="What the plugin offers.")],
    directory: Annotated[
        Path,
        options.option("--directory", metavar="DIR", help="Where the folder NAME is made."),
    ] = Path(),
) -> None:
    """Make the distribution of a new plugin: sources, tests, README, licence, CI."""
    import shlex

    from turnlane.cli.output import write_line
    from turnlane.scaffold.names import read_name
    from turnlane.scaffold.project import render, write

    names = read_name(name)
    project = directory / names.distribution
    contents = render(names, kind)
    write(contents, project)
    listed = {Kind.PROVIDER: "providers", Kind.PLATFORM_TUNNEL: "tunnels"}.get(kind, "adapters")
    write_line(f"Made {project} with {len(contents)} files. What to do next:")
    write_line("")
    write_line(f"    cd {shlex.quote(str(project))}")
    write_line("    pip install -e '.[test]'")
    write_line("    pytest")
    write_line(f"    turnlane {listed} list")
    write_line("")
    write_line(f"What is yours to write is marked FILL IN in src/{names.package}/{kind.module}.py.")
