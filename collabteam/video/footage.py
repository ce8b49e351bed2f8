"""From a file or a stream to frames: finding videos, telling when they began, decoding them.

Footage is read as it comes from cameras: cut off, damaged, of changing size, with timestamps that
go back. What is wrong is written down in :attr:`Footage.faults`, and reading goes on as long as
there are frames; only what gives no frame at all is an error.
"""

from __future__ import annotations

import calendar
import glob
import hashlib
import heapq
import itertools
import math
import os
import re
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from collabteam.config import FootageConfig
from collabteam.errors import UserError, first_line
from collabteam.video.objects import Frame

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".flv", ".wmv", ".asf", ".ogv"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".m2v", ".vob", ".mxf", ".dav", ".mjpeg", ".mjpg"),
    *(".h264", ".264", ".h265", ".265", ".hevc"),
)
"""File names that are taken for videos."""
STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
"""Beginnings of addresses that are taken for streams."""
OPEN_TIMEOUT = 15.0
"""Seconds that a stream's server may take to answer, and as many until its format is known."""
READ_TIMEOUT = 15.0
"""Seconds without data after which a stream is given up."""
QUEUE = 4
"""Frames that are decoded ahead."""

# These go on whether or not anybody reads; the others wait.
_LIVE = ("rtsp", "rtsps", "rtmp", "udp")
# Seconds by which timestamps may go back before it counts as a jump and not as disorder.
_DISORDER = 1.0
# Seconds by which timestamps may go forth before the next frame is asked to confirm it.
_GAP = 5.0
_ENOUGH_ERRORS = 100
# Of packets that wait for the decision whether anything needs them.
_HELD = 500
# Of keyframes that must have been what the container calls them before anything relies on it.
_TRUST = 3
# A frame may come this share of the usual distance early and is still on time.
_EARLY = 0.25

T = TypeVar("T")


class FootageError(UserError):
    """One video that gives no frame; others may be better.

    Attributes:
        reason: What is wrong with it, without its path.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{_shown(path)}: {reason}")
        self.reason = reason


def _libav() -> ModuleType:
    """PyAV, which no other function imports.

    Raises:
        UserError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            "footage needs the package av: pip install 'collabteam[footage]'"
        ) from error
    return av


# --- which videos --------------------------------------------------------------------------------


def is_stream(path: str) -> bool:
    """Whether this is the address of a stream, such as ``rtsp://...``."""
    return path.lower().partition("://")[0] in STREAMS and "://" in path


def find_videos(path: str) -> list[str]:
    """The videos that a path names.

    Args:
        path: A file; a folder, whose videos are found by their names at any depth, without those
            that are hidden; a pattern such as ``footage/*.mp4`` or ``footage/**/*.avi``; or a
            stream's address, which is returned as it is.

    Returns:
        Paths, sorted, at least one.

    Raises:
        UserError: Nothing is given, nothing is there, or nothing of it is a video.
    """
    expected = (
        "expected a video, a folder of videos, a pattern such as 'footage/*.mp4', or a stream"
    )
    if not path:
        raise UserError(f"path is not given: {expected}")
    if is_stream(path):
        return [path]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        known = ", ".join(f"{name}://" for name in STREAMS)
        raise UserError(f"path={_shown(path)} is no stream of a known kind: expected {known}")
    place = Path(path)
    try:
        if place.is_file():
            return [path]
        if place.is_dir():
            there, what = _walk(place), "folder"
        elif place.exists():
            raise UserError(f"path={path} is neither a file nor a folder: {expected}")
        elif glob.has_magic(path):
            there = [name for name in glob.glob(path, recursive=True) if Path(name).is_file()]
            what = "pattern"
        else:
            raise UserError(f"path={path} does not exist: {expected}")
    except PermissionError as error:
        raise UserError(f"path={path} cannot be read: {error.strerror}") from error
    videos = sorted({name for name in there if name.lower().endswith(EXTENSIONS)})
    if videos:
        return videos
    kinds = Counter(Path(name).suffix.lower() or "no extension" for name in there)
    seen = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
    more = f" and {len(kinds) - 3} kinds more" if len(kinds) > 3 else ""
    fits = "holds" if what == "folder" else "fits"
    raise UserError(
        f"path={path}: this {what} {fits} no video, but {seen or 'nothing'}{more}; "
        "expected .mp4, .avi, .mkv, ..."
    )


