"""Between a video and the catalog: crops wait in one file per video until they are committed.

A video's crops are written to a hidden file. When the video has been read to its end the file is
sealed: renamed to ``<id>.parquet``, with the video's record inside. Sealed files of any number of
videos go into the catalog in one commit, then a record says for good that the video is done. So
whatever is killed whenever, a video counts once or not at all: an unsealed file is begun again, a
sealed one is committed again, and crops that are there already add nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from collabteam.catalog import Catalog, Crop
from collabteam.errors import UserError
from collabteam.settings import UNKNOWN
from collabteam.sources.crops import Item, Labels, ingest_source
from collabteam.storage.files import replacing, write_json
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


@dataclass
class VideoRecord:
    """What became of one video.

    Attributes:
        id: 24 hexadecimal digits: of the file's content; of a stream, of its address and begin.
        name: What its crops name as their video: the file's name and the first digits of ``id``.
        path: Where it was; of a stream, its address without a password.
        size: Of the file, in bytes.
        changed: Of the file: when it was changed last, in nanoseconds.
        start: When the recording began, in Unix seconds; None if nobody knows.
        duration: Seconds of footage that were read.
        frames: Frames that were analysed.
        detections: Boxes that the detector found.
        tracks: Tracks that the tracker made of them.
        objects: Objects, after joining the tracks that belong together, by proposed label.
        crops: Crops kept.
        faults: What was wrong with the file, in order.
        seconds: How long each stage took: ``decode`` (waiting for frames), ``detect``, ``track``
            (fusing and linking included), ``crop``, ``total``.
        settings: The settings that made it.
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


class Spool:
    """Videos that were read, of one camera.

    Args:
        workspace: The camera's files.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.incoming, self.videos = workspace.incoming, workspace.videos
        for made in (self.incoming, self.videos):
            try:
                made.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{made} cannot be made: {error.strerror}") from error

    def record(self, video: str) -> VideoRecord | None:
        """What became of a video, by its id; None if it is not in the catalog yet."""
        file = self.videos / f"{video}.json"
        try:
            return VideoRecord(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{file} is damaged ({error}): remove it, and the video is read again; crops that "
                "are in the catalog already are recognised if the settings are the same"
            ) from error

    def known_files(self) -> dict[tuple[str, int, int], VideoRecord]:
        """Every video that is done, by path, size and time of change: spares reading it to know."""
        records = [self.record(file.stem) for file in self.videos.glob("[!.]*.json")]
        return {(done.path, done.size, done.changed): done for done in records if done is not None}

    def waiting(self, video: str) -> VideoRecord | None:
        """The record of a video that was read to its end and waits for the catalog, by its id."""
        try:
            return read_record(self.incoming / f"{video}.parquet")
        except FileNotFoundError:
            return None

    @contextmanager
    def claim(self, video: str) -> Iterator[str]:
        """Keep others from reading the same video at the same time.

        Yields:
            ``""``, or who is reading it: then leave it alone. The claim is the system's lock on a
            file, so it ends with the process however that ends.
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
        """Write the crops of one video; sealed when the block ends without an exception.

        Args:
            record: Written into the file as it is when the block ends.
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
        """Files that wait for the catalog, in a fixed order."""
        return sorted(self.incoming.glob("[!.]*.parquet"))

    def done(self, files: list[Path]) -> list[VideoRecord]:
        """Note that the crops in these files are in the catalog, and remove the files."""
        records = []
        for file in files:
            record = read_record(file)
            self.note(record)
            file.unlink(missing_ok=True)
            records.append(record)
        return records

    def note(self, record: VideoRecord) -> None:
        """Note what became of a video, for good."""
        file = self.videos / f"{record.id}.json"
        with self.workspace.publishing(file):
            write_json(file, asdict(record))
        (self.incoming / f"{record.id}.lock").unlink(missing_ok=True)


class SpoolFile:
    """The crops of one video on their way to disk, a few hundred in memory at a time."""

    def __init__(self, sink: BinaryIO, record: VideoRecord) -> None:
        self.record = record
        self._writer = pq.ParquetWriter(sink, _SCHEMA, compression="none")
        self._rows: list[tuple[Crop, str]] = []

    def add(self, crop: Crop, proposed: str) -> None:
        """Add one crop and what it is proposed as."""
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
        """Write what is left, and the record."""
        if self._rows:
            self._flush()
        self._writer.add_key_value_metadata({_RECORD: json.dumps(asdict(self.record)).encode()})
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file."""
        with suppress(Exception):
            self._writer.close()


def read_record(file: Path) -> VideoRecord:
    """The record inside a sealed file.

    Raises:
        FileNotFoundError: It is not there any more: somebody has committed it.
        UserError: The file is damaged.
    """
    try:
        metadata = pq.read_metadata(file).metadata
        return VideoRecord(**json.loads(metadata[_RECORD]))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(
            f"{file} is damaged ({error}): remove it, and its video is read again"
        ) from error


class SpooledSource:
    """Sealed files as a source of crops, see :class:`collabteam.sources.crops.Source`.

    Args:
        files: The files.
        labels: All labels that occur.
    """

    meaning: Labels = "proposed"
    ignored = 0
    answers = True

    def __init__(self, files: list[Path], labels: set[str]) -> None:
        self._files = files
        self.labels = labels
        self.total = sum(read_record(file).crops for file in files)

    def items(self) -> Iterator[Item]:
        """The crops, in the order in which they were written."""
        for path in self._files:
            try:
                with pq.ParquetFile(path, pre_buffer=False) as file:
                    for batch in file.iter_batches(_ROWS):
                        for row in batch.to_pylist():
                            yield _item(path, row)
            except (OSError, pa.ArrowException) as error:
                raise UserError(
                    f"{path} is damaged ({error}): remove it, and its video is read again"
                ) from error


def _item(path: Path, row: dict[str, Any]) -> Item:
    origin = {name: row[name] for name in ("video", "track", "frame")}
    if row["time"] is not None:
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
        The videos that are done now.

    Raises:
        UserError: Another command holds the camera, or the disk is full; nothing is lost.
    """
    with catalog.workspace.transaction("ingest"):
        # Under the lock: what another one commits meanwhile is gone, or, in a store, on record.
        for file in spool.sealed():
            if spool.record(file.stem) is not None:
                file.unlink(missing_ok=True)
        files = spool.sealed()
        if not files:
            return []
        labels = {*catalog.classes, UNKNOWN}
        ingest_source(catalog, SpooledSource(files, labels))
        return spool.done(files)
