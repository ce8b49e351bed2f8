"""The trackers behind ``open_tracker`` and what objects look like, on painted and real pictures."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collabteam.errors import UserError
from collabteam.video import appearance, tracking
from collabteam.video.appearance import ColourHistograms, OnnxNetwork, unit
from collabteam.video.linking import LinkedTrack, Linker, kind_of
from collabteam.video.objects import Frame, Objects, area, intersection
from collabteam.video.tracking import Tracker, open_tracker

REPOSITORY = Path(__file__).parents[1]
DATA = Path(os.environ.get("COLLABTEAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
OSNET = "weights/osnet_x0_25_msmt17.onnx"

needs_boxmot = pytest.mark.skipif(
    find_spec("boxmot") is None, reason="boxmot is not installed (extra 'video')"
)
needs_trackers = pytest.mark.skipif(
    find_spec("trackers") is None, reason="trackers is not installed (extra 'footage')"
)
TRACKERS = [
    pytest.param("strongsort", marks=needs_boxmot),
    pytest.param("sort", marks=needs_trackers),
]


def data(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is absent: COLLABTEAM_TEST_DATA names the folder with it")
    return DATA / name


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may use the network or call pip."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"this must not be: {args}")

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, args: Any, *rest: Any, **named: Any) -> None:
            if "install" in str(args):
                refuse(args)
            super().__init__(args, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(subprocess, "Popen", Popen)


# -- painted scenes --------------------------------------------------------------------------------

SIZE = (320, 480)
RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (40, 160, 60)
Walker = tuple[tuple[int, int, int], float, float, float]  # colour, x at the start, y, px per frame


def scene(
    walkers: list[Walker], frames: int, hidden: bool = True
) -> Iterator[tuple[NDArray[np.uint8], Objects, list[int]]]:
    """Pictures of walkers of 24 x 60 px, who is found in them, and who that is.

    Of two that overlap by more than half, the first one hides the other.
    """
    rng = np.random.default_rng(0)
    ground = rng.integers(90, 130, (*SIZE, 3), dtype=np.uint8)
    for frame in range(frames):
        image = ground.copy()
        rows, who = [], []
        for number in reversed(range(len(walkers))):
            colour, start, y, speed = walkers[number]
            x = start + speed * frame
            left, top = round(x - 12), round(y - 30)
            image[top : top + 60, max(left, 0) : left + 24] = colour
            image[top : top + 12, max(left, 0) : left + 24] = (220, 180, 160)
            covered = any(
                abs(other + fast * frame - x) < 12 and abs(other_y - y) < 30
                for _, other, other_y, fast in walkers[:number]
            )
            if hidden and covered:
                continue
            jump = rng.normal(0, 0.7, 4)
            box = np.array([x - 12, y - 30, x + 12, y + 30]) + jump
            rows.append((*box.tolist(), 0.8, "pedestrian"))
            who.append(number)
        yield image, Objects.of(rows), who


def follow(tracker: Tracker, walkers: list[Walker], frames: int) -> dict[int, list[int]]:
    """The numbers that everybody was given, in the order in which they first had them."""
    given: dict[int, list[int]] = {number: [] for number in range(len(walkers))}
    for image, objects, who in scene(walkers, frames):
        numbers, looks = tracker.update(objects, image)
        assert numbers.dtype == np.int64
        assert numbers.shape == (len(objects),)
        assert looks.dtype == np.float32
        assert len(looks) == len(objects)
        found = numbers[numbers >= 0]
        assert len(set(found.tolist())) == len(found)
        for number, person in zip(numbers.tolist(), who, strict=True):
            if number >= 0 and number not in given[person]:
                given[person].append(number)
    return given


@pytest.mark.parametrize("name", TRACKERS)
def test_no_variable_of_the_environment_changes_a_track(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In GitHub's runners, boxmot's StrongSORT would confirm each box at once."""

    def tracks() -> list[list[int]]:
        tracker, rng = open_tracker(name, "", 10), np.random.default_rng(0)
        found = []
        for frame, (image, objects, _) in enumerate(scene([(RED, 60.0, 150.0, 4.0)], 12)):
            x, y = rng.uniform(0, 200, 2)
            stray = (x, y, x + 24, y + 60, 0.8, "pedestrian")  # seen once
            rows = [(*box.tolist(), 0.8, "pedestrian") for box in objects.box]
            numbers, _ = tracker.update(Objects.of([*rows, stray][: 1 + frame % 2]), image)
            found.append(numbers.tolist())
        return found

    usual = tracks()
    for variable in ("GITHUB_ACTIONS", "CI", "BOXMOT_REID_BACKEND", "BOXMOT_NO_ALT_SCREEN"):
        monkeypatch.setenv(variable, "true")
    assert tracks() == usual


