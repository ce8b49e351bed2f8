"""Datasets handed over: the right crops with the right labels, as others' loaders see them."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, Call, command, environment, fingerprints, one_line, read_json
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import builder
from PIL import Image

import collabteam
from collabteam.audits.records import (
    AuditReviewer,
    AuditSettings,
    Certificate,
    JudgedClass,
    LabellingTeam,
    Release,
)
from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.catalog.annotations import Annotations
from collabteam.catalog.index import CropIndex
from collabteam.catalog.records import crops_to_table, events_to_table
from collabteam.exporting import crops as reading
from collabteam.exporting.base import EXPORT_FORMATS
from collabteam.exporting.formats import parquet
from collabteam.exporting.selection import (
    REASONS,
    Selection,
    select_labels,
    validation_part,
)
from collabteam.reviewing.exchange.answers import read_answers

CLASSES = ["ship", "car", "plane"]
FORMATS = EXPORT_FORMATS.names()
KINDS = (("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("PPM", ".ppm"), ("WEBP", ".webp"))
ODD = ('=1+2,"a"', "<b>&'; é 船\r\nc\td", "../up\\", "x\x01y")
FINGERPRINT = "0123456789abcdef"


def picture(number: int) -> bytes:
    """One of five formats, each of another size and colour."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (14, 12 + number % 9, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, KINDS[number % len(KINDS)][0])
    return buffer.getvalue()


def verdict(crop: str, label: str, confidence: float, round_: int = 1) -> LabelEvent:
    return LabelEvent(
        crop, label, "team", "verdict", round_, confidence, FINGERPRINT, commit="label-x"
    )


@dataclass(frozen=True)
class Expected:
    label: str
    source: str
    split: str = "train"
    confidence: float | None = None
    round: int | None = None


def make(root: Path, name: str = "S1", groups: int = 1) -> tuple[Catalog, dict[str, Expected]]:
    """A camera with one crop of every case, and what is expected of those that are exported.

    ``unknown`` is among the expected; nobody calls anything a plane.
    """
    catalog = Catalog.register(root, name, CLASSES)
    events: list[LabelEvent] = []
    expected: dict[str, Expected] = {}
    crops: list[Crop] = []

    def crop(number: int, track: str) -> str:
        seed = len(crops)
        box = (0.5, 10.0, 30.25, 40.0) if number % 2 else None
        video = ODD[number % len(ODD)] if track else ""
        when = 1.5e9 + seed / 8 if track else math.nan
        crops.append(Crop(picture(seed), video, track, seed if track else -1, when, box))
        return crops[-1].crop_id

    for group in range(groups):
        made = [crop(n, "" if n in (2, 6) else f"{ODD[n % 4]}{group}-{n}") for n in range(15)]
        shown = crop(12, f"{ODD[0]}{group}-12")  # the same object as number 12
        events += [LabelEvent(made[n], "car", "detector", "proposal") for n in range(9)]
        events += [
            LabelEvent(made[0], "car", "person", "seed"),
            verdict(made[1], "ship", 0.9),
            verdict(made[2], "ship", 0.4),
            LabelEvent(made[3], "car", "person", "audit"),
            verdict(made[3], "ship", 0.99),  # later, but a team's
            verdict(made[4], "car", 0.9, 0),
            verdict(made[4], "", 0.2),
            LabelEvent(made[5], "unusable", "person"),
            LabelEvent(made[6], "unknown", "person"),
            LabelEvent(made[8], "car", "team", "increment", 2, 0.8125, FINGERPRINT),
            LabelEvent(made[9], "car", "team", "increment", 1, 0.95, FINGERPRINT),
            verdict(made[9], "", 0.1),
            LabelEvent(made[10], "ship", "oracle", "seed"),
            LabelEvent(made[11], "ship", "import"),
            LabelEvent(made[12], "", "ingest", "test"),
            LabelEvent(made[12], "ship", "person", "test"),
            verdict(shown, "car", 0.75),
            LabelEvent(made[13], "car", "person"),
            verdict(made[13], "ship", 0.625),
            LabelEvent(made[13], "", "person"),  # withdrawn
            verdict(made[14], "car", 0.5, 1),
        ]
        expected |= {
            made[0]: Expected("car", "person"),
            made[1]: Expected("ship", "team", "train", 0.9, 1),
            made[2]: Expected("ship", "team", "train", 0.4, 1),
            made[3]: Expected("car", "person"),
            made[6]: Expected("unknown", "person"),
            made[8]: Expected("car", "team", "train", 0.8125, 2),
            made[10]: Expected("ship", "oracle"),
            made[11]: Expected("ship", "import"),
            made[12]: Expected("ship", "person", "test"),
            shown: Expected("car", "team", "held-out", 0.75, 1),
            made[13]: Expected("ship", "team", "train", 0.625, 1),
            made[14]: Expected("car", "team", "train", 0.5, 1),
        }
    catalog.add_crops(crops)
    catalog.append_labels(events)
    return catalog, expected


@dataclass
class RoundRun:
    """A camera that nobody changes, with what its export must hold."""

    root: Path
    catalog: Catalog
    everything: dict[str, Expected]  # 'unknown' among it
    pictures: dict[str, bytes]
    origins: dict[str, dict[str, Any]]
    proposed: dict[str, str]

    @property
    def expected(self) -> dict[str, Expected]:
        return {name: e for name, e in self.everything.items() if e.label != "unknown"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RoundRun:
    root = tmp_path_factory.mktemp("camera") / "outputs"
    catalog, everything = make(root, groups=3)
    index, rows = catalog.index(), range(len(catalog))
    names = index.crop_id.tolist()
    return RoundRun(
        root,
        catalog,
        everything,
        dict(zip(names, catalog.images(rows), strict=True)),
        dict(zip(names, catalog.origins(rows), strict=True)),
        dict(zip(names, index.proposed.tolist(), strict=True)),
    )


Export = Callable[..., Path]


@pytest.fixture
def export(made: RoundRun, tmp_path: Path, call: Call) -> Export:
    """The command itself; gives the folder."""

    def export(format: str, *more: str, to: str = "made") -> Path:
        folder = tmp_path / to
        quoted = f"to='{folder}'"
        said = call("export", f"root={made.root}", "camera=S1", f"format={format}", quoted, *more)
        assert said.code == 0, said.err
        assert not list(tmp_path.rglob(".*"))
        assert (folder / "README.md").is_file()
        return folder

    return export


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return {row["crop_id"]: row for row in csv.DictReader(file)}


def pixels(image: bytes) -> Any:
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("RGB"))


