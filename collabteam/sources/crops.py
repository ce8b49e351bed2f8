"""Ingest crops from a folder of images, a Parquet file or an export into the catalog."""

from __future__ import annotations

import difflib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collabteam.catalog import catalog as _catalog
from collabteam.catalog.catalog import Catalog, check_labels
from collabteam.catalog.records import Crop, LabelEvent
from collabteam.catalog.texts import LabelsByRow
from collabteam.catalog.truth import append_truth, read_truth
from collabteam.errors import UserError, disk_errors
from collabteam.pictures import UndecodablePicture, decode, png_damage, stored_size
from collabteam.settings import UNKNOWN, UNUSABLE, check_classes
from collabteam.sources.base import (
    EXTENSIONS,
    LARGEST_FILE,
    Aside,
    Item,
    Labels,
    Meaning,
    Source,
)
from collabteam.sources.exports import is_table, open_export
from collabteam.sources.folder import FolderSource
from collabteam.sources.parquet import ParquetSource
from collabteam.sources.vocabulary import HELD_OUT, TEST
from collabteam.sources.walk import walk
from collabteam.storage.files import open_own, parse_json
from collabteam.storage.staging import write_errors

LARGEST_SIDE = 4096
SMALLEST_SIDE = 4
_NO_SPLIT = "none"

# Source and purpose of the label event of each meaning; truth is kept in its own table.
_EVENT: dict[Meaning, tuple[str, str]] = {
    "proposed": ("detector", "proposal"),
    "person": ("person", ""),
    "import": ("import", ""),
    "oracle": ("oracle", ""),
}


@dataclass(frozen=True)
class IngestSummary:
    """The result of one ingest.

    Every picture in the source is exactly one of added, known, duplicate, quarantined and
    unreadable.

    Attributes:
        added: Crops that are new in the catalog.
        known: Crops that were in the catalog before.
        duplicates: Pictures that occurred earlier in the same source.
        conflicts: Location of each picture whose label contradicts an earlier one, and the
            contradiction. The earlier label stays.
        quarantined: Location of each picture that cannot be used, and the reason.
        labelled: New labels of the requested meaning in the catalog, by label.
        others: Number of new labels by their other meanings.
        test: Crops that are new in the frozen test set.
        aside: What the source left aside; its ``unreadable`` has each folder and file that this
            user may not read.
        total: Crops in the catalog after the ingest.
        seconds: Duration of the ingest in seconds.
    """

    added: int
    known: int
    duplicates: int
    conflicts: list[tuple[str, str]]
    quarantined: list[tuple[str, str]]
    labelled: dict[str, int]
    others: dict[Meaning, int]
    test: int
    aside: Aside
    total: int
    seconds: float


def ingest_crops(
    catalog: Catalog,
    path: str | Path,
    labels: Labels,
    progress: Callable[[int, int], None] | None = None,
    follow_links: bool = False,
) -> IngestSummary:
    """Put crops and their labels into a camera's catalog.

    A folder is flat, has one subfolder per class, or one per split with one per class in each; a
    Parquet file has a column ``image`` (bytes, or Hugging Face's struct with ``bytes``) and may
    have ``label``, ``proposed``, ``truth``, ``split`` (``test`` marks the frozen test set),
    ``video``, ``track``, ``frame`` and ``time``. Instead of ``image`` and its origin, a file may
    have ``crop_id``, the ids of crops in the catalog. This returns labels for crops that were
    exported. A folder that one of our exports made comes back as what it was.

    The camera is locked during the ingest. Ingesting the same source again adds nothing; after a
    kill, repeating the call completes the ingest. A camera without classes gets the labels of the
    source as its classes.

    Args:
        catalog: The camera.
        path: The folder or the ``.parquet`` file.
        labels: Meaning of a label: ``proposed`` by a detector, verified by a ``person``, or hidden
            ``truth``.
        progress: Called with the number of pictures done and their total.
        follow_links: Whether to follow links that lead out of the folder.

    Returns:
        The result.

    Raises:
        UserError: The source cannot be used, or its labels are not this camera's; then the catalog
            is unchanged. Or a Parquet file is damaged in the middle, or the disk is full; then the
            earlier pictures are in the catalog, and repeating the call resumes from there.
    """
    return ingest_source(
        catalog, open_source(path, labels, catalog.classes, follow_links), progress
    )


def ingest_source(
    catalog: Catalog, source: Source, progress: Callable[[int, int], None] | None = None
) -> IngestSummary:
    """Put the pictures of any source into a camera's catalog; see :func:`ingest_crops`."""
    start = time.monotonic()
    with catalog.workspace.transaction("ingest"):
        _register_classes(catalog, source)
        ingest = _Ingest(catalog, source.meaning)
        with disk_errors():
            ingest.run(source, progress)
        source.aside.unreadable += ingest.unreadable
        if twice := ingest.in_two_splits:
            source.aside.remarks.append(
                f"pictures in two splits, which count as test or held out: {len(twice)}, such as "
                f"{twice[0]}"
            )
        if ingest.late_tests and catalog.workspace.round_numbers():
            source.aside.remarks.append(
                f"known before, and in the test set from now on: {ingest.late_tests} crops; the "
                "teams of earlier rounds may have trained on them"
            )
        return IngestSummary(
            **ingest.counts,
            conflicts=ingest.conflicts,
            quarantined=ingest.quarantined,
            labelled=dict(sorted(ingest.labelled.items())),
            others=dict(ingest.others),
            aside=source.aside,
            total=len(catalog),
            seconds=time.monotonic() - start,
        )


