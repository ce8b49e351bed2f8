"""From a crop back to the frame that it was cut from, for a look at its surroundings.

A frame is found by its number, as :mod:`.footage` counts. The file's packets are counted first,
undecoded; then decoding begins at the keyframe before the frame. Where that cannot be relied upon,
as in damaged files, the video is read once more as it was when its crops were made, which takes
longer but numbers the frames the same way by construction.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import sys
import threading
import time as clock
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from collabteam.video.footage import (
    WITHOUT,
    Pace,
    content_hash,
    has_timestamps,
    is_stream,
    open_container,
    open_footage,
    picture_stream,
    upright,
)
from collabteam.video.spool import VideoRecord

if TYPE_CHECKING:
    from typing import TypeAlias

    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

    _Packet: TypeAlias = Packet[VideoStream]

PATIENCE = 10.0
"""Seconds after which a still is given up."""

_KEPT = 64
"""Finished stills that are kept."""
_MAPS = 16
"""Videos whose packets are remembered: 40 bytes each."""
_AT_ONCE = 2
"""Stills that are decoded at a time; whoever else asks waits, so that nothing else starves."""
_AHEAD = 64
"""Packets by which frames may come out later than they stand in the file."""
_LEAST = 1024
"""Packets that are counted at least, so that not every frame further on begins anew."""
_NONE = -(2**63)
"""Stands for no timestamp."""
_QUALITY = 85


class Stills:
    """Frames of a camera's videos, for as long as the files are where they were read.

    May be asked from several threads.

    Args:
        folder: The camera's folder; nothing is written there.
        width: Of a still, at most, in pixels.
    """

    def __init__(self, folder: Path, width: int = 960) -> None:
        self._folder = folder / "videos"
        self._width = max(1, width)
        self._lock = threading.Lock()  # of what follows
        self._listed = -1  # when the folder had changed last
        self._files: dict[Path, int] = {}  # when each had changed last
        self._records: dict[str, VideoRecord] = {}  # by the name that crops have
        self._done: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._maps: OrderedDict[tuple[str, int, int], _Map] = OrderedDict()
        self._same: dict[tuple[str, int, int], bool] = {}
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._refresh()

    def available(self, video: str) -> bool:
        """Whether stills of a video can be expected; looks at its file, but does not read it.

        Args:
            video: As crops name it.
        """
        record = self._record(video)
        if record is None or is_stream(record.path) or importlib.util.find_spec("av") is None:
            return False
        return _status(record.path)[0] == record.size

    def jpeg(
        self, video: str, frame: int, time: float, box: tuple[float, float, float, float] | None
    ) -> bytes | None:
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
        end = clock.monotonic() + PATIENCE
        record = self._record(video)
        if record is None or frame < 0 or not self.available(video):
            return None
        key = (record.path, *_status(record.path))
        sides = None if box is None else tuple(map(float, box))  # as lists cannot be keys
        wanted = (key, frame, None if math.isnan(time) else time, sides)  # no NaN equals another
        with self._lock:
            if (done := self._done.get(wanted)) is not None:
                self._done.move_to_end(wanted)
                return done
        if not self._turns.acquire(timeout=max(0.0, end - clock.monotonic())):
            return None
        try:
            if not self._is_same(record, key):
                return None
            seconds = math.nan if record.start is None else time - record.start
            image = self._image(record, key, frame, seconds, end)
            made = None if image is None else _drawn(image, box, self._width)
        except Exception:  # a look around is a courtesy: no file shall end a review
            return None
        finally:
            self._turns.release()
        if made is not None:
            with self._lock:
                self._done[wanted] = made
                while len(self._done) > _KEPT:
                    self._done.popitem(last=False)
        return made

    def _record(self, video: str) -> VideoRecord | None:
        self._refresh()
        with self._lock:
            return self._records.get(video)

    def _refresh(self) -> None:
        """Look for videos that were added, or found anew elsewhere, since the last time."""
        with self._lock, suppress(OSError):
            changed = self._folder.stat().st_mtime_ns
            if changed == self._listed:
                return
            # Something more may come within the clock's tick.
            self._listed = changed if clock.time() - changed / 1e9 > 1 else -1
            for file in self._folder.glob("*.json"):
                # What is no record, such as one that is damaged, is passed over.
                with suppress(OSError, ValueError, TypeError):
                    when = file.stat().st_mtime_ns
                    if self._files.get(file) == when:
                        continue
                    self._files[file] = when
                    record = VideoRecord(**json.loads(file.read_text(encoding="utf-8")))
                    self._records[record.name] = record

    def _is_same(self, record: VideoRecord, key: tuple[str, int, int]) -> bool:
        """Whether a file has the content that was read; one that was touched is read for that."""
        if key[2] == record.changed:
            return True
        with self._lock:
            known = self._same.get(key)
        if known is None:
            known = content_hash(record.path) == record.id
            with self._lock:
                self._same[key] = known
        return known

    def _image(
        self,
        record: VideoRecord,
        key: tuple[str, int, int],
        number: int,
        seconds: float,
        end: float,
    ) -> NDArray[np.uint8] | None:
        """The frame of a number, (H, W, 3); seconds are NaN if nobody knows."""
        with suppress(Exception):  # replayed instead
            packets = self._map(key, number, end)
            if packets.fits(record):
                place = packets.place(number, seconds, bool(record.faults))
                for seeking in (True, False):
                    if place is None:
                        break
                    found = _decoded(record.path, packets, place, seeking, end)
                    if found is not None:
                        return found
                    if not place.start:
                        break  # nothing was sought
        return _replayed(record, number, end) if clock.monotonic() < end else None

    def _map(self, key: tuple[str, int, int], number: int, end: float) -> _Map:
        """What the packets are up to a frame, at least.

        Raises:
            Exception: The file cannot be read.
        """
        with self._lock:
            known = self._maps.get(key)
            if known is not None:
                self._maps.move_to_end(key)
        if known is None or not known.reaches(number):
            # Twice as far each time: a walk through the video reads it twice at most.
            count = max(_LEAST, 1 << (number + _AHEAD).bit_length())
            known = _mapped(key[0], count, end)
            if known.sound and not known.stamped and not known.whole:  # its end is asked for, too
                known = _mapped(key[0], sys.maxsize, end)
            with self._lock:
                self._maps[key] = known
                while len(self._maps) > _MAPS:
                    self._maps.popitem(last=False)
        return known


def _status(path: str) -> tuple[int, int]:
    """Size and time of change of a file, -1 and -1 if it is none."""
    try:
        file = Path(path)
        status = file.stat()
        return (status.st_size, status.st_mtime_ns) if file.is_file() else (-1, -1)
    except (OSError, ValueError):
        return -1, -1


# --- where a frame stands in its file ------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where to decode.

    Attributes:
        start: The packet to begin with, a keyframe, by its place in the file.
        packet: The packet of the frame, by its place; None if frames are counted.
        first: Where counting begins, a keyframe, by its place, which is also the number of the
            first frame that comes from there on: all that stands before it is shown before it.
        number: Of the frame.
    """

    start: int
    packet: int | None
    first: int
    number: int


