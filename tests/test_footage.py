"""From files and streams to frames: which, when, how often, and what becomes of damaged ones."""

from __future__ import annotations

import gc
import hashlib
import itertools
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from collabteam.errors import UserError
from collabteam.settings import FootageConfig
from collabteam.sources.base import Aside
from collabteam.video import footage as module
from collabteam.video.footage import (
    QUEUE,
    READ_TIMEOUT,
    Footage,
    FootageError,
    FrameSampler,
    PacketFilter,
    check_footage,
    content_hash,
    find_videos,
    increasing_timestamps,
    is_stream,
    open_footage,
    start_time,
)
from collabteam.video.objects import Frame

REPOSITORY = Path(__file__).parents[1]
DATA = Path(os.environ.get("COLLABTEAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
SIZE = (64, 48)
SHADES = 24


def libav() -> Any:
    return pytest.importorskip("av", reason="footage needs the extra: pip install '.[footage]'")


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    """Squares that move, in a shade that tells the frame's number."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    squares = ((x + 2 * number) // 8 + y // 8) % 2
    pixels = (20 + number % SHADES * 9 + squares * 10).astype(np.uint8)
    return np.repeat(pixels[:, :, None], 3, 2)


def shade(frame: Frame) -> int:
    """The number, modulo SHADES, that :func:`picture` has drawn."""
    return round((float(frame.image.mean()) - 25) / 9)


def write(
    path: Path,
    count: int = 40,
    codec: str = "mpeg4",
    rate: int = 10,
    size: tuple[int, int] = SIZE,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int = 12,
    between: int = 0,
    pts: Sequence[int] | None = None,
    rotation: int = 0,
    matrix: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    created: str = "",
    title: bytes = b"",
    draw: Callable[[int, tuple[int, int]], np.ndarray[Any, Any]] = picture,
) -> Path:
    """A video of pictures 0, 1, ..., timestamps in milliseconds if they are given."""
    av = libav()
    if codec not in av.codecs_available:
        pytest.skip(f"this libav has no encoder {codec}")
    with av.open(str(path), "w", metadata_encoding="latin-1") as container:
        if created:
            container.metadata["creation_time"] = created
        if title:
            container.metadata["title"] = title.decode("latin-1")
        stream = container.add_stream(codec, rate=rate, options=options or {})
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        stream.bit_rate = 2_000_000
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, between
        if pts:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix:
            stream.set_display_matrix([*matrix[:2], 0, *matrix[2:], 0, 0, 0, 1 << 30])
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(draw(number, size), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            if pts:
                frame.pts, frame.time_base = pts[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(path: Path | str, fps: float = 0.0, threads: int = 1) -> tuple[list[Frame], list[str]]:
    """All frames, and the faults."""
    libav()
    with open_footage(str(path), fps, threads=threads) as footage:
        frames = list(footage)
        assert footage.given == len(frames) <= footage.decoded
    check(frames)
    return frames, footage.faults


def check(frames: list[Frame]) -> None:
    """What holds of every frame of every video."""
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert frame.image.shape[2:] == (3,)
        assert frame.image.flags.c_contiguous
    for one, other in itertools.pairwise(frames):
        assert one.seconds < other.seconds
        assert one.number < other.number
    assert not frames or frames[0].seconds >= 0


def numbers(frames: list[Frame]) -> list[int]:
    return [frame.number for frame in frames]


def refused(call: Callable[[], object]) -> str:
    """The one line that a person gets."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert line
    assert "\n" not in line
    return line


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    end = time.monotonic() + 5
    while any(thread.name == "footage" for thread in threading.enumerate()):
        assert time.monotonic() < end, "a thread is left"
        time.sleep(0.01)


# --- which videos --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        *("b.mp4", "a.AVI", "deep/er/c.mkv", "notes.txt", "deep/notes.txt", "deep/label.json"),
        *(".hidden.mp4", ".trash/d.mp4", "deep/[1] 12:30.ts"),
    ):
        (tmp_path / "footage" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "footage" / name).write_bytes(b"")
    (tmp_path / "footage" / "deep" / "back").symlink_to(tmp_path / "footage")
    return tmp_path / "footage"


def test_videos_of_a_folder(folder: Path) -> None:
    names = ["a.AVI", "b.mp4", "deep/[1] 12:30.ts", "deep/er/c.mkv"]
    assert find_videos(str(folder)) == [str(folder / name) for name in names]


def test_files_that_are_no_videos_by_their_names_are_told(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.SRT", "b.srt", "day.braw", "README"):
        (tmp_path / name).write_bytes(b"")
    for path in (str(tmp_path), f"{tmp_path}/*"):
        aside = Aside()
        assert find_videos(path, aside=aside) == [str(tmp_path / "a.mp4")]
        (told,) = aside.remarks
        assert told.startswith("passed over, no videos by their names: 4 files (2 x .srt, ")
        assert "1 x .braw" in told


@pytest.fixture
def closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A day of footage that this process may not read, whoever runs the tests."""
    (folder / "day2").mkdir()
    (folder / "day2" / "e.mp4").write_bytes(b"")
    scandir = os.scandir

    def checked(path: Any = ".") -> Any:
        if str(path).rstrip("/") == str(folder / "day2"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", checked)
    return folder


@pytest.mark.parametrize("pattern", ["", "*/*.mp4", "**/*.mp4", "[d]ay?/*"])
def test_a_closed_day_is_named(closed: Path, pattern: str) -> None:
    (closed / "day1").mkdir()
    (closed / "day1" / "f.mp4").write_bytes(b"")
    aside = Aside()
    assert str(closed / "day1" / "f.mp4") in find_videos(f"{closed}/{pattern}", aside=aside)
    assert aside.unreadable == [(str(closed / "day2"), "Permission denied")]


def test_nothing_but_a_closed_day(closed: Path) -> None:
    for name in ("a.AVI", "b.mp4"):
        (closed / name).unlink()
    shutil.rmtree(closed / "deep")
    for path in (closed, closed / "*" / "*.mp4"):
        line = refused(lambda path=path: find_videos(str(path)))  # type: ignore[misc]
        assert "1 folders cannot be read" in line
        assert "day2: Permission denied" in line


def test_folders_of_file_servers_hold_no_footage(folder: Path) -> None:
    for name in ("@eaDir/b.mp4/SYNOPHOTO_FILM_H.mp4", "#recycle/x.mp4", "deep/@eaDir/y.mp4"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"")
    for pattern in ("", "**/*.mp4"):
        aside = Aside()
        found = find_videos(f"{folder}/{pattern}", aside=aside)
        assert not any("@eaDir" in name or "#recycle" in name for name in found)
        assert {"@eaDir", "#recycle"} <= aside.passed_over.keys()
    asked = find_videos(f"{folder}/#recycle/*.mp4")
    assert asked == [str(folder / "#recycle" / "x.mp4")]


def test_links_that_lead_out_of_the_footage(folder: Path) -> None:
    outside = folder.parent / "nas"
    outside.mkdir()
    (outside / "g.mp4").write_bytes(b"")
    (folder / "nas").symlink_to(outside)
    (folder / "again").symlink_to(outside)
    (folder / "h.mp4").symlink_to(outside / "g.mp4")
    aside = Aside()
    assert not any(
        "nas" in name or "h.mp4" in name for name in find_videos(str(folder), aside=aside)
    )
    assert aside.links == ["again", "h.mp4", "nas"]
    aside = Aside()
    found = find_videos(str(folder), True, aside)
    assert [name for name in found if "g.mp4" in name] == [str(folder / "again" / "g.mp4")]
    assert str(folder / "h.mp4") in found
    assert any("nas (as again)" in told for told in aside.remarks)
    assert find_videos(str(folder / "h*.mp4")) == [str(folder / "h.mp4")]  # named by the pattern


def test_a_file_is_taken_whatever_it_is_called(folder: Path) -> None:
    for name in ("notes.txt", "deep/[1] 12:30.ts"):
        assert find_videos(str(folder / name)) == [str(folder / name)]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["a.AVI", "b.mp4"]),
        ("*.mp4", ["b.mp4"]),
        ("**/*.mkv", ["deep/er/c.mkv"]),
        ("deep/*/*.m??", ["deep/er/c.mkv"]),
    ],
)
def test_videos_of_a_pattern(folder: Path, pattern: str, names: list[str]) -> None:
    found = [name for name in find_videos(str(folder / pattern)) if "back" not in name]
    assert found == [str(folder / name) for name in names]


def test_streams() -> None:
    for address in ("rtsp://cam/1", "RTSPS://cam", "http://cam/a.mjpg", "udp://@:99", "tcp://a:1"):
        assert is_stream(address)
        assert find_videos(address) == [address]
    for path in ("rtsp", "rtsp:/cam", "footage/http/a.mp4", "file:///a.mp4", ""):
        assert not is_stream(path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "path is not given: expected a video"),
        ("nothing", "nothing does not exist: expected a video"),
        ("deep/label.jso?x", "this pattern fits no video and nothing else; expected .mp4"),
        ("*.txt", "this pattern fits no video, but 1 x .txt; expected .mp4"),
        ("none", "this folder holds no video, but 2 x .txt, 1 x .json and 1 x without extension; "),
        ("empty", "this folder holds no video and nothing else; "),
    ],
)
def test_no_videos(folder: Path, path: str, words: str) -> None:
    (folder / "empty").mkdir()
    (folder / "none" / "deep").mkdir(parents=True)
    for name in ("1.txt", "2.TXT", "deep/3.json", "deep/LICENSE"):
        (folder / "none" / name).write_bytes(b"")
    assert words.replace(" and 1 x", ", 1 x") in refused(
        lambda: find_videos(str(folder / path) if path else "")
    )


def test_an_unknown_kind_of_address() -> None:
    line = refused(lambda: find_videos("ftp://me:secret@cam/a.mp4"))
    assert "ftp://cam/a.mp4 is not a known kind of stream: expected rtsp://, " in line


def test_a_clock_beyond_2100_tells_no_time() -> None:
    pattern = FootageConfig(start="%Y%m%d_%H%M%S", timezone="UTC")
    assert start_time("20991231_235959.mp4", pattern, None) == 4102444799.0
    assert math.isnan(start_time("21000101_000000.mp4", pattern, None))
    assert math.isnan(start_time("a.mp4", FootageConfig(), "2136-02-07T06:28:15Z"))


def test_content_hash(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video" * 99999)
    expected = hashlib.blake2b(b"video" * 99999, digest_size=12).hexdigest()
    assert content_hash(str(tmp_path / "a.mp4")) == expected
    assert len(expected) == 24
    with pytest.raises(FootageError, match=r"b\.mp4: cannot be read: No such file"):
        content_hash(str(tmp_path / "b.mp4"))


# --- when it began -------------------------------------------------------------------------------

NOON = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("name", "start", "seconds"),
    [
        ("20260301_120005.mp4", "%Y%m%d_%H%M%S", NOON),
        ("cam20260301_120005_front.x.mp4", "%Y%m%d_%H%M%S", NOON),
        ("a/20250101_000000/S1 2026-03-01T12.00.05.avi", "%Y-%m-%dT%H.%M.%S", NOON),
        ("99999999_999999_20260301_120005.mp4", "%Y%m%d_%H%M%S", NOON),
        # What stands alone is a better candidate than a part of a longer number.
        ("120250202030303 20260301120005.mp4", "%Y%m%d%H%M%S", NOON),
        ("id20260301120005777.mp4", "%Y%m%d%H%M%S", NOON),
        ("2026-3-1 12h0m5s.mp4", "%Y-%m-%d %Hh%Mm%Ss", NOON),
        ("26060_12-00-05.500.mp4", "%y%j_%H-%M-%S.%f", NOON + 0.5 - 86400 * 0),
        ("1 mar 2026 12-00-05 pm.mp4", "%d %b %Y %I-%M-%S %p", NOON),
        ("March 01 2026, 120005.mp4", "%B %d %Y, %H%M%S", NOON),
        ("20260301_140005+0200.mp4", "%Y%m%d_%H%M%S%z", NOON),
        (f"rec_{int(NOON)}.mp4", "rec_%s", NOON),
        ("100%_20260301_120005.mp4", "%%_%Y%m%d_%H%M%S", NOON),
        ("20260301.mp4", "%Y%m%d", NOON - 12 * 3600 - 5),
    ],
)
def test_the_name_tells_the_time(name: str, start: str, seconds: float) -> None:
    check_footage(FootageConfig(start=start))
    assert start_time(name, FootageConfig(start=start), "2020-01-01T00:00:00Z") == seconds


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)),
    st.sampled_from(["%Y%m%d_%H%M%S_%f", "%d.%m.%y %H-%M-%S.%f", "%Y-%j %I-%M-%S.%f %p", "%f %s"]),
    st.text("ab_- ", max_size=5),
)
def test_any_time_is_found_again(when: datetime, start: str, around: str) -> None:
    seconds = when.replace(tzinfo=UTC).timestamp()
    name = when.strftime(start.replace("%s", f"{int(seconds):010d}"))
    if "%s" in start:
        seconds = math.floor(seconds)
    elif "%y" in start and not 1969 <= when.year < 2069:
        return
    found = start_time(f"{around}{name}{around}.mp4", FootageConfig(start=start), None)
    assert found == pytest.approx(seconds, abs=1e-5)


def test_the_time_zone() -> None:
    madrid = FootageConfig(start="%Y%m%d_%H%M%S", timezone="Europe/Madrid")
    for month, offset in (("01", 1), ("07", 2)):
        utc = datetime(2026, int(month), 1, 12, tzinfo=UTC).timestamp()
        assert start_time(f"2026{month}01_120000.mp4", madrid, None) == utc - offset * 3600
        assert datetime.fromtimestamp(utc, ZoneInfo("Europe/Madrid")).hour == 12 + offset


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        ("2026-03-01T12:00:05.000000Z", NOON),
        ("2026-03-01 12:00:05", NOON),
        ("2026-03-01T13:00:05+0100", NOON),
        ("1904-01-01T00:00:00Z", math.nan),
        ("1970-01-01T00:00:00Z", math.nan),
        ("yesterday", math.nan),
        ("", math.nan),
        (None, math.nan),
    ],
)
def test_the_container_tells_the_time(created: str | None, seconds: float) -> None:
    for start in ("", "%Y%m%d_%H%M%S"):  # that is not in the name
        for name in ("20261301_120005.mp4", "19700101_000017.mp4", "02610301_120005.mp4"):
            found = start_time(name, FootageConfig(start=start), created)
            assert found == pytest.approx(seconds, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"start": "%Y%m%d_%Q"}, "start=%Y%m%d_%Q: %Q cannot be used: expected %m %d"),
        ({"start": "%Y%m%d%"}, "% cannot be used"),
        ({"start": "%-d%m%Y"}, "%- cannot be used"),
        ({"start": "%Y%m%d%Y"}, "%Y occurs twice"),
        ({"start": "%H%M%S"}, "has no complete date: expected a year, a month and a day"),
        ({"start": "%m%d"}, "has no complete date"),
        ({"start": "%Y%m"}, "has no complete date"),
        ({"start": "cam"}, "has no complete date"),
        ({"timezone": "Europe/Nowhere"}, "timezone=Europe/Nowhere is not a known time zone"),
        ({"timezone": ""}, "timezone= is not a known time zone"),
        ({"timezone": "/etc/passwd"}, "is not a known time zone"),
        ({"timezone": "Europe"}, "is not a known time zone"),
        ({"region": [[0, 0], [1, 1]]}, "region has 2 corners: expected none, or 3 or more"),
        ({"region": [[0, 0], [1, 1], [0, 1.5]]}, "corner [0, 1.5] is outside the frame"),
        ({"region": [[0, 0], [1, 1], [0, math.nan]]}, "is outside the frame"),
        ({"region": [[0, 0], [1, 1], [0]]}, "[0] is not a corner: expected [x, y]"),
        ({"region": [[0, 0], [1, 1], 5]}, "5 is not a corner"),
        ({"mask": "none.png"}, "mask=none.png does not exist: expected an image"),
        ({"mask": __file__}, "cannot be read as an image"),
        ({"mask": str(REPOSITORY)}, "cannot be read: "),
    ],
)
def test_settings_that_cannot_work(settings_: dict[str, Any], words: str) -> None:
    assert words in refused(lambda: check_footage(FootageConfig(**settings_)))


def test_settings_that_work(tmp_path: Path) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "mask.png")
    check_footage(FootageConfig())
    region = [[0.0, 0.4], [1.0, 0.4], [1.0, 1.0]]
    mask = str(tmp_path / "mask.png")
    check_footage(FootageConfig("%s", "America/Sao_Paulo", region, mask))
    Path(mask).write_bytes(Path(mask).read_bytes()[:40])
    assert "mask.png" in refused(lambda: check_footage(FootageConfig(mask=mask)))


# --- which frames --------------------------------------------------------------------------------


def due(seconds: Sequence[float], fps: float, rate: float) -> list[float]:
    sampler = FrameSampler(fps, rate)
    return [now for now in seconds if sampler.due(now)]


@given(
    st.lists(st.floats(0.0005, 3.0), min_size=1, max_size=200),
    st.floats(0.2, 60.0),
    st.floats(1.0, 60.0),
)
def test_never_more_frames_than_asked_for(gaps: list[float], fps: float, rate: float) -> None:
    times = [0.0, *itertools.accumulate(gaps)]
    taken = due(times, fps, rate)
    assert taken[0] == 0
    # Frames at the video's own rate are all taken, if that is what fps comes to.
    most = fps if fps < rate else max(fps, rate / 0.9)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            # One for either end, and one where the bound above changes from one to the other.
            assert last - first <= (taken[last] - taken[first]) * most + 2 + 1e-6


@given(st.lists(st.floats(0.001, 1.0), max_size=200), st.floats(0.2, 29.9))
def test_the_first_frame_of_every_slot_is_taken(gaps: list[float], fps: float) -> None:
    times = [0.0, *itertools.accumulate(gaps)]
    early = 0.25 / 30 + 1e-6 / fps
    expected = [
        next(rows)
        for _, rows in itertools.groupby(times, lambda now: math.floor((now + early) * fps))
    ]
    assert due(times, fps, 30.0) == expected


@given(st.integers(1, 60), st.floats(1.0, 4.0), st.sampled_from([1e-3, 1 / 90000, 1e-9]))
@example(30, 1.003, 1e-3)
@example(60, 1.01, 1e-3)
def test_a_rate_not_below_the_videos_takes_all(rate: int, times: float, tick: float) -> None:
    seconds = [round(number / rate / tick) * tick for number in range(1000)]
    assert due(seconds, rate * times, float(rate)) == seconds
    assert due(seconds, 0, float(rate)) == seconds


@pytest.mark.parametrize(("rate", "fps"), [(30, 10), (25, 5), (60, 7.5), (29.97, 9.99)])
def test_rounded_timestamps_stay_regular(rate: float, fps: float) -> None:
    times = [round(number / rate, 3) for number in range(1000)]
    assert due(times, fps, rate) == times[:: round(rate / fps)]


def test_nothing_drifts() -> None:
    taken = due([number / 25 for number in range(25 * 3600)], 10, 25)
    assert len(taken) == 36000
    assert all(-0.011 < now - place / 10 < 0.04 for place, now in enumerate(taken))


def test_a_gap_is_not_made_up_for() -> None:
    times = [0.0, 0.1, 0.2, *(5 + number / 10 for number in range(10))]
    assert due(times, 2, 10) == [0.0, 5.0, 5.5]


def settle(raw: Sequence[float | None], rate: float = 10) -> tuple[list[float], list[int], str]:
    """Seconds, the places in ``raw`` of what is left, and what was told, in initials."""
    told: list[str] = []
    stamped = [(seconds, place) for place, seconds in enumerate(raw)]
    kept = list(increasing_timestamps(stamped, rate, lambda what, _: told.append(what[0])))
    return [round(now, 6) for now, _ in kept], [place for _, place in kept], "".join(told)


@given(
    st.lists(st.none() | st.floats(-100, 100) | st.sampled_from([0.0, 0.1, 0.2, 0.3]), max_size=80),
    st.floats(0.5, 100.0),
)
def test_timestamps_always_increase(raw: list[float | None], rate: float) -> None:
    kept = list(
        increasing_timestamps(
            [(now, place) for place, now in enumerate(raw)], rate, lambda what, now: None
        )
    )
    places = [place for _, place in kept]
    assert places == sorted(set(places))
    assert bool(kept) == bool(raw)
    assert all(one[0] < other[0] for one, other in itertools.pairwise(kept))
    assert not kept or kept[0][0] >= 0


@given(st.lists(st.floats(0.001, 20.0), max_size=80))
def test_good_timestamps_stay_as_they_are(gaps: list[float]) -> None:
    times = [0.0, *itertools.accumulate(gaps)]
    kept = list(
        increasing_timestamps(
            [(now, now) for now in times], 10, lambda what, now: pytest.fail(what)
        )
    )
    assert [now for now, _ in kept] == times
    assert [now for _, now in kept] == times


@pytest.mark.parametrize(
    ("raw", "seconds", "left", "told"),
    [
        ([None] * 4, [0, 0.1, 0.2, 0.3], "0123", "ddd"),
        ([0, None, 0.2, 0.3], [0, 0.1, 0.2, 0.3], "0123", "d"),
        ([7.0] * 30, [7 + place / 10 for place in range(30)], "", "d" * 29),
        ([0, 0.1, 0.1, 0.2, 0.3, 0.4], [0, 0.1, 0.2, 0.25, 0.3, 0.4], "012345", "dd"),
        ([0, 0.2, 0.1, 0.3], [0, 0.2, 0.25, 0.3], "0123", "d"),
        # It begins anew.
        ([0, 0.1, *(t / 10 - 50 for t in range(4))], [0, 0.1, 0.2, 0.3, 0.4, 0.5], "012345", "b"),
        # Nobody was there for a while.
        ([0, 0.1, 60, 60.1, 90, 120], [0, 0.1, 60, 60.1, 90, 120], "012345", ""),
        # One frame of nonsense.
        ([0, 0.1, 60, 0.3, 0.4], [0, 0.1, 0.3, 0.4], "0134", "s"),
        ([5, 5.1, 1, 5.3, 5.4], [5, 5.1, 5.3, 5.4], "0134", "s"),
        ([0, 0.1, 60], [0, 0.1, 60], "012", ""),
        ([5, 5.1, 1], [5, 5.1, 5.2], "012", ""),
    ],
)
def test_timestamps_that_are_wrong(
    raw: list[float | None], seconds: list[float], left: str, told: str
) -> None:
    found = settle(raw)
    assert found[0] == pytest.approx(seconds)
    assert not left or found[1] == [int(place) for place in left]
    assert found[2] == told


# Groups of pictures: how many are shown before the keyframe though the file has them after it, and
# how many later, which may change places among each other.
GROUPS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), max_size=12)), min_size=1, max_size=12
)


@given(GROUPS, st.floats(0.3, 9.9), st.integers(0, 6))
@settings(max_examples=200)
def test_what_a_due_frame_needs_is_never_left_out(
    groups: list[tuple[int, list[int]]], fps: float, learnt: int
) -> None:
    packets: list[tuple[float, bool, set[int]]] = []  # seconds, keyframe, what it builds upon
    shown = 0
    group: set[int] = set()  # without those that are shown before their keyframe
    for place, (leading, swaps) in enumerate(groups):
        leading = leading if place else 0
        before, group = group, set()
        for number in [leading, *range(leading)]:
            is_key = number == leading
            packets.append(((shown + number) / 10, is_key, set() if is_key else before | group))
            group.add(len(packets) - 1)
        group = {len(packets) - 1 - leading}
        shown += leading + 1
        for number in sorted(range(len(swaps)), key=lambda number: number - swaps[number]):
            packets.append(((shown + number) / 10, False, set(group)))
            group.add(len(packets) - 1)
        shown += len(swaps)
    packet_filter: PacketFilter[int] = PacketFilter(FrameSampler(fps, 10))
    for _ in range(learnt):
        packet_filter.learn(True)
    passed: list[tuple[int, bool]] = []
    for place, (seconds, is_key, _) in enumerate(packets):
        passed += packet_filter.put(place, seconds, is_key)
    passed += packet_filter.end()
    places = [place for place, _ in passed]
    assert places == sorted(set(places))
    taken = set(due(sorted(seconds for seconds, _, _ in packets), fps, 10))
    for place, (seconds, _, needs) in enumerate(packets):
        if seconds in taken:
            assert (place, True) in passed
            assert needs <= set(places)
    if learnt < 3:
        last = max(place for place, is_due in passed if is_due)
        assert set(range(last)) <= set(places)


def test_what_no_due_frame_needs_is_left_out() -> None:
    def passing(fps: float, sound: bool = True, broken: int = -1) -> list[int]:
        packet_filter: PacketFilter[int] = PacketFilter(FrameSampler(fps, 10))
        for _ in range(3):
            packet_filter.learn(True)
        packet_filter.learn(sound)
        passed = []
        for place in range(30):
            seconds = None if place == broken else place / 10
            passed += packet_filter.put(place, seconds, place % 10 == 0)
        return [place for place, _ in passed + packet_filter.end()]

    assert passing(1) == [0, 10, 20]  # keyframes alone
    assert passing(0.5) == [0, 20]
    assert passing(2) == [*range(6), *range(10, 16), *range(20, 26)]
    assert passing(0) == list(range(30))
    assert passing(1, sound=False) == list(range(30))
    assert passing(1, broken=15)[-19:] == list(range(11, 30))


# --- files ---------------------------------------------------------------------------------------

KINDS = [
    ("a.avi", "mpeg4", {}),
    ("a.mkv", "mpeg4", {"between": 2}),
    ("a.avi", "mpeg4", {"between": 2}),
    ("a.mp4", "libx264", {"between": 3}),
    ("a.mkv", "libx264", {"between": 3}),
    ("a.ts", "libx264", {"between": 3}),
    ("a.avi", "libx264", {"between": 3}),
    ("a.avi", "mjpeg", {"pixels": "yuvj420p"}),
    ("a.ts", "mpeg2video", {"between": 2, "rate": 25}),
    ("a.mov", "libx264", {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}}),
    ("a.mkv", "libx264", {"options": {"x264-params": "intra-refresh=1:bframes=0"}}),
]


@pytest.mark.parametrize(("name", "codec", "how"), KINDS)
def test_every_kind_at_every_rate(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any]
) -> None:
    path = write(tmp_path / name, 100, codec, **how)
    rate = how.get("rate", 10)
    with open_footage(str(path)) as footage:
        assert (footage.width, footage.height) == SIZE
        assert (footage.rate, footage.frames) == (rate, 100)
        assert footage.duration == pytest.approx(100 / rate)
        whole = list(footage)
    check(whole)
    assert (footage.faults, footage.decoded, footage.given) == ([], 100, 100)
    assert numbers(whole) == list(range(100))
    assert [frame.seconds for frame in whole] == pytest.approx([n / rate for n in range(100)])
    assert [shade(frame) for frame in whole] == [number % SHADES for number in range(100)]
    for share in (0.08, 0.25, 0.7):  # also with what is not needed left out
        sampler = FrameSampler(share * rate, rate)
        expected = [frame for frame in whole if sampler.due(frame.seconds)]
        for threads in (1, 2):
            frames, faults = read(path, share * rate, threads)
            assert (numbers(frames), faults) == (numbers(expected), [])
            for one, other in zip(frames, expected, strict=True):
                assert one.seconds == other.seconds
                np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize(
    ("codec", "how", "most"),
    [
        ("mjpeg", {"pixels": "yuvj420p"}, 0.15),
        ("libx264", {"gop": 10, "options": {"x264-params": "scenecut=0:bframes=0"}}, 0.25),
        ("libx264", {"gop": 250, "between": 3, "options": {"x264-params": "b-adapt=0"}}, 0.6),
    ],
)
def test_what_is_not_needed_is_not_decoded(
    tmp_path: Path, codec: str, how: dict[str, Any], most: float
) -> None:
    path = write(tmp_path / "a.mkv", 300, codec, **how)
    with open_footage(str(path), 1.0) as footage:
        assert numbers(list(footage)) == list(range(0, 300, 10))
    assert footage.given == 30
    assert footage.decoded <= most * 300


def test_keyframes_that_are_none(tmp_path: Path) -> None:
    """Pictures that are renewed bit by bit build upon what is before a so-called keyframe."""

    def flat(number: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
        pixels = np.full((size[1], size[0], 3), number * 4 % 256, np.uint8)
        pixels[:8, :8] = np.random.default_rng(number).integers(0, 255, (8, 8, 3))
        return pixels

    options = {"x264-params": "intra-refresh=1:bframes=0"}
    path = write(tmp_path / "a.mkv", 200, "libx264", options=options, gop=25, draw=flat)
    whole, _ = read(path)
    frames, faults = read(path, 5)
    assert (numbers(frames), faults) == (list(range(0, 200, 2)), [])
    for one, other in zip(frames, whole[::2], strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).choice([33, 40, 100, 700], 59)
    pts = [0, *np.cumsum(gaps).tolist()]
    path = write(tmp_path / "a.mkv", 60, pts=pts)
    frames, faults = read(path)
    assert faults == []
    assert numbers(frames) == list(range(60))
    assert [round(frame.seconds * 1000) for frame in frames] == pts
    some, _ = read(path, 3)
    assert 10 < len(some) < 40
    with open_footage(str(path)) as footage:
        taken = due([frame.seconds for frame in frames], 3, footage.rate)
    assert [frame.seconds for frame in some] == taken
    assert {(one.number, one.seconds) for one in some} <= {(f.number, f.seconds) for f in frames}
    assert [shade(frame) for frame in some] == [frame.number % SHADES for frame in some]


def test_the_first_frame_is_second_zero(tmp_path: Path) -> None:
    pts = [5000 + 100 * number for number in range(20)]
    path = write(tmp_path / "a.mkv", 20, pts=pts)
    with open_footage(str(path)) as footage:
        assert footage.duration == pytest.approx(2, abs=0.2)
    frames, faults = read(path)
    assert (frames[0].seconds, frames[0].number, frames[-1].number) == (0, 0, 19)
    assert frames[-1].seconds == pytest.approx(1.9)
    assert faults == []


@pytest.mark.parametrize(
    ("size", "pixels", "codec"),
    [
        ((65, 47), "yuv444p", "ffv1"),
        ((33, 21), "yuv420p", "mpeg4"),
        ((64, 48), "gray", "ffv1"),
        ((64, 48), "yuv420p10le", "ffv1"),
        ((64, 48), "bgr0", "ffv1"),
        ((48, 64), "yuv420p10le", "libx264"),
    ],
)
def test_sizes_and_depths(tmp_path: Path, size: tuple[int, int], pixels: str, codec: str) -> None:
    frames, faults = read(write(tmp_path / "a.mkv", 5, codec, size=size, pixels=pixels))
    assert faults == []
    assert [frame.image.shape for frame in frames] == [(size[1], size[0], 3)] * 5
    for frame in frames:
        difference = frame.image.astype(int) - picture(frame.number, size)
        assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation(tmp_path: Path, rotation: int) -> None:
    def corner(number: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        pixels[: size[1] // 2, : size[0] // 2] = 200
        return pixels

    path = write(tmp_path / "a.mp4", 3, rotation=rotation, draw=corner)
    with open_footage(str(path)) as footage:
        frame = next(iter(footage))
        sides = SIZE if rotation == 180 else SIZE[::-1]
        assert (footage.width, footage.height) == sides
    assert frame.image.flags.c_contiguous
    upright = np.rot90(corner(0, SIZE), rotation // 90)  # against the clock, as libav counts
    assert frame.image.shape == upright.shape
    assert np.abs(frame.image.astype(int) - upright).mean() < 4


def corner(number: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """No two corners are alike."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 200
    pixels[size[1] // 2 :, : size[0] // 2] = 90
    return pixels


ONE = 1 << 16
VIEWS = {
    "as stored": ((ONE, 0, 0, ONE), lambda a: a),
    "mirrored": ((-ONE, 0, 0, ONE), lambda a: a[:, ::-1]),
    "flipped": ((ONE, 0, 0, -ONE), lambda a: a[::-1]),
    "half a turn": ((-ONE, 0, 0, -ONE), lambda a: a[::-1, ::-1]),
    "a quarter clockwise": ((0, ONE, -ONE, 0), lambda a: np.rot90(a, -1)),
    "a quarter against the clock": ((0, -ONE, ONE, 0), lambda a: np.rot90(a)),
    "transposed": ((0, ONE, ONE, 0), lambda a: a.swapaxes(0, 1)),
    "transposed, half a turn": ((0, -ONE, -ONE, 0), lambda a: a[::-1, ::-1].swapaxes(0, 1)),
}
"""Display matrices a, b, c, d: a pixel (x, y) is shown at (a x + c y, b x + d y)."""


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_frames_are_mirrored_and_turned_as_players_do(
    tmp_path: Path, name: str, container: str
) -> None:
    matrix, shown = VIEWS[name]
    path = write(tmp_path / f"a.{container}", 3, matrix=matrix, draw=corner)
    frames, faults = read(path)
    assert faults == []
    for frame in frames:
        seen = shown(corner(0, SIZE))
        assert frame.image.flags.c_contiguous
        assert frame.image.shape == seen.shape
        assert np.abs(frame.image.astype(int) - seen).mean() < 4
    with open_footage(str(path)) as footage:
        assert (footage.height, footage.width) == shown(corner(0, SIZE)).shape[:2]
        assert list(footage)
        assert footage.remark == ""


def filtered(path: Path, source: Path, how: str) -> Path:
    """A copy of an H.264 video that a filter of libav has changed."""
    av = libav()
    with av.open(str(source)) as read_, av.open(str(path), "w") as written:
        (before,) = read_.streams.video
        after = written.add_stream_from_template(before)
        changed = av.BitStreamFilterContext(f"h264_metadata={how}", before, after)
        for packet in read_.demux(before):
            for ready in changed.filter(packet) if packet.size else ():
                ready.stream = after
                written.mux(ready)
    return path


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ("flip=horizontal", lambda a: a[:, ::-1]),
        ("rotate=180", lambda a: a[::-1, ::-1]),
        ("rotate=90", lambda a: np.rot90(a)),
    ],
)
def test_a_turn_that_keyframes_tell_holds_for_all_frames(
    tmp_path: Path, how: str, shown: Callable[[Any], Any], container: str
) -> None:
    """H.264 says it at keyframes, of all frames up to the next one."""
    how = f"display_orientation=insert:{how}"  # libav inserts it once
    source = write(tmp_path / "a.mp4", 20, "libx264", gop=100, between=2, draw=corner)
    path = filtered(tmp_path / f"b.{container}", source, how)
    seen = shown(corner(0, SIZE))
    for fps in (0.0, 3.0):
        frames, faults = read(path, fps)
        assert faults == []
        assert len(frames) == (20 if fps == 0 else 6)
        for frame in frames:
            assert frame.image.shape == seen.shape
            assert np.abs(frame.image.astype(int) - seen).mean() < 5
    # Where only the first keyframe says it, nobody can know what holds afterwards.
    source = write(tmp_path / "c.mp4", 20, "libx264", gop=6, draw=corner)
    with open_footage(str(filtered(tmp_path / f"d.{container}", source, how))) as footage:
        assert len(list(footage)) == 20
        assert "turned in several ways" in footage.remark


@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [
        ((720, 576), Fraction(16, 15), (768, 576)),
        ((720, 576), Fraction(64, 45), (1024, 576)),
        ((704, 576), Fraction(12, 11), (768, 576)),
        ((720, 480), Fraction(8, 9), (720, 540)),
        ((352, 576), Fraction(24, 11), (768, 576)),
        ((704, 288), Fraction(1, 2), (704, 576)),
        ((320, 96), Fraction(2, 1), (640, 96)),
        ((320, 96), Fraction(1, 2), (320, 192)),
        ((320, 96), Fraction(1, 1), (320, 96)),
    ],
)
@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("avi", "mpeg4")])
def test_pixels_are_made_square(
    tmp_path: Path, stored: tuple[int, int], aspect: Fraction, shown: tuple[int, int],
    container: str, codec: str,
) -> None:  # fmt: skip
    path = write(tmp_path / f"a.{container}", 2, codec, size=stored, aspect=aspect, draw=corner)
    with open_footage(str(path)) as footage:
        frames = list(footage)
        assert (footage.width, footage.height) == shown
        assert footage.faults == []
        assert footage.remark == ""
    for frame in frames:
        assert frame.image.shape[1::-1] == shown
        assert np.abs(frame.image.astype(int) - corner(0, shown)).mean() < 5


