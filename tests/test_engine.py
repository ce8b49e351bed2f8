"""Engines give the team's verdicts, whatever computes them, and one that does not is refused."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from collabteam.errors import UserError
from collabteam.features.backbones import Backbone
from collabteam.features.devices import Device
from collabteam.features.images import Transform
from collabteam.learners.base import SharedSettings
from collabteam.learners.teams import load_team, open_learner
from collabteam.settings import DataConfig, TeamConfig, TrainerConfig
from collabteam.storage.layout import RoundFiles
from collabteam.team import engines
from collabteam.team.engines import Check, OpenVino, check_engine, disagreement
from collabteam.team.team import Engine, OneOfMany, OneVsRest, Voter
from collabteam.team.votes.consensus import Consensus

POLICY = Consensus()

CLASSES = ["a", "b", "c"]
SMALL = TeamConfig(backbone="test_resnet", attention="none")
ONE = TrainerConfig(accelerator="cpu", precision="fp32", threads=1)

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None or importlib.util.find_spec("nncf") is None,
    reason="the extra 'openvino' is not installed",
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def open_engine(
    folder: Path,
    kind: str,
    precision: str,
    trainer: TrainerConfig,
    calibration: Callable[[int], list[bytes]],
) -> Engine:
    files = RoundFiles(folder)
    load = partial(load_team, files)
    return engines.open_engine(load, files, kind, precision, trainer, calibration)


class Drawer:
    """Encoded crops by row: smooth noise of its own shape each."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(8)
        self.crops = [_encoded(rng) for _ in range(count)]
        self.asked: list[int] = []

    def images(self, rows: NDArray[np.int64]) -> list[bytes]:
        self.asked.append(len(rows))
        return [self.crops[row] for row in rows]

    def first(self, count: int) -> list[bytes]:
        return self.crops[:count]


