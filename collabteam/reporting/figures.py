"""The figures of a camera and of the fleet: each described once, drawn to PNG or into a page.

A figure is a row of :class:`Panel`: data without any appearance. Matplotlib draws them, with
:func:`write_png` to a file in a camera's folder, with :func:`svg` to text that stands inside the
fleet's page. In the page colours are classes of its style sheet, so that they change at night, and
nothing has a style of its own, which the page's policy forbids. Rates come in as fractions, 0 to
1, and are shown in percent.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Transform

from collabteam.labelling.records import TestQuality
from collabteam.machine import utc_time
from collabteam.monitoring.windows import TimeWindow, TimeWindows
from collabteam.reporting import percent
from collabteam.reporting.table1 import short_name
from collabteam.rounds.evaluation import wilson_interval
from collabteam.rounds.records import RoundRecord
from collabteam.storage.files import replacing

Point = tuple[float, float]
"""In the units of the axes."""

_COLOURS = (
    "#332288", "#CC6677", "#117733", "#88CCEE", "#882255",
    "#999933", "#AA4499", "#44AA99", "#DDCC77", "#000000",
)  # fmt: skip
"""Paul Tol's "muted", told apart with any kind of colour vision; its pale grey is black here."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_INK, _GRID, _BAR, _SHADE = "#555555", "#dddddd", "#d0d0d0", "#f3ebc8"


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        name: Quantity and unit.
        low: Its lower end.
        high: Its upper end, above ``low``.
        ticks: Places with a label, and the labels.
        slanted: Whether the labels are long names; they are left out where a figure is small.
    """

    name: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    slanted: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: The class or the quantity; series of one name share a line of the legend.
        points: In the order in which they are joined.
        style: Number of its colour and mark, 0 or more; after ten they repeat.
        kind: Tells it from other series of its name, such as ``estimated``.
        dashed: A broken line and hollow marks.
        marks: Whether points have marks.
        line: Whether points are joined.
        breaks: Places in ``points`` before which the line is interrupted.
        intervals: Lower and upper end of a whisker at each point; empty for none.
    """

    name: str
    points: Sequence[Point]
    style: int
    kind: str = ""
    dashed: bool = False
    marks: bool = True
    line: bool = True
    breaks: Sequence[int] = ()
    intervals: Sequence[tuple[float, float]] = ()

    @property
    def full_name(self) -> str:
        """Name and kind."""
        return f"{self.name}, {self.kind}" if self.kind else self.name


@dataclass(frozen=True)
class Bar:
    """A bar from the bottom of a panel, behind the series.

    Attributes:
        left: Its left edge on the x axis.
        right: Its right edge.
        height: Its upper end on the y axis.
    """

    left: float
    right: float
    height: float


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: Stands above it.
        x: The axis to the right.
        y: The axis upwards.
        series: The later ones are drawn above the earlier ones.
        says: The content in words, for readers who cannot see it.
        note: Stands below it, ``""`` for nothing.
        own_legend: Whether the series are other things than the camera's classes, whose legend
            stands once above all panels of the page.
        bars: Drawn behind the series.
        diagonal: Whether the line is drawn on which both axes have the same value.
        shade: The place on the x axis from which the ground is shaded; None for nowhere.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    says: str
    note: str = ""
    own_legend: bool = False
    bars: Sequence[Bar] = ()
    diagonal: bool = False
    shade: float | None = None


# --- axes ---------------------------------------------------------------------------------------


