"""The catalog of one camera: its crops and its label log."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from collabteam.catalog.annotations import LOG_COLUMNS, Annotations
from collabteam.catalog.index import CROP_COLUMNS, CropIndex, IndexBuilder
from collabteam.catalog.records import (
    CROP_SCHEMA,
    LABEL_SCHEMA,
    TRUTH_SCHEMA,
    Crop,
    LabelEvent,
    crops_to_table,
    events_to_table,
)
from collabteam.catalog.times import is_time, unix_seconds
from collabteam.errors import UserError, plain
from collabteam.settings import UNKNOWN, UNUSABLE, check_classes
from collabteam.storage.layout import TableName
from collabteam.storage.manifest import read_manifest
from collabteam.storage.workspace import StorageSize, Workspace, registered

BATCH_CROPS = 4096
"""The largest number of crops in one commit."""
BATCH_BYTES = 64 * 2**20
"""A commit ends once its pictures reach this number of bytes."""
_MERGED: dict[TableName, int] = {"crops": 16_384, "labels": 1_048_576, "truth": 1_048_576}
"""Rows from which a fragment is not merged any further, by table; pictures are large."""


class Catalog:
    """The crops of one camera and the log of what was said about them.

    Make one with :meth:`open` or :meth:`register`. Any number of processes may read and append at
    the same time; a command that needs exclusive access opens a transaction of :attr:`workspace`.

    Args:
        workspace: The camera's files, or the folder that holds them.

    Attributes:
        workspace: The camera's files.
        folder: The camera's folder on this machine, ``<root>/<camera>``.
        place: The camera's folder or address, for messages.
        name: The camera.
        classes: The registered classes, one branch each, in this order; empty if none are yet.
    """

    def __init__(self, workspace: Workspace | Path) -> None:
        workspace = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
        self.workspace = workspace
        self.folder, self.place, self.name = workspace.folder, workspace.place, workspace.name
        self.classes = read_manifest(workspace.manifest)
        self._crops = workspace.table("crops")
        self._labels = workspace.table("labels")
        self._labels.add_missing_texts(LABEL_SCHEMA)
        workspace.table("truth")  # find damage here, not in the middle of a command
        self._lost: list[str] = []
        if len(self._labels) and not len(self._crops):
            self._crops.refresh()  # another process may have added the first ones meanwhile
            if not len(self._crops):
                self._lost = [name for name in self.log(["crop_id"])["crop_id"].to_pylist() if name]
                self._check_complete()
        self._read = IndexBuilder()
        self._reading = threading.Lock()

    @classmethod
    def open(cls, root: str | Path, camera: str) -> Catalog:
        """Open a registered camera.

        Raises:
            UserError: There is no such camera under ``root``, or one of its files is damaged.
        """
        workspace = Workspace.at(root, camera)
        workspace.check_reachable()
        workspace.refresh()
        if not workspace.manifest.is_file():
            known = list(registered(root))
            near = difflib.get_close_matches(camera, known, n=3)
            named = [*near, *(name for name in known if name not in near)]
            listing = ", ".join(named[:8]) + (", ..." if len(named) > 8 else "")
            raise UserError(
                f"no camera {camera!r} under {root}: known are {listing or 'none'}; "
                f"'ingest camera={camera}' registers it"
            )
        return cls(workspace)

    @classmethod
    def register(cls, root: str | Path, camera: str, classes: Sequence[str] = ()) -> Catalog:
        """Create a camera, or open the one of this name.

        Args:
            root: Folder that holds one folder per camera.
            camera: The camera's name.
            classes: Its classes; empty gives a new camera none and keeps those of an old one.

        Raises:
            UserError: The classes cannot form a team, others are registered already, or
                :meth:`open` fails.
        """
        workspace = Workspace.at(root, camera)
        if classes:
            check_classes(list(classes))
        workspace.check_reachable()
        workspace.refresh()
        if not workspace.manifest.is_file():
            workspace.prepare()
            workspace.create_table("crops", CROP_SCHEMA)
            workspace.create_table("labels", LABEL_SCHEMA)
            workspace.create_table("truth", TRUTH_SCHEMA)
            # Written last, so that a camera that can be opened is complete.
            workspace.write_manifest(_manifest(camera, classes))
        catalog = cls(workspace)
        if classes:
            catalog.set_classes(classes)
        return catalog

    def copy_to(self, root: str | Path) -> Catalog:
        """Copy the crops and the labels of persons and detectors to another root.

        Labels of teams and simulated reviewers are not copied, so that experiments with other
        settings start equal; the frozen test set is copied. Files that never change are linked,
        so a copy takes almost no space; an object store copies them itself.

        Args:
            root: The other root, on the same machine or in the same bucket. A camera of this name
                that is there already is left as it is.

        Returns:
            The copied camera.

        Raises:
            UserError: The disk is full, a file is damaged, or the root is in another place.
        """
        to = Workspace.at(root, self.name)
        to.refresh()
        if not to.manifest.is_file():
            self.workspace.copy_tables(to, ("crops", "truth"), self._complete_copy)
        return Catalog(to)

    def _complete_copy(self, to: Workspace) -> None:
        to.create_table("labels", LABEL_SCHEMA)
        labels = to.table("labels")
        if not len(labels):  # else the remains of a copy that was killed
            log = self.log()
            said = pc.is_in(log["source"], pa.array(["team", "rollback", "oracle"]))
            said = pc.and_(said, pc.not_equal(log["purpose"], "test"))
            log = log.filter(pc.invert(said))
            # Crops that came since the table was copied are not in the copy.
            copied = to.table("crops").read(["crop_id"])["crop_id"]
            labels.append(log.filter(pc.is_in(log["crop_id"], copied.combine_chunks())))
        to.write_manifest(_manifest(self.name, self.classes))

    def set_classes(self, classes: Sequence[str]) -> None:
        """Register the camera's classes; the same ones in another order change nothing.

        Raises:
            UserError: The classes cannot form a team, or others are registered already.
        """
        check_classes(list(classes))
        self.classes = read_manifest(self.workspace.manifest)
        if not self.classes:
            self.workspace.write_manifest(_manifest(self.name, classes))
            self.classes = read_manifest(self.workspace.manifest)  # perhaps another process's
        if set(classes) != set(self.classes):
            raise UserError(
                f"camera {self.name} has the classes {', '.join(self.classes)}, not "
                f"{', '.join(classes)}: name these, or register another camera"
            )

    def __len__(self) -> int:
        """Number of crops that this object has read."""
        return len(self._crops)

    def _catch_up(self) -> None:
        """Read the crops that were added since the last read."""
        with self._reading:
            self._crops.refresh()
            self._read.reserve(len(self._crops), 0)
            for batch in self._crops.batches(CROP_COLUMNS, self._read.crops, len(self._crops)):
                self._read.add_crops(batch)

    def _lacking(self, crop_ids: set[str]) -> set[str]:
        """Return the names that no crop has."""
        if not self._read.crops and len(crop_ids) <= BATCH_CROPS:
            # A single query does not need all names in memory.
            return crop_ids - self._crops.holding("crop_id", crop_ids)
        asked = list(crop_ids)
        rows = self.rows(asked)
        return {crop_id for crop_id, row in zip(asked, rows.tolist(), strict=True) if row < 0}

    def add_crops(self, crops: Iterable[Crop]) -> list[tuple[str, bool]]:
        """Add crops, each once: existing and repeated crops are skipped.

        Args:
            crops: May be a generator: at most 4,096 crops or about 64 MB are held at a time and
                committed together.

        Returns:
            The name of each crop, and whether it is new.

        Raises:
            UserError: A time is outside 1970 to 2100, or the disk is full; earlier batches are in
                the catalog.
        """
        self._catch_up()
        result: list[tuple[str, bool]] = []
        for batch in _batched(crops):
            for crop in batch:
                if not is_time(crop.time):
                    raise UserError(
                        f"a crop of video {crop.video!r} has time {crop.time}: expected Unix "
                        "seconds from 1970 until 2100, or NaN for unknown"
                    )
            rows = self._read.find([crop.crop_id for crop in batch]).tolist()
            lacking = {crop.crop_id for crop, row in zip(batch, rows, strict=True) if row < 0}
            new: list[Crop] = []
            for crop in batch:
                result.append((crop.crop_id, crop.crop_id in lacking))
                if crop.crop_id in lacking:
                    lacking.remove(crop.crop_id)
                    new.append(crop)
            if new:
                self._crops.append(crops_to_table(new))
                self._catch_up()
        return result

    def append_labels(
        self, events: Sequence[LabelEvent], rows: npt.NDArray[np.int64] | None = None
    ) -> int:
        """Append events to the log, all of them or none, in one atomic commit.

        Args:
            events: In the order in which the log will keep them.
            rows: Row numbers of their crops, each a crop of this catalog, if the caller has looked
                them up.

        Returns:
            The number of events appended.

        Raises:
            ValueError: An event is about a crop that the catalog does not have.
            UserError: A label is none of the camera's classes (if it has any), ``unknown`` or
                ``unusable``; or the disk is full.
        """
        if not events:
            return 0
        self.check_labels({event.label for event in events})
        unknown = (
            self._lacking({event.crop_id for event in events} - {""}) if rows is None else set()
        )
        if unknown:
            raise ValueError(f"{len(unknown)} crops are not in {self.place}: {min(unknown)}, ...")
        self._labels.append_few(events_to_table(events))
        return len(events)

    def check_labels(self, labels: Iterable[str]) -> None:
        """Raise unless all labels are valid for this camera.

        Raises:
            UserError: Some are not; the message names them.
        """
        if self.classes:
            check_labels(self.name, self.classes, labels)

    def log(self, columns: Sequence[str] = tuple(LABEL_SCHEMA.names)) -> pa.Table:
        """Read the label log, oldest event first.

        Args:
            columns: The fields to read of :class:`LabelEvent`.

        Returns:
            One row per event.

        Raises:
            UserError: The table is damaged.
        """
        self._labels.refresh()
        return self._labels.read(columns)

    def log_version(self) -> int:
        """Number of the log's last commit; it grows with every new event.

        Raises:
            UserError: The table is damaged.
        """
        self._labels.refresh()
        return self._labels.version

    def log_size(self) -> int:
        """Number of events in the log that this object has read."""
        return len(self._labels)

    def index(self) -> CropIndex:
        """The crops with their current labels.

        Raises:
            UserError: A table is damaged.
        """
        self._read_log()
        with self._reading:
            return self._read.index()

    def annotations(self) -> Annotations:
        """The annotations of the crops.

        Raises:
            UserError: A table is damaged.
        """
        self._read_log()
        with self._reading:
            return self._read.annotations()

    def _check_complete(self) -> None:
        """Raise if the log names crops that are not there."""
        if self._lost:
            table = self.workspace.place_of(self.workspace.table_folder("crops"))
            raise UserError(
                f"{table} is damaged: the log has {len(self._lost)} events about crops that are "
                f"not in it, such as {self._lost[0]:.24}: restore it from a backup"
            )

    def _read_log(self) -> None:
        """Read the events and crops that were added since the last read."""
        # The log first: crops are read after it, so they include every crop with an event.
        self._labels.refresh()
        events = len(self._labels)
        self._catch_up()
        with self._reading:
            self._read.group()  # before the events are in memory as well
            self._read.reserve(0, events)
            for batch in self._labels.batches(LOG_COLUMNS, self._read.events, events):
                self._lost += self._read.add_events(batch)
            self._check_complete()

    def rows(self, crop_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Row numbers of :class:`CropIndex` by name.

        Args:
            crop_ids: K names.

        Returns:
            Shape ``(K,)``: -1 for names that no crop has.

        Raises:
            UserError: The table is damaged.
        """
        self._catch_up()
        with self._reading:
            return self._read.find(crop_ids)

    def compact(
        self, advance: Callable[[int], None] | None = None
    ) -> tuple[StorageSize, StorageSize]:
        """Merge small files and remove unused ones; the content stays the same.

        Row numbers and the order of the log stay. Other processes may read meanwhile; a writer
        waits until a table is done. In an object store no writer waits, and a later call removes
        the files replaced within the last hour. A killed call loses nothing but time.

        Args:
            advance: Called with the number of rows just merged.

        Returns:
            The size of the tables before and after.

        Raises:
            UserError: The disk is full, a table is damaged, or the store does not answer.
        """
        before = self.workspace.table_size(*_MERGED)
        for name, rows in _MERGED.items():
            self.workspace.table(name).compact(rows, advance)
        return before, self.workspace.table_size(*_MERGED)

    def images(self, rows: npt.ArrayLike) -> list[bytes]:
        """Read encoded pictures by row number of :class:`CropIndex`.

        Args:
            rows: Shape ``(K,)``, integers, in any order; may repeat.

        Returns:
            K encoded pictures, in the order of ``rows``.

        Raises:
            IndexError: A row is negative or beyond the last crop.
            UserError: The table is damaged.
        """
        numbers = np.asarray(rows, dtype=np.int64).tolist()
        pictures: list[bytes] = []
        for start in range(0, len(numbers), BATCH_CROPS):
            part = self._crops.take(numbers[start : start + BATCH_CROPS], ["image"])
            pictures += part["image"].to_pylist()
        return pictures

    def origins(self, rows: npt.ArrayLike) -> list[dict[str, Any]]:
        """Read the origin of crops: ``video``, ``track``, ``frame``, ``time`` and ``box``.

        A time is in Unix seconds from 1970 until 2100, or NaN.

        Args:
            rows: Shape ``(K,)``: row numbers of :class:`CropIndex`, in any order.

        Returns:
            K times the fields of :class:`Crop` without the picture, in the order of ``rows``.

        Raises:
            IndexError: A row is negative or beyond the last crop.
            UserError: The table is damaged.
        """
        numbers = np.asarray(rows, dtype=np.int64).tolist()
        columns = ["video", "track", "frame", "time", "box"]
        if not numbers:
            return []
        table = self._crops.take(numbers, columns)
        times = unix_seconds(table["time"].to_numpy())
        found: list[dict[str, Any]] = table.to_pylist()
        return [{**one, "time": time} for one, time in zip(found, times.tolist(), strict=True)]


def check_labels(camera: str, classes: Sequence[str], labels: Iterable[str]) -> None:
    """Raise unless all labels are valid for a camera of these classes.

    Raises:
        UserError: Some are not; the message names them.
    """
    foreign = sorted(set(labels) - {*classes, UNKNOWN, UNUSABLE, ""})
    if foreign:
        raise UserError(
            f"camera {camera} has no class {', '.join(plain(label, 80) for label in foreign[:5])}"
            f"{', ...' if len(foreign) > 5 else ''}: its classes are "
            f"{', '.join(classes)}, and '{UNKNOWN}' and '{UNUSABLE}' are allowed"
        )


def _batched(crops: Iterable[Crop]) -> Iterator[list[Crop]]:
    batch: list[Crop] = []
    size = 0
    for crop in crops:
        batch.append(crop)
        size += len(crop.image)
        if len(batch) >= BATCH_CROPS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _manifest(camera: str, classes: Sequence[str]) -> str:
    return yaml.safe_dump({"name": camera, "classes": list(classes)}, sort_keys=False)
