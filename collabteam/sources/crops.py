"""Ingest crops from a folder of images or a Parquet file into the catalog."""

from __future__ import annotations

import difflib
import io
import json
import os
import stat
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from collabteam.catalog import catalog as _catalog
from collabteam.catalog.catalog import Catalog
from collabteam.catalog.records import Crop, LabelEvent
from collabteam.catalog.texts import LabelsByRow
from collabteam.catalog.truth import append_truth, read_truth
from collabteam.errors import UserError, disk_errors
from collabteam.settings import UNKNOWN, UNUSABLE, check_classes
from collabteam.storage.files import open_own, parse_json
from collabteam.storage.staging import write_errors

Labels = Literal["proposed", "person", "truth"]

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
    *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
)
"""Extensions of files that count as pictures."""
LARGEST_SIDE = 4096
SMALLEST_SIDE = 4
LARGEST_FILE = 64 * 2**20

# Formats that Pillow may try. Not all that it knows: opening an EPS file starts Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Source and purpose of the label event of each meaning; truth is kept in its own table.
_EVENT = {"proposed": ("detector", "proposal"), "person": ("person", "")}
_COLUMNS = (
    *("image", "crop_id", "label", "proposed", "truth", "split"),
    *("video", "track", "frame", "time"),
)
# Rows that Arrow decodes at a time, because a row group may be as large as the whole file.
_PARQUET_ROWS = 256


@dataclass(frozen=True)
class IngestSummary:
    """The result of one ingest.

    Every picture in the source is exactly one of added, known, duplicate and quarantined.

    Attributes:
        added: Crops that are new in the catalog.
        known: Crops that were in the catalog before.
        duplicates: Pictures that occurred earlier in the same source.
        conflicts: Location of each picture whose label contradicts an earlier one, and the
            contradiction. The earlier label stays.
        quarantined: Location of each picture that cannot be read, and the reason.
        labelled: New labels of the requested meaning in the catalog, by label.
        test: Crops that are new in the frozen test set.
        ignored: Files whose extension is not that of a picture.
        total: Crops in the catalog after the ingest.
        seconds: Duration of the ingest in seconds.
    """

    added: int
    known: int
    duplicates: int
    conflicts: list[tuple[str, str]]
    quarantined: list[tuple[str, str]]
    labelled: dict[str, int]
    test: int
    ignored: int
    total: int
    seconds: float


@dataclass
class Item:
    """One picture of a source, before it is checked.

    Attributes:
        where: File or row, for messages.
        image: Encoded picture.
        fault: Why the picture could not be read; ``""`` if it could.
        given: Labels by meaning: ``proposed``, ``person``, ``truth``.
        test: Whether the crop belongs to the frozen test set.
        origin: ``video``, ``track``, ``frame``, ``time``, ``box`` of :class:`Crop`, where known.
        crop_id: Id of a crop that is in the catalog; given instead of a picture.
    """

    where: str
    image: bytes
    fault: str = ""
    given: dict[str, str] = field(default_factory=dict)  # label by meaning
    test: bool = False
    origin: dict[str, Any] = field(default_factory=dict)
    crop_id: str = ""


class Source(Protocol):
    """A source of pictures and labels.

    Attributes:
        meaning: Meaning of a label if the source does not define it.
        total: Number of pictures.
        ignored: Number of files that are not pictures.
        labels: All labels that occur, of any meaning.
        answers: Whether labels of ``meaning`` occur.
    """

    meaning: Labels
    total: int
    ignored: int
    labels: set[str]
    answers: bool

    def items(self) -> Iterator[Item]:
        """Yield the pictures, always in the same order."""