def _walk(place: Path) -> list[str]:
    found = []
    walked: set[str] = set()
    for parent, folders, names in os.walk(place, followlinks=True):
        if os.path.realpath(parent) in walked:  # a link back up would never end
            folders.clear()
            continue
        walked.add(os.path.realpath(parent))
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [str(Path(parent) / name) for name in names if not name.startswith(".")]
    return found


def _shown(path: str) -> str:
    """A path for messages: an address may hold a password."""
    if "://" not in path:
        return path.encode("utf-8", "backslashreplace").decode()
    head, _, rest = path.partition("://")
    address, slash, tail = rest.partition("/")
    return f"{head}://{address.rpartition('@')[2]}{slash}{tail}"


def content_hash(path: str) -> str:
    """What a file is called by its content.

    Returns:
        24 hexadecimal digits of BLAKE2b over its bytes.

    Raises:
        FootageError: It cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
    except OSError as error:
        raise FootageError(path, f"cannot be read: {error.strerror}") from error


# --- when it began -------------------------------------------------------------------------------

_MONTHS = "|".join(map(re.escape, (*calendar.month_name[1:], *calendar.month_abbr[1:])))
_DAYS = "|".join(map(re.escape, (*calendar.day_name, *calendar.day_abbr)))
# What a directive of strptime stands for: written in full, and as loosely as strptime takes it.
_DIRECTIVES = {
    **{f"%{letter}": (r"\d{2}", r"\d{1,2}") for letter in "mdHIMSy"},
    "%Y": (r"\d{4}", r"\d{4}"),
    "%j": (r"\d{3}", r"\d{1,3}"),
    "%f": (r"\d{1,6}", r"\d{1,6}"),
    **{f"%{letter}": (f"(?:{_MONTHS})", f"(?:{_MONTHS})") for letter in "bB"},
    **{f"%{letter}": (f"(?:{_DAYS})", f"(?:{_DAYS})") for letter in "aA"},
    "%p": ("(?:AM|PM)", "(?:AM|PM)"),
    "%z": (r"(?:[+-]\d{2}:?\d{2}|Z)", r"(?:[+-]\d{2}:?\d{2}|Z)"),
    "%s": (r"(?P<epoch>\d{10})", r"(?P<epoch>\d{10})"),
    "%%": ("%", "%"),
}
_PART = re.compile(r"%.|%\Z|\s+|[^%\s]+", re.DOTALL)
# An unset clock of a camera says 1904 or 1970.
_OLDEST = datetime(1980, 1, 1, tzinfo=UTC).timestamp()


def start_time(name: str, footage: FootageConfig, created: str | None) -> float:
    """When a recording began.

    Args:
        name: The file's name or path.
        footage: How the name tells the time, and in which time zone.
        created: What the container says, as in ISO 8601; without a zone, UTC.

    Returns:
        Seconds since 1970 in UTC; of the name, or else of the container, or else NaN.

    Raises:
        UserError: The pattern or the time zone cannot be used.
    """
    if footage.start:
        zone = _zone(footage)
        stem = Path(name).stem
        for loose, free in itertools.product((False, True), (False, True)):
            pattern = _start_pattern(footage.start, loose)
            # Digits beside it would make a part of a longer number a time; they are a last resort.
            pattern = pattern if free else rf"(?<!\d){pattern}(?!\d)"
            for match in re.finditer(f"(?=({pattern}))", stem, re.IGNORECASE):
                if "epoch" in match.groupdict():
                    return float(match["epoch"])
                try:
                    when = datetime.strptime(match[1], footage.start)
                    return (when if when.tzinfo else when.replace(tzinfo=zone)).timestamp()
                except (ValueError, OverflowError):  # such as month 13
                    continue
    try:
        when = datetime.fromisoformat((created or "").strip())
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan
    return seconds if seconds >= _OLDEST else math.nan


def check_footage(footage: FootageConfig) -> None:
    """Raise on the first setting of a camera's footage that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    if footage.start:
        _start_pattern(footage.start)
    _zone(footage)
    setting = "camera.footage.region"
    if footage.region and len(footage.region) < 3:
        raise UserError(
            f"{setting} has {len(footage.region)} corners: expected none, or 3 or more [x, y]"
        )
    for corner in footage.region:
        try:
            x, y = (float(side) for side in corner)
        except (TypeError, ValueError):
            raise UserError(f"{setting}: {corner!r} is no corner: expected [x, y]") from None
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise UserError(
                f"{setting}: corner [{x:g}, {y:g}] is outside the frame: expected fractions of its "
                "width and height, 0 to 1"
            )
    if footage.mask:
        setting = f"camera.footage.mask={footage.mask}"
        try:
            with Image.open(footage.mask) as mask:
                mask.load()
        except FileNotFoundError:
            raise UserError(f"{setting} does not exist: expected an image") from None
        except UnidentifiedImageError:
            raise UserError(f"{setting} is no image that can be read: expected .png, ...") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{setting} cannot be read: {first_line(error)}") from error


