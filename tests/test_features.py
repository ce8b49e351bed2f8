"""Features that are computed once and kept with the camera, and the learner that uses them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLASSES, Call, command, environment, one_line, probabilities, read_json, run
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from collabteam.catalog import Catalog, LabelEvent
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.features import store as store_module
from collabteam.features.backbones import Backbone
from collabteam.features.devices import Device
from collabteam.features.extractor import FeatureExtractor
from collabteam.features.images import decode_rows, decoding_threads
from collabteam.features.projection import fit_projection
from collabteam.features.store import FeatureStore
from collabteam.learners.methods.probe import fit_heads
from collabteam.rounds.stages.features import FitProjections
from collabteam.settings import UNUSABLE, FeaturesConfig, SimulationConfig
from collabteam.simulator.source import SimulatedSource
from collabteam.sources.crops import ingest_source
from collabteam.stages import Runner
from collabteam.testing.learners import small_settings

PROBE = (
    "reviewer=oracle", "learner=probe", "team.vote_with=mean", "features.image_size=48",
    "seed_per_class=40", "increment_per_class=4", "quantile=0.5", "trainer.threads=1",
    "logger=none",
)  # fmt: skip
TINY = small_settings("features").features
OWN = f"weights={TINY.weights}"
ON_TINY = (
    *(word for word in PROBE if not word.startswith("features.")),
    f"features.backbone={TINY.backbone}", f"features.weights={TINY.weights}",
    f"features.image_size={TINY.image_size}",
)  # fmt: skip


def tiny(config: FeaturesConfig = TINY) -> FeatureExtractor:
    return FeatureExtractor(config, Device(torch.device("cpu"), bf16=False))


def drawn(root: Path, crops: int, seed: int = 0) -> Catalog:
    catalog = Catalog.register(root, "sim")
    ingest_source(catalog, SimulatedSource(SimulationConfig(crops=crops), seed), lambda *_: None)
    return catalog


def expected(catalog: Catalog, rows: np.ndarray) -> torch.Tensor:
    with decoding_threads() as pool:
        return tiny()(decode_rows(catalog, rows, tiny().transform, pool))


def test_row_n_is_crop_n_and_later_crops_are_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PART", 16)
    catalog = drawn(tmp_path, 40)
    store = FeatureStore(catalog, tiny())
    assert store.missing == len(catalog)
    store.fill(Listener())
    assert store.missing == 0
    first = store[np.arange(len(catalog))]
    torch.testing.assert_close(first, expected(catalog, np.arange(40)), atol=2e-3, rtol=2e-3)

    catalog = drawn(tmp_path, 25, seed=1)
    grown = FeatureStore(catalog, tiny())
    assert grown.missing == len(catalog) - 40 > 0
    grown.fill(Listener())
    rows = np.array([len(catalog) - 1, 3, 41, 3])
    torch.testing.assert_close(grown[rows], expected(catalog, rows), atol=2e-3, rtol=2e-3)
    assert torch.equal(grown[np.arange(40)], first)
    assert grown[np.zeros(0, np.int64)].shape == (0, store.dim)
    assert 0 < grown.size < 100_000
    with pytest.raises(IndexError):
        grown[np.array([len(catalog)])]


def test_another_backbone_has_a_table_of_its_own(tmp_path: Path) -> None:
    catalog = drawn(tmp_path, 12)
    FeatureStore(catalog, tiny()).fill(Listener())
    other = FeatureStore(catalog, tiny(replace(TINY, image_size=32)))
    assert other.missing == len(catalog)
    other.fill(Listener())
    tables = list((tmp_path / "sim").glob("features-*.lance"))
    assert len(tables) == 2


def test_a_picture_called_unusable_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = drawn(tmp_path, 12)
    name = str(catalog.index().crop_id[5])
    catalog.append_labels([LabelEvent(name, UNUSABLE, "person")])
    asked: list[int] = []
    images = Catalog.images

    def watched(self: Catalog, rows: np.ndarray) -> list[bytes]:
        asked.extend(rows.tolist())
        return images(self, rows)

    monkeypatch.setattr(Catalog, "images", watched)
    store = FeatureStore(catalog, tiny())
    store.fill(Listener())
    assert sorted(asked) == [row for row in range(len(catalog)) if row != 5]
    assert not store[np.array([5])].any()
    assert store[np.array([4, 6])].any()


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_features as here
from collabteam.events import Listener
from collabteam.catalog import Catalog
from collabteam.features import store
store.PART = 8
catalog = Catalog.open(sys.argv[1], "sim")
kept = store.FeatureStore(catalog, here.tiny())
table, = kept._tables
append = table._append
def dies(vectors):
    append(vectors)
    if len(table._table) >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
table._append = dies
kept.fill(Listener())
"""


