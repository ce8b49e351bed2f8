"""Every registered export format, read back by a library that is not ours where there is one."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from collabteam.exporting.base import EXPORT_FORMATS, ExportFormat, WriteReport
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.folder import export_dataset
from collabteam.exporting.formats import huggingface
from collabteam.exporting.formats.huggingface import HuggingFace
from collabteam.exporting.selection import Selection, select_labels
from collabteam.testing.export_formats import ReadCrop, check_export_format
from collabteam.testing.labelled_camera import make_labelled_camera

Read = dict[str, ReadCrop]


def read_table(folder: Path) -> Read:
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["crop_id"]: ReadCrop(
                row["label"], row["split"], (folder / row["file_name"]).read_bytes()
            )
            for row in csv.DictReader(file)
        }


def read_imagefolder(folder: Path) -> Read:
    from torchvision.datasets import ImageFolder

    found = {}
    for split in folder.iterdir():
        if split.is_dir():
            data = ImageFolder(str(split), allow_empty=True)
            for path, label in data.samples:
                image = Path(path).read_bytes()
                found[Path(path).stem] = ReadCrop(data.classes[label], split.name, image)
    assert read_table(folder) == found
    return found


def read_yolo(folder: Path) -> Read:
    assert {"train", "val"} <= {path.name for path in folder.iterdir()}
    return read_imagefolder(folder)


def read_coco(folder: Path) -> Read:
    from pycocotools.coco import COCO

    coco = COCO(str(folder / "annotations.json"))
    found = {}
    for annotation in coco.loadAnns(coco.getAnnIds()):
        (image,) = coco.loadImgs(annotation["image_id"])
        (category,) = coco.loadCats(annotation["category_id"])
        about = annotation["attributes"]
        picture = (folder / "images" / image["file_name"]).read_bytes()
        found[about["crop_id"]] = ReadCrop(category["name"], about["split"], picture)
    return found


def read_parquet(folder: Path) -> Read:
    rows = pq.read_table(folder / "crops.parquet").to_pylist()
    return {row["crop"]: ReadCrop(row["label"], row["split"], row["image"]) for row in rows}


def read_huggingface(folder: Path) -> Read:
    import datasets

    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for split, data in datasets.load_dataset(str(folder), cache_dir=cache).items():
            assert isinstance(data.features["image"], datasets.Image)
            names = data.features["label"].names
            for row in data.cast_column("image", datasets.Image(decode=False)):
                label = names[row["label"]]
                image = row["image"]["bytes"]
                found[row["crop_id"]] = ReadCrop(label, split.replace("_", "-"), image)
    return found


def read_labelstudio(folder: Path) -> Read:
    found = {}
    for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8")):
        data = task["data"]
        (said,) = task.get("annotations") or task["predictions"]
        (result,) = said["result"]
        file = folder / data["image"].removeprefix("/data/local-files/?d=")
        (label,) = result["value"]["choices"]
        found[data["crop_id"]] = ReadCrop(label, data["split"], file.read_bytes())
    return found


def read_cvat(folder: Path) -> Read:
    found = {}
    with zipfile.ZipFile(folder / "dataset.zip") as archive:
        root = ElementTree.fromstring(archive.read("annotations.xml"))
        for image in root.iterfind("image"):
            (tag,) = image.iterfind("tag")
            about = {one.get("name"): one.text for one in tag.iterfind("attribute")}
            picture = archive.read(f"images/{image.get('name')}")
            found[str(about["crop_id"])] = ReadCrop(
                str(tag.get("label")), str(about["split"]), picture
            )
    return found


READERS: dict[str, Callable[[Path], Read]] = {
    "coco": read_coco,
    "csv": read_table,
    "cvat": read_cvat,
    "huggingface": read_huggingface,
    "imagefolder": read_imagefolder,
    "labelstudio": read_labelstudio,
    "parquet": read_parquet,
    "yolo": read_yolo,
}


@pytest.mark.parametrize("name", EXPORT_FORMATS.names())
def test_every_format_conforms(name: str) -> None:
    format_class = EXPORT_FORMATS.load(name)
    assert format_class.name == name
    check_export_format(format_class, READERS[name])


def test_hugging_face_opens_shards_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user of the library does: the folder, a split, a picture, a class."""
    import datasets

    monkeypatch.setattr(huggingface, "SHARD_BYTES", 8000)
    monkeypatch.setattr(huggingface, "ROW_GROUP", 4)
    camera = make_labelled_camera(tmp_path / "cameras")
    selection = select_labels(camera.catalog)
    folder = tmp_path / "made"
    export_dataset(camera.catalog, selection, HuggingFace(), folder)
    names = sorted(path.name for path in (folder / "data").iterdir())
    shards = [name for name in names if name.startswith("train-")]
    assert len(shards) > 2
    assert shards == [f"train-{n:05d}-of-{len(shards):05d}.parquet" for n in range(len(shards))]
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "test", "held_out"}
    labels = loaded["train"].features["label"]
    assert labels.names == camera.catalog.classes
    order = [crop for crop in camera.labelled if camera.labelled[crop].split == "train"]
    assert loaded["train"]["crop_id"] == order
    index, origins = camera.catalog.index(), camera.catalog.origins(selection.rows)
    origin_of = dict(zip(index.crop_id[selection.rows].tolist(), origins, strict=True))
    for row in loaded["train"]:
        known = camera.labelled[row["crop_id"]]
        origin = origin_of[row["crop_id"]]
        with Image.open(io.BytesIO(known.image)) as picture:
            expected = np.asarray(picture.convert("RGB"))
        assert (np.asarray(row["image"].convert("RGB")) == expected).all()
        assert labels.int2str(row["label"]) == known.label
        assert row["source"] == known.source
        assert (row["video"], row["track"]) == (origin["video"], origin["track"])
        box = [row[f"box_{side}"] for side in ("left", "top", "width", "height")]
        assert box == (origin["box"] or [None] * 4)
        assert (row["confidence"] is None) == (known.source != "team")


