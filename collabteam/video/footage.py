"""Read footage: find videos, determine when their recording began, and decode their frames.

Footage from real cameras may be truncated, damaged, of changing size, or have timestamps that go
back. The reader records such faults in :attr:`Footage.faults` and goes on as long as there are
frames. Only a video without any frame is an error.
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
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from collabteam.catalog.times import END
from collabteam.errors import UserError, first_line, plain
from collabteam.settings import FootageConfig
from collabteam.sources.base import Aside
from collabteam.sources.walk import is_foreign, is_gone, reason_of, walk
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
    *(".h264", ".264", ".h265", ".265", ".hevc", ".3g2", ".f4v", ".divx", ".qt", ".trp"),
)
"""Extensions of files that count as videos."""
STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
"""URL schemes of streams."""
OPEN_TIMEOUT = 15.0
"""Seconds that a stream's server may take to answer, and again to send enough to detect the
format."""
READ_TIMEOUT = 15.0
"""Seconds without data after which reading a stream stops."""
QUEUE = 4
"""Number of frames that are decoded ahead."""

# Formats of files that name other files: their content says nothing of what is shown.
_PLAYLISTS = ("concat", "dash", "hls", "imf", "sdp")
# Live streams: the source does not wait for the reader.
_LIVE = ("rtsp", "rtmp", "udp")
# Seconds by which timestamps may go back and still count as disorder rather than a jump.
_DISORDER = 1.0
# Seconds by which a timestamp may go forward without confirmation by the next frame.
_GAP = 5.0
# Seconds; a condition variable refuses timeouts of more than a few hundred years.
_FOREVER = 1e9
# Consecutive errors after which reading a file stops.
_MAX_ERRORS = 100
# Number of packets at the start among which one has to have a timestamp.
_MAX_WITHOUT_TIMESTAMP = 10
# Number of packets that may be held back until it is known whether they are needed.
_MAX_HELD = 500
# Number of consecutive sound keyframes after which packets may be left out.
_KEYFRAMES_TO_TRUST = 3
# Players may be asked for any shape of pixels; these are those of cameras and recorders.
_LARGEST_ASPECT = 4.0
_LARGEST_SIDE = 8192
# Pixels that are closer to a square than this are taken for squares.
_SQUARE = 0.01
# Frames of which analogue recorders keep every second line or column.
_HALF_FRAMES = {
    *itertools.product((704, 720), (240, 288)),
    *itertools.product((352, 360), (480, 576)),
}
# Transposed, mirrored, flipped: by quarter turns against the clock.
_TURNED = (
    (False, False, False), (True, False, True), (False, True, True), (True, True, False)
)  # fmt: skip
# Share of the usual frame interval by which a frame may come early and still be on time.
_EARLY = 0.25

T = TypeVar("T")


class FootageError(UserError):
    """A video that gives no frame; other videos are not affected.

    Attributes:
        reason: The fault, without the video's path.
        passing: Whether a later try may succeed, because the fault is not in the content.
    """

    def __init__(self, path: str, reason: str, passing: bool = False) -> None:
        super().__init__(f"{safe_path(path)}: {reason}")
        self.reason, self.passing = reason, passing


def _libav() -> ModuleType:
    """Import PyAV; no other function imports it.

    Raises:
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            "footage needs the package av: pip install 'collabteam[footage]'"
        ) from error
    return av


# --- finding videos ------------------------------------------------------------------------------


def is_stream(path: str) -> bool:
    """Whether a path is the address of a stream, such as ``rtsp://...``."""
    return path.lower().partition("://")[0] in STREAMS and "://" in path


def find_videos(path: str, follow_links: bool = False, aside: Aside | None = None) -> list[str]:
    """Find the videos at a path.

    Args:
        path: A file; a folder, which is searched by extension at any depth, without files and
            folders that are hidden or a file server's; a pattern such as ``footage/*.mp4`` or
            ``footage/**/*.avi``; or a stream's address, which is returned unchanged.
        follow_links: Whether to follow links in a folder that lead out of it. A pattern names what
            it fits, links too.
        aside: Takes what is left aside, such as folders that this user may not read.

    Returns:
        Sorted paths, at least one.

    Raises:
        UserError: The path is empty, does not exist, or holds no video.
    """
    expected = "expected a video, a folder of videos, a pattern such as 'footage/*.mp4' or a stream"
    if not path:
        raise UserError(f"path is not given: {expected}")
    if is_stream(path):
        return [path]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        known = ", ".join(f"{name}://" for name in STREAMS)
        raise UserError(f"path={safe_path(path)} is not a known kind of stream: expected {known}")
    place = Path(path)
    aside = Aside() if aside is None else aside
    try:
        if place.is_file():
            return [path]
        if place.is_dir():
            there, what = _walk(place, follow_links, aside), "folder"
        elif place.exists():
            raise UserError(f"path={path} is neither a file nor a folder: {expected}")
        elif glob.has_magic(path):
            there, what = _fitting(path, aside), "pattern"
        else:
            raise UserError(f"path={path} does not exist: {expected}")
    except OSError as error:
        raise UserError(f"path={path} cannot be read: {error.strerror}") from error
    videos = sorted({name for name in there if _is_video(name)})
    others = [Path(name).suffix.lower() for name in there if not _is_video(name)]
    kinds = Counter(plain(kind, 20) or "without extension" for kind in others)
    seen = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
    seen += f" and {len(kinds) - 3} kinds more" if len(kinds) > 3 else ""
    if videos:
        if others:
            aside.remarks.append(
                f"passed over, no videos by their names: {len(others)} files ({seen})"
            )
        return videos
    verb = "holds" if what == "folder" else "fits"
    but = f", but {seen}" if seen else " and nothing else"
    instead = "".join(f"; {told}" for told in aside.instead())
    raise UserError(
        f"path={path}: this {what} {verb} no video{but}{instead}; expected .mp4, .avi, .mkv, ..."
    )