@pytest.mark.slow
def test_a_kill_costs_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = drawn(tmp_path / "a", 40)
    whole = FeatureStore(catalog, tiny())
    monkeypatch.setattr(store_module, "PART", 8)
    whole.fill(Listener())
    catalog = drawn(tmp_path / "b", 40)
    for least in (8, 24):
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(tmp_path / "b"), str(Path(__file__).parent),
             str(least)],
            env=environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == -9, done.stderr
        assert FeatureStore(catalog, tiny()).missing == 40 - least
    resumed = FeatureStore(Catalog.open(tmp_path / "b", "sim"), tiny())
    resumed.fill(Listener())
    rows = np.arange(40)
    assert torch.equal(resumed[rows], whole[rows])


# -- the heads -------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(6, 60), dim=st.integers(2, 40), seed=st.integers(0, 1000),
    penalty=st.sampled_from([0.1, 0.01]),
)  # fmt: skip
def test_heads_are_the_minimum_of_the_penalised_loss(
    count: int, dim: int, seed: int, penalty: float
) -> None:
    """The slope of the objective is 0 there, in whichever basis it was solved."""
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.normal(size=(count, dim)) * 3 + 1).float()
    targets = torch.from_numpy((rng.random((count, 2)) < 0.5).astype(np.float32))
    targets[0], targets[1] = 1, 0
    weights = torch.from_numpy(rng.uniform(0.5, 2, count)).float()
    weight, bias = fit_heads(features, targets, weights, [1.0, penalty])[penalty]
    scale = features.std(dim=0, correction=0) * dim**0.5
    own = (weight * scale).double().requires_grad_()
    scaled = ((features - features.mean(0)) / scale).double()
    free = (bias + weight @ features.mean(0)).double().requires_grad_()
    outputs = scaled @ own.T + free
    total = torch.zeros((), dtype=torch.float64)
    for column in range(2):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            outputs[:, column], targets[:, column].double(), reduction="none"
        )
        for value in (0, 1):
            here = targets[:, column] == value
            total = total + (loss * weights)[here].sum() / weights[here].sum() / 2
    total = total + penalty / 2 * own.square().sum()
    total.backward()
    assert own.grad is not None
    assert free.grad is not None
    assert own.grad.abs().max() < 3e-3
    assert free.grad.abs().max() < 3e-3


# -- through the commands --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def probed(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of ``sim`` with the probe; copy it before you change it."""
    root = Path(shutil.copytree(simulated, tmp_path_factory.mktemp("probed") / "outputs"))
    done = run("train", root, "camera=sim", "round=1", *PROBE)
    assert done.returncode == 0, done.stderr
    assert "features of 600 crops, tf_efficientnet_lite0" in done.stderr
    return root


