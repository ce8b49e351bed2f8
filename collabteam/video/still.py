"""Extract the frame that a crop was cut from, so that a reviewer sees its surroundings.

A frame is identified by its number, as :mod:`.footage` counts. In a video without faults the number
is the frame's position in the order of timestamps: the packets are indexed once without decoding,
and decoding starts at the keyframe before the frame. Every other video is read again from its
beginning, and so is a video whose frames do not match the index. That is slower, but it numbers the
frames in the same way as the ingest did.
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
import threading
import time as clock
from array import array
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from collabteam.video.footage import (
    Views,
    content_hash,
    has_timestamps,
    is_stream,
    open_container,
    open_footage,
    picture_stream,
    pixel_aspect,
    upright,
)
from collabteam.video.spool import parse_record

TIMEOUT = 10.0
"""Seconds that a still may wait for a free slot, and again that it may take to extract."""

_CACHED_STILLS = 64  # finished stills in the cache
_CACHED_INDEXES = 16  # indexed videos in the cache: 8 bytes for each frame
_MAX_PARALLEL = 2  # stills extracted at once; more would make the server slow

_Box: TypeAlias = tuple[float, float, float, float]


class StillExtractor:
    """Extracts frames of a camera's videos while the video files are where they were ingested.

    It is safe to use from several threads.

    Args:
        videos: Folder of the camera's video records; it is only read.
        width: Maximum width of a still in pixels.
    """

    def __init__(self, videos: Path, width: int = 960) -> None:
        self._folder = videos
        self._width = max(1, width)
        self._slots = threading.BoundedSemaphore(_MAX_PARALLEL)
        self._index = lru_cache(_CACHED_INDEXES)(_index_packets)
        self._cached = lru_cache(_CACHED_STILLS)(self._extract)  # failures are not cached

    def available(self, video: str) -> bool:
        """Whether stills of a video are likely to work; checks the file without reading it.

        Args:
            video: Name of the video, as in the crops' ``video``.
        """
        return self._source(video) is not None

    def jpeg(self, video: str, frame: int, time: float, box: _Box | None) -> bytes | None:
        """Extract one frame, upright, with a box drawn around the crop's object.

        Args:
            video: Name of the video, as in the crops' ``video``.
            frame: The frame's number, from 0.
            time: Time of the frame in Unix seconds; NaN if it is not known.
            box: Left, top, width and height in pixels of the frame; None to draw no box.

        Returns:
            JPEG, scaled down to the maximum width; None if the frame is not available: the file is
            gone, has changed or is damaged there, or the extraction takes too long.
        """
        source = self._source(video)
        if source is None or frame < 0:
            return None
        seconds = None if source.start is None or math.isnan(time) else time - source.start
        try:
            return self._cached(source, frame, seconds, box)
        except Exception:  # a still is optional: no video file may interrupt a review
            return None

    def _source(self, video: str) -> _Source | None:
        """Find a video's file; None if it cannot be the file that was ingested."""
        digits = video.rpartition("@")[2]  # the record's file name starts with these
        if not re.fullmatch("[0-9a-f]{8}", digits) or importlib.util.find_spec("av") is None:
            return None
        for file in self._folder.glob(f"{digits}*.json"):
            # Skip files that are not valid records, such as damaged ones.
            with suppress(OSError, ValueError, TypeError):
                record = parse_record(file.read_bytes())
                if record.name != video or is_stream(record.path):
                    continue
                now = Path(record.path).stat()
                if Path(record.path).is_file() and now.st_size == record.size:
                    fps = float(record.settings.get("fps", 0.0))
                    content = "" if now.st_mtime_ns == record.changed else record.id
                    as_read = (not record.faults, record.start, fps, not record.as_shown)
                    return _Source(record.path, now.st_mtime_ns, content, *as_read)
        return None

    def _extract(
        self, source: _Source, number: int, seconds: float | None, box: _Box | None
    ) -> bytes:
        """Extract a still; seconds is None if the time is not known. Raises on any failure."""
        if not self._slots.acquire(timeout=TIMEOUT):
            raise TimeoutError
        try:
            end = clock.monotonic() + TIMEOUT
            index = self._index(source)
            if index is None:
                raise LookupError("the file has been replaced")
            image = None
            with suppress(Exception):  # then the video is read from its beginning
                image = _decode_from_keyframe(source, index, number, seconds, end)
            if image is None:
                image = _read_from_start(source, number, end)
            return _encode_still(image, box, self._width)
        finally:
            self._slots.release()


class _Source(NamedTuple):
    """A video's file and how it was ingested."""

    path: str
    changed: int  # time of the last change, in nanoseconds
    content: str  # the hash that it must have; empty if it has not changed since the ingest
    plain: bool  # whether the ingest found no faults in it
    start: float | None  # when the recording began, in Unix seconds; None if it is not known
    fps: float  # frames per second that were analysed, 0 for all
    only_turned: bool  # whether an earlier version read it


class _FrameIndex(NamedTuple):
    """The display order of a video's frames."""

    # Timestamps, ascending: the position is the frame's number. They do not cover all frames if
    # indexing takes too long, and are empty if the video has to be read from its beginning.
    stamps: NDArray[np.int64]
    keys: NDArray[np.int64]  # (K, 2): timestamp of each keyframe, ascending, and where to seek
    tick: float  # seconds per unit of a timestamp


