"""The pipeline from videos to crops in the catalog.

    frames -> detector -> fusion of riders -> tracker -> linker -> best pictures -> spool -> catalog

Each video is read to its end before any of its crops reach the catalog (see :mod:`.spool`), so a
killed command resumes with the video that it was reading.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, Crop
from collabteam.errors import UserError, first_line
from collabteam.events import Advance, Listener
from collabteam.machine import processors
from collabteam.settings import UNKNOWN, IngestConfig, check
from collabteam.sources.base import Aside
from collabteam.storage.workspace import CameraInUse, Workspace, registered
from collabteam.video.crops import (
    BestShots,
    Candidate,
    choose,
    encode,
    inside_region,
    region_mask,
    visibility,
)
from collabteam.video.detection import Detector, open_detector
from collabteam.video.footage import (
    Footage,
    FootageError,
    check_footage,
    content_hash,
    find_videos,
    is_stream,
    open_footage,
    safe_path,
    start_time,
)
from collabteam.video.linking import LinkedTrack, Linker, kind_of
from collabteam.video.objects import Frame, Objects
from collabteam.video.preview import PreviewTrack, write_preview
from collabteam.video.riders import PARTS, fuse
from collabteam.video.spool import Spool, SpoolFile, VideoRecord, commit, read_record
from collabteam.video.tracking import open_tracker

CLASSES = ("pedestrian", "cyclist", "motorcyclist")
"""The classes that the fusion of riders distinguishes, which are the paper's three. They are the
default classes of a camera."""
_COMMIT_CROPS = 4096
_COMMIT_SECONDS = 600.0
"""A commit waits for this many crops or seconds, because each commit creates a version of the
catalog's tables."""
_SEGMENT = 600.0
"""Seconds of a stream that make one video: the most that a kill can lose."""


@dataclass
class FootageSummary:
    """The result of one ingest of footage.

    Attributes:
        read: Videos that were read by this run, or by an earlier one that did not commit them.
        known: Videos that were in the catalog before.
        busy: Path of each video that another process is reading, and a description of the process.
        failed: Path of each video that could not be finished, and the reason; the next run tries
            again.
        previews: Clips and contact sheets that were written.
        aside: What was left aside at the path, such as folders that this user may not read.
        total: Crops in the catalog after the ingest.
        seconds: Duration of the ingest in seconds.
    """

    read: list[VideoRecord] = field(default_factory=list)
    known: list[VideoRecord] = field(default_factory=list)
    busy: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    previews: list[Path] = field(default_factory=list)
    aside: Aside = field(default_factory=Aside)
    total: int = 0
    seconds: float = 0.0


def ingest_footage(
    config: IngestConfig, listener: Listener | None = None, detector: Detector | None = None
) -> FootageSummary:
    """Read footage and put the crops of the objects in it into a camera's catalog.

    Args:
        config: All settings; a camera without classes gets pedestrian, cyclist and motorcyclist.
        listener: Receives progress and warnings; silent if None.
        detector: Used instead of the one that ``config.detector`` describes; with ``workers`` above
            1 it has to be picklable.

    Returns:
        The result.

    Raises:
        UserError: The user has to change something. Nothing is lost: videos that were read to their
            end are in the catalog or in the spool.
    """
    began = time.monotonic()
    listener = listener or Listener()
    check(config)
    check_footage(config.camera.footage)
    aside = Aside()
    paths = _outside_root(find_videos(config.path, config.follow_links, aside), config.root)
    config = _with_classes(config)
    kinds = detector_kinds(config)
    streaming = is_stream(paths[0])
    if streaming and config.preview:
        listener.warn("preview=true: a stream cannot be read a second time, so there is no preview")
        config = replace(config, preview=False)
    # Checked before the camera is registered, so that an error leaves nothing behind. Among several
    # videos, bad ones are recorded. A stream is opened once, because it may allow no second client.
    stream = open_footage(paths[0], config.fps, config.limit) if streaming else None
    if not streaming and (len(paths) == 1 or not _is_registered(config)):
        _check_any_opens(paths)
    open_tracker(config.tracker, config.reid, config.fps or 25.0)
    detector = detector or open_detector(config.detector, kinds)
    catalog = Catalog.register(config.root, config.camera.name, config.camera.classes)
    run = _IngestRun(config, catalog, Spool(catalog.workspace), listener, detector)
    run.summary.aside = aside
    run.commit(wait=False, now=True)  # files sealed by an earlier run
    try:
        if stream is not None:
            run.read_stream(paths[0], stream)
        else:
            run.read_files(paths)
    except KeyboardInterrupt:
        run.commit(wait=False, now=True)
        raise
    run.commit(wait=True)
    run.summary.total = len(Catalog(catalog.workspace))
    run.summary.seconds = time.monotonic() - began
    return run.summary


