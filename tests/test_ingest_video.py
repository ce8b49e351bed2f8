"""Footage becomes crops in the catalog, whatever happens on the way."""

from __future__ import annotations

import http.server
import importlib.util
import io
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Call, environment, fingerprints, one_line, read_json, run
from numpy.typing import NDArray
from PIL import Image

av = pytest.importorskip("av", reason="needs the extra 'footage'")
pytest.importorskip("trackers", reason="needs the extra 'footage'")

from drawn import Actor, Colours, film, rider, walker  # noqa: E402

from collabteam.catalog import Catalog  # noqa: E402
from collabteam.errors import UserError  # noqa: E402
from collabteam.settings import CameraConfig, CutConfig, FootageConfig, IngestConfig  # noqa: E402
from collabteam.storage.workspace import CameraInUse, Workspace  # noqa: E402
from collabteam.video.objects import Objects  # noqa: E402
from collabteam.video.pipeline import FootageSummary, ingest_footage  # noqa: E402
from collabteam.video.spool import Spool  # noqa: E402

DATA = Path(os.environ.get("COLLABTEAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))

STREET = (*rider("bicycle", 10, 4.0), walker(280, 150, -3.0), Actor("bicycle", (150, 10, 210, 55)))
"""A cyclist from the left, a walker from the right, a parked bicycle."""


def _config(root: Path, path: Path | str, classes: list[str] | None = None) -> IngestConfig:
    return IngestConfig(
        camera=CameraConfig("cam", classes or []), root=str(root), source="video", path=str(path),
        tracker="sort", cut=CutConfig(min_frames=5, min_size=20),
    )  # fmt: skip


def _proposed(root: Path) -> Counter[str]:
    return Counter(Catalog.open(root, "cam").index().proposed.tolist())


def _crops(root: Path) -> set[str]:
    """Every crop; fails if one is there twice."""
    names = Catalog.open(root, "cam").index().crop_id.tolist()
    assert len(names) == len(set(names))
    return set(names)


def _objects(summary: FootageSummary) -> Counter[str]:
    total: Counter[str] = Counter()
    for record in summary.read:
        total.update(record.objects)
    return total


# -- what becomes of what is seen ------------------------------------------------------------------


def test_one_object_is_one_track_with_its_best_pictures(tmp_path: Path) -> None:
    video = film(tmp_path / "gate_20260102_030405.avi", STREET)
    config = _config(tmp_path / "outputs", video)
    config.camera.footage = FootageConfig(start="gate_%Y%m%d_%H%M%S", timezone="Europe/Madrid")
    summary = ingest_footage(config, detector=Colours())
    assert _objects(summary) == {"cyclist": 1, "pedestrian": 1}
    (record,) = summary.read
    assert (record.frames, record.crops, record.faults) == (40, 6, [])
    assert record.duration == pytest.approx(3.9)
    assert record.detections == 40 * 4  # two persons, two bicycles in every frame
    assert summary.total == 6

    catalog = Catalog.open(tmp_path / "outputs", "cam")
    assert catalog.classes == ["pedestrian", "cyclist", "motorcyclist"]
    index = catalog.index()
    assert Counter(index.proposed.tolist()) == {"cyclist": 3, "pedestrian": 3}
    for label in ("cyclist", "pedestrian"):
        assert len(set(index.track[index.proposed == label])) == 1
    # Madrid is an hour ahead of UTC in winter.
    begin = datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC).timestamp()
    assert ((index.time >= begin) & (index.time < begin + 4)).all()
    span = index.time[index.proposed == "pedestrian"]
    assert span.max() - span.min() > 1.5  # over its life, not one after the other

    rows = catalog._crops.read(["image", "video", "track", "frame", "time", "box"]).to_pylist()
    for row, label in zip(rows, index.proposed, strict=True):
        left, top, width, height = row["box"]
        assert row["frame"] == round((row["time"] - begin) * 10)
        assert row["video"].startswith("gate_20260102_030405.avi@")
        shift = row["frame"]
        if label == "pedestrian":
            assert (left, top) == pytest.approx((280 - 3 * shift, 150), abs=3)
            assert (width, height) == pytest.approx((26, 70), abs=4)
        else:  # the union of the person and the bicycle
            assert (left, top) == pytest.approx((10 + 4 * shift, 60), abs=3)
            assert (width, height) == pytest.approx((60, 90), abs=4)
        rim = 0.1 * max(width, height)
        with Image.open(io.BytesIO(row["image"])) as picture:
            assert picture.format == "JPEG"
            expected = min(320, left + width + rim) - max(0, left - rim)
            assert picture.size[0] == pytest.approx(expected, abs=2)
            middle = np.asarray(picture)[picture.size[1] // 3, picture.size[0] // 2]
            assert middle[0] > middle[1] + 40  # the person, who is red


def test_a_bicycle_without_a_rider_is_kept_as_unknown_where_asked_for(tmp_path: Path) -> None:
    video = film(tmp_path / "clip.avi", STREET)
    config = _config(tmp_path / "outputs", video)
    config.keep_unknown = ["bicycle"]
    assert _objects(ingest_footage(config, detector=Colours())) == {
        "cyclist": 1, "pedestrian": 1, "unknown": 1
    }  # fmt: skip
    assert _proposed(tmp_path / "outputs")["unknown"] == 3


def test_a_camera_has_the_classes_that_it_names(tmp_path: Path) -> None:
    video = film(tmp_path / "clip.avi", STREET)
    config = _config(tmp_path / "outputs", video, ["person", "bicycle"])
    # Without riders among the classes nothing is fused: two persons, two bicycles.
    assert _objects(ingest_footage(config, detector=Colours())) == {"person": 2, "bicycle": 2}
    mixed = _config(tmp_path / "other", video, ["person", "cyclist"])
    with pytest.raises(UserError, match="person and cyclist cannot be used together"):
        ingest_footage(mixed, detector=Colours())
    assert not (tmp_path / "other").exists()


def test_two_on_a_motorcycle_are_one_motorcyclist(tmp_path: Path) -> None:
    vehicle, person = rider("motorcycle", 10, 4.0)
    behind = Actor("person", (8, 62, 24, 128), (4, 0))
    video = film(tmp_path / "clip.avi", [behind, vehicle, person])
    summary = ingest_footage(_config(tmp_path / "outputs", video), detector=Colours())
    assert _objects(summary) == {"motorcyclist": 1}


def test_who_pushes_a_bicycle_is_a_pedestrian(tmp_path: Path) -> None:
    bicycle = Actor("bicycle", (40, 110, 100, 155), (3, 0))
    beside = Actor("person", (22, 75, 50, 157), (3, 0))  # feet on the ground, before the wheel
    video = film(tmp_path / "clip.avi", [bicycle, beside])
    config = _config(tmp_path / "outputs", video)
    assert _objects(ingest_footage(config, detector=Colours())) == {"pedestrian": 1}


def test_a_rider_whose_bicycle_is_often_overlooked_is_one_cyclist(tmp_path: Path) -> None:
    class Overlooks(Colours):
        calls = 0

        def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Objects]:
            self.calls += 1
            (seen,) = super().detect(images)
            return [seen if self.calls % 2 else seen[seen.kind == "person"]]

    video = film(tmp_path / "clip.avi", rider("bicycle", 10, 3.0))
    config = _config(tmp_path / "outputs", video)
    (record,) = ingest_footage(config, detector=Overlooks()).read
    assert record.objects == {"cyclist": 1}
    boxes = Catalog.open(tmp_path / "outputs", "cam")._crops.read(["box"])["box"].to_pylist()
    assert len(boxes) == 3
    assert all(box[2] > 50 for box in boxes)  # pictures of the whole rider


def test_what_is_brief_small_or_outside_the_region_is_left_out(tmp_path: Path) -> None:
    brief = Actor("person", (20, 150, 46, 220), (0, 0), first=10, last=12)
    small = Actor("person", (100, 200, 108, 218))
    outside = walker(200, 5, 1.0)
    video = film(tmp_path / "clip.avi", [brief, small, outside, walker(250, 150, -2.0)])
    config = _config(tmp_path / "outputs", video)
    config.camera.footage = FootageConfig(region=[[0, 0.5], [1, 0.5], [1, 1], [0, 1]])
    assert _objects(ingest_footage(config, detector=Colours())) == {"pedestrian": 1}


def test_frames_are_analysed_at_the_rate_asked_for(tmp_path: Path) -> None:
    video = film(tmp_path / "clip.avi", STREET, frames=60, fps=20)
    config = _config(tmp_path / "outputs", video)
    config.fps = 5.0
    (record,) = ingest_footage(config, detector=Colours()).read
    assert record.frames == 15
    assert record.duration == pytest.approx(2.8)
    assert record.start is None
    index = Catalog.open(tmp_path / "outputs", "cam").index()
    assert all(map(math.isnan, index.time))
    frames = Catalog.open(tmp_path / "outputs", "cam")._crops.read(["frame"])["frame"].to_pylist()
    assert all(frame % 4 == 0 for frame in frames)


# -- once and only once ----------------------------------------------------------------------------


def test_a_video_counts_once_whatever_it_is_called(tmp_path: Path) -> None:
    film(tmp_path / "videos" / "a.avi", STREET)
    film(tmp_path / "videos" / "b.avi", [walker(20, 100)])
    config = _config(tmp_path / "outputs", tmp_path / "videos")
    first = ingest_footage(config, detector=Colours())
    assert (len(first.read), len(first.known)) == (2, 0)
    before = _crops(tmp_path / "outputs")

    class Never(Colours):
        def detect(self, images: object) -> list[object]:  # type: ignore[override]
            raise AssertionError("a known video was read again")

    again = ingest_footage(config, detector=Never())
    assert (len(again.read), len(again.known)) == (0, 2)
    shutil.copy(tmp_path / "videos" / "a.avi", tmp_path / "videos" / "copy.avi")
    copied = ingest_footage(config, detector=Never())
    assert (len(copied.read), len(copied.known)) == (0, 3)
    film(tmp_path / "videos" / "c.avi", [walker(40, 120)])
    more = ingest_footage(config, detector=Colours())
    assert ([record.path[-5:] for record in more.read], len(more.known)) == (["c.avi"], 3)
    assert before < _crops(tmp_path / "outputs")


def test_other_settings_do_not_read_a_video_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from collabteam.reporting.terminal import Terminal

    video = film(tmp_path / "clip.avi", STREET)
    config = _config(tmp_path / "outputs", video)
    ingest_footage(config, detector=Colours())
    before = _crops(tmp_path / "outputs")
    config.crops_per_track = 5
    summary = ingest_footage(config, Terminal(), detector=Colours())
    assert len(summary.known) == 1
    assert _crops(tmp_path / "outputs") == before
    assert "read with other settings (crops_per_track)" in capsys.readouterr().err


def test_identical_videos_in_one_run_count_once(tmp_path: Path) -> None:
    film(tmp_path / "videos" / "a.avi", STREET)
    shutil.copy(tmp_path / "videos" / "a.avi", tmp_path / "videos" / "b.avi")
    summary = ingest_footage(_config(tmp_path / "outputs", tmp_path / "videos"), detector=Colours())
    assert (len(summary.read), len(summary.known)) == (1, 1)
    assert len(_crops(tmp_path / "outputs")) == 6


def test_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    for number in range(3):
        film(tmp_path / "videos" / f"{number}.avi", [*STREET, walker(30 * number, 160)])
    config = _config(tmp_path / "one", tmp_path / "videos")
    ingest_footage(config, detector=Colours())
    config.root, config.workers = str(tmp_path / "two"), 2
    summary = ingest_footage(config, detector=Colours())
    assert len(summary.read) == 3
    assert _crops(tmp_path / "two") == _crops(tmp_path / "one")


# -- killed, locked, at the same time --------------------------------------------------------------

SCRIPT = """
import sys
from drawn import Colours
from test_ingest_video import _config
from collabteam.reporting.terminal import Terminal
from collabteam.video.pipeline import ingest_footage
config = _config(sys.argv[1], sys.argv[2])
config.workers = int(sys.argv[4])
ingest_footage(config, Terminal(), detector=Colours(float(sys.argv[3])))
"""


def _start(root: Path, path: Path, wait: float = 0.0, workers: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root), str(path), str(wait), str(workers)],
        env={**environment(), "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    for number in range(3):
        film(tmp_path / "videos" / f"{number}.avi", [*STREET, walker(40 * number, 160)], frames=30)
    return tmp_path / "videos"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_the_same_crops_come_out(
    tmp_path: Path, footage: Path, workers: int
) -> None:
    undisturbed = tmp_path / "undisturbed"
    ingest_footage(_config(undisturbed, footage), detector=Colours())
    root = tmp_path / "killed"
    rng = np.random.default_rng(workers)
    began = time.monotonic()
    process = _start(root, footage, 0.01, workers)
    assert process.wait(60) == 0, process.communicate()[1]
    whole = time.monotonic() - began
    assert _crops(root) == _crops(undisturbed)
    shutil.rmtree(root)
    for _ in range(3):
        process = _start(root, footage, 0.01, workers)
        time.sleep(whole * (0.3 + 0.7 * float(rng.random())))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (root / "cam" / "camera.yaml").exists():
            assert _crops(root) <= _crops(undisturbed)
    ingest_footage(_config(root, footage), detector=Colours())
    assert _crops(root) == _crops(undisturbed)
    assert Counter(_proposed(root)) == Counter(_proposed(undisturbed))
    log = Catalog.open(root, "cam").log(("crop_id",))["crop_id"].to_pylist()
    assert len(log) == len(set(log))
    assert not list((root / "cam" / "incoming").glob("*.par*"))


@pytest.mark.parametrize("step", ["sealed", "committed", "noted"])
def test_killed_around_the_commit_nothing_is_lost_or_doubled(
    tmp_path: Path, footage: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import collabteam.video.spool as module

    undisturbed, root = tmp_path / "undisturbed", tmp_path / "killed"
    ingest_footage(_config(undisturbed, footage), detector=Colours())

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    if step == "sealed":
        monkeypatch.setattr(module, "_item", die)
    elif step == "committed":
        monkeypatch.setattr(Spool, "done", die)
    else:
        unlink = Path.unlink

        def die_here(path: Path, missing_ok: bool = False) -> None:
            if path.suffix == ".parquet":
                raise KeyboardInterrupt
            unlink(path, missing_ok)

        monkeypatch.setattr(Path, "unlink", die_here)
    with pytest.raises(KeyboardInterrupt):
        ingest_footage(_config(root, footage), detector=Colours())
    monkeypatch.undo()
    waiting = len(list((root / "cam" / "incoming").glob("*.parquet")))
    assert waiting == 3

    class Never(Colours):
        def detect(self, images: object) -> list[object]:  # type: ignore[override]
            raise AssertionError("a sealed video was read again")

    ingest_footage(_config(root, footage), detector=Never())
    assert _crops(root) == _crops(undisturbed)
    log = Catalog.open(root, "cam").log(("crop_id",))["crop_id"].to_pylist()
    assert len(log) == len(set(log))


def test_two_at_once_share_the_videos(tmp_path: Path, footage: Path) -> None:
    root = tmp_path / "outputs"
    other = _start(root, footage, 0.05)
    reading = root / "cam" / "incoming"
    for _ in range(200):
        time.sleep(0.05)
        if list(reading.glob("*.part")):
            break
    summary = ingest_footage(_config(root, footage), detector=Colours())
    assert other.wait(60) == 0
    said = other.communicate()[1]
    assert [Path(path).name for path, _ in summary.busy] == ["0.avi"]
    assert f"process {other.pid} on host" in summary.busy[0][1]
    assert len(summary.read) == 2
    assert "Traceback" not in said
    assert len(_crops(root)) > 0
    assert len(Spool(Workspace(root / "cam")).known_files()) == 3
    assert len(ingest_footage(_config(root, footage), detector=Colours()).known) == 3


def test_reading_goes_on_while_another_command_holds_the_camera(
    tmp_path: Path, footage: Path
) -> None:
    root = tmp_path / "outputs"
    catalog = Catalog.register(root, "cam", ["pedestrian", "cyclist", "motorcyclist"])
    with catalog.workspace.transaction("train"):
        process = _start(root, footage)
        for _ in range(300):
            time.sleep(0.1)
            if len(list((root / "cam" / "incoming").glob("*.parquet"))) == 3:
                break
        time.sleep(0.5)
        assert process.poll() is None
        assert len(Catalog.open(root, "cam")) == 0
        with pytest.raises(CameraInUse):
            Catalog.open(root, "cam").workspace.transaction("x").__enter__()
    assert process.wait(60) == 0
    assert "crops wait for the catalog: camera cam is in use by process" in process.communicate()[1]
    assert len(_crops(root)) > 0


def test_a_worker_that_dies_costs_its_video_alone(tmp_path: Path, footage: Path) -> None:
    config = _config(tmp_path / "outputs", footage)
    config.workers = 2
    summary = ingest_footage(config, detector=_Fatal())
    assert len(summary.failed) == 3
    assert "its process ended with code -9" in summary.failed[0][1]
    assert summary.total == 0
    assert len(ingest_footage(config, detector=Colours()).read) == 3


class _Fatal(Colours):
    """Kills its process, as the system does when memory runs out."""

    def detect(self, images: object) -> list[object]:  # type: ignore[override]
        os.kill(os.getpid(), signal.SIGKILL)
        return []


# -- bad footage -----------------------------------------------------------------------------------


def test_bad_videos_are_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    film(videos / "good.avi", STREET)
    (videos / "text.mp4").write_text("this is no video")
    (videos / "empty.avi").write_bytes(b"")
    whole = film(tmp_path / "whole.avi", STREET, frames=60).read_bytes()
    (videos / "truncated.avi").write_bytes(whole[: len(whole) // 2])
    root = tmp_path / "outputs"
    summary = ingest_footage(_config(root, videos), detector=Colours())
    records = {Path(record.path).name: record for record in summary.read}
    assert records["good.avi"].faults == []
    assert records["good.avi"].crops == 6
    for name in ("text.mp4", "empty.avi"):
        assert records[name].frames == records[name].crops == 0
        assert len(records[name].faults) == 1
    assert 0 < records["truncated.avi"].frames < 60
    assert records["truncated.avi"].faults
    assert not summary.failed
    again = ingest_footage(_config(root, videos), detector=Colours())
    assert len(again.known) == 4


def test_a_day_that_is_closed_is_named_and_the_rest_is_read(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = tmp_path / "videos"
    film(videos / "monday" / "good.avi", STREET)
    shutil.copytree(videos / "monday", videos / "tuesday")
    (videos / "monday" / "@eaDir").mkdir()
    scandir = os.scandir

    def closed(path: str = ".") -> object:
        if str(path) == str(videos / "tuesday"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    monkeypatch.setattr("collabteam.video.pipeline.open_detector", lambda *settings: Colours())
    said = call(
        "ingest", f"root={tmp_path / 'outputs'}", "camera=cam", "source=video", f"path={videos}",
        "tracker=sort", "cut.min_size=20",
    )  # fmt: skip
    assert said.code == 1
    assert "cam: 2 objects, 6 crops from 1 videos" in said.out
    assert "not readable for this user, left out: 1" in said.out
    assert f"{videos / 'tuesday'}: Permission denied" in said.out
    assert "passed over, hidden or of a file server: 1 (1 x @eaDir)" in said.out


def test_a_detector_that_fails_costs_its_video_alone(tmp_path: Path, footage: Path) -> None:
    class Fails(Colours):
        calls = 0

        def detect(self, images: object) -> list[object]:  # type: ignore[override]
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("out of memory")
            return super().detect(images)  # type: ignore[arg-type, return-value]

    config = _config(tmp_path / "outputs", footage)
    summary = ingest_footage(config, detector=Fails())
    assert len(summary.read) == 2
    ((path, reason),) = summary.failed
    assert path.endswith("0.avi")
    assert "RuntimeError: out of memory" in reason
    assert not list((tmp_path / "outputs" / "cam" / "incoming").glob("*.part"))
    assert len(ingest_footage(config, detector=Colours()).read) == 1


def test_one_bad_video_gets_one_line_though_the_camera_is_there(tmp_path: Path) -> None:
    config = _config(tmp_path / "outputs", film(tmp_path / "clip.avi", STREET))
    ingest_footage(config, detector=Colours())
    before = fingerprints(tmp_path / "outputs")
    (tmp_path / "text.mp4").write_text("this is no video")
    config.path = str(tmp_path / "text.mp4")
    with pytest.raises(UserError, match=r"text\.mp4"):
        ingest_footage(config, detector=Colours())
    assert fingerprints(tmp_path / "outputs") == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    tmp_path: Path, footage: Path, workers: int
) -> None:
    root = tmp_path / "outputs"
    full = SCRIPT.replace("import sys", "import sys, resource")
    full = full.replace(
        "config.workers", "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, -1))\nconfig.workers"
    )
    ended = subprocess.run(
        [sys.executable, "-c", full, str(root), str(footage), "0", str(workers)],
        env={**environment(), "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "UserError: the disk is full" in ended.stderr
    assert not list((root / "cam" / "incoming").glob("*.parquet"))
    assert len(ingest_footage(_config(root, footage), detector=Colours()).read) == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["path=nowhere.mp4"], ["nowhere.mp4"]),
        (["path=text.mp4"], ["text.mp4"]),
        (["path=nothing"], ["nothing"]),
        (["path='*.mkv'"], ["*.mkv"]),
        (["path="], ["path is not given", "a video, a folder of videos"]),
        (["path=clip.avi", "tracker=strongsaw"], ["strongsaw", "sort"]),
        (["path=clip.avi", "tracker=sort", "detector.kind=eyes"], ["detector.kind=eyes", "yolo"]),
        (
            ["path=clip.avi", "tracker=sort", "detector.kind=torchvision",
             "detector.weights=none.pth"],
            ["none.pth"],
        ),
        (
            ["path=clip.avi", "tracker=sort", "detector.kind=torchvision",
             "detector.weights=text.mp4"],
            ["text.mp4"],
        ),
        (["path=clip.avi", "camera.footage.mask=text.mp4"], ["text.mp4"]),
        (["path=clip.avi", "camera.footage.mask=no.png"], ["no.png"]),
        (["path=clip.avi", "camera.footage.start=%Q"], ["%Q"]),
        (["path=clip.avi", "camera.footage.region=[[0,0],[1,1]]"], ["has 2 corners"]),
        (["path=clip (1).avi"], ["path=clip (1).avi does not exist"]),
        (["path=clip.avi", "fps=-1"], ["fps=-1"]),
        (["path=clip.avi", "cut.jpeg_quality=0"], ["jpeg_quality=0"]),
        (["path=clip.avi", "workers=0"], ["workers=0"]),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line_and_leaves_nothing_behind(
    tmp_path: Path, call: Call, settings: list[str], expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "clip.avi", [walker(20, 100)], frames=5)
    (tmp_path / "text.mp4").write_text("this is no video, no mask and no weights")
    (tmp_path / "nothing").mkdir()
    said = call("ingest", "camera=cam", "source=video", *settings)
    one_line(said, *expected)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("mended", ["no manifest", "dangling link", "pipe"])
def test_odd_things_in_the_folders_stop_nothing(tmp_path: Path, footage: Path, mended: str) -> None:
    root = tmp_path / "outputs"
    if mended == "no manifest":  # as a kill in the midst of the first registration leaves it
        (root / "cam").mkdir(parents=True)
    elif mended == "pipe":
        os.mkfifo(footage / "pipe.avi")
    else:
        (footage / "gone.avi").symlink_to(tmp_path / "nowhere")
    assert len(ingest_footage(_config(root, footage), detector=Colours()).read) == 3


def test_a_video_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    video = film(tmp_path / "live.ts", STREET, frames=60)
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) * 2 // 3])

    class Grows(Colours):
        def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Objects]:
            video.write_bytes(whole)
            return super().detect(images)

    config = _config(tmp_path / "outputs", video)
    summary = ingest_footage(config, detector=Grows())
    assert [reason for _, reason in summary.failed] == ["changes while it is read"]
    assert summary.total == 0
    assert len(ingest_footage(config, detector=Colours()).read) == 1
    assert _objects(ingest_footage(config, detector=Colours())) == {}


def test_a_passing_error_is_tried_again(
    tmp_path: Path, footage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import collabteam.video.pipeline as module

    real = module.open_footage

    def flaky(path: str, fps: float = 0.0, limit: float = 0.0) -> object:
        if path.endswith("1.avi"):
            raise module.FootageError(path, "cannot be opened: Input/output error", passing=True)
        return real(path, fps, limit)

    monkeypatch.setattr(module, "open_footage", flaky)
    config = _config(tmp_path / "outputs", footage)
    summary = ingest_footage(config, detector=Colours())
    assert (len(summary.read), len(summary.failed)) == (2, 1)
    monkeypatch.undo()
    assert len(ingest_footage(config, detector=Colours()).read) == 1


def test_committers_do_not_stumble_over_each_other(tmp_path: Path, footage: Path) -> None:
    import collabteam.video.pipeline as module

    config = _config(tmp_path / "outputs", footage)
    spool = Spool(Catalog.register(config.root, "cam", list(module.CLASSES)).workspace)

    class Swift(Spool):
        """Between looking and reading, everything is committed by somebody else."""

        def sealed(self) -> list[Path]:
            found = super().sealed()
            commit(Catalog.open(config.root, "cam"), spool)
            return found

    from collabteam.events import Listener
    from collabteam.video.spool import commit

    config = module._with_classes(config)
    run = module._IngestRun(
        config, Catalog.open(config.root, "cam"), Swift(spool.workspace), Listener(),
        Colours(),
    )  # fmt: skip
    run.read_files([str(path) for path in sorted(footage.iterdir())])
    run.commit(wait=True)
    assert len(run.summary.read) == 3
    assert len(spool.known_files()) == 3


def test_pictures_of_second_tracks_are_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import collabteam.video.pipeline as module

    class Twice(Colours):
        def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Objects]:
            return [
                Objects.of([
                    (*(box + shift), 0.9, kind)
                    for box, kind in zip(seen.box, seen.kind, strict=True)
                    for shift in (0, 4)
                ])
                for seen in super().detect(images)
            ]  # fmt: skip

    video_runs: list[module._VideoRun] = []

    class Watched(module._VideoRun):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            video_runs.append(self)

    monkeypatch.setattr(module, "_VideoRun", Watched)
    video = film(tmp_path / "clip.avi", [walker(20, 20), walker(250, 150, -3.0)], frames=60)
    summary = ingest_footage(_config(tmp_path / "outputs", video), detector=Twice())
    assert summary.read[0].tracks > 2
    assert _objects(summary) == {"pedestrian": 2}
    assert video_runs[0].best_shots == {}


def test_a_name_that_tells_no_time_is_remarked_upon(tmp_path: Path) -> None:
    config = _config(tmp_path / "outputs", film(tmp_path / "gate_20260102.avi", STREET))
    config.camera.footage = FootageConfig(start="%Y-%m-%d_%H%M%S")
    (record,) = ingest_footage(config, detector=Colours()).read
    assert record.start is None
    assert record.faults == ["its name has no time: expected %Y-%m-%d_%H%M%S in it"]


def test_previews_are_no_footage(tmp_path: Path) -> None:
    film(tmp_path / "clip.avi", STREET)
    config = _config(tmp_path / "outputs", tmp_path)
    config.preview = True
    assert len(ingest_footage(config, detector=Colours()).previews) == 3
    again = ingest_footage(config, detector=Colours())
    assert (len(again.read), len(again.known)) == (0, 1)


def test_a_preview_that_fails_costs_no_crops(tmp_path: Path) -> None:
    video = film(tmp_path / f"{'long' * 55}.avi", STREET)
    config = _config(tmp_path / "outputs", video)
    config.preview = True
    summary = ingest_footage(config, detector=Colours())
    assert (len(summary.previews), summary.failed, summary.total) == (3, [], 6)


def test_a_moved_video_is_known_by_its_new_name(tmp_path: Path) -> None:
    video = film(tmp_path / "clip.avi", STREET)
    config = _config(tmp_path / "outputs", video)
    ingest_footage(config, detector=Colours())
    config.path = str(video.rename(tmp_path / "moved.avi"))
    assert len(ingest_footage(config, detector=Colours()).known) == 1
    (key,) = Spool(Workspace(tmp_path / "outputs" / "cam")).known_files()
    assert key[0] == config.path
    assert not list((tmp_path / "outputs" / "cam" / "incoming").iterdir())


def test_the_regions_of_the_help_can_be_typed(tmp_path: Path, call: Call) -> None:
    said = call("ingest", "--help")
    (line,) = [line for line in said.out.splitlines() if "region=" in line]
    said = call(
        "ingest", f"root={tmp_path}", "camera=cam", "source=video", f"path={tmp_path}/none.avi",
        line.split()[0],
    )  # fmt: skip
    one_line(said, "none.avi does not exist")


# -- streams ---------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves the files of ``tmp_path/served`` on loopback."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


def test_a_stream_is_read_up_to_its_limit(tmp_path: Path, server: str) -> None:
    film(tmp_path / "served" / "live.ts", STREET, frames=60)
    config = _config(tmp_path / "outputs", f"{server}/live.ts")
    config.limit = 4.0
    before = time.time()
    (record,) = ingest_footage(config, detector=Colours()).read
    assert record.objects == {"cyclist": 1, "pedestrian": 1}
    assert 3.0 <= record.duration <= 4.1
    index = Catalog.open(tmp_path / "outputs", "cam").index()
    assert (index.time >= before - 1).all()
    assert (index.time <= time.time() + 5).all()


def test_a_stream_reaches_the_catalog_stretch_by_stretch(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import collabteam.video.pipeline as module

    monkeypatch.setattr(module, "_SEGMENT", 2.0)
    monkeypatch.setattr(module, "_COMMIT_CROPS", 1)
    film(tmp_path / "served" / "live.ts", [walker(20, 20), walker(250, 150, -2.0)], frames=60)
    root = tmp_path / "outputs"

    class Interrupted(Colours):
        frames = 0

        def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Objects]:
            self.frames += len(images)
            if self.frames > 45:
                raise KeyboardInterrupt
            return super().detect(images)

    config = _config(root, f"{server}/live.ts")
    with pytest.raises(KeyboardInterrupt):
        ingest_footage(config, detector=Interrupted())
    found = [
        Spool(Workspace(root / "cam")).record(f.stem)
        for f in (root / "cam" / "videos").glob("*.json")
    ]
    records = sorted((one for one in found if one is not None), key=lambda one: one.start or 0)
    assert len(records) == 2  # the third stretch was not over
    assert records[1].start == pytest.approx((records[0].start or 0) + 2.0, abs=0.2)
    assert [record.frames for record in records] == [20, 20]
    assert len(_crops(root)) == sum(record.crops for record in records) > 0


def test_a_password_in_a_streams_address_is_neither_kept_nor_shown(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from collabteam.reporting.terminal import Terminal

    film(tmp_path / "served" / "live.ts", STREET)
    address = server.replace("http://", "http://ana:secret@")
    config = _config(tmp_path / "outputs", f"{address}/live.ts")
    ingest_footage(config, Terminal(), detector=Colours())
    for file in (tmp_path / "outputs").rglob("*"):
        assert not file.is_file() or b"secret" not in file.read_bytes()
    said = capsys.readouterr()
    assert "127.0.0.1" in said.err
    assert "secret" not in said.out + said.err


def test_a_stream_that_is_not_there_gets_one_line(tmp_path: Path) -> None:
    config = _config(tmp_path / "outputs", "http://127.0.0.1:9/none.ts")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9"):
        ingest_footage(config, detector=Colours())
    assert not (tmp_path / "outputs").exists()


# -- a look at it ----------------------------------------------------------------------------------


def test_a_preview_shows_every_frame_and_the_crops_by_label(tmp_path: Path) -> None:
    video = film(tmp_path / "clip.avi", STREET)
    config = _config(tmp_path / "outputs", video)
    config.preview = True
    (record,) = ingest_footage(config, detector=Colours()).read
    folder = tmp_path / "outputs" / "cam" / "videos"
    with av.open(str(folder / f"{record.name}.mp4")) as clip:
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    assert len(frames) == 40
    plain = film(tmp_path / "plain.avi", STREET)
    with av.open(str(plain)) as clip:
        unmarked = next(iter(clip.decode(video=0))).to_ndarray(format="rgb24")
    assert (np.abs(frames[10].astype(int) - unmarked).max(axis=2) > 80).sum() > 200  # frames drawn
    for label in ("cyclist", "pedestrian"):
        with Image.open(folder / f"{record.name}-{label}.png") as sheet:
            assert sheet.size[0] > 200


def test_a_name_of_255_bytes_gives_crops_and_a_preview(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".avi", "船" * 83 + "xx.avi"):
        assert len(name.encode()) == 255
        video = film(tmp_path / "clip.avi", STREET).rename(tmp_path / name)
        config = _config(tmp_path / f"outputs {name[0]}", video)
        config.preview = True
        summary = ingest_footage(config, detector=Colours())
        assert summary.read[0].crops > 0
        assert len(summary.previews) == 3
        assert all(file.is_file() for file in summary.previews)


def test_a_mirrored_and_squashed_video_gives_the_objects_that_players_show(tmp_path: Path) -> None:
    """With a detector that, as networks do, does not know objects of half their width."""
    plain = film(tmp_path / "plain.avi", STREET)
    squashed = tmp_path / "squashed.mp4"
    with av.open(str(plain)) as source, av.open(str(squashed), "w") as target:
        stream = target.add_stream("libx264", rate=10, options={"crf": "4"})
        first = source.streams.video[0]
        stream.width, stream.height, stream.pix_fmt = first.width // 2, first.height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        stream.set_display_matrix([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30])
        for frame in source.decode(first):
            image = frame.to_ndarray(format="rgb24")[:, ::-1][:, ::2]
            small = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            target.mux(stream.encode(small))
        target.mux(stream.encode())
    found = []
    for video in (plain, squashed):
        config = _config(tmp_path / f"outputs {video.stem}", video)
        (record,) = ingest_footage(config, detector=Colours()).read
        assert record.remark == ""
        catalog = Catalog.open(tmp_path / f"outputs {video.stem}", "cam")
        boxes = [origin["box"] for origin in catalog.origins(range(len(catalog)))]
        found.append((record.objects, np.mean([box[2] for box in boxes])))
    assert found[0][0] == found[1][0]
    assert found[1][1] == pytest.approx(found[0][1], rel=0.1)


# -- the command, with the real networks -----------------------------------------------------------


@pytest.mark.slow
def test_real_footage_through_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Imported here, ultralytics would be as it is left alone for the rest of the process.
    if not all(map(importlib.util.find_spec, ("ultralytics", "boxmot"))):
        pytest.skip("needs the extra 'video'")
    if not DATA.is_dir():
        pytest.skip(f"no test data in {DATA}")
    source = tmp_path / "walk.avi"
    _head(DATA / "videos" / "vtest.avi", source, 40)
    root, home = tmp_path / "outputs", tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    said = run(
        "ingest", root, "camera=plaza", "source=video", f"path={source}", "fps=0",
        f"detector.weights={DATA / 'weights' / 'yolov8n.pt'}", "detector.image_size=640",
        f"reid={DATA / 'weights' / 'osnet_x0_25_msmt17.onnx'}",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "walk.avi" in said.stdout
    assert "next: python -m collabteam.review camera=plaza" in said.stdout
    index = Catalog.open(root, "plaza").index()
    tracks = set(index.track[index.proposed == "pedestrian"])
    assert 5 <= len(tracks) <= 9  # seven people walk there
    (file,) = (root / "plaza" / "videos").glob("*.json")
    record = read_json(file)
    assert record["frames"] == 40
    assert record["seconds"]["detect"] > 0
    for noise in ("ultralytics", "Traceback", "boxmot", "WARNING"):
        assert noise not in said.stdout + said.stderr
    left = [file for file in home.rglob("*") if file.is_file() and "matplotlib" not in str(file)]
    assert not left  # no package keeps settings or reports there


def _head(source: Path, to: Path, frames: int) -> None:
    """The first frames of a video, as they are."""
    with av.open(str(source)) as whole, av.open(str(to), "w") as part:
        stream = whole.streams.video[0]
        copy = part.add_stream_from_template(stream)
        for packet in whole.demux(stream):
            if packet.dts is None or frames == 0:
                break
            frames -= 1
            packet.stream = copy
            part.mux(packet)
