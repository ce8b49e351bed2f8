"""An export format: one JSON object a line, and the pictures beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from collabteam.exporting.base import IMAGES, ExportFormat, WriteReport
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.selection import Selection


class JsonLines(ExportFormat):
    """``crops.jsonl`` and ``images/``."""

    name = "jsonl"
    layout = "`crops.jsonl`, one object a crop, and `images/`"
    notes = ('Read it with `pandas.read_json("{to}/crops.jsonl", lines=True)`.',)

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the lines and the pictures as the crops come."""
        (folder / IMAGES).mkdir()
        with (folder / "crops.jsonl").open("w", encoding="utf-8") as lines:
            for crop in crops:
                (folder / IMAGES / crop.file).write_bytes(crop.image)
                row = {"crop_id": crop.crop_id, "file": f"{IMAGES}/{crop.file}"}
                lines.write(json.dumps(row | crop.attributes() | crop.box_sides()) + "\n")
        return WriteReport()