def _is_registered(config: IngestConfig) -> bool:
    return config.camera.name in registered(config.root)


def _outside_root(paths: list[str], root: str) -> list[str]:
    """Leave out videos under ``root``: previews are not footage."""
    ours = Path(root).resolve()
    kept = [path for path in paths if is_stream(path) or ours not in Path(path).resolve().parents]
    if not kept:
        raise UserError(
            f"path: all {len(paths)} videos are under root={root}, where previews are kept: keep "
            "footage elsewhere"
        )
    return kept


def detector_kinds(config: IngestConfig) -> tuple[str, ...]:
    """List the detector's kinds that the camera's classes need.

    Args:
        config: The classes and ``keep_unknown`` are used.

    Returns:
        Kinds by the detector's names.

    Raises:
        UserError: The settings contradict each other.
    """
    kinds = [*config.camera.classes, *config.keep_unknown]
    riders = [name for name in kinds if name in CLASSES]
    if riders and "person" in kinds:
        raise UserError(
            f"classes person and {riders[0]} cannot be used together: every person is a "
            "pedestrian, a cyclist or a motorcyclist, or else name 'person' alone"
        )
    names = [*PARTS] if riders else []
    return tuple(dict.fromkeys([*names, *(kind for kind in kinds if kind not in CLASSES)]))


def _with_classes(config: IngestConfig) -> IngestConfig:
    classes = config.camera.classes
    if not classes and _is_registered(config):
        classes = Catalog.open(config.root, config.camera.name).classes
    camera = replace(config.camera, classes=list(classes or CLASSES))
    return replace(config, camera=camera)


def _check_any_opens(paths: Sequence[str]) -> None:
    reasons = []
    for path in paths:
        try:
            with open_footage(path):
                return
        except FootageError as error:
            reasons.append(str(error))
    others = f" (and {len(reasons) - 1} more files that cannot be read)" if len(reasons) > 1 else ""
    raise UserError(f"{reasons[0]}{others}")


