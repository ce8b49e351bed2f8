"""CVAT for images 1.1, with the pictures inside."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from collabteam.annotation_tools.cvat import ANNOTATIONS, annotations_head, labels_json, xml_text
from collabteam.exporting.base import IMAGES, ExportFormat, WriteReport, labels_become_a_persons
from collabteam.exporting.crops import ATTRIBUTES, BOX_SIDES, ExportedCrop
from collabteam.exporting.selection import Selection

_ATTRIBUTES = [name for name in ("crop_id", *ATTRIBUTES, *BOX_SIDES) if name != "label"]


class Cvat(ExportFormat):
    """``dataset.zip`` and ``labels.json``."""

    name = "cvat"
    layout = "`dataset.zip` (CVAT for images 1.1, pictures inside) and `labels.json`"
    notes = (
        "In a new project, Raw: paste `labels.json`; Actions > Import dataset > CVAT 1.1: "
        "`dataset.zip`.",
        "Persons' tags have `source` `manual`, the team's `auto`. Characters that XML cannot hold "
        "are U+FFFD.",
        labels_become_a_persons("review import="),
    )

    def arrange(self, selection: Selection, seed: int) -> Selection:
        """Sort the crops by name, because CVAT numbers the pictures of an archive in this order."""
        return selection.take(np.argsort(selection.index.crop_id[selection.rows].astype(str)))

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the archive and the list of labels."""
        labels = labels_json(selection.classes, _ATTRIBUTES)
        (folder / "labels.json").write_text(labels, encoding="utf-8")
        waiting = folder / ".annotations"
        with zipfile.ZipFile(folder / "dataset.zip", "w") as archive:
            with waiting.open("w", encoding="utf-8", newline="") as file:
                head = annotations_head(camera, selection.classes, len(selection), _ATTRIBUTES)
                file.write(head)
                for number, crop in enumerate(crops):
                    archive.writestr(zipfile.ZipInfo(f"{IMAGES}/{crop.file}"), crop.image)
                    file.write(_image(number, crop))
                file.write("</annotations>\n")
            entry = zipfile.ZipInfo(ANNOTATIONS)  # no time: bytes stay equal
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = waiting.stat().st_size
            with waiting.open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(2**20):
                    target.write(piece)
        waiting.unlink()
        return WriteReport()


def _image(number: int, crop: ExportedCrop) -> str:
    values: dict[str, Any] = {"crop_id": crop.crop_id, **crop.attributes(), **crop.box_sides()}
    by = "auto" if crop.source == "team" else "manual"
    attributes = "".join(
        f"      <attribute name={quoteattr(name)}>{xml_text(values[name])}</attribute>\n"
        for name in _ATTRIBUTES
    )
    return (
        f'  <image id="{number}" name={quoteattr(crop.file)} width="{crop.width}" '
        f'height="{crop.height}">\n    <tag label={quoteattr(crop.label)} source="{by}">\n'
        f"{attributes}    </tag>\n  </image>\n"
    )