def _start_pattern(start: str, loose: bool = False) -> str:
    """The regular expression of what strptime reads.

    Raises:
        UserError: It has what cannot be used, or lacks what a date needs.
    """
    setting = f"camera.footage.start={start}"
    parts = _PART.findall(start)
    used = [part for part in parts if part.startswith("%")]
    for part in used:
        if part not in _DIRECTIVES:
            known = " ".join(_DIRECTIVES)
            raise UserError(f"{setting}: {part} cannot be used: expected {known}")
        if part != "%%" and used.count(part) > 1:
            raise UserError(f"{setting}: {part} stands there twice")
    has_day = "%j" in used or ("%d" in used and {"%m", "%b", "%B"} & set(used))
    if "%s" not in used and not (has_day and {"%Y", "%y"} & set(used)):
        raise UserError(
            f"{setting} tells no date: expected a year, a month and a day, such as %Y%m%d_%H%M%S"
        )
    return "".join(
        _DIRECTIVES[part][loose]
        if part.startswith("%")
        else r"\s+"  # as strptime takes it
        if part.isspace()
        else re.escape(part)
        for part in parts
    )


def _zone(footage: FootageConfig) -> tzinfo:
    if footage.timezone.upper() == "UTC":  # there even where the system has no time zones
        return UTC
    try:
        return ZoneInfo(footage.timezone)
    except (KeyError, ValueError, OSError):
        raise UserError(
            f"camera.footage.timezone={footage.timezone} is no time zone that is known here: "
            "expected a name such as UTC or Europe/Madrid"
        ) from None


# --- time and choice -----------------------------------------------------------------------------


class Pace:
    """Which frames are due at a rate, by their timestamps.

    Time is cut into slots of 1 / fps from the first frame on, and the first frame of every slot is
    due, so that nothing drifts and no frame is taken twice. A frame that comes up to a quarter of
    the usual distance before its slot counts as in it: containers round timestamps. A rate not
    below the video's takes every frame, however they are rounded.

    Attributes:
        all: Whether every frame is due.
    """

    def __init__(self, fps: float, rate: float) -> None:
        """Begin.

        Args:
            fps: Frames per second that are wanted; 0 for all.
            rate: The video's usual frames per second, above 0.
        """
        self.all = fps <= 0
        self._fps = fps
        # Against the last digit of a float.
        self._early = _EARLY * min(1.0, fps / rate) + 1e-6
        # Closer than 0.9 of the usual distance is no rounding but a burst.
        self._least = 0.9 / rate if fps >= rate else math.inf
        self._slot = -1
        self._last = -math.inf

    def slot(self, seconds: float) -> int:
        """The slot that a timestamp falls in."""
        return math.floor(seconds * self._fps + self._early)

    def due(self, seconds: float) -> bool:
        """Whether the next frame is taken; timestamps increase from call to call."""
        if self.all:
            return True
        slot = self.slot(seconds)
        if slot <= self._slot and seconds - self._last < self._least:
            return False
        self._slot, self._last = slot, seconds
        return True