class _IngestRun:
    """One run of the command over any number of videos."""

    def __init__(
        self,
        config: IngestConfig,
        catalog: Catalog,
        spool: Spool,
        listener: Listener,
        detector: Detector,
    ) -> None:
        self.config, self.catalog, self.spool = config, catalog, spool
        self.listener, self.detector = listener, detector
        self.summary = FootageSummary()
        self._last_commit = time.monotonic()

    def read_files(self, paths: Sequence[str]) -> None:
        """Read every video that is not in the catalog yet, with commits in between."""
        known = self.spool.known_files()
        left: dict[str, int] = {}
        for path in paths:
            try:
                key = _file_key(path)
            except OSError as error:
                self._take(_Outcome(path, failed=f"cannot be read: {error.strerror}"))
                continue
            if key in known:
                self._skip(path, known[key])
            else:
                left[path] = key[1]
        title = f"reading {len(left)} videos" if len(left) > 1 else f"reading {''.join(left)}"
        with self.listener.stage(safe_path(title), sum(left.values()), "bytes") as advance:
            if self.config.workers > 1 and len(left) > 1:
                outcomes = _in_workers(list(left), self.config, self.detector, advance)
            else:
                outcomes = (
                    _read_path(path, self.config, self.detector, self.spool, advance)
                    for path in left
                )
            for outcome in outcomes:
                self._take(outcome)
                self.commit(wait=False)
            frames = sum(record.frames for record in self.summary.read)
            advance(0, f"{frames} frames, {self._objects()} objects")

    def read_stream(self, path: str, footage: Footage) -> None:
        """Read a stream to its end or limit, with commits in between."""
        total = int(self.config.limit) or None
        with (
            footage,
            self.listener.stage(f"reading {safe_path(path)}", total, "seconds") as advance,
        ):
            for record in _read_stream(
                path, footage, self.config, self.detector, self.spool, advance
            ):
                self._take(_Outcome(path, read=[record]))
                self.commit(wait=False)

    def _objects(self) -> int:
        return sum(sum(record.objects.values()) for record in self.summary.read)

    def _take(self, outcome: _Outcome) -> None:
        path = safe_path(outcome.path)
        if outcome.stop:
            raise UserError(outcome.stop)
        if outcome.busy:
            self.summary.busy.append((path, outcome.busy))
            self.listener.warn(f"{path} is being read by {outcome.busy}: left to it")
        elif outcome.failed:
            self.summary.failed.append((path, outcome.failed))
            self.listener.warn(f"{path}: {outcome.failed}; tried again the next time")
        elif outcome.known is not None:
            self._skip(outcome.path, outcome.known)
        if outcome.remark:
            self.listener.warn(f"{path}: {outcome.remark}")
        self.summary.previews += outcome.previews
        for record in outcome.read:
            if any(record.id == other.id for other in self.summary.read):
                self.summary.known.append(record)  # the same video under another name
                continue
            self.summary.read.append(record)
            for fault in [*record.faults, *([record.remark] if record.remark else [])]:
                self.listener.warn(f"{record.path}: {fault}")

    def _skip(self, path: str, record: VideoRecord) -> None:
        self.summary.known.append(record)
        changed = [
            name for name, value in settings_of(self.config).items()
            if record.settings.get(name) != value
        ]  # fmt: skip
        if changed and record.frames:
            self.listener.warn(
                f"{safe_path(path)} was read with other settings ({', '.join(changed)}) and stays "
                "as it is: to read it again, use another root=..."
            )

    def commit(self, wait: bool, now: bool = False) -> None:
        """Put sealed files into the catalog.

        Args:
            wait: Commit at once, and wait while another process holds the camera.
            now: Commit at once. By default, a commit happens only when it is due.
        """
        crops = 0
        waiting = self.spool.sealed()
        for file in waiting:
            with suppress(FileNotFoundError):  # another process committed it
                crops += read_record(file).crops
        due = crops >= _COMMIT_CROPS or time.monotonic() - self._last_commit > _COMMIT_SECONDS
        if not waiting or not (wait or now or due):
            return
        reported = False
        while True:
            try:
                commit(self.catalog, self.spool)
                break
            except CameraInUse as error:
                # During the run, go on reading; at the end, wait for the lock.
                if not wait:
                    return
                if not reported:
                    self.listener.warn(f"{crops} crops wait for the catalog: {error}")
                reported = True
                time.sleep(2.0)
        self._last_commit = time.monotonic()


def settings_of(config: IngestConfig) -> dict[str, Any]:
    """The settings on which the crops of a video depend."""
    names = ("fps", "detector", "tracker", "reid", "keep_unknown", "crops_per_track", "cut")
    whole = asdict(config)
    kept = {name: whole[name] for name in names}
    del kept["detector"]["batch_size"]
    return kept | {"classes": sorted(config.camera.classes)} | asdict(config.camera.footage)