@pytest.mark.parametrize("container", ["mkv", "ts", "mov", "flv", "h264"])
def test_every_container_says_how_wide_its_pixels_are(tmp_path: Path, container: str) -> None:
    path = write(tmp_path / f"a.{container}", 3, "libx264", aspect=Fraction(2, 1))
    frames, _ = read(path)
    assert frames[0].image.shape == (SIZE[1], 2 * SIZE[0], 3)


def test_pixels_are_made_square_before_frames_are_turned(tmp_path: Path) -> None:
    matrix = (0, -ONE, -ONE, 0)
    path = write(tmp_path / "a.mp4", 3, matrix=matrix, aspect=Fraction(2, 1), draw=corner)
    wide = corner(0, (2 * SIZE[0], SIZE[1]))
    seen = wide[::-1, ::-1].swapaxes(0, 1)
    frames, _ = read(path)
    assert frames[0].image.shape == seen.shape
    assert np.abs(frames[0].image.astype(int) - seen).mean() < 5


def test_what_cannot_be_shown_is_remarked(tmp_path: Path) -> None:
    slanted = (56756, 32768, -32768, 56756)  # by 30 degrees
    for name, options, expected in (
        ("slanted", {"matrix": slanted}, "turned by no multiple of 90 degrees"),
        ("broad", {"aspect": Fraction(9, 1)}, "pixels are said to be 9 times as wide as tall"),
        ("slim", {"aspect": Fraction(1, 9)}, "pixels are said to be 0.1111 times as wide"),
        ("half", {"size": (704, 288)}, "recorders squash frames to 704x288"),
    ):
        path = write(tmp_path / f"{name}.mp4", 2, **options)
        with open_footage(str(path)) as footage:
            size = options.get("size", SIZE)
            assert {frame.image.shape for frame in footage} == {(size[1], size[0], 3)}
            assert footage.faults == []
            assert expected in footage.remark
    empty = write(tmp_path / "empty.mp4", 2, matrix=(0, 0, 0, 0))
    with open_footage(str(empty)) as footage:
        assert {frame.image.shape for frame in footage} == {(SIZE[1], SIZE[0], 3)}
        assert footage.remark == ""


