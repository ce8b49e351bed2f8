"""The spool between videos and the catalog: one file of crops per video until they are committed.

A video's crops are written to a hidden file. When the video has been read to its end, the file is
sealed: renamed to ``<id>.parquet``, with the video's record inside. One commit puts the sealed
files of any number of videos into the catalog; then a saved record marks each video as done. A
process that is killed at any time therefore leaves a video ingested once or not at all: an unsealed
file is written again from the start, a sealed one is committed again, and crops that the catalog
already has add nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from collabteam.catalog import Catalog, Crop
from collabteam.catalog.times import is_time
from collabteam.errors import UserError, first_line
from collabteam.settings import UNKNOWN
from collabteam.sources.base import Aside, Item, Labels
from collabteam.sources.crops import ingest_source
from collabteam.storage.files import make_folder, parse_json, replacing, write_json
from collabteam.storage.locks import Lock, LockHeld
from collabteam.storage.workspace import Workspace

_SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary()),
        pa.field("proposed", pa.string()),
        pa.field("video", pa.string()),
        pa.field("track", pa.string()),
        pa.field("frame", pa.int64()),
        pa.field("time", pa.float64()),
        pa.field("box", pa.list_(pa.float64(), 4)),
    ]
)
_ROWS = 256
_RECORD = b"collabteam.video"
_TABLES = {"objects": dict, "faults": list, "seconds": dict, "settings": dict}


@dataclass
class VideoRecord:
    """The record of one ingested video.

    Attributes:
        id: Hash of 24 hexadecimal digits: of a file's content, or of a stream's address and start.
        name: The ``video`` of its crops: the file's name and the first digits of ``id``.
        path: Path of the file, or address of the stream without its password.
        size: Size of the file in bytes.
        changed: Time of the file's last change, in nanoseconds.
        start: When the recording began, in Unix seconds; None if it is not known.
        duration: Seconds of footage that were read.
        frames: Frames that were analysed.
        detections: Boxes that the detector found.
        tracks: Tracks from the tracker, before linking.
        objects: Number of kept objects after linking, by proposed label.
        crops: Crops kept.
        faults: Faults of the file, in the order of their occurrence.
        seconds: Duration of each stage: ``decode`` (waiting for frames), ``detect``, ``track``
            (fusion and linking included), ``crop``, ``total``.
        settings: The settings of the ingest.
        remark: What the video states about how to show it that was not done; ``""`` for nothing.
        as_shown: Whether boxes are those of frames as players show them. Versions without this
            entry turned frames, but neither mirrored them nor made their pixels square.
    """

    id: str
    name: str
    path: str
    size: int = 0
    changed: int = 0
    start: float | None = None
    duration: float = 0.0
    frames: int = 0
    detections: int = 0
    tracks: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    crops: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    remark: str = ""
    as_shown: bool = False


class Spool:
    """The video records and spool files of one camera.

    Args:
        workspace: The camera's files.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.incoming, self.videos = workspace.incoming, workspace.videos
        for made in (self.incoming, self.videos):
            make_folder(made)

    def record(self, video: str) -> VideoRecord | None:
        """Return a video's record by its id; None if the video is not in the catalog yet."""
        file = self.videos / f"{video}.json"
        try:
            return parse_record(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} is damaged ({error}): remove it, and the video is read again; crops that "
                "are in the catalog already are recognised if the settings are the same"
            ) from error

    def known_files(self) -> dict[tuple[str, int, int], VideoRecord]:
        """Return all ingested videos by path, size and time of change, to avoid hashing files."""
        records = [self.record(file.stem) for file in self.videos.glob("[!.]*.json")]
        return {(done.path, done.size, done.changed): done for done in records if done is not None}

    def waiting(self, video: str) -> VideoRecord | None:
        """Return the record of a sealed video by its id; None if none waits for the catalog."""
        try:
            return read_record(self.incoming / f"{video}.parquet")
        except FileNotFoundError:
            return None

    @contextmanager
    def claim(self, video: str) -> Iterator[str]:
        """Prevent other processes from reading the same video at the same time.

        The claim is a file lock of the operating system, so it ends with the process.

        Yields:
            ``""`` if the claim was granted; else a description of the process that has it.
        """
        try:
            lock = Lock(self.incoming / f"{video}.lock", {"command": "ingest"})
        except LockHeld as held:
            yield held.describe()
            return
        try:
            yield ""
        finally:
            lock.release()

    @contextmanager
    def writing(self, record: VideoRecord) -> Iterator[SpoolFile]:
        """Write the crops of one video; seal the file when the block ends without an exception.

        Args:
            record: The video's record; its state at the end of the block is written to the file.

        Yields:
            The file to which crops are added.
        """
        with replacing(self.incoming / f"{record.id}.parquet") as sink:
            file = SpoolFile(sink, record)
            try:
                yield file
                file.close()
            except BaseException:
                file.abandon()
                raise

    def sealed(self) -> list[Path]:
        """Return the files that wait for the catalog, sorted."""
        return sorted(self.incoming.glob("[!.]*.parquet"))

    def done(self, files: list[Path]) -> list[VideoRecord]:
        """Save the records of files whose crops are in the catalog, and remove the files."""
        records = []
        for file in files:
            record = read_record(file)
            self.note(record)
            file.unlink(missing_ok=True)
            records.append(record)
        return records

    def note(self, record: VideoRecord) -> None:
        """Save a video's record, which marks the video as done."""
        file = self.videos / f"{record.id}.json"
        with self.workspace.publishing(file):
            write_json(file, asdict(record))
        (self.incoming / f"{record.id}.lock").unlink(missing_ok=True)


