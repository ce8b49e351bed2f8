"""From a crop back to the frame that it was cut from, for a look at its surroundings.

A frame is found by its number, as :mod:`.footage` counts. In a plain video that is its place in the
order of timestamps: the packets are looked at once, undecoded, and decoding begins at the keyframe
before the frame. Every other video, and whatever does not come out as expected, is read once more
from its beginning: slower, but with the same numbers by construction.
"""

from __future__ import annotations

import importlib.util
import io
import json
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
    content_hash,
    has_timestamps,
    is_stream,
    open_container,
    open_footage,
    picture_stream,
    upright,
)
from collabteam.video.spool import VideoRecord

PATIENCE = 10.0
"""Seconds that a still may wait for its turn, and then take, before it is given up."""

_KEPT = 64  # finished stills
_ORDERS = 16  # videos whose timestamps are remembered: 8 bytes for each frame
_AT_ONCE = 2  # stills that are made; whoever else asks waits, so that nothing else starves

_Box: TypeAlias = tuple[float, float, float, float]


class Stills:
    """Frames of a camera's videos, for as long as the files are where they were read.

    May be asked from several threads.

    Args:
        videos: Folder of the camera's video records; nothing is written there.
        width: Of a still, at most, in pixels.
    """

    def __init__(self, videos: Path, width: int = 960) -> None:
        self._folder = videos
        self._width = max(1, width)
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._order = lru_cache(_ORDERS)(_ordered)
        self._made = lru_cache(_KEPT)(self._make)  # keeps no failure

    def available(self, video: str) -> bool:
        """Whether stills of a video can be expected; looks at its file, but does not read it.

        Args:
            video: As crops name it.
        """
        return self._source(video) is not None

    def jpeg(self, video: str, frame: int, time: float, box: _Box | None) -> bytes | None:
        """One frame, upright, with a box drawn around what the crop shows.

        Args:
            video: As crops name it.
            frame: The frame's number, from 0.
            time: When it was taken, in Unix seconds; NaN if nobody knows.
            box: Left, top, width and height in pixels of the frame; None to draw nothing.

        Returns:
            JPEG, scaled down to the width if it is wider; None if it cannot be had: the file is
            gone or has changed, is damaged there, or it takes too long.
        """
        source = self._source(video)
        if source is None or frame < 0:
            return None
        seconds = None if source.start is None or math.isnan(time) else time - source.start
        try:
            return self._made(source, frame, seconds, box)
        except Exception:  # a look around is a courtesy: no file shall end a review
            return None

    def _source(self, video: str) -> _Source | None:
        """Where a video is, if that may still be the file that was read."""
        digits = video.rpartition("@")[2]  # its record's name begins with them
        if not re.fullmatch("[0-9a-f]{8}", digits) or importlib.util.find_spec("av") is None:
            return None
        for file in self._folder.glob(f"{digits}*.json"):
            # What is no record, such as one that is damaged, is passed over.
            with suppress(OSError, ValueError, TypeError):
                record = VideoRecord(**json.loads(file.read_text(encoding="utf-8")))
                if record.name != video or is_stream(record.path):
                    continue
                now = Path(record.path).stat()
                if Path(record.path).is_file() and now.st_size == record.size:
                    fps = float(record.settings.get("fps", 0.0))
                    content = "" if now.st_mtime_ns == record.changed else record.id
                    as_read = (not record.faults, record.start, fps)
                    return _Source(record.path, now.st_mtime_ns, content, *as_read)
        return None

    def _make(self, source: _Source, number: int, seconds: float | None, box: _Box | None) -> bytes:
        """The still of a frame, its seconds None if nobody knows; raises if it cannot be had."""
        if not self._turns.acquire(timeout=PATIENCE):
            raise TimeoutError
        try:
            end = clock.monotonic() + PATIENCE
            order = self._order(source)
            if order is None:
                raise LookupError("another file is there now")
            image = None
            with suppress(Exception):  # replayed instead
                image = _sought(source.path, order, number, seconds, end)
            if image is None:
                image = _replayed(source, number, end)
            return _drawn(image, box, self._width)
        finally:
            self._turns.release()


class _Source(NamedTuple):
    """A video's file and how it was read."""

    path: str
    changed: int  # when it was changed last, in nanoseconds
    content: str  # the hash that it must have; empty if it has not changed since it was read
    plain: bool  # whether nothing was wrong with it
    start: float | None  # when the recording began, in Unix seconds; None if nobody knows
    fps: float  # frames per second that were analysed, 0 for all