def _index_packets(source: _Source) -> _FrameIndex | None:
    """Index a video's packets without decoding; None if its content is not what was ingested."""
    no_index = _FrameIndex(np.empty(0, np.int64), np.empty((0, 2), np.int64), 1.0)
    if source.content and content_hash(source.path) != source.content:
        return None
    if not source.plain:
        return no_index
    stamps, dropped, keys = array("q"), array("b"), array("q")
    latest = -math.inf
    end = clock.monotonic() + TIMEOUT / 2
    with open_container(source.path) as container:
        video = picture_stream(source.path, container)
        if not has_timestamps(container, video):
            return no_index
        tick, shuffled = float(video.time_base or 1), video.codec_context.has_b_frames
        for packet in container.demux(video):
            if not packet.size and packet.pts is None:  # marks the end
                continue
            now = latest if packet.dts is None else packet.dts
            if packet.pts is None or packet.is_corrupt or now < latest:
                return no_index
            latest = now
            stamps.append(packet.pts)
            dropped.append(packet.is_discard)
            if packet.is_keyframe:  # containers seek by either timestamp
                lower = packet.pts if packet.dts is None else min(packet.pts, packet.dts)
                keys.extend((packet.pts, lower))
            if clock.monotonic() >= end:
                break
        else:
            latest = math.inf
    order = np.array(stamps, np.int64)
    # Reordered frames need reordered timestamps; ascending ones are those of decoding.
    if len(np.unique(order)) < len(order) or (shuffled and (np.diff(order) > 0).all()):
        return no_index
    order = np.sort(order[np.array(dropped) == 0])
    places = np.array(keys, np.int64).reshape(-1, 2)
    # Packets that were not indexed are shown no earlier than they are decoded.
    return _FrameIndex(order[order < latest], places[np.argsort(places[:, 0])], tick)


def _decode_from_keyframe(
    source: _Source, index: _FrameIndex, number: int, seconds: float | None, end: float
) -> NDArray[np.uint8] | None:
    """Decode one frame, starting at the keyframe before it; None or an error if in doubt."""
    wanted = int(index.stamps[number])
    since = (wanted - int(index.stamps[0])) * index.tick
    place = int(np.searchsorted(index.keys[:, 0], wanted, "right")) - 1
    if place < 0 or (seconds is not None and abs(since - seconds) > 1e-3):
        return None
    key, begin = index.keys[place].tolist()
    # Every frame from the keyframe to this one has to be seen, or the seek went elsewhere.
    missing = number - int(np.searchsorted(index.stamps, key))
    begun, sound, latest = False, False, -math.inf
    views = Views(source.only_turned)
    with open_container(source.path) as container:
        video = picture_stream(source.path, container)
        if place:
            container.seek(begin, stream=video)
        for packet in container.demux(video):
            begun |= packet.pts == key
            astray = not begun and packet.dts is not None and packet.dts > begin
            if astray or clock.monotonic() >= end:
                return None
            if not begun:
                continue
            if packet.pts is not None:
                missing -= key <= packet.pts < wanted and not packet.is_discard
                if not packet.size:  # a frame that the recorder dropped
                    continue
            for frame in video.codec_context.decode(packet):
                if frame.pts is None or frame.pts > wanted or latest >= frame.pts >= key:
                    return None
                latest = frame.pts
                if frame.pts == key:  # else gradual refresh; a keyframe's type is none or intra
                    sound = frame.key_frame and frame.pict_type in (0, 1)
                view = views.of(frame, pixel_aspect(video))
                if frame.pts == wanted:
                    if missing or frame.is_corrupt or not sound:
                        return None
                    return upright(frame, view)
    return None


def _read_from_start(source: _Source, number: int, end: float) -> NDArray[np.uint8]:
    """Read a video from its beginning, as the ingest does, up to a frame; raises if not found."""
    with open_footage(source.path, source.fps, only_turned=source.only_turned) as footage:
        for frame in footage:
            if frame.number == number:
                return frame.image
            if frame.number > number or clock.monotonic() >= end:
                break
    raise LookupError(number)


def _encode_still(image: NDArray[np.uint8], box: _Box | None, width: int) -> bytes:
    """Encode (H, W, 3) uint8 as JPEG, scaled to at most a width, with a box drawn in."""
    picture = Image.fromarray(image)
    scale = min(1.0, width / picture.width)
    if scale < 1:
        size = (width, max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if box is not None and all(map(math.isfinite, box)):
        line = max(1, round(picture.width / 480))
        left, top, wide, high = (side * scale for side in box)
        # Outside the box, so as not to cover the object; yellow on black shows on any picture.
        for colour, rim in (("black", 2 * line), ("yellow", line)):
            sides = (left - rim, top - rim, left + wide + rim, top + high + rim)
            limits = (picture.width + rim, picture.height + rim) * 2
            x0, y0, x1, y1 = np.clip(sides, -rim, limits).tolist()
            if x0 <= x1 and y0 <= y1:
                ImageDraw.Draw(picture).rectangle((x0, y0, x1, y1), outline=colour, width=line)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()
