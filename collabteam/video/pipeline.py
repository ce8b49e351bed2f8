"""From videos to crops in the catalog: the line that footage goes down.

    frames -> detector -> riders fused -> tracker -> linker -> best pictures -> spool -> catalog

Each video is read to its end before anything of it reaches the catalog (see :mod:`.spool`), so a
killed command goes on with the video that it was at.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from collabteam.boards.progress import Advance, Console
from collabteam.catalog import CameraInUse, Catalog, Crop
from collabteam.config import UNKNOWN, IngestConfig, camera_folder, check_ingest
from collabteam.errors import UserError
from collabteam.video.crops import Album, Candidate, choose, encode, look_at, standing, visibility
from collabteam.video.detection import Detector, open_detector
from collabteam.video.footage import (
    Footage,
    FootageError,
    check_footage,
    content_hash,
    find_videos,
    is_stream,
    open_footage,
    start_time,
)
from collabteam.video.linking import Linked, Linker, kind_of
from collabteam.video.objects import Frame, Objects
from collabteam.video.preview import Sighting, write_preview
from collabteam.video.riders import PARTS, fuse
from collabteam.video.spool import Spool, SpoolFile, VideoRecord, commit, read_record
from collabteam.video.tracking import open_tracker

CLASSES = ("pedestrian", "cyclist", "motorcyclist")
"""What the fusion of riders tells apart, and the classes of a camera that names none (the paper's
three)."""
_COMMIT_CROPS = 4096
_COMMIT_SECONDS = 600.0
"""A commit waits for this many crops or seconds: each makes a version of the catalog's tables."""
_SEGMENT = 600.0
"""Seconds of a stream that make one video; what a kill can cost at most."""


@dataclass
class FootageSummary:
    """What one ingest of footage did.

    Attributes:
        read: Videos that were read now, or had been and waited for the catalog.
        known: Videos that were in the catalog before.
        busy: Of each video that another process is reading: its path, and who.
        failed: Of each video that could not be finished: its path, and why; it is tried again the
            next time.
        total: Crops in the catalog now.
        seconds: How long it took.
    """

    read: list[VideoRecord] = field(default_factory=list)
    known: list[VideoRecord] = field(default_factory=list)
    busy: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    total: int = 0
    seconds: float = 0.0


def ingest_footage(
    config: IngestConfig, console: Console | None = None, detector: Detector | None = None
) -> FootageSummary:
    """Read footage and put the crops of what is seen in it into a camera's catalog.

    Args:
        config: All settings; a camera that has no classes yet gets pedestrian, cyclist and
            motorcyclist.
        console: Where progress and warnings go; silent if None.
        detector: Instead of the one that ``config.detector`` describes; with ``workers`` above 1
            it has to be picklable.

    Returns:
        What was done.

    Raises:
        UserError: Something only the user can change. Nothing is lost: videos that were read to
            their end are in the catalog or wait beside it.
    """
    began = time.monotonic()
    console = console or Console(quiet=True)
    check_ingest(config)
    check_footage(config.camera.footage)
    paths = find_videos(config.path)
    config = _with_classes(config)
    kinds = wanted(config)
    # Before the camera is registered: what is refused leaves nothing behind. Of several videos, bad
    # ones are recorded.
    if len(paths) == 1 or not camera_folder(config.root, config.camera.name).exists():
        _check_any_opens(paths, config)
    open_tracker(config.tracker, config.reid, config.fps or 25.0)
    detector = detector or open_detector(config.detector, kinds)
    catalog = Catalog.register(config.root, config.camera.name, config.camera.classes)
    run = _Run(config, catalog, Spool(catalog.folder), console, detector)
    run.read_all(paths)
    run.commit(wait=True)
    run.summary.total = len(Catalog(catalog.folder))
    run.summary.seconds = time.monotonic() - began
    return run.summary


