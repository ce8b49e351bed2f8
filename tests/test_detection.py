"""Detectors: what they find, what they refuse in one line, and that they leave no trace."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import models

from collabteam.errors import UserError
from collabteam.settings import DetectorConfig
from collabteam.video.detection import Detector, open_detector
from collabteam.video.objects import Objects, iou
from collabteam.video.riders import PARTS, fuse

REPOSITORY = Path(__file__).parents[1]
DATA = Path(os.environ.get("COLLABTEAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
SSD = "ssdlite320_mobilenet_v3_large"
RCNN = "fasterrcnn_mobilenet_v3_large_320_fpn"


def real(name: str) -> Path:
    """A path of the development data, or a skip."""
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is absent: COLLABTEAM_TEST_DATA names the folder with it")
    return DATA / name


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def refused(config: DetectorConfig, *expected: str, wanted: Sequence[str] = PARTS) -> str:
    """The line of a refusal."""
    with pytest.raises(UserError) as caught:
        open_detector(config, wanted)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600 or "it knows" in line
    for text in expected:
        assert text in line
    return line


def same(one: Objects, other: Objects) -> bool:
    return (
        one.kind.tolist() == other.kind.tolist()
        and np.allclose(one.box, other.box, atol=1e-2)
        and np.allclose(one.score, other.score, atol=1e-4)
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_another_kind_of_detector_is_refused() -> None:
    refused(DetectorConfig(kind="detr"), "detector.kind=detr", "yolo, torchvision")


# -- torchvision -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_ssd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that nobody has trained, with a bias to see persons and two-wheelers."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ssd") / "ssd.pth"
    model = models.get_model(SSD, weights=None, weights_backbone=None)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = 1.0
        # Normalised to noise, or nothing of an image would come through.
        model.head([*model.backbone(torch.rand(4, 3, 320, 320)).values()])
        for branch in model.head.classification_head.module_list:
            branch[-1].bias.view(-1, 91)[:, [1, 2, 4]] += 4
    torch.save(model.state_dict(), path)
    return path


def ssd(path: Path, confidence: float = 0.05) -> DetectorConfig:
    return DetectorConfig("torchvision", str(path), SSD, image_size=320, confidence=confidence)


def test_torchvision_finds_what_is_wanted_within_each_frame(random_ssd: Path) -> None:
    detector = open_detector(ssd(random_ssd), PARTS)
    assert detector.names[:4] == ("person", "bicycle", "car", "motorcycle")
    assert len(detector.names) == 80
    images = [noise(120, 160), noise(90, 70, 1), noise(120, 160, 2)]
    images[2].flags.writeable = False
    found = detector.detect(images)
    assert len(found) == 3
    assert sum(map(len, found)) > 0
    for image, objects in zip(images, found, strict=True):
        height, width = image.shape[:2]
        assert objects.box.dtype == objects.score.dtype == np.float32
        assert objects.box.shape == (len(objects), 4)
        assert (objects.box >= 0).all()
        assert (objects.box <= [width, height, width, height]).all()
        assert (objects.box[:, :2] < objects.box[:, 2:]).all()
        assert (objects.score >= 0.05).all()
        assert (objects.score <= 1).all()
        assert set(objects.kind) <= set(PARTS)
    assert detector.detect([]) == []


def test_what_is_found_does_not_depend_on_the_other_frames(random_ssd: Path) -> None:
    detector = open_detector(ssd(random_ssd), PARTS)
    images = [noise(120, 160), noise(200, 70, 1), noise(120, 160, 2)]
    together = detector.detect(images)
    assert not same(together[0], together[2])
    assert all(same(detector.detect([x])[0], y) for x, y in zip(images, together, strict=True))


def test_fewer_kinds_and_a_higher_confidence_find_a_part(random_ssd: Path) -> None:
    image = noise(120, 160)
    everything = open_detector(ssd(random_ssd, 0.0), PARTS).detect([image])[0]
    persons = open_detector(ssd(random_ssd, 0.0), ["person"]).detect([image])[0]
    assert 0 < len(persons) < len(everything)
    assert same(persons, everything[everything.kind == "person"])
    scores = np.unique(everything.score)
    least = float(scores[len(scores) // 2 :][:2].mean())
    surer = open_detector(ssd(random_ssd, least), PARTS).detect([image])[0]
    assert 0 < len(surer) < len(everything)
    assert same(surer, everything[everything.score >= least])
    assert len(open_detector(ssd(random_ssd, 1.0), PARTS).detect([image])[0]) == 0


def test_a_detector_can_be_sent_to_another_process(random_ssd: Path) -> None:
    detector = open_detector(ssd(random_ssd), PARTS)
    sent: Detector = pickle.loads(pickle.dumps(detector))
    assert sent.names == detector.names
    assert same(sent.detect([noise(120, 160)])[0], detector.detect([noise(120, 160)])[0])


def test_torchvision_scales_the_longer_side(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.get_model(RCNN, weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "rcnn.pth")
    config = DetectorConfig("torchvision", str(tmp_path / "rcnn.pth"), RCNN, 256, 0.0)
    detector: Any = open_detector(config, PARTS)
    found = detector.detect([noise(60, 120)])[0]
    assert (found.box <= [120, 60, 120, 60]).all()
    transform = detector._network._model.transform
    scaled, _ = transform([torch.zeros(3, 60, 120)])
    assert scaled.image_sizes == [(128, 256)]


def test_official_weights_count_no_batches(random_ssd: Path, tmp_path: Path) -> None:
    """Their normalisations are frozen, so a model without weights has entries that they lack."""
    state = torch.load(random_ssd, weights_only=True)
    frozen = {name: value for name, value in state.items() if "num_batches" not in name}
    assert len(frozen) < len(state)
    torch.save(frozen, tmp_path / "frozen.pth")
    image = noise(120, 160)
    detectors = [open_detector(ssd(path), PARTS) for path in (random_ssd, tmp_path / "frozen.pth")]
    assert same(*(detector.detect([image])[0] for detector in detectors))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", RCNN])
def test_a_model_is_built_as_torchvision_builds_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weights, torchvision freezes normalisations and changes their eps: sums must agree."""
    torch.manual_seed(0)
    state = models.get_model(name, weights=None, weights_backbone=None).state_dict()
    for key in [key for key in state if key.endswith("running_var")]:
        # So small that an eps shows, and made good for by the weight.
        state[key].uniform_(0.005, 0.01)
        state[key.replace("running_var", "weight")].fill_(0.08)
    state = {key: value for key, value in state.items() if "num_batches" not in key}
    weights = models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *args, **settings: state)
    theirs = models.get_model(name, weights=weights).eval()
    torch.save(state, tmp_path / "state.pth")
    config = DetectorConfig("torchvision", str(tmp_path / "state.pth"), name, 96, 0.0)
    ours: Any = open_detector(config, PARTS)
    image = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        expected, got = (model.backbone(image) for model in (theirs, ours._network._model))
    for key, value in expected.items():
        assert value.std() > 0
        torch.testing.assert_close(got[key], value)