@pytest.mark.slow
def test_a_probe_goes_through_the_commands(probed: Path, tmp_path: Path, call: Call) -> None:
    root = Path(shutil.copytree(probed, tmp_path / "outputs"))
    records = [read_json(root / "sim" / f"round-{k}" / "round.json") for k in (0, 1)]
    for record in records:
        assert record["settings"]["learner"] == {"name": "probe", "penalty": 0.0}
        assert all(folds == [0, 1, 2, 3, 4] for folds in record["voting"].values())
        assert record["consensus_accuracy_test"] > 0.6
    assert sum(row["taken"] for row in records[1]["increment"].values()) > 0
    # The heads alone are kept with each round.
    files = list((root / "sim").glob("round-*/branches/*.safetensors"))
    assert len(files) == 10
    assert max(file.stat().st_size for file in files) < 40_000
    labelled = call("label", f"root={root}", "camera=sim")
    assert labelled.code == 0, labelled.err
    assert (Catalog.open(root, "sim").index().verdict_round == 1).sum() > 300
    exported = call("export", f"root={root}", "camera=sim", f"to={tmp_path / 'out'}")
    assert exported.code == 0, exported.err
    assert set(records[1]["classes"]) == set(CLASSES)


@pytest.mark.slow
def test_threads_do_not_change_a_probe(probed: Path, simulated: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    few = [word for word in PROBE if not word.startswith("trainer.threads")]
    done = subprocess.run(
        command("train", f"root={root}", "camera=sim", "round=1", *few, "trainer.threads=3"),
        env={**environment(), "OMP_NUM_THREADS": "2"}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert probabilities(root / "sim") == probabilities(probed / "sim")
    names = [file.name for file in (probed / "sim" / "round-1" / "branches").iterdir()]
    for name in names:
        one, other = (
            (where / "sim" / "round-1" / "branches" / name).read_bytes() for where in (root, probed)
        )
        assert sorted(one) == sorted(other)


@pytest.mark.slow
def test_other_weights_under_finished_rounds_are_refused(
    probed: Path, tmp_path: Path, call: Call
) -> None:
    root = Path(shutil.copytree(probed, tmp_path / "outputs"))
    state = Backbone("tf_efficientnet_lite0", 48, pretrained=True).network(0).state_dict()
    save_file(state, tmp_path / "same.safetensors")
    state["conv_stem.weight"] = state["conv_stem.weight"] * 1.01
    save_file(state, tmp_path / "other.safetensors")
    train = ("train", f"root={root}", "camera=sim", "round=2", *PROBE)
    said = call(*train, f"features.weights={tmp_path / 'other.safetensors'}")
    one_line(said, "features of other weights", "features.weights", "rollback=-1")
    said = call(*train, f"features.weights={tmp_path / 'same.safetensors'}")
    assert said.code == 0, said.err
    one_line(call(*train, "team.views=mirror"), "team.views plain -> mirror")
    said = call(*train, "features.image_size=64")
    one_line(said, "features.image_size 48 -> 64")


@pytest.mark.slow
def test_crops_that_came_since_get_features_when_labelled(
    probed: Path, tmp_path: Path, call: Call
) -> None:
    root = Path(shutil.copytree(probed, tmp_path / "outputs"))
    catalog = drawn(root, 30, seed=5)
    before = call("label", f"root={root}", "camera=sim")
    assert before.code == 0, before.err
    assert "features of" in before.err
    index = catalog.index()
    new = np.arange(len(index)) >= 600
    assert new.sum() > 0
    judged = (index.verdict_round[new] == 1) | index.test[new]
    assert judged.all()


# -- projections -----------------------------------------------------------------------------------


def test_a_projection_keeps_most_of_the_variance_in_equal_parts() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(300, 40)) * np.geomspace(10, 0.01, 40) @ rng.normal(size=(40, 40)) + 5
    features = torch.from_numpy(mixed).float()
    found = fit_projection(features, 8)
    small = found.layer()(features)
    assert small.shape == (300, 8)
    whole = features.double().var(dim=0, correction=0).sum()
    strongest = (
        torch.linalg.svdvals((features - features.mean(0)).double())[:8].square().sum() / 300
    )
    kept = small.double().var(dim=0, correction=0)
    torch.testing.assert_close(kept.sum(), strongest, rtol=1e-4, atol=0)
    assert kept.sum() > 0.9 * whole
    assert small.mean(dim=0).abs().max() < 1e-3 * small.abs().max()
    # As they come, the first would have more than ten times the variance of the last.
    assert kept.max() / kept.min() < 8
    distances = torch.cdist(small[:20], small[:20])
    components = torch.linalg.svd((features - features.mean(0)), full_matrices=False)[2][:8]
    plain = (features - features.mean(0)) @ components.T
    torch.testing.assert_close(distances, torch.cdist(plain[:20], plain[:20]), rtol=1e-3, atol=1e-3)


def test_a_projection_depends_on_no_thread_and_no_draw() -> None:
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(200, 64))).float()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            state = torch.random.get_rng_state()
            found.append(fit_projection(features, 16))
            found[-1].layer()
            assert torch.equal(torch.random.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)
    assert len({one.digest for one in found}) == 1
    assert fit_projection(features[:150], 16).digest != found[0].digest


