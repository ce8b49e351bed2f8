"""Label Studio's tasks with annotations and predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collabteam.annotation_tools.labelstudio import choice_result, interface, picture_url
from collabteam.exporting.base import IMAGES, ExportFormat, WriteReport
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.selection import Selection


class LabelStudio(ExportFormat):
    """``tasks.json``, ``interface.xml`` and ``images/``."""

    name = "labelstudio"
    layout = "`tasks.json` (Label Studio), `interface.xml` and `images/`"
    notes = (
        "Start Label Studio with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true` and "
        "`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT` this folder; paste `interface.xml` into Labeling "
        "Interface > Code; add `images` as a local storage, without a sync; import `tasks.json`.",
        "Persons' labels are annotations, the team's are predictions with `score` and "
        "`model_version`.",
    )
    box_columns = "`box` (left, top, width, height)"

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the tasks, the interface and the pictures."""
        (folder / IMAGES).mkdir()
        (folder / "interface.xml").write_text(interface(selection.classes), encoding="utf-8")
        with (folder / "tasks.json").open("w", encoding="utf-8", newline="") as file:
            separator = "[\n"
            for crop in crops:
                (folder / IMAGES / crop.file).write_bytes(crop.image)
                file.write(separator + json.dumps(_task(crop, camera), allow_nan=False))
                separator = ",\n"
            file.write("\n]\n")
        return WriteReport()


def _task(crop: ExportedCrop, camera: str) -> dict[str, Any]:
    about = {"crop_id": crop.crop_id, "camera": camera, **crop.attributes(), "box": crop.box}
    task: dict[str, Any] = {"data": {"image": picture_url(IMAGES, crop.file), **about}}
    said: dict[str, Any] = {"result": [choice_result(crop.crop_id, crop.label)]}
    if crop.source != "team":
        return task | {"annotations": [said]}
    said["model_version"] = f"round {crop.round}, {crop.team}"
    if crop.confidence is not None:
        said["score"] = crop.confidence
    return task | {"predictions": [said]}