def open_source(
    path: str | Path, labels: Labels, classes: Collection[str] = (), follow_links: bool = False
) -> Source:
    """Open a folder or a Parquet file, and read its labels but not its pictures.

    Args:
        path: The folder or the ``.parquet`` file.
        labels: Meaning of a label, see :func:`ingest_crops`.
        classes: The camera's classes, if known. A folder or a label of such a name is a class, even
            if it is called like a split or like a missing value.
        follow_links: Whether to follow links that lead out of the folder.

    Returns:
        The source.

    Raises:
        UserError: The path is neither a folder nor a Parquet file, cannot be read, holds no
            picture, or has no labels although ``labels`` is ``person`` or ``truth``.
    """
    if labels not in ("proposed", "person", "truth"):
        raise UserError(f"labels={labels}: expected one of proposed, person, truth")
    source = _open(Path(path), labels, classes, follow_links)
    if labels != "proposed" and not source.answers:
        none = ", ".join(source.aside.unlabelled)
        raise UserError(
            f"labels={labels}, but {path} has no labels{none and f' ({none} mean none)'}: expected "
            "one subfolder per class, or a column 'label'; labels=proposed accepts crops without "
            "labels"
        )
    return source


def _open(path: Path, labels: Labels, classes: Collection[str], follow_links: bool) -> Source:
    try:
        if path.is_dir():
            return _open_folder(path, labels, classes, follow_links)
        if path.is_file() and path.suffix.lower() == ".parquet":
            return ParquetSource([path], labels, classes)
        if path.exists():
            raise UserError(f"path={path} is neither a folder of images nor a .parquet file")
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        raise UserError(f"path={path} cannot be read: {error.strerror}") from error
    near = difflib.get_close_matches(path.name, there, n=1)
    hint = f": did you mean {path.parent / near[0]}?" if near else ""
    raise UserError(f"path={path} does not exist{hint}")


def _open_folder(
    path: Path, labels: Labels, classes: Collection[str], follow_links: bool
) -> Source:
    found = walk(
        path, lambda name: name.lower().endswith(EXTENSIONS) or is_table(name), follow_links
    )
    aside = found.aside(path)
    export = open_export(path, found, labels, classes, aside)
    return export or FolderSource(path, found, labels, classes, aside)


def check_new_camera(name: str, classes: list[str], source: Source) -> None:
    """Raise unless a source can fill a camera that is not registered yet.

    Called before the camera is registered, so that a refused source leaves nothing behind.

    Args:
        name: The camera.
        classes: The classes that the user names; empty to take those of the source.
        source: The source.

    Raises:
        UserError: Its labels are not these classes or cannot make a team, or no picture can be
            used.
    """
    if classes:
        check_labels(name, classes, source.labels)
    elif seen := _classes_of(source):
        try:
            _check_found(seen, source)
        except UserError as error:
            raise UserError("; ".join([str(error), *source.aside.instead()])) from error
    first: tuple[str, str] | None = None
    for item in source.items():
        fault = _fault(item) if item.image or not item.crop_id else "no such crop in the catalog"
        if not fault:
            return
        first = first or (item.where, fault)
    where, fault = first or ("", "")
    raise UserError(
        f"camera {name} is new, and none of the {source.total} pictures can be used; {where}: "
        f"{fault}"
    )


def _classes_of(source: Source) -> list[str]:
    return source.classes or sorted(source.labels - {UNKNOWN, UNUSABLE})


def _check_found(classes: list[str], source: Source) -> None:
    """Check the labels of a source that become a camera's classes.

    Raises:
        UserError: They cannot make a team, or one is ``unknown`` or ``unusable`` in other letters
            and nobody has named it as a class.
    """
    check_classes(classes)
    for name in [] if source.classes else classes:
        if (meant := name.casefold()) in (UNKNOWN, UNUSABLE):
            raise UserError(
                f"the label {name!r} would become a class: write {meant!r} if it means that, or "
                f"name all classes: 'camera.classes=[{name},...]'"
            )