def _file_key(path: str) -> tuple[str, int, int]:
    """Identify a file's current state without reading it: path, size and time of change."""
    status = Path(path).stat()
    return safe_path(str(Path(path).resolve())), status.st_size, status.st_mtime_ns


# -- one video -------------------------------------------------------------------------------------


@dataclass
class _Outcome:
    path: str
    read: list[VideoRecord] = field(default_factory=list)
    known: VideoRecord | None = None
    busy: str = ""
    failed: str = ""
    stop: str = ""  # a reason to stop that affects all videos
    remark: str = ""
    previews: list[Path] = field(default_factory=list)


def _read_path(
    path: str, config: IngestConfig, detector: Detector, spool: Spool, advance: Advance
) -> _Outcome:
    """Read one video into the spool, unless it is there already; never raises an exception."""
    share: _ProgressShare | None = None
    try:
        key = _file_key(path)
        share = _ProgressShare(key[1], advance)
        return _read_file(path, key, config, detector, spool, share)
    except FootageError as error:
        return _Outcome(path, failed=error.reason)
    except UserError as error:
        return _Outcome(path, stop=str(error))
    except Exception as error:  # one bad video must not end a night's work
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return _Outcome(path, failed=" ".join(reason.split()))
    finally:
        if share is not None:
            share.finish()


def _read_file(
    path: str,
    key: tuple[str, int, int],
    config: IngestConfig,
    detector: Detector,
    spool: Spool,
    share: _ProgressShare,
) -> _Outcome:
    video = content_hash(path)
    if (known := spool.record(video)) is not None:
        return _Outcome(path, known=_refreshed(spool, known, key))
    with spool.claim(video) as reader:
        if reader:
            return _Outcome(path, busy=reader)
        # Check in this order: a commit saves the record before it removes the file.
        if (waiting := spool.waiting(video)) is not None:
            return _Outcome(path, read=[waiting])
        if (known := spool.record(video)) is not None:
            return _Outcome(path, known=known)
        name = Path(safe_path(path)).name
        record = VideoRecord(
            video, f"{name}@{video[:8]}", *key, settings=settings_of(config), as_shown=True
        )
        try:
            with open_footage(path, config.fps) as footage, spool.writing(record) as file:
                start = start_time(name, config.camera.footage, footage.created)
                if config.camera.footage.start and np.isnan(
                    start_time(name, config.camera.footage, None)
                ):
                    pattern = config.camera.footage.start
                    record.faults.append(f"its name has no time: expected {pattern} in it")
                share.duration = footage.duration
                video_run = _VideoRun(config, detector, footage, record, start)
                video_run.run(iter(footage), file, share)
                if _file_key(path) != key:
                    raise FootageError(path, "changes while it is read", passing=True)
        except FootageError as error:
            if error.passing:
                raise
            record.faults.append(error.reason)
            spool.note(record)
            return _Outcome(path, read=[record])
        outcome = _Outcome(path, read=[record])
        if config.preview:
            try:
                with spool.workspace.publishing() as made:
                    made += write_preview(
                        path, config.fps, video_run.preview_tracks, spool.videos, record.name
                    )
                outcome.previews = made
            except Exception as error:  # the preview is optional; the crops are safe
                outcome.remark = f"no preview could be written: {first_line(error)}"
        return outcome


def _refreshed(spool: Spool, known: VideoRecord, key: tuple[str, int, int]) -> VideoRecord:
    """Update a record's path and time of change if the file was moved or touched."""
    if (known.path, known.size, known.changed) != key and (
        known.path == key[0] or not Path(known.path).exists()
    ):
        known.path, known.size, known.changed = key
        spool.note(known)
    return known


