"""The table that summarises an ingest of footage."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from collabteam.errors import plain
from collabteam.video.spool import VideoRecord


def footage_table(records: Sequence[VideoRecord]) -> Table:
    """Make a table with one row per video: length, objects found, speed and faults.

    Args:
        records: The videos, in the order of the rows.

    Returns:
        A table for the terminal.
    """
    labels = sorted({label for record in records for label in record.objects})
    table = Table(title="Footage")
    table.add_column("video", overflow="fold")
    for name in ("length", "frames", "x real time", *labels, "crops"):
        table.add_column(name, justify="right")
    table.add_column("remarks", overflow="fold")
    for record in records:
        took = record.seconds.get("total", 0.0)
        faults = [*([record.remark] if record.remark else []), *record.faults]
        faults = faults[:3] + (["..."] if len(faults) > 3 else [])
        table.add_row(
            Text(plain(record.name.rpartition("@")[0], 200)),
            f"{int(record.duration) // 60}:{record.duration % 60:04.1f}",
            str(record.frames),
            f"{record.duration / took:.1f}" if took else "",
            *(str(record.objects.get(label, 0)) for label in labels),
            str(record.crops),
            Text(plain("; ".join(faults))),
        )
    return table
