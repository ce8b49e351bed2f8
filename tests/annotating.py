"""What other annotation tools make of our tasks: their exports, as a person's work would give."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Said = list[tuple[str, str, str]]  # crop, label, reviewer


def by_label_studio(file: Path, said: Said, minimal: bool) -> Path:
    """Label Studio's export after it took the tasks in."""
    exported: list[dict[str, Any]] = []
    for number, task in enumerate(json.loads(file.read_text()), 1):
        words = [(label, by) for crop, label, by in said if crop == task["data"]["crop_id"]]
        if minimal:
            exported += [
                {**task["data"], "id": number, "label": label, "annotator": by, "lead_time": 1.5}
                for label, by in words
            ]
            continue
        annotations = [annotated(label, by) for label, by in words]
        exported.append({"id": number, **task, "annotations": annotations, "drafts": []})
    answered = file.with_name("export.json")
    answered.write_text(json.dumps(exported, indent=2), encoding="utf-8")
    return answered


def annotated(label: str, by: object = "ann@x.org", **more: object) -> dict[str, Any]:
    """One annotation as Label Studio exports it."""
    result = {"value": {"choices": [label]}, "id": "a1", "from_name": "label", "to_name": "image"}
    return {
        "id": 7,
        "completed_by": {"id": 3, "email": by} if isinstance(by, str) else by,
        "result": [{**result, "type": "choices", "origin": "manual"}],
        "was_cancelled": False,
        "ground_truth": False,
        **more,
    }


def by_cvat(file: Path, said: Said, zipped: bool) -> Path:
    """CVAT's export: pictures in a folder of the task, tags changed, added and taken away."""
    text = file.read_bytes()
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            text = archive.read("annotations.xml")
    root = ElementTree.fromstring(text)
    labels = {crop: label for crop, label, _ in said}
    for image in root.iterfind("image"):
        name = str(image.get("name"))
        image.set("name", f"images/{name}")
        for tag in image.findall("tag"):
            image.remove(tag)
        if label := labels.get(name.split(".")[0]):
            tag = ElementTree.SubElement(image, "tag", label=label, source="manual")
            ElementTree.SubElement(tag, "attribute", name="sure").text = "yes"
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    answered = file.with_name("export.zip" if zipped else "annotations.xml")
    if zipped:
        with zipfile.ZipFile(answered, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images/other.txt", "x")
            archive.writestr("annotations.xml", text)
    else:
        answered.write_bytes(text)
    return answered


def by_spreadsheet(file: Path, said: Said, european: bool) -> Path:
    """The table saved again; several reviewers on one crop have a row each."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    answered = file.with_name("export.csv")
    encoding = "utf-8-sig" if european else "utf-8"
    with answered.open("w", encoding=encoding, newline="") as stream:
        table = csv.DictWriter(
            stream,
            list(rows[0]),
            delimiter=";" if european else ",",
            lineterminator="\r\n" if european else "\n",
        )
        table.writeheader()
        for row in rows:
            words = [(label, by) for crop, label, by in said if crop == row["crop_id"]]
            for label, by in words or [("", "")]:
                table.writerow({**row, "label": label, "reviewer": by})
    return answered


TOOLS: dict[str, Callable[[Path, Said, bool], Path]] = {
    "labelstudio": by_label_studio,
    "cvat": by_cvat,
    "csv": by_spreadsheet,
}