def test_torchvision_refuses_in_one_line(random_ssd: Path, tmp_path: Path) -> None:
    refused(DetectorConfig("torchvision", "x.pth", "yolov8n"), "detector.model=yolov8n", SSD)
    line = refused(
        DetectorConfig("torchvision", "none.pth", SSD), "detector.weights=none.pth", "no such file"
    )
    assert str(Path("none.pth").resolve()) in line
    assert re.search(r"https://download\.pytorch\.org/models/ssdlite320\S+\.pth", line)
    refused(ssd(tmp_path), "no such file")  # a folder
    line = refused(
        ssd(random_ssd), "cannot find bycicle, dog house;", wanted=["bycicle", "dog house"]
    )
    assert "person, bicycle, car" in line
    assert "background" not in line


def test_torchvision_refuses_weights_that_are_none_or_others(
    random_ssd: Path, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    for content in (b"", b"no weights at all", random_ssd.read_bytes()[:5000]):
        path.write_bytes(content)
        refused(ssd(path), f"detector.weights={path}", "expected a state dict")
    for thing in ([1, 2], {"model": {"a": torch.zeros(1)}}, torch.zeros(3), {"epoch": 3}):
        torch.save(thing, path)
        refused(ssd(path), "expected a state dict")
    # A pickle that would run code is not run.
    torch.save({"x": _Harmful(tmp_path / "harm")}, path)
    refused(ssd(path), "expected a state dict")
    assert not (tmp_path / "harm").exists()

    refused(
        DetectorConfig("torchvision", str(random_ssd), RCNN),
        f"holds another model than detector.model={RCNN}",
    )
    fewer = models.get_model(SSD, weights=None, weights_backbone=None, num_classes=4)
    torch.save(fewer.state_dict(), path)
    refused(ssd(path), "91 classes", "another number")


class _Harmful:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


# -- ultralytics -----------------------------------------------------------------------------------

WITH_YOLO = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="the extra 'video' is not installed"
)


