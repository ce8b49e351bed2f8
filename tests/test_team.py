"""The paper's branch, the team's arithmetic, and the way from encoded crops to batches."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file
from timm.layers.cbam import CbamModule, ChannelAttn, SpatialAttn
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from collabteam import train
from collabteam.errors import UserError
from collabteam.features.backbones import Backbone
from collabteam.features.devices import Device
from collabteam.features.extractor import ComputedFeatures, FeatureExtractor
from collabteam.features.images import PAD, CropPixels, Transform, augment, letterbox
from collabteam.learners.base import SharedSettings
from collabteam.learners.batches import Batch, CropBatches
from collabteam.learners.supervised import (
    SupervisedLearner,
    SupervisedModule,
    class_weights,
    warmup_cosine,
)
from collabteam.learners.teams import open_learner, voting_team
from collabteam.settings import (
    CameraConfig,
    DataConfig,
    OptimConfig,
    TeamConfig,
    TrainConfig,
    TrainerConfig,
    check,
)
from collabteam.storage.layout import RoundFiles
from collabteam.team.team import (
    OneVsRest,
    Team,
    Voter,
    load_transform,
    load_weights,
    mean_of_views,
    save_voter,
    voter_file,
)
from collabteam.testing.learners import small_settings

CONF = Path(__file__).parents[1] / "conf"
LIGHT = TeamConfig(backbone="mobilenetv3_small_050", attention="none")
CPU = TrainerConfig(accelerator="cpu", precision="fp32")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def branch() -> nn.Module:
    """The branch of the paper, as the defaults build it."""
    torch.manual_seed(7)
    return _network(TeamConfig())


def _network(team: TeamConfig, outputs: int = 2, side: int = 64) -> nn.Module:
    return Backbone.of(team, side).network(outputs)


def _learner(team: TeamConfig, name: str = "paper") -> SupervisedLearner:
    learner = open_learner({"name": name}, SharedSettings(team, DataConfig(image_size=32)))
    assert isinstance(learner, SupervisedLearner)
    return learner


def _module(
    names: list[str], team: TeamConfig = LIGHT, optim: OptimConfig | None = None
) -> SupervisedModule:
    """The paper's voters of these classes, ready to train."""
    learner = _learner(team)
    voters = [learner.build(names, columns) for columns in learner.groups(names)]
    module = SupervisedModule(names, voters, learner.targets, optim or OptimConfig())
    module.class_weights = [torch.ones(2) for _ in names]
    return module


# -- the paper -------------------------------------------------------------------------------------


def test_the_branch_is_a_resnet18_with_cbam_in_every_block(branch: nn.Module) -> None:
    blocks = {name: m for name, m in branch.named_modules() if isinstance(m, BasicBlock)}
    assert list(blocks) == [f"layer{stage}.{n}" for stage in (1, 2, 3, 4) for n in (0, 1)]
    for block in blocks.values():
        (cbam,) = [m for m in block.modules() if isinstance(m, CbamModule)]
        assert isinstance(cbam.channel, ChannelAttn)
        assert isinstance(cbam.spatial, SpatialAttn)
        assert block.se is cbam  # after the second convolution, before the sum (Woo et al., fig. 3)
    assert sum(isinstance(m, CbamModule) for m in branch.modules()) == 8
    widths = [block.conv2.out_channels for block in blocks.values()]
    assert widths == [64, 64, 128, 128, 256, 256, 512, 512]


