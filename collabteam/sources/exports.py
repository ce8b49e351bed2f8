"""Our own exports as sources: classes, splits, origins and authors of labels come back.

Every export names its crops. A picture is recognised by its place in the export's table; if
somebody moved it to another class, the folder says what it is now, and the table where it came
from.
"""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from collabteam.annotation_tools.cvat import ANNOTATIONS, NotAnnotations, read_annotations
from collabteam.annotation_tools.spreadsheet import without_escape
from collabteam.errors import UserError, first_line
from collabteam.settings import UNKNOWN, UNUSABLE
from collabteam.sources.base import EXTENSIONS, LARGEST_FILE, Aside, Item, Labels, Source
from collabteam.sources.columns import Columns, Row
from collabteam.sources.folder import CROP_NAME, FolderSource, Layout, Parts, Records
from collabteam.sources.parquet import SHARD, ParquetSource
from collabteam.sources.walk import Found
from collabteam.storage.files import parse_json

IMAGES = "images"
_METADATA, _COCO, _TASKS = ("metadata.csv",), ("annotations.json",), ("tasks.json",)
_INTERFACE, _ARCHIVE, _LABELS = ("interface.xml",), ("dataset.zip",), ("labels.json",)
_PARQUET, _DATA = ("crops.parquet",), "data"
_NAMES = ("proposed", "video", "track")
# The columns of every table but Parquet's; one row of texts for each picture.
_COLUMNS = (
    *("crop_id", "label", "split", "source", "confidence", "round", "team", "proposed"),
    *("video", "track", "frame", "time", "box_left", "box_top", "box_width", "box_height"),
)
_BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(RuntimeError, NotImplementedError, ValueError),  # encrypted, or packed in another way
)

_BOM = b"\xef\xbb\xbf"

_Rows = list[tuple[Parts, dict[str, str]]]


def is_table(name: str) -> bool:
    """Whether a file of this name may be the table of an export."""
    tables = (_METADATA, _COCO, _TASKS, _INTERFACE, _ARCHIVE, _LABELS, _PARQUET)
    return (name,) in tables or SHARD.fullmatch(name) is not None


def open_export(
    path: Path, found: Found, labels: Labels, classes: Collection[str], aside: Aside
) -> Source | None:
    """Open a folder that one of our exports made.

    Args:
        path: The folder.
        found: All of its files.
        labels: Meaning of the labels, as the user says; the team's are proposals in any case.
        classes: The camera's classes, if known.
        aside: Takes what is left aside.

    Returns:
        The source; None if the folder is not an export.

    Raises:
        UserError: It is one, and damaged.
    """
    # Only regular files: reading a pipe might never end.
    there = {
        parts for parts in found.files if is_table(parts[-1]) and path.joinpath(*parts).is_file()
    }
    pictures = [parts for parts in found.files if parts[-1].lower().endswith(EXTENSIONS)]
    if not pictures:
        return _open_packed(path, there, labels, classes, aside)
    readers: list[tuple[Parts, Callable[[Path], tuple[_Rows, list[str]] | None]]] = [
        (_METADATA, _read_metadata),
    ]
    if all(parts[0] == IMAGES for parts in pictures):
        readers += [(_COCO, _read_coco), (_TASKS, _read_tasks)]
    for table, read in readers:
        if table not in there or (contents := read(path)) is None:
            continue
        rows, named = contents
        by_file = _checked(path.joinpath(*table), rows, labels, classes, aside)
        flat = all(parts[0] == IMAGES for parts in by_file)
        layout: Layout = "flat" if flat else "splits"
        by_crop = {row.crop_id: row for row in by_file.values() if row.crop_id}
        named = [name for name in named if name not in (UNKNOWN, UNUSABLE)]
        records = Records(by_file, by_crop, layout, named, table[0])
        return FolderSource(path, found, labels, classes, aside, records)
    if labels == "person":
        _check_is_whole(path, pictures)
    return None


def _check_is_whole(path: Path, pictures: Sequence[Parts]) -> None:
    """Refuse a part of an export: without the table, the team's labels would become a person's.

    Raises:
        UserError: It is one.
    """
    if not all(CROP_NAME.fullmatch(parts[-1].rpartition(".")[0]) for parts in pictures):
        return
    for above in list(path.resolve().parents)[:2]:
        if above.joinpath(*_METADATA).is_file() and _read_metadata(above) is not None:
            raise UserError(
                f"path={path} is a part of the export {above}, whose {_METADATA[0]} says who gave "
                f"each label and what is the test set: ingest path={above}"
            )


def _open_packed(
    path: Path, there: set[Parts], labels: Labels, classes: Collection[str], aside: Aside
) -> Source | None:
    """Open an export whose pictures are inside of other files."""
    shards = sorted(p for p in there if p[:-1] == (_DATA,) and SHARD.fullmatch(p[-1]))
    if shards:
        return _tables(path, shards, labels, classes, aside)
    if _PARQUET in there:
        return _tables(path, [_PARQUET], labels, classes, aside)
    if {_ARCHIVE, _LABELS} <= there:
        return _Archive(path, labels, classes, aside)
    return None


def _tables(
    path: Path, names: Sequence[Parts], labels: Labels, classes: Collection[str], aside: Aside
) -> ParquetSource | None:
    """Open Parquet files if they are ours; a folder with other ones is no export."""
    source = ParquetSource([path.joinpath(*name) for name in names], labels, classes, True, aside)
    return source if source.ours else None