def _read_stream(
    path: str,
    footage: Footage,
    config: IngestConfig,
    detector: Detector,
    spool: Spool,
    advance: Advance,
) -> Iterator[VideoRecord]:
    """Read a stream in segments, each of which counts as a video."""
    parts = urlsplit(path)
    address = safe_path(path)  # without a password
    share = _ProgressShare(int(config.limit), advance, config.limit)
    reported: set[str] = set()
    frames = iter(footage)
    ahead = next(frames, None)
    while ahead is not None:
        began = footage.began + ahead.seconds
        video = hashlib.blake2b(f"{path} {began}".encode(), digest_size=12).hexdigest()
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began))
        record = VideoRecord(
            video, f"{parts.hostname}-{at}@{video[:8]}", address, settings=settings_of(config),
            as_shown=True,
        )  # fmt: skip
        segment = _Segment(ahead, frames, ahead.seconds + _SEGMENT)
        with spool.writing(record) as file:
            video_run = _VideoRun(config, detector, footage, record, footage.began)
            video_run.run(iter(segment), file, share)
            record.start = began
            record.faults = [fault for fault in record.faults if fault not in reported]
            reported.update(record.faults)
        ahead = segment.ahead
        yield record


class _Segment:
    """Frames up to a time; the first one beyond it stays for the next segment."""

    def __init__(self, first: Frame, rest: Iterator[Frame], end: float) -> None:
        self.ahead: Frame | None = first
        self._rest, self._end = rest, end

    def __iter__(self) -> Iterator[Frame]:
        while self.ahead is not None and self.ahead.seconds < self._end:
            yield self.ahead
            self.ahead = next(self._rest, None)


class _ProgressShare:
    """Converts seconds of a video to bytes, so that one progress bar covers all videos."""

    def __init__(self, size: int, advance: Advance, duration: float = math.nan) -> None:
        self.size, self.duration, self.advance = size, duration, advance
        self.reported = 0

    def __call__(self, seconds: float, note: str) -> None:
        now = self.reported
        if self.duration > 0:  # NaN where the container does not say
            now = max(now, min(self.size, int(self.size * seconds / self.duration)))
        self.advance(now - self.reported, note)
        self.reported = now

    def finish(self) -> None:
        """Report the rest of the video as done, whatever the outcome."""
        self.advance(self.size - self.reported, "")
        self.reported = self.size