def _encoded(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    size = (int(rng.integers(20, 60)), int(rng.integers(20, 60)))
    out = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def _decided(config: TeamConfig, side: int, seed: int, outputs: int = 2) -> nn.Module:
    """A network whose votes are spread over 0 to 1, as a trained one's are."""
    torch.manual_seed(seed)
    network = Backbone.of(config, side).network(outputs).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
    noise = torch.nn.functional.interpolate(torch.randn(64, 3, 4, 4), side)
    with torch.no_grad():
        for _ in range(20):
            network(noise)
        head = network.eval().fc
        assert isinstance(head, nn.Linear)
        gap = network(noise) - network(noise)[:, :1]
        head.weight *= 3 / gap[:, 1:].std()
        shift = -3 * gap.mean(dim=0) / gap[:, 1:].std()
        head.bias.copy_(head.bias * 0 + shift)
    return network


def _round(
    folder: Path, config: TeamConfig, side: int, voters: int = 1, learner: str = "paper"
) -> Path:
    """A finished round, as far as its team is concerned."""
    folder.mkdir(parents=True)
    voting = {name: list(range(voters)) for name in CLASSES}
    for fold in range(voters):
        _save(folder, config, side, fold, learner)
    settings = {
        "team": asdict(config),
        "data": {"image_size": side},
        "learner": {"name": learner},
    }
    record = {"classes": CLASSES, "voting": voting, "settings": settings}
    (folder / "round.json").write_text(json.dumps(record))
    return folder


def _save(
    folder: Path, config: TeamConfig, side: int, fold: int, learner: str = "paper", seed: int = 0
) -> None:
    made = open_learner({"name": learner}, SharedSettings(config, DataConfig(image_size=side)))
    voters: list[Voter]
    if learner == "paper":
        seeds = [seed + 10 * number + fold for number in range(len(CLASSES))]
        voters = [OneVsRest(_decided(config, side, one), [n]) for n, one in enumerate(seeds)]
    else:
        network = _decided(config, side, seed + fold, len(CLASSES) + 1)
        voters = [OneOfMany(network, range(len(CLASSES)))]
    made.save(voters, RoundFiles(folder), CLASSES, fold, Transform(side))


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    return Drawer(120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _round(tmp_path_factory.mktemp("camera") / "round-0", SMALL, 32)


def _prob(engine: Engine, drawer: Drawer, count: int = 120, batch: int = 64) -> NDArray[np.float32]:
    return np.concatenate(list(engine.score_rows(drawer, np.arange(count), batch)))


def _none(count: int) -> list[bytes]:
    raise AssertionError(f"{count} crops asked for")


# -- agreement -------------------------------------------------------------------------------------


def test_torch_is_an_engine(folder: Path, drawer: Drawer) -> None:
    engine = open_engine(folder, "torch", "fp32", ONE, _none)
    assert (engine.kind, engine.precision) == ("torch", "fp32")
    assert (engine.classes, engine.transform) == (CLASSES, Transform(32))
    np.testing.assert_array_equal(
        _prob(engine, drawer), _prob(load_team(RoundFiles(folder), ONE), drawer)
    )
    assert open_engine(folder, "torch", "auto", ONE, _none).precision == "fp32"
    assert open_engine(folder, "torch", "bf16", ONE, _none).precision == "bf16"
    with pytest.raises(UserError, match="precision=int8 needs engine=openvino"):
        open_engine(folder, "torch", "int8", ONE, _none)


@needs_openvino
def test_openvino_in_fp32_is_torch_in_fp32(folder: Path, drawer: Drawer) -> None:
    engine = open_engine(folder, "openvino", "fp32", ONE, _none)
    assert (engine.kind, engine.precision) == ("openvino", "fp32")
    assert (engine.classes, engine.transform) == (CLASSES, Transform(32))
    team = load_team(RoundFiles(folder), ONE)
    exact = _prob(team, drawer)
    assert 0.1 < (exact > 0.5).mean() < 0.9
    assert exact.min() < 0.1
    assert exact.max() > 0.9
    prob = _prob(engine, drawer)
    assert prob.dtype == np.float32
    np.testing.assert_allclose(prob, exact, atol=1e-4)
    found = check_engine(engine, team, drawer, np.arange(120), 50, POLICY)
    assert (found.crops, found.disagreement) == (120, 0.0)
    assert found.largest_difference < 1e-4


@needs_openvino
def test_a_crop_gets_the_same_whatever_else_is_in_its_batch(folder: Path, drawer: Drawer) -> None:
    engine = open_engine(folder, "openvino", "fp32", ONE, _none)
    whole = _prob(engine, drawer)
    for batch in (1, 7, 33, 120, 500):
        np.testing.assert_array_equal(_prob(engine, drawer, 40, batch), whole[:40])


@needs_openvino
def test_no_crop_and_one_crop(folder: Path, drawer: Drawer) -> None:
    engine = open_engine(folder, "openvino", "fp32", ONE, _none)
    assert _prob(engine, drawer, 1).shape == (1, 3)
    assert list(engine.score_rows(drawer, np.arange(0), 64)) == []
    assert engine.score(torch.zeros(0, 3, 32, 32, dtype=torch.uint8)).shape == (0, 3)
    assert check_engine(engine, engine, drawer, np.arange(0), 64, POLICY) == Check(0, 0.0, 0.0)


@needs_openvino
@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_coarse_arithmetic_leaves_the_verdicts(
    folder: Path, drawer: Drawer, precision: str
) -> None:
    any_precision = TrainerConfig(accelerator="cpu", threads=1)
    engine = open_engine(folder, "openvino", precision, any_precision, drawer.first)
    assert engine.precision in (("int8",) if precision == "int8" else ("bf16", "fp32"))
    found = check_engine(
        engine, load_team(RoundFiles(folder), ONE), drawer, np.arange(120), 64, POLICY
    )
    assert found.disagreement <= 0.005  # none, of 120
    if precision == "auto":  # int8 leaves close calls to fp32, on some processors all of these
        assert (found.largest_difference > 1e-4) == (engine.precision != "fp32")


@needs_openvino
def test_close_calls_are_settled_in_fp32(folder: Path, drawer: Drawer) -> None:
    engine = open_engine(folder, "openvino", "int8", ONE, drawer.first)
    assert isinstance(engine, OpenVino)
    engine.margins = [0.0] * len(engine.margins)
    coarse = _prob(engine, drawer)
    engine.margins = [0.5] * len(engine.margins)
    exact = _prob(load_team(RoundFiles(folder), ONE), drawer)
    np.testing.assert_allclose(_prob(engine, drawer), exact, atol=1e-4)
    assert np.abs(coarse - exact).max() > 1e-3


@needs_openvino
@pytest.mark.slow
def test_the_branch_of_the_paper_in_int8(tmp_path: Path, drawer: Drawer) -> None:
    folder = _round(tmp_path / "round-0", TeamConfig(), 32)
    engine = open_engine(folder, "openvino", "int8", ONE, drawer.first)
    network = next((folder / "openvino").glob("int8-*/network.xml")).read_text()
    # The convolutions of its eight blocks; the attention between them stays as it is.
    assert network.count('type="FakeQuantize"') >= 3 * 16
    assert not any(".se." in line and "FakeQuantize" in line for line in network.splitlines())
    found = check_engine(
        engine, load_team(RoundFiles(folder), ONE), drawer, np.arange(60), 32, POLICY
    )
    assert found.disagreement == 0


@needs_openvino
def test_the_mean_of_several_networks_votes(tmp_path: Path, drawer: Drawer) -> None:
    folder = _round(tmp_path / "round-0", SMALL, 32, voters=2)
    team = load_team(RoundFiles(folder), ONE)
    assert [voter.columns for voter in team.voters] == [(0,), (0,), (1,), (1,), (2,), (2,)]
    exact = _prob(team, drawer)
    prob = _prob(open_engine(folder, "openvino", "fp32", ONE, _none), drawer)
    np.testing.assert_allclose(prob, exact, atol=1e-4)


@needs_openvino
def test_one_network_for_all_classes_is_computed_once(tmp_path: Path, drawer: Drawer) -> None:
    folder = _round(tmp_path / "round-0", SMALL, 32, voters=2, learner="softmax")
    files = sorted(file.name for file in (folder / "branches").iterdir())
    assert files == ["fold-0.safetensors", "fold-1.safetensors"]
    team = load_team(RoundFiles(folder), ONE)
    assert [voter.columns for voter in team.voters] == [(0, 1, 2), (0, 1, 2)]
    exact = _prob(team, drawer)
    assert (exact.sum(axis=1) < 1).all()  # the rest is that of none of the classes
    prob = _prob(open_engine(folder, "openvino", "fp32", ONE, _none), drawer)
    np.testing.assert_allclose(prob, exact, atol=1e-4)


# -- the check -------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", ["mirror", "zoom"])
def test_every_engine_sees_the_same_views(views: str, tmp_path: Path, drawer: Drawer) -> None:
    plain = _prob(load_team(RoundFiles(_round(tmp_path / "plain", SMALL, 32)), ONE), drawer)
    folder = _round(tmp_path / views, replace(SMALL, views=views), 32)
    by_torch = _prob(open_engine(folder, "torch", "fp32", ONE, _none), drawer)
    by_openvino = _prob(open_engine(folder, "openvino", "fp32", ONE, _none), drawer)
    np.testing.assert_allclose(by_openvino, by_torch, atol=1e-3)
    assert np.abs(by_torch - plain).max() > 0.01


def test_disagreement_is_the_share_of_other_verdicts() -> None:
    reference = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.1], [0.2, 0.7]])
    assert disagreement(reference, reference, POLICY) == 0
    assert disagreement(reference, reference[:, ::-1], POLICY) == 0.5  # both abstentions stay such
    assert disagreement(np.empty((0, 2)), np.empty((0, 2)), POLICY) == 0
    with pytest.raises(ValueError, match="of a shape"):
        disagreement(reference, reference[:2], POLICY)


