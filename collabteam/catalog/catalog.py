"""Everything that is known about one camera."""

from __future__ import annotations

import difflib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from collabteam.catalog.index import CROP_COLUMNS, LOG_COLUMNS, CropIndex, IndexBuilder
from collabteam.catalog.records import (
    CROP_SCHEMA,
    LABEL_SCHEMA,
    TRUTH_SCHEMA,
    Crop,
    LabelEvent,
    crops_to_table,
    events_to_table,
)
from collabteam.errors import UserError, disk_errors
from collabteam.settings import UNKNOWN, UNUSABLE, camera_folder, check_classes, root_folder
from collabteam.storage.locks import Lock, LockHeld
from collabteam.storage.mirror import Mirror, pull
from collabteam.storage.store import MANIFEST, Store, together
from collabteam.storage.tables import Table, write_atomically

BATCH_CROPS = 4096
"""Most crops in one commit."""
BATCH_BYTES = 64 * 2**20
"""Bytes of pictures that close a commit."""
_MERGED = {"crops": 16_384, "labels": 1_048_576, "truth": 1_048_576}
"""Rows that make a fragment large enough to be left alone, by table; pictures are heavy."""


class CameraInUse(UserError):
    """Another process holds the camera."""


@dataclass(frozen=True)
class StorageSize:
    """What a camera's tables take on the disk or in the store.

    Attributes:
        files: Number of files.
        bytes: Of all of them.
    """

    files: int
    bytes: int


