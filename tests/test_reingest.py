"""Our own exports are ingested again: every format comes back as what it was."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Call, one_line

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.catalog.index import CropIndex
from collabteam.errors import UserError
from collabteam.exporting.base import EXPORT_FORMATS
from collabteam.exporting.folder import export_dataset
from collabteam.exporting.selection import select_labels
from collabteam.sources.crops import ingest_crops, open_source
from collabteam.testing.labelled_camera import (
    LabelledCamera,
    encoded_picture,
    make_labelled_camera,
)

FORMATS = list(EXPORT_FORMATS.names())
PNG = {"imagefolder": ("GIF8",), "yolo": ("GIF8", "P6")}
"""How pictures begin that the format converts: these become other crops."""
NAMES_ALL_CLASSES = ("coco", "cvat", "huggingface", "labelstudio", "parquet")


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> LabelledCamera:
    return make_labelled_camera(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def exports(camera: LabelledCamera, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one export of every format."""
    folder = tmp_path_factory.mktemp("exports")
    selection = select_labels(camera.catalog, unknown=True)
    for name in FORMATS:
        export_dataset(camera.catalog, selection, EXPORT_FORMATS.load(name)(), folder / name)
    return folder


@pytest.fixture
def again(tmp_path: Path) -> Catalog:
    return Catalog.register(tmp_path / "again", "S2")


def labels_of(index: CropIndex) -> dict[str, tuple[str, str, str]]:
    """Label, who gave it (a detector if no person did), and split, by crop."""
    split = np.where(index.test, "test", np.where(index.held_out, "held-out", "train"))
    return {
        str(index.crop_id[row]): (
            str(index.human[row]) or str(index.proposed[row]),
            str(index.human_source[row]) or "detector",
            str(split[row]),
        )
        for row in range(len(index))
    }


def expected(camera: LabelledCamera) -> dict[str, tuple[str, str, str]]:
    """The same of the exported crops: the team's labels are proposals now."""
    selection = select_labels(camera.catalog, unknown=True)
    crops = selection.index.crop_id[selection.rows].tolist()
    rows = zip(crops, selection.label, selection.source, selection.split, strict=True)
    return {
        crop: (label, "detector" if source == "team" else source, split)
        for crop, label, source, split in rows
    }


def same_name(format: str, camera: LabelledCamera) -> set[str]:
    """Crops that come back byte for byte with the same origin, so that their name is the same."""
    index = camera.catalog.index()
    starts = tuple(start.encode() for start in PNG.get(format, ()))
    kept = set()
    for row, image in enumerate(camera.catalog.images(range(len(index)))):
        lost = format == "cvat" and "\x01" in str(index.track[row])  # XML cannot hold it
        if not image.startswith(starts or (b"no picture",)) and not lost:
            kept.add(str(index.crop_id[row]))
    return kept


@pytest.mark.parametrize("format", FORMATS)
def test_it_comes_back_as_what_it_was(
    format: str, camera: LabelledCamera, exports: Path, again: Catalog
) -> None:
    summary = ingest_crops(again, exports / format, "person")
    before, kept = expected(camera), same_name(format, camera)
    assert (summary.quarantined, summary.conflicts) == ([], [])
    assert summary.total == len(before)
    found = labels_of(again.index())
    assert {crop: said for crop, said in found.items() if crop in before} == {
        crop: said for crop, said in before.items() if crop in kept
    }
    assert sorted(found.values()) == sorted(before.values())  # those with another name, too
    present = {label for label, *_ in before.values()} - {"unknown"}
    if format in NAMES_ALL_CLASSES:
        assert again.classes == camera.catalog.classes
    else:
        assert set(again.classes) == present
    log = again.log()
    repeated = ingest_crops(again, exports / format, "person")
    assert (repeated.added, repeated.labelled, repeated.others, repeated.test) == (0, {}, {}, 0)
    assert len(again.log()) == len(log)


@pytest.mark.parametrize("format", FORMATS)
def test_in_the_same_camera_nothing_is_new(
    format: str, camera: LabelledCamera, exports: Path, tmp_path: Path
) -> None:
    shutil.copytree(camera.catalog.folder, tmp_path / "root" / "S1")
    same = Catalog.open(tmp_path / "root", "S1")
    before = same.index()
    summary = ingest_crops(same, exports / format, "person")
    after = same.index()
    assert summary.added == 0
    assert len(after) == len(before)
    assert after.human.tolist() == before.human.tolist()  # the team's labels stay the team's
    assert after.test.tolist() == before.test.tolist()
    assert after.held_out.tolist() == before.held_out.tolist()


