"""``metadata.csv``: one line per crop, for formats that write one file per picture."""

from __future__ import annotations

import csv
from io import TextIOBase

from collabteam.annotation_tools.spreadsheet import no_formula
from collabteam.exporting.crops import ATTRIBUTES, BOX_SIDES, ExportedCrop

METADATA_TABLE = "metadata.csv"


class MetadataTable:
    """Writes the table.

    Args:
        file: A file opened for writing in UTF-8 with ``newline=""``.
    """

    def __init__(self, file: TextIOBase) -> None:
        # RFC 4180 ends lines with \r\n; csv then also quotes a lone carriage return in a name.
        self._rows = csv.writer(file, lineterminator="\r\n")
        self._rows.writerow(("file_name", "crop_id", *ATTRIBUTES, *BOX_SIDES))

    def add(self, crop: ExportedCrop, file: str) -> None:
        """Add a crop's line.

        Args:
            crop: The crop.
            file: Path of its picture, relative to the table.
        """
        cells = [file, crop.crop_id, *crop.attributes().values(), *crop.box_sides().values()]
        self._rows.writerow(
            "" if cell is None else no_formula(cell) if isinstance(cell, str) else cell
            for cell in cells
        )
