"""The benchmark's numbers as Markdown."""

from collections.abc import Iterable
from statistics import median
from typing import Any

from tunnel import PARTS, WINDOW

Relay = dict[str, Any]

ABOUT = (
    "Turnlane {turnlane}, Python {python}, pyOpenSSL {pyopenssl}, {system}, {processors} "
    "processors, load {load}."
)
HOW = (
    "Medians of {rounds} rounds of {datagrams} datagrams of {bytes} bytes, {window} under way at "
    "most; one lane, TURN over UDP, loopback, every part in a process of its own."
)
CAVEAT = (
    "This is the first benchmark, of the simple socket layer: something for later ones to stand "
    "beside. The load's generator and all parts share the processors, so datagrams per second are "
    "a lower bound of what any part alone could do, and wake-ups count: with fewer under way, each "
    "costs more. CPU time is each process's own."
)
FLOOR = (
    "Encrypting a record (pyOpenSSL's `send` and `bio_read`) takes {encrypt:.2f} µs, decrypting "
    "one (`bio_write` and `recv`) {decrypt:.2f} µs."
)
STARTUP = (
    "`turnlane --help` takes {told:.0f} ms, `import typer` alone {typer:.0f} ms: {ratio:.2f} times "
    "as long."
)


def markdown(found: dict[str, Any]) -> str:
    """Return the whole report."""
    relays: dict[str, Relay] = found["relays"]
    floor, startup = found["floor"], found["startup"]
    paragraphs = [
        "# Turnlane benchmark",
        ABOUT.format(**found["machine"]),
        HOW.format(window=WINDOW, **found["settings"]),
        CAVEAT,
        "\n".join(_table(relays)),
        FLOOR.format(encrypt=median(floor["encrypt_us"]), decrypt=median(floor["decrypt_us"])),
        STARTUP.format(
            told=1000 * median(startup["help_s"]),
            typer=1000 * median(startup["import_typer_s"]),
            ratio=startup["ratio"],
        ),
    ]
    if "coturn" not in relays:
        paragraphs.insert(-2, "coturn is not installed, so it was not measured.")
    return "\n\n".join(paragraphs)


def _table(relays: dict[str, Relay]) -> list[str]:
    lines = [f"| through | {' | '.join(relays)} |", "|---|" + "---:|" * len(relays)]
    measured = list(relays.values())

    def row(name: str, cells: Iterable[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    def medians(name: str, places: int) -> Iterable[str]:
        return (f"{median(one[name]):.{places}f}" for one in measured)

    row("datagrams/s, there and back", medians("round_trips_per_second", 0))
    row("lost, in all rounds", (str(one["lost"]) for one in measured))
    for part in PARTS:
        row(f"CPU of the {part}, µs there and back", (_cpu(one, part) for one in measured))
    row("CPU of client and server, µs one way", medians("cpu_us_one_way", 1))
    row("… as a multiple of encrypting", medians("ratio_to_encrypt", 1))
    for rank in ("p50", "p99"):
        row(f"idle round trip {rank}, ms", (f"{one['idle_ms'][rank]:.3f}" for one in measured))
        row(
            f"… to the echo directly {rank}, ms",
            (f"{one['direct_ms'][rank]:.3f}" for one in measured),
        )
    return lines


def _cpu(relay: Relay, part: str) -> str:
    spent = relay["cpu_us_there_and_back"].get(part)
    return "not measured" if spent is None else f"{median(spent):.1f}"