def test_an_engine_of_other_weights_is_refused(folder: Path, drawer: Drawer) -> None:
    team, other = load_team(RoundFiles(folder), ONE), load_team(RoundFiles(folder), ONE)
    torch.manual_seed(0)
    with torch.no_grad():
        for voter in other.voters:
            for weights in voter.parameters():
                weights += 0.1 * weights.abs().mean() * torch.randn_like(weights)
    rows, seen = np.arange(120), []
    with pytest.raises(UserError, match=r"torch in fp32 .* of 120 crops, expected at most 0\.5%"):
        check_engine(other, team, drawer, rows, 50, POLICY, seen.append)
    assert seen == [50, 50, 20]
    assert check_engine(team, team, drawer, rows, 50, POLICY) == Check(120, 0.0, 0.0)


# -- the stream ------------------------------------------------------------------------------------


class _Counting(Engine):
    """Notes how many batches were asked for when one is scored."""

    kind, precision, classes, transform = "none", "none", CLASSES, Transform(16)

    def __init__(self, drawer: Drawer) -> None:
        self.drawer, self.ahead = drawer, list[int]()

    def score(self, images: Tensor) -> NDArray[np.float32]:
        self.ahead.append(len(self.drawer.asked))
        return np.zeros((len(images), 3), np.float32)