def test_a_projection_needs_more_crops_and_features_than_numbers() -> None:
    features = torch.zeros(10, 20)
    with pytest.raises(UserError, match=r"projection=10: expected less than the 10 crops"):
        fit_projection(features, 10)
    with pytest.raises(UserError, match=r"projection=20: expected less than the 20 features"):
        fit_projection(torch.zeros(30, 20), 20)


def test_the_test_set_fits_no_projection(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog.open(root, "sim")
    asked: list[int] = []
    images = Catalog.images

    def watched(self: Catalog, rows: np.ndarray) -> list[bytes]:
        asked.extend(rows.tolist())
        return images(self, rows)

    monkeypatch.setattr(Catalog, "images", watched)
    index = catalog.index()
    (fitted,) = Runner(Listener()).run(FitProjections(catalog, tiny(), 8))
    assert set(asked) == set(np.flatnonzero(index.trainable()).tolist())
    assert index.test.sum() > 50
    assert len(fitted.weight) == 8
    # It is fitted once, whatever comes later.
    assert Runner(Listener()).run(FitProjections(drawn(root, 30, seed=5), tiny(), 8)) == ()


@pytest.mark.slow
def test_projected_features_go_through_the_commands(
    simulated: Path, tmp_path: Path, call: Call
) -> None:
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    train = ("train", f"root={root}", "camera=sim", *ON_TINY)
    said = call(*train, "round=0", "features.projection=32")
    assert said.code == 0, said.err
    assert "features take 64 bytes a crop" in said.err
    (table,) = (root / "sim").glob("features-*.lance")
    (kept,) = (root / "sim").glob("features-*.safetensors")
    before = kept.read_bytes()
    heads = load_file(next((root / "sim" / "round-0" / "branches").iterdir()))
    assert heads["weight"].shape == (3, 32)

    drawn(root, 30, seed=5)
    for engine in ("torch", "openvino"):
        said = call("label", f"root={root}", "camera=sim", f"engine={engine}", OWN)
        assert said.code == 0, said.err
    said = call(*train, "round=1", "features.projection=32")
    assert said.code == 0, said.err
    assert kept.read_bytes() == before
    assert list((root / "sim").glob("features-*.lance")) == [table]

    one_line(call(*train, "round=2"), "features.projection 32 -> 0")
    said = call(*train, "round=1", "rollback=0")
    assert said.code == 2
    assert "features.projection 32 -> 0: the heads of round 0 need the features" in said.err
    kept.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    one_line(call("label", f"root={root}", "camera=sim", OWN), str(kept), "other numbers")
    kept.unlink()
    one_line(call(*train, "round=1", "features.projection=32"), str(kept), "rollback=-1")


def test_a_learner_that_trains_the_network_takes_no_projection(root: Path, call: Call) -> None:
    said = call(
        "train", f"root={root}", "camera=sim", "learner=finetune", "reviewer=oracle",
        "features.projection=8", "logger=none",
    )  # fmt: skip
    one_line(said, "features.projection=8 has no effect")