@dataclass(frozen=True)
class _Map:
    """What a video's packets are, from the first on, in the file's order.

    Attributes:
        sound: Whether frames can be found by it.
        whole: Whether these are all packets.
        stamped: Whether timestamps tell the frames' order, see :func:`has_timestamps`.
        stamps: What tells packets apart: timestamps, or those of decoding if frames are counted.
        decoded: Timestamps of decoding.
        begins: Where each begins in the file, in bytes.
        sizes: In bytes.
        keys: Places of the keyframes, in order.
        order: The packets' places in the order in which they are shown; in the file's if frames
            are counted. Without those that the container wants to be dropped.
        tick: Seconds that a timestamp counts.
        rate: Frames per second by which counted frames get their times; 0 if it is not clear.
        shuffled: Whether frames may be shown in another order than the file's.
    """

    sound: bool
    whole: bool
    stamped: bool
    stamps: NDArray[np.int64]
    decoded: NDArray[np.int64]
    begins: array[int]
    sizes: array[int]
    keys: NDArray[np.int64]
    order: NDArray[np.int64]
    tick: float
    rate: float
    shuffled: bool

    def reaches(self, number: int) -> bool:
        """Whether it goes as far as a frame, or could."""
        return self.whole or not self.sound or number + _AHEAD < len(self.order)

    def fits(self, record: VideoRecord) -> bool:
        """Whether frames can be found by it under the numbers that they were read with."""
        if self.stamped or not self.sound:
            return self.sound
        # A counted frame that gets lost in decoding moves all numbers behind it, and the end.
        if record.faults or not self.whole or not self.rate:
            return False
        pace = Pace(_fps(record), self.rate)
        due = [number for number in range(len(self.sizes)) if pace.due(number / self.rate)]
        return abs(due[-1] / self.rate - record.duration) < 0.5 / self.rate

    def place(self, number: int, seconds: float, faulty: bool) -> _Place | None:
        """Where a frame stands; None if this cannot be told for certain.

        Args:
            number: Of the frame.
            seconds: Since the first frame, to check it; NaN if nobody knows.
            faulty: Whether damage was seen: what is missing is made up for from pictures before.
        """
        if number >= len(self.order) - (0 if self.whole else _AHEAD):
            return None
        if not self.stamped:
            before = self.keys[self.keys <= number]
            if not len(before):
                return None
            start = before[-2:][0] if self.shuffled else before[-1]
            return _Place(int(start), None, int(before[-1]), number)
        packet = int(self.order[number])
        stamp = self.stamps[packet]
        since = float(stamp - self.stamps[self.order[0]]) * self.tick
        if abs(since - seconds) > 1e-3:  # never so for NaN
            return None
        # What is shown before a keyframe but stands behind it needs the one before.
        before = self.keys[(self.keys <= packet) & (self.stamps[self.keys] <= stamp)]
        if not len(before):
            return None
        return _Place(int(before[-2:][0] if faulty else before[-1]), packet, 0, number)