def _twins(classes: list[str]) -> list[str]:
    """Say which classes may be one and the same."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        spellings[name.casefold()].append(name)
    twins = [" and ".join(names) for names in spellings.values() if len(names) > 1]
    told = f"classes that differ in capital letters alone: {', '.join(twins[:5])}"
    return [told] if twins else []


def _register_classes(catalog: Catalog, source: Source) -> None:
    if catalog.classes:
        catalog.check_labels(source.labels)
    elif classes := _classes_of(source):
        _check_found(classes, source)
        catalog.set_classes(classes)
        if not source.classes:
            source.aside.remarks += _twins(classes)


def _fault(item: Item) -> str:
    """Decode a picture and return why it cannot be used; ``""`` if it can."""
    if item.fault:
        return item.fault
    if not item.image:
        return "" if item.crop_id else "empty"
    if len(item.image) > LARGEST_FILE:
        return f"larger than {LARGEST_FILE // 2**20} MB"
    try:
        width, height = stored_size(item.image)
        # Checked before decoding, because a small file may decompress to gigabytes.
        if max(width, height) > LARGEST_SIDE:
            return f"{width}x{height} px: more than {LARGEST_SIDE} px a side"
        if min(width, height) < SMALLEST_SIDE:
            return f"{width}x{height} px: less than {SMALLEST_SIDE} px a side"
        decode(item.image)
    except UndecodablePicture as error:
        return str(error)
    damage = png_damage(item.image)
    return f"damaged: {damage}" if "checksum" in damage else ""


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
        self.unreadable: list[tuple[str, str]] = []
        self.labelled: Counter[str] = Counter()
        self.others: Counter[Meaning] = Counter()
        self.in_two_splits: list[str] = []
        self.late_tests = 0  # crops that the catalog had outside the test set
        # By row: the splits of this run's crops, and their labels in the source, by meaning.
        self._seen = LabelsByRow()
        self._given: dict[Meaning, LabelsByRow] = defaultdict(LabelsByRow)
        # By row: the labels in the catalog, including those that this run added.
        annotations = catalog.annotations()
        self._logged = {
            meaning: LabelsByRow(annotations.of(*event).label) for meaning, event in _EVENT.items()
        }
        self._in_test = set(np.flatnonzero(annotations.in_test_set()).tolist())
        self._held_out: set[int] | None = None
        self._truth = LabelsByRow(read_truth(catalog, annotations.names))
        self._quarantine = catalog.workspace.quarantine
        self._reported = _read_quarantine(self._quarantine)

    def run(self, source: Source, progress: Callable[[int, int], None] | None) -> None:
        done = 0
        if progress:
            progress(0, source.total)
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
        is_here = (self._catalog.rows(named) >= 0).tolist() if named else []
        here = {crop_id for crop_id, is_known in zip(named, is_here, strict=True) if is_known}
        good: list[Item] = []
        faulty: list[tuple[str, str]] = []
        for item, fault in zip(batch, faults, strict=True):
            if item.crop_id in here:
                good.append(item)
            elif item.closed:
                self.unreadable.append((item.where, fault))
            elif fault or not item.image:
                fault = fault or f"no crop {item.crop_id!r} in the catalog"
                faulty.append((item.where, fault))
            else:
                good.append(item)
        self._quarantine_items(faulty)
        crops = [Crop(item.image, **item.origin) for item in good if item.crop_id not in here]
        added = iter(self._catalog.add_crops(crops))
        identified = [
            (item.crop_id, False) if item.crop_id in here else next(added) for item in good
        ]
        rows = self._catalog.rows([crop_id for crop_id, _ in identified]).tolist()
        events: list[LabelEvent] = []
        truth: list[tuple[str, str]] = []
        for item, (crop_id, is_new), row in zip(good, identified, rows, strict=True):
            if before := self._seen[row]:
                self.counts["duplicates"] += 1
                if before != (item.split or _NO_SPLIT) and {before, item.split} & {TEST, HELD_OUT}:
                    self.in_two_splits.append(item.where)
            else:
                self.counts["added" if is_new else "known"] += 1
                self._seen[row] = item.split or _NO_SPLIT
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
                    self._count(meaning, label)
            if item.split == TEST and row not in self._in_test:
                self._in_test.add(row)
                self.late_tests += not before and not is_new
                events.append(LabelEvent.test_mark(crop_id))
                self.counts["test"] += 1
            elif item.split == HELD_OUT and self._is_new_held_out(row):
                events.append(LabelEvent.held_out_mark(crop_id))
        self._catalog.append_labels(events)
        append_truth(self._catalog, truth, self._truth)

    def _is_new_truth(self, where: str, row: int, label: str) -> bool:
        """Whether a crop has no truth yet; record a conflict if its truth is another label."""
        known = self._truth[row]
        if known and known != label:
            self.conflicts.append((where, f"truth {label!r}, but {known!r} is in the catalog"))
        if not known:
            self._count("truth", label)
        return not known

    def _count(self, meaning: Meaning, label: str) -> None:
        if meaning == self._labels:
            self.labelled[label] += 1
        else:
            self.others[meaning] += 1

    def _is_new_held_out(self, row: int) -> bool:
        """Whether a crop was not held out before; it is from now on."""
        if self._held_out is None:
            self._held_out = set(np.flatnonzero(self._catalog.index().held_out).tolist())
        is_new = row not in self._held_out
        self._held_out.add(row)
        return is_new

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
    damage: UserError | None = None
    while True:
        try:
            item = next(items, None)
        except UserError as error:  # what came before it is good
            item, damage = None, error
        if item is None:
            break
        batch.append(item)
        size += len(item.image)
        if len(batch) >= _catalog.BATCH_CROPS or size >= _catalog.BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
    if damage is not None:
        raise damage


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