@pytest.mark.parametrize("name", TRACKERS)
def test_two_who_cross_keep_their_numbers(name: str) -> None:
    walkers = [(RED, 60.0, 150.0, 4.0), (BLUE, 420.0, 160.0, -4.0), (GREEN, 100.0, 260.0, 2.0)]
    given = follow(open_tracker(name, "", 10), walkers, 80)
    assert [len(numbers) for numbers in given.values()] == [1, 1, 1]
    assert len({numbers[0] for numbers in given.values()}) == 3


@pytest.mark.parametrize("name", TRACKERS)
def test_every_video_has_numbers_of_its_own(name: str) -> None:
    walkers = [(RED, 60.0, 150.0, 4.0), (BLUE, 420.0, 250.0, -4.0)]
    first = follow(open_tracker(name, "", 10), walkers, 30)
    assert follow(open_tracker(name, "", 10), walkers, 30) == first


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("rate", [5, 30])
def test_a_lost_track_is_kept_for_half_a_second(name: str, rate: int) -> None:
    for lost, tracks in ((0.4, 1), (1.5, 2)):
        tracker = open_tracker(name, "", rate)
        given: list[int] = []
        away = range(rate, rate + round(lost * rate))
        for frame, (image, objects, _) in enumerate(scene([(RED, 100.0, 150.0, 0.0)], 4 * rate)):
            there = objects[np.full(len(objects), frame not in away)]
            for number in tracker.update(there, image)[0].tolist():
                if number >= 0 and number not in given:
                    given.append(number)
        assert len(given) == tracks


@pytest.mark.parametrize("name", TRACKERS)
def test_new_tracks_have_to_prove_themselves(name: str) -> None:
    tracker = open_tracker(name, "", 10)
    pictures = list(scene([(RED, 100.0, 150.0, 3.0)], 5))
    numbers = [tracker.update(objects, image)[0].tolist() for image, objects, _ in pictures]
    assert numbers[:2] == [[-1], [-1]]
    assert numbers[2] == numbers[3] == numbers[4] != [-1]


@pytest.mark.parametrize("name", TRACKERS)
def test_kinds_play_no_role(name: str) -> None:
    tracker = open_tracker(name, "", 10)
    given = set()
    for frame, (image, objects, _) in enumerate(scene([(RED, 100.0, 150.0, 3.0)], 20)):
        kind = np.array([("pedestrian", "cyclist")[frame % 2]], object)
        given |= set(tracker.update(Objects(objects.box, objects.score, kind), image)[0].tolist())
    assert len(given - {-1}) == 1


@pytest.mark.parametrize("name", TRACKERS)
def test_frames_without_objects_and_boxes_without_an_inside(name: str) -> None:
    tracker = open_tracker(name, "", 10)
    image = np.zeros((*SIZE, 3), np.uint8)
    for rows in ([], [(30.0, 30.0, 30.0, 60.0, 0.5, "person")], []):
        numbers, looks = tracker.update(Objects.of(rows), image)
        assert numbers.tolist() == [-1] * len(rows)
        assert len(looks) == len(rows)
    # Somebody at the edge, whose box is beyond it.
    at_edge = Objects.of([(-20.0, 280.0, 15.0, 330.0, 0.5, "person")])
    for _ in range(4):
        numbers, looks = tracker.update(at_edge, image)
    assert numbers[0] >= 0
    assert np.isfinite(looks).all()