def yolo(path: Path | str, image_size: int = 640, confidence: float = 0.3) -> DetectorConfig:
    return DetectorConfig("yolo", str(path), "", image_size, confidence)


def onnx(task: str = "detect", names: str = "{0: 'person', 1: 'bicycle'}") -> bytes:
    """A network in ONNX that sees the same boxes in any picture of 64x64, one of them twice.

    Written by hand, for what writes such files is no dependency; the numbers are ONNX's fields.
    """

    def field(number: int, content: bytes | str | int) -> bytes:
        if isinstance(content, int):
            return bytes([number << 3]) + varint(content)
        data = content.encode() if isinstance(content, str) else content
        return bytes([number << 3 | 2]) + varint(len(data)) + data

    def varint(value: int) -> bytes:
        low = b""
        while value > 127:
            low += bytes([value & 127 | 128])
            value >>= 7
        return low + bytes([value])

    def tensor(name: str, *sizes: int) -> bytes:
        shape = b"".join(field(1, field(1, size)) for size in sizes)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    # Middle, width and height, then a score per kind; a column for each box.
    boxes = np.array(
        [
            [32, 32, 16, 8, 0.9, 0.1],
            [10, 20, 8, 6, 0.2, 0.8],
            [32, 32, 15, 8, 0.5, 0.0],
            [50, 4, 10, 4, 0.7, 0.0],
        ],
        "<f4",
    ).T
    values = b"".join(field(1, size) for size in (1, *boxes.shape))
    values += field(2, 1) + field(8, "boxes") + field(9, boxes.tobytes())
    node = field(1, "boxes") + field(2, "output0") + field(4, "Identity")
    graph = field(1, node) + field(2, "graph") + field(5, values)
    graph += field(11, tensor("images", 1, 3, 64, 64))
    graph += field(12, tensor("output0", 1, *boxes.shape))
    said = {"task": task, "names": names, "stride": "32", "batch": "1", "imgsz": "[64, 64]"}
    properties = b"".join(field(14, field(1, k) + field(2, v)) for k, v in said.items())
    return field(1, 8) + field(7, graph) + field(8, field(2, 13)) + properties


@WITH_YOLO
def test_yolo_reads_onnx_and_gives_boxes_in_pixels_of_the_frame(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "n.onnx").write_bytes(onnx())
    detector = open_detector(yolo(tmp_path / "n.onnx"), ["person", "bicycle"])
    assert detector.names == ("person", "bicycle")
    # 128x64 is halved and set in the middle of 64x64, with one box on the rim above it; 64x64 is
    # taken as it is.
    wide, square, again = detector.detect([noise(64, 128), noise(64, 64), noise(64, 128, 1)])
    assert wide.kind.tolist() == ["person", "bicycle"]
    assert square.kind.tolist() == ["person", "bicycle", "person"]
    np.testing.assert_allclose(wide.box, [[48, 24, 80, 40], [12, 2, 28, 14]])
    np.testing.assert_allclose(wide.score, [0.9, 0.8])
    np.testing.assert_allclose(square.box, [[24, 28, 40, 36], [6, 17, 14, 23], [45, 2, 55, 6]])
    assert same(wide, again)
    assert wide.box.dtype == wide.score.dtype == np.float32
    only = open_detector(yolo(tmp_path / "n.onnx"), ["bicycle"]).detect([noise(64, 64)])[0]
    assert only.kind.tolist() == ["bicycle"]
    refused(yolo(tmp_path / "n.onnx"), "cannot find motorcycle;", "it knows person, bicycle")


@WITH_YOLO
def test_yolo_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(yolo("yolov8n.pt"), "detector.weights=yolov8n.pt: no such file: ", "/releases")
    assert f"{tmp_path.resolve()}/yolov8n.pt" in refused(yolo("yolov8n.pt"))
    refused(yolo("yolov8n"), "expected a file that ends with .pt, .onnx, .tflite")
    refused(yolo("https://ultralytics.com/yolov8n.pt"), "no such file")
    for content in (b"", b"no weights", b"PK\x03\x04 no zip"):
        # A name that ultralytics knows: it would delete the file and load another.
        for name in ("yolov8n.pt", "own.onnx"):
            Path(name).write_bytes(content)
            refused(yolo(name), f"detector.weights={name}: ultralytics cannot use it: ")
            assert Path(name).read_bytes() == content
    torch.save({"x": _Harmful(tmp_path / "harm")}, "own.pt")
    refused(yolo("own.pt"), "ultralytics cannot use it")
    assert not Path("harm").exists()
    Path("a.onnx").write_bytes(onnx(task="classify"))
    refused(yolo("a.onnx"), "expected weights that find boxes", "got classify")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.onnx", "own.onnx", "own.pt", "yolov8n.pt"
    ]  # fmt: skip
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("lacking", "file", "expected"),
    [
        ("ultralytics", "n.pt", "pip install 'collabteam[video]'"),
        ("onnxruntime", "n.onnx", "pip install onnxruntime"),
        ("ai_edge_litert", "n.tflite", "pip install ai-edge-litert"),
    ],
)
def test_a_lacking_package_is_named(
    lacking: str, file: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == lacking else name)
    (tmp_path / file).touch()
    refused(yolo(tmp_path / file), expected)