def test_what_the_container_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created = "2026-03-01T12:00:05.000000Z"
    write(tmp_path / "13:00:05 %03d.mp4", 3, created=created)
    monkeypatch.chdir(tmp_path)
    with open_footage("13:00:05 %03d.mp4") as footage:
        assert footage.created == created
        assert abs(footage.began - time.time()) < 60
    path = write(tmp_path / "a.avi", 3, title=b"Stra\xdfe")  # not UTF-8
    with open_footage(str(path)) as footage:
        assert footage.created is None
        assert len(list(footage)) == 3


# --- damaged files -------------------------------------------------------------------------------


def audio(path: Path) -> Path:
    av = libav()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path


def no_frames(path: Path) -> Path:
    with libav().open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
        container.start_encoding()
    return path


def half(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.mp4", lambda path: path, "cannot be opened: No such file"),
        ("a.mp4", lambda path: path.mkdir() or path, "cannot be opened: Is a directory"),
        (
            "a.mp4",
            lambda path: path.write_text("hello\n" * 99) and path,
            "cannot be read as a video",
        ),
        ("a.mp4", lambda path: path.touch() or path, "is empty: expected a video"),
        ("a.m4a", audio, "has no video, only audio"),
        ("a.avi", no_frames, "has no frame that can be decoded"),
        ("a.mkv", no_frames, "cannot be read as a video"),
        ("a.mp4", lambda path: half(write(path)), "cannot be read as a video, or its end is"),
    ],
)
def test_what_gives_no_frame(
    tmp_path: Path, name: str, make: Callable[[Path], Path], words: str
) -> None:
    libav()
    path = make(tmp_path / name)
    with pytest.raises(FootageError, match=words) as caught:
        open_footage(str(path))
    assert str(caught.value) == f"{path}: {caught.value.reason}"


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_a_list_of_videos_is_none(tmp_path: Path, name: str) -> None:
    """What it shows may change, and its hash does not."""
    write(tmp_path / "a.ts", 10, "libx264")
    lists = {
        "list.mp4": "ffconcat version 1.0\nfile a.ts\nfile a.ts\n",
        "list.m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n"
        "#EXT-X-ENDLIST\n",
    }
    (tmp_path / name).write_text(lists[name])
    with pytest.raises(FootageError, match="is a list of videos and none itself"):
        read(tmp_path / name)