def steady(
    stamped: Iterable[tuple[float | None, T]], rate: float, tell: Callable[[str, float], None]
) -> Iterator[tuple[float, T]]:
    """Timestamps that strictly increase, whatever the video's are.

    Missing and repeated ones go on at the nominal rate, and so do those after a jump back. One
    frame whose time contradicts both its neighbours is left out.

    Args:
        stamped: Seconds, None where there is none, each with what it belongs to.
        rate: Nominal frames per second.
        tell: Called with ``back`` (timestamps have jumped back) or ``stray`` (a frame is left out)
            and the time.

    Yields:
        Seconds, each with what it belongs to.
    """
    step = 1.0 / rate
    shift = 0.0
    last = -step
    before: float | None = None
    nudged = False
    odd: tuple[float, T] | None = None  # a jump that the next frame has to confirm
    for raw, item in stamped:
        if raw is not None and raw == before:  # never moving is as good as none
            raw = None
        else:
            before = raw
        if raw is None:
            last += step
            yield last, item
            continue
        now = raw + shift
        if odd is not None:
            forth = odd[0] + shift > last
            if raw > odd[0] and (forth or raw <= odd[0] + _GAP) and not last < now <= last + _GAP:
                if not forth:
                    shift = last + step - odd[0]
                    tell("back", last)
                last = odd[0] + shift
                yield last, odd[1]
                now = raw + shift
            else:
                tell("stray", max(last, 0.0))
            odd = None
        if last < now <= last + _GAP or (last < 0 <= now):
            last, nudged = now, False
        elif last - _DISORDER <= now <= last:
            # Half a step: the timestamps catch up with it, unless they never move.
            last, nudged = last + (step if nudged else step / 2), True
        else:
            odd = (raw, item)
            continue
        yield last, item
    if odd is not None:
        now = odd[0] + shift
        yield (now if now > last else last + step), odd[1]


class _Places:
    """Numbers frames by how many packets are shown before them, decoded or not."""

    def __init__(self) -> None:
        self._ahead: list[int] = []
        self._passed = 0

    def add(self, pts: int) -> None:
        heapq.heappush(self._ahead, pts)

    def number(self, pts: int | None) -> int:
        """Of the next frame that is shown."""
        while self._ahead and pts is not None and self._ahead[0] < pts:
            heapq.heappop(self._ahead)
            self._passed += 1
        if self._ahead:  # its own packet
            heapq.heappop(self._ahead)
        self._passed += 1
        return self._passed - 1


class Sieve(Generic[T]):
    """Leaves out packets that no wanted frame needs.

    After the last wanted packet before a keyframe, nothing is needed, unless a picture that follows
    the keyframe in the file and is shown before it is wanted: that one may look back further.

    Attributes:
        trusted: Whether decoding can begin anew at what is called a keyframe; until then nothing is
            left out.
    """

    def __init__(self) -> None:
        self.trusted = False
        self._held: list[tuple[T, bool]] = []
        self._key: tuple[int, int] | None = None  # its place among the held, its timestamp

    def put(self, packet: T, pts: int, is_key: bool, wanted: bool) -> list[tuple[T, bool]]:
        """The next packet, in the file's order.

        Args:
            packet: The packet.
            pts: When it is shown.
            is_key: Whether it is a keyframe.
            wanted: Whether its frame is wanted.

        Returns:
            Packets to decode now, in order, each with whether it is wanted.
        """
        ready: list[tuple[T, bool]] = []
        if self._key is not None and (is_key or pts > self._key[1]):
            ready = self._settle()
        if is_key:
            self._key = (len(self._held), pts)
        self._held.append((packet, wanted))
        if (wanted and not is_key) or not self.trusted or len(self._held) > _HELD:
            ready += self.rest()
        return ready

    def rest(self) -> list[tuple[T, bool]]:
        """All that is held back, as if it were needed."""
        held, self._held, self._key = self._held, [], None
        return held

    def end(self) -> list[tuple[T, bool]]:
        """What is needed of all that is held back, at the video's end."""
        return self._settle()

    def _settle(self) -> list[tuple[T, bool]]:
        """Nothing that the newest keyframe follows is needed, nor is what it is shown after."""
        if self._key is None:
            return []
        key = self._held[self._key[0]]
        self._held, self._key = ([], None) if key[1] else ([key], None)
        return [key] if key[1] else []


