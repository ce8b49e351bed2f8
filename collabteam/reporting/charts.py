"""Charts as SVG text, to stand inside a page: lines, marks and bars on two axes.

Nothing here knows what is drawn. Colours are the page's: a mark has the classes ``s0`` to ``s9``,
and the page's style says what these are by day and by night. Who cannot tell colours apart has the
shapes of the marks and the broken lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from collabteam.machine import utc_time

WIDTH, HEIGHT = 340, 216
"""Of a chart, in its own units; the page scales it."""
COLOURS = 10
"""Classes of colour and mark; a further series begins anew."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 38

Point = tuple[float, float]
"""In the units of the axes."""


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        name: What it counts, with its unit.
        low: Its lower end.
        high: Its upper end, above ``low``.
        ticks: Places with a label, and the labels.
    """

    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Series:
    """What belongs together in a chart.

    Attributes:
        name: What it is, said when one points at a mark.
        points: In the order in which they are joined.
        style: Number of its colour and mark, 0 or more.
        dashed: A broken line and hollow marks.
        marks: Whether points have marks.
        line: Whether points are joined.
        breaks: Places in ``points`` before which the line is interrupted.
    """

    name: str
    points: Sequence[Point]
    style: int
    dashed: bool = False
    marks: bool = True
    line: bool = True
    breaks: Sequence[int] = ()


@dataclass(frozen=True)
class Bar:
    """A bar from the floor of a chart, all of them in the colour of what is said softly.

    Attributes:
        left: Where it begins on the x axis.
        right: Where it ends.
        height: On the y axis.
    """

    left: float
    right: float
    height: float


def percent_axis(name: str, values: Sequence[float], floor: float | None = None) -> Axis:
    """An axis in percent that holds all values and ends at 100.

    Args:
        name: What it counts.
        values: In percent.
        floor: Its lower end; None leaves it to the values.
    """
    lowest = min(values, default=0.0) if floor is None else floor
    step = next((step for step in (1, 2, 5, 10, 20) if 100 - lowest <= 5 * step), 20)
    # A mark on the floor would be cut in half.
    low = max(0.0, (lowest - step / 4) // step * step) if floor is None else floor
    ticks = range(int(-(-low // step) * step), 101, step)
    return Axis(name, low, 100, [(tick, str(tick)) for tick in ticks])


def rising_axis(name: str, highest: float) -> Axis:
    """An axis from 0 to the next round number."""
    steps = (scale * one for scale in (0.01, 0.1, 1, 10, 100, 1e3, 1e4, 1e5) for one in (1, 2, 5))
    step = next((step for step in steps if highest <= 5 * step), 1e6)
    count = max(1, int(-(-highest // step)))
    return Axis(name, 0, count * step, [(k * step, f"{k * step:,.10g}") for k in range(count + 1)])


def round_axis(rounds: Sequence[int]) -> Axis:
    """An axis of rounds, all of them named if there are few."""
    last = max(rounds, default=0)
    step = max(1, -(-last // 8))
    # A single round would otherwise be an axis without width.
    return Axis(
        "round", -0.2, max(last, 1) + 0.2, [(k, str(k)) for k in range(0, last + 1, step)]
    )  # fmt: skip


def time_axis(since: float, until: float) -> Axis:
    """An axis of Unix seconds with up to five labels, hours or days in UTC."""
    first, last = f"{utc_time(since):%d %b %Y}", f"{utc_time(until - 1):%d %b %Y}"
    span = first if first == last else f"{first} to {last}"
    hours = next((step for step in (1, 2, 3, 6, 12, 24) if until - since <= 5 * 3600 * step), 0)
    step = 3600 * hours or 86400 * -(-int(until - since) // (5 * 86400))
    places = range(int(-(-since // step) * step), int(until) + 1, step)
    form = "%d %b" if step >= 86400 else "%H:%M"
    return Axis(f"{span}, UTC", since, until, [(at, f"{utc_time(at):{form}}") for at in places])


def chart(
    says: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    bars: Sequence[Bar] = (),
    diagonal: bool = False,
    shade: float | None = None,
) -> Markup:
    """Draw one chart.

    Args:
        says: What it shows, for who cannot see it.
        x: The axis to the right.
        y: The axis upwards.
        series: What is drawn, the later ones above.
        bars: Behind the series.
        diagonal: Draw the line where both axes say the same.
        shade: From here on to the right the ground is shaded; None for nowhere.

    Returns:
        An ``svg`` element; names are escaped.
    """
    right, floor = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def at_x(value: float) -> float:
        return _LEFT + (value - x.low) / (x.high - x.low) * (right - _LEFT)

    def at_y(value: float) -> float:
        return floor - (value - y.low) / (y.high - y.low) * (floor - _TOP)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="']
    parts.append(f'{escape(says)}">')
    if shade is not None and shade < x.high:
        left = at_x(max(shade, x.low))
        parts.append(
            f'<rect class="shade" x="{_n(left)}" y="{_TOP}" width="{_n(right - left)}" '
            f'height="{floor - _TOP}"/>'
        )
    for value, label in y.ticks:
        height = _n(at_y(value))
        parts.append(f'<path class="grid" d="M{_LEFT} {height}H{right}"/>')
        parts.append(
            f'<text class="end" x="{_LEFT - 6}" y="{_n(at_y(value) + 4)}">{escape(label)}</text>'
        )
    parts += [
        f'<text class="mid" x="{_n(at_x(value))}" y="{floor + 15}">{escape(label)}</text>'
        for value, label in x.ticks
    ]
    parts.append(
        f'<text class="mid axis" x="{(_LEFT + right) // 2}" y="{HEIGHT - 6}">{escape(x.name)}'
        f'</text><text class="mid axis" transform="translate(10 {(_TOP + floor) // 2}) '
        f'rotate(-90)">{escape(y.name)}</text>'
    )
    for bar in bars:
        left, top = at_x(bar.left), at_y(bar.height)
        parts.append(
            f'<rect class="bar" x="{_n(left)}" y="{_n(top)}" '
            f'width="{_n(max(0.5, at_x(bar.right) - left - 0.6))}" height="{_n(floor - top)}"/>'
        )
    if diagonal:
        parts.append(f'<path class="ideal" d="M{_LEFT} {floor}L{right} {_TOP}"/>')
    for one in series:
        style = f"s{one.style % COLOURS}{' dash' if one.dashed else ''}"
        places = [(at_x(a), at_y(b)) for a, b in one.points]
        if one.line and len(places) > 1:
            path = "".join(
                f"{'M' if k == 0 or k in one.breaks else 'L'}{_n(a)} {_n(b)}"
                for k, (a, b) in enumerate(places)
            )
            parts.append(f'<path class="line {style}" d="{path}"/>')
        if one.marks:
            for (a, b), point in zip(places, one.points, strict=True):
                said = escape(f"{one.name}: {point[1]:.1f}")
                parts.append(f"{_mark(one.style, style, a, b)}<title>{said}</title></path>")
    parts.append("</svg>")
    return Markup("".join(parts))


def swatch(style: int, dashed: bool = False) -> Markup:
    """A short line with its mark, for a legend."""
    name = f"s{style % COLOURS}{' dash' if dashed else ''}"
    return Markup(
        '<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true">'
        f'<path class="line {name}" d="M1 6H25"/>{_mark(style, name, 13, 6)}</path></svg>'
    )


_MARKS = (
    "m-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",  # disc
    "m-3 -3h6v6h-6z",  # square
    "m0 -4l3.8 6.8h-7.6z",  # triangle
    "m0 -4.2l4.2 4.2l-4.2 4.2l-4.2-4.2z",  # diamond
    "m0 4l3.8 -6.8h-7.6z",  # triangle, upside down
    "m-1.4 -4h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",  # plus
    "m-4 0l6.8 -3.8v7.6z",  # triangle to the left
    "m4 0l-6.8 -3.8v7.6z",  # triangle to the right
    "m-4 -1.7h8v3.4h-8z",  # lying bar
    "m-1.7 -4h3.4v8h-3.4z",  # standing bar
)


def _mark(style: int, name: str, x: float, y: float) -> str:
    """A mark's opening tag: what it says may follow."""
    return f'<path class="mark {name}" d="M{_n(x)} {_n(y)}{_MARKS[style % COLOURS]}">'


def _n(value: float) -> str:
    """A coordinate, as short as it can be seen."""
    return f"{value:.1f}".removesuffix(".0")