@pytest.mark.parametrize("labels", ["proposed", "truth"])
def test_as_proposals_and_as_truth(
    labels: str, camera: LabelledCamera, exports: Path, tmp_path: Path
) -> None:
    for format in FORMATS:
        other = Catalog.register(tmp_path / format, "S2")
        summary = ingest_crops(other, exports / format, labels)  # type: ignore[arg-type]
        index = other.index()
        assert set(index.human.tolist()) == {""}, format
        team = sum(source == "detector" for _, source, _ in expected(camera).values())
        if labels == "truth":  # the team's labels are not the truth
            assert sum(summary.labelled.values()) == len(index) - team
            assert summary.others == {"proposed": team}
        assert {split for _, _, split in labels_of(index).values()} == {"train", "test", "held-out"}


def test_held_out_crops_stay_so_without_their_test_crop(
    camera: LabelledCamera, exports: Path, again: Catalog, tmp_path: Path
) -> None:
    """A certified export has the held-out crops of a track, but not its test crops."""
    folder = Path(shutil.copytree(exports / "imagefolder", tmp_path / "cut"))
    shutil.rmtree(folder / "test")
    summary = ingest_crops(again, folder, "person")
    index = again.index()
    assert summary.test == 0
    assert not index.test.any()
    held = {crop for crop, (_, _, split) in expected(camera).items() if split == "held-out"}
    found = set(index.crop_id[:][index.held_out].tolist())
    assert held & same_name("imagefolder", camera) <= found
    assert len(found) == len(held)
    assert not index.trainable()[index.held_out].any()
    assert any("but without a picture" in said for said in summary.aside.remarks)
    selection = select_labels(again, unknown=True)
    exported = set(selection.index.crop_id[selection.rows[selection.split == "held-out"]].tolist())
    assert exported == {c for c, (_, by, _) in labels_of(index).items() if by != "detector"} & found


def test_without_its_table_an_export_still_names_its_crops(
    camera: LabelledCamera, exports: Path, tmp_path: Path
) -> None:
    shutil.copytree(camera.catalog.folder, tmp_path / "root" / "S1")
    same = Catalog.open(tmp_path / "root", "S1")
    crops = len(same)
    shutil.copytree(exports / "imagefolder", tmp_path / "cut")
    (tmp_path / "cut" / "metadata.csv").unlink()
    for path in (tmp_path / "cut", exports / "imagefolder" / "train", exports / "csv" / "images"):
        assert ingest_crops(same, path, "proposed").added == 0, path
    assert len(same) == crops


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_read_like_nothing_are_names(format: str, tmp_path: Path) -> None:
    """In a table of somebody else ``nan`` is a missing value; ours say what they mean."""
    catalog = Catalog.register(tmp_path / "root", "S1", ["None", "test", "nan"])
    crops = [
        Crop(encoded_picture(n, "JPEG"), "NA", "nan" if n % 2 else "null", n, 1.5e9 + n)
        for n in range(6)
    ]
    catalog.add_crops(crops)
    catalog.append_labels(
        [LabelEvent(crop.crop_id, catalog.classes[n % 3], "person") for n, crop in enumerate(crops)]
    )
    selection = select_labels(catalog)
    export_dataset(catalog, selection, EXPORT_FORMATS.load(format)(), tmp_path / "out")
    again = Catalog.register(tmp_path / "again", "S2")
    ingest_crops(again, tmp_path / "out", "person")
    assert labels_of(again.index()) == labels_of(catalog.index())
    assert set(again.classes) == {"None", "test", "nan"}
    assert set(again.index().track.tolist()) == {"NA/nan", "NA/null"}


def moves(folder: Path) -> Iterator[tuple[Path, str]]:
    """Move one picture of each split to the class ``0``; give its new place and its crop."""
    for split in ("train", "test"):
        source = next(
            path
            for path in sorted((folder / split).glob("*/*.*"))
            if path.parent.name != "0" and path.suffix != ".png"
        )
        yield source.rename(folder / split / "0" / source.name), source.stem


def test_a_picture_that_was_moved_has_the_class_of_its_folder(
    exports: Path, again: Catalog, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports / "imagefolder", tmp_path / "moved"))
    moved = [crop for _, crop in moves(folder)]
    ingest_crops(again, folder, "person")
    found = labels_of(again.index())
    assert [found[crop] for crop in moved] == [("0", "person", "train"), ("0", "person", "test")]


def test_a_moved_picture_of_the_same_class_keeps_who_labelled_it(
    camera: LabelledCamera, exports: Path, again: Catalog, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports / "imagefolder", tmp_path / "renamed"))
    (folder / "train").rename(folder / "Training")
    ingest_crops(again, folder, "person")
    assert sorted(labels_of(again.index()).values()) == sorted(expected(camera).values())


@pytest.mark.parametrize("part", ["imagefolder/train", "imagefolder/test", "csv/images"])
def test_a_part_of_an_export_is_no_work_of_a_person(
    part: str, exports: Path, tmp_path: Path, call: Call
) -> None:
    settings = (f"root={tmp_path / 'root'}", "camera=S2", f"path={exports / part}", "labels=person")
    whole = (exports / part).parent
    one_line(call("ingest", *settings), f"a part of the export {whole}", f"ingest path={whole}")
    assert not (tmp_path / "root" / "S2").exists()


