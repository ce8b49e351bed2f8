"""Conformance of export formats.

A test of your own format is one line::

    check_export_format(MyFormat, read=my_reader)
"""

from __future__ import annotations

import gc
import io
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
from PIL import Image

from collabteam.catalog import Crop, LabelEvent
from collabteam.errors import UserError
from collabteam.exporting.base import ExportFormat
from collabteam.exporting.crops import ExportedCrop, read_crops
from collabteam.exporting.folder import export_dataset
from collabteam.exporting.readme import README
from collabteam.exporting.selection import SPLITS, TRAIN, VAL, Selection, select_labels
from collabteam.testing.labelled_camera import (
    LabelledCamera,
    encoded_picture,
    make_labelled_camera,
)

MOST_PICTURES = 512
"""The largest number of pictures that a format may hold in memory."""


@dataclass(frozen=True)
class ReadCrop:
    """One crop as a reader of a format returns it.

    Attributes:
        label: Its class.
        split: Its split, with our names; ``""`` if the format has none.
        image: Its encoded picture; None if the reader does not return it.
    """

    label: str
    split: str
    image: bytes | None = None


Reader = Callable[[Path], Mapping[str, ReadCrop]]
"""Reads an exported folder and returns its crops by name."""


def check_export_format(format_class: type[ExportFormat], read: Reader | None = None) -> None:
    """Raise unless an export format meets its contract.

    The checks: every crop is written once, with its label, split and picture; the dataset appears
    completely or not at all; equal labels give equal bytes; names of classes, videos and tracks
    cannot break it; few pictures are in memory at a time.

    Args:
        format_class: The format.
        read: A reader of the format, ideally from another library. Without one, the suite only
            looks for the pictures in the files and does not check labels and splits.

    Raises:
        AssertionError: A check failed; the message says what was expected and found.
    """
    _check_texts(format_class)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        camera = make_labelled_camera(root / "cameras")
        _check_arrangement(format_class, camera)
        _check_content(format_class, camera, root / "content", read)
        _check_single_crops(format_class, camera, root / "single", read)
        _check_same_bytes(format_class, camera, root / "bytes")
        _check_memory(format_class, camera, root / "memory")
        _check_failures(format_class, camera, root / "failures")


def _check_texts(format_class: type[ExportFormat]) -> None:
    for name in ("name", "layout", "crop_column", "box_columns"):
        text = getattr(format_class, name, None)
        is_line = isinstance(text, str) and len(text.strip().splitlines()) == 1
        assert is_line, f"{name}: expected a text of one line, got {text!r}"
    assert all(isinstance(note, str) and note.strip() for note in format_class.notes), (
        f"notes: expected texts, got {format_class.notes!r}"
    )


def _arranged(format_class: type[ExportFormat], selection: Selection, seed: int) -> Selection:
    return format_class().arrange(selection, seed)


def _described(selection: Selection) -> dict[str, tuple[str, ...]]:
    """Return all columns of a selection except the split, by crop."""
    names = selection.index.crop_id[selection.rows].tolist()
    columns = (
        selection.label, selection.source, selection.confidence, selection.round, selection.team
    )  # fmt: skip
    said = zip(*(map(str, column.tolist()) for column in columns), strict=True)
    return dict(zip(names, said, strict=True))


def _splits(selection: Selection) -> dict[str, str]:
    names = selection.index.crop_id[selection.rows].tolist()
    return dict(zip(names, selection.split.tolist(), strict=True))


def _check_arrangement(format_class: type[ExportFormat], camera: LabelledCamera) -> None:
    selection = select_labels(camera.catalog)
    arranged = _arranged(format_class, selection, 0)
    assert len(arranged) == len(selection), (
        f"arrange: expected {len(selection)} crops, got {len(arranged)}"
    )
    assert _described(arranged) == _described(selection), "arrange changed crops or their labels"
    again = _arranged(format_class, selection, 0)
    is_same = list(_splits(again).items()) == list(_splits(arranged).items())
    assert is_same, "arrange: expected the same order and splits for the same seed"
    before, after = _splits(selection), _splits(arranged)
    for crop_id, split in after.items():
        assert split in SPLITS, f"arrange: expected one of {', '.join(SPLITS)}, got {split}"
        kept = split == before[crop_id] or (before[crop_id] == TRAIN and split == VAL)
        assert kept, f"arrange moved a crop from {before[crop_id]} to {split}"
    track_of = dict(
        zip(selection.index.crop_id.tolist(), selection.index.track.tolist(), strict=True)
    )
    tracks = {
        split: {track_of[crop] for crop in after if after[crop] == split} for split in (TRAIN, VAL)
    }
    assert not tracks[TRAIN] & tracks[VAL], "arrange: a track has crops in both train and val"


def _check_content(
    format_class: type[ExportFormat], camera: LabelledCamera, to: Path, read: Reader | None
) -> None:
    selection = select_labels(camera.catalog)
    for seed in (0, 1):
        folder = to / f"seed {seed}"
        advanced: list[int] = []
        written = export_dataset(
            camera.catalog, selection, format_class(), folder, seed, advance=advanced.append
        )
        assert sum(advanced) == len(selection), "expected that every crop is consumed once"
        hidden = [path.name for path in folder.rglob(".*")]
        assert not hidden, f"expected no hidden files, got {hidden}"
        outside = [path.name for path in to.iterdir() if not path.name.startswith("seed ")]
        assert not outside, f"expected nothing beside the dataset, got {outside}"
        text = (folder / README).read_text(encoding="utf-8")
        assert format_class.layout in text, f"{README} does not describe the files"
        _check_folder(folder, camera, _splits(written), read)


