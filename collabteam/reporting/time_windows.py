"""Tables, CSV, JSON and a plot of what a team labelled, hour by hour and video by video.

Rates are fractions, 0 to 1, except in what :func:`render` and :func:`plot_time_windows` show, which
is in percent. Times are UTC.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from collabteam.machine import utc_stamp
from collabteam.monitoring.windows import TimeWindow, TimeWindows
from collabteam.reporting.table1 import short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELLED, _UNSURE, _INK = "#332288", "#CC6677", "#555555"


def to_csv(found: TimeWindows) -> str:
    """Both tables as CSV: one line per row, told apart by the column ``by``.

    Rates are fractions in full precision; what is not known is an empty field. ``since`` is UTC in
    ISO 8601; the labels of a class are in ``label/<class>``.
    """
    text = io.StringIO()
    rows = [*(("time", row) for row in _timed(found)), *(("video", row) for row in found.by_video)]
    records = [{"by": by, "round": found.round, **_record(row)} for by, row in rows]
    for record in records:
        labels = record.pop("labels")
        record |= {f"label/{name}": count for name, count in labels.items()}
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def to_json(found: TimeWindows) -> dict[str, Any]:
    """Both tables as plain data for ``json.dumps``; the fields of :class:`TimeWindows`."""
    return {
        "round": found.round,
        "hours": found.hours,
        "by_time": [_record(row) for row in found.by_time],
        "timeless": None if found.timeless is None else _record(found.timeless),
        "by_video": [_record(row) for row in found.by_video],
    }


def _record(row: TimeWindow) -> dict[str, Any]:
    since = None if row.since is None else utc_stamp(row.since)
    rates = {"coverage": row.coverage, "abstain_rate": row.abstain_rate}
    return {**asdict(row), "since": since, "labelled": row.labelled, **rates}


def _timed(found: TimeWindows) -> list[TimeWindow]:
    """The rows by time, and behind them what has none."""
    return [*found.by_time, *([] if found.timeless is None else [found.timeless])]


def render(found: TimeWindows, console: Console) -> None:
    """Print both tables, in percent.

    Args:
        found: What :func:`collabteam.monitoring.windows.time_windows` returned.
        console: Where to; 80 columns or more.
    """
    said = f"What the team of round {found.round} said, by"
    _print(console, f"{said} {_every(found.hours)}", "since, UTC", _timed(found))
    _print(console, f"{said} video", "video", found.by_video)
    console.print(
        "of the crops that the team labelled last; confidence: mean of the labelled crops; labels: "
        "share of the labelled crops, where there is room.",
        style="italic",
    )


def _print(console: Console, title: str, first: str, rows: Sequence[TimeWindow]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    # A video's name may be a long path; its end tells it from its neighbours.
    names = [row.name if len(row.name) <= 20 else f"...{row.name[-17:]}" for row in rows]
    classes = list(rows[0].labels)
    widest = max(5, *(len(str(row.crops)) for row in rows))
    # A column takes its text and two places, the edges are one more.
    room = console.width - max(map(len, [*names, first])) - widest - 30
    heads = ["crops", "cover-\nage", "I don't\nknow", "confi-\ndence"]
    if fits := 8 * len(classes) <= room:
        heads += [_fold(short_name(name)) for name in classes]
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name, row in zip(names, rows, strict=True):
        shares = [count / row.labelled if row.labelled else None for count in row.labels.values()]
        table.add_row(
            escape(name), str(row.crops),
            *map(_percent, (row.coverage, row.abstain_rate, row.confidence)),
            *(map(_percent, shares) if fits else ()),
        )  # fmt: skip
    console.print(f"\n{title}", style="bold", markup=False)
    console.print(table)


def _fold(name: str) -> str:
    """Lines of at most six letters, about equally long."""
    lines = -(-len(name) // 6)
    return "\n".join(
        name[k * len(name) // lines : (k + 1) * len(name) // lines] for k in range(lines)
    )


def _every(hours: int) -> str:
    """The width of a row in words."""
    count, unit = (hours, "hour") if hours % 24 else (hours // 24, "day")
    return unit if count == 1 else f"{count} {unit}s"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def plot_time_windows(found: TimeWindows, camera: str, newest: float | None, to: Path) -> None:
    """Draw coverage and "I don't know", and how many crops they rest on.

    Over time where any time is known, else over videos. The whiskers are 95% intervals (Wilson) as
    if crops were independent, so they are rather too short: crops of one object are not.

    Args:
        found: What :func:`collabteam.monitoring.windows.time_windows` returned.
        camera: The camera's name.
        newest: Unix seconds from which on the crops are new to the team; None marks nothing.
        to: The PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    rates, counts = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    rows = found.by_time or found.by_video
    if found.by_time:
        width = found.hours / 24
        middle = [(row.since or 0.0) / 86400 + width / 2 for row in rows]
        counts.xaxis_date(tz="UTC")
        counts.set_xlabel("month-day hour, or date, UTC")
    else:
        width, middle = 1.0, [float(at) for at in range(len(rows))]
        names = [row.name if len(row.name) <= 24 else "..." + row.name[-21:] for row in rows]
        counts.set_xticks(middle, names, rotation=30, ha="right", fontsize=8)
    figure.suptitle(
        f"Camera {camera}: what the team of round {found.round} said, by "
        f"{_every(found.hours) if found.by_time else 'video'}",
        fontsize=12,
    )
    _plot_rates(rates, middle, rows, width)
    unsure = [row.crops - row.labelled for row in rows]
    labelled = [row.labelled for row in rows]
    counts.bar(middle, labelled, 0.9 * width, color=_LABELLED, alpha=0.8)
    counts.bar(middle, unsure, 0.9 * width, bottom=labelled, color=_UNSURE, alpha=0.8)
    counts.set_ylabel("crops")
    left, right = middle[0] - 0.6 * width, middle[-1] + 0.6 * width
    for axes in (rates, counts):
        axes.set_xlim(left, right)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        if found.by_time and newest is not None:
            axes.axvspan(max(left, newest / 86400), right, color="#DDCC77", alpha=0.25, zorder=0)
    if found.by_time and newest is not None:
        rates.text(max(left, newest / 86400), 103, " newest stretch", fontsize=9, color=_INK)
    if found.timeless is not None and found.by_time:
        note = f"{found.timeless.crops} crops of unknown time are not shown"
        counts.set_title(note, loc="right", fontsize=9, color=_INK)
    figure.savefig(to, dpi=110)