def test_two_batches_are_in_memory() -> None:
    drawer = Drawer(50)
    engine = _Counting(drawer)
    sizes = [len(prob) for prob in engine.score_rows(drawer, np.arange(50), 8)]
    assert sizes == drawer.asked == [8] * 6 + [2]
    assert all(asked <= scored + 2 for scored, asked in enumerate(engine.ahead))


# -- what is kept ----------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_resumed_engine_prepares_nothing_and_gives_the_same(
    folder: Path, drawer: Drawer, precision: str
) -> None:
    if precision == "bf16" and not Device.of(TrainerConfig(accelerator="cpu")).bf16:
        pytest.skip("the processor has no bf16")
    first = open_engine(folder, "openvino", precision, ONE, drawer.first)
    before = {file: file.stat().st_mtime_ns for file in (folder / "openvino").rglob("*")}
    again = open_engine(folder, "openvino", precision, ONE, _none)
    np.testing.assert_array_equal(_prob(first, drawer), _prob(again, drawer))
    assert {file: file.stat().st_mtime_ns for file in (folder / "openvino").rglob("*")} == before
    assert not (folder / "openvino" / "preparing").exists()


@needs_openvino
@pytest.mark.slow
def test_other_weights_are_prepared_anew(tmp_path: Path, drawer: Drawer) -> None:
    folder = _round(tmp_path / "round-0", SMALL, 32)
    (folder / "openvino" / "preparing").mkdir(parents=True)  # what a kill left
    (folder / "openvino" / "preparing" / "network.xml").write_text("half of a net")
    open_engine(folder, "openvino", "int8", ONE, drawer.first)
    (kept,) = (folder / "openvino").iterdir()
    _save(folder, SMALL, 32, 0, seed=77)
    engine = open_engine(folder, "openvino", "int8", ONE, drawer.first)
    (fresh,) = (folder / "openvino").iterdir()
    assert fresh != kept
    check_engine(engine, load_team(RoundFiles(folder), ONE), drawer, np.arange(120), 64, POLICY)
    (fresh / "network.xml").write_text("no network")
    with pytest.raises(UserError, match=r"int8-.*expected a prepared network.*remove"):
        open_engine(folder, "openvino", "int8", ONE, _none)


@needs_openvino
def test_without_crops_nothing_is_calibrated(tmp_path: Path) -> None:
    folder = _round(tmp_path / "round-0", SMALL, 32)
    with pytest.raises(UserError, match=r"precision=int8 is calibrated .* it has none"):
        open_engine(folder, "openvino", "int8", ONE, lambda count: [])
    assert not (folder / "openvino").exists()


# -- the packages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "precision"), [("openvino", "fp32"), ("nncf", "int8")])
def test_a_missing_package_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, precision: str
) -> None:
    if package == "nncf" and importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra 'openvino' is not installed")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as caught:
        open_engine(folder, "openvino", precision, ONE, _none)
    said = str(caught.value)
    assert f"needs {package}" in said
    assert "pip install 'collabteam[openvino]'" in said
    assert "\n" not in said


def test_openvino_computes_on_the_processor(folder: Path) -> None:
    gpu = TrainerConfig(accelerator="gpu")
    with pytest.raises(UserError, match=r"trainer\.accelerator=gpu.*accelerator=cpu"):
        open_engine(folder, "openvino", "fp32", gpu, _none)


USE = """
import io, socket, sys
from pathlib import Path
from PIL import Image
from collabteam.settings import TrainerConfig
from collabteam.learners.teams import load_team
from collabteam.storage.layout import RoundFiles
from collabteam.team.engines import open_engine
def crops(count):
    out = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(out, "JPEG")
    return [out.getvalue()] * 10
socket.getaddrinfo = lambda *where: print("reached for", where)
files = RoundFiles(Path(sys.argv[1]))
load = lambda trainer: load_team(files, trainer)
open_engine(load, files, "openvino", "int8", TrainerConfig(threads=1), crops)
assert {"openvino", "nncf"} <= sys.modules.keys()
assert not {"openvino_telemetry", "pytest"} & sys.modules.keys()
"""


@needs_openvino
@pytest.mark.slow
def test_nothing_is_reported_nor_written_home(tmp_path: Path) -> None:
    folder, home = _round(tmp_path / "round-0", SMALL, 32), tmp_path / "home"
    home.mkdir()
    # With CI set, or pytest imported, the packages would report nothing anyway.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment
        | {"HOME": str(home), "MPLCONFIGDIR": str(tmp_path / "matplotlib"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""
    assert list(home.rglob("*")) == []