def _check_folder(
    folder: Path, camera: LabelledCamera, splits: Mapping[str, str], read: Reader | None
) -> None:
    """Compare a written folder with the camera's labelled crops."""
    pictures = {crop_id: camera.labelled[crop_id].image for crop_id in splits}
    if read is None:
        contents = list(_contents(folder))
        pixels = {_pixels(content) for content in contents if _pixels(content)}
        for crop_id, image in pictures.items():
            is_there = any(image in content for content in contents) or _pixels(image) in pixels
            assert is_there, f"the picture of crop {crop_id} is in no file of the dataset"
        return
    found = read(folder)
    missing, more = splits.keys() - found.keys(), found.keys() - splits.keys()
    counts = f"{len(missing)} crops are missing, {len(more)} are too many"
    assert found.keys() == splits.keys(), counts
    for crop_id, one in found.items():
        known = camera.labelled[crop_id]
        assert one.label == known.label, (
            f"crop {crop_id}: expected label {known.label}, got {one.label}"
        )
        assert one.split in ("", splits[crop_id]), (
            f"crop {crop_id}: expected split {splits[crop_id]}, got {one.split}"
        )
        if one.image is not None and one.image != known.image:
            assert _pixels(one.image) == _pixels(known.image), (
                f"crop {crop_id}: its picture has other pixels"
            )


def _contents(folder: Path) -> Iterator[bytes]:
    """Yield the content of all files, including those inside zip files."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    yield from map(archive.read, archive.namelist())


def _pixels(image: bytes) -> bytes:
    """Return the size and pixels of a picture, ``b""`` for other content."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return repr(opened.size).encode() + np.asarray(opened.convert("RGB")).tobytes()
    except Exception:  # decoders raise many types on other content
        return b""


def _check_single_crops(
    format_class: type[ExportFormat], camera: LabelledCamera, to: Path, read: Reader | None
) -> None:
    """Check one crop of each split alone, so that all other splits and classes are empty."""
    selection = select_labels(camera.catalog)
    for split in selection.splits_present():
        place = np.flatnonzero(selection.split == split)[:1]
        alone = selection.take(place)
        written = export_dataset(camera.catalog, alone, format_class(), to / split)
        _check_folder(to / split, camera, _splits(written), read)


def _check_same_bytes(format_class: type[ExportFormat], camera: LabelledCamera, to: Path) -> None:
    selection = select_labels(camera.catalog)
    later = time.time() + 4 * 86400
    export_dataset(camera.catalog, selection, format_class(), to / "one")
    with mock.patch("time.time", return_value=later):
        export_dataset(camera.catalog, selection, format_class(), to / "another name")
    one, other = (
        {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != README
        }
        for folder in (to / "one", to / "another name")
    )
    differ = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    assert not differ, f"equal labels gave different bytes in {', '.join(sorted(differ)[:3])}"


class _Picture(bytes):
    """Bytes that a counter counts while they are in memory."""

    alive: ClassVar[int] = 0

    def __new__(cls, content: bytes) -> _Picture:
        cls.alive += 1
        return super().__new__(cls, content)

    def __del__(self) -> None:
        _Picture.alive -= 1


def _check_memory(format_class: type[ExportFormat], camera: LabelledCamera, to: Path) -> None:
    """Give a format more crops than it may hold, and count the crops that it holds."""
    selection = _arranged(format_class, select_labels(camera.catalog), 0)
    crops = list(read_crops(camera.catalog, selection, lambda count: None))
    order = np.sort(np.resize(np.arange(len(selection)), 3 * MOST_PICTURES))
    most = 0

    def streamed() -> Iterator[ExportedCrop]:
        nonlocal most
        for number, place in enumerate(order):
            picture = _Picture(encoded_picture(number, "PNG"))
            name = f"{number:024x}"
            crop = replace(crops[place], crop_id=name, image=picture, extension=".png")
            del picture
            most = max(most, _Picture.alive)
            yield crop

    to.mkdir()
    format_class().write(streamed(), to, selection.take(order), camera.catalog.name)
    gc.collect()
    assert most <= MOST_PICTURES, (
        f"expected at most {MOST_PICTURES} pictures in memory, got {most} of {len(order)}"
    )


def _check_failures(format_class: type[ExportFormat], camera: LabelledCamera, to: Path) -> None:
    to.mkdir()
    catalog = camera.catalog
    selection = select_labels(catalog)
    nothing = selection.take(np.zeros(0, dtype=np.int64))
    _must_refuse(to, "an empty selection", lambda: _export(camera, nothing, format_class, to))
    (to / "dataset").mkdir()
    (to / "dataset" / "mine").write_text("mine")
    _must_refuse(to, "a folder in use", lambda: _export(camera, selection, format_class, to))
    assert (to / "dataset" / "mine").read_text() == "mine", "a file of the user was overwritten"
    (to / "dataset" / "mine").unlink()
    (to / "dataset").rmdir()
    broken = Crop(b"no picture")
    catalog.add_crops([broken])
    catalog.append_labels([LabelEvent(broken.crop_id, catalog.classes[0], "person")])
    with_broken = select_labels(catalog)
    _must_refuse(to, "a broken picture", lambda: _export(camera, with_broken, format_class, to))
    catalog.append_labels([LabelEvent(broken.crop_id, "unusable", "person")])


def _export(
    camera: LabelledCamera, selection: Selection, format_class: type[ExportFormat], to: Path
) -> None:
    export_dataset(camera.catalog, selection, format_class(), to / "dataset")


def _must_refuse(to: Path, what: str, call: Callable[[], Any]) -> None:
    before = sorted(path.name for path in to.rglob("*"))
    try:
        call()
    except UserError:
        after = sorted(path.name for path in to.rglob("*"))
        assert after == before, f"{what} was refused, but left {set(after) - set(before)} behind"
    else:
        raise AssertionError(f"expected a UserError for {what}")
