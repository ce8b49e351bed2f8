"""Tables, CSV and JSON of what a team labelled, hour by hour and video by video.

Rates are fractions, 0 to 1, except in what :func:`render` shows, which is in percent. Times are
UTC.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from collabteam.annotation_tools.spreadsheet import no_formula
from collabteam.errors import plain
from collabteam.machine import utc_stamp
from collabteam.monitoring.windows import TimeWindow, TimeWindows
from collabteam.reporting import percent
from collabteam.reporting.table1 import short_name


def to_csv(found: TimeWindows) -> str:
    """Both tables as CSV: one line per row, told apart by the column ``by``.

    Rates are fractions in full precision; what is not known is an empty field. ``since`` is UTC in
    ISO 8601; the labels of a class are in ``label/<class>``.
    """
    text = io.StringIO()
    rows = [*(("time", row) for row in _timed(found)), *(("video", row) for row in found.by_video)]
    records = [{"by": by, "round": found.round, **_record(row)} for by, row in rows]
    for (_, row), record in zip(rows, records, strict=True):
        labels = record.pop("labels")
        record["name"] = no_formula(row.name)
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
    shown = [plain(row.name) for row in rows]
    names = [name if len(name) <= 20 else f"...{name[-17:]}" for name in shown]
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
            Text(name), str(row.crops),
            *map(percent, (row.coverage, row.abstain_rate, row.confidence)),
            *(map(percent, shares) if fits else ()),
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