def _mapped(path: str, count: int, end: float) -> _Map:
    """Look at a video's first packets, and decode nothing.

    Raises:
        Exception: It cannot be opened, or read on; or the time is up.
    """
    shown, decoded, begins, sizes = array("q"), array("q"), array("q"), array("i")
    keys: list[int] = []
    given: list[int] = []
    sound, whole = True, True
    with open_container(path, PATIENCE) as container:
        video = picture_stream(path, container)
        shuffled = bool(video.codec_context.has_b_frames)
        could_be = has_timestamps(container, video, True)
        tick, rate = float(video.time_base or 1), float(video.guessed_rate or 0)
        for packet in _packets(container, video, end):
            if len(sizes) >= count:
                whole = False
                break
            place = len(sizes)
            shown.append(_NONE if packet.pts is None else packet.pts)
            decoded.append(_NONE if packet.dts is None else packet.dts)
            begin, size = _where(packet)
            begins.append(begin)
            sizes.append(size)
            keys += [place] * packet.is_keyframe
            given += [place] * (not packet.is_discard)
            sound &= not packet.is_corrupt
    stamped = could_be and any(stamp != _NONE for stamp in shown[:WITHOUT])
    times = np.array(decoded, np.int64)
    stamps = np.array(shown, np.int64) if stamped else times
    order = np.array(given, np.int64)
    if stamped:
        # Timestamps that are missing, repeated or go back may be read in more than one way.
        sound &= bool((stamps != _NONE).all()) and len(np.unique(stamps)) == len(stamps)
        sound &= bool((np.diff(times[times != _NONE]) >= 0).all())
        order = order[np.argsort(stamps[order])]
    else:
        sound &= all(sizes)  # frames left out in recording are counted, but when is uncertain
    places = np.array(keys, np.int64)
    return _Map(
        sound, whole, stamped, stamps, times, begins, sizes, places, order, tick, rate, shuffled
    )


def _where(packet: _Packet) -> tuple[int, int]:
    """Where a packet begins in the file, -1 if unknown, and its size in bytes."""
    return -1 if packet.pos is None else packet.pos, packet.size


def _packets(container: InputContainer, video: VideoStream, end: float) -> Iterator[_Packet]:
    """The packets that count.

    Raises:
        TimeoutError: The time is up.
    """
    for packet in container.demux(video):
        if clock.monotonic() >= end:
            raise TimeoutError
        if packet.size or packet.pts is not None:  # the others stand for the end
            yield packet


# --- decoding ------------------------------------------------------------------------------------


def _decoded(
    path: str, packets: _Map, place: _Place, seeking: bool, end: float
) -> NDArray[np.uint8] | None:
    """Decode one frame, from a keyframe before it on.

    Args:
        path: The file.
        packets: What it holds.
        place: Where the frame is.
        seeking: Go to the keyframe at once, instead of passing over all packets before it.
        end: When the time is up.

    Returns:
        (H, W, 3) uint8, upright; None if the frame does not come out as it should.

    Raises:
        Exception: The file is damaged there; or the time is up.
    """
    with open_container(path, PATIENCE) as container:
        frames = _frames(container, path, packets, place, seeking, end)
        if place.packet is not None:
            for packet, frame in frames:
                if packet == place.packet:
                    return None if frame.is_corrupt else upright(frame)
            return None
        wanted: VideoFrame | None = None
        seen: set[int] = set()
        # One frame more than needed: a packet that gives no frame of its own moves the count.
        expected = set(range(place.first, min(place.number + 2, len(packets.sizes))))
        for packet, frame in frames:
            if packet < place.first:
                continue
            if len(seen) == place.number - place.first:
                wanted = frame
            seen.add(packet)
            if wanted is not None and expected <= seen:
                return None if wanted.is_corrupt else upright(wanted)
    return None


