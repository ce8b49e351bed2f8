"""From a crop back to its frame: the right one, of every kind of video, or none."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

av = pytest.importorskip("av", reason="needs the extra 'footage'")

from drawn import Actor, Colours, film, rider, walker  # noqa: E402
from test_footage import half, write  # noqa: E402

from collabteam.catalog import Catalog  # noqa: E402
from collabteam.config import CameraConfig, CutConfig, FootageConfig, IngestConfig  # noqa: E402
from collabteam.video import still as module  # noqa: E402
from collabteam.video.crops import cut  # noqa: E402
from collabteam.video.footage import content_hash, open_footage  # noqa: E402
from collabteam.video.spool import VideoRecord  # noqa: E402
from collabteam.video.still import Stills  # noqa: E402

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
    )  # fmt: skip
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "videos" / f"{video}.json").write_text(json.dumps(asdict(record)))
    return record.name


@pytest.fixture
def sought(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a video from its beginning gives nothing."""
    monkeypatch.setattr(module, "_replayed", lambda record, number, end: None)


def check_all(tmp_path: Path, path: Path, fps: float = 0.0) -> int:
    """Every frame that was read comes back, by its number alone and with its time; how many."""
    with open_footage(str(path), fps) as footage:
        taken = [(frame.number, frame.seconds) for frame in footage]
    for start in (None, BEGIN):
        name = known(tmp_path / "cam", path, start, fps)
        stills = Stills(tmp_path / "cam")
        assert stills.available(name)
        for place in np.random.default_rng(0).permutation(len(taken)):
            number, seconds = taken[place]
            when = math.nan if start is None else start + seconds
            assert number_on(stills.jpeg(name, number, when, None)) == number
        assert stills.jpeg(name, taken[-1][0] + 200, math.nan, None) is None
        assert stills.jpeg(name, -1, math.nan, None) is None
    return len(taken)


KINDS = [
    ("a.avi", "mpeg4", {}),
    ("a.avi", "mpeg4", {"between": 2}),
    ("a.avi", "mjpeg", {"pixels": "yuvj420p"}),
    ("a.avi", "libx264", {"between": 3}),
    ("a.mkv", "mpeg4", {"between": 2}),
    ("a.mp4", "libx264", {"between": 3}),
    ("a.mkv", "libx264", {"between": 3}),
    ("a.ts", "libx264", {"between": 3}),
    ("a.ts", "mpeg2video", {"between": 2, "rate": 25}),
    ("a.h264", "libx264", {"between": 3}),
    ("a.mov", "libx264", {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}}),
]


