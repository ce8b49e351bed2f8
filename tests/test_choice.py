"""What ``features.backbone=auto`` and ``features.engine=auto`` come to, and OpenVINO's features."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Call, one_line, read_json

from collabteam.features import extractor as extractor_module
from collabteam.features.devices import Device
from collabteam.features.extractor import Disagreement, FeatureExtractor
from collabteam.features.projection import fit_projection
from collabteam.features.weights import PACKAGES, installed
from collabteam.learners.choice import CrossValidation, choose, cross_validate
from collabteam.rounds.stages import choose as stage
from collabteam.settings import FeaturesConfig
from collabteam.testing.learners import small_settings

CPU = Device(torch.device("cpu"), bf16=False)
TINY = small_settings("features").features
TRAIN = (
    "reviewer=oracle", "learner=probe", "team.vote_with=mean", "seed_per_class=20",
    "increment_per_class=4", "quantile=0.5", "trainer.threads=1", "logger=none",
)  # fmt: skip
OWN = f"weights={TINY.weights}"
ON_TINY = (
    *TRAIN, f"features.backbone={TINY.backbone}", f"features.weights={TINY.weights}",
    f"features.image_size={TINY.image_size}",
)  # fmt: skip

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra 'openvino' is not installed"
)


# -- cross-validation ------------------------------------------------------------------------------


def test_separable_features_are_judged_perfect_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    labels[::10] = -1
    folds = np.arange(90) // 3 % 5
    told = torch.from_numpy(np.eye(4)[labels] * 5 + rng.normal(size=(90, 4)) * 0.1).float()
    noise = torch.from_numpy(rng.normal(size=(90, 40))).float()
    good, bad = (cross_validate(one, labels, folds, 3) for one in (told, noise))
    assert good.recall == pytest.approx(1)
    assert 0.3 < bad.recall < 0.7
    assert good.losses.shape == (90,)
    assert good.losses.sum() < 0.3 * bad.losses.sum()


def judged(losses: list[float]) -> CrossValidation:
    return CrossValidation(np.array(losses), 0.5)


def test_the_cheapest_that_is_as_good_as_the_best_is_chosen() -> None:
    # Apart by 0.01 on average, with a standard error of 0.02; both beat the cheap one by far.
    noise = 0.1 * np.tile([1, -1], 10)
    dear = np.full(20, 0.4)
    found = {name: judged(losses.tolist())
             for name, losses in (("cheap", dear + 0.1 + noise / 5), ("fair", dear + 0.01 + noise),
                                  ("dear", dear))}  # fmt: skip
    tracks = np.arange(20)
    assert choose(found, tracks) == "fair"
    assert choose({name: found[name] for name in ("cheap", "dear")}, tracks) == "dear"
    assert choose({name: found[name] for name in ("dear", "cheap")}, tracks) == "dear"


def test_crops_of_one_track_are_one_piece_of_evidence() -> None:
    # Twenty crops that say the same are one object: the difference may be chance.
    better, worse = judged([0.5] * 19 + [0.6] * 21), judged([0.6] * 20 + [0.5] * 20)
    found = {"cheap": worse, "dear": judged([0.5] * 20 + [0.55] * 20)}
    assert choose(found, np.arange(40)) == "dear"
    assert choose(found, np.repeat([0, 1], 20)) == "cheap"
    assert choose({"cheap": worse, "dear": better}, np.repeat([0, 1], 20)) == "cheap"


# -- through the command ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_backbone_is_chosen_once(
    simulated: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    two = {name: PACKAGES[name] for name in list(PACKAGES)[:2]}
    for module in ("weights", "backbones"):
        monkeypatch.setattr(f"collabteam.features.{module}.PACKAGES", two)
    assert installed() == list(two)
    tried: list[int] = []
    whole = stage.cross_validate

    def dies(features: Any, labels: Any, *rest: Any) -> CrossValidation:
        tried.append(len(labels))
        if len(tried) == 2:
            raise KeyboardInterrupt
        return whole(features, labels, *rest)

    monkeypatch.setattr(stage, "cross_validate", dies)
    train = ("train", f"root={root}", "camera=sim", *TRAIN, "features.image_size=32")
    assert call(*train, "features.backbone=auto").code != 0
    said = call(*train, "features.backbone=auto")
    assert said.code == 0, said.err
    assert tried == [60, 60, 60]  # the first candidate is not tried again
    assert "trying tf_efficientnet_lite1 on 60 verified crops" in said.err
    assert said.err.count(" chosen") == 1
    record = read_json(root / "sim" / "round-0" / "round.json")
    (chosen,) = record["settings"]["features"].get("backbone", ["tf_efficientnet_lite0"])
    assert f"features.backbone=auto: {chosen}" in said.err
    # Of the others, there are features of verified crops in memory alone.
    assert len(list((root / "sim").glob("features-*.lance"))) == 1

    said = call(*train, "round=1", "features.backbone=auto")
    assert said.code == 0, said.err
    assert len(tried) == 3
    assert call(*train, "round=1", f"features.backbone={chosen}").code == 0
    (other,) = set(two) - {chosen}
    one_line(call(*train, "round=1", f"features.backbone={other}"), "features.backbone")
    assert call("label", f"root={root}", "camera=sim").code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["learner=paper", "features.backbone=auto"], "has no effect with this learner"),
        (["learner=probe", "features.backbone=[auto,resnet18]"], "expected auto alone"),
        (
            ["learner=probe", "features.backbone=auto", "features.weights=[x.safetensors]"],
            "leave features.weights out",
        ),
    ],
)
def test_auto_stands_alone(words: list[str], expected: str, root: Path, call: Call) -> None:
    train = ("train", f"root={root}", "camera=sim", "reviewer=oracle", "logger=none")
    one_line(call(*train, *words), expected)


# -- OpenVINO --------------------------------------------------------------------------------------


def pictures(count: int, side: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 255, (count, 3, side, side), dtype=np.uint8))


@needs_openvino
@pytest.mark.parametrize("projection", [0, 16])
def test_openvino_computes_the_features_of_torch_on_any_number_of_threads(
    projection: int,
) -> None:
    images = pictures(70, TINY.image_size)
    exact, quick = (
        FeatureExtractor(replace(TINY, engine=engine), CPU) for engine in ("torch", "openvino")
    )
    if projection:
        fitted = fit_projection(exact(images), projection)
        exact, quick = exact.projected([fitted]), quick.projected([fitted])
    assert quick.digest != exact.digest
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(quick(images))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    expected = exact(images)
    assert found[0].shape == expected.shape == (70, projection or exact.dim)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(quick(images[5:9]), found[0][5:9])


@needs_openvino
def test_features_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor_module, "TOLERANCE", 1e-12)
    quick = FeatureExtractor(replace(TINY, engine="openvino"), CPU)
    with pytest.raises(Disagreement, match=r"other features with test_resnet.*engine=torch"):
        quick(pictures(4, TINY.image_size))


@needs_openvino
@pytest.mark.slow
def test_an_engine_is_chosen_once(
    simulated: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    monkeypatch.setattr(stage, "_WORTH", 0.0)  # whatever the clock says
    train = ("train", f"root={root}", "camera=sim", *ON_TINY)
    said = call(*train, "features.engine=auto")
    assert said.code == 0, said.err
    assert "features.engine=auto: openvino, because OpenVINO is" in said.err
    settings = read_json(root / "sim" / "round-0" / "round.json")["settings"]
    assert settings["features"] == {
        "engine": "openvino", "image_size": TINY.image_size, "backbone": TINY.backbone
    }  # fmt: skip
    said = call(*train, "round=1", "features.engine=auto")
    assert said.code == 0, said.err
    assert "features.engine=auto" not in said.err
    one_line(call(*train, "round=1"), "features.engine openvino -> torch")
    for engine in ("torch", "openvino"):
        assert call("label", f"root={root}", "camera=sim", f"engine={engine}", OWN).code == 0
    monkeypatch.setattr(extractor_module, "has_openvino", lambda: False)
    one_line(
        call("label", f"root={root}", "camera=sim", OWN), "features.engine=openvino needs openvino"
    )


@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize("why", ["differs", "slow", "absent"])
def test_torch_is_taken_where_openvino_does_not_serve(
    why: str, simulated: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    if why == "differs":
        monkeypatch.setattr(extractor_module, "TOLERANCE", 1e-12)
    elif why == "slow":
        monkeypatch.setattr(stage, "_WORTH", 1e9)
    else:
        monkeypatch.setattr(stage, "has_openvino", lambda: False)
    said = call("train", f"root={root}", "camera=sim", *ON_TINY, "features.engine=auto")
    assert said.code == 0, said.err
    expected = {"differs": "other features", "slow": "times as fast", "absent": "is not installed"}
    (line,) = (line for line in said.err.splitlines() if "features.engine=auto" in line)
    assert line.startswith("features.engine=auto: torch, because")
    assert expected[why] in line
    settings = read_json(root / "sim" / "round-0" / "round.json")["settings"]
    assert "engine" not in settings["features"]


def test_the_settings_of_features_say_whether_something_is_open() -> None:
    assert not FeaturesConfig().is_open
    assert FeaturesConfig(["auto"]).is_open
    assert FeaturesConfig(engine="auto").is_open
