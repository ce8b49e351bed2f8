"""COCO's JSON of object detection: https://cocodataset.org/#format-data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from collabteam.exporting.base import IMAGES, ExportFormat, WriteReport
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.selection import Selection


class Coco(ExportFormat):
    """``annotations.json`` and ``images/``; each picture is one object that fills it."""

    name = "coco"
    layout = "`annotations.json` (COCO) and `images/`"
    notes = (
        "One annotation per picture, whose box is the whole picture. The position of the object in "
        "the frame of its video is in `attributes.frame_box`.",
    )
    box_columns = "`frame_box` (left, top, width, height)"

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the JSON and the pictures."""
        number_of = {name: number for number, name in enumerate(selection.classes, 1)}
        categories = [{"id": id_, "name": name} for name, id_ in number_of.items()]
        (folder / IMAGES).mkdir()
        # The annotations come after all images, so they are collected in a separate file.
        waiting, target = folder / ".annotations", folder / "annotations.json"
        with (
            target.open("w", encoding="utf-8", newline="") as images,
            waiting.open("w", encoding="utf-8", newline="") as annotations,
        ):
            head = {"description": f"crops of camera {camera}"}
            images.write(f'{{"info": {_json(head)},\n"licenses": [],\n"categories": ')
            images.write(f'{_json(categories)},\n"images": [')
            separator = "\n"
            for number, crop in enumerate(crops, 1):
                (folder / IMAGES / crop.file).write_bytes(crop.image)
                size = {"width": crop.width, "height": crop.height}
                picture = {"id": number, "file_name": crop.file, **size}
                attributes = {"crop_id": crop.crop_id, **crop.attributes(), "frame_box": crop.box}
                annotation = {
                    "id": number,
                    "image_id": number,
                    "category_id": number_of[crop.label],
                    "bbox": [0, 0, crop.width, crop.height],
                    "area": crop.width * crop.height,
                    "iscrowd": 0,
                    "attributes": attributes,
                }
                images.write(separator + _json(picture))
                annotations.write(separator + _json(annotation))
                separator = ",\n"
        with target.open("a", encoding="utf-8", newline="") as file:
            file.write('\n],\n"annotations": [')
            with waiting.open(encoding="utf-8", newline="") as annotations:
                for line in annotations:
                    file.write(line)
            file.write("\n]}\n")
        waiting.unlink()
        return WriteReport()


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False)