def percent_axis(name: str, values: Sequence[float], floor: float | None = None) -> Axis:
    """Return an axis in percent that holds all values and ends at 100.

    Args:
        name: The quantity.
        values: In percent.
        floor: Its lower end; None leaves it to the values.
    """
    lowest = min(values, default=0.0) if floor is None else floor
    step = next((step for step in (1, 2, 5, 10, 20) if 100 - lowest <= 5 * step), 20)
    # A mark on the floor would be cut in half.
    low = max(0.0, (lowest - step / 4) // step * step) if floor is None else floor
    ticks = range(int(-(-low // step) * step), 101, step)
    return Axis(name, low, 100, tuple((tick, str(tick)) for tick in ticks))


def rising_axis(name: str, highest: float) -> Axis:
    """Return an axis from 0 to the next round number."""
    steps = (scale * one for scale in (0.01, 0.1, 1, 10, 100, 1e3, 1e4, 1e5) for one in (1, 2, 5))
    step = next((step for step in steps if highest <= 5 * step), 1e6)
    count = max(1, int(-(-highest // step)))
    ticks = tuple((k * step, f"{k * step:,.10g}") for k in range(count + 1))
    return Axis(name, 0, count * step, ticks)


def round_axis(rounds: Sequence[int]) -> Axis:
    """Return an axis of rounds, all of them labelled if there are few."""
    last = max(rounds, default=0)
    step = max(1, -(-last // 8))
    ticks = tuple((k, str(k)) for k in range(0, last + 1, step))
    # A single round would otherwise be an axis without width.
    return Axis("round", -0.2, max(last, 1) + 0.2, ticks)


def time_axis(since: float, until: float) -> Axis:
    """Return an axis of Unix seconds with up to six labels, hours or days in UTC."""
    first, last = f"{utc_time(since):%d %b %Y}", f"{utc_time(until - 1):%d %b %Y}"
    span = first if first == last else f"{first} to {last}"
    hours = next((step for step in (1, 2, 3, 6, 12, 24) if until - since <= 5 * 3600 * step), 0)
    step = 3600 * hours or 86400 * -(-int(until - since) // (5 * 86400))
    places = range(int(-(-since // step) * step), int(until) + 1, step)
    form = "%d %b" if step >= 86400 else "%H:%M"
    ticks = tuple((at, f"{utc_time(at):{form}}") for at in places)
    return Axis(f"{span}, UTC", since, until, ticks)


# --- the figures --------------------------------------------------------------------------------


def course(rounds: Sequence[RoundRecord]) -> list[Panel]:
    """Describe how a team came along, round by round.

    Args:
        rounds: Complete rounds, as :func:`collabteam.rounds.records.read_rounds` returns them; at
            least one.

    Returns:
        Recall of *true* and of *false* per branch, coverage and abstention, and from the second
        round on the precision of the increments.
    """
    last = rounds[-1]
    x = round_axis([record.round for record in rounds])
    if last.recall.test is None:
        note = "no frozen test set: human-labelled crops of the validation folds"
        recalls = [record.recall.human for record in rounds]
    else:
        note = f"{last.test_size:,} crops of the frozen test set, which never train"
        recalls = [record.recall.test or {} for record in rounds]
    lines: dict[str, list[Series]] = {"true": [], "false": []}
    for side, series in lines.items():
        for number, name in enumerate(last.classes):
            folds = [record.recall.validation[name].sides()[side] for record in rounds]
            known = [one[name].sides()[side] if one else None for one in recalls]
            series += [
                Series(name, _by_round(rounds, folds), number, "validation folds", dashed=True),
                Series(name, _by_round(rounds, known), number),
            ]
    # Both on one scale, so that they can be compared.
    values = [value for side in lines.values() for one in side for _, value in one.points]
    y = percent_axis("recall, %", values)
    what = {
        "true": "of its class that a branch calls true",
        "false": "of all other crops that it calls false",
    }
    panels = [
        Panel(
            f"Recall of {side}", x, y, series,
            _said(f"Recall of {side} by round", series),
            f"Share {what[side]}; {note}. Broken line: all crops of the validation folds, after "
            "round 0 partly the team's own labels.",
        )
        for side, series in lines.items()
    ]  # fmt: skip
    pool = [
        Series("coverage", _by_round(rounds, [record.coverage for record in rounds]), 0),
        Series("I don't know", _by_round(rounds, [record.abstain_rate for record in rounds]), 1),
    ]
    panels.append(
        Panel(
            "Coverage and “I don't know”", x, percent_axis("of the pool, %", [], floor=0), pool,
            _said("The pool by round", pool),
            f"of the {last.pool_size:,} crops that nobody has labelled.",
            own_legend=True,
        )
    )  # fmt: skip
    if len(rounds) > 1:
        panels.append(_increments(rounds, x))
    return panels


def _increments(rounds: Sequence[RoundRecord], x: Axis) -> Panel:
    """Precision of the increments, estimated before and measured where truth is known."""
    series = []
    for number, name in enumerate(rounds[-1].classes):
        drawn = [record.increment.get(name) for record in rounds]
        for kind, shares in (
            ("estimated", [None if one is None else one.expected_precision for one in drawn]),
            ("measured", [None if one is None else one.precision for one in drawn]),
        ):
            points = _by_round(rounds, shares)
            series.append(Series(name, points, number, kind, dashed=kind == "estimated"))
    values = [value for one in series for _, value in one.points]
    measured = any(one.points for one in series if not one.dashed)
    note = "Of what the team added to its own training"
    note += ": measured where truth is known; " if measured else "; "
    return Panel(
        "Precision of the increments", x, percent_axis("right, %", values), series,
        _said("Precision of the increments by round", series),
        f"{note}broken line: estimated from human-labelled folds.",
    )  # fmt: skip


def _by_round(rounds: Sequence[RoundRecord], shares: Sequence[float | None]) -> list[Point]:
    """The shares that are known, in percent over the rounds."""
    return [
        (record.round, 100 * share)
        for record, share in zip(rounds, shares, strict=True)
        if share is not None
    ]


def _said(title: str, series: Sequence[Series]) -> str:
    """The values of all series in words."""
    return f"{title}: " + "; ".join(
        f"{one.full_name} {', '.join(f'{value:.1f}' for _, value in one.points)}"
        for one in series
        if one.points
    )


def label_quality(test: TestQuality) -> list[Panel]:
    """Describe how far a team's confidence can be trusted.

    Args:
        test: Quality of the labels on the frozen test set.

    Returns:
        Reliability of each class before and after calibration, and risk over coverage; nothing
        where an early version kept no curves.
    """
    if test.reliability is None or test.risk_coverage is None:
        return []
    panels = []
    x = percent_axis("what the branch says, %", [], floor=0)
    y = percent_axis("what is true, %", [], floor=0)
    for number, (name, pair) in enumerate(test.reliability.items()):
        error = test.calibration_error[name]
        text = ", ".join(
            f"{word} {percent(value)}"
            for word, value in (("before", error.before), ("after", error.after))
            if value is not None
        )
        series = [
            Series(
                name, _points(bins.confidence, bins.share), number, f"{word} calibration",
                dashed=word == "before",
            )
            for word, bins in (("before", pair.before), ("after", pair.after))
        ]  # fmt: skip
        panels.append(
            Panel(
                f"Reliability: {name}", x, y, series,
                f"Reliability of {name}; calibration error {text}",
                f"Calibration error {text} points (broken line: before).",
                diagonal=True,
            )
        )  # fmt: skip
    area = test.risk_coverage_area
    points = _points(test.risk_coverage.coverage, test.risk_coverage.risk)
    panels.append(
        Panel(
            "Risk over coverage", percent_axis("labelled, the surest first, %", [], floor=0),
            rising_axis("wrong among them, %", max((risk for _, risk in points), default=0)),
            [Series("wrong", points, 0, marks=False)],
            f"Share of wrong labels over coverage, area {area:.4f}",
            f"Area under the curve {area:.4f}; less is better.",
        )
    )  # fmt: skip
    return panels


def _points(right: Sequence[float], up: Sequence[float]) -> list[Point]:
    """Fractions as places in percent."""
    return [(100 * x, 100 * y) for x, y in zip(right, up, strict=True)]


def coverage_over_time(found: TimeWindows, newest: float | None) -> list[Panel]:
    """Describe coverage and abstention by time and by video.

    The whiskers are 95% intervals (Wilson) as if crops were independent, so they are rather too
    short: crops of one object are not.

    Args:
        found: Windows of what the team labelled.
        newest: Unix seconds from which on the crops are new to the team; None marks nothing.

    Returns:
        A panel over time where any time is known, and one over the videos; each only where there
        are several windows, and one of them in any case.
    """
    panels = []
    if len(found.by_time) > 1 or (found.by_time and len(found.by_video) < 2):
        width = 3600.0 * found.hours
        left = [row.since or 0.0 for row in found.by_time]
        by = "hour" if found.hours == 1 else f"{found.hours} hours"
        note = "" if newest is None else "; shaded ground: the newest stretch"
        if found.timeless is not None:
            note += f"; {found.timeless.crops:,} crops of unknown time are not shown"
        x = time_axis(left[0], left[-1] + width)
        panels.append(_windows(f"Coverage by {by}", x, left, width, found.by_time, newest, note))
    if len(found.by_video) > 1 or not found.by_time:
        left = [k - 0.5 for k in range(len(found.by_video))]
        ticks = tuple(
            (float(k), row.name if len(row.name) <= 24 else f"...{row.name[-21:]}")
            for k, row in enumerate(found.by_video)
        )
        x = Axis("video, the newest last", -0.5, len(left) - 0.5, ticks, slanted=True)
        panels.append(_windows("Coverage by video", x, left, 1.0, found.by_video, None, ""))
    return panels


def _windows(
    title: str,
    x: Axis,
    left: Sequence[float],
    width: float,
    rows: Sequence[TimeWindow],
    newest: float | None,
    note: str,
) -> Panel:
    """Both rates and the mean confidence, in front of the number of crops."""
    breaks = [k for k in range(1, len(left)) if left[k] - left[k - 1] > 1.5 * width]
    crops = np.array([row.crops for row in rows], dtype=np.float64)
    series = []
    for number, (name, shares) in enumerate(
        (
            ("coverage", [row.coverage or 0.0 for row in rows]),
            ("I don't know", [row.abstain_rate or 0.0 for row in rows]),
        )
    ):
        low, high = wilson_interval(np.array(shares), crops)
        points = [(at + width / 2, 100 * share) for at, share in zip(left, shares, strict=True)]
        whiskers = [(100 * a, 100 * b) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
        series.append(Series(name, points, number, breaks=breaks, intervals=whiskers))
    says = f"{title}: " + ", ".join(f"{value:.0f}" for _, value in series[0].points)
    sure = [
        (at + width / 2, 100 * row.confidence)
        for at, row in zip(left, rows, strict=True)
        if row.confidence is not None
    ]
    series.append(Series("mean confidence", sure, 2, line=False))
    most = max(row.crops for row in rows)
    bars = [Bar(at, at + width, 30 * row.crops / most) for at, row in zip(left, rows, strict=True)]
    return Panel(
        title, x, percent_axis("of the crops, %", [], floor=0), series, says,
        f"bars: crops, the highest {most:,}; whiskers: 95% intervals; confidence: of the labelled "
        f"crops{note}.",
        own_legend=True, bars=bars, shade=newest,
    )  # fmt: skip


def overview(
    names: Sequence[str],
    recalls: Sequence[float],
    coverages: Sequence[float],
    verifications: Sequence[int],
) -> list[Panel]:
    """Describe a fleet, each camera as a mark.

    Args:
        names: Of the N cameras.
        recalls: (N) mean recalls, 0 to 1.
        coverages: (N) of the unlabelled pools, 0 to 1.
        verifications: (N) numbers of verified crops.

    Returns:
        Recall over coverage and over verifications; nothing for fewer than two cameras.
    """
    if len(names) < 2:
        return []
    up = [100 * recall for recall in recalls]
    covered, clicks = [100 * one for one in coverages], [float(one) for one in verifications]
    y = percent_axis("mean recall, %", up)
    return [
        Panel(
            f"Mean recall over {word}, one mark a camera", x, y,
            [
                Series(name, [(value, recall)], 0, line=False)
                for name, value, recall in zip(names, values, up, strict=True)
            ],
            f"Mean recall over {word}",
        )
        for word, x, values in (
            ("coverage", percent_axis("coverage, %", covered), covered),
            ("verifications", rising_axis("verifications", max(clicks)), clicks),
        )
    ]  # fmt: skip


# --- drawing ------------------------------------------------------------------------------------


def _label(axes: Axes, x: Axis, y: Axis) -> None:
    """Give axes their names and ticks."""
    axes.set_xticks([at for at, _ in x.ticks], [label for _, label in x.ticks])
    axes.set_yticks([at for at, _ in y.ticks], [label for _, label in y.ticks])
    axes.set_xlabel(x.name)
    axes.set_ylabel(y.name)
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)


def _draw(axes: Axes, panel: Panel) -> list[Artist]:
    """Put a panel's data on axes; the names of groups are classes of the page or series' numbers.

    Returns:
        All artists that were added, in the order in which they cover each other.
    """
    x, y = panel.x, panel.y
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    artists: list[Artist] = []
    if panel.shade is not None and panel.shade < x.high:
        ground = (max(panel.shade, x.low), x.high, y.high)
        artists.append(_boxes([ground], y.low, "shade", _SHADE))
    grid = [place for at, _ in y.ticks for place in ((x.low, at), (x.high, at), None)]
    artists.append(Line2D(*_ends(grid), gid="grid", color=_GRID, linewidth=0.8, zorder=1))
    if panel.bars:
        # A gap keeps neighbours apart.
        bars = [
            (bar.left + 0.05 * (bar.right - bar.left), bar.right, bar.height) for bar in panel.bars
        ]
        artists.append(_boxes(bars, y.low, "bar", _BAR))
    if panel.diagonal:
        ends: list[Point | None] = [(x.low, x.low), (x.high, x.high)]
        artists.append(Line2D(*_ends(ends), gid="ideal", color=_INK, linewidth=1, zorder=1))
    for number, one in enumerate(panel.series):
        style = one.style % len(_COLOURS)
        colour = _COLOURS[style]
        if one.intervals:
            whiskers = [
                place
                for (at, _), (low, high) in zip(one.points, one.intervals, strict=True)
                for place in ((at, low), (at, high), None)
            ]
            artists.append(
                Line2D(
                    *_ends(whiskers),
                    gid=f"line whisker s{style}",
                    color=colour,
                    linewidth=1,
                    alpha=0.6,
                )
            )
        places: list[Point | None] = []
        for k, point in enumerate(one.points):
            places += [None, point] if k in one.breaks else [point]
        artists.append(
            Line2D(
                *_ends(places), gid=str(number), color=colour, clip_on=False,
                linestyle=((0, (4, 2)) if one.dashed else "-") if one.line else "none",
                linewidth=1.1 if one.dashed else 1.8,
                marker=_MARKERS[style] if one.marks else "none",
                markersize=4 if one.dashed else 5,
                markerfacecolor="white" if one.dashed else colour,
            )
        )  # fmt: skip
    for artist in artists:
        axes.add_artist(artist)
    return artists


def _ends(places: Sequence[Point | None]) -> tuple[list[float], list[float]]:
    """Both coordinates of a line that is interrupted at each None."""
    ends = [place or (math.nan, math.nan) for place in places]
    return [a for a, _ in ends], [b for _, b in ends]


def _boxes(
    boxes: Sequence[tuple[float, float, float]], floor: float, group: str, colour: str
) -> PathPatch:
    """Rectangles that stand on the floor, given by left, right and upper end."""
    corners = [[(a, floor), (a, top), (b, top), (b, floor)] for a, b, top in boxes]
    outline = Outline.make_compound_path(*(Outline(one, closed=False) for one in corners))
    return PathPatch(outline, facecolor=colour, linewidth=0, zorder=0.5, gid=group)


def write_png(title: str, panels: Sequence[Panel], to: Path, columns: int = 2) -> None:
    """Draw panels side by side in a PNG file.

    Args:
        title: Above all of them.
        panels: At least one.
        to: The file.
        columns: Panels in a row, unless there are fewer.
    """
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    legends = [len({one.name for one in panel.series if one.points}) > 1 for panel in panels]
    # Fixed margins, in inches: a layout that measures all texts takes longer than the drawing.
    right = 1.9 if any(legends) else 0.3
    left, bottom = (1.2, 1.6) if any(panel.x.slanted for panel in panels) else (0.75, 1.15)
    wide, high = (4.2 if columns > 1 else 9.0), 3.1
    cell = (left + wide + right, 0.45 + high + bottom)
    size = (columns * cell[0], lines * cell[1] + 0.4)
    # A name of a class may hold what mathematics would read.
    with matplotlib.rc_context({"text.parse_math": False}):
        # A figure of its own, not pyplot's: no backend is chosen for the whole process.
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        figure.text(0.2 / size[0], 1 - 0.3 / size[1], title, fontsize=12, weight="bold")
        for number, (panel, legend) in enumerate(zip(panels, legends, strict=True)):
            line, column = divmod(number, columns)
            corner = (column * cell[0] + left, (lines - 1 - line) * cell[1] + bottom)
            axes = figure.add_axes(
                (corner[0] / size[0], corner[1] / size[1], wide / size[0], high / size[1])
            )
            _label(axes, panel.x, panel.y)
            artists = _draw(axes, panel)
            axes.set_title(panel.title, loc="left", fontsize=11)
            note = textwrap.fill(panel.note[:1].upper() + panel.note[1:], int(15 * wide) + 12)
            axes.set_xlabel(f"{panel.x.name}\n{note}".strip(), fontsize=9, loc="left")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, pad=6)
            if panel.x.slanted:
                for label in axes.get_xticklabels():
                    label.set(rotation=30, horizontalalignment="right", fontsize=8)
            if legend:
                drawn = [artist for artist in artists if (artist.get_gid() or "").isdigit()]
                named = {
                    short_name(one.name): artist
                    for one, artist in zip(panel.series, drawn, strict=True)
                    if one.points
                }
                axes.legend(
                    list(named.values()), list(named),
                    loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9,
                )  # fmt: skip
        with replacing(to) as file:
            figure.savefig(file, dpi=110, format="png")


# --- inside a page ------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 340, 216
"""Of a panel, in its own units; the page scales it."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 38
_MARK = 3.4
"""Half the width of a mark, in the same units."""


class _PageRenderer(RendererBase):
    """Matplotlib's drawing as SVG whose appearance is left to the page's style sheet.

    Matplotlib's own SVG writes colours into each element. Here a named group gives its name as
    the class of what is drawn in it; what is in no named group is text, or is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.series: Sequence[Series] = ()
        self._groups: list[str] = []

    def open_group(self, s: str, gid: str | None = None) -> None:
        self._groups.append(gid or "")

    def close_group(self, s: str) -> None:
        self._groups.pop()

    def flipy(self) -> bool:
        return True

    def get_canvas_width_height(self) -> tuple[float, float]:
        return _WIDTH, _HEIGHT

    def get_text_width_height_descent(
        self, s: str, prop: FontProperties, ismath: Any
    ) -> tuple[float, float, float]:
        # Without a width every text lies at its anchor, from which the browser aligns it; 8 is
        # the height of a digit in the page's font.
        return 0, 8, 0

    def draw_path(
        self, gc: GraphicsContextBase, path: Outline, transform: Transform, rgbFace: Any = None
    ) -> None:
        group = self._groups[-1]
        if group.isdigit():
            group = f"line {_classes(self.series[int(group)])}"
        if group:
            self.parts.append(f'<path class="{group}" d="{_outline(path, transform)}"/>')

    def draw_markers(
        self,
        gc: GraphicsContextBase,
        marker_path: Outline,
        marker_trans: Transform,
        path: Outline,
        trans: Transform,
        rgbFace: Any = None,
    ) -> None:
        group = self._groups[-1]
        if not group.isdigit():
            return
        one = self.series[int(group)]
        start = f'<use class="mark {_classes(one)}" href="#mark{one.style % len(_MARKERS)}"'
        name = escape(one.full_name)
        places = trans.transform(path.vertices)
        places = places[~np.isnan(places[:, 0])].tolist()
        self.parts += [
            f'{start} x="{_n(a)}" y="{_n(_HEIGHT - b)}"><title>{name}: {value:.1f}</title></use>'
            for (a, b), (_, value) in zip(places, one.points, strict=True)
        ]

    def draw_text(
        self,
        gc: GraphicsContextBase,
        x: float,
        y: float,
        s: str,
        prop: FontProperties,
        angle: float,
        ismath: Any = False,
        mtext: Text | None = None,
    ) -> None:
        anchor = (
            "end" if mtext is not None and mtext.get_horizontalalignment() == "right" else "mid"
        )
        place = f'x="{_n(x)}" y="{_n(y)}"'
        if angle:
            place = f'transform="translate({_n(x)} {_n(y)}) rotate({-angle:g})"'
        self.parts.append(f'<text class="{anchor}" {place}>{escape(s)}</text>')


def _classes(one: Series) -> str:
    """The classes of a series in the page."""
    return f"s{one.style % len(_COLOURS)}{' dash' if one.dashed else ''}"


def _outline(path: Outline, transform: Transform) -> str:
    """The path in the words of SVG, with the y axis downwards."""
    words = []
    flipped = transform + Affine2D().scale(1, -1).translate(0, _HEIGHT)
    for places, code in path.iter_segments(flipped, simplify=False):
        letter = "Z" if code == Outline.CLOSEPOLY else "?MLQC"[code]
        words.append(letter + (" ".join(map(_n, places.tolist())) if letter != "Z" else ""))
    return "".join(words)


def _n(value: float) -> str:
    """A coordinate, no longer than can be seen."""
    return f"{value:.1f}".removesuffix(".0")


@cache
def _reused() -> tuple[Axes, _PageRenderer]:
    """Axes at fixed margins and their renderer: to make new ones for each panel takes longer."""
    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    axes = figure.add_axes(
        (_LEFT / _WIDTH, _BOTTOM / _HEIGHT, wide / _WIDTH, high / _HEIGHT), frameon=False
    )
    # Whatever matplotlib would place by the size of other things is put at a fixed place.
    axes.set_title("", y=1)
    axes.tick_params(axis="x", length=0, pad=7)
    axes.tick_params(axis="y", length=0, pad=7)
    place = figure.transFigure
    axes.xaxis.set_label_coords((_LEFT + wide / 2) / _WIDTH, 14 / _HEIGHT, place)
    axes.yaxis.set_label_coords(13 / _WIDTH, (_BOTTOM + high / 2) / _HEIGHT, place)
    return axes, _PageRenderer()


@lru_cache(maxsize=4096)
def _texts(x: Axis, y: Axis) -> str:
    """Names and ticks of two axes as SVG; most panels of a page share theirs with others."""
    axes, renderer = _reused()
    _label(axes, replace(x, ticks=()) if x.slanted else x, y)
    renderer.parts, renderer.series = [], ()
    axes.draw(renderer)
    return "".join(renderer.parts)


def svg(panel: Panel) -> Markup:
    """Draw a panel for the page; equal panels give equal text.

    Returns:
        An ``svg`` element without ids and styles; names are escaped. Its marks are those of
        :func:`marks`, which has to stand once in the page.
    """
    axes, renderer = _reused()
    texts = _texts(panel.x, panel.y)
    renderer.parts, renderer.series = [], panel.series
    for artist in _draw(axes, panel):
        artist.draw(renderer)
        artist.remove()
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(panel.says)}">{"".join(renderer.parts)}{texts}</svg>'
    )


@cache
def marks() -> Markup:
    """The shapes of all marks, for the page to hold once."""
    shapes = []
    for number, name in enumerate(_MARKERS):
        style = MarkerStyle(name)
        # The paths of markers differ in size; all get the same width.
        path = style.get_path().transformed(style.get_transform())
        size = 2 * _MARK / max(path.get_extents().size)
        turned = Affine2D().scale(size).translate(0, _HEIGHT)
        shapes.append(f'<path id="mark{number}" d="{_outline(path, turned)}"/>')
    return Markup(
        f'<svg width="0" height="0" aria-hidden="true"><defs>{"".join(shapes)}</defs></svg>'
    )


def swatch(style: int, dashed: bool = False, line: bool = True) -> Markup:
    """A short line with its mark, for a legend of the page."""
    one = Series("", (), style, dashed=dashed)
    joined = f'<path class="line {_classes(one)}" d="M1 6H25"/>' if line else ""
    return Markup(
        f'<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true">{joined}'
        f'<use class="mark {_classes(one)}" href="#mark{style % len(_MARKERS)}" x="13" y="6"/>'
        "</svg>"
    )