def _plot_rates(
    axes: Axes, middle: Sequence[float], rows: Sequence[TimeWindow], width: float
) -> None:
    """Both rates with their intervals; the line breaks where there are no crops."""
    crops = np.array([row.crops for row in rows], dtype=np.float64)
    labelled = np.array([row.labelled for row in rows], dtype=np.float64)
    breaks = np.flatnonzero(np.diff(middle) > 1.5 * width) + 1
    for share, colour, marker, name in (
        (labelled / crops, _LABELLED, "o", "coverage"),
        (1 - labelled / crops, _UNSURE, "s", "I don't know"),
    ):
        low, high = _wilson(share, crops)
        axes.vlines(middle, 100 * low, 100 * high, color=colour, linewidth=1, alpha=0.6)
        for part in np.split(np.arange(len(rows)), breaks):
            axes.plot(
                [middle[at] for at in part], 100 * share[part], color=colour, marker=marker,
                markersize=4, linewidth=1.5, label=name if part[0] == 0 else None,
            )  # fmt: skip
    sure = [(at, 100 * row.confidence) for at, row in zip(middle, rows, strict=True)
            if row.confidence is not None]  # fmt: skip
    axes.scatter(
        [at for at, _ in sure], [value for _, value in sure], s=60, color=_INK, marker="_",
        linewidths=1.5, label="mean confidence of the labelled crops",
    )  # fmt: skip
    axes.set_ylim(-3, 110)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("%")
    axes.legend(loc="upper left", ncols=3, frameon=False, fontsize=9, bbox_to_anchor=(0, 1.1))


def _wilson(
    share: NDArray[np.float64], count: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of 95% of shares of ``count`` each."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + (z / count) ** 2 / 4)
    return middle - half, middle + half