class _Order(NamedTuple):
    """In which order a video's frames are shown."""

    # Timestamps, ascending, so that the place is the number. Fewer than all frames have if it takes
    # too long to look at all, none if only replaying tells.
    stamps: NDArray[np.int64]
    keys: NDArray[np.int64]  # (K, 2): those of keyframes, ascending, and where to seek each
    tick: float  # seconds that a timestamp counts


def _ordered(source: _Source) -> _Order | None:
    """Look at a video's packets, and decode nothing; None if its content is not what was read."""
    unclear = _Order(np.empty(0, np.int64), np.empty((0, 2), np.int64), 1.0)
    if source.content and content_hash(source.path) != source.content:
        return None
    if not source.plain:
        return unclear
    stamps, dropped, keys = array("q"), array("b"), array("q")
    latest = -math.inf
    end = clock.monotonic() + PATIENCE / 2
    with open_container(source.path) as container:
        video = picture_stream(source.path, container)
        if not has_timestamps(container, video):
            return unclear
        tick, shuffled = float(video.time_base or 1), video.codec_context.has_b_frames
        for packet in container.demux(video):
            if not packet.size and packet.pts is None:  # stands for the end
                continue
            now = latest if packet.dts is None else packet.dts
            if packet.pts is None or packet.is_corrupt or now < latest:
                return unclear
            latest = now
            stamps.append(packet.pts)
            dropped.append(packet.is_discard)
            if packet.is_keyframe:  # some containers seek by the one, some by the other timestamp
                lower = packet.pts if packet.dts is None else min(packet.pts, packet.dts)
                keys.extend((packet.pts, lower))
            if clock.monotonic() >= end:
                break
        else:
            latest = math.inf
    order = np.array(stamps, np.int64)
    # Frames that change places must have timestamps that do, and not those of recording.
    if len(np.unique(order)) < len(order) or (shuffled and (np.diff(order) > 0).all()):
        return unclear
    order = np.sort(order[np.array(dropped) == 0])
    places = np.array(keys, np.int64).reshape(-1, 2)
    # What is still to come is shown no earlier than it is decoded.
    return _Order(order[order < latest], places[np.argsort(places[:, 0])], tick)


def _sought(
    path: str, order: _Order, number: int, seconds: float | None, end: float
) -> NDArray[np.uint8] | None:
    """Decode one frame, from the keyframe before it on; None or an error if it is not certain."""
    wanted = int(order.stamps[number])
    since = (wanted - int(order.stamps[0])) * order.tick
    place = int(np.searchsorted(order.keys[:, 0], wanted, "right")) - 1
    if place < 0 or (seconds is not None and abs(since - seconds) > 1e-3):
        return None
    key, begin = order.keys[place].tolist()
    # All that is shown from the keyframe to the frame has to pass by, or this is another place.
    missing = number - int(np.searchsorted(order.stamps, key))
    begun, sound, latest = False, False, -math.inf
    with open_container(path) as container:
        video = picture_stream(path, container)
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
                if not packet.size:  # left out when it was recorded
                    continue
            for frame in video.codec_context.decode(packet):
                if frame.pts is None or frame.pts > wanted or latest >= frame.pts >= key:
                    return None
                latest = frame.pts
                if frame.pts == key:  # or pictures only begin to be renewed bit by bit: none, or I
                    sound = frame.key_frame and frame.pict_type in (0, 1)
                if frame.pts == wanted:
                    return None if missing or frame.is_corrupt or not sound else upright(frame)
    return None


def _replayed(source: _Source, number: int, end: float) -> NDArray[np.uint8]:
    """Read a video as when its crops were made, up to a frame; raises if that does not come."""
    with open_footage(source.path, source.fps) as footage:
        for frame in footage:
            if frame.number == number:
                return frame.image
            if frame.number > number or clock.monotonic() >= end:
                break
    raise LookupError(number)


def _drawn(image: NDArray[np.uint8], box: _Box | None, width: int) -> bytes:
    """JPEG of (H, W, 3) uint8, scaled to at most a width, with the box around its content."""
    picture = Image.fromarray(image)
    scale = min(1.0, width / picture.width)
    if scale < 1:
        size = (width, max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if box is not None and all(map(math.isfinite, box)):
        line = max(1, round(picture.width / 480))
        left, top, wide, high = (side * scale for side in box)
        # Around the box, not upon it; light within dark shows on anything.
        for colour, rim in (("black", 2 * line), ("yellow", line)):
            sides = (left - rim, top - rim, left + wide + rim, top + high + rim)
            limits = (picture.width + rim, picture.height + rim) * 2
            x0, y0, x1, y1 = np.clip(sides, -rim, limits).tolist()
            if x0 <= x1 and y0 <= y1:
                ImageDraw.Draw(picture).rectangle((x0, y0, x1, y1), outline=colour, width=line)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()