def number_or_none(text: str) -> float | None:
    return float(text) if text else None


def check_about(made: RoundRun, crop_id: str, about: dict[str, Any], split: str = "") -> None:
    """Everything that rides along with a crop; numbers may be texts, and ``""`` is nothing."""
    expected, origin = made.everything[crop_id], made.origins[crop_id]

    def number(value: Any) -> float | None:
        return number_or_none(value) if isinstance(value, str) else value

    assert about["label"] == expected.label
    assert about["source"] == expected.source
    assert about["split"] == (split or expected.split)
    assert number(about["confidence"]) == expected.confidence
    assert number(about["round"]) == expected.round
    assert about["team"] == (FINGERPRINT if expected.source == "team" else "")
    assert about["proposed"] == made.proposed[crop_id]
    assert number(about["frame"]) == (None if origin["frame"] < 0 else origin["frame"])
    assert number(about["time"]) == (None if math.isnan(origin["time"]) else origin["time"])


def check_table(made: RoundRun, folder: Path, splits: dict[str, str] | None = None) -> None:
    """``metadata.csv`` against what is expected and the catalog."""
    rows = table(folder)
    assert rows.keys() == made.expected.keys()
    for crop_id, row in rows.items():
        check_about(made, crop_id, row, (splits or {}).get(crop_id, ""))
        origin = made.origins[crop_id]
        for name in ("video", "track"):
            guard = "'" if origin[name].startswith("=") else ""
            assert row[name] == guard + origin[name]
        sides = [row[f"box_{side}"] for side in ("left", "top", "width", "height")]
        assert [number_or_none(side) for side in sides] == (origin["box"] or [None] * 4)
        stored = (folder / row["file_name"]).read_bytes()
        if stored != made.pictures[crop_id]:
            assert row["file_name"].endswith(".png")
            assert (pixels(stored) == pixels(made.pictures[crop_id])).all()
    found = read_answers(made.catalog, folder / "metadata.csv")
    assert not found.problems
    assert {a.crop_id: a.label for a in found.accepted} == {
        name: e.label for name, e in made.expected.items()
    }


# --- formats, as others read them ----------------------------------------------------------------


def test_torchvision_loads_it(made: RoundRun, export: Export) -> None:
    from torchvision.datasets import ImageFolder

    folder = export("imagefolder")
    check_table(made, folder)
    assert {p.name for p in folder.iterdir()} == {
        *("train", "test", "held-out", "metadata.csv", "README.md")
    }
    found = {}
    for split in ("train", "test", "held-out"):
        allow = split == "test"  # of cars there are none in it, but a folder
        data = ImageFolder(str(folder / split), allow_empty=allow)
        assert data.classes == (["car"] if split == "held-out" else ["car", "ship"])
        for (path, label), (shown, _) in zip(data.samples, data, strict=True):
            crop_id = Path(path).stem
            assert (np.asarray(shown) == pixels(made.pictures[crop_id])).all()
            found[crop_id] = (data.classes[label], split)
    assert found == {name: (e.label, e.split) for name, e in made.expected.items()}
    suffixes = {path.suffix for path in folder.glob("*/*/*")}
    assert suffixes == {".jpg", ".png", ".ppm", ".webp"}  # of GIF, which it skips, PNG
    assert (
        "Written as PNG, with the same pixels, because the loader cannot read .gif"
        in (folder / "README.md").read_text()
    )


ULTRALYTICS = """
import sys
import numpy as np
from pathlib import Path
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.data.utils import check_cls_dataset
described = check_cls_dataset(sys.argv[1])
options = get_cfg(overrides={"imgsz": 32, "cache": False})
loaded = {}
for split in ("train", "val", "test"):
    data = ClassificationDataset(str(described[split]), options, prefix=split)
    for place, (path, label, *_) in enumerate(data.samples):
        assert data[place]["cls"] == label
        name = f"{split}/{described['names'][label]}/{Path(path).stem}"
        loaded[name] = data.imread(path)[..., ::-1]  # from BGR
np.savez(sys.argv[2], **loaded)
"""
"""In a process of its own, because it replaces ``PIL.Image.open`` in the one it is in."""