def test_crops_that_the_table_lost_are_no_work_of_a_person(
    exports: Path, again: Catalog, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports / "imagefolder", tmp_path / "cut"))
    table = folder / "metadata.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(lines[:-3]), encoding="utf-8")
    with pytest.raises(UserError, match=r"metadata\.csv has no row for \d+ crops"):
        ingest_crops(again, folder, "person")
    table.write_text("".join(lines), encoding="utf-8")
    shutil.copy(next(folder.glob("train/0/*")), folder / "train" / "0" / "mine.png")
    assert ingest_crops(again, folder, "person").aside.remarks == [
        "pictures that metadata.csv does not name: 1"
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_that_a_spreadsheet_rewrote_is_named(
    encoding: str, exports: Path, again: Catalog, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports / "imagefolder", tmp_path / "rewritten"))
    table = folder / "metadata.csv"
    text = table.read_text(encoding="utf-8").replace(",", ";" if encoding == "utf-8" else ",")
    table.write_text(text, encoding=encoding)
    with pytest.raises(UserError, match=r"metadata\.csv is not as export wrote it"):
        ingest_crops(again, folder, "person")


def test_a_metadata_table_of_somebody_else_is_none_of_ours(
    again: Catalog, exports: Path, tmp_path: Path
) -> None:
    source = next((exports / "csv" / "images").iterdir())
    for place in ("car/a", "truck/b"):
        target = tmp_path / "theirs" / f"{place}{source.suffix}"
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    theirs = tmp_path / "theirs"
    (theirs / "metadata.csv").write_bytes(b"file_name,label,h\xf6he\ncar/a.jpg,truck,1\n")
    for name in ("annotations.json", "tasks.json", "labels.json", "dataset.zip", "crops.parquet"):
        (theirs / name).write_bytes(b'{"broken')
    assert ingest_crops(again, theirs, "person").labelled == {"car": 1}


def test_a_pipe_in_place_of_a_table_is_not_waited_for(exports: Path, tmp_path: Path) -> None:
    for format, name in (("csv", "metadata.csv"), ("parquet", "crops.parquet")):
        folder = Path(shutil.copytree(exports / format, tmp_path / format))
        (folder / name).unlink()
        os.mkfifo(folder / name)
        if format == "csv":
            assert open_source(folder, "person").labels == {"images"}  # an ordinary folder
        else:
            with pytest.raises(UserError, match="holds no image"):
                open_source(folder, "person")


DAMAGE = {
    "csv": ("metadata.csv", b"\xff\xfe", "metadata.csv cannot be read"),
    "coco": ("annotations.json", b"[" * 100_000, "annotations.json cannot be read as JSON"),
    "labelstudio": ("tasks.json", b'[{"data": ', "tasks.json cannot be read as JSON"),
    "cvat": ("dataset.zip", b"PK\x03\x04", "dataset.zip cannot be read"),
    "parquet": ("crops.parquet", b"PAR1", "cannot be read as a Parquet file"),
}


@pytest.mark.parametrize("format", DAMAGE)
def test_a_damaged_table_is_one_line_and_leaves_no_camera(
    format: str, exports: Path, tmp_path: Path, call: Call
) -> None:
    folder = Path(shutil.copytree(exports / format, tmp_path / "damaged"))
    name, content, message = DAMAGE[format]
    table = folder / name
    # A table is recognised by its first line.
    table.write_bytes(table.read_bytes() + content if format == "csv" else content)
    one_line(call("ingest", f"root={tmp_path / 'root'}", "camera=S2", f"path={folder}"), message)
    assert not (tmp_path / "root" / "S2").exists()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("split", "tset", "'tset' (1 rows)"),
        ("source", "me", "'me'"),
        ("frame", "1.5", "1.5"),
        ("time", "9e30", "9e+30"),
    ],
)
def test_an_edited_table_is_checked_like_a_column(
    column: str, value: str, message: str, exports: Path, again: Catalog, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports / "csv", tmp_path / "edited"))
    table = folder / "metadata.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[3][column] = value
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(UserError) as caught:
        ingest_crops(again, folder, "person")
    assert message in str(caught.value)
    assert f"column '{column}'" in str(caught.value)
    assert len(again) == 0


def test_files_that_a_table_names_outside_are_not_read(
    exports: Path, again: Catalog, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exports / "coco", tmp_path / "outside"))
    content = json.loads((folder / "annotations.json").read_text())
    secret = tmp_path / "secret.jpg"
    shutil.copy(next((folder / "images").glob("*.jpg")), secret)
    lost = content["images"][0]["file_name"]
    content["images"][0]["file_name"] = "../../secret.jpg"
    (folder / "annotations.json").write_text(json.dumps(content))
    (folder / "images" / lost).unlink()
    summary = ingest_crops(again, folder, "person")
    assert summary.total == len(content["images"]) - 1
    assert secret.exists()
