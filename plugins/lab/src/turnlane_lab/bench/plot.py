"""A run as a picture: bars in an SVG document, written by hand."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from turnlane_lab.bench.figures import Figures

WIDTH = 760
_LABEL = 250
_ROW = 22
_BARS = WIDTH - _LABEL - 90
_COLOURS = ("#2a6f97", "#e07a5f", "#81b29a", "#8d99ae")
_STYLE = "font-family: system-ui, sans-serif; font-size: 12px"

Bar = tuple[str, Sequence[float]]
"""A label, and the values that stand one after the other in its bar."""


def plot(figures: Figures) -> str:
    """Return an SVG document of what a run found; what was not measured has no bar."""
    ways = (("up", "up"), ("down", "down"), ("both", "both ways together"))
    routes = (("Turnlane", "tunnel"), ("relay alone", "relay"))
    goodput = [
        (f"{title}, {told}", [figures.median(f"{route}.goodput.{way}.mbit")])
        for way, told in ways
        for title, route in routes
    ]
    parts = ("client", "server", "relay")
    loads = (("saturation", "saturation"), ("50 Mbit/s", "steady50"), ("150 Mbit/s", "steady150"))
    spent = [
        (f"{title}, {way}", [figures.median(f"tunnel.{load}.{way}.{part}.us") for part in parts])
        for title, load in loads
        for way in ("up", "down")
    ]
    trips = [
        (f"{title}, {rank}", [figures.median(f"{route}.idle.{rank}_us")])
        for rank in ("p50", "p99")
        for title, route in routes
    ]
    return document(
        [
            panel("Goodput at under 1 % loss, Mbit/s", _measured(goodput)),
            panel("CPU time for each datagram, µs", _measured(spent), legend=parts),
            panel("Idle round trip, µs", _measured(trips)),
        ]
    )


def panel(title: str, bars: Sequence[Bar], *, legend: Sequence[str] = ()) -> tuple[list[str], int]:
    """Return the elements of one chart, from its own top on, and how high it is."""
    largest = max((sum(values) for _, values in bars), default=0.0) or 1.0
    found = [_text(0, 16, title, weight="bold")]
    for index, name in enumerate(legend):
        mark = _LABEL + 110 * index
        found += [_rect(mark, 26, 10, 10, index), _text(mark + 16, 35, name)]
    top = 44 if legend else 26
    for label, values in bars:
        found.append(_text(_LABEL - 10, top + 13, label, anchor="end"))
        left = float(_LABEL)
        for index, value in enumerate(values):
            width = value / largest * _BARS
            found.append(_rect(left, top, width, _ROW - 6, index))
            left += width
        found.append(_text(left + 6, top + 13, f"{sum(values):.4g}"))
        top += _ROW
    return found, top + 18


def document(panels: Sequence[tuple[list[str], int]]) -> str:
    """Return the panels one under the other as a document."""
    height = sum(high for _, high in panels) + 20
    size = f'width="{WIDTH}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {height}">',
        f'<rect {size} fill="white"/>',
    ]
    top = 10
    for elements, high in panels:
        lines += [f'<g transform="translate(10 {top})" style="{_STYLE}">', *elements, "</g>"]
        top += high
    return "\n".join([*lines, "</svg>"]) + "\n"


def _measured(bars: Sequence[tuple[str, Sequence[float | None]]]) -> list[Bar]:
    found = [(label, [each for each in values if each is not None]) for label, values in bars]
    return [(label, values) for label, values in found if values]


def _rect(left: float, top: float, width: float, height: float, colour: int) -> str:
    fill = _COLOURS[colour % len(_COLOURS)]
    size = f'width="{width:.1f}" height="{height}"'
    return f'<rect x="{left:.1f}" y="{top}" {size} fill="{fill}"/>'


def _text(
    left: float, top: float, text: str, *, anchor: str = "start", weight: str = "normal"
) -> str:
    place = f'x="{left:.1f}" y="{top}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {place}>{escape(text)}</text>"