def test_ultralytics_loads_it(made: RoundRun, export: Export) -> None:
    folder = export("yolo")
    copy = folder.with_name("copy")  # it writes caches beside the pictures
    shutil.copytree(folder, copy)
    loaded = folder.with_name("loaded.npz")
    done = subprocess.run(
        [sys.executable, "-c", ULTRALYTICS, copy, loaded],
        env={**environment(), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ignoring corrupt" not in done.stdout + done.stderr
    splits = {}
    for name, shown in np.load(loaded).items():
        split, label, crop_id = name.split("/")
        splits[crop_id] = split
        assert label == made.expected[crop_id].label
        # It decodes with OpenCV, which rounds JPEG in its own way.
        assert np.abs(shown.astype(int) - pixels(made.pictures[crop_id])).max() <= 3
    wanted = {name for name, e in made.expected.items() if e.split != "held-out"}
    assert splits.keys() == wanted
    check_table(made, folder, splits)
    for crop_id, split in splits.items():
        assert (split == "test") == (made.expected[crop_id].split == "test")
    index = made.catalog.index()
    track = dict(zip(index.crop_id.tolist(), index.track.tolist(), strict=True))
    sides = [{track[c] for c, s in splits.items() if s == side} for side in ("train", "val")]
    assert all(sides)
    assert not sides[0] & sides[1]
    other = export("yolo", "seed=1", to="other")
    splits_of = [{c: row["split"] for c, row in table(f).items()} for f in (folder, other)]
    assert splits_of[0] != splits_of[1]


def test_pycocotools_loads_it(made: RoundRun, export: Export) -> None:
    from pycocotools.coco import COCO

    folder = export("coco", "unknown=true")
    coco = COCO(str(folder / "annotations.json"))
    names = [c["name"] for c in coco.loadCats(coco.getCatIds())]
    assert names == [*CLASSES, "unknown"]
    found = {}
    for image_id in coco.getImgIds():
        (image,) = coco.loadImgs(image_id)
        (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        about = annotation["attributes"]
        crop_id = about["crop_id"]
        stored = (folder / "images" / image["file_name"]).read_bytes()
        assert stored == made.pictures[crop_id]
        height, width = pixels(stored).shape[:2]
        assert (image["width"], image["height"]) == (width, height)
        assert annotation["bbox"] == [0, 0, width, height]
        assert annotation["area"] == width * height
        assert annotation["iscrowd"] == 0
        check_about(made, crop_id, about)
        origin = made.origins[crop_id]
        assert (about["video"], about["track"]) == (origin["video"], origin["track"])
        assert about["frame_box"] == origin["box"]
        found[crop_id] = coco.loadCats(annotation["category_id"])[0]["name"]
    assert found == {name: e.label for name, e in made.everything.items()}
    assert len(list((folder / "images").iterdir())) == len(found)


def test_parquet_goes_into_another_camera(
    made: RoundRun, export: Export, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 7)
    folder = export("parquet", "unknown=true")
    file = pq.ParquetFile(folder / "crops.parquet")
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == [7, 7, 7, 7, 7, 1]
    assert json.loads(file.schema_arrow.metadata[b"classes"]) == [*CLASSES, "unknown"]
    rows = file.read().to_pylist()
    assert {row["crop"] for row in rows} == made.everything.keys()
    for row in rows:
        check_about(made, row["crop"], row)
        origin = made.origins[row["crop"]]
        assert row["image"] == made.pictures[row["crop"]]
        assert {name: row[name] for name in ("video", "track", "box")} == {
            name: origin[name] for name in ("video", "track", "box")
        }

    root = folder.parent / "outputs"
    settings = (f"root={root}", "camera=other", f"path={folder}/crops.parquet")
    said = call("ingest", *settings, "labels=person")
    assert said.code == 0, said.err
    other = Catalog.open(root, "other")
    index = other.index()
    images = other.images(range(len(other)))
    origins = other.origins(range(len(other)))
    assert len(other) == len(rows)
    by_picture = {row["image"]: row for row in rows}
    for place, (image, origin) in enumerate(zip(images, origins, strict=True)):
        row = by_picture[image]
        assert index.human[place] == row["label"]
        assert index.test[place] == (row["split"] == "test")
        assert index.held_out[place] == (row["split"] in ("test", "held-out"))
        assert index.proposed[place] == row["proposed"]
        assert (origin["video"], origin["track"]) == (row["video"], row["track"])
        assert origin["time"] == row["time"] or math.isnan(origin["time"])
    # What is in both columns the command's default would mix up; it says so.
    one_line(call("ingest", *settings), "label", "proposed")


def test_csv_and_pictures(made: RoundRun, export: Export) -> None:
    folder = export("csv")
    check_table(made, folder)
    assert {p.name for p in folder.iterdir()} == {"images", "metadata.csv", "README.md"}
    stored = {p.stem: p.read_bytes() for p in (folder / "images").iterdir()}
    assert stored == {name: made.pictures[name] for name in made.expected}


def test_label_studio_tells_persons_from_teams(made: RoundRun, export: Export) -> None:
    folder = export("labelstudio")
    tasks = {task["data"]["crop_id"]: task for task in read_json(folder / "tasks.json")}
    assert tasks.keys() == made.expected.keys()
    interface = ElementTree.parse(folder / "interface.xml").getroot()
    assert [choice.get("value") for choice in interface.iter("Choice")] == CLASSES
    image, choice = interface.find("Image"), interface.find("Choices")
    assert image is not None
    assert choice is not None
    assert image.get("value") == "$image"
    for crop_id, task in tasks.items():
        expected = made.expected[crop_id]
        check_about(made, crop_id, task["data"])
        address = task["data"]["image"].removeprefix("/data/local-files/?d=")
        assert (folder / address).read_bytes() == made.pictures[crop_id]
        assert set(task) == {"data", "predictions" if expected.source == "team" else "annotations"}
        (said,) = task.get("predictions") or task["annotations"]
        (result,) = said["result"]
        assert result["value"] == {"choices": [expected.label]}
        assert result["from_name"] == choice.get("name")
        assert result["to_name"] == image.get("name") == choice.get("toName")
        assert result["type"] == "choices"
        if expected.source == "team":
            assert said["score"] == expected.confidence
            assert said["model_version"] == f"round {expected.round}, {FINGERPRINT}"
    found = read_answers(made.catalog, folder / "tasks.json")
    assert not found.problems
    assert {a.crop_id: a.label for a in found.accepted} == {
        name: e.label for name, e in made.expected.items() if e.source != "team"
    }


def test_cvat_takes_tags_with_attributes(made: RoundRun, export: Export) -> None:
    from cvat_sdk import models

    folder = export("cvat", "unknown=true")
    assert {p.name for p in folder.iterdir()} == {"dataset.zip", "labels.json", "README.md"}
    found = read_answers(made.catalog, folder / "dataset.zip")
    assert not found.problems
    assert {a.crop_id: a.label for a in found.accepted} == {
        name: e.label for name, e in made.everything.items()
    }
    labels = read_json(folder / "labels.json")
    for label in labels:
        models.PatchedLabelRequest(name=label["name"], type=label["type"])
        for attribute in label["attributes"]:  # CVAT's own checks
            kind = models.InputTypeEnum(attribute["input_type"])
            models.AttributeRequest(**{**attribute, "input_type": kind})
    declared = [attribute["name"] for attribute in labels[0]["attributes"]]
    with zipfile.ZipFile(folder / "dataset.zip") as archive:
        assert archive.testzip() is None
        root = ElementTree.fromstring(archive.read("annotations.xml"))
        images = root.findall("image")
        assert root.findtext("meta/task/size") == str(len(images))
        for one in root.iterfind("meta/task/labels/label"):
            names = [a.findtext("name") for a in one.iterfind("attributes/attribute")]
            assert names == declared
        files = [str(image.get("name")) for image in images]
        assert files == sorted(files)
        assert sorted(archive.namelist()) == sorted(
            ["annotations.xml", *(f"images/{file}" for file in files)]
        )
        for image, file in zip(images, files, strict=True):
            crop_id = Path(file).stem
            assert archive.read(f"images/{file}") == made.pictures[crop_id]
            (tag,) = image.iterfind("tag")
            about = {str(a.get("name")): a.text or "" for a in tag.iterfind("attribute")}
            assert list(about) == declared
            check_about(made, crop_id, {**about, "label": tag.get("label")})
            origin = made.origins[crop_id]
            for name in ("video", "track"):
                assert about[name] == origin[name].replace("\x01", "\ufffd")
            by_team = made.everything[crop_id].source == "team"
            assert tag.get("source") == ("auto" if by_team else "manual")


@pytest.mark.parametrize("format", FORMATS)
def test_twice_the_same_bytes(export: Export, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    first = export(format, to="a")
    then = time.time() + 4 * 86400  # zip files may hold the time
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: then)
        second = export(format, to="b name, longer")
    contents = [
        {str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (first, second)
    ]
    for content in contents:
        del content["README.md"]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("format", FORMATS)
def test_few_pictures_at_a_time_and_the_catalog_stays(
    made: RoundRun, export: Export, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.setattr(reading, "READ_AT_ONCE", 5)
    asked: list[int] = []
    read = Catalog.images

    def images(self: Catalog, rows: Any) -> list[bytes]:
        asked.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(Catalog, "images", images)
    before = fingerprints(made.root)
    export(format)
    assert sum(asked) == len(made.expected)
    assert max(asked) == 5
    assert fingerprints(made.root) == before


FOREIGN = '''
from pathlib import Path
from collabteam.exporting.base import ExportFormat, WriteReport

class Lines(ExportFormat):
    """One line per crop."""

    name = "lines"
    layout = "`lines.txt`"

    def write(self, crops, folder: Path, selection, camera):
        lines = [f"{crop.crop_id} {crop.label}" for crop in crops]
        (folder / "lines.txt").write_text("\\n".join(lines))
        return WriteReport(["A remark of our own."])
'''


def test_a_format_of_another_package(
    made: RoundRun, export: Export, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One class that is nowhere registered, and one that an entry point names."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "our_formats.py").write_text(FOREIGN)
    about = tmp_path / "lib" / "our_formats-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: our-formats\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[collabteam.export_format]\nourlines = our_formats:Lines\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    path = f"{REPOSITORY}{os.pathsep}{tmp_path / 'lib'}"
    export("our_formats:Lines", to="by-path")
    done = subprocess.run(
        command("export", f"root={made.root}", "camera=S1", "format=ourlines", "to=by-name"),
        cwd=tmp_path, env={**environment(), "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for folder in (tmp_path / "by-path", tmp_path / "by-name"):
        lines = dict(line.split() for line in (folder / "lines.txt").read_text().splitlines())
        assert lines == {crop: e.label for crop, e in made.expected.items()}
        text = (folder / "README.md").read_text()
        assert "- Files: `lines.txt`.\n- Format: `lines`." in text
        assert "- A remark of our own." in text
    base = (f"root={made.root}", "camera=S1", f"to={tmp_path / 'no'}")
    one_line(call("export", *base, "format=our_formats:Dots"), "our_formats:Dots", "Dots")
    one_line(call("export", *base, "format=no_such_package:Lines"), "no_such_package")
    one_line(call("export", *base, "format=pathlib:Path"), "is not a subclass", "ExportFormat")
    assert not (tmp_path / "no").exists()


# --- what is said about it -----------------------------------------------------------------------


def test_the_readme_and_the_end_of_the_command(made: RoundRun, tmp_path: Path, call: Call) -> None:
    to = tmp_path / "some" / "where"  # folders above it are made
    given = ("format=csv", f"to={to}", "min_confidence=0.5", "licence='CC BY 4.0, by us'")
    said = call("export", f"root={made.root}", "camera=S1", *given)
    assert said.code == 0, said.err
    text = (to / "README.md").read_text(encoding="utf-8")
    for line in (
        "# where: labelled crops of camera S1",
        "| class | by person | by import | by oracle | by team | train | test | held-out | all |",
        "| ship | 3 | 3 | 3 | 6 | 12 | 3 | 0 | 15 |",
        "| car | 6 | 0 | 0 | 9 | 12 | 0 | 3 | 15 |",
        "| plane | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |",
        "No crop of this dataset is plane.",
        "- 3: they have no label",
        '- 6: the team said "I don\'t know"',
        "- 3: 'unusable': nobody can judge them",
        "- 3: 'unknown': none of the classes (unknown=true includes them)",
        "- 3: the team's confidence is below min_confidence",
        "Not certified: these labels have not been audited.",
        f"- round 1, fingerprint `{FINGERPRINT}`: 12 labels",
        f"- round 2, fingerprint `{FINGERPRINT}`: 3 labels",
        "CC BY 4.0, by us",
    ):
        assert line in text.splitlines(), line
    for part in (
        "`oracle`: the label comes from a *simulated* reviewer, not a person",
        f"python -m collabteam.export root={made.root} camera=S1 format=csv to={to} "
        "min_confidence=0.5 'licence=",
        f"pyarrow {pa.__version__}",
        "collabteam ",
        "takes every label in it as a person's",
    ):
        assert part in text, part
    for part in (
        f"S1: 30 labelled crops as csv in {to}; {to}/README.md describes them",
        'left out 6: the team said "I don\'t know"',
        "3 labels are those of a simulated reviewer, not of a person",
        "not certified: these labels have not been audited",
        "next: python -m collabteam.audit camera=S1, then export with certified=true",
        "writing",
    ):
        assert part in said.out + said.err, part
    assert [line.split() for line in said.out.splitlines() if "ship" in line] == [
        ["ship", "3", "3", "3", "6", "12", "3", "0", "15"]
    ]


def test_team_labels_in_the_test_set_are_pointed_out(tmp_path: Path, call: Call) -> None:
    catalog, _ = make(tmp_path / "outputs")
    crop = catalog.index().crop_id[1]
    catalog.append_labels([LabelEvent(str(crop), "", "ingest", "test")])
    to = tmp_path / "to"
    said = call("export", f"root={catalog.folder.parent}", "camera=S1", "format=csv", f"to={to}")
    assert said.code == 0, said.err
    assert "1 labels of `test` are the team's" in (to / "README.md").read_text()


def test_tiny_pictures_are_pointed_out(tmp_path: Path, call: Call) -> None:
    catalog = Catalog.register(tmp_path / "outputs", "S1", CLASSES)
    buffer = io.BytesIO()
    Image.new("RGB", (30, 9)).save(buffer, "PNG")
    crop = Crop(buffer.getvalue())
    catalog.add_crops([crop])
    catalog.append_labels([LabelEvent(crop.crop_id, "car", "person")])
    to = tmp_path / "to"
    said = call("export", f"root={catalog.folder.parent}", "camera=S1", "format=yolo", f"to={to}")
    assert said.code == 0, said.err
    assert "less than 10 px, which ultralytics passes over: 1." in (to / "README.md").read_text()
    # Else ultralytics would take test/ for it.
    assert (to / "val").is_dir()
    assert "next: python -m collabteam.train camera=S1 round=0" in said.out


def test_all_cameras_at_once(tmp_path: Path, call: Call) -> None:
    root = tmp_path / "outputs"
    make(root, "A")
    make(root, "B")
    to = f"to={tmp_path}/sets/${{camera.name}}"
    said = call("export", "-m", f"root={root}", "camera=glob(*)", "format=csv", to)
    assert said.code == 0, said.err
    assert {p.name for p in (tmp_path / "sets").iterdir()} == {"A", "B"}


# --- which labels --------------------------------------------------------------------------------

IDS = [f"{number:024x}" for number in range(4)]
LABELS = st.sampled_from(["car", "ship", "unknown", "unusable", ""])
SHARE = st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan])
PERSONS = st.builds(
    LabelEvent,
    st.sampled_from(IDS),
    LABELS,
    st.sampled_from(["person", "oracle", "import", "detector"]),
)
TEAMS = st.builds(
    LabelEvent,
    st.sampled_from(IDS),
    LABELS,
    st.just("team"),
    st.sampled_from(["verdict", "increment"]),
    st.integers(0, 3),
    SHARE,
    st.sampled_from(["fp1", "fp2"]),
)
MARKS = st.builds(LabelEvent, st.sampled_from(IDS), st.just(""), st.just("ingest"), st.just("test"))
ROLLBACKS = st.builds(
    LabelEvent, st.just(""), st.just(""), st.just("rollback"), st.just(""), st.integers(-1, 3)
)


class Pretended:
    """What selection needs of a catalog, without Lance; the first two crops show one object."""

    name, classes, folder = "S1", ["car", "ship"], Path()

    def __init__(self, events: Sequence[LabelEvent]) -> None:
        tracks = ["t", "t", "u", ""]
        crops = crops_to_table([Crop(b"x", "v", track) for track in tracks])
        crops = crops.set_column(0, "crop_id", pa.chunked_array([IDS]))
        self._read = builder(crops, events_to_table(events))

    def index(self) -> CropIndex:
        return self._read.index()

    def annotations(self) -> Annotations:
        return self._read.annotations()


def select(events: Sequence[LabelEvent], least: float, unknown: bool) -> Selection:
    catalog = cast(Catalog, Pretended(events))
    return select_labels(catalog, min_confidence=least, unknown=unknown)


Row = tuple[str, str, str, str, int, str]


def by_hand(
    events: Sequence[LabelEvent], least: float, unknown: bool
) -> tuple[list[Row], dict[str, int]]:
    """The rule said again, crop by crop and word by word."""
    chosen: list[Row] = []
    counts = [0] * len(REASONS)
    _, no_label, not_known, unusable, is_unknown, _, not_sure = range(len(REASONS))
    tests = {e.crop_id for e in events if e.purpose == "test"}
    for crop in IDS:
        words: dict[str, LabelEvent] = {}
        for place, event in enumerate(events):
            if event.crop_id != crop:
                continue
            undone = any(
                later.source == "rollback" and later.round < event.round for later in events[place:]
            )
            if event.source in ("person", "oracle", "import"):
                words["human"] = event
            elif event.source == "team" and not undone:
                words[event.purpose] = event
        human = words.get("human")
        human = human if human and human.label else None
        word = human or words.get("verdict") or words.get("increment")
        shown = tests & set(IDS[:2] if crop in IDS[:2] else [crop])
        split = "test" if crop in tests else "held-out" if shown else "train"
        if word is None or (not word.label and word.purpose != "verdict"):
            counts[no_label] += 1
        elif not word.label:
            counts[not_known] += 1
        elif word.label == "unusable":
            counts[unusable] += 1
        elif word.label == "unknown" and not unknown:
            counts[is_unknown] += 1
        elif not human and least > 0 and not word.confidence >= least:
            counts[not_sure] += 1
        elif human:
            chosen.append((crop, word.label, word.source, "nan", -1, split))
        else:
            sure = str(word.confidence)
            chosen.append((crop, word.label, f"team {word.by}", sure, word.round, split))
    return chosen, dict(zip(REASONS, counts, strict=True))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(PERSONS, TEAMS, TEAMS, MARKS, ROLLBACKS), max_size=14),
    st.sampled_from([0.0, 0.25, 0.6]),
    st.booleans(),
)
def test_the_rule(events: list[LabelEvent], least: float, unknown: bool) -> None:
    found = select(events, least, unknown)
    rows: list[Row] = [
        (
            str(found.index.crop_id[row]),
            str(found.label[k]),
            f"{found.source[k]} {found.team[k]}".strip(),
            str(float(found.confidence[k])),
            int(found.round[k]),
            str(found.split[k]),
        )
        for k, row in enumerate(found.rows)
    ]
    assert (rows, found.left_out) == by_hand(events, least, unknown)
    assert len(found) + sum(found.left_out.values()) == len(IDS)
    assert found.classes == ["car", "ship"] + ["unknown"] * unknown


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), max_size=60),
    st.integers(0, 5),
)
def test_validation_takes_whole_tracks_of_every_label(
    crops: list[tuple[int, str]], seed: int
) -> None:
    label_of = dict(crops)
    tracks = np.array([f"t{track}" for track, _ in crops], dtype=object)
    labels = np.array([label_of[track] for track, _ in crops], dtype=object)
    part = validation_part(labels, tracks, 0.1, seed)
    assert not set(tracks[part]) & set(tracks[~part])
    for label in set(labels):
        mine = labels == label
        sizes = [int((mine & (tracks == t)).sum()) for t in set(tracks[mine])]
        if len(sizes) > 1:
            assert part[mine].any()
            assert not part[mine].all()
            assert abs(part[mine].sum() - 0.1 * mine.sum()) <= max(sizes)
        else:
            assert not part[mine].any()
    # Not of the order in which crops came.
    order = np.random.default_rng(seed).permutation(len(crops))
    assert (validation_part(labels[order], tracks[order], 0.1, seed) == part[order]).all()


# --- certified -----------------------------------------------------------------------------------


def certify(
    catalog: Catalog, number: int, release: dict[str, str], passed: dict[str, bool]
) -> Path:
    """An audit's folder as ``collabteam.audit`` leaves it."""
    folder = catalog.folder / "audits" / str(number)
    folder.mkdir(parents=True)
    ids = sorted(release)
    labels = [release[crop] for crop in ids]
    pq.write_table(pa.table({"crop_id": ids, "label": labels}), folder / "release.parquet")
    lines = "".join(f"{crop}\t{label}\n" for crop, label in zip(ids, labels, strict=True))
    Certificate(
        camera=catalog.name,
        audit=number,
        created="2026-11-22T13:40:00Z",
        release=Release(
            file=f"audits/{number}/release.parquet",
            hash=hashlib.sha256(lines.encode()).hexdigest(),
            crops=len(ids),
            by_class=dict(Counter(labels)),
        ),
        teams=[LabellingTeam(fingerprint="fp", round=2, run="label-x", crops=len(ids))],
        settings=AuditSettings(
            precision=0.95, confidence=0.95, expected_error=0.01, power=0.8, reviewer="person",
            oracle_error=0.0, seed=0,
        ),
        reviewers=[AuditReviewer(name="ana", source="person", answers=1)],
        simulated=False,
        answers_hash="0" * 64,
        classes={
            name: JudgedClass(
                released=labels.count(name), sample=1, answered=1, errors=0, allowed=0,
                precision=0.95, confidence=0.99, passed=passed.get(name, False), stopped=False,
                bound=0.95, further=0, left_out="",
            )
            for name in catalog.classes
        },
        passed=all(passed.values()),
        statement=f"At least 95% are right (audit {number}).",
    ).write(folder / "certificate.json")  # fmt: skip
    return folder


def test_certified_is_what_the_last_certificate_covers(tmp_path: Path, call: Call) -> None:
    catalog, _ = make(tmp_path / "outputs")
    ids = [str(crop) for crop in catalog.index().crop_id]
    base = (f"root={catalog.folder.parent}", "camera=S1", "format=csv")
    frozen = {ids[n]: "ship" for n in (1, 2, 13)} | {ids[14]: "car", ids[8]: "car"}
    certify(catalog, 2, {ids[1]: "ship"}, {"ship": True})
    certify(catalog, 10, frozen, {"ship": True, "car": False, "plane": False})
    (catalog.folder / "audits" / "11").mkdir()  # begun, no certificate yet
    catalog.append_labels(
        [
            LabelEvent(ids[2], "car", "person", "audit"),  # found wrong
            verdict(ids[1], "car", 0.3, 4),  # labelled anew: not what was audited
        ]
    )
    to = tmp_path / "to"
    said = call("export", *base, f"to={to}", "certified=true")
    assert said.code == 0, said.err
    rows = {
        crop: (row["label"], row["source"], row["confidence"], row["round"])
        for crop, row in table(to).items()
    }
    assert rows == {
        ids[1]: ("ship", "team", "0.9", "1"),
        ids[2]: ("car", "person", "", ""),
        ids[13]: ("ship", "team", "0.625", "1"),
    }
    assert "certified: At least 95% are right (audit 10)." in said.out
    assert "not certified" not in said.out
    text = (to / "README.md").read_text()
    for part in (
        "Audit 10 says:\n\n> At least 95% are right (audit 10).",
        "Passed: ship.",
        "Not passed and left out: car, plane.",
        "as it does for 1 of these crops",
        "- 13: the certificate does not cover them",
    ):
        assert part in text, part

    # What a person calls unknown or unusable leaves the class.
    catalog.append_labels(
        [LabelEvent(ids[1], "unknown", "person"), LabelEvent(ids[13], "unusable", "person")]
    )
    assert select_labels(catalog, certified=True).label.tolist() == ["car"]
    with_unknown = select_labels(catalog, certified=True, unknown=True)
    assert with_unknown.label.tolist() == ["unknown", "car"]

    # Without the word, the README says that a part could be certified.
    assert call("export", *base, f"to={tmp_path / 'all'}").code == 0
    text = (tmp_path / "all" / "README.md").read_text()
    assert "Not certified as a whole: audit 10 covers a part of the team's labels (ship)" in text

    # And that an audit failed is not kept silent.
    certify(catalog, 12, frozen, {"ship": False, "car": False, "plane": False})
    said = call("export", *base, f"to={tmp_path / 'failed'}")
    assert said.code == 0, said.err
    for words in (said.out, (tmp_path / "failed" / "README.md").read_text()):
        assert "ot certified: audit 12 failed (ship, car, plane)" in words
        assert "not been audited" not in words
    assert "next: python -m collabteam.audit camera=S1 new=true, then export" in said.out


def test_min_confidence_leaves_the_statement_behind(tmp_path: Path, call: Call) -> None:
    catalog, _ = make(tmp_path / "outputs")
    ids = [str(crop) for crop in catalog.index().crop_id]
    certify(catalog, 1, {ids[n]: "ship" for n in (1, 2, 13)}, {"ship": True})
    to = tmp_path / "to"
    said = call(
        "export", f"root={catalog.folder.parent}", "camera=S1", "format=csv", f"to={to}",
        "certified=true", "min_confidence=0.5",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert table(to).keys() == {ids[1], ids[13]}
    assert "`min_confidence` left out 1 of them" in (to / "README.md").read_text()


def test_certificates_that_do_not_serve(tmp_path: Path, call: Call) -> None:
    catalog, _ = make(tmp_path / "outputs")
    crop = str(catalog.index().crop_id[1])
    to = tmp_path / "to"
    base = (f"root={catalog.folder.parent}", "camera=S1", f"to={to}", "format=csv")
    line = one_line(call("export", *base, "certified=true"), "has no certificate")
    assert "python -m collabteam.audit camera=S1" in line
    certify(catalog, 1, {crop: "ship"}, {"ship": False})
    one_line(call("export", *base, "certified=true"), "no class passed", "ship", "new=true")
    folder = certify(catalog, 2, {crop: "ship"}, {"ship": True})
    good = (folder / "certificate.json").read_text()
    for broken in ("", "{", "[]", "{}", good.replace('"statement"', '"stated"'), '{"classes": 3}'):
        (folder / "certificate.json").write_text(broken)
        one_line(call("export", *base, "certified=true"), "certificate.json is damaged")
    assert not to.exists()
    # Who asks for none gets the labels all the same.
    assert call("export", *base).code == 0
    assert "certificate.json is damaged" in (to / "README.md").read_text()
    (folder / "certificate.json").write_text(good)
    shutil.rmtree(to)
    certify(catalog, 3, {"0" * 24: "ship"}, {"ship": True})
    one_line(call("export", *base, "certified=true"), "is not in the catalog", "new=true")
    shutil.rmtree(catalog.folder / "audits" / "3")
    pq.write_table(pa.table({"crop_id": [crop], "label": ["car"]}), folder / "release.parquet")
    one_line(call("export", *base, "certified=true"), "not the release frozen for audit 2")
    for content in (b"", b"PAR1"):
        (folder / "release.parquet").write_bytes(content)
        one_line(call("export", *base, "certified=true"), "release.parquet: expected the labels")
    (folder / "release.parquet").unlink()
    one_line(call("export", *base, "certified=true"), "release.parquet: expected the labels")
    assert not to.exists()


# --- refused, full, killed -----------------------------------------------------------------------


def test_what_is_there_is_never_overwritten(made: RoundRun, tmp_path: Path, call: Call) -> None:
    base = (f"root={made.root}", "camera=S1", "format=csv")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / ".full.part").mkdir()  # somebody's
    before = fingerprints(tmp_path)
    for name in ("full", "file", "link"):
        one_line(call("export", *base, f"to={tmp_path / name}"), "exists already")
    for name in ("file/in", "file/in/it"):
        one_line(call("export", *base, f"to={tmp_path / name}"), "cannot be written")
    one_line(call("export", *base, f"to={tmp_path}/.."), "the name of a folder")
    one_line(call("export", *base), "to is not given")
    one_line(call("export", *base[:2], f"to={tmp_path}/x", "format=voc"), "format=voc", "coco")
    one_line(call("export", *base, f"to={tmp_path}/x", "min_confidence=2"), "min_confidence=2")
    assert fingerprints(tmp_path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"full", "file", "empty", "link", ".full.part"}
    assert call("export", *base, f"to={tmp_path / 'empty'}").code == 0
    assert len(table(tmp_path / "empty")) == len(made.expected)


def test_nothing_to_export(tmp_path: Path, call: Call) -> None:
    root, to = tmp_path / "outputs", tmp_path / "to"
    settings = (f"root={root}", f"to={to}")
    Catalog.register(root, "bare")
    one_line(call("export", *settings, "camera=bare"), "has no classes yet")
    catalog = Catalog.register(root, "S1", CLASSES)
    one_line(call("export", *settings, "camera=S1"), "has no crops", "collabteam.ingest")
    crops = [Crop(picture(n)) for n in range(3)]
    catalog.add_crops(crops)
    catalog.append_labels([LabelEvent(crops[0].crop_id, "unusable", "person")])
    said = call("export", *settings, "camera=S1")
    line = one_line(said, "no crop of camera S1", "2: they have no label")
    assert "1: 'unusable'" in line
    assert "collabteam.review" in line
    catalog.append_labels([verdict(crops[1].crop_id, "car", 0.5)])
    one_line(
        call("export", *settings, "camera=S1", "min_confidence=0.6"), "1: the team's confidence"
    )
    assert not to.exists()


def test_a_picture_that_cannot_be_opened(tmp_path: Path, call: Call) -> None:
    catalog, _ = make(tmp_path / "outputs")
    broken = Crop(b"no picture")
    catalog.add_crops([broken])
    catalog.append_labels([LabelEvent(broken.crop_id, "car", "person")])
    kept = len(select_labels(catalog)) - 1
    for format in FORMATS:
        to = tmp_path / format
        said = call(
            "export", f"root={catalog.folder.parent}", "camera=S1", f"format={format}", f"to={to}"
        )
        assert said.code == 1
        assert f"{kept} labelled crops as {format}" in said.out
        assert "left out 1: their picture cannot be opened" in said.out
        assert f"crop {broken.crop_id}: not a picture of a known format" in said.out
        assert "- 1: their picture cannot be opened" in (to / "README.md").read_text()
    only = Catalog.register(tmp_path / "outputs", "odd", CLASSES)
    only.add_crops([broken])
    only.append_labels([LabelEvent(broken.crop_id, "car", "person")])
    said = call("export", f"root={tmp_path / 'outputs'}", "camera=odd", f"to={tmp_path / 'to'}")
    one_line(said, f"picture of crop {broken.crop_id} cannot be opened")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["outputs", *FORMATS])


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_one_line(
    made: RoundRun, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for owner, name in (
        (Path, "write_bytes"), (zipfile.ZipFile, "writestr"), (pq.ParquetWriter, "write_table")
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, full)
    to = tmp_path / "to"
    said = call("export", f"root={made.root}", "camera=S1", f"format={format}", f"to={to}")
    one_line(said, "the disk is full")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from collabteam.catalog import Catalog
from collabteam.exporting import crops
crops.READ_AT_ONCE = 2
read = Catalog.images
def images(self, rows):
    print("begun", flush=True)
    time.sleep(0.01 * len(rows))
    return read(self, rows)
Catalog.images = images
from collabteam.export import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("format", ["imagefolder", "parquet", "cvat"])
def test_killed_at_any_moment_the_same_command_makes_the_same(
    made: RoundRun, export: Export, tmp_path: Path, format: str
) -> None:
    reference = export(format, to="reference")
    to = tmp_path / "to"
    settings = (f"root={made.root}", "camera=S1", f"format={format}", f"to={to}")
    chance = random.Random(format)
    killed = 0
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *settings],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(chance.uniform(0, 0.35))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if to.exists():
            break
        assert [*tmp_path.glob(".to.*.part/dataset")]
    assert killed
    if not to.exists():
        export(format, to="to")
    for file in reference.rglob("*"):
        if file.is_file() and file.name != "README.md":
            assert (to / file.relative_to(reference)).read_bytes() == file.read_bytes()
    assert len(list(to.rglob("*"))) == len(list(reference.rglob("*")))