def test_the_branch_has_two_outputs_and_the_parameters_of_the_paper(branch: nn.Module) -> None:
    assert branch.fc.out_features == 2
    # ResNet-18 without its 1000-class head, two outputs, and the attention.
    cbams = [m for m in branch.modules() if isinstance(m, CbamModule)]
    attention = sum(p.numel() for cbam in cbams for p in cbam.parameters())
    assert sum(p.numel() for p in branch.parameters()) - attention == 11_689_512 - 513_000 + 1_026
    # Per block 2 C^2 / 16 (channel), 2 x 49 (spatial), and a batch norm of one channel.
    assert attention == sum(2 * (2 * c * c // 16 + 98 + 2) for c in (64, 128, 256, 512))
    with torch.inference_mode():
        assert branch.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 2)


def test_every_convolution_is_kaiming_normal_by_fan_out(branch: nn.Module) -> None:
    convolutions = [m for m in branch.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 1 + 8 * 2 + 3 + 8 * 3
    for conv in convolutions:
        weight = conv.weight.detach().double()
        assert conv.bias is None
        fan_out = weight.shape[0] * weight[0, 0].numel()
        std, count = math.sqrt(2 / fan_out), weight.numel()
        assert weight.std() / std == pytest.approx(1, abs=5 / math.sqrt(2 * count))
        assert weight.mean() / std == pytest.approx(0, abs=5 / math.sqrt(count))
        if count > 10_000:  # normal, not uniform
            beyond = (weight.abs() > 2 * std).double().mean().item()
            assert beyond == pytest.approx(0.0455, abs=0.008)


def test_blocks_begin_as_identities(branch: nn.Module) -> None:
    for block in branch.modules():
        if isinstance(block, BasicBlock):
            assert not block.bn2.weight.any()


def test_the_defaults_are_section_3_1() -> None:
    config = TrainConfig()
    assert config.optim == OptimConfig(
        lr=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=5e-4,
        epochs=30,
        epochs_later=0,
        warmup=0.0,
        label_smoothing=0.1,
    )
    assert config.data == DataConfig(
        image_size=128,
        folds=5,
        train_folds=[0, 1, 2, 3, 4],
        augment="none",
        augment_later="",
        batch_size=64,
        eval_batch_size=16,
    )
    assert config.team == TeamConfig(
        backbone="resnet18",
        attention="cbam",
        stem="standard",
        pretrained=False,
        init="scratch",
        vote_with="best",
        joint="product",
    )
    assert (config.seed_per_class, config.increment_per_class) == (1000, 1000)
    assert config.seed_unknown == 0
    assert config.quantile == 0.75


def test_experiment_paper_is_the_defaults() -> None:
    train.main.store({})
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = compose("train", ["camera=S10-08", "experiment=paper"])
        plain = compose("train", ["camera=S10-08"])
    config = OmegaConf.to_object(composed)
    assert isinstance(config, TrainConfig)
    classes = ["pedestrian", "cyclist", "motorcyclist"]
    assert config == TrainConfig(camera=CameraConfig("S10-08", classes))
    assert OmegaConf.to_object(plain) == config
    check(config)


def _attach(module: pl.LightningModule, steps: int) -> tuple[Any, Any]:
    module.trainer = SimpleNamespace(estimated_stepping_batches=steps)  # type: ignore[assignment]
    configured: Any = module.configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    return configured["optimizer"], configured["lr_scheduler"]["scheduler"]


def test_the_optimiser_is_sgd_with_a_cosine_over_the_steps() -> None:
    optim = OptimConfig()
    module = _module(["a"], LIGHT, optim)
    steps = 40
    optimizer, scheduler = _attach(module, steps)
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)
    assert group["dampening"] == 0
    assert {id(p) for p in group["params"]} == {id(p) for p in module.parameters()}
    rates = []
    for _ in range(steps):
        rates.append(group["lr"])
        optimizer.step()
        scheduler.step()
    cosine = [0.1 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert rates == pytest.approx(cosine, rel=1e-9)
    assert rates[-1] < 0.002 * rates[0]
    assert group["lr"] == pytest.approx(0, abs=1e-12)


def test_the_optimiser_takes_its_settings() -> None:
    optim = OptimConfig(lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.01, warmup=0.5)
    team = _module(["a", "b"], LIGHT, optim)
    optimizer, _ = _attach(team, 10)
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.8, 0.01, True)
    assert group["initial_lr"] == 0.3
    assert group["lr"] == pytest.approx(0.3 * 0.04)
    assert len(group["params"]) == len(list(team.parameters()))


def test_the_rate_rises_then_falls_to_zero() -> None:
    factor = warmup_cosine(100, 0.2)
    assert factor(0) == pytest.approx(0.04)
    assert factor(10) == pytest.approx(0.52)
    assert factor(20) == pytest.approx(1)
    assert factor(60) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0)
    rates = [factor(step) for step in range(101)]
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert max(rates) == pytest.approx(1)


@pytest.mark.parametrize("warmup", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_fits_have_a_rate_too(steps: int, warmup: float) -> None:
    rates = [warmup_cosine(steps, warmup)(step) for step in range(steps + 1)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[-1] == pytest.approx(0)
    assert max(rates[:steps]) > 0


# -- other networks --------------------------------------------------------------------------------


def test_the_small_stem_halves_once() -> None:
    small, standard = (
        _network(TeamConfig(attention="none", stem=stem)).eval() for stem in ("small", "standard")
    )
    sides: list[int] = []

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        sides.append(inputs[0].shape[-1])

    for network in (small, standard):
        network.layer1.register_forward_pre_hook(note)
        with torch.inference_mode():
            assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert sides == [16, 8]
    assert small.conv1.weight.shape == (64, 3, 3, 3)
    std = small.conv1.weight.detach().std().item()
    assert std == pytest.approx(math.sqrt(2 / (64 * 9)), rel=5 / math.sqrt(2 * 1728))


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "resnet18d"])
def test_the_small_stem_needs_a_stem_to_replace(backbone: str) -> None:
    with pytest.raises(UserError, match=rf"team\.stem=small.*{backbone}.*standard"):
        _network(TeamConfig(backbone=backbone, attention="none", stem="small"))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("resnet1", "resnet18"), ("ResNet-18", "resnet18"), ("resent18", "resnet18"),
     ("efficientnet-b0", "efficientnet_b0")],
)  # fmt: skip
def test_an_unknown_backbone_is_answered_by_near_names(wrong: str, right: str) -> None:
    with pytest.raises(UserError, match=rf"team\.backbone={wrong}:.*near it: .*\b{right}\b"):
        _network(TeamConfig(backbone=wrong))


@pytest.mark.parametrize("wrong", ["", "zzzzz", "resnet18/x/y/z", "hf_hub:a/b", "resnet18.nope"])
def test_what_is_no_backbone_at_all_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match=r"team\.backbone="):
        _network(TeamConfig(backbone=wrong))