class _VideoRun:
    """Runs the pipeline on one video."""

    def __init__(
        self,
        config: IngestConfig,
        detector: Detector,
        footage: Footage,
        record: VideoRecord,
        start: float,
    ) -> None:
        self.config, self.detector, self.footage, self.record = config, detector, footage, record
        self.start = start
        record.start = None if np.isnan(start) else start
        rate = min(config.fps or footage.rate, footage.rate) or 25.0
        self.tracker = open_tracker(config.tracker, config.reid, rate)
        self.linker = Linker(self.tracker.max_distance)
        self.best_shots: dict[int, BestShots] = {}
        self.preview_tracks: list[PreviewTrack] = []
        self.preview_boxes: dict[tuple[int, int], NDArray[np.float32]] = {}  # by track and frame
        self.where: dict[tuple[int, int], NDArray[np.bool_] | None] = {}
        self.names = set(config.camera.classes)
        self.fusing = bool(self.names.union(config.keep_unknown) & set(CLASSES))
        self.spent = dict.fromkeys(("decode", "detect", "track", "crop"), 0.0)
        self.kept = 0

    def run(
        self, frames: Iterator[Frame], file: SpoolFile, tell: Callable[[float, str], None]
    ) -> None:
        """Read the frames to the end and write the crops of complete tracks to the file."""
        began = time.perf_counter()
        first: float | None = None
        for frame, objects in self._detected(frames):
            first = frame.seconds if first is None else first
            self.record.frames += 1
            self.record.duration = frame.seconds - first
            self.record.detections += len(objects)
            with _Timer(self.spent, "track"):
                objects, numbers, finished = self._follow(frame, objects)
            with _Timer(self.spent, "crop"):
                self._offer_shots(frame, objects, numbers)
                self._write_crops(finished, file)
            tell(frame.seconds, self._note(time.perf_counter() - began))
        with _Timer(self.spent, "crop"):
            self._write_crops(self.linker.finish(), file)
        tell(first or 0.0, self._note(time.perf_counter() - began))
        self.record.tracks = self.linker.tracks
        self.record.faults += self.footage.faults
        self.record.remark = self.footage.remark
        took = time.perf_counter() - began
        self.record.seconds = {n: round(s, 2) for n, s in {**self.spent, "total": took}.items()}

    def _note(self, took: float) -> str:
        name = self.record.name.rpartition("@")[0]
        return (
            f"{name}: {self.record.frames / took:.1f} frames/s, "
            f"{self.record.duration / took:.1f} x real time, {self.kept} objects"
        )

    def _detected(self, frames: Iterator[Frame]) -> Iterator[tuple[Frame, Objects]]:
        """Yield frames with their detections; the detector works one batch ahead."""
        size = self.config.detector.batch_size

        def next_batch() -> list[Frame]:
            with _Timer(self.spent, "decode"):
                return list(islice(frames, size))

        def detect(batch: list[Frame]) -> list[Objects]:
            with _Timer(self.spent, "detect"):
                return self.detector.detect([frame.image for frame in batch])

        with ThreadPoolExecutor(1) as ahead:
            batch = next_batch()
            coming: Future[list[Objects]] | None = ahead.submit(detect, batch) if batch else None
            while coming is not None:
                following = next_batch()
                objects = coming.result()
                coming = ahead.submit(detect, following) if following else None
                yield from zip(batch, objects, strict=True)
                batch = following

    def _follow(
        self, frame: Frame, objects: Objects
    ) -> tuple[Objects, NDArray[np.int64], list[LinkedTrack]]:
        """Track a frame's objects; return them, their track numbers and the complete tracks."""
        if self.fusing:
            objects = fuse(objects)
        height, width = frame.image.shape[:2]
        if (width, height) not in self.where:
            self.where[width, height] = region_mask(self.config.camera.footage, width, height)
        if (where := self.where[width, height]) is not None:
            objects = objects[inside_region(objects, where)]
        followed = objects.followed
        numbers, appearance = self.tracker.update(followed, frame.image)
        finished = self.linker.add(frame, followed, numbers, appearance)
        if self.config.preview:
            for row in np.flatnonzero(numbers >= 0):
                self.preview_boxes[int(numbers[row]), frame.number] = objects.box[row]
        return objects, numbers, finished

    def _offer_shots(self, frame: Frame, objects: Objects, numbers: NDArray[np.int64]) -> None:
        height, width = frame.image.shape[:2]
        seen = visibility(objects, width, height)
        for row in np.flatnonzero(numbers >= 0):
            shots = self.best_shots.setdefault(int(numbers[row]), BestShots(self.config.cut))
            shots.offer(frame, objects.box[row], str(objects.kind[row]), float(seen[row]))

    def _write_crops(self, finished: Sequence[LinkedTrack], file: SpoolFile) -> None:
        """Choose and write the crops of complete tracks."""
        for found in finished:
            candidates = self._candidates(found)
            kind = kind_of(found.kind, found.score)
            label = kind if kind in self.names else ""
            if not label and kind in self.config.keep_unknown:
                label = UNKNOWN
            kept: list[Candidate] = []
            if label and len(found) >= self.config.cut.min_frames:
                kept = choose(candidates, kind, self.config.crops_per_track)
            if kept:
                self.kept += 1
                self.record.objects[label] = self.record.objects.get(label, 0) + 1
            track = str(self.kept)
            crops = [self._crop(candidate, track) for candidate in kept]
            for crop in crops:
                file.add(crop, label)
            if self.config.preview:
                places = zip(found.number.tolist(), found.frame.tolist(), strict=True)
                self.preview_tracks.append(
                    PreviewTrack(
                        track,
                        label if kept else "",
                        found.seconds,
                        np.array([self.preview_boxes.pop(place) for place in places], np.float32),
                        tuple(crop.image for crop in crops),
                    )
                )

    def _candidates(self, found: LinkedTrack) -> list[Candidate]:
        candidates = []
        for number in found.numbers:
            shots = self.best_shots.get(number)
            if shots is None:
                continue
            frames = found.frame[found.number == number]
            if not frames.size:  # a duplicate track without frames of its own
                shots.take(int(found.frame[0]), int(found.frame[-1]))
            else:
                candidates += shots.take(int(frames[0]), int(frames[-1]))
            if not shots:
                del self.best_shots[number]
        return candidates

    def _crop(self, candidate: Candidate, track: str) -> Crop:
        left, top, right, bottom = (float(side) for side in candidate.box)
        return Crop(
            encode(candidate.pixels, self.config.cut.jpeg_quality),
            video=self.record.name,
            track=track,
            frame=candidate.number,
            time=self.start + candidate.seconds,
            box=(left, top, right - left, bottom - top),
        )