def wanted(config: IngestConfig) -> tuple[str, ...]:
    """Which of its names the detector has to look for.

    Raises:
        UserError: The settings contradict each other.
    """
    kinds = [*config.camera.classes, *config.keep_unknown]
    riders = [name for name in kinds if name in CLASSES]
    if riders and "person" in kinds:
        raise UserError(
            f"classes person and {riders[0]} cannot stand side by side: every person is a "
            "pedestrian, a cyclist or a motorcyclist, or else name 'person' alone"
        )
    names = [*PARTS] if riders else []
    return tuple(dict.fromkeys([*names, *(kind for kind in kinds if kind not in CLASSES)]))


def _with_classes(config: IngestConfig) -> IngestConfig:
    classes = config.camera.classes
    folder = camera_folder(config.root, config.camera.name)
    if not classes and folder.exists():
        classes = Catalog.open(config.root, config.camera.name).classes
    camera = replace(config.camera, classes=list(classes or CLASSES))
    return replace(config, camera=camera)


def _check_any_opens(paths: Sequence[str], config: IngestConfig) -> None:
    reasons = []
    for path in paths:
        try:
            with open_footage(path, config.fps, config.limit):
                return
        except FootageError as error:
            reasons.append(str(error))
    others = f" (and {len(reasons) - 1} more files that are no better)" if len(reasons) > 1 else ""
    raise UserError(f"{reasons[0]}{others}")


class _Run:
    """One run of the command over any number of videos."""

    def __init__(
        self,
        config: IngestConfig,
        catalog: Catalog,
        spool: Spool,
        console: Console,
        detector: Detector,
    ) -> None:
        self.config, self.catalog, self.spool = config, catalog, spool
        self.console, self.detector = console, detector
        self.summary = FootageSummary()
        self._last_commit = time.monotonic()

    def read_all(self, paths: Sequence[str]) -> None:
        """Read every video that is not in the catalog yet; commit now and then."""
        known = self.spool.known_files()
        left = []
        for path in paths:
            record = None if is_stream(path) else known.get(_file_key(path))
            if record is None:
                left.append(path)
            else:
                self._skip(path, record)
        title = f"reading {len(left)} videos" if len(left) > 1 else f"reading {''.join(left)}"
        if any(map(is_stream, left)):
            total, unit = int(self.config.limit) or None, "seconds"
        else:
            total, unit = sum(Path(path).stat().st_size for path in left), "bytes"
        with self.console.stage(title, total, unit) as advance:
            if self.config.workers > 1 and len(left) > 1:
                outcomes = _in_workers(left, self.config, self.detector, advance)
            else:
                outcomes = _one_by_one(left, self.config, self.detector, self.spool, advance)
            for outcome in outcomes:
                self._take(outcome)
                self.commit(wait=False)

    def _take(self, outcome: _Outcome) -> None:
        if outcome.stop:
            raise UserError(outcome.stop)
        if outcome.busy:
            self.summary.busy.append((outcome.path, outcome.busy))
            self.console.warn(f"{outcome.path} is being read by {outcome.busy}: left to it")
        elif outcome.failed:
            self.summary.failed.append((outcome.path, outcome.failed))
            self.console.warn(f"{outcome.path}: {outcome.failed}; the others go on")
        elif outcome.known is not None:
            self._skip(outcome.path, outcome.known)
        for record in outcome.read:
            if any(record.id == other.id for other in self.summary.read):
                continue  # the same video under another name
            self.summary.read.append(record)
            for fault in record.faults:
                self.console.warn(f"{record.path}: {fault}")

    def _skip(self, path: str, record: VideoRecord) -> None:
        self.summary.known.append(record)
        changed = [
            name for name, value in settings_of(self.config).items()
            if record.settings.get(name) != value
        ]  # fmt: skip
        if changed and record.frames:
            self.console.warn(
                f"{path} was read with other settings ({', '.join(changed)}) and stays as it is: "
                "another root=... reads it anew"
            )

    def commit(self, wait: bool) -> None:
        """Put what waits into the catalog, if it is enough or the end."""
        waiting = self.spool.sealed()
        if not waiting:
            return
        crops = sum(read_record(file).crops for file in waiting)
        due = crops >= _COMMIT_CROPS or time.monotonic() - self._last_commit > _COMMIT_SECONDS
        if not wait and not due:
            return
        told = False
        while True:
            try:
                commit(self.catalog, self.spool)
                break
            except CameraInUse as error:
                # Reading goes on meanwhile; at the end there is nothing better to do than wait.
                if not wait:
                    return
                if not told:
                    self.console.warn(f"{crops} crops wait for the catalog: {error}")
                told = True
                time.sleep(2.0)
        self._last_commit = time.monotonic()