def _checked(
    table: Path, rows: _Rows, labels: Labels, classes: Collection[str], aside: Aside
) -> dict[Parts, Row]:
    """Clean the rows of a table like the columns of a Parquet file."""
    columns = Columns(str(table), list(_COLUMNS), labels, classes, aside, export=True)
    try:
        batch = pa.RecordBatch.from_pydict(
            {name: pa.array([row.get(name, "") for _, row in rows], pa.string())
             for name in _COLUMNS}
        )  # fmt: skip
    except (ValueError, pa.ArrowException) as error:  # a lone surrogate
        raise UserError(f"{table} is damaged: {first_line(error)}") from error
    columns.survey(batch)
    columns.finish()
    return dict(zip((parts for parts, _ in rows), columns.rows(batch), strict=True))


# -- tables --------------------------------------------------------------------------------------


def _read_metadata(path: Path) -> tuple[_Rows, list[str]] | None:
    file = path.joinpath(*_METADATA)
    rows: _Rows = []
    try:
        with file.open("rb") as stream:
            head = stream.readline(2**16)
        if not {b"file_name", b"crop_id", b"source"} <= set(head.strip(_BOM).split(b",")):
            if b"crop_id" in head.replace(b"\0", b"").lower():  # a spreadsheet's
                raise UserError(
                    f"{file} is not as export wrote it: expected cells with commas in between, in "
                    "UTF-8, below the names of export: write it so, or export again"
                )
            return None  # somebody else's, in whatever encoding
        with file.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            if not {"file_name", *_COLUMNS} <= set(table.fieldnames or ()):
                return None
            for row in table:
                cells = {name: row[name] or "" for name in ("file_name", *_COLUMNS)}
                cells |= {name: without_escape(cells[name]) for name in _NAMES}
                rows.append((tuple(cells["file_name"].split("/")), cells))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {first_line(error)}") from error
    return rows, []


def _read_coco(path: Path) -> tuple[_Rows, list[str]] | None:
    content = _json(path.joinpath(*_COCO))
    try:
        named = [str(one["name"]) for one in content["categories"]]
        name_of = {one["id"]: str(one["name"]) for one in content["categories"]}
        file_of = {one["id"]: str(one["file_name"]) for one in content["images"]}
        rows: _Rows = []
        for one in content["annotations"]:
            about = dict(one["attributes"])
            if not {"crop_id", "split", "source"} <= about.keys():
                return None
            about["label"] = name_of[one["category_id"]]
            row = _texts(about, about.get("frame_box"))
            rows.append(((IMAGES, file_of[one["image_id"]]), row))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # somebody else's
    return rows, named


def _read_tasks(path: Path) -> tuple[_Rows, list[str]] | None:
    content = _json(path.joinpath(*_TASKS))
    try:
        rows: _Rows = []
        for task in content:
            about = dict(task["data"])
            file = unquote(str(about["image"]).rpartition("?d=")[2])
            if not {"crop_id", "label", "split", "source"} <= about.keys():
                return None
            rows.append((tuple(file.split("/")), _texts(about, about.get("box"))))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    named: list[str] = []
    if (interface := path.joinpath(*_INTERFACE)).is_file():
        text = interface.read_text(encoding="utf-8", errors="replace")
        named = re.findall(r'<Choice value="([^"<>&]+)"/>', text)
    return rows, named


def _json(file: Path) -> Any:
    try:
        return parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON: {first_line(error)}") from error


def _texts(about: dict[str, Any], box: Any) -> dict[str, str]:
    """Return the values of a JSON object as the cells of a table."""
    sides = dict(zip(_COLUMNS[-4:], box, strict=True)) if isinstance(box, list) else {}
    cells = {**about, **sides}
    return {name: "" if cells.get(name) is None else str(cells[name]) for name in _COLUMNS}


# -- CVAT's archive, with the pictures inside ----------------------------------------------------


class _Archive:
    """``dataset.zip`` of a CVAT export; see :class:`~.base.Source`."""

    def __init__(self, path: Path, labels: Labels, classes: Collection[str], aside: Aside) -> None:
        self.meaning: Labels = labels
        self.aside = aside
        self._file = path.joinpath(*_ARCHIVE)
        content = _json(path.joinpath(*_LABELS))
        try:
            named = [str(one["name"]) for one in content]
        except (KeyError, TypeError, AttributeError):
            named = []
        self.classes = [name for name in named if name not in (UNKNOWN, UNUSABLE)]
        self._rows = _checked(self._file, self._tagged(), labels, classes, aside)
        self.labels = {label for row in self._rows.values() for label in row.given.values()}
        self.answers = bool(self.labels)
        self.total = len(self._rows)

    def _tagged(self) -> _Rows:
        rows: _Rows = []
        try:
            with zipfile.ZipFile(self._file) as archive, archive.open(ANNOTATIONS) as stream:
                for image in read_annotations(iter(lambda: stream.read(2**16), b"")):
                    cells = {**image.attributes, "label": (image.tags or [""])[0] or ""}
                    rows.append(((IMAGES, image.name), cells))
        except (KeyError, NotAnnotations, *_BROKEN_ZIP) as error:
            raise UserError(f"path={self._file} cannot be read: {first_line(error)}") from error
        if any("source" not in cells for _, cells in rows):
            raise UserError(
                f"path={self._file} is not of our exports: expected the attribute 'source' at "
                "every tag; 'review import=' takes the answers of CVAT"
            )
        return rows

    def items(self) -> Iterator[Item]:
        """Yield the pictures in the order of the annotations."""
        with zipfile.ZipFile(self._file) as archive:
            for parts, row in self._rows.items():
                image, fault = b"", ""
                name = "/".join(parts)
                try:
                    with archive.open(name) as stream:
                        image = stream.read(LARGEST_FILE + 1)
                except (KeyError, *_BROKEN_ZIP) as error:
                    fault = f"cannot be read: {first_line(error)}"
                where = f"{self._file} {name}"
                yield Item(where, image, fault, row.given, row.split, row.origin, row.crop_id)