@pytest.mark.parametrize(
    ("backbone", "attention"),
    [
        ("mobilenetv3_small_100", "cbam"),
        ("vit_tiny_patch16_224", "cbam"),
        ("resnet18", "no-such-layer"),
    ],
)
def test_attention_that_does_not_fit_is_refused(backbone: str, attention: str) -> None:
    with pytest.raises(UserError, match=rf"{backbone}.*team\.attention={attention}.*none"):
        _network(TeamConfig(backbone=backbone, attention=attention), side=224)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("mobilenetv3_small_050", 48),
        ("tf_efficientnet_lite0", 64),
        ("test_vit", 160),
        ("convnext_atto", 64),
        ("repvit_m0_9", 64),
    ],
)
def test_any_backbone_works_without_attention(name: str, side: int) -> None:
    backbone = Backbone.of(TeamConfig(backbone=name, attention="none"), side)
    network, trunk = backbone.network(2).eval(), backbone.network(0).eval()
    assert not any(isinstance(m, CbamModule) for m in network.modules())
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 2)
        assert trunk(torch.zeros(2, 3, side, side)).shape == (2, backbone.dim)


def test_the_transform_is_that_of_the_pretrained_weights() -> None:
    """No weights are fetched: timm's own list of pretrained weights says what they need."""
    scratch = Backbone.of(TeamConfig(), 96).transform
    assert scratch == Transform(96, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
    lite = TeamConfig(backbone="tf_efficientnet_lite0", attention="none", pretrained=True)
    assert Backbone.of(lite, 96).transform == Transform(96, (0.5,) * 3, (0.5,) * 3, "bicubic")
    assert Backbone.of(replace(lite, pretrained=False), 96).transform == scratch
    old = TeamConfig(backbone="resnet18.tv_in1k", attention="none", pretrained=True)
    assert Backbone.of(old, 96).transform == replace(scratch, interpolation="bilinear")
    assert _learner(lite).transform == Transform(32, (0.5,) * 3, (0.5,) * 3, "bicubic")
    assert _learner(LIGHT).transform == Transform(32)


def test_a_transform_pads_in_its_own_mean_and_resamples_its_own_way() -> None:
    wide = _encoded(Image.radial_gradient("L").resize((40, 20)).convert("RGB"), "PNG")
    grey = Transform(32, (0.5,) * 3, (0.5,) * 3)
    with ThreadPoolExecutor(1) as pool:
        bicubic = grey.decode([wide], pool)
        nearest = replace(grey, interpolation="nearest").decode([wide], pool)
    assert bicubic[0, :, 0, 0].tolist() == [128, 128, 128]
    assert grey.normalize(bicubic)[0, :, 0, 0].abs().max() < 0.01
    assert grey.normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique().tolist() == [1]
    assert not torch.equal(bicubic, nearest)


def test_features_are_those_of_the_backbone_by_row() -> None:
    extractor = FeatureExtractor(small_settings("features").features, Device.of(CPU))
    shades = [_encoded(Image.new("RGB", (20, 20), (n * 20, 0, 0)), "PNG") for n in range(10)]
    features = ComputedFeatures(CropPixels(_Reader(shades), extractor.transform), extractor)
    found = features[np.array([7, 2])]
    assert found.shape == (2, extractor.dim)
    torch.testing.assert_close(features[np.array([2])], found[1:])
    assert not torch.allclose(found[0], found[1])
    assert features[np.zeros(0, np.int64)].shape == (0, extractor.dim)


# -- views -----------------------------------------------------------------------------------------


class LeftHalf(Voter):
    """Says how bright the left half of a picture is, and how bright its outermost column."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), (0, 1))

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        half = outputs.shape[3] // 2
        left = outputs[:, 0, :, :half].mean(dim=(1, 2))
        return torch.stack([left, outputs[:, 0, :, 0].mean(dim=1)], dim=1)


def test_a_vote_is_the_mean_over_the_views_of_a_crop() -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, :, :16] = 0.8
    pixels[:, :, :, 0] = 0.0
    voters = [LeftHalf()]
    plain = mean_of_views(voters, pixels, 2, "plain")[0]
    assert plain.tolist() == pytest.approx([0.75, 0.0])
    mirror = mean_of_views(voters, pixels, 2, "mirror")[0]
    assert mirror.tolist() == pytest.approx([0.375, 0.0])
    # The nearer view lacks the dark edge.
    zoom = mean_of_views(voters, pixels, 2, "zoom")[0]
    assert zoom[1].item() == pytest.approx(0.8 / 3, abs=0.01)


# -- weights and loss ------------------------------------------------------------------------------


def test_both_sides_of_a_branch_weigh_the_same() -> None:
    labels = torch.tensor([0, 0, 0, 1, -1, -1, 0, 0])
    each = torch.ones(8)
    weights = torch.stack([class_weights((labels == b).long(), each, 2) for b in range(3)])
    assert weights[0].tolist() == pytest.approx([8 / (2 * 3), 8 / (2 * 5)])
    assert weights[1].tolist() == pytest.approx([8 / (2 * 7), 8 / (2 * 1)])
    assert weights[2].tolist() == pytest.approx([0.5, 0])  # a side without crops weighs nothing
    for b in (0, 1):
        true = (labels == b).sum()
        assert weights[b, 1] * true == pytest.approx(float(weights[b, 0] * (8 - true)))
    # A crop of weight 2 counts like two crops.
    each[0] = 2
    twice = class_weights((labels == 0).long(), each, 2)
    again = class_weights(torch.tensor([1, 1, 1, 1, 0, 0, 0, 1, 1]), torch.ones(9), 2)
    assert twice.tolist() == again.tolist()


class _Fixed(nn.Module):
    """A network that gives the logits that it was made with."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


def test_the_loss_is_weighted_smoothed_cross_entropy_one_against_the_rest() -> None:
    weight = torch.tensor([0.6, 3.0])
    logits = torch.tensor([[0.3, -0.2], [1.0, 2.0], [-0.5, 0.1], [0.0, 0.0]])
    voter = OneVsRest(_Fixed(logits), [1])
    optim = OptimConfig(label_smoothing=0.1)
    module = SupervisedModule(["a", "b", "c"], [voter], _learner(LIGHT).targets, optim)
    module.class_weights = [weight]
    labels = torch.tensor([0, 1, 2, -1])
    for weights in ([1.0, 1.0, 1.0, 1.0], [1.0, 0.5, 2.0, 3.0]):
        batch = (torch.zeros(4, 3, 8, 8), labels, torch.tensor(weights))
        module.weighted = weights[1] != 1
        loss = module.loss(0, batch).item()
        total, mass = 0.0, 0.0
        for row, label, counts in zip(logits.tolist(), labels.tolist(), weights, strict=True):
            side = int(label == 1)
            log = [value - math.log(sum(map(math.exp, row))) for value in row]
            smoothed = [0.9 * (s == side) + 0.05 for s in (0, 1)]
            total -= counts * sum(weight[s].item() * smoothed[s] * log[s] for s in (0, 1))
            mass += counts * weight[side].item()
        assert loss == pytest.approx(total / mass, rel=1e-6)


def test_softmax_has_an_output_for_none_of_the_classes() -> None:
    learner = _learner(LIGHT, "softmax")
    assert learner.groups(["a", "b", "c"]) == [(0, 1, 2)]
    labels = torch.tensor([0, 1, 2, -1])
    assert learner.targets((0, 1, 2), labels).tolist() == [0, 1, 2, 3]
    voter = learner.build(["a", "b", "c"], (0, 1, 2)).eval()
    logits = torch.tensor([[5.0, 0, 0, 0], [0, 0, 0, 5.0], [1.0, 1.0, 0, 0]])
    prob = voter.probabilities(logits)
    assert prob.shape == (3, 3)
    assert prob[0, 0] > 0.9
    assert (prob[1:] < 0.5).all()  # nobody votes true, so the team abstains


# -- the team --------------------------------------------------------------------------------------


def _fold(count: int = 16, size: int = 32, batch: int = 4, augment: str = "none") -> CropBatches:
    """A fold of seeded noise: the first quarter validates, the rest trains."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 4 - 1
    folds = (torch.arange(count) >= count // 4).long()
    config = DataConfig(batch_size=batch, eval_batch_size=3)
    return _batches(images, labels, folds, 0, config, augment, seed=5)


def _batches(
    images: Tensor,
    labels: Tensor,
    folds: Tensor,
    fold: int,
    config: DataConfig,
    augment: str,
    seed: int,
) -> CropBatches:
    training, validation = (
        torch.nonzero(side).flatten() for side in (folds != fold, folds == fold)
    )
    weights, transform = torch.ones(len(labels)), Transform(images.shape[-1])
    return CropBatches(
        images, labels, weights, training, validation, transform, config, augment, seed
    )


def _fit(module: pl.LightningModule, data: CropBatches, **settings: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )
    trainer.fit(module, data)
    return trainer


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_sgd_over_the_sum_is_n_independent_ones() -> None:
    names, weights = ["a", "b", "c"], torch.tensor([[0.7, 2.0], [0.5, 3.0], [1.0, 1.0]])
    torch.manual_seed(3)
    team = _module(names, TeamConfig())
    team.class_weights = list(weights)
    start = [parameter.detach().clone() for parameter in team.parameters()]
    alone = []
    for number, voter in enumerate(team.voters):
        single = _network(TeamConfig())
        single.load_state_dict(voter.network.state_dict())
        voters = [OneVsRest(single, [number])]
        alone.append(SupervisedModule(names, voters, team.targets, team.optim))
        alone[-1].class_weights = [weights[number]]

    settings = {"max_epochs": 1, "limit_val_batches": 0}
    trainer = _fit(team, _fold(), **settings)
    assert trainer.global_step == 3
    assert any((a - b).abs().max() > 0.01 for a, b in zip(team.parameters(), start, strict=True))
    for voter, module in zip(team.voters, alone, strict=True):
        _fit(module, _fold(), **settings)
        expected = module.voters[0].network.state_dict()
        for name, tensor in voter.network.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-7, msg=name)


def test_no_branch_touches_another() -> None:
    torch.manual_seed(0)
    team = _module(["a", "b", "c"])
    owned = [{id(p) for p in voter.parameters()} for voter in team.voters]
    assert sum(map(len, owned)) == len(set().union(*owned)) == len(list(team.parameters()))
    batch = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, -1]), torch.ones(4))
    for b in range(3):
        team.zero_grad(set_to_none=True)
        team.loss(b, batch).backward()
        for other, voter in enumerate(team.voters):
            gradients = [p.grad for p in voter.parameters()]
            if other == b:
                assert any(g is not None and g.abs().sum() > 0 for g in gradients)
            else:
                assert all(g is None for g in gradients)


@pytest.mark.parametrize("count", [2, 5])
def test_a_team_has_as_many_branches_as_classes(count: int) -> None:
    torch.manual_seed(0)
    names = list("abcde")[:count]
    voters = _module(names).voters
    assert [voter.columns for voter in voters] == [(b,) for b in range(count)]
    team = Team(names, voters, Transform(32), Device.of(CPU))
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    prob = team.score(images)
    with torch.inference_mode():
        logits = voters[-1].network(Transform(32).normalize(images))
    assert prob.shape == (3, count)
    assert ((prob >= 0) & (prob <= 1)).all()
    # Of the two logits, the second is *true*.
    expected = torch.sigmoid(logits[:, 1] - logits[:, 0]).numpy()
    np.testing.assert_allclose(prob[:, -1], expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_validation_logs_the_recall_of_each_branch() -> None:
    data = _fold()
    voters = [OneVsRest(_FixedByPicture(data, b), [b]) for b in (0, 1)]
    team = SupervisedModule(["a", "b"], voters, _learner(LIGHT).targets, OptimConfig())
    trainer = _fit(team, data, max_epochs=1, limit_train_batches=0)
    trainer.validate(team, data, verbose=False)
    # Validated are the crops of classes -1, 0, 1, 2, once each.
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert metrics == {"val/a/true": 1.0, "val/a/false": 1.0, "val/b/true": 0.0, "val/b/false": 1.0}


class _FixedByPicture(nn.Module):
    """Votes true on class 0 alone if it is branch 0, never otherwise; knows pictures by heart."""

    def __init__(self, data: CropBatches, branch: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))
        images = data.transform.normalize(data.dataset.images)
        self.known = images[data.dataset.labels == 0] if branch == 0 else images[:0]

    def forward(self, images: Tensor) -> Tensor:
        true = torch.tensor([any(torch.equal(i, k) for k in self.known) for i in images])
        return torch.stack([(~true).float(), true.float()], dim=1) + self.unused


# -- decoding --------------------------------------------------------------------------------------

RED = (200, 40, 60)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return stream.getvalue()


def _content(square: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is not padding."""
    inside = (np.abs(square.astype(int) - np.array(PAD)[:, None, None]) > 20).any(axis=0)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (40, 80, (16, 0, 48, 64)),
        (80, 40, (0, 16, 64, 48)),
        (64, 64, (0, 0, 64, 64)),
        (8, 16, (16, 0, 48, 64)),  # small ones are enlarged
        (1600, 800, (0, 16, 64, 48)),  # large ones take JPEG's short cut
        (30, 40, (8, 0, 56, 64)),
    ],
)
def test_a_letterbox_keeps_the_shape_in_the_middle(
    kind: str, width: int, height: int, box: tuple[int, int, int, int]
) -> None:
    square = letterbox(_encoded(Image.new("RGB", (width, height), RED), kind), 64)
    assert square.shape == (3, 64, 64)
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous
    assert _content(square) == box
    left, top, right, bottom = box
    inside = square[:, top:bottom, left:right].reshape(3, -1)
    np.testing.assert_allclose(inside.T, np.broadcast_to(RED, inside.T.shape), atol=6)
    outside = np.ones((64, 64), dtype=bool)
    outside[top:bottom, left:right] = False
    assert (square[:, outside] == np.array(PAD)[:, None]).all()