class SpoolFile:
    """Writes the crops of one video to disk, with at most a few hundred in memory."""

    def __init__(self, sink: BinaryIO, record: VideoRecord) -> None:
        self.record = record
        self._writer = pq.ParquetWriter(sink, _SCHEMA, compression="none")
        self._rows: list[tuple[Crop, str]] = []

    def add(self, crop: Crop, proposed: str) -> None:
        """Add one crop with its proposed label."""
        self._rows.append((crop, proposed))
        self.record.crops += 1
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        crops = [crop for crop, _ in self._rows]
        columns = {
            "image": [crop.image for crop in crops],
            "proposed": [label for _, label in self._rows],
            "video": [crop.video for crop in crops],
            "track": [crop.track for crop in crops],
            "frame": [crop.frame for crop in crops],
            "time": [None if math.isnan(crop.time) else crop.time for crop in crops],
            "box": [list(crop.box or ()) for crop in crops],
        }
        self._writer.write_table(pa.table(columns, schema=_SCHEMA))
        self._rows = []

    def close(self) -> None:
        """Write the remaining crops and the record."""
        if self._rows:
            self._flush()
        self._writer.add_key_value_metadata({_RECORD: json.dumps(asdict(self.record)).encode()})
        self._writer.close()

    def abandon(self) -> None:
        """Close the file without completing it."""
        with suppress(Exception):
            self._writer.close()


def parse_record(text: bytes) -> VideoRecord:
    """Read a record from its JSON.

    Raises:
        ValueError: It is no record of a video.
    """
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}")
    try:
        record = VideoRecord(**content)
    except TypeError as error:
        raise ValueError(str(error)) from error
    for one in fields(VideoRecord):
        value, plain = getattr(record, one.name), type(one.default)
        if one.name in _TABLES:
            plain = _TABLES[one.name]
        elif one.name == "start":
            plain = type(None) if value is None else float
        elif one.default is MISSING:
            plain = str
        if type(value) is not plain and not (plain is float and type(value) is int):
            raise ValueError(f"{one.name}: {value!r:.40}")
    numbers = [*record.objects.values(), *record.seconds.values()]
    if not all(type(number) in (int, float) for number in numbers):
        raise ValueError("objects and seconds that are no numbers")
    if not all(type(fault) is str for fault in record.faults):
        raise ValueError("faults that are no texts")
    return record


def read_record(file: Path) -> VideoRecord:
    """Read the record inside a sealed file.

    Raises:
        FileNotFoundError: The file is gone because another process has committed it.
        UserError: The file is damaged.
    """
    try:
        metadata = pq.read_metadata(file).metadata
        return parse_record(metadata[_RECORD])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(
            f"{file} is damaged ({error}): remove it, and its video is read again"
        ) from error


class SpooledSource:
    """Sealed files as a source of crops, see :class:`collabteam.sources.base.Source`.

    Args:
        files: The files.
        labels: All labels that may occur.
    """

    meaning: Labels = "proposed"
    answers = True

    def __init__(self, files: list[Path], labels: set[str]) -> None:
        self._files = files
        self.aside, self.classes = Aside(), list[str]()
        self.labels = labels
        self.total = sum(read_record(file).crops for file in files)

    def items(self) -> Iterator[Item]:
        """Yield the crops in the order in which they were written."""
        for path in self._files:
            try:
                with pq.ParquetFile(path, pre_buffer=False) as file:
                    for batch in file.iter_batches(_ROWS):
                        for row in batch.to_pylist():
                            yield _item(path, row)
            except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
                raise UserError(
                    f"{path} is damaged ({first_line(error)}): remove it, and its video is read "
                    "again"
                ) from error


def _item(path: Path, row: dict[str, Any]) -> Item:
    origin = {name: row[name] for name in ("video", "track", "frame")}
    if row["time"] is not None and is_time(row["time"]):  # a damaged clock does not stop the rest
        origin["time"] = row["time"]
    return Item(
        f"{path} {row['video']} track {row['track']} frame {row['frame']}",
        row["image"],
        given={"proposed": row["proposed"]},
        origin=origin | {"box": tuple(row["box"])},
    )


def commit(catalog: Catalog, spool: Spool) -> list[VideoRecord]:
    """Put the crops of every sealed file into the catalog.

    Args:
        catalog: The camera.
        spool: Its spool.

    Returns:
        The records of the committed videos.

    Raises:
        UserError: Another command holds the camera, or the disk is full; nothing is lost.
    """
    with catalog.workspace.transaction("ingest"):
        # Another machine that shares the store may have committed the same video already.
        for file in spool.sealed():
            if spool.record(file.stem) is not None:
                file.unlink(missing_ok=True)
        files = spool.sealed()
        if not files:
            return []
        labels = {*catalog.classes, UNKNOWN}
        ingest_source(catalog, SpooledSource(files, labels))
        return spool.done(files)
