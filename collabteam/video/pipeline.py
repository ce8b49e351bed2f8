"""From videos to crops in the catalog: the line that footage goes down.

    frames -> detector -> riders fused -> tracker -> linker -> best pictures -> spool -> catalog

Each video is read to its end before anything of it reaches the catalog (see :mod:`.spool`), so a
killed command goes on with the video that it was at.
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
from collabteam.storage.workspace import CameraInUse, Workspace, registered
from collabteam.video.crops import (
    BestShots,
    Candidate,
    choose,
    encode,
    look_at,
    standing,
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
    shown,
    start_time,
)
from collabteam.video.linking import LinkedTrack, Linker, kind_of
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
        previews: Clips and contact sheets that were written.
        total: Crops in the catalog now.
        seconds: How long it took.
    """

    read: list[VideoRecord] = field(default_factory=list)
    known: list[VideoRecord] = field(default_factory=list)
    busy: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    previews: list[Path] = field(default_factory=list)
    total: int = 0
    seconds: float = 0.0


def ingest_footage(
    config: IngestConfig, listener: Listener | None = None, detector: Detector | None = None
) -> FootageSummary:
    """Read footage and put the crops of what is seen in it into a camera's catalog.

    Args:
        config: All settings; a camera that has no classes yet gets pedestrian, cyclist and
            motorcyclist.
        listener: Where progress and warnings go; silent if None.
        detector: Instead of the one that ``config.detector`` describes; with ``workers`` above 1
            it has to be picklable.

    Returns:
        What was done.

    Raises:
        UserError: Something only the user can change. Nothing is lost: videos that were read to
            their end are in the catalog or wait beside it.
    """
    began = time.monotonic()
    listener = listener or Listener()
    check(config)
    check_footage(config.camera.footage)
    paths = _not_our_own(find_videos(config.path), config.root)
    config = _with_classes(config)
    kinds = wanted(config)
    streaming = is_stream(paths[0])
    if streaming and config.preview:
        listener.warn("preview=true: a stream cannot be read once more, so there will be none")
        config = replace(config, preview=False)
    # Before the camera is registered: what is refused leaves nothing behind. Of several videos, bad
    # ones are recorded. A stream is opened once, as it may serve nobody twice.
    stream = open_footage(paths[0], config.fps, config.limit) if streaming else None
    if not streaming and (len(paths) == 1 or not _is_registered(config)):
        _check_any_opens(paths)
    open_tracker(config.tracker, config.reid, config.fps or 25.0)
    detector = detector or open_detector(config.detector, kinds)
    catalog = Catalog.register(config.root, config.camera.name, config.camera.classes)
    run = _Run(config, catalog, Spool(catalog.workspace), listener, detector)
    run.commit(wait=False, now=True)  # what an earlier run left
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


def _not_our_own(paths: list[str], root: str) -> list[str]:
    """Without what lies under ``root``: previews are no footage."""
    ours = Path(root).resolve()
    kept = [path for path in paths if is_stream(path) or ours not in Path(path).resolve().parents]
    if not kept:
        raise UserError(
            f"path: all {len(paths)} videos lie under root={root}, where previews are kept: keep "
            "footage elsewhere"
        )
    return kept


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
    others = f" (and {len(reasons) - 1} more files that are no better)" if len(reasons) > 1 else ""
    raise UserError(f"{reasons[0]}{others}")