# --- from Python ---------------------------------------------------------------------------------


def width(shown: Image.Image) -> int:
    return shown.size[0]


def test_a_dataset_of_pytorch(made: RoundRun) -> None:
    from torch.utils.data import DataLoader

    crops = collabteam.LabelledCrops(made.root, "S1")
    assert crops.classes == CLASSES
    names = [crops.classes[label] for label in crops.labels]
    found = zip(crops.crop_ids, zip(names, crops.sources, crops.splits, strict=True), strict=True)
    assert dict(found) == {name: (e.label, e.source, e.split) for name, e in made.expected.items()}
    assert len(crops) == len(crops.labels) == len(made.expected)
    for place, crop_id in enumerate(crops.crop_ids):
        shown, label = crops[place]
        assert shown.mode == "RGB"
        assert (np.asarray(shown) == pixels(made.pictures[crop_id])).all()
        assert label == crops.labels[place]
        assert isinstance(label, int)
    with pytest.raises(IndexError):
        crops[len(crops)]

    sized = collabteam.LabelledCrops(
        made.root, "S1", "train", min_confidence=0.6, unknown=True, transform=width
    )
    assert set(sized.splits) == {"train"}
    assert sized.classes == [*CLASSES, "unknown"]
    assert set(sized.crop_ids) == {
        name
        for name, e in made.everything.items()
        if e.split == "train" and (e.confidence is None or e.confidence >= 0.6)
    }
    batches: Any = DataLoader(sized, batch_size=4)
    assert [label for _, batch in batches for label in batch.tolist()] == sized.labels.tolist()
    with pytest.raises(collabteam.UserError, match="split='val'"):
        collabteam.LabelledCrops(made.root, "S1", "val")
    with pytest.raises(collabteam.UserError, match="no certificate"):
        collabteam.LabelledCrops(made.root, "S1", certified=True)


