"""From a crop back to its frame: the right one, of every kind of video, or none."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

av = pytest.importorskip("av", reason="needs the extra 'footage'")

from drawn import Actor, Colours, film, rider, walker  # noqa: E402
from test_footage import filtered, write  # noqa: E402

from collabteam.catalog import Catalog  # noqa: E402
from collabteam.settings import CameraConfig, CutConfig, FootageConfig, IngestConfig  # noqa: E402
from collabteam.video import still as module  # noqa: E402
from collabteam.video.crops import cut  # noqa: E402
from collabteam.video.footage import content_hash, open_footage  # noqa: E402
from collabteam.video.spool import VideoRecord  # noqa: E402
from collabteam.video.still import StillExtractor  # noqa: E402

REPOSITORY = Path(__file__).parents[1]
DATA = Path(os.environ.get("COLLABTEAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
BITS = 8
SIZE = (128, 64)
BEGIN = 1.77e9
"""When the drawn recordings began, in Unix seconds."""


def numbered(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frame's number in binary, one block for each digit, below a bright sky that moves."""
    width, height = size
    picture = np.full((height, width, 3), 200, np.uint8)
    picture[: height // 2, number % width :] = 230
    side = width // BITS
    for bit in range(BITS):
        shade = 240 if number >> bit & 1 else 15
        picture[height // 2 :, bit * side : (bit + 1) * side] = shade
    return picture


def number_on(jpeg: bytes | None) -> int:
    """The number that :func:`numbered` has drawn."""
    assert jpeg is not None
    with Image.open(io.BytesIO(jpeg)) as picture:
        grey = np.asarray(picture.convert("L")).astype(float)
    assert grey[: grey.shape[0] // 2].mean() > 180, "not upright"
    row = grey[grey.shape[0] * 3 // 4]
    middle = [row[round((bit + 0.5) * len(row) / BITS)] for bit in range(BITS)]
    return sum((shade > 128) << bit for bit, shade in enumerate(middle))


def known(
    folder: Path,
    path: Path,
    start: float | None = None,
    fps: float = 0.0,
    as_shown: bool = True,
) -> str:
    """Read a video and note that; returns what its crops call it."""
    file = path.resolve()
    status = file.stat()
    video = content_hash(str(file))
    with open_footage(str(file), fps) as footage:
        times = [frame.seconds for frame in footage]
    record = VideoRecord(
        video, f"{file.name}@{video[:8]}", str(file), status.st_size, status.st_mtime_ns, start,
        times[-1] - times[0], len(times), faults=footage.faults, settings={"fps": fps},
        as_shown=as_shown,
    )  # fmt: skip
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "videos" / f"{video}.json").write_text(json.dumps(asdict(record)))
    return record.name


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the frames that a video was read from its beginning for."""
    numbers: list[int] = []
    originally = module._read_from_start

    def noting(source: Any, number: int, end: float) -> NDArray[np.uint8]:
        numbers.append(number)
        return originally(source, number, end)

    monkeypatch.setattr(module, "_read_from_start", noting)
    return numbers


def check_all(tmp_path: Path, path: Path, fps: float = 0.0) -> int:
    """Every frame that was read comes back, by its number alone and with its time; how many."""
    with open_footage(str(path), fps) as footage:
        taken = [(frame.number, frame.seconds) for frame in footage]
    for start in (None, BEGIN):
        name = known(tmp_path / "cam", path, start, fps)
        stills = StillExtractor(tmp_path / "cam" / "videos")
        assert stills.available(name)
        for place in np.random.default_rng(0).permutation(len(taken)):
            number, seconds = taken[place]
            when = math.nan if start is None else start + seconds
            assert number_on(stills.jpeg(name, number, when, None)) == number
    assert stills.jpeg(name, -1, math.nan, None) is None
    return len(taken)


SOUGHT = [
    ("a.avi", "mpeg4", {}),
    ("a.avi", "mjpeg", {"pixels": "yuvj420p"}),
    ("a.mkv", "mpeg4", {"between": 2}),
    ("a.mp4", "libx264", {"between": 3}),
    ("a.mkv", "libx264", {"between": 3}),
    ("a.ts", "libx264", {"between": 3}),
    ("a.ts", "mpeg2video", {"between": 2, "rate": 25}),
    ("a.mov", "libx264", {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}}),
]
REPLAYED = [
    ("a.avi", "mpeg4", {"between": 2}),
    ("a.avi", "libx264", {"between": 3}),
    ("a.h264", "libx264", {"between": 3}),
    # Without true keyframes but the first.
    ("a.mkv", "libx264", {"options": {"x264-params": "intra-refresh=1:bframes=0"}}),
]


@pytest.mark.parametrize(("name", "codec", "how"), SOUGHT + REPLAYED)
def test_every_frame_of_every_kind(
    tmp_path: Path, replayed: list[int], name: str, codec: str, how: dict[str, Any]
) -> None:
    path = write(tmp_path / name, 40, codec, size=SIZE, draw=numbered, **how)
    assert check_all(tmp_path, path) == 40
    assert bool(replayed) is ((name, codec, how) in REPLAYED)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_variable_frame_rate(tmp_path: Path, replayed: list[int], name: str) -> None:
    gaps = np.random.default_rng(0).choice([33, 40, 100, 700], 59)
    pts = [5000, *(5000 + np.cumsum(gaps)).tolist()]
    path = write(
        tmp_path / name, 60, "libx264", between=3, size=SIZE, draw=numbered, pts=pts
    )  # fmt: skip
    assert check_all(tmp_path, path) == 60
    assert 10 < check_all(tmp_path, path, fps=3.0) < 40
    assert not replayed


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_videos_are_upright(tmp_path: Path, rotation: int) -> None:
    def turned(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        upright = numbered(number, size if rotation == 180 else size[::-1])
        return np.ascontiguousarray(np.rot90(upright, -rotation // 90))

    path = write(
        tmp_path / "a.mp4", 30, "libx264", between=3, size=SIZE, draw=turned, rotation=rotation
    )
    assert check_all(tmp_path, path) == 30


MIRRORED = (-65536, 0, 0, 65536)


def test_stills_are_turned_where_only_the_keyframe_tells_it(tmp_path: Path) -> None:
    def mirrored(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(numbered(number, size)[:, ::-1])

    source = write(
        tmp_path / "source.mp4", 30, "libx264", gop=100, between=3, size=SIZE, draw=mirrored
    )
    how = "display_orientation=insert:flip=horizontal"
    assert check_all(tmp_path, filtered(tmp_path / "a.mp4", source, how)) == 30


@pytest.mark.parametrize("container", ["mp4", "mkv"])  # the latter does not keep the matrix
def test_stills_are_mirrored_and_stretched_as_the_ingest_does(
    tmp_path: Path, replayed: list[int], container: str
) -> None:
    def as_stored(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(numbered(number, size)[:, :: -1 if mirrored else 1])

    mirrored = container == "mp4"
    path = write(
        tmp_path / f"a.{container}", 20, "libx264", between=3, size=SIZE, draw=as_stored,
        matrix=MIRRORED if mirrored else None, aspect=Fraction(2, 1),
    )  # fmt: skip
    assert check_all(tmp_path, path) == 20
    assert not replayed
    jpeg = StillExtractor(tmp_path / "cam" / "videos").jpeg(
        known(tmp_path / "cam", path), 5, math.nan, (200.0, 0.0, 40.0, 20.0)
    )
    assert jpeg is not None
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.size == (2 * SIZE[0], SIZE[1])


def test_boxes_of_an_earlier_version_still_fit_their_stills(tmp_path: Path) -> None:
    """It knew neither mirrored frames nor pixels that are no squares, and so its boxes are."""
    path = write(
        tmp_path / "a.mp4", 20, "libx264", between=3, size=SIZE, draw=numbered,
        matrix=MIRRORED, aspect=Fraction(2, 1),
    )  # fmt: skip
    for faults in ([], ["broken data at 0.1 s, skipped"]):  # sought, and read from the beginning
        name = known(tmp_path / "cam", path, as_shown=False)
        (file,) = (tmp_path / "cam" / "videos").iterdir()
        record = json.loads(file.read_text())
        del record["as_shown"], record["remark"]
        file.write_text(json.dumps({**record, "faults": faults}))
        jpeg = StillExtractor(tmp_path / "cam" / "videos").jpeg(name, 9, math.nan, None)
        assert jpeg is not None
        with Image.open(io.BytesIO(jpeg)) as picture:
            assert picture.size == SIZE


def copied(source: Path, path: Path, change: Callable[[int, Any], None]) -> Path:
    """The same packets with other timestamps; change is called with each one's place and itself."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as before, av.open(str(path), "w", options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for place, packet in enumerate(before.demux(video=0)):
            if packet.pts is not None:
                change(place, packet)
                packet.stream = stream
                after.mux(packet)
    return path


def test_a_video_whose_begin_was_cut_off(tmp_path: Path, replayed: list[int]) -> None:
    """Its packets are there from the keyframe before on, but shall be dropped."""

    def earlier(place: int, packet: Any) -> None:
        packet.dts = (packet.pts - 200 if packet.dts is None else packet.dts) - 1700
        packet.pts -= 1700

    path = write(tmp_path / "a.mkv", 60, "libx264", between=3, size=SIZE, draw=numbered)
    taken = check_as_read(tmp_path, copied(path, tmp_path / "a.mp4", earlier), 0.0)
    assert 40 < taken < 50
    assert 0 < len(replayed) < 10


def test_timestamps_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Frames come out in another order than their timestamps; those who read them counted."""

    def wrong(place: int, packet: Any) -> None:
        packet.pts = packet.dts = place * 100

    path = write(tmp_path / "a.mkv", 40, "libx264", between=3, size=SIZE, draw=numbered)
    check_as_read(tmp_path, copied(path, tmp_path / "b.mkv", wrong), 0.0)


@pytest.mark.parametrize("astray", [6000, 0])
def test_a_seek_that_leads_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replayed: list[int], astray: int
) -> None:
    path = write(tmp_path / "a.mkv", 70, "libx264", between=3, size=SIZE, draw=numbered)
    name = known(tmp_path / "cam", path)

    @contextmanager
    def opened(path: str) -> Iterator[Any]:
        with av.open(path) as real:
            seek = partial(real.seek, astray)
            yield SimpleNamespace(
                streams=real.streams, format=real.format, demux=real.demux,
                seek=lambda offset, stream: seek(stream=stream),
            )  # fmt: skip

    monkeypatch.setattr(module, "open_container", opened)
    assert (
        number_on(StillExtractor(tmp_path / "cam" / "videos").jpeg(name, 40, math.nan, None)) == 40
    )
    assert replayed == ([40] if astray else [])  # from the begin on, its keyframe comes by, too


def test_a_video_too_long_to_look_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replayed: list[int]
) -> None:
    path = write(tmp_path / "a.mp4", 250, "libx264", between=3, size=SIZE, draw=numbered)
    name = known(tmp_path / "cam", path)
    stills = StillExtractor(tmp_path / "cam" / "videos")
    now = itertools.count(step=0.045)  # time to look at 111 packets, and to read twice as many
    monkeypatch.setattr(module, "clock", SimpleNamespace(monotonic=lambda: next(now)))
    for number in (5, 60, 100, 108, 110, 130, 200):
        assert number_on(stills.jpeg(name, number, math.nan, None)) == number
    assert {130, 200} <= set(replayed) <= {108, 110, 130, 200}
    assert stills.jpeg(name, 249, math.nan, None) is None  # given up


def test_timestamps_that_go_back(tmp_path: Path) -> None:
    part = write(tmp_path / "1.ts", 40, "mpeg2video", 25, SIZE, draw=numbered)
    path = tmp_path / "a.ts"
    path.write_bytes(part.read_bytes() * 2)
    check_as_read(tmp_path, path, fps=5.0)


def check_as_read(tmp_path: Path, path: Path, fps: float) -> int:
    """What comes back is what was read, pixel by pixel but for JPEG; how many frames."""
    with open_footage(str(path), fps) as footage:
        taken = list(footage)
    name = known(tmp_path / "cam", path, None, fps)
    stills = StillExtractor(tmp_path / "cam" / "videos")
    for frame in taken:
        jpeg = stills.jpeg(name, frame.number, math.nan, None)
        assert jpeg is not None, frame.number
        difference = pixels_of(jpeg).astype(int) - frame.image
        assert np.abs(difference).mean() < 3, frame.number
    return len(taken)


def test_damage_in_the_middle(tmp_path: Path, replayed: list[int]) -> None:
    path = write(tmp_path / "a.mkv", 60, "libx264", size=SIZE, draw=numbered, between=3)
    content = bytearray(path.read_bytes())
    middle, span = len(content) // 2, len(content) // 12
    content[middle : middle + span] = np.random.default_rng(0).bytes(span)
    path.write_bytes(content)
    assert check_as_read(tmp_path, path, 0.0) == len(replayed)


# --- what a still looks like ---------------------------------------------------------------------


def pixels_of(jpeg: bytes | None) -> NDArray[np.uint8]:
    assert jpeg is not None
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.format == "JPEG"
        return np.asarray(picture.convert("RGB"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write(tmp_path / "a.mp4", 20, "libx264", between=2, size=SIZE, draw=numbered)


def test_the_box_is_drawn_around_its_content(tmp_path: Path, video: Path) -> None:
    def grey(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.full((size[1], size[0], 3), 100, np.uint8)

    path = write(tmp_path / "b.mp4", 3, "libx264", size=(640, 480), draw=grey)
    name = known(tmp_path / "cam", path)
    for width, scale in ((960, 1.0), (320, 0.5)):
        stills = StillExtractor(tmp_path / "cam" / "videos", width)
        plain = pixels_of(stills.jpeg(name, 1, math.nan, None)).astype(int)
        marked = pixels_of(stills.jpeg(name, 1, math.nan, (100, 200, 80, 60))).astype(int)
        assert plain.shape == marked.shape == (480 * scale, 640 * scale, 3)
        rows, columns = np.nonzero(np.abs(marked - plain).sum(axis=2) > 150)
        outside = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / scale
        assert outside == pytest.approx([100, 200, 180, 260], abs=6)
        inside = marked[int(206 * scale) : int(254 * scale), int(106 * scale) : int(174 * scale)]
        assert np.abs(inside - 100).max() < 30


ODD = [(-50.0, -50.0, 1e9, 1e9), (500.0, 500.0, 9.0, 9.0), (5.0, 5.0, -90.0, -90.0)]
ENDLESS = [(math.nan, 0.0, 1.0, 1.0), (0.0, 0.0, math.inf, 1.0), (-1e300, 0.0, 1e308, 1e308)]


def test_any_box_can_be_asked_for(tmp_path: Path, video: Path) -> None:
    name = known(tmp_path / "cam", video)
    stills = StillExtractor(tmp_path / "cam" / "videos")
    for box in ODD + ENDLESS:
        assert pixels_of(stills.jpeg(name, 9, math.nan, box)).shape == (64, 128, 3)


# --- what becomes of files -----------------------------------------------------------------------


def test_no_file_no_still(tmp_path: Path, video: Path) -> None:
    name = known(tmp_path / "cam", video)
    stills = StillExtractor(tmp_path / "cam" / "videos")
    assert number_on(stills.jpeg(name, 7, math.nan, None)) == 7
    video.rename(tmp_path / "away.mp4")
    assert not stills.available(name)
    assert stills.jpeg(name, 7, math.nan, None) is None  # not what is kept, either
    (tmp_path / "away.mp4").rename(video)
    assert number_on(stills.jpeg(name, 7, math.nan, None)) == 7
    os.truncate(video, video.stat().st_size - 1)
    assert not stills.available(name)
    video.unlink()
    video.mkdir()
    assert not stills.available(name)
    assert not stills.available("another.mp4@12345678")
    assert stills.jpeg("", 7, math.nan, None) is None


def test_another_video_in_its_place(tmp_path: Path) -> None:
    def other(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        return numbered(number + 100, size)

    one = write(tmp_path / "a.avi", 20, "rawvideo", size=SIZE, draw=numbered)
    two = write(tmp_path / "b.avi", 20, "rawvideo", size=SIZE, draw=other)
    assert one.stat().st_size == two.stat().st_size
    name = known(tmp_path / "cam", one)
    content = one.read_bytes()
    stills = StillExtractor(tmp_path / "cam" / "videos")
    assert number_on(stills.jpeg(name, 7, math.nan, None)) == 7
    one.write_bytes(two.read_bytes())
    os.utime(one, ns=(0, 1))
    assert stills.available(name)
    assert stills.jpeg(name, 7, math.nan, None) is None
    one.write_bytes(content)
    os.utime(one, ns=(0, 2))  # as after a copy: the content counts
    assert number_on(stills.jpeg(name, 8, math.nan, None)) == 8


def test_a_time_that_does_not_fit_gives_the_frame_of_the_number(
    tmp_path: Path, video: Path
) -> None:
    name = known(tmp_path / "cam", video, BEGIN)
    assert (
        number_on(StillExtractor(tmp_path / "cam" / "videos").jpeg(name, 7, BEGIN + 1.5, None)) == 7
    )


def test_which_videos_are_known(tmp_path: Path, video: Path) -> None:
    camera = tmp_path / "cam"
    stills = StillExtractor(camera / "videos")
    assert not camera.exists()
    assert not stills.available("a.mp4@12345678")
    name = known(camera, video)
    assert stills.available(name)  # read since
    digits = name.rpartition("@")[2]
    stream = f"cam-1@{digits}"
    at = {"id": "", "name": stream, "path": "rtsp://cam/1"}
    for place, text in enumerate(("{", "[]", '{"id": ""}', "\xff", json.dumps(at))):
        (camera / "videos" / f"{digits}{place}.json").write_text(text, encoding="latin-1")
    (camera / "videos" / f"{digits}9.json").mkdir()
    assert stills.available(name)
    for other in (stream, digits, f"a.mp4@{'?' * 8}", f"a.mp4@../{digits}"):
        assert not stills.available(other)
        assert stills.jpeg(other, 0, BEGIN, None) is None
    moved = video.rename(tmp_path / "moved.mp4")
    assert not stills.available(name)
    file = camera / "videos" / f"{content_hash(str(moved))}.json"
    record = json.loads(file.read_text()) | {"path": str(moved)}
    file.with_suffix(".new").write_text(json.dumps(record))
    file.with_suffix(".new").replace(file)  # as ingest notes it
    assert number_on(stills.jpeg(name, 3, math.nan, None)) == 3


def test_without_av(tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = known(tmp_path / "cam", video)
    monkeypatch.setitem(sys.modules, "av", None)
    assert not StillExtractor(tmp_path / "cam" / "videos").available(name)
    assert StillExtractor(tmp_path / "cam" / "videos").jpeg(name, 3, math.nan, None) is None


# --- how much work -------------------------------------------------------------------------------


def test_stills_are_kept_and_few(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = known(tmp_path / "cam", video)
    decoded: list[int] = []
    originally = module._decode_from_keyframe

    def counting(path: str, order: Any, number: int, *rest: Any) -> Any:
        decoded.append(number)
        return originally(path, order, number, *rest)

    monkeypatch.setattr(module, "_decode_from_keyframe", counting)
    monkeypatch.setattr(module, "_CACHED_STILLS", 4)
    stills = StillExtractor(tmp_path / "cam" / "videos")
    for number in (1, 2, 3, 4, 1, 5, 1, 2):
        assert number_on(stills.jpeg(name, number, float("nan"), None)) == number
    assert decoded == [1, 2, 3, 4, 5, 2]
    stills.jpeg(name, 1, math.nan, (1.0, 2.0, 3.0, 4.0))
    assert len(decoded) == 7  # another box is another picture


def test_from_several_threads(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "a.mp4", 60, "libx264", between=3, size=SIZE, draw=numbered),
        write(tmp_path / "b.avi", 60, "mpeg4", between=2, size=SIZE, draw=numbered),
    ]
    names = [known(tmp_path / "cam", path) for path in paths]
    stills = StillExtractor(tmp_path / "cam" / "videos")
    numbers = np.random.default_rng(0).integers(0, 60, 120).tolist()
    with ThreadPoolExecutor(8) as pool:
        got = pool.map(
            lambda at: number_on(stills.jpeg(names[at[0] % 2], at[1], math.nan, None)),
            enumerate(numbers),
        )
        assert list(got) == numbers


def test_what_takes_too_long_is_given_up(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = known(tmp_path / "cam", video)
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    stills = StillExtractor(tmp_path / "cam" / "videos")
    began = time.monotonic()
    with stills._slots, stills._slots:  # all slots are taken
        assert stills.jpeg(name, 3, math.nan, None) is None
    monkeypatch.setattr(module, "TIMEOUT", 0.0)
    assert stills.jpeg(name, 3, math.nan, None) is None
    assert time.monotonic() - began < 2
    monkeypatch.setattr(module, "TIMEOUT", 10.0)
    assert number_on(stills.jpeg(name, 3, math.nan, None)) == 3


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.ts"])
def test_garbage_neither_hangs_nor_raises(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, 60, "libx264", between=2, size=SIZE, draw=numbered)
    sound = path.read_bytes()
    crop = known(tmp_path / "cam", path)
    status = path.stat()
    rng = np.random.default_rng(0)
    for share in (0.001, 0.02, 0.5, 1.0):
        content = np.frombuffer(sound, np.uint8).copy()
        where = rng.random(len(content)) < share
        content[where] = rng.integers(0, 256, where.sum())
        path.write_bytes(content.tobytes())
        os.utime(path, ns=(0, status.st_mtime_ns))  # what is on disk has rotted, unnoticed
        began = time.monotonic()
        for number in (0, 30, 59):
            made = StillExtractor(tmp_path / "cam" / "videos").jpeg(crop, number, math.nan, None)
            assert made is None or pixels_of(made).size
        assert time.monotonic() - began < 10


# --- from footage to stills ----------------------------------------------------------------------

STREET = (*rider("bicycle", 10, 4.0), walker(280, 150, -3.0), Actor("bicycle", (150, 10, 210, 55)))


@pytest.mark.parametrize(
    ("name", "fps", "start"),
    [("gate_20260102_030405.avi", 0.0, True), ("clip.mp4", 10.0, False), ("clip.mkv", 5.0, False)],
)
def test_crops_lie_in_their_frames(tmp_path: Path, name: str, fps: float, start: bool) -> None:
    pytest.importorskip("trackers", reason="needs the extra 'footage'")
    from collabteam.video.pipeline import ingest_footage

    path = film(tmp_path / name, STREET, frames=60, fps=10)
    config = IngestConfig(
        camera=CameraConfig("cam", []), root=str(tmp_path / "outputs"), source="video",
        path=str(path), tracker="sort", cut=CutConfig(min_frames=5, min_size=20), fps=fps,
    )  # fmt: skip
    if start:
        config.camera.footage = FootageConfig(start="gate_%Y%m%d_%H%M%S", timezone="Europe/Madrid")
    ingest_footage(config, detector=Colours())
    catalog = Catalog.open(config.root, "cam")
    rows = catalog._crops.read(["image", "video", "frame", "time", "box"]).to_pylist()
    assert len(rows) == 6
    assert all(math.isnan(row["time"]) is not start for row in rows)
    stills = StillExtractor(catalog.workspace.videos, width=10_000)

    def cut_again(row: dict[str, Any], frame: int, time: float) -> NDArray[np.uint8]:
        whole = pixels_of(stills.jpeg(row["video"], frame, time, None))
        left, top, width, height = row["box"]
        box = np.array([left, top, left + width, top + height], np.float32)
        return cut(whole, box, config.cut.margin)

    for row in rows:
        assert stills.available(row["video"])
        crop = pixels_of(row["image"]).astype(float)
        again = cut_again(row, row["frame"], row["time"])
        assert again.shape == crop.shape
        assert np.corrcoef(again.ravel(), crop.ravel())[0, 1] > 0.98
        error = np.abs(again - crop).mean()
        for other in {max(0, row["frame"] - 1), row["frame"] + 1} - {row["frame"]}:
            beside = cut_again(row, other, math.nan)
            assert np.abs(beside - crop).mean() > 2 * error, "a frame beside it fits as well"
        marked = stills.jpeg(row["video"], row["frame"], row["time"], tuple(row["box"]))
        assert pixels_of(marked).shape == (240, 320, 3)


@pytest.mark.parametrize("name", ["vtest.avi", "street3.mp4"])
def test_a_real_street(tmp_path: Path, replayed: list[int], name: str) -> None:
    path = DATA / "videos" / name
    if not path.exists():
        pytest.skip(f"{path} is absent: COLLABTEAM_TEST_DATA names the folder with it")
    crop = known(tmp_path / "cam", path)
    stills = StillExtractor(tmp_path / "cam" / "videos", width=10_000)
    wanted = {0, 1, 40, 249, 250, 251, 400}
    with open_footage(str(path)) as footage:
        for frame in footage:
            if frame.number in wanted:
                got = pixels_of(stills.jpeg(crop, frame.number, math.nan, None)).astype(int)
                assert np.abs(got - frame.image).mean() < 4
            if frame.number > max(wanted):
                break
    assert not replayed