def settings_of(config: IngestConfig) -> dict[str, Any]:
    """The settings that make the crops of a video what they are."""
    names = ("fps", "detector", "tracker", "reid", "keep_unknown", "crops_per_track", "cut")
    whole = asdict(config)
    kept = {name: whole[name] for name in names}
    del kept["detector"]["batch_size"]
    return kept | {"classes": sorted(config.camera.classes)} | asdict(config.camera.footage)


def _file_key(path: str) -> tuple[str, int, int]:
    """Stands for a file as it is now, without reading it."""
    status = Path(path).stat()
    return str(Path(path).resolve()), status.st_size, status.st_mtime_ns


# -- one video -------------------------------------------------------------------------------------


@dataclass
class _Outcome:
    path: str
    read: list[VideoRecord] = field(default_factory=list)
    known: VideoRecord | None = None
    busy: str = ""
    failed: str = ""
    stop: str = ""  # why no other video would fare better


def _one_by_one(
    paths: Sequence[str],
    config: IngestConfig,
    detector: Detector,
    spool: Spool,
    advance: Advance,
) -> Iterator[_Outcome]:
    for path in paths:
        yield _read_path(path, config, detector, spool, advance)


def _read_path(
    path: str, config: IngestConfig, detector: Detector, spool: Spool, advance: Advance
) -> _Outcome:
    """Read one video or stream into the spool, unless it is there already."""
    try:
        if is_stream(path):
            return _Outcome(path, read=list(_read_stream(path, config, detector, spool, advance)))
        return _read_file(path, config, detector, spool, advance)
    except FootageError as error:
        return _Outcome(path, failed=str(error))
    except UserError as error:
        return _Outcome(path, stop=str(error))
    except Exception as error:  # one bad video must not end a night's work
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return _Outcome(path, failed=" ".join(reason.split()))


def _read_file(
    path: str, config: IngestConfig, detector: Detector, spool: Spool, advance: Advance
) -> _Outcome:
    name, size, changed = _file_key(path)
    try:
        video = content_hash(path)
    except OSError as error:
        return _Outcome(path, failed=f"cannot be read: {error.strerror}")
    with spool.claim(video) as reader:
        if reader:
            return _Outcome(path, busy=reader)
        known = spool.record(video)
        if known is not None:
            return _Outcome(path, known=known)
        record = VideoRecord(
            video, f"{Path(path).name}@{video[:8]}", name, size=size, changed=changed,
            settings=settings_of(config),
        )  # fmt: skip
        if (waiting := spool.waiting(video)) is not None:
            return _Outcome(path, read=[waiting])
        try:
            with open_footage(path, config.fps) as footage:
                start = start_time(Path(path).name, config.camera.footage, footage.created)
                share = _Share(size, footage.duration, advance)
                with spool.writing(record) as file:
                    reading = _Reading(config, detector, footage, record, start)
                    reading.run(iter(footage), file, share)
                share.finish()
        except FootageError as error:
            record.faults.append(str(error))
            spool.note(record)
            advance(size, "")
            return _Outcome(path, read=[record])
        if config.preview:
            write_preview(path, config.fps, reading.sightings, spool.videos / record.name)
        return _Outcome(path, read=[record])