def test_forked_workers_are_refused(made: RoundRun) -> None:
    from torch.utils.data import DataLoader

    crops = collabteam.LabelledCrops(made.root, "S1", transform=width)
    loader: Any = DataLoader(crops, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match="num_workers=0"):
        next(iter(loader))


def test_it_may_be_sent_to_another_process(
    made: RoundRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(made.root.parent)
    crops = collabteam.LabelledCrops("outputs", "S1", transform=width)
    sent = pickle.dumps(crops)
    monkeypatch.chdir(tmp_path)
    received = pickle.loads(sent)
    assert [received[k] for k in range(3)] == [crops[k] for k in range(3)]


@pytest.mark.slow
def test_fresh_workers_read_it(made: RoundRun) -> None:
    from torch.utils.data import DataLoader

    crops = collabteam.LabelledCrops(made.root, "S1", transform=width)
    loader: Any = DataLoader(crops, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert [label for _, batch in loader for label in batch.tolist()] == crops.labels.tolist()


def test_the_formats_need_no_torch() -> None:
    code = (
        "import sys\nfrom collabteam.exporting import base, folder\n"
        "[base.EXPORT_FORMATS.load(name) for name in base.EXPORT_FORMATS.names()]\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)


def test_a_folder_whose_name_is_no_text_is_refused(finished: Path, call: Call) -> None:
    to = finished / "a\udcff"
    said = call("export", f"root={finished}", "camera=sim", "format=csv", f"to={to}")
    one_line(said, "expected a name in UTF-8")
    assert not to.exists()
