"""`turnlane plugins new | check`: a plugin of one's own, made to work at once, and judged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnlane.api import Secret
from turnlane.cli import options
from turnlane.scaffold.project import Kind

if TYPE_CHECKING:
    from turnlane.testing.check import Verdict
    from turnlane.testing.findings import Finding


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


def check_plugin(
    ctx: typer.Context,
    distribution: Annotated[
        str, typer.Argument(metavar="DIST", help="A distribution, as `plugins list` names it.")
    ],
    *,
    link: Annotated[
        Secret[str] | None,
        options.secret(
            "--link", metavar="LINK", help="What its provider resolves, in place of its example."
        ),
    ] = None,
    link_file: options.LinkFile = None,
    settings: options.Settings = None,
    bad_links: Annotated[
        list[str] | None,
        options.option(
            "--bad-link", metavar="LINK", help="What its provider refuses, once for each link."
        ),
    ] = None,
    cases: Annotated[
        list[str] | None,
        options.option(
            "--cases",
            metavar="FILE.py:NAME",
            help="A case of the plugin's own tests; the file is run.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Run the conformance kit on everything that an installed distribution offers.

    Exit codes: 0 nothing failed, 1 a check failed, 2 bad input, 3 there is nothing to check.
    """
    del link, link_file, settings  # read through ctx, which knows where they came from
    import os

    from turnlane.api import Stage, TurnlaneError
    from turnlane.cli.output import write_json, write_line, write_table
    from turnlane.testing.case_files import read_cases
    from turnlane.testing.check import Wishes, backends, check, find, plan

    wishes = Wishes(
        link=options.optional_link(ctx),
        bad_links=tuple(bad_links or ()),
        settings=options.provider_text_settings(ctx),
        cases=tuple(case for each in cases or () for case in read_cases(each)),
    )
    installed = find(distribution, os.environ)
    verdicts = list(check(installed, plan(installed, wishes)))
    results = [_result(verdict.finding) for verdict in verdicts]
    counts = {name: results.count(name) for name in ("passed", "failed", "not judged")}
    if json:
        write_json(
            {
                "distribution": installed.distribution,
                "version": installed.version,
                **{name.replace(" ", "_"): count for name, count in counts.items()},
                "findings": [_told(verdict) for verdict in verdicts],
            }
        )
    else:
        rows = _rows(verdicts)
        write_table(("OF", "CHECK", "ON", "RESULT", "FINDING"), rows, empty="")
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        write_line(
            f"{installed.distribution} {installed.version} on {', '.join(backends())}: {told}"
        )
    if counts["failed"]:
        raise TurnlaneError(
            Stage.POLICY_VALIDATE,
            "checks_failed",
            f"{counts['failed']} of {len(verdicts)} checks of {installed.distribution} failed",
            "each says above what is wrong; docs/plugins.md says what it asks for",
        )


def _rows(verdicts: "list[Verdict]") -> list[tuple[str, ...]]:
    """Return a row for each check, or more where backends do not agree."""
    found: dict[tuple[str, ...], list[str]] = {}
    for one in verdicts:
        result = (_result(one.finding), one.finding.message)
        same = (f"{one.kind} {one.identifier}", one.finding.check, *result)
        found.setdefault(same, []).append(one.backend)
    places = list(dict.fromkeys(same[:2] for same in found))
    rows = [(of, check, ", ".join(on), *rest) for (of, check, *rest), on in found.items()]
    return sorted(rows, key=lambda row: places.index(row[:2]))


def _told(verdict: "Verdict") -> dict[str, Any]:
    return {
        "kind": verdict.kind,
        "id": verdict.identifier,
        "check": verdict.finding.check,
        "backend": verdict.backend,
        "result": _result(verdict.finding).replace(" ", "_"),
        "message": verdict.finding.message,
    }


def _result(finding: "Finding") -> str:
    if not finding.judged:
        return "not judged"
    return "passed" if finding.passed else "failed"