@needs_boxmot
def test_fast_ones_are_followed_at_few_frames_per_second() -> None:
    # A motorcyclist from the side, 1.7 m high and 2 m long, at 7 m/s.
    tracker = open_tracker("strongsort", "", 5)
    image = np.full((*SIZE, 3), 110, np.uint8)
    given = []
    for frame in range(9):
        left = 5 + 48 * frame
        picture = image.copy()
        picture[120:180, left : left + 70] = RED
        rider = Objects.of([(left, 120.0, left + 70.0, 180.0, 0.8, "motorcyclist")])
        given += tracker.update(rider, picture)[0].tolist()
    assert given[2:] == [given[2]] * 7 != [-1] * 7


@needs_boxmot
@pytest.mark.parametrize(
    "name", ["bytetrack", "ocsort", "botsort", "deepocsort", "hybridsort", "boosttrack",
             "occluboost", "sfsort"],
)  # fmt: skip
def test_any_of_boxmots_trackers_will_do(name: str) -> None:
    tracker = open_tracker(name, "", 10)
    assert getattr(tracker._tracker, "cmc", None) is None
    walkers = [(RED, 60.0, 150.0, 4.0), (BLUE, 420.0, 250.0, -4.0)]
    given = follow(tracker, walkers, 40)
    assert [len(numbers) for numbers in given.values()] == [1, 1]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_walker_behind_another_ends_up_as_one_object(name: str) -> None:
    """Tracker and linker together: the slower one is hidden for more than half a second."""
    walkers = [(RED, 60.0, 150.0, 5.0), (BLUE, 150.0, 155.0, 3.5)]
    tracker = open_tracker(name, "", 10)
    linker = Linker(tracker.max_distance)
    found: list[LinkedTrack] = []
    for number, (image, objects, _) in enumerate(scene(walkers, 82)):
        numbers, looks = tracker.update(objects, image)
        found += linker.add(Frame(number, number / 10, image), objects, numbers, looks)
    found += linker.finish()
    assert len(found) == 2
    for one in found:
        speed = np.polyfit(one.seconds, one.box[:, 0].astype(float), 1)[0]
        assert min(abs(speed - 50), abs(speed - 35)) < 3
        assert kind_of(one.kind, one.score) == "pedestrian"


# -- manners ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRACKERS)
def test_nothing_is_written_said_or_changed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    packages = Path(np.__file__).parents[1]
    before = {path.name for path in packages.iterdir()}
    # Without this, onnxruntime reports its use, and keeps an identifier in the home folder.
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    environment, threads = dict(os.environ), torch.get_num_threads()
    reid = str(DATA / OSNET) if (DATA / OSNET).exists() and find_spec("onnxruntime") else ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        follow(open_tracker(name, reid, 10), [(RED, 60.0, 150.0, 4.0)], 5)
    assert list(tmp_path.iterdir()) == []
    assert {path.name for path in packages.iterdir()} == before
    assert dict(os.environ) == environment
    assert torch.get_num_threads() == threads
    assert capfd.readouterr() == ("", "")