def test_packets_that_give_no_frame_are_told(tmp_path: Path) -> None:
    """libav's decoder raises no error for some of them."""
    source = write(tmp_path / "a.mp4", 40, "libx264", gop=100)
    path = filtered(tmp_path / "b.mp4", source, "sample_aspect_ratio=65535/1")
    frames, faults = read(path)
    assert len(frames) < 20
    assert faults == [f"40 frames gave {len(frames)} pictures"]


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mpeg4"), ("a.avi", "mjpeg")])
def test_a_file_that_was_cut_off(tmp_path: Path, name: str, codec: str) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = half(write(tmp_path / name, 100, codec, pixels=pixels))
    with open_footage(str(path)) as footage:
        assert footage.duration == 10
        frames = list(footage)
    check(frames)
    assert numbers(frames) == list(range(len(frames)))
    assert 20 < len(frames) < 80
    assert [shade(frame) for frame in frames] == [number % SHADES for number in numbers(frames)]
    end = next(fault for fault in footage.faults if fault.startswith("ends at "))
    assert end.endswith(" s of 10.0 s")
    assert float(end.split()[2]) == pytest.approx(len(frames) / 10, abs=0.11)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.avi", "mpeg4"), ("a.mkv", "mpeg4"), ("a.ts", "libx264"), ("a.avi", "mjpeg")],
)
@pytest.mark.parametrize("fps", [0, 2])
def test_damage_in_the_middle(tmp_path: Path, name: str, codec: str, fps: float) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write(tmp_path / name, 120, codec, pixels=pixels, size=(160, 120))
    content = bytearray(path.read_bytes())
    middle, span = len(content) // 2, len(content) // 12
    content[middle : middle + span] = np.random.default_rng(0).bytes(span)
    path.write_bytes(content)
    frames, faults = read(path, fps)
    signs = ("broken data at ", "no frames from ", "frames are missing")
    assert any(sign in fault for fault in faults for sign in signs)
    assert len(faults) < 4
    assert len(frames) > 0.6 * (120 if fps == 0 else 24)  # it goes on behind it
    assert frames[-1].seconds > (10 if name == "a.avi" else 11)  # AVI only counts
    good = [frame for frame in frames if frame.seconds < 4]
    assert [shade(frame) for frame in good] == [number % SHADES for number in numbers(good)]