# --- the suite notices ---------------------------------------------------------------------------


class Plain(ExportFormat):
    """A list of names and labels, and the pictures beside it."""

    name = "plain"
    layout = "`labels.json` and the pictures"

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        labels = {}
        for crop in crops:
            (folder / crop.file).write_bytes(crop.image)
            labels[crop.crop_id] = (self.label(crop), self.split(crop))
        (folder / "labels.json").write_text(json.dumps(labels))
        return WriteReport()

    def label(self, crop: ExportedCrop) -> str:
        return crop.label

    def split(self, crop: ExportedCrop) -> str:
        return crop.split


def read_plain(folder: Path) -> Read:
    labels = json.loads((folder / "labels.json").read_text())
    return {crop: ReadCrop(label, split) for crop, (label, split) in labels.items()}


class OtherLabel(Plain):
    def label(self, crop: ExportedCrop) -> str:
        return crop.proposed


class OtherSplit(Plain):
    def split(self, crop: ExportedCrop) -> str:
        return "train"


class Hoards(Plain):
    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        return super().write(iter(list(crops)), folder, selection, camera)


class Drops(Plain):
    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        next(crops)
        return super().write(crops, folder, selection, camera)


class Swallows(Plain):
    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        try:
            return super().write(crops, folder, selection, camera)
        except Exception:
            return WriteReport()


class Dated(Plain):
    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        import time

        (folder / "date").write_text(str(int(time.time())))
        return super().write(crops, folder, selection, camera)


class MovesTheTestSet(Plain):
    def arrange(self, selection: Selection, seed: int) -> Selection:
        from dataclasses import replace

        return replace(selection, split=selection.split[::-1].copy())


def test_a_format_of_ones_own_conforms() -> None:
    check_export_format(Plain, read_plain)
    check_export_format(Plain)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (OtherLabel, "expected label"),
        (OtherSplit, "expected split"),
        (Hoards, "pictures in memory"),
        (Drops, "1 crops are missing"),
        (Swallows, "expected a UserError for a broken picture"),
        (Dated, "different bytes in date"),
        (MovesTheTestSet, "arrange moved a crop"),
    ],
)
def test_the_suite_finds_what_is_wrong(wrong: type[ExportFormat], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_export_format(wrong, read_plain)


def test_without_a_reader_a_missing_picture_is_found() -> None:
    with pytest.raises(AssertionError, match="is in no file of the dataset"):
        check_export_format(Drops)