def _read_stream(
    path: str, config: IngestConfig, detector: Detector, spool: Spool, advance: Advance
) -> Iterator[VideoRecord]:
    """Read a stream in stretches, each of which counts as a video."""
    parts = urlsplit(path)
    # An address may hold a password.
    address = parts._replace(netloc=parts.hostname or "").geturl()
    with open_footage(path, config.fps, config.limit) as footage:
        frames = iter(footage)
        ahead = next(frames, None)
        while ahead is not None:
            began = footage.began + ahead.seconds
            video = hashlib.blake2b(f"{path} {began}".encode(), digest_size=12).hexdigest()
            at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began))
            record = VideoRecord(
                video, f"{parts.hostname}-{at}@{video[:8]}", address, settings=settings_of(config)
            )
            stretch = _Stretch(ahead, frames, ahead.seconds + _SEGMENT)
            share = _Share(int(config.limit), config.limit, advance)
            with spool.writing(record) as file:
                reading = _Reading(config, detector, footage, record, footage.began)
                reading.run(iter(stretch), file, share)
            ahead = stretch.ahead
            yield record


class _Stretch:
    """Frames up to a time; the first one beyond it stays for the next stretch."""

    def __init__(self, first: Frame, rest: Iterator[Frame], end: float) -> None:
        self.ahead: Frame | None = first
        self._rest, self._end = rest, end

    def __iter__(self) -> Iterator[Frame]:
        while self.ahead is not None and self.ahead.seconds < self._end:
            yield self.ahead
            self.ahead = next(self._rest, None)


class _Share:
    """Turns seconds of a video into its share of all bytes, so that one bar serves all videos."""

    def __init__(self, size: int, duration: float, advance: Advance) -> None:
        self.size, self.duration, self.advance = size, duration, advance
        self.told = 0

    def __call__(self, seconds: float, note: str) -> None:
        now = self.told
        if self.duration > 0:  # NaN where the container does not say
            now = max(now, min(self.size, int(self.size * seconds / self.duration)))
        self.advance(now - self.told, note)
        self.told = now

    def finish(self) -> None:
        self.advance(self.size - self.told, "")