def test_single_broken_packets_are_counted(tmp_path: Path) -> None:
    av = libav()
    path = write(tmp_path / "a.mkv", 40, "mjpeg", pixels="yuvj420p")
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if not packet.size:
                continue
            if number in (10, 11, 30):
                broken = av.Packet(b"\0" * 99)
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                packet = broken
            packet.stream = stream
            target.mux(packet)
    frames, faults = read(tmp_path / "b.mkv")
    assert faults == ["broken data at 1.0 s, skipped (3 times in all)"]
    assert numbers(frames) == [number for number in range(40) if number not in (10, 11, 30)]
    assert [round(frame.seconds, 3) for frame in frames] == [n / 10 for n in numbers(frames)]


def test_faults_do_not_grow_with_the_video(tmp_path: Path) -> None:
    sizes = ((16, 16), (32, 16))
    parts = [
        write(tmp_path / f"{size[0]}.mjpeg", 1, "mjpeg", pixels="yuvj420p", size=size)
        for size in sizes
    ]
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts) * 100)
    frames, faults = read(path)
    assert len(frames) == 200
    assert faults == ["changes from 16x16 to 32x16 at 0.0 s (199 times in all)"]


@pytest.mark.parametrize(("name", "codec"), [("ts", "mpeg2video"), ("h264", "libx264")])
def test_a_change_of_size(tmp_path: Path, name: str, codec: str) -> None:
    rate = 25
    first = write(tmp_path / f"1.{name}", 30, codec, rate, (64, 48))
    second = write(tmp_path / f"2.{name}", 30, codec, rate, (32, 64))
    path = tmp_path / f"a.{name}"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    frames, faults = read(path)
    shapes = [frame.image.shape[:2] for frame in frames]
    assert len(shapes) >= 56  # decoders lose some where the streams meet
    assert [shape for shape, _ in itertools.groupby(shapes)] == [(48, 64), (64, 32)]
    changes = [fault for fault in faults if fault.startswith("changes from 64x48 to 32x64 at 1.")]
    assert len(changes) == 1


