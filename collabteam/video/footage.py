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
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from collabteam.errors import UserError, first_line
from collabteam.settings import FootageConfig
from collabteam.video.objects import Frame

if TYPE_CHECKING:
    from typing import TypeAlias

    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

    _Packet: TypeAlias = Packet[VideoStream]

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
_LIVE = ("rtsp", "rtmp", "udp")
# Seconds by which timestamps may go back before it counts as a jump and not as disorder.
_DISORDER = 1.0
# Seconds by which timestamps may go forth before the next frame is asked to confirm it.
_GAP = 5.0
# Seconds; to wait longer than some hundred years is an error.
_FOREVER = 1e9
# Errors in a row after which a file is given up.
_ENOUGH_ERRORS = 100
# Packets in a row without timestamps after which none is expected.
_WITHOUT = 10
# Packets that may wait for the decision whether anything needs them.
_HELD = 500
# Keyframes in a row that must have been ones before anything relies on the next.
_TRUST = 3
# A frame may come this share of the usual distance early and is still on time.
_EARLY = 0.25

T = TypeVar("T")


class FootageError(UserError):
    """One video that gives no frame; others may be better.

    Attributes:
        reason: What is wrong with it, without its path.
        passing: Whether the next try may find it better, as it is not the content that is wrong.
    """

    def __init__(self, path: str, reason: str, passing: bool = False) -> None:
        super().__init__(f"{shown(path)}: {reason}")
        self.reason, self.passing = reason, passing


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
    expected = "expected a video, a folder of videos, a pattern such as 'footage/*.mp4' or a stream"
    if not path:
        raise UserError(f"path is not given: {expected}")
    if is_stream(path):
        return [path]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        known = ", ".join(f"{name}://" for name in STREAMS)
        raise UserError(f"path={shown(path)} is no stream of a known kind: expected {known}")
    place = Path(path)
    try:
        if place.is_file():
            return [path]
        if place.is_dir():
            there, what = _walk(place), "folder"
        elif place.exists():
            raise UserError(f"path={path} is neither a file nor a folder: {expected}")
        elif glob.has_magic(path):
            # Path.glob takes no absolute pattern and does not leave out what is hidden.
            names = glob.glob(path, recursive=True)  # noqa: PTH207
            there, what = [name for name in names if Path(name).is_file()], "pattern"
        else:
            raise UserError(f"path={path} does not exist: {expected}")
    except PermissionError as error:
        raise UserError(f"path={path} cannot be read: {error.strerror}") from error
    videos = sorted({name for name in there if name.lower().endswith(EXTENSIONS)})
    if videos:
        return videos
    kinds = Counter(Path(name).suffix.lower() or "without extension" for name in there)
    seen = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
    seen += f" and {len(kinds) - 3} kinds more" if len(kinds) > 3 else ""
    verb = "holds" if what == "folder" else "fits"
    but = f", but {seen}" if seen else " and nothing else"
    raise UserError(
        f"path={path}: this {what} {verb} no video{but}; expected .mp4, .avi, .mkv, ..."
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
    # A pipe would never end, and a link may lead nowhere.
    return [name for name in found if Path(name).is_file()]


def shown(path: str) -> str:
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
        raise FootageError(path, f"cannot be read: {error.strerror}", True) from error


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
        # Digits beside it would make a part of a longer number a time.
        alone, loose = r"(?<!\d){}(?!\d)", _start_pattern(footage.start, True)
        exact = _start_pattern(footage.start)
        for pattern in (alone.format(exact), exact, alone.format(loose)):
            for match in re.finditer(f"(?=({pattern}))", stem, re.IGNORECASE):
                seconds = _seconds(match, footage.start, zone)
                if seconds >= _OLDEST:
                    return seconds
    try:
        when = datetime.fromisoformat((created or "").strip())
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan
    return seconds if seconds >= _OLDEST else math.nan


def _seconds(match: re.Match[str], start: str, zone: tzinfo) -> float:
    """Since 1970, of a text that looks like a time; NaN if it is none, such as month 13."""
    if "epoch" in match.groupdict():
        return float(match["epoch"])
    try:
        when = datetime.strptime(match[1], start)
        return (when if when.tzinfo else when.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


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


class FrameSampler:
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
        tell: Called with the time and ``back`` (timestamps have jumped back), ``stray`` (a frame is
            left out) or ``disorder`` (a timestamp is missing, or not above the one before it).

    Yields:
        Seconds, each with what it belongs to.
    """
    step = 1.0 / rate
    shift = 0.0
    last: float | None = None
    before: float | None = None
    nudged = False
    odd: tuple[float, T] | None = None  # a jump that the next frame has to confirm
    for raw, item in stamped:
        # Never moving is as good as none.
        now = None if raw is None or raw == before else raw + shift
        before = before if raw is None else raw
        if last is None:
            last = max(0.0, now or 0.0)
            yield last, item
            continue
        if raw is None or now is None:
            if odd is not None:  # what cannot be confirmed is believed
                last, item_before, odd = max(odd[0] + shift, last + step), odd[1], None
                yield last, item_before
            tell("disorder", last)
            last += step
            yield last, item
            continue
        if odd is not None:
            forth = odd[0] + shift > last
            goes_on = raw > odd[0] and (forth or raw <= odd[0] + _GAP)
            if goes_on and not last < now <= last + _GAP:
                if not forth:
                    tell("back", last)
                    shift = last + step - odd[0]
                    now = raw + shift
                last = odd[0] + shift
                yield last, odd[1]
            else:
                tell("stray", last)
            odd = None
        if last < now <= last + _GAP:
            last, nudged = now, False
        elif last - _DISORDER <= now <= last:
            tell("disorder", last)
            # Half a step: the timestamps catch up with it, unless they do not move on either.
            last, nudged = last + (step if nudged else step / 2), True
        else:
            odd = (raw, item)
            continue
        yield last, item
    if odd is not None and last is not None:
        yield max(odd[0] + shift, last + step), odd[1]


class _Places:
    """Numbers frames by how many packets are shown before them, decoded or not."""

    def __init__(self, gap: float, tell: Callable[[int, int], None]) -> None:
        """Begin.

        Args:
            gap: More than this between two timestamps is told.
            tell: Called with both.
        """
        self._gap, self._tell = gap, tell
        self._ahead: list[int] = []
        self._last: int | None = None
        self._passed = 0

    def add(self, pts: int) -> None:
        """The next packet, in the file's order."""
        heapq.heappush(self._ahead, pts)

    def number(self, pts: int | None) -> int:
        """Of the next frame that is shown."""
        while self._ahead and pts is not None and self._ahead[0] < pts:
            self._pass()
        if self._ahead:  # its own packet
            self._pass()
        else:
            self._passed += 1
        return self._passed - 1

    def _pass(self) -> None:
        pts = heapq.heappop(self._ahead)
        self._passed += 1
        if self._last is not None and pts - self._last > self._gap:
            self._tell(self._last, pts)
        self._last = pts if self._last is None else max(pts, self._last)


class PacketFilter(Generic[T]):
    """Leaves out packets that no frame that is due needs.

    Pictures build upon earlier ones, back to a keyframe. So after the last packet whose frame is
    due, nothing is needed up to the next keyframe, unless one is due that follows the keyframe in
    the file and is shown before it: it may build upon what comes before the keyframe.

    Attributes:
        open: Whether everything passes as due from now on.
    """

    def __init__(self, pace: FrameSampler) -> None:
        """Begin.

        Args:
            pace: What is due; it is asked for slots alone.
        """
        self.open = pace.all
        self._pace = pace
        self._trust = 0
        self._earliest: dict[int, float] = {}  # of each slot
        self._held: list[tuple[T, bool]] = []
        self._key: tuple[int, float] | None = None  # its place among the held, its time

    def learn(self, sound: bool) -> None:
        """Tell whether a keyframe has come out as one, or a picture as damaged.

        Only after some keyframes in a row were sound is anything left out: there are videos that
        renew their pictures bit by bit and call that keyframes.
        """
        self._trust = self._trust + 1 if sound else 0

    def put(self, packet: T, seconds: float | None, is_key: bool) -> list[tuple[T, bool]]:
        """The next packet, in the file's order.

        Args:
            packet: The packet.
            seconds: When its frame is shown; None where the video does not say.
            is_key: Whether it is called a keyframe.

        Returns:
            Packets to decode now, in order, each with whether its frame may be due. Frames that are
            not are there for the others to build upon.
        """
        self.open |= seconds is None
        if self.open or seconds is None:
            return [*self._release(), (packet, True)]
        # In the file a later frame of the slot can come first: then both count as due.
        slot = self._pace.slot(seconds)
        due = seconds < self._earliest.get(slot, math.inf)
        if due:
            self._earliest[slot] = seconds
            if len(self._earliest) > 64:  # frames change places within a fraction of that
                del self._earliest[min(self._earliest)]
        ready = []
        if self._key is not None and (is_key or seconds > self._key[1]):
            ready = self.end()
        if is_key:
            self._key = (len(self._held), seconds)
        self._held.append((packet, due))
        if (due and not is_key) or self._trust < _TRUST or len(self._held) > _HELD:
            ready += self._release()
        return ready

    def end(self) -> list[tuple[T, bool]]:
        """What is needed of what is held back, if no more is shown before the last keyframe."""
        if self._key is None:
            return self._release() if self.open else []
        key = self._held[self._key[0]]
        self._held, self._key = ([], None) if key[1] else ([key], None)
        return [key] if key[1] else []

    def _release(self) -> list[tuple[T, bool]]:
        held, self._held, self._key = self._held, [], None
        return held


def _is_idr(packet: bytes, lengths: int) -> bool:
    """Whether nothing after this packet of H.264 builds upon anything before it.

    What else is called a keyframe may be only where pictures begin to be renewed bit by bit.

    Args:
        packet: One picture.
        lengths: Bytes of the number before each of its parts that says how long it is; 0 if start
            codes separate them.
    """
    if not lengths:
        found = re.finditer(rb"\x00\x00\x01(?=.)", packet, re.DOTALL)
        return any(packet[start.end()] & 31 == 5 for start in found)
    at = 0
    while at + lengths < len(packet):
        if packet[at + lengths] & 31 == 5:
            return True
        at += lengths + int.from_bytes(packet[at : at + lengths])
    return False


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


def open_container(path: str) -> InputContainer:
    """Open a file or a stream, undecoded.

    Args:
        path: A file, or a stream's address.

    Returns:
        The container, to be closed.

    Raises:
        FootageError: It cannot be opened.
        UserError: The package av is not installed.
    """
    av = _libav()
    stream = is_stream(path)
    timeout = (OPEN_TIMEOUT, READ_TIMEOUT) if stream else None
    try:
        if not stream and not Path(path).stat().st_size:
            raise FootageError(path, "is empty: expected a video")
        # Without "file:", a colon in a name, as in a time, would make it an address.
        address = path if stream else f"file:{path}"
        options = {"rtsp_transport": "tcp"} if path.lower().startswith("rtsp") else {}
        container: InputContainer
        try:
            container = av.open(address, options=options, timeout=timeout)
        except UnicodeDecodeError:  # in a title or a comment
            container = av.open(
                address, options=options, timeout=timeout, metadata_errors="replace"
            )
    except av.error.ExitError as error:
        reason = f"does not answer within {OPEN_TIMEOUT:g} s"
        raise FootageError(path, reason, True) from error
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        reason = "is no video that can be read, or its end is missing"
        raise FootageError(path, reason) from error
    except (av.error.FFmpegError, OSError) as error:
        raise FootageError(path, f"cannot be opened: {_reason(error)}", True) from error
    return container


def picture_stream(path: str, container: InputContainer, threads: int = 1) -> VideoStream:
    """The stream with the pictures.

    Args:
        path: What was opened, for messages.
        container: The opened file or stream.
        threads: Of its decoder.

    Raises:
        FootageError: There is none that can be decoded.
    """
    cover = _libav().stream.Disposition.attached_pic
    videos = [one for one in container.streams.video if not one.disposition & cover]
    if not videos:
        kinds = ", ".join(dict.fromkeys(one.type for one in container.streams))
        raise FootageError(path, f"has no video, only {kinds or 'nothing'}")
    readable = [one for one in videos if one.codec_context is not None]
    if not readable:
        raise FootageError(path, "has a video of a kind that cannot be decoded")
    best = max(readable, key=lambda one: one.width * one.height)  # the first of equals
    best.codec_context.thread_type = "AUTO"
    best.codec_context.thread_count = threads
    return best


def has_timestamps(container: InputContainer, video: VideoStream) -> bool:
    """Whether timestamps, where there are any, tell when frames are shown.

    Ask before anything is decoded.
    """
    # AVI keeps no timestamps. Frames that are shown in another order get wrong ones from it.
    return not (container.format.name == "avi" and video.codec_context.has_b_frames)


def upright(picture: VideoFrame, converter: VideoReformatter | None = None) -> NDArray[np.uint8]:
    """A decoded picture as it is meant to be seen.

    Args:
        picture: As it was decoded.
        converter: Spares setting one up for each picture of a video.

    Returns:
        (H, W, 3) uint8, RGB, contiguous, rotated as the video says.

    Raises:
        ValueError: It cannot be converted; or libav's own error.
    """
    turns = round(picture.rotation / 90) % 4
    plain = (
        converter.reformat(picture, format="rgb24")
        if converter
        else picture.reformat(format="rgb24")
    )
    image = plain.to_ndarray()
    return np.ascontiguousarray(np.rot90(image, turns) if turns else image)


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
        self._live = self.stream and path.lower().startswith(_LIVE)
        self._opened = math.inf
        self._tick = 0.0  # seconds
        self._origin: int | None = None  # the timestamp that is second 0
        self._now = 0.0  # of the frame that came last
        self._end = 0.0  # of what the file has
        self._lost = ""  # why no more could be read
        self._packets = 0
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
            left = max(0.0, self._opened + self._limit - time.monotonic())
            self._changed.wait_for(
                lambda: self._queue or self._over or self._stopped, min(left, _FOREVER)
            )
            if self._queue:
                self._changed.notify_all()
                return self._queue.popleft()
            if self._error is not None and not self._stopped:
                raise self._error
            return None

    def stop(self) -> None:
        """End the thread. One that waits for a server ends by itself, READ_TIMEOUT later."""
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(0.5 if self.stream else 10.0)

    # What the thread does.

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._read()
        except BaseException as failed:  # whatever it is, the consumer shall see it
            error = failed
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def _read(self) -> None:
        with open_container(self.path) as container:
            self.began, self._opened = time.time(), time.monotonic()
            video = picture_stream(self.path, container, self._threads)
            self._describe(container, video)
            self._give(container, video)
            if not (self._stopped or self._limited):
                self._judge_end(container)

    def _describe(self, container: InputContainer, video: VideoStream) -> None:
        for rate in (video.average_rate, video.guessed_rate, video.base_rate):
            if 0 < float(rate or 0) <= 1000:
                self.rate = float(rate or 0)
                break
        if not self.stream:
            if container.format.name == "avi" and video.frames:
                # If it was cut off, the demuxer names a duration between that and what is there.
                self.duration = video.frames / self.rate
            elif video.duration and video.time_base:
                self.duration = float(video.duration * video.time_base)
            elif container.duration:
                # These mean the last timestamp; it is that of the first frame which is 0 s here.
                absolute = container.format.name in ("matroska,webm", "flv")
                start = container.start_time or 0 if absolute else 0
                self.duration = (container.duration - start) / 1e6
            if video.frames:
                self.frames = video.frames
            elif not math.isnan(self.duration):
                self.frames = round(self.duration * self.rate)
        said = (container.metadata, video.metadata)
        self.created = next(filter(None, (tags.get("creation_time") for tags in said)), None)

    def _give(self, container: InputContainer, video: VideoStream) -> None:
        """Put the frames that are due into the queue."""
        size: tuple[int, int] | None = None
        pace: FrameSampler | None = None
        converter = self.av.video.reformatter.VideoReformatter()
        for seconds, (number, picture) in self._timed(container, video):
            self._now = seconds
            if seconds >= self._limit:
                self._limited = True
                return
            turns = round(picture.rotation / 90) % 4
            sides = (picture.width, picture.height)
            sides = sides if turns % 2 == 0 else (sides[1], sides[0])
            if size not in (None, sides):
                what = "{}x{} to {}x{}".format(*(size or ()), *sides)
                self.faults.add("size", f"changes from {what} at {seconds:.1f} s")
            size = sides
            pace = pace or FrameSampler(self._fps, self.rate)
            if not pace.due(seconds):
                continue
            if self._live and len(self._queue) >= QUEUE:
                # The camera goes on meanwhile: what nobody reads is lost in a worse way.
                self.faults.add("slow", f"too slow for the stream at {seconds:.1f} s: left out")
                continue
            try:
                image = upright(picture, converter)
            except (self.av.error.FFmpegError, ValueError):
                self._broken(seconds)
                continue
            with self._changed:
                self._changed.wait_for(lambda: len(self._queue) < QUEUE or self._stopped)
                if self._stopped:
                    return
                self._queue.append(Frame(number, seconds, image))
                self._changed.notify_all()

    def _broken(self, seconds: float) -> None:
        self.faults.add("broken", f"broken data at {max(0.0, seconds):.1f} s, skipped")

    def _timed(
        self, container: InputContainer, video: VideoStream
    ) -> Iterator[tuple[float, tuple[int, VideoFrame]]]:
        """Good frames with their seconds and numbers."""
        packets = self._demuxed(container, video)
        ahead: list[_Packet] = []  # those of a camera may lack a timestamp at first
        for packet in packets:
            ahead.append(packet)
            if packet.pts is not None or len(ahead) >= _WITHOUT:
                break
        if not ahead:
            return
        packets = itertools.chain(ahead, packets)
        if ahead[-1].pts is None or not has_timestamps(container, video):
            self.rate = float(video.guessed_rate or 0) or self.rate
            yield from self._counted(packets, video)
        else:
            yield from self._stamped(packets, video)

    def _demuxed(self, container: InputContainer, video: VideoStream) -> Iterator[_Packet]:
        """The packets, over what is broken in between."""
        errors = 0
        while True:
            try:
                for packet in container.demux(video):
                    if self._stopped:
                        return
                    if time.monotonic() - self._opened >= self._limit:
                        self._limited = True
                        return
                    errors = 0
                    if packet.size or packet.pts is not None:  # the others stand for the end
                        self._packets += 1
                        yield packet
                return
            except (self.av.error.FFmpegError, OSError) as error:
                errors += 1
                invalid = isinstance(error, self.av.error.InvalidDataError)
                if invalid and errors < _ENOUGH_ERRORS:
                    self._broken(self._now)
                    continue
                late = isinstance(error, self.av.error.ExitError)
                reason = f"no data for {READ_TIMEOUT:g} s" if late else _reason(error)
                if not self.decoded:
                    raise FootageError(self.path, f"cannot be read: {reason}", True) from error
                self._lost = f": {reason}"
                return

    def _decoded(
        self, video: VideoStream, packet: _Packet | None, seconds: float
    ) -> list[VideoFrame] | None:
        """The frames that come out for a packet, None if it is broken."""
        try:
            frames = video.codec_context.decode(packet)
        except (self.av.error.FFmpegError, ValueError):
            self._broken(seconds)
            return None
        self.decoded += len(frames)
        return frames

    def _counted(
        self, packets: Iterator[_Packet], video: VideoStream
    ) -> Iterator[tuple[float, tuple[int, VideoFrame]]]:
        """Frames whose number tells their time."""
        number = 0
        for packet in itertools.chain(packets, (None,)):
            if packet is not None and not packet.size:  # left out when it was recorded
                number += 1
                continue
            frames = self._decoded(video, packet, number / self.rate)
            number += frames is None
            for frame in frames or ():
                if frame.is_corrupt:
                    self._broken(number / self.rate)
                else:
                    yield number / self.rate, (number, frame)
                number += 1
            self._end = number / self.rate

    def _stamped(
        self, packets: Iterator[_Packet], video: VideoStream
    ) -> Iterator[tuple[float, tuple[int, VideoFrame]]]:
        """Frames whose timestamps tell their time; what is not needed is not decoded."""
        self._tick = float(video.time_base or 1.0)
        pace = FrameSampler(0.0 if self._fps >= self.rate else self._fps, self.rate)
        sieve: PacketFilter[_Packet] = PacketFilter(pace)

        def tell_gap(before: int, after: int) -> None:
            text = f"no frames from {self._since(before):.1f} s to {self._since(after):.1f} s"
            self.faults.add("gap", text)

        places = _Places(max(1.0, 5 / self.rate) / self._tick, tell_gap)

        def tell(what: str, seconds: float) -> None:
            sieve.open = True  # it relies on timestamps
            if what == "stray":
                self._broken(seconds)
            elif what == "back":
                self.faults.add("back", f"timestamps go back at {seconds:.1f} s")

        lengths: int | None = None
        if video.codec_context.name == "h264":
            extra = video.codec_context.extradata or b""
            lengths = (extra[4] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > 4 else 0
        needed = self._needed(packets, sieve, places, lengths)
        yield from steady(self._chosen(needed, video, sieve, places), self.rate, tell)

    def _needed(
        self,
        packets: Iterator[_Packet],
        sieve: PacketFilter[_Packet],
        places: _Places,
        lengths: int | None,
    ) -> Iterator[tuple[_Packet | None, bool]]:
        """Packets to decode, each with whether its frame may be due; at last the end, None.

        Lengths is None unless it is H.264, and then as :func:`_is_idr` takes it.
        """
        latest = -math.inf
        for packet in packets:
            if packet.dts is not None:
                sieve.open |= packet.dts < latest
                latest = packet.dts
            if packet.pts is not None and not packet.is_discard:
                places.add(packet.pts)
                if not self.decoded and (self._origin is None or packet.pts < self._origin):
                    self._origin = packet.pts
                self._end = max(self._end, self._since(packet.pts) + 1 / self.rate)
            if not self.decoded:  # second 0 is not known for certain
                yield packet, True
                continue
            seconds = None if packet.pts is None else self._since(packet.pts)
            is_key = packet.is_keyframe and (lengths is None or _is_idr(bytes(packet), lengths))
            yield from sieve.put(packet, seconds, is_key)
        yield from sieve.end()
        yield None, True

    def _chosen(
        self,
        needed: Iterator[tuple[_Packet | None, bool]],
        video: VideoStream,
        sieve: PacketFilter[_Packet],
        places: _Places,
    ) -> Iterator[tuple[float | None, tuple[int, VideoFrame]]]:
        """Good frames with their seconds, as the video has them, and numbers."""
        # Timestamps of keyframes and of what is known to be damaged, while they are decoded.
        keys: set[int | None] = set()
        torn: set[int | None] = set()
        for packet, due in needed:
            at = self._now
            if packet is not None:
                if not packet.size:  # left out when it was recorded
                    continue
                if packet.pts is not None:
                    at = self._since(packet.pts)
                    keys.update([packet.pts] * packet.is_keyframe)
                    torn.update([packet.pts] * packet.is_corrupt)
                video.codec_context.skip_frame = "DEFAULT" if due else "NONREF"
            for frame in self._decoded(video, packet, at) or ():
                number = places.number(frame.pts)
                seconds = None if frame.pts is None else self._since(frame.pts)
                if frame.pts in keys:
                    keys.discard(frame.pts)
                    sieve.learn(frame.key_frame and frame.pict_type in (0, 1))  # none, or intra
                if frame.is_corrupt or frame.pts in torn:
                    torn.discard(frame.pts)
                    sieve.learn(False)
                    self._broken(self._now if seconds is None else seconds)
                    continue
                yield seconds, (number, frame)

    def _since(self, pts: int) -> float:
        """Seconds since the video's first frame."""
        return (pts - (self._origin or 0)) * self._tick

    def _judge_end(self, container: InputContainer) -> None:
        """Write down what is missing, once all is read. Raises FootageError."""
        if not self.decoded:
            raise FootageError(self.path, "has no frame that can be decoded")
        if self.stream:
            self.faults.add("end", f"the stream ends at {self._end:.1f} s{self._lost}")
            return
        if self._lost:
            self.faults.add("lost", f"cannot be read from {self._end:.1f} s on{self._lost}")
        missing = self.duration - self._end
        if missing > max(1.0, 2 / self.rate, 0.01 * self.duration):
            self.faults.add("end", f"ends at {self._end:.1f} s of {self.duration:.1f} s")
        elif container.format.name == "avi" and self._packets < (self.frames or 0):
            # Other kinds of files pass over what is broken with an error, AVI in silence.
            lost = (self.frames or 0) - self._packets
            self.faults.add("gone", f"{lost} of {self.frames} frames are missing")


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
        began: When it was opened, in seconds since 1970; of a stream, about when its frames began.
        given: Frames that were handed out so far.
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
        """Frames decoded so far, for whatever reason."""
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