def test_neither_package_is_imported_before_it_is_used() -> None:
    names = {"boxmot", "trackers", "supervision", "cv2", "onnxruntime", "torch"}
    code = (
        "import sys, collabteam.video.tracking, collabteam.video.linking\n"
        f"print(' '.join({names!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def message(name: str, reid: str = "", rate: float = 10.0) -> str:
    with pytest.raises(UserError) as caught:
        open_tracker(name, reid, rate)
    text = str(caught.value)
    assert "\n" not in text
    return text


@needs_boxmot
def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    text = message("strongsrt")
    assert "tracker=strongsrt" in text
    for name in ("sort", "strongsort", "bytetrack", "botsort"):
        assert name in text.replace(",", "").split()
    assert "sam2mot" not in text  # needs outlines
    assert "expected one of" in message("")
    assert "expected one of" in message("sam2mot")


def test_a_missing_package_is_answered_with_its_installation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert "pip install 'collabteam[video]'" in message("strongsort")
    assert "AGPL-3.0" in message("strongsort")
    assert "pip install 'collabteam[footage]'" in message("sort")


@needs_trackers
def test_wrong_weights_are_answered_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is no file" in message("sort", str(tmp_path / "absent.onnx"))
    assert "is no file" in message("sort", "osnet_x0_25_msmt17.pt")  # boxmot would download it
    assert "is no file" in message("sort", str(tmp_path))
    other = tmp_path / "weights.pth"
    other.write_bytes(b"")
    assert ".onnx or .pt" in message("sort", str(other))
    onnx = tmp_path / "weights.onnx"
    onnx.write_text("not a network")
    with monkeypatch.context() as patch:
        patch.setattr(appearance, "find_spec", lambda name: None)
        assert "needs onnxruntime: pip install 'collabteam[video]'" in message("sort", str(onnx))
        patch.setattr(tracking, "find_spec", lambda name: name if name == "trackers" else None)
        torch_weights = tmp_path / "osnet_x0_25.pt"
        torch_weights.write_bytes(b"nothing")
        assert "needs boxmot" in message("sort", str(torch_weights))
    if find_spec("onnxruntime"):
        assert "expected a network in ONNX format" in message("sort", str(onnx))


@needs_boxmot
def test_wrong_checkpoints_are_answered_in_one_line(tmp_path: Path) -> None:
    for name in ("osnet_x0_25.pt", "something.pt"):
        (tmp_path / name).write_bytes(b"nothing")
        assert "expected a checkpoint" in message("strongsort", str(tmp_path / name))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_frame_rate_is_a_number(rate: float) -> None:
    assert "above 0" in message("strongsort", rate=rate)


# -- looks -----------------------------------------------------------------------------------------


def test_histograms_tell_colours_apart() -> None:
    histograms = ColourHistograms()
    walkers = [(RED, 60.0, 150.0, 4.0), (BLUE, 420.0, 150.0, -4.0), (GREEN, 240.0, 250.0, 0.0)]
    (first, objects, who), *_, (last, later, who_later) = scene(walkers, 20)
    one, other = histograms.embed(first, objects.box), histograms.embed(last, later.box)
    assert one.shape == (3, 432)
    assert one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)
    distance = 1 - one @ other.T
    same = np.equal.outer(who, who_later)
    assert distance[same].max() < 0.5 * histograms.max_distance
    assert distance[~same].min() > histograms.max_distance


def test_histograms_change_little_with_the_light() -> None:
    (image, objects, _), *_ = scene([(RED, 60.0, 150.0, 4.0)], 1)
    darker = (image * 0.97).astype(np.uint8)
    histograms = ColourHistograms()
    one, other = histograms.embed(image, objects.box), histograms.embed(darker, objects.box)
    assert 1 - float((one @ other.T)[0, 0]) < histograms.max_distance


def test_histograms_of_any_box() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    boxes = [(-50, -50, 300, 300), (70, 70, 90, 90), (10, 10, 10, 10), (3.2, 4.1, 4.3, 5.2)]
    looks = ColourHistograms().embed(image, np.array(boxes, np.float32))
    np.testing.assert_allclose(np.linalg.norm(looks, axis=1), 1, atol=1e-6)
    for colour in (0, 255):
        plain = np.full((50, 60, 3), colour, np.uint8)
        looks = ColourHistograms().embed(plain, np.array(boxes, np.float32))
        np.testing.assert_allclose(looks @ looks.T, 1, atol=1e-6)
    assert len(ColourHistograms().embed(image, np.zeros((0, 4), np.float32))) == 0


def test_unit_vectors() -> None:
    vectors = np.array([[3, 4], [0, 0], [np.nan, 2], [np.inf, 0]], np.float32)
    half = 0.5**0.5
    np.testing.assert_allclose(unit(vectors), [[0.6, 0.8], [half, half], [0, 1], [half, half]])