def _is_video(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _walk(place: Path, follow_links: bool, aside: Aside) -> list[str]:
    found = walk(place, _is_video, follow_links)
    left = found.aside(place)
    aside.passed_over.update(left.passed_over)
    aside.links += left.links
    aside.unreadable += left.unreadable
    if twice := found.twice():
        aside.remarks.append(twice)
    # Leave out pipes, which never end, and broken links.
    names = (place.joinpath(*parts) for parts in found.files)
    return [str(name) for name in names if _is_file(name, aside)]


def _is_file(path: Path, aside: Aside) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # others than a broken link
        aside.unreadable.append((safe_path(str(path)), reason_of(error)))
        return False


def _fitting(pattern: str, aside: Aside) -> list[str]:
    """Find the files that fit a pattern, and the folders that glob passes over in silence."""
    parts = Path(pattern).parts
    closed: dict[str, str] = {}
    for depth, part in enumerate(parts):
        above = str(Path(*parts[:depth])) if depth else "."
        if not glob.has_magic(part) and not glob.has_magic(above):
            continue
        # A trailing separator lets the pattern fit folders alone.
        folders = str(Path(above, "**")) if part == "**" else above
        there = glob.glob(os.path.join(folders, ""), recursive=True)  # noqa: PTH207, PTH118
        for folder in there:
            try:
                if glob.has_magic(part):
                    os.scandir(folder).close()
                else:
                    os.lstat(Path(folder, part))
            except OSError as error:
                if not is_gone(error):
                    closed[str(Path(folder))] = reason_of(error)
    aside.unreadable += [(safe_path(folder), reason) for folder, reason in sorted(closed.items())]
    # Path.glob takes no absolute pattern and does not skip hidden files.
    found = []
    for name in glob.glob(pattern, recursive=True):  # noqa: PTH207
        foreign = [part for part in Path(name).parts if is_foreign(part) and part not in parts]
        if foreign:
            aside.passed_over[safe_path(foreign[0])] += 1
        elif _is_file(Path(name), aside):
            found.append(name)
    return found


def safe_path(path: str) -> str:
    """Format a path for messages: without the user name and password of an address."""
    if "://" not in path:
        return path.encode("utf-8", "backslashreplace").decode()
    head, _, rest = path.partition("://")
    address, slash, tail = rest.partition("/")
    return f"{head}://{address.rpartition('@')[2]}{slash}{tail}"


def content_hash(path: str) -> str:
    """Hash a file's content.

    Args:
        path: The file.

    Returns:
        24 hexadecimal digits of BLAKE2b over the file's bytes.

    Raises:
        FootageError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
    except OSError as error:
        raise FootageError(path, f"cannot be read: {error.strerror}", True) from error


# --- start of the recording ----------------------------------------------------------------------

_MONTHS = "|".join(map(re.escape, (*calendar.month_name[1:], *calendar.month_abbr[1:])))
_DAYS = "|".join(map(re.escape, (*calendar.day_name, *calendar.day_abbr)))
# Regular expression of each strptime directive: zero-padded, and as loose as strptime accepts it.
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
# A camera whose clock is not set records 1904 or 1970.
_OLDEST = datetime(1980, 1, 1, tzinfo=UTC).timestamp()


def start_time(name: str, footage: FootageConfig, created: str | None) -> float:
    """Determine when a recording began.

    Args:
        name: The file's name or path.
        footage: Pattern of the time in the name, and its time zone.
        created: Creation time from the container, in ISO 8601; UTC if it names no zone.

    Returns:
        Unix seconds from the name; else from the container; NaN if neither has a time.

    Raises:
        UserError: The pattern or the time zone is not valid.
    """
    if footage.start:
        zone = _zone(footage)
        stem = Path(name).stem
        # Prefer a match without adjacent digits: else part of a longer number could match.
        alone, loose = r"(?<!\d){}(?!\d)", _start_pattern(footage.start, True)
        exact = _start_pattern(footage.start)
        for pattern in (alone.format(exact), exact, alone.format(loose)):
            for match in re.finditer(f"(?=({pattern}))", stem, re.IGNORECASE):
                seconds = _seconds(match, footage.start, zone)
                if _OLDEST <= seconds < END:
                    return seconds
    try:
        when = datetime.fromisoformat((created or "").strip())
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan
    return seconds if _OLDEST <= seconds < END else math.nan


def _seconds(match: re.Match[str], start: str, zone: tzinfo) -> float:
    """Convert a match to Unix seconds; NaN if it is not a valid time, such as month 13."""
    if "epoch" in match.groupdict():
        return float(match["epoch"])
    try:
        when = datetime.strptime(match[1], start)
        return (when if when.tzinfo else when.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def check_footage(footage: FootageConfig) -> None:
    """Check the settings of a camera's footage.

    Args:
        footage: The settings.

    Raises:
        UserError: A setting is not valid.
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
            raise UserError(f"{setting}: {corner!r} is not a corner: expected [x, y]") from None
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
            raise UserError(f"{setting} cannot be read as an image: expected .png, ...") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{setting} cannot be read: {first_line(error)}") from error


def _start_pattern(start: str, loose: bool = False) -> str:
    """Convert a strptime format to a regular expression.

    Raises:
        UserError: The format has a directive that is not supported, or no complete date.
    """
    setting = f"camera.footage.start={start}"
    parts = _PART.findall(start)
    used = [part for part in parts if part.startswith("%")]
    for part in used:
        if part not in _DIRECTIVES:
            known = " ".join(_DIRECTIVES)
            raise UserError(f"{setting}: {part} cannot be used: expected {known}")
        if part != "%%" and used.count(part) > 1:
            raise UserError(f"{setting}: {part} occurs twice")
    has_day = "%j" in used or ("%d" in used and {"%m", "%b", "%B"} & set(used))
    if "%s" not in used and not (has_day and {"%Y", "%y"} & set(used)):
        raise UserError(
            f"{setting} has no complete date: expected a year, a month and a day, such as "
            "%Y%m%d_%H%M%S"
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
    if footage.timezone.upper() == "UTC":  # works even if the system has no time zone database
        return UTC
    try:
        return ZoneInfo(footage.timezone)
    except (KeyError, ValueError, OSError):
        raise UserError(
            f"camera.footage.timezone={footage.timezone} is not a known time zone: "
            "expected a name such as UTC or Europe/Madrid"
        ) from None


# --- timestamps and sampling ---------------------------------------------------------------------


class FrameSampler:
    """Selects frames at a lower rate by their timestamps.

    Time is divided into slots of 1 / fps from the first frame on. The first frame of each slot is
    selected, so the rate does not drift and no frame is selected twice. Because containers round
    timestamps, a frame that comes up to a quarter of the usual interval before its slot counts as
    in it. A rate at or above the video's selects every frame, whatever the rounding.

    Attributes:
        all: Whether every frame is selected.
    """

    def __init__(self, fps: float, rate: float) -> None:
        """Set the rates.

        Args:
            fps: Frames per second to select; 0 for all.
            rate: The video's usual frames per second, above 0.
        """
        self.all = fps <= 0
        self._fps = fps
        # The small term absorbs floating-point error.
        self._early = _EARLY * min(1.0, fps / rate) + 1e-6
        # Frames closer than 0.9 of the usual interval are a burst, not a rounding error.
        self._least = 0.9 / rate if fps >= rate else math.inf
        self._slot = -1
        self._last = -math.inf

    def slot(self, seconds: float) -> int:
        """Return the slot of a timestamp."""
        return math.floor(seconds * self._fps + self._early)

    def due(self, seconds: float) -> bool:
        """Whether the next frame is selected; timestamps must increase from call to call."""
        if self.all:
            return True
        slot = self.slot(seconds)
        if slot <= self._slot and seconds - self._last < self._least:
            return False
        self._slot, self._last = slot, seconds
        return True


def increasing_timestamps(
    stamped: Iterable[tuple[float | None, T]], rate: float, report: Callable[[str, float], None]
) -> Iterator[tuple[float, T]]:
    """Correct timestamps so that they strictly increase.

    Missing and repeated timestamps continue at the nominal rate, and so do those after a jump back.
    A single frame whose time contradicts both its neighbours is dropped.

    Args:
        stamped: Pairs of seconds (None if missing) and item.
        rate: Nominal frames per second.
        report: Called with the fault and its time in seconds. The fault is ``back`` (timestamps
            jumped back), ``stray`` (a frame was dropped) or ``disorder`` (a timestamp is missing or
            not above the one before it).

    Yields:
        Pairs of seconds and item.
    """
    step = 1.0 / rate
    shift = 0.0
    last: float | None = None
    before: float | None = None
    nudged = False
    odd: tuple[float, T] | None = None  # a jump that the next frame has to confirm or refute
    for raw, item in stamped:
        # A repeated timestamp counts as missing.
        now = None if raw is None or raw == before else raw + shift
        before = before if raw is None else raw
        if last is None:
            last = max(0.0, now or 0.0)
            yield last, item
            continue
        if raw is None or now is None:
            if odd is not None:  # accept the jump: nothing can confirm it
                last, item_before, odd = max(odd[0] + shift, last + step), odd[1], None
                yield last, item_before
            report("disorder", last)
            last += step
            yield last, item
            continue
        if odd is not None:
            forth = odd[0] + shift > last
            goes_on = raw > odd[0] and (forth or raw <= odd[0] + _GAP)
            if goes_on and not last < now <= last + _GAP:
                if not forth:
                    report("back", last)
                    shift = last + step - odd[0]
                    now = raw + shift
                last = odd[0] + shift
                yield last, odd[1]
            else:
                report("stray", last)
            odd = None
        if last < now <= last + _GAP:
            last, nudged = now, False
        elif last - _DISORDER <= now <= last:
            report("disorder", last)
            # Advance half a step so that the timestamps can catch up; a full one if they do not.
            last, nudged = last + (step if nudged else step / 2), True
        else:
            odd = (raw, item)
            continue
        yield last, item
    if odd is not None and last is not None:
        yield max(odd[0] + shift, last + step), odd[1]


class _FrameNumbering:
    """Numbers frames in display order, counting all packets, decoded or not."""

    def __init__(self, gap: float, on_gap: Callable[[int, int], None]) -> None:
        """Set how gaps are reported.

        Args:
            gap: Largest difference between two timestamps that is not reported.
            on_gap: Called with the timestamps before and after a gap.
        """
        self._gap, self._on_gap = gap, on_gap
        self._ahead: list[int] = []
        self._last: int | None = None
        self._passed = 0

    def add(self, pts: int) -> None:
        """Count the next packet, in the file's order."""
        heapq.heappush(self._ahead, pts)

    def number(self, pts: int | None) -> int:
        """Return the number of the next frame, in display order."""
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
            self._on_gap(self._last, pts)
        self._last = pts if self._last is None else max(pts, self._last)


class PacketFilter(Generic[T]):
    """Drops packets that are not needed to decode the selected frames.

    Pictures refer to earlier ones, back to a keyframe. So the packets between the last selected
    frame and the next keyframe are not needed. The exception is a selected frame that follows the
    keyframe in the file but is shown before it: it may refer to pictures before the keyframe.

    Attributes:
        open: Whether every packet passes from now on.
    """

    def __init__(self, sampler: FrameSampler) -> None:
        """Start with nothing held back.

        Args:
            sampler: Defines the time slots of the selected frames.
        """
        self.open = sampler.all
        self._sampler = sampler
        self._trust = 0
        self._earliest: dict[int, float] = {}  # by slot
        self._held: list[tuple[T, bool]] = []
        self._key: tuple[int, float] | None = None  # index in _held and time of the last keyframe

    def learn(self, sound: bool) -> None:
        """Record whether a keyframe decoded to a real one.

        Packets are dropped only after several consecutive sound keyframes, because some videos
        mark the start of a gradual refresh as a keyframe.

        Args:
            sound: False for a keyframe that is none, and for a damaged picture.
        """
        self._trust = self._trust + 1 if sound else 0

    def put(self, packet: T, seconds: float | None, is_key: bool) -> list[tuple[T, bool]]:
        """Take the next packet, in the file's order.

        Args:
            packet: The packet.
            seconds: Time of its frame; None if the video does not say.
            is_key: Whether it is marked as a keyframe.

        Returns:
            Packets to decode now, in order, each with whether its frame may be selected. The other
            frames are decoded only because selected ones refer to them.
        """
        self.open |= seconds is None
        if self.open or seconds is None:
            return [*self._release(), (packet, True)]
        # A later frame of the slot can come first in the file: then both may be selected.
        slot = self._sampler.slot(seconds)
        due = seconds < self._earliest.get(slot, math.inf)
        if due:
            self._earliest[slot] = seconds
            if len(self._earliest) > 64:  # reordering spans far fewer slots
                del self._earliest[min(self._earliest)]
        ready = []
        if self._key is not None and (is_key or seconds > self._key[1]):
            ready = self.end()
        if is_key:
            self._key = (len(self._held), seconds)
        self._held.append((packet, due))
        if (due and not is_key) or self._trust < _KEYFRAMES_TO_TRUST or len(self._held) > _MAX_HELD:
            ready += self._release()
        return ready

    def end(self) -> list[tuple[T, bool]]:
        """Return the packets still needed when no more frames come before the last keyframe."""
        if self._key is None:
            return self._release() if self.open else []
        key = self._held[self._key[0]]
        self._held, self._key = ([], None) if key[1] else ([key], None)
        return [key] if key[1] else []

    def _release(self) -> list[tuple[T, bool]]:
        held, self._held, self._key = self._held, [], None
        return held


def _is_idr(packet: bytes, lengths: int) -> bool:
    """Whether an H.264 packet is an IDR picture: no later picture refers to an earlier one.

    Other pictures that are marked as keyframes may only be the start of a gradual refresh.

    Args:
        packet: One picture.
        lengths: Size in bytes of the length field before each NAL unit; 0 if start codes separate
            the units.
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


class _FaultLog:
    """Collects the faults of a video, one line for each kind."""

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
    """Open a file or a stream without decoding it.

    Args:
        path: A file, or a stream's address.

    Returns:
        The container; the caller closes it.

    Raises:
        FootageError: The file or stream cannot be opened.
        UserError: The package av is not installed.
    """
    av = _libav()
    stream = is_stream(path)
    timeout = (OPEN_TIMEOUT, READ_TIMEOUT) if stream else None
    try:
        if not stream and not Path(path).stat().st_size:
            raise FootageError(path, "is empty: expected a video")
        # Without "file:", a name with a colon, as in a time, would be taken for an address.
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
        reason = "cannot be read as a video, or its end is missing"
        raise FootageError(path, reason) from error
    except (av.error.FFmpegError, OSError) as error:
        raise FootageError(path, f"cannot be opened: {_reason(error)}", True) from error
    if not stream and container.format.name in _PLAYLISTS:
        container.close()
        raise FootageError(path, "is a list of videos and none itself: name the videos")
    return container


def picture_stream(path: str, container: InputContainer, threads: int = 1) -> VideoStream:
    """Select the video stream with the most pixels and set up its decoder.

    Args:
        path: The file or the stream's address, for messages.
        container: The opened file or stream.
        threads: Threads of the decoder.

    Returns:
        The video stream.

    Raises:
        FootageError: There is no video stream that can be decoded.
    """
    cover = _libav().stream.Disposition.attached_pic
    videos = [one for one in container.streams.video if not one.disposition & cover]
    if not videos:
        kinds = ", ".join(dict.fromkeys(one.type for one in container.streams))
        raise FootageError(path, f"has no video, only {kinds or 'nothing'}")
    readable = [one for one in videos if one.codec_context is not None]
    if not readable:
        raise FootageError(path, "has a video of a kind that cannot be decoded")
    best = max(readable, key=lambda one: one.width * one.height)  # the first if several are equal
    best.codec_context.thread_type = "AUTO"
    best.codec_context.thread_count = threads
    return best


def has_timestamps(container: InputContainer, video: VideoStream) -> bool:
    """Whether the timestamps of packets are display times.

    Call this before anything is decoded.
    """
    # AVI stores no timestamps, and the demuxer's are wrong for reordered frames.
    return not (container.format.name == "avi" and video.codec_context.has_b_frames)


def pixel_aspect(video: VideoStream) -> float:
    """Return how many times wider than tall a pixel of a video is; 0 if the video does not say."""
    for stated in (video.sample_aspect_ratio, video.codec_context.sample_aspect_ratio):
        if stated:
            return float(stated)
    return 0.0


@dataclass(frozen=True)
class View:
    """How players show a decoded picture: scaled, then transposed, then mirrored.

    Attributes:
        width: Width in square pixels, before it is transposed.
        height: Height in square pixels, before it is transposed.
        transposed: Whether rows become columns.
        mirrored: Whether left and right are exchanged.
        flipped: Whether top and bottom are exchanged.
        remark: What is stated about the picture and was not done; ``""`` for nothing.
    """

    width: int
    height: int
    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False
    remark: str = ""

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height as shown."""
        sides = (self.width, self.height)
        return sides[::-1] if self.transposed else sides


class Views:
    """How the pictures of a video are shown, asked in their order.

    A container says of every picture how it is turned; H.264 and HEVC may say it at a keyframe, of
    all pictures up to the next one.

    Args:
        only_turned: Whether pictures are turned and no more, as earlier versions did.
    """

    def __init__(self, only_turned: bool = False) -> None:
        self._only_turned = only_turned
        self._matrix: bytes | None = None
        self._differ = False

    def of(self, picture: VideoFrame, aspect: float) -> View:
        """Return the view of the next picture.

        Args:
            picture: The decoded picture.
            aspect: See :func:`pixel_aspect`.

        Returns:
            Its view: pixels are made square by enlarging the picture, never by shrinking it.
        """
        if self._only_turned:
            turned = _TURNED[round(picture.rotation / 90) % 4]
            return View(picture.width, picture.height, *turned)
        before = self._matrix
        stated: Any = picture.side_data.get("DISPLAYMATRIX")
        if stated is not None:
            self._matrix = bytes(stated)
        elif picture.key_frame:
            self._matrix = b""
        self._differ |= before is not None and before != self._matrix
        remarks = ["its frames are turned in several ways"] if self._differ else []
        return _view(picture.width, picture.height, aspect, self._matrix or b"", remarks)


def _view(width: int, height: int, aspect: float, matrix: bytes, remarks: list[str]) -> View:
    turned = (False, False, False)
    if matrix:
        turned, is_exact = _turned(np.frombuffer(matrix, np.int32)[:9])
        if not is_exact:
            remarks.append("it is turned by no multiple of 90 degrees")
    if aspect > 0 and abs(aspect - 1) > _SQUARE:
        wide, tall = round(width * max(1.0, aspect)), round(height / min(1.0, aspect))
        if 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT and max(wide, tall) <= _LARGEST_SIDE:
            width, height = wide, tall
        else:
            remarks.append(f"its pixels are said to be {aspect:.4g} times as wide as tall")
    elif (width, height) in _HALF_FRAMES:
        remarks.append(f"recorders squash frames to {width}x{height}, and it says nothing of that")
    remark = f"players may show it otherwise: {'; '.join(remarks)}" if remarks else ""
    return View(width, height, *turned, remark)


def _turned(matrix: NDArray[np.int32]) -> tuple[tuple[bool, bool, bool], bool]:
    """Read a display matrix: transposed, mirrored, flipped; and whether that is all of it.

    A pixel (x, y) is shown at (a x + c y, b x + d y).
    """
    a, b, c, d = (float(matrix[place]) for place in (0, 1, 3, 4))
    straight, across = min(abs(a), abs(d)), min(abs(b), abs(c))
    if not straight and not across:  # as some writers leave it: nothing is stated
        return (False, False, False), not any((a, b, c, d))
    if straight >= across:
        return (False, a < 0, d < 0), max(abs(b), abs(c)) < 0.02 * straight
    return (True, c < 0, b < 0), max(abs(a), abs(d)) < 0.02 * across


def upright(
    picture: VideoFrame, view: View, converter: VideoReformatter | None = None
) -> NDArray[np.uint8]:
    """Convert a decoded picture to an RGB image as players show it.

    Args:
        picture: The decoded picture.
        view: See :class:`Views`.
        converter: A converter to reuse; without it, each call sets up a new one.

    Returns:
        (H, W, 3) uint8, RGB, contiguous: upright, not mirrored, with square pixels.

    Raises:
        ValueError: The picture cannot be converted.
        av.error.FFmpegError: The same, reported by libav.
    """
    converter = converter or _libav().video.reformatter.VideoReformatter()
    plain = converter.reformat(picture, view.width, view.height, "rgb24")
    image = plain.to_ndarray()
    if view.transposed:
        image = image.swapaxes(0, 1)
    down, right = (-1 if view.flipped else 1), (-1 if view.mirrored else 1)
    return np.ascontiguousarray(image[::down, ::right])


class _Decoder:
    """Decodes one video in its own thread; only that thread uses libav's objects."""

    def __init__(
        self, path: str, fps: float, limit: float, threads: int, only_turned: bool
    ) -> None:
        self.av = _libav()
        self.path = path
        self.stream = is_stream(path)
        self.rate, self.duration, self.began = 25.0, math.nan, math.nan
        self.frames: int | None = None
        self.created: str | None = None
        self.faults = _FaultLog()
        self.decoded = 0
        self.remark = ""
        self._fps, self._threads, self._views = fps, threads, Views(only_turned)
        self._limit = limit if self.stream and limit > 0 else math.inf
        self._live = self.stream and path.lower().startswith(_LIVE)
        self._opened = math.inf
        self._tick = 0.0  # seconds
        self._origin: int | None = None  # the timestamp of second 0
        self._now = 0.0  # time of the last decoded frame, in seconds
        self._end = 0.0  # end of the data that was read, in seconds
        self._lost = ""  # why reading stopped early
        self._packets = 0
        self._asked_for = 0  # frames that should come out of the decoder, which tells no error
        self._limited = False
        self._changed = threading.Condition()
        self._queue: deque[Frame] = deque()
        self._stopped = self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="footage", daemon=True)
        self._thread.start()

    # Called by the consumer.

    def first(self) -> Frame:
        """Wait for the first frame, and leave it in the queue.

        Raises:
            FootageError: The video has no frame.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._over)
            if self._queue:
                return self._queue[0]
            raise self._error or FootageError(self.path, "has no frame that can be decoded")

    def take(self) -> Frame | None:
        """Return the next frame; None at the end."""
        with self._changed:
            # A server that stalls must not delay the end beyond the limit.
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
        """Stop the thread. If it waits for a server, it ends within READ_TIMEOUT seconds."""
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(0.5 if self.stream else 10.0)

    # Run in the thread.

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._read()
        except BaseException as failed:  # raised again in the consumer
            error = failed
        with self._changed:
            self._error, self._over = error, True
            self._changed.notify_all()

    def _read(self) -> None:
        with open_container(self.path) as container:
            self.began, self._opened = time.time(), time.monotonic()
            video = picture_stream(self.path, container, self._threads)
            self._describe(container, video)
            self._queue_frames(container, video)
            if not (self._stopped or self._limited):
                self._check_end(container)

    def _describe(self, container: InputContainer, video: VideoStream) -> None:
        for rate in (video.average_rate, video.guessed_rate, video.base_rate):
            if 0 < float(rate or 0) <= 1000:
                self.rate = float(rate or 0)
                break
        if not self.stream:
            if container.format.name == "avi" and video.frames:
                # Of a truncated file, the demuxer's duration is neither the full nor the real one.
                self.duration = video.frames / self.rate
            elif video.duration and video.time_base:
                self.duration = float(video.duration * video.time_base)
            elif container.duration:
                # In these formats the duration is the last timestamp; here it starts at 0 s.
                absolute = container.format.name in ("matroska,webm", "flv")
                start = container.start_time or 0 if absolute else 0
                self.duration = (container.duration - start) / 1e6
            if video.frames:
                self.frames = video.frames
            elif not math.isnan(self.duration):
                self.frames = round(self.duration * self.rate)
        metadata = (container.metadata, video.metadata)
        self.created = next(filter(None, (tags.get("creation_time") for tags in metadata)), None)

    def _queue_frames(self, container: InputContainer, video: VideoStream) -> None:
        """Put the selected frames into the queue."""
        size: tuple[int, int] | None = None
        sampler: FrameSampler | None = None
        converter = self.av.video.reformatter.VideoReformatter()
        for seconds, (number, picture) in self._timed_frames(container, video):
            self._now = seconds
            if seconds >= self._limit:
                self._limited = True
                return
            view = self._views.of(picture, pixel_aspect(video))
            self.remark = view.remark or self.remark
            sides = view.sides
            if size not in (None, sides):
                what = "{}x{} to {}x{}".format(*(size or ()), *sides)
                self.faults.add("size", f"changes from {what} at {seconds:.1f} s")
            size = sides
            sampler = sampler or FrameSampler(self._fps, self.rate)
            if not sampler.due(seconds):
                continue
            if self._live and len(self._queue) >= QUEUE:
                # Drop the frame: if the thread waited, the live stream itself would lose data.
                self.faults.add("slow", f"too slow for the stream at {seconds:.1f} s: left out")
                continue
            try:
                image = upright(picture, view, converter)
            except (self.av.error.FFmpegError, ValueError):
                self._note_broken(seconds)
                continue
            with self._changed:
                self._changed.wait_for(lambda: len(self._queue) < QUEUE or self._stopped)
                if self._stopped:
                    return
                self._queue.append(Frame(number, seconds, image))
                self._changed.notify_all()

    def _note_broken(self, seconds: float) -> None:
        self.faults.add("broken", f"broken data at {max(0.0, seconds):.1f} s, skipped")

    def _timed_frames(
        self, container: InputContainer, video: VideoStream
    ) -> Iterator[tuple[float, tuple[int, VideoFrame]]]:
        """Yield intact frames with their seconds and numbers."""
        packets = self._demuxed(container, video)
        ahead: list[_Packet] = []  # a camera's first packets may lack a timestamp
        for packet in packets:
            ahead.append(packet)
            if packet.pts is not None or len(ahead) >= _MAX_WITHOUT_TIMESTAMP:
                break
        if not ahead:
            return
        packets = itertools.chain(ahead, packets)
        if ahead[-1].pts is None or not has_timestamps(container, video):
            self.rate = float(video.guessed_rate or 0) or self.rate
            yield from self._frames_by_number(packets, video)
        else:
            yield from self._frames_by_timestamp(packets, video)

    def _demuxed(self, container: InputContainer, video: VideoStream) -> Iterator[_Packet]:
        """Yield the packets, skipping broken data."""
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
                    if packet.size or packet.pts is not None:  # the others mark the end
                        self._packets += 1
                        yield packet
                return
            except (self.av.error.FFmpegError, OSError) as error:
                errors += 1
                invalid = isinstance(error, self.av.error.InvalidDataError)
                if invalid and errors < _MAX_ERRORS:
                    self._note_broken(self._now)
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
        """Decode a packet and return the frames that come out; None if it is broken."""
        try:
            frames = video.codec_context.decode(packet)
        except (self.av.error.FFmpegError, ValueError):
            self._note_broken(seconds)
            return None
        self.decoded += len(frames)
        return frames

    def _frames_by_number(
        self, packets: Iterator[_Packet], video: VideoStream
    ) -> Iterator[tuple[float, tuple[int, VideoFrame]]]:
        """Yield frames whose time is computed from their number."""
        number = 0
        for packet in itertools.chain(packets, (None,)):
            if packet is not None and not packet.size:  # a frame that the recorder dropped
                number += 1
                continue
            frames = self._decoded(video, packet, number / self.rate)
            number += frames is None
            for frame in frames or ():
                if frame.is_corrupt:
                    self._note_broken(number / self.rate)
                else:
                    yield number / self.rate, (number, frame)
                number += 1
            self._end = number / self.rate

    def _frames_by_timestamp(
        self, packets: Iterator[_Packet], video: VideoStream
    ) -> Iterator[tuple[float, tuple[int, VideoFrame]]]:
        """Yield frames with the time of their timestamps; decode only the packets needed."""
        self._tick = float(video.time_base or 1.0)
        sampler = FrameSampler(0.0 if self._fps >= self.rate else self._fps, self.rate)
        packet_filter: PacketFilter[_Packet] = PacketFilter(sampler)

        def note_gap(before: int, after: int) -> None:
            text = f"no frames from {self._since(before):.1f} s to {self._since(after):.1f} s"
            self.faults.add("gap", text)

        numbering = _FrameNumbering(max(1.0, 5 / self.rate) / self._tick, note_gap)

        def note_fault(fault: str, seconds: float) -> None:
            packet_filter.open = True  # the filter relies on timestamps
            if fault == "stray":
                self._note_broken(seconds)
            elif fault == "back":
                self.faults.add("back", f"timestamps go back at {seconds:.1f} s")

        lengths: int | None = None
        if video.codec_context.name == "h264":
            extra = video.codec_context.extradata or b""
            lengths = (extra[4] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > 4 else 0
        needed = self._needed_packets(packets, packet_filter, numbering, lengths)
        decoded = self._decode_needed(needed, video, packet_filter, numbering)
        yield from increasing_timestamps(decoded, self.rate, note_fault)

    def _needed_packets(
        self,
        packets: Iterator[_Packet],
        packet_filter: PacketFilter[_Packet],
        numbering: _FrameNumbering,
        lengths: int | None,
    ) -> Iterator[tuple[_Packet | None, bool]]:
        """Yield packets to decode, each with whether its frame may be selected, then None.

        Args:
            packets: All packets of the video.
            packet_filter: Drops the packets that are not needed.
            numbering: Counts the packets.
            lengths: As for :func:`_is_idr`; None if the codec is not H.264.
        """
        latest = -math.inf
        for packet in packets:
            if packet.dts is not None:
                packet_filter.open |= packet.dts < latest
                latest = packet.dts
            if packet.pts is not None and not packet.is_discard:
                numbering.add(packet.pts)
                if not self.decoded and (self._origin is None or packet.pts < self._origin):
                    self._origin = packet.pts
                self._end = max(self._end, self._since(packet.pts) + 1 / self.rate)
            if not self.decoded:  # second 0 is not certain yet
                yield packet, True
                continue
            seconds = None if packet.pts is None else self._since(packet.pts)
            is_key = packet.is_keyframe and (lengths is None or _is_idr(bytes(packet), lengths))
            yield from packet_filter.put(packet, seconds, is_key)
        yield from packet_filter.end()
        yield None, True

    def _decode_needed(
        self,
        needed: Iterator[tuple[_Packet | None, bool]],
        video: VideoStream,
        packet_filter: PacketFilter[_Packet],
        numbering: _FrameNumbering,
    ) -> Iterator[tuple[float | None, tuple[int, VideoFrame]]]:
        """Yield intact frames with the seconds of their raw timestamps, and their numbers."""
        # Timestamps of keyframes and of damaged packets that are being decoded.
        keys: set[int | None] = set()
        damaged: set[int | None] = set()
        for packet, due in needed:
            at = self._now
            if packet is not None:
                if not packet.size:  # a frame that the recorder dropped
                    continue
                if packet.pts is not None:
                    at = self._since(packet.pts)
                    keys.update([packet.pts] * packet.is_keyframe)
                    damaged.update([packet.pts] * packet.is_corrupt)
                video.codec_context.skip_frame = "DEFAULT" if due else "NONREF"
            frames = self._decoded(video, packet, at)
            if packet is not None and due and frames is not None and not packet.is_discard:
                self._asked_for += 1
            for frame in frames or ():
                number = numbering.number(frame.pts)
                seconds = None if frame.pts is None else self._since(frame.pts)
                if frame.pts in keys:
                    keys.discard(frame.pts)
                    packet_filter.learn(
                        frame.key_frame and frame.pict_type in (0, 1)
                    )  # none, or intra
                if frame.is_corrupt or frame.pts in damaged:
                    damaged.discard(frame.pts)
                    packet_filter.learn(False)
                    self._note_broken(self._now if seconds is None else seconds)
                    continue
                yield seconds, (number, frame)

    def _since(self, pts: int) -> float:
        """Convert a timestamp to seconds since the video's first frame."""
        return (pts - (self._origin or 0)) * self._tick

    def _check_end(self, container: InputContainer) -> None:
        """Record what is missing at the end of the video.

        Raises:
            FootageError: No frame was decoded.
        """
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
            # Demuxers of other formats raise an error on broken data; AVI's skips it silently.
            lost = (self.frames or 0) - self._packets
            self.faults.add("gone", f"{lost} of {self.frames} frames are missing")
        if 2 * self.decoded < self._asked_for:  # some kinds of packets are no frame by themselves
            self.faults.add("few", f"{self._asked_for} frames gave {self.decoded} pictures")


def _reason(error: BaseException) -> str:
    """The system's error message without the path: an address may hold a password."""
    return getattr(error, "strerror", None) or first_line(error)


class Footage:
    """An open video; its frames can be read once.

    A thread decodes a few frames ahead. Use the video as a context manager, which stops the thread
    on exit. Created by :func:`open_footage`.

    Attributes:
        path: The file or the address.
        width: Width of the first upright frame, in pixels.
        height: Height of the first upright frame, in pixels.
        rate: Nominal frames per second.
        duration: Seconds, from the container; NaN if it does not say, as for streams.
        frames: Estimated number of frames in the video; None if it is not known.
        created: Creation time from the container; None if it does not say.
        began: When the video was opened, in Unix seconds; of a stream, about when its frames began.
        given: Number of frames read so far.
    """

    def __init__(
        self, path: str, fps: float, limit: float, threads: int, only_turned: bool
    ) -> None:
        reader = _Decoder(path, fps, limit, threads, only_turned)
        # The thread holds no reference to this object, so garbage collection stops it, too.
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
        """Faults so far, one line for each kind: broken data, a truncated end, ..."""
        return self._reader.faults.lines()

    @property
    def remark(self) -> str:
        """What the video states about how to show it that was not done; ``""`` for nothing."""
        return self._reader.remark

    @property
    def decoded(self) -> int:
        """Number of frames decoded so far, including those that were not selected."""
        return self._reader.decoded

    def __iter__(self) -> Iterator[Frame]:
        """Iterate once over the selected frames; leaving the loop early closes the video.

        Errors after the first frame are recorded as faults and not raised.

        Yields:
            Frames with strictly increasing ``number`` and ``seconds``; images are (H, W, 3) uint8,
            RGB, contiguous, and keep their own size if it changes during the video.
        """
        try:
            while (frame := self._reader.take()) is not None:
                self.given += 1
                yield frame
        finally:
            self.close()

    def close(self) -> None:
        """Stop decoding; the faults stay available."""
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


def open_footage(
    path: str,
    fps: float = 0.0,
    limit: float = 0.0,
    threads: int = 1,
    only_turned: bool = False,
) -> Footage:
    """Open a video and wait for its first frame.

    Args:
        path: A file, or a stream's address.
        fps: Frames per second to select by timestamp; 0 or a value at or above the video's rate
            selects every frame.
        limit: Seconds after which a stream ends, by the clock or by the timestamps; 0 for never.
        threads: Threads of libav's decoder, in addition to the reading thread.
        only_turned: Whether frames are turned and no more, as earlier versions did.

    Returns:
        The video; the caller closes it.

    Raises:
        FootageError: The video cannot be opened, or gives no frame.
        UserError: The package av is not installed.
    """
    return Footage(path, fps, limit, threads, only_turned)