class _Run:
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
        """Read every video that is not in the catalog yet; commit now and then."""
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
        with self.listener.stage(shown(title), sum(left.values()), "bytes") as advance:
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
        """Read a stream to its end or limit; commit now and then."""
        total = int(self.config.limit) or None
        with footage, self.listener.stage(f"reading {shown(path)}", total, "seconds") as advance:
            for record in _read_stream(
                path, footage, self.config, self.detector, self.spool, advance
            ):
                self._take(_Outcome(path, read=[record]))
                self.commit(wait=False)

    def _objects(self) -> int:
        return sum(sum(record.objects.values()) for record in self.summary.read)

    def _take(self, outcome: _Outcome) -> None:
        path = shown(outcome.path)
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
                continue  # the same video under another name
            self.summary.read.append(record)
            for fault in record.faults:
                self.listener.warn(f"{record.path}: {fault}")

    def _skip(self, path: str, record: VideoRecord) -> None:
        self.summary.known.append(record)
        changed = [
            name for name, value in settings_of(self.config).items()
            if record.settings.get(name) != value
        ]  # fmt: skip
        if changed and record.frames:
            self.listener.warn(
                f"{shown(path)} was read with other settings ({', '.join(changed)}) and stays as "
                "it is: another root=... reads it anew"
            )

    def commit(self, wait: bool, now: bool = False) -> None:
        """Put what waits into the catalog, if it is enough, the end, or asked for now."""
        crops = 0
        waiting = self.spool.sealed()
        for file in waiting:
            with suppress(FileNotFoundError):  # another process commits, too
                crops += read_record(file).crops
        due = crops >= _COMMIT_CROPS or time.monotonic() - self._last_commit > _COMMIT_SECONDS
        if not waiting or not (wait or now or due):
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
                    self.listener.warn(f"{crops} crops wait for the catalog: {error}")
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
    return shown(str(Path(path).resolve())), status.st_size, status.st_mtime_ns


# -- one video -------------------------------------------------------------------------------------


@dataclass
class _Outcome:
    path: str
    read: list[VideoRecord] = field(default_factory=list)
    known: VideoRecord | None = None
    busy: str = ""
    failed: str = ""
    stop: str = ""  # why no other video would fare better
    remark: str = ""
    previews: list[Path] = field(default_factory=list)


def _read_path(
    path: str, config: IngestConfig, detector: Detector, spool: Spool, advance: Advance
) -> _Outcome:
    """Read one video into the spool, unless it is there already; raises nothing."""
    share: _Share | None = None
    try:
        key = _file_key(path)
        share = _Share(key[1], advance)
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
    share: _Share,
) -> _Outcome:
    video = content_hash(path)
    if (known := spool.record(video)) is not None:
        return _Outcome(path, known=_refreshed(spool, known, key))
    with spool.claim(video) as reader:
        if reader:
            return _Outcome(path, busy=reader)
        # In this order, as whoever commits notes a video before the file goes.
        if (waiting := spool.waiting(video)) is not None:
            return _Outcome(path, read=[waiting])
        if (known := spool.record(video)) is not None:
            return _Outcome(path, known=known)
        name = Path(shown(path)).name
        record = VideoRecord(
            video, f"{name}@{video[:8]}", *key, settings=settings_of(config)
        )  # fmt: skip
        try:
            with open_footage(path, config.fps) as footage, spool.writing(record) as file:
                start = start_time(name, config.camera.footage, footage.created)
                if config.camera.footage.start and np.isnan(
                    start_time(name, config.camera.footage, None)
                ):
                    pattern = config.camera.footage.start
                    record.faults.append(f"its name tells no time: expected {pattern} in it")
                share.duration = footage.duration
                reading = _Reading(config, detector, footage, record, start)
                reading.run(iter(footage), file, share)
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
                to = spool.videos / record.name[-200:]  # file systems take 255 bytes
                with spool.workspace.publishing() as made:
                    made += write_preview(path, config.fps, reading.sightings, to)
                outcome.previews = made
            except Exception as error:  # the crops are safe; a look at them is a courtesy
                outcome.remark = f"no preview could be written: {first_line(error)}"
        return outcome