def _frames(
    container: InputContainer, path: str, packets: _Map, place: _Place, seeking: bool, end: float
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames around the one that is wanted, each with the place of its packet, as they are shown.

    The first comes from the keyframe at ``place.start``; there is none if that cannot be found, or
    is no true keyframe.
    """
    video = picture_stream(path, container)
    context = video.codec_context
    context.copy_opaque = True  # so frames say which packet they come from
    last = (place.number if place.packet is None else place.packet) + _AHEAD
    begun = False
    for at, packet in _from(container, video, packets, place.start, seeking, end):
        if packet is not None:
            packet.opaque = at
            if place.packet is not None:
                needed = at in (place.start, place.packet)
                context.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in context.decode(packet):
            source = frame.opaque
            if not isinstance(source, int):
                return
            if source == place.start:
                # A picture that is only renewed bit by bit from here on is called so, too.
                if not frame.key_frame or frame.pict_type not in (0, 1):  # none, or intra
                    return
                begun = True
            if begun:
                yield source, frame
        if at >= last:
            return


def _from(
    container: InputContainer,
    video: VideoStream,
    packets: _Map,
    start: int,
    seeking: bool,
    end: float,
) -> Iterator[tuple[int, _Packet | None]]:
    """Packets from a place on, each with its place; then None, for what the decoder holds back.

    There is none if seeking leads beyond the start or the file is not as it was.
    """
    stamp = int(packets.stamps[start])
    # Never above the other, whichever of them a container's index goes by.
    decoded = int(packets.decoded[start])
    seeking = seeking and start > 0 and stamp != _NONE
    if seeking:
        try:
            container.seek(stamp if decoded == _NONE else decoded, stream=video)
        except Exception:  # some files are read in one direction alone
            return
    at = -1 if seeking else 0
    for packet in _packets(container, video, end):
        if at < 0:
            found = packet.pts if packets.stamped else packet.dts
            if found == stamp:
                at = start
            elif packet.is_keyframe and found is not None and found > stamp:
                return
            else:
                continue
        # The index of a damaged file may count what reading it through does not come upon.
        if at < len(packets.sizes) and _where(packet) != (packets.begins[at], packets.sizes[at]):
            return
        if at >= start:
            yield at, packet
        at += 1
    if at >= 0:
        yield at, None


def _fps(record: VideoRecord) -> float:
    """Frames per second that were analysed, 0 for all."""
    return float(record.settings.get("fps", 0.0))


def _replayed(record: VideoRecord, number: int, end: float) -> NDArray[np.uint8] | None:
    """Read a video as when its crops were made, up to a frame.

    Returns:
        (H, W, 3) uint8, upright; None if the frame does not come, or not in time.

    Raises:
        FootageError: The video gives no frame.
    """
    with open_footage(record.path, _fps(record)) as footage:
        for frame in footage:
            if frame.number == number:
                return frame.image
            if frame.number > number or clock.monotonic() >= end:
                break
    return None


# --- drawing -------------------------------------------------------------------------------------


def _drawn(
    image: NDArray[np.uint8], box: tuple[float, float, float, float] | None, width: int
) -> bytes:
    """JPEG of (H, W, 3) uint8, scaled to at most a width, with the box around its content."""
    picture = Image.fromarray(image)
    scale = min(1.0, width / picture.width)
    if scale < 1:
        size = (width, max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if box is not None and all(map(math.isfinite, box)):
        line = max(1, round(picture.width / 480))
        left, top, wide, high = (side * scale for side in box)
        sides = (left, top, left + wide, top + high)
        limits = (picture.width, picture.height) * 2
        # Around the box, not upon it; light within dark shows on anything.
        for colour, rim in (("black", 2 * line), ("yellow", line)):
            corners = [
                min(max(side + (rim if place > 1 else -rim), -rim), limit + rim)
                for place, (side, limit) in enumerate(zip(sides, limits, strict=True))
            ]
            if corners[0] <= corners[2] and corners[1] <= corners[3]:
                ImageDraw.Draw(picture).rectangle(corners, outline=colour, width=line)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