class _Folder:
    """A folder of images: flat, or one subfolder per class."""

    def __init__(self, path: Path, labels: Labels) -> None:
        self.meaning = labels
        self.ignored = 0
        self._files: list[tuple[Path, str]] = []
        walked: set[str] = set()
        for parent, folders, names in os.walk(path, followlinks=True):
            if os.path.realpath(parent) in walked:  # a link to a parent folder would loop forever
                folders.clear()
                continue
            walked.add(os.path.realpath(parent))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = Path(parent).relative_to(path).parts
            for name in sorted(names):
                if name.startswith("."):
                    continue
                if name.lower().endswith(EXTENSIONS):
                    self._files.append((Path(parent) / name, below[0] if below else ""))
                else:
                    self.ignored += 1
        if not self._files:
            seen = f": it has {self.ignored} files of other kinds" if self.ignored else ""
            raise UserError(f"path={path} holds no image{seen}; expected .jpg, .png, .webp, ...")
        self.total = len(self._files)
        self.labels = {label for _, label in self._files if label}
        self.answers = bool(self.labels)

    def items(self) -> Iterator[Item]:
        for path, label in self._files:
            image, fault = b"", ""
            try:
                if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe might never end
                    fault = "no regular file"
                elif path.stat().st_size > LARGEST_FILE:
                    fault = f"larger than {LARGEST_FILE // 2**20} MB"
                else:
                    image = path.read_bytes()
            except OSError as error:
                fault = f"cannot be read: {error.strerror}"
            # A file name that is not valid text must not break printing the summary.
            where = str(path).encode("utf-8", "backslashreplace").decode()
            yield Item(where, image, fault, {self.meaning: label} if label else {})