@pytest.mark.parametrize("size", [(1, 100), (100, 1), (1, 1), (3, 1000)])
def test_a_sliver_is_still_a_picture(size: tuple[int, int]) -> None:
    square = letterbox(_encoded(Image.new("RGB", size, RED), "PNG"), 64)
    left, top, right, bottom = _content(square)
    assert max(right - left, bottom - top) == 64
    assert min(right - left, bottom - top) == (64 if size == (1, 1) else 1)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"), ("L", "PNG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"),
        ("LA", "PNG"), ("1", "PNG"),
    ],
)  # fmt: skip
def test_every_kind_of_picture_becomes_rgb(mode: str, kind: str) -> None:
    colour = (255, 255, 255) if mode == "1" else RED
    picture = Image.new("RGB", (50, 100), colour)
    converted = picture.quantize(8) if mode == "P" else picture.convert(mode)
    assert converted.mode == mode
    square = letterbox(_encoded(converted, kind), 64)
    if mode in ("L", "LA"):
        colour = (round(0.299 * RED[0] + 0.587 * RED[1] + 0.114 * RED[2]),) * 3
    np.testing.assert_allclose(square[:, 32, 32], colour, atol=6)
    unpadded = letterbox(_encoded(converted.crop((0, 0, 50, 50)), kind), 64)
    np.testing.assert_allclose(unpadded[:, 5, 60], colour, atol=6)
    assert (square[:, 32, 2] == np.array(PAD)).all()