@WITH_YOLO
@pytest.mark.slow
def test_yolo_finds_the_street(tmp_path: Path) -> None:
    weights, video = real("weights/yolov8n.pt"), real("videos/street3.mp4")
    av = pytest.importorskip("av")
    frames = av.open(str(video)).decode(video=0)
    images = [next(frames).to_ndarray(format="rgb24") for _ in range(2)]
    detector = open_detector(yolo(weights, 768), PARTS)
    assert detector.names[:4] == ("person", "bicycle", "car", "motorcycle")
    assert len(detector.names) == 80
    found = detector.detect([*images, images[0][:300, :500]])
    assert all(same(detector.detect([x])[0], y) for x, y in zip(images, found, strict=False))
    first = found[0]
    assert sorted(set(first.kind)) == ["bicycle", "person"]  # and no car: nobody asked for it
    walkers = np.array([[913, 190, 1055, 513], [1180, 184, 1279, 553]], np.float32)
    assert (iou(walkers, first.box[first.kind == "person"]).max(axis=1) > 0.8).all()
    rider = np.array([[733, 164, 812, 350]], np.float32)
    riders = fuse(first)
    assert iou(rider, riders.box[riders.kind == "cyclist"]).max() > 0.8
    # Colours are in order: from a file, ultralytics sees the same.
    from ultralytics.models import YOLO

    Image.fromarray(images[0]).save(tmp_path / "frame.png")
    settings = {"imgsz": 768, "conf": 0.3, "classes": [0, 1, 3], "verbose": False}
    boxes = YOLO(str(weights)).predict(tmp_path / "frame.png", **settings)[0].boxes
    np.testing.assert_allclose(first.box, boxes.xyxy, atol=1e-2)
    np.testing.assert_allclose(first.score, boxes.conf, atol=1e-4)


_QUIET = """
import json, os, socket, sys
import numpy as np, torch
from PIL import Image
import collabteam.video
torch.set_num_threads(2)
def no_network(*args, **settings):
    print("NETWORK", args, file=sys.stderr)
    raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = no_network
def state():
    own = torch.save, Image.open
    return dict(os.environ), torch.get_num_threads(), own, np.get_printoptions()
before = state()
from collabteam.settings import DetectorConfig
from collabteam.video.detection import open_detector
assert "ultralytics" not in sys.modules
for weights in sys.argv[1:]:
    detector = open_detector(DetectorConfig("yolo", weights, "", 320, 0.3), ["person"])
    print([one == other for one, other in zip(before, state())])
    for seed in range(2):
        image = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)
        detector.detect([image, image])
    print([one == other for one, other in zip(before, state())])
from ultralytics.utils import LOCAL_RANK, RANK
print(RANK, LOCAL_RANK)
"""


@WITH_YOLO
@pytest.mark.slow
def test_yolo_leaves_no_trace(tmp_path: Path) -> None:
    """Offline, quiet, nothing written, the process as it was, no launcher's variable seen."""
    work, home, temporary = folders = [tmp_path / name for name in ("work", "home", "tmp")]
    for folder in folders:
        folder.mkdir()
    weights = [path for path in [DATA / "weights" / "yolov8n.pt"] if path.exists()]
    if importlib.util.find_spec("onnxruntime"):
        weights.append(tmp_path / "n.onnx")
        weights[-1].write_bytes(onnx())
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "ORT_", "PYTEST_"))}
    own = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY)}
    own |= {"WORLD_SIZE": "8", "RANK": "3", "LOCAL_RANK": "3"}
    done = subprocess.run(
        [sys.executable, "-c", _QUIET, *map(str, weights)],
        cwd=work,
        env={**kept, **own, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout == "[True, True, True, True]\n" * 2 * len(weights) + "-1 -1\n"
    for folder in folders:
        assert [path for path in folder.rglob("*") if path.is_file()] == []