class _Timer:
    """Adds the duration of a block to a stage's total."""

    def __init__(self, spent: dict[str, float], stage: str) -> None:
        self.spent, self.stage = spent, stage

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.spent[self.stage] += time.perf_counter() - self.began


# -- several videos in parallel --------------------------------------------------------------------


def _in_workers(
    paths: Sequence[str], config: IngestConfig, detector: Detector, advance: Advance
) -> Iterator[_Outcome]:
    """Distribute the videos over processes, each with its share of the cores."""
    context = multiprocessing.get_context("spawn")
    left = list(reversed(paths))
    busy: dict[Connection, tuple[BaseProcess, str]] = {}
    ready: set[Connection] = set()

    def start() -> None:
        parent_end, worker_end = context.Pipe()
        process = context.Process(
            target=_run_worker, args=(worker_end, config, detector), daemon=True
        )
        with _ignoring_interrupts():  # the parent handles ^C and stops its workers
            process.start()
        worker_end.close()  # else the parent would not notice the end of the process
        busy[parent_end] = (process, left.pop())
        parent_end.send(busy[parent_end][1])

    try:
        for _ in range(min(config.workers, len(paths))):
            start()
        while busy:
            for link in wait(list(busy)):
                assert isinstance(link, Connection)
                process, path = busy[link]
                try:
                    message = link.recv()
                except (EOFError, ConnectionError):
                    process.join()
                    del busy[link]
                    yield _worker_outcome(path, process.exitcode, link in ready)
                    if left:
                        start()
                    continue
                ready.add(link)
                if isinstance(message, tuple):
                    advance(*message)
                    continue
                yield message
                if left:
                    busy[link] = (process, left.pop())
                    link.send(busy[link][1])
                else:
                    link.close()
                    del busy[link]
    finally:
        for process, _ in busy.values():
            process.terminate()


def _worker_outcome(path: str, code: int | None, was_ready: bool) -> _Outcome:
    """Turn a worker's unexpected end into the outcome of its video."""
    if not was_ready and code != -signal.SIGKILL:
        return _Outcome(path, stop=f"a worker cannot start: it ended with code {code}, see above")
    memory = " (out of memory? fewer workers need less)" if code == -signal.SIGKILL else ""
    return _Outcome(path, failed=f"its process ended with code {code}{memory}")


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Start processes in this block so that they ignore ^C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run_worker(parent: Connection, config: IngestConfig, detector: Detector) -> None:
    """Read videos in a worker process until the parent sends no more."""
    threads = max(1, processors() // config.workers)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for torch, if it is imported later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    spool = Spool(Workspace.at(config.root, config.camera.name))

    def advance(count: int, note: str = "") -> None:
        parent.send((count, note))  # raises if the parent was killed, which ends this process

    with suppress(OSError, EOFError):  # the parent has no more videos, or has ended
        advance(0)
        while True:
            parent.send(_read_path(parent.recv(), config, detector, spool, advance))