class _Parquet:
    """A Parquet file: each row has a picture, or the id of a crop in the catalog."""

    def __init__(self, path: Path, labels: Labels) -> None:
        self._path = path
        self.meaning = labels
        self.ignored = 0
        try:
            # Without these options, Arrow holds whole row groups in memory.
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
            self._schema = self._file.schema_arrow
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"path={path} cannot be read as a Parquet file: {error}") from error
        self.total = self._file.metadata.num_rows
        if not self.total:
            raise UserError(f"path={path} has no rows")
        self._columns = [name for name in _COLUMNS if name in self._schema.names]
        if "crop_id" in self._columns:  # determines the picture and its origin
            identified = ("crop_id", "label", "proposed", "truth", "split")
            self._columns = [name for name in self._columns if name in identified]
        elif "image" not in self._columns:
            raise UserError(
                f"path={path} has no column 'image'; its columns are "
                f"{', '.join(self._schema.names[:12])}"
            )
        else:
            self._check_images()
        if labels in self._columns and "label" in self._columns:
            raise UserError(
                f"path={path} has the columns 'label' and {labels!r}, which mean the same with "
                f"labels={labels}: drop one"
            )
        self._names = _class_names(self._schema)
        self.labels: set[str] = set()
        self.answers = False
        # Convert zero rows, to reject column types that cannot be used before anything is written.
        self._values(pa.RecordBatch.from_pylist([], self._schema))
        given = [name for name in ("label", "proposed", "truth") if name in self._columns]
        for batch in self._batches(given) if given else ():
            for name in given:
                found = set(pc.unique(self._texts(batch, name)).to_pylist()) - {""}
                self.labels |= found
                self.answers |= bool(found) and name in ("label", labels)

    def _check_images(self) -> None:
        kind = self._schema.field("image").type
        self._struct = pa.types.is_struct(kind)
        if self._struct and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise UserError(
                f"path={self._path}: column 'image' is {kind}, expected bytes of encoded pictures"
            )

    def _pictures(self, batch: pa.RecordBatch) -> list[bytes | None]:
        """Return the encoded pictures; None for a row without one."""
        if "image" not in self._columns:
            return [None] * batch.num_rows
        images = batch.column("image")
        pictures: list[bytes | None] = (
            pc.struct_field(images, "bytes") if self._struct else images
        ).to_pylist()
        return pictures

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        rows = _PARQUET_ROWS if "image" in columns else 65_536
        try:
            yield from self._file.iter_batches(rows, columns=list(columns))
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"path={self._path} is damaged: {reason}") from error

    def _texts(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Return a column as text, with ``""`` for missing values."""
        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if name in self._names and pa.types.is_integer(column.type):
            inside = pc.and_(pc.greater_equal(column, 0), pc.less(column, len(self._names[name])))
            column = pa.array(self._names[name]).take(pc.if_else(inside, column, None))
        if not pa.types.is_string(column.type):
            try:
                column = pc.cast(column, pa.string())
            except pa.ArrowException as error:
                raise UserError(
                    f"path={self._path}: column {name!r} is {column.type}, expected text"
                ) from error
        return pc.fill_null(column, "")

    def _numbers(self, batch: pa.RecordBatch, name: str) -> list[float | int | None]:
        column = batch.column(name)
        try:
            if pa.types.is_timestamp(column.type):
                micro = pc.cast(pc.cast(column, pa.timestamp("us"), safe=False), pa.int64())
                column = pc.divide(pc.cast(micro, pa.float64()), 1e6)
            kind = pa.int64() if name == "frame" else pa.float64()
            if pa.types.is_floating(column.type):
                column = pc.if_else(pc.is_finite(column), column, None)
            numbers: list[float | int | None] = pc.cast(column, kind).to_pylist()
        except pa.ArrowException as error:
            raise UserError(
                f"path={self._path}: column {name!r} is {column.type}, expected numbers"
            ) from error
        return numbers

    def _values(self, batch: pa.RecordBatch) -> dict[str, list[Any]]:
        """Return every column except the pictures, with one value per row."""
        return {
            name: self._numbers(batch, name)
            if name in ("frame", "time")
            else self._texts(batch, name).to_pylist()
            for name in self._columns
            if name != "image"
        }

    def items(self) -> Iterator[Item]:
        row = 0
        for batch in self._batches(self._columns):
            values = self._values(batch)
            for place, image in enumerate(self._pictures(batch)):
                fields = {name: column[place] for name, column in values.items()}
                given = {name: fields[name] for name in ("proposed", "truth") if fields.get(name)}
                if fields.get("label"):
                    given[self.meaning] = fields["label"]
                names = ("video", "track", "frame", "time")
                yield Item(
                    f"{self._path} row {row}",
                    image or b"",
                    "" if image is not None or fields.get("crop_id") else "no picture",
                    given,
                    fields.get("split") == "test",
                    {name: fields[name] for name in names if fields.get(name) is not None},
                    fields.get("crop_id", ""),
                )
                row += 1


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the class names of Hugging Face's ``ClassLabel`` columns, by column."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {
            name: [str(text) for text in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


def ingest_crops(
    catalog: Catalog,
    path: str | Path,
    labels: Labels,
    progress: Callable[[int, int], None] | None = None,
) -> IngestSummary:
    """Put crops and their labels into a camera's catalog.

    A folder is flat or has one subfolder per class; a Parquet file has a column ``image`` (bytes,
    or Hugging Face's struct with ``bytes``) and may have ``label``, ``proposed``, ``truth``,
    ``split`` (``test`` marks the frozen test set), ``video``, ``track``, ``frame`` and ``time``.
    Instead of ``image`` and its origin, a file may have ``crop_id``, the ids of crops in the
    catalog. This returns labels for crops that were exported.

    The camera is locked during the ingest. Ingesting the same source again adds nothing; after a
    kill, repeating the call completes the ingest. A camera without classes gets the labels of the
    source as its classes.

    Args:
        catalog: The camera.
        path: The folder or the ``.parquet`` file.
        labels: Meaning of a label: ``proposed`` by a detector, verified by a ``person``, or hidden
            ``truth``.
        progress: Called with the number of pictures done and their total.

    Returns:
        The result.

    Raises:
        UserError: The source cannot be used, or its labels are not this camera's; then the catalog
            is unchanged. Or a Parquet file is damaged in the middle, or the disk is full; then the
            earlier pictures are in the catalog, and repeating the call resumes from there.
    """
    return ingest_source(catalog, open_source(path, labels), progress)


def ingest_source(
    catalog: Catalog, source: Source, progress: Callable[[int, int], None] | None = None
) -> IngestSummary:
    """Put the pictures of any source into a camera's catalog; see :func:`ingest_crops`."""
    start = time.monotonic()
    with catalog.workspace.transaction("ingest"):
        _register_classes(catalog, source.labels)
        ingest = _Ingest(catalog, source.meaning)
        with disk_errors():
            ingest.run(source, progress)
        return IngestSummary(
            **ingest.counts,
            conflicts=ingest.conflicts,
            quarantined=ingest.quarantined,
            labelled=dict(sorted(ingest.labelled.items())),
            ignored=source.ignored,
            total=len(catalog),
            seconds=time.monotonic() - start,
        )


def open_source(path: str | Path, labels: Labels) -> Source:
    """Open a folder or a Parquet file, and read its labels but not its pictures.

    Args:
        path: The folder or the ``.parquet`` file.
        labels: Meaning of a label, see :func:`ingest_crops`.

    Returns:
        The source.

    Raises:
        UserError: The path is neither a folder nor a Parquet file, cannot be read, holds no
            picture, or has no labels although ``labels`` is ``person`` or ``truth``.
    """
    if labels not in ("proposed", "person", "truth"):
        raise UserError(f"labels={labels}: expected one of proposed, person, truth")
    source = _open(Path(path), labels)
    if labels != "proposed" and not source.answers:
        raise UserError(
            f"labels={labels}, but {path} has no labels: expected one subfolder per class, or a "
            f"column 'label'; labels=proposed accepts crops without labels"
        )
    return source


def _open(path: Path, labels: Labels) -> _Folder | _Parquet:
    try:
        if path.is_dir():
            return _Folder(path, labels)
        if path.is_file() and path.suffix.lower() == ".parquet":
            return _Parquet(path, labels)
        if path.exists():
            raise UserError(f"path={path} is neither a folder of images nor a .parquet file")
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except PermissionError as error:
        raise UserError(f"path={path} cannot be read: {error.strerror}") from error
    near = difflib.get_close_matches(path.name, there, n=1)
    hint = f": did you mean {path.parent / near[0]}?" if near else ""
    raise UserError(f"path={path} does not exist{hint}")


def _register_classes(catalog: Catalog, labels: set[str]) -> None:
    classes = sorted(labels - {UNKNOWN, UNUSABLE})
    if catalog.classes:
        catalog.check_labels(classes)
    elif classes:
        check_classes(classes)
        catalog.set_classes(classes)


def _fault(item: Item) -> str:
    """Decode a picture and return why it cannot be used; ``""`` if it can."""
    if item.fault:
        return item.fault
    if item.crop_id:
        return ""
    if not item.image:
        return "empty"
    if len(item.image) > LARGEST_FILE:
        return f"larger than {LARGEST_FILE // 2**20} MB"
    try:
        with Image.open(io.BytesIO(item.image), formats=_FORMATS) as picture:
            width, height = picture.size
            # Checked before decoding, because a small file may decompress to gigabytes.
            if max(width, height) > LARGEST_SIDE:
                return f"{width}x{height} px: more than {LARGEST_SIDE} px a side"
            if min(width, height) < SMALLEST_SIDE:
                return f"{width}x{height} px: less than {SMALLEST_SIDE} px a side"
            picture.load()
    except UnidentifiedImageError:
        return "not a picture of a known format"
    except Exception as error:  # decoders raise many types on damaged pictures
        return f"cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}"[:200]
    return ""


class _Ingest:
    """One ingest: its counts, and the labels before and during it.

    A batch's crops are committed before its labels. After a kill in between, the next run finds
    crops without labels and adds the labels.
    """

    def __init__(self, catalog: Catalog, labels: Labels) -> None:
        self._catalog = catalog
        self._labels = labels
        self._now = time.time()
        self.counts = {"added": 0, "known": 0, "duplicates": 0, "test": 0}
        self.conflicts: list[tuple[str, str]] = []
        self.quarantined: list[tuple[str, str]] = []
        self.labelled: Counter[str] = Counter()
        # By row: the crops of this run, and their labels in the source, by meaning.
        self._seen = LabelsByRow()
        self._given: dict[str, LabelsByRow] = defaultdict(LabelsByRow)
        # By row: the labels in the catalog, including those that this run added.
        annotations = catalog.annotations()
        self._logged = {
            meaning: LabelsByRow(annotations.of(*event).label) for meaning, event in _EVENT.items()
        }
        self._in_test = set(np.flatnonzero(annotations.in_test_set()).tolist())
        self._truth = LabelsByRow(read_truth(catalog, annotations.names))
        self._quarantine = catalog.workspace.quarantine
        self._reported = _read_quarantine(self._quarantine)

    def run(self, source: Source, progress: Callable[[int, int], None] | None) -> None:
        done = 0
        if progress:
            progress(0, source.total)
        Image.init()  # else Pillow rejects some formats when they are named
        with ThreadPoolExecutor() as pool:
            for batch in _batched(source.items()):
                faults: list[str] = []
                for fault in pool.map(_fault, batch):
                    faults.append(fault)
                    if progress and len(faults) % 256 == 0 and len(faults) < len(batch):
                        progress(done + len(faults), source.total)
                self._batch(batch, faults)
                done += len(batch)
                if progress:
                    progress(done, source.total)

    def _batch(self, batch: list[Item], faults: list[str]) -> None:
        named = [item.crop_id for item in batch if item.crop_id]
        is_here = dict(zip(named, self._catalog.rows(named) >= 0, strict=True)) if named else {}
        faults = [
            f"no crop {item.crop_id!r} in the catalog"
            if item.crop_id and not is_here[item.crop_id]
            else fault
            for item, fault in zip(batch, faults, strict=True)
        ]
        self._quarantine_items(
            [(i.where, fault) for i, fault in zip(batch, faults, strict=True) if fault]
        )
        good = [item for item, fault in zip(batch, faults, strict=True) if not fault]
        crops = [Crop(item.image, **item.origin) for item in good if not item.crop_id]
        added = iter(self._catalog.add_crops(crops))
        identified = [(item.crop_id, False) if item.crop_id else next(added) for item in good]
        rows = self._catalog.rows([crop_id for crop_id, _ in identified]).tolist()
        events: list[LabelEvent] = []
        truth: list[tuple[str, str]] = []
        for item, (crop_id, is_new), row in zip(good, identified, rows, strict=True):
            if self._seen[row]:
                self.counts["duplicates"] += 1
            else:
                self.counts["added" if is_new else "known"] += 1
            self._seen[row] = "seen"
            for meaning, label in item.given.items():
                given = self._given[meaning]
                if given[row]:
                    if given[row] != label:
                        what = f"{meaning} {label!r}, but {given[row]!r} before"
                        self.conflicts.append((item.where, what))
                    continue
                given[row] = label
                if meaning == "truth":
                    if self._is_new_truth(item.where, row, label):
                        truth.append((crop_id, label))
                elif self._logged[meaning][row] != label:  # do not repeat an event
                    self._logged[meaning][row] = label
                    source, purpose = _EVENT[meaning]
                    events.append(LabelEvent(crop_id, label, source, purpose, time=self._now))
                    if meaning == self._labels:
                        self.labelled[label] += 1
            if item.test and row not in self._in_test:
                self._in_test.add(row)
                events.append(LabelEvent.test_mark(crop_id))
                self.counts["test"] += 1
        self._catalog.append_labels(events)
        append_truth(self._catalog, truth, self._truth)

    def _is_new_truth(self, where: str, row: int, label: str) -> bool:
        """Whether a crop has no truth yet; record a conflict if its truth is another label."""
        known = self._truth[row]
        if known and known != label:
            self.conflicts.append((where, f"truth {label!r}, but {known!r} is in the catalog"))
        if not known and self._labels == "truth":
            self.labelled[label] += 1
        return not known

    def _quarantine_items(self, faults: list[tuple[str, str]]) -> None:
        self.quarantined += faults
        new = [(str(Path(where).resolve()), reason) for where, reason in faults]
        new = [pair for pair in new if pair not in self._reported]
        if not new:
            return
        self._reported.update(new)
        lines = "".join(
            json.dumps({"source": where, "reason": reason, "time": self._now}) + "\n"
            for where, reason in new
        )
        with (
            write_errors(self._quarantine),
            disk_errors(),
            open(self._quarantine, "a+b", opener=open_own) as file,
        ):
            if file.tell():  # start a new line after one that a crash cut off
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read() == b"\n" else "\n" + lines
            file.write(lines.encode())


def _batched(items: Iterator[Item]) -> Iterator[list[Item]]:
    """Group items into batches of one commit each."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.image)
        if len(batch) >= _catalog.BATCH_CROPS or size >= _catalog.BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_quarantine(path: Path) -> set[tuple[str, str]]:
    """Read the entries of earlier runs; skip a line that a crash cut off."""
    reported: set[tuple[str, str]] = set()
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is not a file of its own: move it away, a new one is made")
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = parse_json(line)
                reported.add((str(entry["source"]), str(entry["reason"])))
            except (ValueError, KeyError, TypeError):
                continue
    return reported