def _refreshed(spool: Spool, known: VideoRecord, key: tuple[str, int, int]) -> VideoRecord:
    """A record that knows a video by the name and time that it has now, if the old one is gone."""
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
    """Read a stream in stretches, each of which counts as a video."""
    parts = urlsplit(path)
    address = shown(path)  # without a password
    share = _Share(int(config.limit), advance, config.limit)
    told: set[str] = set()
    frames = iter(footage)
    ahead = next(frames, None)
    while ahead is not None:
        began = footage.began + ahead.seconds
        video = hashlib.blake2b(f"{path} {began}".encode(), digest_size=12).hexdigest()
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began))
        record = VideoRecord(
            video, f"{parts.hostname}-{at}@{video[:8]}", address, settings=settings_of(config)
        )
        stretch = _Segment(ahead, frames, ahead.seconds + _SEGMENT)
        with spool.writing(record) as file:
            reading = _Reading(config, detector, footage, record, footage.began)
            reading.run(iter(stretch), file, share)
            record.start = began
            record.faults = [fault for fault in record.faults if fault not in told]
            told.update(record.faults)
        ahead = stretch.ahead
        yield record


class _Segment:
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

    def __init__(self, size: int, advance: Advance, duration: float = math.nan) -> None:
        self.size, self.duration, self.advance = size, duration, advance
        self.told = 0

    def __call__(self, seconds: float, note: str) -> None:
        now = self.told
        if self.duration > 0:  # NaN where the container does not say
            now = max(now, min(self.size, int(self.size * seconds / self.duration)))
        self.advance(now - self.told, note)
        self.told = now

    def finish(self) -> None:
        """The video is dealt with, however."""
        self.advance(self.size - self.told, "")
        self.told = self.size


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
        self.albums: dict[int, BestShots] = {}
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
        name = self.record.name.rpartition("@")[0]
        return (
            f"{name}: {self.record.frames / took:.1f} frames/s, "
            f"{self.record.duration / took:.1f} x real time, {self.kept} objects"
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
    ) -> tuple[Objects, NDArray[np.int64], list[LinkedTrack]]:
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
            album = self.albums.setdefault(int(numbers[row]), BestShots(self.config.cut))
            album.offer(frame, objects.box[row], str(objects.kind[row]), float(seen[row]))

    def _keep(self, finished: Sequence[LinkedTrack], file: SpoolFile) -> None:
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

    def _candidates(self, found: LinkedTrack) -> list[Candidate]:
        candidates = []
        for number in found.numbers:
            album = self.albums.get(number)
            if album is None:
                continue
            frames = found.frame[found.number == number]
            if not frames.size:  # a second track of the same thing, none of whose boxes count
                album.take(int(found.frame[0]), int(found.frame[-1]))
            else:
                candidates += album.take(int(frames[0]), int(frames[-1]))
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
    ready: set[Connection] = set()

    def start() -> None:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, config, detector), daemon=True)
        with _deaf():  # the parent hears ^C, and ends its workers
            process.start()
        there.close()  # else the end of the process would not show
        busy[here] = (process, left.pop())
        here.send(busy[here][1])

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
                    yield _ended(path, process.exitcode, link in ready)
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


def _ended(path: str, code: int | None, was_ready: bool) -> _Outcome:
    """What a worker's end means for the video that it had."""
    if not was_ready and code != -signal.SIGKILL:
        return _Outcome(path, stop=f"a worker cannot start: it ended with code {code}, see above")
    memory = " (out of memory? fewer workers need less)" if code == -signal.SIGKILL else ""
    return _Outcome(path, failed=f"its process ended with code {code}{memory}")


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started here do not hear ^C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(parent: Connection, config: IngestConfig, detector: Detector) -> None:
    """A worker: read the videos that it is told, until nobody tells any more."""
    threads = max(1, processors() // config.workers)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for torch, if it is still to come
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    spool = Spool(Workspace.at(config.root, config.camera.name))

    def advance(count: int, note: str = "") -> None:
        parent.send((count, note))  # fails when the parent was killed, and so ends this one

    with suppress(OSError, EOFError):  # the parent has no more, or is gone
        advance(0)
        while True:
            parent.send(_read_path(parent.recv(), config, detector, spool, advance))