def test_a_network_knows_people_again() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    network = OnnxNetwork(data(OSNET))
    truth = np.loadtxt(data("videos/vtest.gt.txt"), delimiter=",")
    frames = read_frames(21)
    looks, who = [], []
    for frame in (0, 10, 20):
        rows = truth[truth[:, 0] == frame + 1]
        box = rows[:, 2:6].astype(np.float32)
        box[:, 2:] += box[:, :2]
        looks.append(network.embed(frames[frame], box))
        who += rows[:, 1].tolist()
    vectors = np.concatenate(looks)
    assert vectors.shape[1] == 512
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    distance, same = 1 - vectors @ vectors.T, np.equal.outer(who, who)
    assert np.median(distance[same]) < network.max_distance < np.median(distance[~same])
    assert len(network.embed(frames[0], np.zeros((0, 4), np.float32))) == 0
    rows = truth[truth[:, 0] == 21]
    box = rows[:, 2:6].astype(np.float32)
    box[:, 2:] += box[:, :2]
    network._batch = 2  # as if it took no other number at once
    np.testing.assert_allclose(network.embed(frames[20], box), looks[2], atol=1e-5)
    beyond = np.array([[-9, -9, -5, -5], [5, 5, 5, 5], [760, 570, 900, 900]], np.float32)
    assert np.isfinite(network.embed(frames[0], beyond)).all()


@needs_boxmot
def test_checkpoints_are_read_by_boxmot(tmp_path: Path) -> None:
    import torch
    from boxmot.reid.core.registry import ReIDModelRegistry

    torch.manual_seed(0)
    network = ReIDModelRegistry.build_model(
        "osnet_x0_25", "osnet_x0_25.pt", num_classes=2, pretrained=False, use_gpu=False
    )
    file = tmp_path / "osnet_x0_25_untrained.pt"
    torch.save(network.state_dict(), file)
    before = dict(os.environ)
    tracker = open_tracker("strongsort", str(file), 10)
    (image, objects, _), *_ = scene([(RED, 60.0, 150.0, 4.0), (BLUE, 420.0, 150.0, -4.0)], 1)
    _, looks = tracker.update(objects, image)
    assert looks.shape == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(looks, axis=1), 1, atol=1e-5)
    assert dict(os.environ) == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


# -- real people -----------------------------------------------------------------------------------


def read_frames(count: int) -> list[NDArray[np.uint8]]:
    av = pytest.importorskip("av")
    found: list[NDArray[np.uint8]] = []
    with av.open(str(data("videos/vtest.avi"))) as container:
        for picture in container.decode(video=0):
            found.append(picture.to_ndarray(format="rgb24"))
            if len(found) == count:
                break
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_real_people_are_one_object_each(name: str) -> None:
    """True boxes of PETS2009 with errors such as a detector's: 60 frames, 7 persons."""
    first, count = 220, 60
    frames = read_frames(first + count)[first:]
    truth = np.loadtxt(data("videos/vtest.gt.txt"), delimiter=",")
    truth[:, 4:6] += truth[:, 2:4]
    rng = np.random.default_rng(0)
    tracker = open_tracker(name, "", 10)
    linker = Linker(tracker.max_distance)
    found: list[LinkedTrack] = []
    whose: dict[tuple[int, float], int] = {}
    for number, image in enumerate(frames):
        rows = truth[truth[:, 0] == first + number + 1]
        seen = rng.random(len(rows)) > 0.05
        seen &= (rows[:, 1] != 1) | (number < 30) | (number >= 38)  # missed for 0.8 s
        box = rows[:, 2:6].astype(np.float32)
        nearer = box[:, None, 3] < box[None, :, 3]
        covered = np.where(nearer, intersection(box, box), 0).max(axis=1) / area(box)
        rows = rows[seen & (covered < 0.5)]
        box = rows[:, 2:6] + rng.normal(0, 1.5, (len(rows), 4))
        objects = Objects.of([(*corners, 0.7, "person") for corners in box.tolist()])
        for corners, person in zip(objects.box, rows[:, 1], strict=True):
            whose[number, float(corners[0])] = int(person)
        numbers, looks = tracker.update(objects, image)
        found += linker.add(Frame(number, number / 10, image), objects, numbers, looks)
    found += linker.finish()
    persons = []
    for one in found:
        boxes = zip(one.frame.tolist(), one.box[:, 0].tolist(), strict=True)
        of_it = {whose[box] for box in boxes}
        assert len(of_it) == 1 or len(one) < 5
        persons += [*of_it] if len(one) >= 5 else []
    assert sorted(persons) == sorted(set(persons))
    assert len(persons) == 7