@pytest.mark.parametrize(("name", "codec", "how"), KINDS)
@pytest.mark.usefixtures("sought")
def test_every_frame_of_every_kind(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any]
) -> None:
    path = write(tmp_path / name, 70, codec, size=SIZE, draw=numbered, **how)
    assert check_all(tmp_path, path) == 70


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
@pytest.mark.usefixtures("sought")
def test_a_variable_frame_rate(tmp_path: Path, name: str) -> None:
    gaps = np.random.default_rng(0).choice([33, 40, 100, 700], 59)
    pts = [5000, *(5000 + np.cumsum(gaps)).tolist()]
    path = write(
        tmp_path / name, 60, "libx264", between=3, size=SIZE, draw=numbered, pts=pts
    )  # fmt: skip
    assert check_all(tmp_path, path) == 60
    assert 10 < check_all(tmp_path, path, fps=3.0) < 40


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.usefixtures("sought")
def test_rotated_videos_are_upright(tmp_path: Path, rotation: int) -> None:
    def turned(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        upright = numbered(number, size if rotation == 180 else size[::-1])
        return np.ascontiguousarray(np.rot90(upright, -rotation // 90))

    path = write(
        tmp_path / "a.mp4", 30, "libx264", between=3, size=SIZE, draw=turned, rotation=rotation
    )
    assert check_all(tmp_path, path) == 30


@pytest.mark.usefixtures("sought")
def test_far_into_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST", 16)  # so that its packets are counted in parts
    path = write(tmp_path / "a.mp4", 250, "libx264", between=3, size=SIZE, draw=numbered)
    name = known(tmp_path / "cam", path)
    stills = Stills(tmp_path / "cam")
    for number in (0, 3, 63, 64, 100, 127, 128, 191, 192, 248, 249, 5):
        assert number_on(stills.jpeg(name, number, math.nan, None)) == number


def test_a_seek_that_leads_astray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mkv", 70, "libx264", between=3, size=SIZE, draw=numbered)
    name = known(tmp_path / "cam", path)
    tried: list[bool] = []
    originally = module._from

    class Astray:
        """Goes to the end, wherever it is sent."""

        def __init__(self, container: Any) -> None:
            self.demux = container.demux
            self.seek = lambda offset, stream: container.seek(6_000, stream=stream)

    def astray(
        container: Any, video: Any, packets: Any, start: int, seeking: bool, end: float
    ) -> Any:
        tried.append(seeking)
        return originally(Astray(container), video, packets, start, seeking, end)

    monkeypatch.setattr(module, "_from", astray)
    assert number_on(Stills(tmp_path / "cam").jpeg(name, 40, math.nan, None)) == 40
    assert tried == [True, False]


def test_without_true_keyframes_a_video_is_read_from_its_beginning(tmp_path: Path) -> None:
    options = {"x264-params": "intra-refresh=1:bframes=0"}
    path = write(tmp_path / "a.mkv", 60, "libx264", size=SIZE, draw=numbered, options=options)
    assert check_all(tmp_path, path) == 60
    assert check_all(tmp_path, path, fps=2.0) == 12


def test_timestamps_that_go_back(tmp_path: Path) -> None:
    part = write(tmp_path / "1.ts", 40, "mpeg2video", 25, SIZE, draw=numbered)
    path = tmp_path / "a.ts"
    path.write_bytes(part.read_bytes() * 2)
    check_as_read(tmp_path, path, fps=5.0)


def check_as_read(tmp_path: Path, path: Path, fps: float) -> None:
    """What comes back is what was read, pixel by pixel but for JPEG."""
    with open_footage(str(path), fps) as footage:
        taken = list(footage)
    name = known(tmp_path / "cam", path, BEGIN, fps)
    stills = Stills(tmp_path / "cam")
    for frame in taken:
        jpeg = stills.jpeg(name, frame.number, BEGIN + frame.seconds, None)
        assert jpeg is not None, frame.number
        difference = pixels_of(jpeg).astype(int) - frame.image
        assert np.abs(difference).mean() < 3, frame.number


@pytest.mark.parametrize(
    ("name", "codec", "between"),
    [
        *(("a.avi", "mpeg4", 0), ("a.avi", "mpeg4", 2), ("a.mkv", "libx264", 3)),
        *(("a.ts", "libx264", 0), ("a.avi", "mjpeg", 0)),
    ],
)
def test_damage_in_the_middle(tmp_path: Path, name: str, codec: str, between: int) -> None:
    shades = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write(
        tmp_path / name, 120, codec, size=SIZE, draw=numbered, pixels=shades, between=between
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    middle, span = len(content) // 2, len(content) // 12
    content[middle : middle + span] = np.random.default_rng(0).bytes(span)
    path.write_bytes(content)
    check_as_read(tmp_path, path, 0.0)


def test_a_file_that_was_cut_off_has_no_index(tmp_path: Path) -> None:
    path = half(write(tmp_path / "a.avi", 100, "mpeg4", size=SIZE, draw=numbered))
    assert check_all(tmp_path, path) > 9


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
        stills = Stills(tmp_path / "cam", width)
        plain = pixels_of(stills.jpeg(name, 1, math.nan, None)).astype(int)
        marked = pixels_of(stills.jpeg(name, 1, math.nan, (100, 200, 80, 60))).astype(int)
        assert plain.shape == marked.shape == (480 * scale, 640 * scale, 3)
        rows, columns = np.nonzero(np.abs(marked - plain).sum(axis=2) > 150)
        outside = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / scale
        assert outside == pytest.approx([100, 200, 180, 260], abs=6)
        inside = marked[int(206 * scale) : int(254 * scale), int(106 * scale) : int(174 * scale)]
        assert np.abs(inside - 100).max() < 30


@pytest.mark.parametrize(
    "box",
    [
        *((-50.0, -50.0, 1e9, 1e9), (500.0, 500.0, 10.0, 10.0), (5.0, 5.0, -90.0, -90.0)),
        *((math.nan, 0.0, 1.0, 1.0), (0.0, 0.0, math.inf, 1.0), (3.0, 3.0, 0.0, 0.0)),
        *((-1e300, 0.0, 1e308, 1e308), (-90.0, -90.0, 5.0, 5.0)),
    ],
)
def test_any_box_can_be_asked_for(
    tmp_path: Path, video: Path, box: tuple[float, float, float, float]
) -> None:
    name = known(tmp_path / "cam", video)
    assert pixels_of(Stills(tmp_path / "cam").jpeg(name, 9, math.nan, box)).shape == (64, 128, 3)


# --- what becomes of files -----------------------------------------------------------------------


def test_no_file_no_still(tmp_path: Path, video: Path) -> None:
    name = known(tmp_path / "cam", video)
    stills = Stills(tmp_path / "cam")
    assert number_on(stills.jpeg(name, 7, math.nan, None)) == 7
    video.rename(tmp_path / "away.mp4")
    assert not stills.available(name)
    assert stills.jpeg(name, 7, math.nan, None) is None  # not what is kept, either
    (tmp_path / "away.mp4").rename(video)
    assert number_on(stills.jpeg(name, 7, math.nan, None)) == 7
    video.unlink()
    video.mkdir()
    assert not stills.available(name)
    assert not stills.available("another.mp4@12345678")
    assert stills.jpeg("", 7, math.nan, None) is None


@pytest.mark.parametrize("touched", [False, True])
def test_another_file_of_the_same_size_is_no_video(
    tmp_path: Path, video: Path, touched: bool
) -> None:
    name = known(tmp_path / "cam", video)
    status = video.stat()
    video.write_bytes(b"no video" * status.st_size)
    os.truncate(video, status.st_size)
    os.utime(video, ns=(0, status.st_mtime_ns + touched))
    stills = Stills(tmp_path / "cam")
    assert stills.available(name)
    assert stills.jpeg(name, 7, math.nan, None) is None
    os.truncate(video, status.st_size - 1)
    assert not stills.available(name)


def test_a_video_of_the_same_size_and_another_content(tmp_path: Path) -> None:
    def other(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        return numbered(number + 100, size)

    one = write(tmp_path / "a.avi", 20, "rawvideo", size=SIZE, draw=numbered)
    two = write(tmp_path / "b.avi", 20, "rawvideo", size=SIZE, draw=other)
    assert one.stat().st_size == two.stat().st_size
    name = known(tmp_path / "cam", one)
    content = one.read_bytes()
    stills = Stills(tmp_path / "cam")
    assert number_on(stills.jpeg(name, 7, math.nan, None)) == 7
    one.write_bytes(two.read_bytes())
    os.utime(one, ns=(0, 1))
    assert stills.jpeg(name, 7, math.nan, None) is None
    one.write_bytes(content)
    os.utime(one, ns=(0, 2))  # as after a copy: the content counts
    assert number_on(stills.jpeg(name, 8, math.nan, None)) == 8


def test_a_time_that_does_not_fit_gives_the_frame_of_the_number(
    tmp_path: Path, video: Path
) -> None:
    name = known(tmp_path / "cam", video, BEGIN)
    assert number_on(Stills(tmp_path / "cam").jpeg(name, 7, BEGIN + 1.5, None)) == 7


def test_which_videos_are_known(tmp_path: Path, video: Path) -> None:
    camera = tmp_path / "cam"
    stills = Stills(camera)
    assert not camera.exists()
    assert not stills.available("a.mp4@12345678")
    name = known(camera, video)
    assert stills.available(name)  # read since
    for file, text in (
        *(("0.json", "{"), ("1.json", "[]"), ("2.json", '{"id": "2"}'), ("3.json", "\xff")),
        ("4.json", '{"id": "4", "name": "cam-1@4", "path": "rtsp://cam/1"}'),
        ("5.json", '{"id": "5", "name": [], "path": "a"}'),
    ):
        (camera / "videos" / file).write_text(text, encoding="latin-1")
    (camera / "videos" / "6.json").mkdir()
    for again in (stills, Stills(camera)):
        assert again.available(name)
        assert not again.available("cam-1@4")
        assert again.jpeg("cam-1@4", 0, BEGIN, None) is None
    moved = video.rename(tmp_path / "moved.mp4")
    assert not stills.available(name)
    file = camera / "videos" / f"{content_hash(str(moved))}.json"
    record = json.loads(file.read_text()) | {"path": str(moved)}
    file.with_suffix(".new").write_text(json.dumps(record))
    file.with_suffix(".new").replace(file)  # as ingest notes it
    assert number_on(stills.jpeg(name, 3, math.nan, None)) == 3


def test_without_av(tmp_path: Path, video: Path) -> None:
    name = known(tmp_path / "cam", video)
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from pathlib import Path; from collabteam.video.still import Stills\n"
        "stills = Stills(Path(sys.argv[1]))\n"
        "assert not stills.available(sys.argv[2])\n"
        "assert stills.jpeg(sys.argv[2], 3, 0.0, None) is None"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "cam"), name]
    subprocess.run(run, cwd=REPOSITORY, check=True)
    late = (
        "import sys; from pathlib import Path; from collabteam.video.still import Stills\n"
        "assert Stills(Path(sys.argv[1])).available(sys.argv[2]) and 'av' not in sys.modules"
    )
    run[2] = late
    subprocess.run(run, cwd=REPOSITORY, check=True)


# --- how much work -------------------------------------------------------------------------------


def test_stills_are_kept_and_few(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = known(tmp_path / "cam", video)
    decoded: list[int] = []
    originally = module._decoded

    def counting(path: str, packets: Any, place: Any, seeking: bool, end: float) -> Any:
        decoded.append(place.number)
        return originally(path, packets, place, seeking, end)

    monkeypatch.setattr(module, "_decoded", counting)
    monkeypatch.setattr(module, "_KEPT", 4)
    stills = Stills(tmp_path / "cam")
    for number in (1, 2, 3, 4, 1, 5, 1, 2):
        assert number_on(stills.jpeg(name, number, float("nan"), None)) == number
    assert decoded == [1, 2, 3, 4, 5, 2]
    assert len(stills._done) == 4
    stills.jpeg(name, 1, math.nan, (1.0, 2.0, 3.0, 4.0))
    assert len(decoded) == 7  # another box is another picture


def test_from_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        write(tmp_path / "a.mp4", 60, "libx264", between=3, size=SIZE, draw=numbered),
        write(tmp_path / "b.avi", 60, "mpeg4", between=2, size=SIZE, draw=numbered),
    ]
    names = [known(tmp_path / "cam", path) for path in paths]
    stills = Stills(tmp_path / "cam")
    now, most = 0, 0
    originally = module._decoded
    lock = threading.Lock()

    def counting(path: str, packets: Any, place: Any, seeking: bool, end: float) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return originally(path, packets, place, seeking, end)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(module, "_decoded", counting)
    numbers = np.random.default_rng(0).integers(0, 60, 120).tolist()
    with ThreadPoolExecutor(8) as pool:
        got = pool.map(
            lambda at: number_on(stills.jpeg(names[at[0] % 2], at[1], math.nan, None)),
            enumerate(numbers),
        )
        assert list(got) == numbers
    assert 1 <= most <= 2


def test_what_takes_too_long_is_given_up(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = known(tmp_path / "cam", video)
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    stills = Stills(tmp_path / "cam")
    began = time.monotonic()
    with stills._turns, stills._turns:  # others are at it
        assert stills.jpeg(name, 3, math.nan, None) is None
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    assert stills.jpeg(name, 3, math.nan, None) is None
    assert time.monotonic() - began < 2
    monkeypatch.setattr(module, "PATIENCE", 10.0)
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
            made = Stills(tmp_path / "cam").jpeg(crop, number, math.nan, None)
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
    stills = Stills(catalog.folder, width=10_000)

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
@pytest.mark.usefixtures("sought")
def test_a_real_street(tmp_path: Path, name: str) -> None:
    path = DATA / "videos" / name
    if not path.exists():
        pytest.skip(f"{path} is absent: COLLABTEAM_TEST_DATA names the folder with it")
    crop = known(tmp_path / "cam", path)
    stills = Stills(tmp_path / "cam", width=10_000)
    wanted = {0, 1, 40, 249, 250, 251, 400}
    with open_footage(str(path)) as footage:
        for frame in footage:
            if frame.number in wanted:
                got = pixels_of(stills.jpeg(crop, frame.number, math.nan, None)).astype(int)
                assert np.abs(got - frame.image).mean() < 4
            if frame.number > max(wanted):
                break