def test_a_video_without_timestamps(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h264", 40, "libx264", between=3)
    with open_footage(str(path)) as footage:
        assert footage.rate == 10
        assert math.isnan(footage.duration)
        assert footage.frames is None
        frames = list(footage)
    assert footage.faults == []
    assert numbers(frames) == list(range(40))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 10 for n in range(40)])
    assert numbers(read(path, 2.5)[0]) == list(range(0, 40, 4))


def test_timestamps_that_go_back(tmp_path: Path) -> None:
    part = write(tmp_path / "1.ts", 60, "mpeg2video", 25)
    path = tmp_path / "a.ts"
    path.write_bytes(part.read_bytes() * 3)
    for fps in (0, 5):
        frames, faults = read(path, fps)
        assert "timestamps go back at 2.4 s (2 times in all)" in faults
        assert not any("no frames" in fault for fault in faults)
        assert len(frames) == pytest.approx(180 if fps == 0 else 36, abs=2)
        assert frames[-1].seconds == pytest.approx(7.16, abs=0.2)
        assert frames[-1].number == pytest.approx(179, abs=4)


# --- the thread ----------------------------------------------------------------------------------


def threads() -> int:
    return sum(thread.name == "footage" for thread in threading.enumerate())


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(write(tmp_path / "a.avi", 100))