class _Reading:
    """One video on its way: what is being followed, and what was found."""

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
        self.albums: dict[int, Album] = {}
        self.sightings: list[Sighting] = []
        self.drawn: dict[tuple[int, int], NDArray[np.float32]] = {}  # by track and frame
        self.where: dict[tuple[int, int], NDArray[np.bool_] | None] = {}
        self.names = set(config.camera.classes)
        self.fusing = bool(self.names.union(config.keep_unknown) & set(CLASSES))
        self.spent = dict.fromkeys(("decode", "detect", "track", "crop"), 0.0)
        self.kept = 0

    def run(
        self, frames: Iterator[Frame], file: SpoolFile, tell: Callable[[float, str], None]
    ) -> None:
        """Read to the end; the crops of finished objects go into the file."""
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
                self._look(frame, objects, numbers)
                self._keep(finished, file)
            tell(frame.seconds, self._note(time.perf_counter() - began))
        with _Timer(self.spent, "crop"):
            self._keep(self.linker.finish(), file)
        tell(first or 0.0, self._note(time.perf_counter() - began))
        self.record.tracks = self.linker.tracks
        self.record.faults += self.footage.faults
        took = time.perf_counter() - began
        self.record.seconds = {n: round(s, 2) for n, s in {**self.spent, "total": took}.items()}

    def _note(self, took: float) -> str:
        return (
            f"{self.record.frames / took:.1f} frames/s, {self.record.duration / took:.1f} x real "
            f"time, {self.kept} objects"
        )

    def _detected(self, frames: Iterator[Frame]) -> Iterator[tuple[Frame, Objects]]:
        """Frames with what the detector sees; it is a batch ahead of whoever takes them."""
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
    ) -> tuple[Objects, NDArray[np.int64], list[Linked]]:
        """Tracks of a frame's objects, and the objects that are done with."""
        if self.fusing:
            objects = fuse(objects)
        height, width = frame.image.shape[:2]
        if (width, height) not in self.where:
            self.where[width, height] = look_at(self.config.camera.footage, width, height)
        if (where := self.where[width, height]) is not None:
            objects = objects[standing(objects, where)]
        followed = objects.followed
        numbers, appearance = self.tracker.update(followed, frame.image)
        finished = self.linker.add(frame, followed, numbers, appearance)
        if self.config.preview:
            for row in np.flatnonzero(numbers >= 0):
                self.drawn[int(numbers[row]), frame.number] = objects.box[row]
        return objects, numbers, finished

    def _look(self, frame: Frame, objects: Objects, numbers: NDArray[np.int64]) -> None:
        height, width = frame.image.shape[:2]
        seen = visibility(objects, width, height)
        for row in np.flatnonzero(numbers >= 0):
            album = self.albums.setdefault(int(numbers[row]), Album(self.config.cut))
            album.offer(frame, objects.box[row], str(objects.kind[row]), float(seen[row]))

    def _keep(self, finished: Sequence[Linked], file: SpoolFile) -> None:
        """Write the crops of objects that are done with."""
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
                self.sightings.append(
                    Sighting(
                        track,
                        label if kept else "",
                        found.seconds,
                        np.array([self.drawn.pop(place) for place in places], np.float32),
                        tuple(crop.image for crop in crops),
                    )
                )

    def _candidates(self, found: Linked) -> list[Candidate]:
        candidates = []
        for number in found.numbers:
            album = self.albums.get(number)
            if album is None:
                continue
            candidates += album.take(set(found.frame[found.number == number].tolist()))
            if not album:
                del self.albums[number]
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
    """Adds the time of a block to a stage."""

    def __init__(self, spent: dict[str, float], stage: str) -> None:
        self.spent, self.stage = spent, stage

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.spent[self.stage] += time.perf_counter() - self.began


# -- several videos at a time ----------------------------------------------------------------------


def _in_workers(
    paths: Sequence[str], config: IngestConfig, detector: Detector, advance: Advance
) -> Iterator[_Outcome]:
    """Deal the videos to processes, each with its share of the cores."""
    context = multiprocessing.get_context("spawn")
    left = list(reversed(paths))
    busy: dict[Connection, tuple[BaseProcess, str]] = {}

    def start() -> None:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, config, detector), daemon=True)
        process.start()
        there.close()  # else the end of the process would not show
        busy[here] = (process, left.pop())
        here.send(busy[here][1])

    try:
        for _ in range(min(config.workers, len(paths))):
            start()
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                process, path = busy[ready]
                try:
                    message = ready.recv()
                except (EOFError, ConnectionError):
                    process.join()
                    del busy[ready]
                    yield _Outcome(
                        path,
                        failed=f"its process ended with code {process.exitcode} "
                        "(out of memory? fewer workers need less)",
                    )
                    if left:
                        start()
                    continue
                if isinstance(message, tuple):
                    advance(*message)
                    continue
                yield message
                if left:
                    busy[ready] = (process, left.pop())
                    ready.send(busy[ready][1])
                else:
                    ready.close()
                    del busy[ready]
    finally:
        for process, _ in busy.values():
            process.terminate()


def _work(parent: Connection, config: IngestConfig, detector: Detector) -> None:
    """A worker: read the videos that it is told, until nobody tells any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends this one
    threads = max(1, len(os.sched_getaffinity(0)) // config.workers)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for torch, if it is still to come
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    spool = Spool(camera_folder(config.root, config.camera.name))

    def advance(count: int, note: str = "") -> None:
        parent.send((count, note))  # fails when the parent was killed, and so ends this one

    while True:
        try:
            path = parent.recv()
        except EOFError:
            return
        parent.send(_read_path(path, config, detector, spool, advance))
