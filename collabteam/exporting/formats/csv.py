"""A CSV table and a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collabteam.exporting.base import IMAGES, ExportFormat, WriteReport, labels_become_a_persons
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.metadata_table import METADATA_TABLE, MetadataTable
from collabteam.exporting.selection import Selection


class Csv(ExportFormat):
    """``metadata.csv`` and ``images/``."""

    name = "csv"
    layout = "`metadata.csv` and `images/`"
    notes = (
        "UTF-8, RFC 4180. A `'` stands before whatever in a name a spreadsheet of any language "
        "would take for a formula.",
        labels_become_a_persons("review import="),
    )

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the table and the pictures."""
        (folder / IMAGES).mkdir()
        with (folder / METADATA_TABLE).open("w", encoding="utf-8", newline="") as file:
            table = MetadataTable(file)
            for crop in crops:
                (folder / IMAGES / crop.file).write_bytes(crop.image)
                table.add(crop, f"{IMAGES}/{crop.file}")
        return WriteReport()