def test_transparent_parts_get_the_letterbox_colour() -> None:
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    picture.paste((0, 255, 0, 0), (0, 0, 64, 32))
    square = letterbox(_encoded(picture, "PNG"), 64)
    assert square[:, 10, 32].tolist() == list(PAD)
    assert square[:, 50, 32].tolist() == [255, 0, 0]


def test_sixteen_bits_keep_their_shades() -> None:
    shades = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    square = letterbox(_encoded(Image.fromarray(shades), "PNG"), 64)
    np.testing.assert_allclose(square[0, 32], np.linspace(0, 255, 64), atol=1)


def test_a_picture_is_turned_as_its_camera_says() -> None:
    picture = Image.new("RGB", (64, 64), (0, 0, 0))
    picture.paste((255, 0, 0), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    square = letterbox(file.getvalue(), 64)
    assert square[:, 50, 32].tolist() == [255, 0, 0]


def test_a_picture_is_neither_mirrored_nor_turned() -> None:
    picture = Image.new("RGB", (64, 64), (0, 0, 0))
    picture.paste((255, 0, 0), (0, 0, 32, 32))
    picture.paste((0, 0, 255), (32, 0, 64, 32))
    square = letterbox(_encoded(picture, "PNG"), 64)
    assert square[:, 10, 10].tolist() == [255, 0, 0]
    assert square[:, 10, 50].tolist() == [0, 0, 255]
    assert square[:, 50, 10].tolist() == [0, 0, 0]


def test_decoding_keeps_the_order() -> None:
    shades = [(n * 12, 0, 0) for n in range(20)]
    # Pictures of many sizes take different times.
    encoded = [
        _encoded(Image.new("RGB", (2000 // (n + 1),) * 2, shade), "PNG")
        for n, shade in enumerate(shades)
    ]
    with ThreadPoolExecutor(4) as pool:
        pictures = Transform(16).decode(encoded, pool)
        assert Transform(16).decode([], pool).shape == (0, 3, 16, 16)
    assert pictures.shape == (20, 3, 16, 16)
    assert pictures.dtype == torch.uint8
    assert pictures[:, 0, 8, 8].tolist() == [red for red, *_ in shades]


class _Reader:
    """Hands out encoded crops by row, and notes which."""

    def __init__(self, crops: list[bytes]) -> None:
        self.crops, self.asked = crops, list[int]()

    def images(self, rows: NDArray[np.int64]) -> list[bytes]:
        self.asked += rows.tolist()
        return [self.crops[row] for row in rows]


def test_pixels_are_read_when_asked_for_and_kept_where_told() -> None:
    crops = [_encoded(Image.new("RGB", (8, 8), (n * 20, 0, 0)), "PNG") for n in range(10)]
    reader, kept = _Reader(crops), np.array([2, 5, 7])
    pixels = CropPixels(reader, Transform(8), kept)
    assert reader.asked == []
    memory = pixels[kept]
    assert memory[:, 0, 4, 4].tolist() == [40, 100, 140]
    assert pixels[kept] is memory  # not a copy
    mixed = pixels[np.array([7, 1, 2, 9, 7])]
    assert mixed[:, 0, 4, 4].tolist() == [140, 20, 40, 180, 140]
    assert reader.asked == [2, 5, 7, 1, 9]
    assert CropPixels(reader, Transform(8))[np.array([3])][0, 0, 4, 4] == 60


def test_padding_is_near_zero_once_normalised() -> None:
    pad = torch.tensor(PAD, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert Transform(4).pad == PAD
    assert Transform(4).normalize(pad).abs().max() < 0.01
    white = Transform(4).normalize(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    assert white[0, :, 0, 0].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rel=1e-4
    )
    assert white.is_contiguous(memory_format=torch.channels_last)


# -- augmentation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", ["affine", "strong"])
def test_augmentation_keeps_shape_and_type_and_follows_the_seed(strength: str) -> None:
    images = torch.randn(6, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    once, again, other = (
        augment(images, strength, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert once.shape == images.shape
    assert once.dtype == torch.float32
    assert once.isfinite().all()
    assert once.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(once, again)
    assert not torch.allclose(once, other)


@pytest.mark.parametrize("strength", ["affine", "strong"])
def test_each_crop_is_changed_in_its_own_way(strength: str) -> None:
    one = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    changed = augment(one.expand(8, -1, -1, -1), strength, torch.Generator().manual_seed(0))
    for a in range(8):
        assert not torch.allclose(changed[a], one[0], atol=1e-3)
        for b in range(a):
            assert not torch.allclose(changed[a], changed[b], atol=1e-3)


def test_augmentation_moves_as_far_as_it_says() -> None:
    """Pictures of their own coordinates tell where each pixel came from."""
    count, side = 400, 33
    axis = torch.linspace(-1, 1, side + 1)[:-1] + 1 / side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pictures = torch.stack([x, y, torch.full_like(x, 0.7)]).expand(count, -1, -1, -1)
    source = augment(pictures, "affine", torch.Generator().manual_seed(0))
    # Nothing but places changes, and nothing comes from outside of the picture.
    torch.testing.assert_close(source[:, 2], torch.full((count, side, side), 0.7))
    assert source.abs().max() < 1
    # Around the middle nothing is reflected: source = matrix @ (x, y) + shift.
    step = 2 / side * 6
    by_x = (source[:, :2, 16, 19] - source[:, :2, 16, 13]) / step
    by_y = (source[:, :2, 19, 16] - source[:, :2, 13, 16]) / step
    shift = source[:, :2, 16, 16] / 2  # of the side
    torch.testing.assert_close(by_x.norm(dim=1), by_y.norm(dim=1), rtol=1e-3, atol=1e-3)
    assert (by_x * by_y).sum(dim=1).abs().max() < 1e-3  # no shear
    mirrored = by_x[:, 0] < 0
    assert 0.4 < mirrored.float().mean() < 0.6
    determinant = by_x[:, 0] * by_y[:, 1] - by_x[:, 1] * by_y[:, 0]
    assert torch.equal(determinant < 0, mirrored)
    assert (by_y[:, 1] > 0).all()  # nobody stands on their head
    angle = torch.rad2deg(torch.atan2(by_y[:, 0], by_y[:, 1]))
    assert -3 < angle.min() < -2.6
    assert 2.6 < angle.max() < 3
    for direction in (0, 1):
        assert -0.061 < shift[:, direction].min() < -0.055
        assert 0.055 < shift[:, direction].max() < 0.061
    scale = by_y.norm(dim=1)
    assert 0.899 < scale.min() < 0.91
    assert 1.09 < scale.max() < 1.101


def test_strong_augmentation_blanks_a_square_of_every_second_crop_and_changes_the_light() -> None:
    count, side = 400, 40
    flat = torch.full((count, 3, side, side), 1.0)
    changed = augment(flat, "strong", torch.Generator().manual_seed(0))
    blank = (changed == 0).all(dim=1)
    assert 0.4 < blank.flatten(1).any(dim=1).float().mean() < 0.6
    for picture in blank[blank.flatten(1).any(dim=1)]:
        rows, columns = picture.any(dim=1), picture.any(dim=0)
        assert torch.equal(picture, rows[:, None] & columns[None, :])  # a rectangle, cut by the rim
        assert rows.sum() <= 2 * side / 5
        assert columns.sum() <= 2 * side / 5
    light = changed.flatten(1).amax(dim=1)
    assert 0.45 < light.min() < 0.6
    assert 1.4 < light.max() < 1.55


# -- batches ---------------------------------------------------------------------------------------


def _positions(count: int, batch: int, folds: int = 5, fold: int = 2) -> CropBatches:
    """Every picture holds its own position."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    config = DataConfig(batch_size=batch)
    numbers = torch.arange(count)
    return _batches(images, numbers, numbers % folds, fold, config, "none", 0)


def _epoch(loader: Any) -> list[list[int]]:
    batches = []
    for images, labels, _ in loader:
        assert images[:, 0, 0, 0].tolist() == labels.tolist()  # pictures keep their labels
        batches.append(labels.tolist())
    return batches


def test_training_and_validation_share_nothing_and_leave_nothing_out() -> None:
    data = _positions(200, 64)
    training, validation = set(data.order.positions.tolist()), set(data.validation.tolist())
    assert not training & validation
    assert training | validation == set(range(200))
    assert validation == set(range(2, 200, 5))
    assert {p for batch in _epoch(data.train_dataloader()) for p in batch} <= training
    shown = [p for batch in _epoch(data.val_dataloader()) for p in batch]
    assert shown == sorted(validation)


def test_batches_are_of_64_and_16() -> None:
    data = _positions(200, DataConfig().batch_size)
    training, validation = data.train_dataloader(), data.val_dataloader()
    assert [len(b) for b in _epoch(training)] == [64, 64]  # 160 crops: 32 wait for another epoch
    assert [len(b) for b in _epoch(validation)] == [16, 16, 8]
    assert len(training) == 2
    assert len(validation) == 3


def test_an_epoch_shows_no_crop_twice_and_each_epoch_another_order() -> None:
    loader = _positions(200, 16).train_dataloader()
    first, second = ([p for batch in _epoch(loader) for p in batch] for _ in range(2))
    assert len(set(first)) == len(first) == 160
    assert first != second
    assert first != sorted(first)
    again = [p for batch in _epoch(_positions(200, 16).train_dataloader()) for p in batch]
    assert again == first


@pytest.mark.parametrize(("count", "sizes"), [(60, [48]), (78, [63]), (80, [64]), (82, [64])])
def test_a_short_batch_counts_only_where_it_is_the_only_one(count: int, sizes: list[int]) -> None:
    data = _positions(count, 64, fold=4)
    loader = data.train_dataloader()
    assert [len(b) for b in _epoch(loader)] == sizes
    assert len(loader) == len(sizes)


class _Witness(pl.LightningModule):
    """Keeps the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))
        self.trained: list[Batch] = []
        self.validated: list[Batch] = []

    def training_step(self, batch: Batch, index: int) -> Tensor:
        self.trained.append(batch)
        return self.unused * 1.0

    def validation_step(self, batch: Batch, index: int) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("augment", ["none", "affine", "strong"])
def test_training_alone_is_augmented(augment: str) -> None:
    witness, twin = _Witness(), _Witness()
    _fit(witness, _fold(augment=augment), max_epochs=2)
    data = _fold(augment=augment)
    _fit(twin, data, max_epochs=2)
    clean = data.transform.normalize(data.dataset.images)
    assert len(witness.trained) == 6
    assert len(witness.validated) == 4  # 4 crops in batches of 3, two epochs
    for (images, *_), (same, *_) in zip(witness.trained, twin.trained, strict=True):
        assert torch.equal(images, same)
        known = [any(torch.equal(image, one) for one in clean) for image in images]
        assert all(known) if augment == "none" else not any(known)
    for images, *_ in witness.validated:
        assert all(any(torch.equal(image, one) for one in clean) for image in images)
    if augment != "none":
        # The same crop looks different in the next epoch.
        assert not torch.equal(witness.trained[0][0], witness.trained[3][0])


# -- files -----------------------------------------------------------------------------------------

GREY = Transform(32, (0.5,) * 3, (0.5,) * 3, "bilinear")


def _save(network: nn.Module, file: Path) -> None:
    save_voter(OneVsRest(network, [0]), file, ["a"], Transform(32), {})


@pytest.mark.parametrize("transform", [Transform(32), GREY])
@pytest.mark.parametrize("name", ["paper", "softmax"])
def test_voters_survive_the_disk(tmp_path: Path, name: str, transform: Transform) -> None:
    torch.manual_seed(0)
    learner, classes = _learner(LIGHT, name), ["v1.walker", "rider"]
    voters: list[Voter] = [learner.build(classes, one) for one in learner.groups(classes)]
    voters = [voter.to(memory_format=torch.channels_last) for voter in voters]
    learner.save(voters, RoundFiles(tmp_path), classes, 3, transform)
    written = sorted(path.name for path in (tmp_path / "branches").iterdir())
    by_class = ["rider.fold-3.safetensors", "v1.walker.fold-3.safetensors"]
    assert written == (by_class if name == "paper" else ["fold-3.safetensors"])
    device, voting = Device.of(CPU), {"v1.walker": [3], "rider": [3]}
    back = voting_team(_learner(LIGHT, name), RoundFiles(tmp_path), classes, voting, device)
    here = Team(classes, voters, transform, device)
    assert back.transform == transform
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    np.testing.assert_array_equal(back.score(images), here.score(images))


def test_a_file_from_before_transforms_were_recorded_takes_imagenets_numbers(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.fold-0.safetensors"
    save_file({"weight": torch.zeros(1)}, file, {"class": "a", "image_size": "32"})
    assert load_transform(file, 32) == Transform(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    save_file({"weight": torch.zeros(1)}, file)
    assert load_transform(file, 32) == Transform(32)
    save_file({"weight": torch.zeros(1)}, file, {"transform": "{}"})
    with pytest.raises(UserError, match=r"a\.fold-0\.safetensors: expected the weights"):
        load_transform(file, 32)


def test_classes_that_share_a_voter_share_a_file(tmp_path: Path) -> None:
    names, files = ["a", "b", "c"], RoundFiles(tmp_path)
    assert voter_file(files, names, [1], 0).name == "b.fold-0.safetensors"
    assert voter_file(files, names, [0, 2], 1).name == "a+c.fold-1.safetensors"
    assert voter_file(files, names, [0, 1, 2], 1).name == "fold-1.safetensors"


@pytest.mark.parametrize("content", [None, b"", b"not a branch", b"\xff" * 64])
def test_a_broken_branch_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.fold-0.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.fold-0\.safetensors: expected the weights"):
        load_weights(nn.Linear(100, 100), file)
    with pytest.raises(UserError, match=r"a\.fold-0\.safetensors: expected the weights"):
        load_transform(file, 32)


def test_a_branch_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.fold-0.safetensors"
    _save(nn.Linear(100, 100), file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="expected the weights of a branch"):
        load_weights(nn.Linear(100, 100), file)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.fold-0.safetensors"
    _save(nn.Linear(100, 100), file)
    with pytest.raises(UserError, match=r"another network than team\.backbone"):
        load_weights(nn.Linear(100, 7), file)


def test_a_model_of_one_picture_size_is_refused_for_another() -> None:
    fixed = TeamConfig(backbone="vit_tiny_patch16_224", attention="none")
    with pytest.raises(UserError, match=r"set data.image_size=224"):
        Backbone.of(fixed, 128)
    Backbone.of(fixed, 224)
    Backbone.of(TeamConfig(), 128)