def test_no_more_is_decoded_than_fits(video: str) -> None:
    with open_footage(video) as footage:
        frames = iter(footage)
        for _ in range(3):
            next(frames)
        time.sleep(0.2)
        assert 3 <= footage.decoded <= 3 + QUEUE + 2
        assert threads() == 1
    assert threads() == 0


def test_leaving_early_ends_the_thread(video: str) -> None:
    begun = time.monotonic()
    with open_footage(video):
        assert threads() == 1
    assert threads() == 0
    with pytest.raises(ZeroDivisionError), open_footage(video) as footage:
        [1 // frame.number for frame in footage]
    assert threads() == 0
    footage = open_footage(video)
    for _ in footage:
        break
    gc.collect()
    assert threads() == 0
    assert list(footage) == []  # its frames come once
    footage = open_footage(video)
    del footage  # forgotten
    gc.collect()
    assert threads() == 0
    # Far below the seconds for which a reader may wait for data.
    assert time.monotonic() - begun < READ_TIMEOUT


def test_the_end_ends_the_thread(video: str) -> None:
    footage = open_footage(video)
    assert len(list(footage)) == 100
    assert threads() == 0
    footage.close()


@pytest.mark.parametrize("after", [0, 10])
def test_errors_in_the_thread_reach_the_consumer(
    video: str, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    def breaks(*given: Any) -> Iterator[tuple[float, Any]]:
        yield from itertools.islice(increasing_timestamps(*given), after)
        raise ArithmeticError("a bug")

    monkeypatch.setattr(module, "increasing_timestamps", breaks)
    frames: list[Frame] = []
    with pytest.raises(ArithmeticError, match="a bug"), open_footage(video) as footage:
        frames.extend(footage)
    assert len(frames) == after
    assert threads() == 0


def test_without_av(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import sys; sys.modules['av'] = None; import collabteam.video.footage"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    monkeypatch.setitem(sys.modules, "av", None)
    line = refused(lambda: open_footage(str(tmp_path / "a.mp4")))
    assert line == "footage needs the package av: pip install 'collabteam[footage]'"


# --- streams -------------------------------------------------------------------------------------


@contextmanager
def served(
    *parts: bytes | float, length: int = 0, code: int = 200, kind: str = "video/x-unknown"
) -> Iterator[str]:
    """The address of a server that sends bytes, or waits for seconds, and then hangs up.

    What it sends has an end, unless ``length`` claims more.
    """
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            if length:
                self.send_header("Content-Length", str(length))
            else:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(OSError):  # nobody listens any more
                for part in (*parts, *(() if length else (b"",))):
                    if isinstance(part, bytes):
                        chunk = b"%x\r\n%b\r\n" % (len(part), part)
                        self.wfile.write(part if length else chunk)
                    elif over.wait(part):
                        return
            self.close_connection = True

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live.ts"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def transport(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four seconds of a transport stream."""
    path = tmp_path_factory.mktemp("stream") / "a.ts"
    return write(path, 100, "mpeg2video", 25).read_bytes()


def test_a_stream_that_ends(transport: bytes) -> None:
    with served(transport) as address, open_footage(address, 5) as footage:
        assert abs(footage.began - time.time()) < 5
        assert (footage.width, footage.height, footage.rate) == (*SIZE, 25)
        assert math.isnan(footage.duration)
        assert footage.frames is None
        frames = list(footage)
    check(frames)
    assert numbers(frames) == list(range(0, 100, 5))
    assert [shade(frame) for frame in frames] == [number % SHADES for number in numbers(frames)]
    assert footage.faults == ["the stream ends at 4.0 s"]


def test_a_motion_jpeg_camera(tmp_path: Path) -> None:
    av = libav()
    path = write(tmp_path / "a.mkv", 60, "mjpeg", pixels="yuvj420p")
    with av.open(str(path)) as container:
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    head = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n"
    parts = [head % (len(jpeg), jpeg) for jpeg in pictures]
    with (
        served(*parts, kind="multipart/x-mixed-replace;boundary=next") as address,
        open_footage(address) as footage,
    ):
        frames = list(footage)
    check(frames)
    assert [shade(frame) for frame in frames] == [number % SHADES for number in range(60)]


def test_a_limit_by_the_streams_time(transport: bytes) -> None:
    begun = time.monotonic()
    with served(transport, 30.0) as address, open_footage(address, 0, limit=1.0) as footage:
        frames = list(footage)
    assert time.monotonic() - begun < 3
    assert numbers(frames) == list(range(25))
    assert footage.faults == []


def test_a_limit_by_the_clock(transport: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT", 2.5)
    begun = time.monotonic()
    part = transport[: len(transport) // 4]  # one second
    with served(part, 30.0) as address, open_footage(address, limit=1.5) as footage:
        frames = list(footage)
        assert 1.4 < time.monotonic() - begun < 2.3
    assert 15 < len(frames) < 26
    assert footage.faults == []


def test_a_limit_by_the_clock_of_who_is_slow(transport: bytes) -> None:
    with served(transport, 30.0) as address, open_footage(address, limit=1.0) as footage:
        frames = [frame for frame in footage if not time.sleep(0.1)]
    assert 5 < len(frames) < 20
    assert footage.faults == []


def test_a_server_that_stalls(transport: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT", 0.5)
    begun = time.monotonic()
    with served(transport, 30.0) as address, open_footage(address) as footage:
        frames = list(footage)
    assert 0.4 < time.monotonic() - begun < 3
    assert 80 < len(frames) <= 100
    assert len(footage.faults) == 1
    assert footage.faults[0].startswith("the stream ends at 4.0 s: no data for 0.5 s")


def test_leaving_a_server_that_stalls(transport: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT", 1.5)
    with served(transport[: len(transport) * 3 // 4], 30.0) as address:
        footage = open_footage(address, 1.0)
        time.sleep(0.1)
        begun = time.monotonic()
        footage.close()
        assert time.monotonic() - begun < 1.3


def test_a_server_that_never_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    libav()
    monkeypatch.setattr(module, "OPEN_TIMEOUT", 0.3)
    with served(b"G", 30.0) as address:
        line = refused(lambda: open_footage(address))
        assert line == f"{address}: does not answer within 0.3 s"


def test_a_lost_connection(transport: bytes) -> None:
    cut = transport[: len(transport) // 2]
    with served(cut, length=len(transport)) as address, open_footage(address) as footage:
        frames = list(footage)
    assert 40 <= len(frames) <= 60
    assert "the stream ends at 2.0 s: Input/output error" in footage.faults


def test_nobody_answers() -> None:
    libav()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}/a"
        line = refused(lambda: open_footage(address))
    assert line == f"{address.replace('me:secret@', '')}: cannot be opened: Connection refused"
    with served(code=404) as address:
        assert "404" in refused(lambda: open_footage(address))
    with served(b"hello\n" * 100) as address, pytest.raises(FootageError):
        open_footage(address)


def test_a_live_stream_does_not_wait(tmp_path: Path) -> None:
    av = libav()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{free.getsockname()[1]}"
    over = threading.Event()

    def send() -> None:
        with av.open(f"{address}?pkt_size=1316", "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=50)
            (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
            stream.codec_context.gop_size = 5
            for number in itertools.takewhile(lambda _: not over.wait(0.005), itertools.count()):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")))

    camera = threading.Thread(target=send)
    camera.start()
    try:
        with open_footage(address, limit=30.0) as footage:
            frames = iter(footage)
            first = next(frames)
            end = time.monotonic() + 10
            while not any("too slow for the stream" in fault for fault in footage.faults):
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(0.2)
            rest = [next(frames) for _ in range(QUEUE + 2)]
    finally:
        over.set()
        camera.join()
    check([first, *rest])
    assert rest[-1].number - first.number > QUEUE + 10


# --- real data -----------------------------------------------------------------------------------


def test_a_real_street() -> None:
    path = DATA / "videos" / "vtest.avi"
    if not path.exists():
        pytest.skip(f"{path} is absent: COLLABTEAM_TEST_DATA names the folder with it")
    libav()
    places = []
    with open_footage(str(path)) as footage:
        assert (footage.width, footage.height, footage.rate) == (768, 576, 10)
        for frame in footage:
            assert frame.image.shape == (576, 768, 3)
            assert frame.seconds == pytest.approx(frame.number / 10)
            places.append(frame.number)
    assert places == list(range(795))
    assert (footage.decoded, footage.given, footage.faults) == (795, 795, [])
    assert isinstance(footage, Footage)