class Catalog:
    """The crops of one camera and the log of what was said about them.

    Make one with :meth:`open` or :meth:`register`. Any number of processes may read and append at
    the same time; a command that must be alone takes :meth:`lock`.

    Attributes:
        folder: The camera's folder, ``<root>/<camera>``; of a camera in an object store the copy of
            it on this machine (:mod:`collabteam.storage.mirror`).
        place: The same for a person to read: a folder or an address.
        name: The camera.
        classes: The registered classes, one branch each, in this order; empty if none are yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self._mirror = Mirror.of(folder)
        self.place = str(folder) if self._mirror is None else self._mirror.store.url
        self.classes = _read_manifest(folder / MANIFEST)
        self._crops = Table(folder / "crops.lance")
        self._labels = Table(folder / "labels.lance")
        self._labels.add_missing_texts(LABEL_SCHEMA)
        Table(folder / "truth.lance")  # damage should show here, not in the midst of a command
        self._read = IndexBuilder()
        self._reading = threading.Lock()
        self._lock_depth = 0
        self._lock: Lock | None = None

    @classmethod
    def open(cls, root: str | Path, camera: str) -> Catalog:
        """Open a registered camera.

        Raises:
            UserError: There is no such camera under ``root``, or something of it is damaged.
        """
        folder = camera_folder(root, camera)
        pull(folder)
        if not (folder / MANIFEST).is_file():
            known = list(registered(root))
            near = difflib.get_close_matches(camera, known, n=3)
            named = [*near, *(name for name in known if name not in near)]
            listing = ", ".join(named[:8]) + (", ..." if len(named) > 8 else "")
            raise UserError(
                f"no camera {camera!r} under {root}: known are {listing or 'none'}; "
                f"'ingest camera={camera}' registers it"
            )
        return cls(folder)

    @classmethod
    def register(cls, root: str | Path, camera: str, classes: Sequence[str] = ()) -> Catalog:
        """Create a camera, or open the one of this name.

        Args:
            root: Folder under which every camera has its own.
            camera: The camera's name.
            classes: Its classes; empty leaves a new camera without and keeps those of an old one.

        Raises:
            UserError: The classes make no team, or others are registered already; or what
                :meth:`open` raises.
        """
        folder = camera_folder(root, camera)
        if classes:
            check_classes(list(classes))
        if mirror := Mirror.of(folder):
            mirror.pull()
        if not (folder / MANIFEST).is_file():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError, PermissionError) as error:
                raise UserError(f"{folder} cannot be made: {error.strerror}") from error
            if mirror is not None:
                mirror.store.check_conditions()
            Table.create(folder / "crops.lance", CROP_SCHEMA)
            Table.create(folder / "labels.lance", LABEL_SCHEMA)
            Table.create(folder / "truth.lance", TRUTH_SCHEMA)
            # Last, so that a camera which can be opened is complete.
            _write_manifest(folder, classes)
        catalog = cls(folder)
        if classes:
            catalog.set_classes(classes)
        return catalog

    def copy_to(self, root: str | Path) -> Catalog:
        """Copy the crops and what persons and detectors said of them under another root.

        What teams and simulated reviewers said is left behind, so that other settings begin on
        equal terms; which crops are the frozen test set is kept. Files that never change are
        linked, so a copy takes next to no space; a store copies them itself.

        Args:
            root: The other root, on the same machine or in the same bucket. A camera of this name
                that is there already is left as it is.

        Returns:
            The camera there.

        Raises:
            UserError: The disk is full, something is damaged, or the root is elsewhere.
        """
        to = camera_folder(root, self.name)
        if mirror := Mirror.of(to):
            mirror.pull()
        if (to / MANIFEST).is_file():
            return Catalog(to)
        if (mirror and mirror.store.bucket) != (self._mirror and self._mirror.store.bucket):
            raise UserError(
                f"{self.place} cannot be copied to {root}: expected another root on the same "
                "machine, or in the same bucket"
            )
        if mirror is not None and self._mirror is not None:
            for name in ("crops.lance", "truth.lance"):
                self._mirror.store.copy(name, mirror.store)
            Table.create(to / "labels.lance", LABEL_SCHEMA)
            self._copy_log(Table(to / "labels.lance"))
            _write_manifest(to, self.classes)
            return Catalog(to)
        partial = to.with_name(f".{to.name}.{os.getpid()}")
        try:
            with disk_errors():
                partial.mkdir(parents=True)
                for name in ("crops.lance", "truth.lance"):
                    with Table(self.folder / name).still():
                        shutil.copytree(self.folder / name, partial / name, copy_function=_link)
                Table.create(partial / "labels.lance", LABEL_SCHEMA)
            self._copy_log(Table(partial / "labels.lance"))
            classes = {"name": self.name, "classes": self.classes}
            write_atomically(partial / MANIFEST, yaml.safe_dump(classes, sort_keys=False))
            with suppress(OSError):  # somebody else was quicker
                partial.rename(to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return Catalog(to)

    def _copy_log(self, to: Table) -> None:
        if len(to):  # a copy that was killed
            return
        log = self.log()
        said = pc.is_in(log["source"], pa.array(["team", "rollback", "oracle"]))
        said = pc.and_(said, pc.not_equal(log["purpose"], "test"))
        to.append(log.filter(pc.invert(said)))

    def set_classes(self, classes: Sequence[str]) -> None:
        """Register the camera's classes; the same ones in another order change nothing.

        Raises:
            UserError: The classes make no team, or others are registered already.
        """
        check_classes(list(classes))
        self.classes = _read_manifest(self.folder / MANIFEST)
        if not self.classes:
            _write_manifest(self.folder, classes)
            self.classes = _read_manifest(self.folder / MANIFEST)  # in a store, another's perhaps
        if set(classes) != set(self.classes):
            raise UserError(
                f"camera {self.name} has the classes {', '.join(self.classes)}, not "
                f"{', '.join(classes)}: name these, or register another camera"
            )

    @contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Hold the camera for one command; the same object may take it again meanwhile.

        The lock is the system's, so it ends with the process however that ends; the file's content
        only tells others who holds it. In an object store it is a lease besides, which ends a
        minute after the process; what was made under it is in the store when it ends.

        Args:
            command: What to tell others, for example ``train``.

        Raises:
            CameraInUse: Somebody else holds it, and since when.
            UserError: The folder cannot be written, or the store does not answer.
        """
        if self._lock_depth == 0:
            try:
                if self._mirror is None:
                    self._lock = Lock(self.folder / "lock", {"command": command})
                else:
                    self._mirror.take({"command": command})
            except LockHeld as held:
                raise CameraInUse(
                    f"camera {self.name} is in use by {held.describe()}: wait for it or stop it"
                ) from held
        self._lock_depth += 1
        try:
            yield
            if self._lock_depth == 1:
                self.push()
        except BaseException:
            if self._lock_depth == 1:
                with suppress(UserError):  # of the two errors the first one says more
                    self.push()
            raise
        finally:
            self._lock_depth -= 1
            if self._lock_depth == 0 and self._lock is not None:
                self._lock.release()
            if self._lock_depth == 0 and self._mirror is not None:
                self._mirror.release()

    def push(self) -> None:
        """Bring what was made in :attr:`folder` up to the store, if the camera lives in one.

        The caller holds :meth:`lock`, whose end does the same: this is for steps before that.

        Raises:
            UserError: The store does not answer, or another command has taken over the camera.
        """
        if self._mirror is not None:
            self._mirror.push()

    def pull(self) -> None:
        """See in :attr:`folder` what others have brought up to the store meanwhile.

        Raises:
            UserError: The store does not answer, or the disk is full.
        """
        if self._mirror is not None:
            self._mirror.pull()

    def __len__(self) -> int:
        """Number of crops that this object has seen."""
        return len(self._crops)

    def _catch_up(self) -> None:
        """Read the crops that came since this object read last."""
        with self._reading:
            self._crops.refresh()
            self._read.reserve(len(self._crops), 0)
            for batch in self._crops.batches(CROP_COLUMNS, self._read.crops, len(self._crops)):
                self._read.add_crops(batch)

    def _lacking(self, crop_ids: set[str]) -> set[str]:
        """Those of these names that no crop has."""
        if not self._read.crops and len(crop_ids) <= BATCH_CROPS:
            # Whoever asks once need not have all names in memory.
            return crop_ids - self._crops.holding("crop_id", crop_ids)
        self._catch_up()
        return self._read.lacking(crop_ids)

    def add_crops(self, crops: Iterable[Crop]) -> list[tuple[str, bool]]:
        """Add crops; those that are there already, or come twice, are added once.

        Args:
            crops: May be a generator: at most 4,096 crops or about 64 MB are held at a time, and
                that is also what one commit takes.

        Returns:
            For each crop its name and whether it is new.

        Raises:
            UserError: The disk is full; the batches before are in the catalog.
        """
        self._catch_up()
        result: list[tuple[str, bool]] = []
        for batch in _batched(crops):
            lacking = self._read.lacking({crop.crop_id for crop in batch})
            new: list[Crop] = []
            for crop in batch:
                result.append((crop.crop_id, crop.crop_id in lacking))
                if crop.crop_id in lacking:
                    lacking.remove(crop.crop_id)
                    new.append(crop)
            if new:
                self._check_held()
                self._crops.append(crops_to_table(new))
                self._catch_up()
        return result

    def _check_held(self) -> None:
        """Of a command that takes the lock: make sure that nobody else has it by now."""
        if self._lock_depth and self._mirror is not None:
            self._mirror.check()

    def append_labels(self, events: Sequence[LabelEvent]) -> int:
        """Append events to the log, all of them or none, in one atomic commit.

        Args:
            events: In the order in which they shall stand.

        Returns:
            How many were appended.

        Raises:
            ValueError: An event is about a crop that the catalog does not have.
            UserError: A label is none of the camera's classes (if it has any), ``unknown`` or
                ``unusable``; or the disk is full.
        """
        if not events:
            return 0
        self.check_labels({event.label for event in events})
        unknown = self._lacking({event.crop_id for event in events} - {""})
        if unknown:
            raise ValueError(f"{len(unknown)} crops are not in {self.place}: {min(unknown)}, ...")
        self._check_held()
        self._labels.append_few(events_to_table(events))
        return len(events)

    def check_labels(self, labels: Iterable[str]) -> None:
        """Raise unless each label may be given to a crop of this camera.

        Raises:
            UserError: Names the labels that may not.
        """
        allowed = {*self.classes, UNKNOWN, UNUSABLE, ""}
        foreign = sorted(set(labels) - allowed)
        if self.classes and foreign:
            raise UserError(
                f"camera {self.name} has no class {', '.join(foreign[:5])}"
                f"{', ...' if len(foreign) > 5 else ''}: its classes are "
                f"{', '.join(self.classes)}, and '{UNKNOWN}' and '{UNUSABLE}' are allowed"
            )

    def log(self, columns: Sequence[str] = tuple(LABEL_SCHEMA.names)) -> pa.Table:
        """What was said about the crops, oldest first.

        Args:
            columns: Which fields of :class:`LabelEvent`.

        Returns:
            One row per event.

        Raises:
            UserError: The table is damaged.
        """
        self._labels.refresh()
        return self._labels.read(columns)

    def log_version(self) -> int:
        """Number of the log's last commit: it grows whenever anybody says anything.

        Raises:
            UserError: The table is damaged.
        """
        self._labels.refresh()
        return self._labels.version

    def log_size(self) -> int:
        """Number of events in the log that this object has seen."""
        return len(self._labels)

    def index(self) -> CropIndex:
        """What every crop is called now.

        Raises:
            UserError: A table is damaged.
        """
        # The log first: every crop that it speaks of is then in the crops that follow.
        self._labels.refresh()
        events = len(self._labels)
        self._catch_up()
        with self._reading:
            self._read.group()  # before there are events in memory, too
            self._read.reserve(0, events)
            for batch in self._labels.batches(LOG_COLUMNS, self._read.events, events):
                self._read.add_events(batch)
            return self._read.index()

    def compact(
        self, advance: Callable[[int], None] | None = None
    ) -> tuple[StorageSize, StorageSize]:
        """Merge small files, and remove those that nobody needs any more; nothing is said anew.

        Row numbers and the order of the log stay. Others may read meanwhile; who adds something
        waits until a table is done; in an object store nobody waits, and what was replaced within
        the hour is removed by a later call. A kill costs nothing but the time.

        Args:
            advance: Called with the number of rows just merged.

        Returns:
            What the tables took before and what they take now.

        Raises:
            UserError: The disk is full, a table is damaged, or the store does not answer.
        """
        before = self._stored()
        for name, rows in _MERGED.items():
            Table(self.folder / f"{name}.lance").compact(rows, advance)
        return before, self._stored()

    def _stored(self) -> StorageSize:
        if self._mirror is not None:
            sizes = [size for name in _MERGED for size in self._mirror.store.sizes(f"{name}.lance")]
            return StorageSize(len(sizes), sum(sizes))
        sizes = []
        for file in self.folder.glob("*.lance/**/*"):
            with suppress(FileNotFoundError):  # somebody is writing
                if file.is_file():
                    sizes.append(file.stat().st_size)
        return StorageSize(len(sizes), sum(sizes))

    def images(self, rows: npt.ArrayLike) -> list[bytes]:
        """Encoded pictures by row number of :class:`CropIndex`.

        Args:
            rows: Shape ``(K,)``, integers, in any order; may repeat.

        Returns:
            K encoded pictures, in the order asked.

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
        """Where crops came from: ``video``, ``track``, ``frame``, ``time`` and ``box`` of each.

        Args:
            rows: Shape ``(K,)``: row numbers of :class:`CropIndex`, in any order.

        Returns:
            K times the fields of :class:`Crop` but the picture, in the order asked.

        Raises:
            IndexError: A row is negative or beyond the last crop.
            UserError: The table is damaged.
        """
        numbers = np.asarray(rows, dtype=np.int64).tolist()
        columns = ["video", "track", "frame", "time", "box"]
        return list(self._crops.take(numbers, columns).to_pylist()) if numbers else []


def _link(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, to)


def registered(root: str | Path) -> dict[str, Path]:
    """Every registered camera under a root.

    Args:
        root: A folder, or ``s3://bucket/prefix``.

    Returns:
        The file with its name and classes, by its name; in ascending order of names.

    Raises:
        UserError: The root is no such address, or the store does not answer or let us in.
    """
    folder = root_folder(root)
    store = Store.of(folder)
    if store is None:
        return {file.parent.name: file for file in sorted(folder.glob(f"*/{MANIFEST}"))}
    found: dict[str, Path] = {}

    def look(name: str) -> None:
        if manifest := store.read(f"{name}/{MANIFEST}"):
            file = found[name] = folder / name / MANIFEST
            if not file.exists() or file.read_bytes() != manifest.content:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, manifest.content.decode())

    together(look, store.folders())
    return dict(sorted(found.items()))


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


def _write_manifest(folder: Path, classes: Sequence[str]) -> None:
    content = {"name": folder.name, "classes": list(classes)}
    text = yaml.safe_dump(content, sort_keys=False)
    if mirror := Mirror.of(folder):
        mirror.write_manifest(text)
    else:
        write_atomically(folder / MANIFEST, text)


def _read_manifest(path: Path) -> list[str]:
    """The classes in a camera's manifest."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        classes = content["classes"]
        if content["name"] != path.parent.name:
            raise ValueError(f"the name is {content['name']!r}")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("the classes are no list of names")
        if classes:
            check_classes(classes)
    except (OSError, ValueError, KeyError, TypeError, UserError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is damaged ({reason}): expected 'name: {path.parent.name}' and "
            "'classes: [...]'; write these two lines again"
        ) from error
    return list(classes)
