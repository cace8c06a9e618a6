"""What goes to standard output: `ready` lines, JSON, and tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from turnlane.cli.failures import printable

_UNFOLDED = 10_000
"""Columns that no table needs."""


def write_line(text: str) -> None:
    """Write one line now, even into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_json(value: object) -> None:
    """Write a value, indented for people who look at it too."""
    write_line(json.dumps(value, indent=2))


def write_ready(fields: Mapping[str, object], *, as_json: bool) -> None:
    """Write the one line that says that something runs: `ready key=value …`, or a JSON object."""
    if as_json:
        write_line(json.dumps({"event": "ready", **fields}))
    else:
        write_line(" ".join(["ready", *(f"{name}={value}" for name, value in fields.items())]))


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Write a table as wide as the terminal, or in full into a pipe; `empty` where it has no rows.

    Cells are text that others wrote: control characters and markup in them do nothing.
    """
    rows = list(rows)
    if not rows:
        write_line(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # A program reads it, or a pager shows it: a line is a row then, however long.
    width = None if sys.stdout.isatty() else _UNFOLDED
    Console(file=sys.stdout, width=width).print(table)


def write_fields(fields: Mapping[str, object]) -> None:
    """Write `name  value` lines for the fields that say something, the values in a column.

    Each item of a list has a line of its own.
    """
    shown = {name.replace("_", " "): _texts(value) for name, value in fields.items()}
    width = max((len(name) for name, texts in shown.items() if texts), default=0)
    for name, texts in shown.items():
        for label, text in zip((name, *("" for _ in texts)), texts, strict=False):
            write_line(f"{label:<{width}}  {printable(text)}")


def _texts(value: object) -> list[str]:
    match value:
        case None | "":
            return []
        case bool():
            return ["yes" if value else "no"]
        case list() | tuple():
            return [str(item) for item in value]
        case _:
            return [str(value)]