class _Faults:
    """What was wrong: one line for each kind, however often it comes."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._count: Counter[str] = Counter()

    def add(self, kind: str, text: str) -> None:
        self._first.setdefault(kind, text)
        self._count[kind] += 1

    def lines(self) -> list[str]:
        return [
            text if self._count[kind] == 1 else f"{text} ({self._count[kind]} times in all)"
            for kind, text in list(self._first.items())
        ]


# --- reading -------------------------------------------------------------------------------------


class _Reader:
    """Opens and decodes one video in a thread of its own; nothing else touches libav's objects."""

    def __init__(self, path: str, fps: float, limit: float, threads: int) -> None:
        self.av = _libav()
        self.path = path
        self.stream = is_stream(path)
        self.rate, self.duration, self.began = 25.0, math.nan, math.nan
        self.frames: int | None = None
        self.created: str | None = None
        self.faults = _Faults()
        self.decoded = 0
        self._fps, self._threads = fps, threads
        self._limit = limit if self.stream and limit > 0 else math.inf
        self._live = urlsplit(path).scheme.lower() in _LIVE if self.stream else False
        self._opened = math.inf
        self._now = 0.0  # of what was decoded last
        self._end = 0.0  # of what was in the file
        self._packets = 0
        self._whole = False  # nothing is left out from here on
        self._limited = False
        self._changed = threading.Condition()
        self._queue: deque[Frame] = deque()
        self._stopped = self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="footage", daemon=True)
        self._thread.start()

    # What the consumer calls.

    def first(self) -> Frame:
        """Wait for the first frame, and leave it in the queue.

        Raises:
            FootageError: There is none.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._over)
            if self._queue:
                return self._queue[0]
            raise self._error or FootageError(self.path, "has no frame that can be decoded")

    def take(self) -> Frame | None:
        """The next frame; None at the end."""
        with self._changed:
            # A server that stalls must not keep anybody beyond the limit.
            left = self._opened + self._limit - time.monotonic()
            self._changed.wait_for(
                lambda: self._queue or self._over or self._stopped,
                None if math.isinf(self._limit) else max(0.0, left),
            )
            if self._stopped:
                return None
            if self._queue:
                frame = self._queue.popleft()
                self._changed.notify_all()
                return frame
            if self._error is not None:
                raise self._error
            return None

    def stop(self) -> None:
        """End the thread. One that waits for a server ends by itself, READ_TIMEOUT later."""
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0 if self.stream else 10.0)

    # What the thread does.

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._read()
        except FootageError as refused:
            error = refused
        except (self.av.error.FFmpegError, OSError) as failed:
            if not self.decoded:
                error = FootageError(self.path, _reason(failed))
                error.__cause__ = failed
            else:
                self._fault("lost", f"cannot be read from {self._now:.1f} s on: {_reason(failed)}")
        except BaseException as unknown:  # the consumer shall see it
            error = unknown
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def _fault(self, kind: str, text: str) -> None:
        self.faults.add(kind, text)

    def _read(self) -> None:
        with self._open() as container:
            self.began, self._opened = time.time(), time.monotonic()
            video = self._video(container)
            self._describe(container, video)
            self._give_frames(container, video)
            if not (self._stopped or self._limited):
                self._judge_end(container)

    def _open(self) -> InputContainer:
        """Raises FootageError."""
        if not self.stream:
            try:
                if not Path(self.path).stat().st_size:
                    raise FootageError(self.path, "is empty: expected a video")
            except OSError as error:
                raise FootageError(self.path, f"cannot be read: {error.strerror}") from error
        # Without "file:", a colon in a name, as in a time, would make it an address.
        address = self.path if self.stream else f"file:{self.path}"
        options = {"rtsp_transport": "tcp"} if self.path.lower().startswith("rtsp") else {}
        timeout = (OPEN_TIMEOUT, READ_TIMEOUT) if self.stream else None
        try:
            container: InputContainer = self.av.open(
                address, options=options, timeout=timeout, metadata_errors="replace"
            )
        except self.av.error.ExitError as error:
            reason = f"does not answer within {OPEN_TIMEOUT:g} s"
            raise FootageError(self.path, reason) from error
        except self.av.error.InvalidDataError as error:
            reason = "is no video that can be read, or its end is missing"
            raise FootageError(self.path, reason) from error
        except (self.av.error.FFmpegError, OSError, ValueError) as error:
            raise FootageError(self.path, f"cannot be opened: {_reason(error)}") from error
        return container

    def _video(self, container: InputContainer) -> VideoStream:
        """The stream with the pictures. Raises FootageError."""
        cover = self.av.stream.Disposition.attached_pic
        videos = [one for one in container.streams.video if not one.disposition & cover]
        if not videos:
            kinds = ", ".join(dict.fromkeys(one.type for one in container.streams))
            raise FootageError(self.path, f"has no video, only {kinds or 'nothing'}")
        readable = [one for one in videos if one.codec_context is not None]
        if not readable:
            raise FootageError(self.path, "has a video of a kind that cannot be decoded")
        best = max(readable, key=lambda one: one.width * one.height)  # the first of equals
        best.codec_context.thread_type = "AUTO"
        best.codec_context.thread_count = self._threads
        return best

    def _describe(self, container: InputContainer, video: VideoStream) -> None:
        for rate in (video.average_rate, video.guessed_rate, video.base_rate):
            if rate and 0 < rate <= 1000:
                self.rate = float(rate)
                break
        if not self.stream:
            if container.format.name == "avi" and video.frames:
                # Of a file that was cut off the demuxer says something in between.
                self.duration = video.frames / self.rate
            elif video.duration and video.time_base:
                self.duration = float(video.duration * video.time_base)
            elif container.duration:
                self.duration = container.duration / 1e6
            if video.frames:
                self.frames = video.frames
            elif not math.isnan(self.duration):
                self.frames = round(self.duration * self.rate)
        said = (container.metadata, video.metadata)
        self.created = next(filter(None, (tags.get("creation_time") for tags in said)), None)

    def _give_frames(self, container: InputContainer, video: VideoStream) -> None:
        size = (0, 0)
        pace: Pace | None = None
        convert = self.av.video.reformatter.VideoReformatter()
        for seconds, (number, picture) in self._timed(container, video):
            self._now = seconds
            if seconds >= self._limit:
                self._limited = True
                return
            turns = round(picture.rotation / 90) % 4
            new = (picture.width, picture.height)[:: -1 if turns % 2 else 1]
            if size not in ((0, 0), new):
                what = f"{size[0]}x{size[1]} to {new[0]}x{new[1]}"
                self._fault("size", f"changes from {what} at {seconds:.1f} s")
            size = new
            pace = pace or Pace(self._fps, self.rate)
            if not pace.due(seconds):
                continue
            if self._live and len(self._queue) >= QUEUE:
                # The camera goes on; what is not read now is lost in a worse way.
                self._fault(
                    "slow", f"frames are left out: too slow for the stream at {seconds:.1f} s"
                )
                continue
            try:
                image = convert.reformat(picture, format="rgb24").to_ndarray()
            except (self.av.error.FFmpegError, ValueError):
                self._fault("broken", f"broken data at {seconds:.1f} s, skipped")
                continue
            image = np.ascontiguousarray(np.rot90(image, turns) if turns else image)
            if not self._put(Frame(number, seconds, image)):
                return

    def _put(self, frame: Frame) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) < QUEUE or self._stopped)
            if self._stopped:
                return False
            self._queue.append(frame)
            self._changed.notify_all()
            return True

    def _timed(
        self, container: InputContainer, video: VideoStream
    ) -> Iterator[tuple[float, tuple[int, VideoFrame]]]:
        """Good frames with their seconds and numbers."""

        def tell(what: str, seconds: float) -> None:
            self._whole = True
            if what == "back":
                self._fault("back", f"timestamps go back at {seconds:.1f} s")
            else:
                self._fault("broken", f"broken data at {seconds:.1f} s, skipped")

        packets = self._demuxed(container, video)
        first = next(packets, None)
        if first is None:
            return
        packets = itertools.chain((first,), packets)
        # AVI has no timestamps of its own: what it has stands in the order of the file.
        reordered = container.format.name == "avi" and video.codec_context.has_b_frames
        if first.pts is None or reordered:
            self.rate = float(video.guessed_rate or 0) or self.rate
            yield from self._counted(packets, video)
        else:
            yield from steady(self._stamped(packets, video), self.rate, tell)

    def _demuxed(
        self, container: InputContainer, video: VideoStream
    ) -> Iterator[Packet[VideoStream]]:
        """Packets of one stream, over what is broken in between."""
        errors = 0
        while True:
            try:
                for packet in container.demux(video):
                    if self._stopped or time.monotonic() - self._opened >= self._limit:
                        self._limited = not self._stopped
                        return
                    errors = 0
                    if packet.size or packet.pts is not None:  # or else it stands for the end
                        self._packets += 1
                        yield packet
                return
            except self.av.error.ExitError:
                self._fault("lost", f"no data for {READ_TIMEOUT:g} s after {self._now:.1f} s")
                return
            except (self.av.error.FFmpegError, OSError) as error:
                errors += 1
                invalid = isinstance(error, self.av.error.InvalidDataError)
                if errors >= _ENOUGH_ERRORS or (self.stream and not invalid):
                    if not self.decoded:
                        raise
                    self._fault(
                        "lost", f"cannot be read from {self._now:.1f} s on: {_reason(error)}"
                    )
                    return
                self._fault("broken", f"broken data at {self._now:.1f} s, skipped")

    def _decode(
        self, video: VideoStream, packet: Packet[VideoStream] | None, seconds: float
    ) -> list[VideoFrame] | None:
        """Frames that come out for a packet, None if it is broken."""
        try:
            frames = video.codec_context.decode(packet)
        except (self.av.error.FFmpegError, ValueError):
            self._fault("broken", f"broken data at {seconds:.1f} s, skipped")
            return None
        self.decoded += len(frames)
        return frames

    def _counted(
        self, packets: Iterator[Packet[VideoStream]], video: VideoStream
    ) -> Iterator[tuple[float, tuple[int, VideoFrame]]]:
        """Frames whose time is their number."""
        number = 0
        for packet in itertools.chain(packets, (None,)):
            if packet is not None and not packet.size:
                continue
            frames = self._decode(video, packet, number / self.rate)
            number += frames is None
            for frame in frames or ():
                if frame.is_corrupt:
                    at = number / self.rate
                    self._fault("broken", f"broken data at {at:.1f} s, skipped")
                else:
                    yield number / self.rate, (number, frame)
                number += 1
                self._end = number / self.rate

    def _stamped(
        self, packets: Iterator[Packet[VideoStream]], video: VideoStream
    ) -> Iterator[tuple[float | None, tuple[int, VideoFrame]]]:
        """Frames with the seconds that the container says, without those that are not needed."""
        tick = float(video.time_base or 0.0)
        pace = Pace(self._fps, self.rate)
        self._whole = self._whole or pace.all or self._fps >= self.rate
        sieve: Sieve[Packet[VideoStream]] = Sieve()
        places = _Places()
        earliest: dict[int, int] = {}  # timestamp by slot
        keys: set[int] = set()  # timestamps of keyframes on their way through the decoder
        good = 0
        origin: int | None = None
        decoding = False
        latest = -math.inf
        for packet in itertools.chain(packets, (None,)):
            if packet is None:
                ready = sieve.rest() if self._whole else sieve.end()
                ready_at: list[tuple[Packet[VideoStream] | None, bool]] = [*ready, (None, True)]
            else:
                pts, dts = packet.pts, packet.dts
                wanted = True
                if pts is None or (dts is not None and dts < latest):
                    self._whole = True  # the order is not what it seems
                latest = latest if dts is None else dts
                if pts is not None and not packet.is_discard:
                    places.add(pts)
                    if not decoding:
                        origin = pts if origin is None else min(origin, pts)
                    self._end = max(self._end, (pts - (origin or 0)) * tick + 1 / self.rate)
                    slot = pace.slot((pts - (origin or 0)) * tick)
                    wanted = pts < earliest.get(slot, pts + 1)
                    if wanted:
                        earliest[slot] = pts
                        if len(earliest) > 64:  # far more than frames ever change places
                            del earliest[min(earliest)]
                if self._whole or pts is None or not decoding:
                    ready_at = [*((one, True) for one, _ in sieve.rest()), (packet, True)]
                else:
                    ready_at = [*sieve.put(packet, pts, packet.is_keyframe, wanted)]
            for one, needed in ready_at:
                if one is not None:
                    if not one.size:  # a frame that was left out when it was recorded
                        continue
                    if one.is_keyframe and one.pts is not None:
                        keys.add(one.pts)
                    # What others are built upon is decoded all the same.
                    video.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
                at = one.pts if one is not None else None
                at_seconds = self._now if at is None else max(0.0, (at - (origin or 0)) * tick)
                for frame in self._decode(video, one, at_seconds) or ():
                    decoding = True
                    number = places.number(frame.pts)
                    raw = None if frame.pts is None else (frame.pts - (origin or 0)) * tick
                    if frame.pts in keys:
                        keys.discard(frame.pts)
                        # A video may refresh its pictures bit by bit and call that a keyframe.
                        intra = frame.key_frame and frame.pict_type in (0, 1)
                        good = good + 1 if intra else -(2**31)
                        sieve.trusted = good >= _TRUST
                    if frame.is_corrupt:
                        good, sieve.trusted = 0, False
                        seconds = self._now if raw is None else max(0.0, raw)
                        self._fault("broken", f"broken data at {seconds:.1f} s, skipped")
                        continue
                    yield raw, (number, frame)

    def _judge_end(self, container: InputContainer) -> None:
        """Write down what is missing, once all is read."""
        if not self.decoded:
            raise FootageError(self.path, "has no frame that can be decoded")
        if self.stream:
            self._fault("lost", f"the stream ends at {self._now:.1f} s")
            return
        missing = self.duration - self._end
        if missing > max(1.0, 2 / self.rate, 0.01 * self.duration):
            self._fault("end", f"ends at {self._end:.1f} s of {self.duration:.1f} s")
        elif container.format.name == "avi" and self.frames and self._packets < self.frames:
            # Others pass over what is broken with an error, AVI in silence.
            self._fault(
                "gone", f"{self.frames - self._packets} of {self.frames} frames are missing"
            )


def _reason(error: BaseException) -> str:
    """What the system says, without the path: an address may hold a password."""
    return getattr(error, "strerror", None) or first_line(error)


class Footage:
    """One opened video, whose frames come once.

    Decoding goes on in a thread of its own, a few frames ahead. Use it as a context manager: the
    thread ends with it, whatever was read. Made by :func:`open_footage`.

    Attributes:
        path: The file or the address.
        width: Of the first frame, in pixels, as it is meant to be seen (rotated).
        height: Of the first frame, in pixels.
        rate: Nominal frames per second.
        duration: Seconds, by the container; NaN where it does not say, as of streams.
        frames: Number of frames in the video, estimated; None where nothing tells.
        created: When it was recorded, as the container has it; None if it does not say.
        began: When it was opened, in seconds since 1970: of a stream, when the first frame came.
    """

    def __init__(self, path: str, fps: float, limit: float, threads: int) -> None:
        reader = _Reader(path, fps, limit, threads)
        # The thread knows the reader alone: whoever forgets to close leaves no thread behind.
        self._close = weakref.finalize(self, reader.stop)
        self._reader = reader
        try:
            first = reader.first()
        except BaseException:
            self.close()
            raise
        self.path = path
        self.height, self.width = first.image.shape[:2]
        self.rate, self.duration = reader.rate, reader.duration
        self.frames, self.created, self.began = reader.frames, reader.created, reader.began
        self.given = 0

    @property
    def faults(self) -> list[str]:
        """What was wrong so far, one line for each kind: broken data, a cut-off end, ..."""
        return self._reader.faults.lines()

    @property
    def decoded(self) -> int:
        """Frames decoded so far; ``given`` counts those that were handed out."""
        return self._reader.decoded

    def __iter__(self) -> Iterator[Frame]:
        """The frames that are due, once; whoever stops early closes the video.

        Yields:
            Frames with strictly increasing ``number`` and ``seconds``; images are (H, W, 3) uint8,
            RGB, contiguous, and keep their own size where it changes on the way.

        Raises:
            FootageError: Never after the first frame; what goes wrong then is a fault.
        """
        try:
            while (frame := self._reader.take()) is not None:
                self.given += 1
                yield frame
        finally:
            self.close()

    def close(self) -> None:
        """End the decoding; the faults stay."""
        self._close()

    def __enter__(self) -> Footage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_footage(path: str, fps: float = 0.0, limit: float = 0.0, threads: int = 1) -> Footage:
    """Open a video and wait for its first frame.

    Args:
        path: A file, or a stream's address.
        fps: Frames per second to give, chosen by their timestamps; 0, or not below the video's
            rate, for every frame.
        limit: Of streams: seconds, on the clock or by the timestamps, after which it ends; 0 for
            never.
        threads: Of libav's decoder, beside the one that reads.

    Returns:
        The video, to be closed.

    Raises:
        FootageError: It cannot be opened, or gives no frame.
        UserError: The package av is not installed.
    """
    return Footage(path, fps, limit, threads)
