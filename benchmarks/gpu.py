"""A GPU held against the processor: features, learners, scoring and a detector, and their speed.

    python benchmarks/gpu.py                       # at most five minutes; one line without a GPU
    python benchmarks/gpu.py --device cpu          # the processor against itself, to try the script

Every row computes the same on both, from pictures drawn in code, and compares within a tolerance
that is stated. Networks compute in fp32 on both. The exit code is 1 if a row is outside.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from collabteam.catalog.records import UNLABELLED
from collabteam.features.devices import Device
from collabteam.features.extractor import ComputedFeatures, FeatureExtractor
from collabteam.learners.base import FitEnvironment, FoldTask, SharedSettings
from collabteam.learners.teams import open_learner
from collabteam.settings import DataConfig, FeaturesConfig
from collabteam.team.team import Team
from collabteam.testing.learners import draw_task

SIDE, CROPS, POOL, STEPS = 64, 384, 384, 24
SHARED = SharedSettings(
    data=DataConfig(batch_size=32, augment="affine"), features=FeaturesConfig(image_size=SIDE)
)
CPU = Device(torch.device("cpu"), bf16=False)


@dataclass(frozen=True)
class Row:
    """A comparison.

    Attributes:
        name: What was computed.
        difference: Largest or mean difference of the results.
        allowed: The tolerance.
        unit: What the rates count.
        rates: Per second, on the processor and on the device.
    """

    name: str
    difference: float
    allowed: float
    unit: str
    rates: tuple[float, float]


def timed(work: Callable[[], Any], device: Device) -> tuple[Any, float]:
    """A result and its seconds."""
    began = time.perf_counter()
    found = work()
    if device.torch.type == "cuda":
        torch.cuda.synchronize()
    return found, time.perf_counter() - began


def pictures(task: FoldTask) -> torch.Tensor:
    """The labelled crops of a task (N, 3, S, S) uint8."""
    return task.pixels[task.rows[task.labels != UNLABELLED]]


def features(other: Device) -> Row:
    """Features of the packaged backbone: the largest difference, in deviations of a feature."""
    images = pictures(draw_task(open_learner({"name": "probe"}, SHARED), crops=CROPS))
    found, seconds = [], []
    for device in (CPU, other):
        extractor = FeatureExtractor(SHARED.features, device)
        extractor(images[:32])
        values, spent = timed(lambda extractor=extractor: extractor(images), device)
        found.append(values)
        seconds.append(spent)
    difference = float(((found[0] - found[1]).abs() / found[0].std()).max())
    return Row("features", difference, 0.02, "crops", rates(len(images), seconds))


def learner(name: str, allowed: float, other: Device, **settings: Any) -> Row:
    """Out-of-fold probabilities of a fit: the mean difference."""
    made = open_learner({"name": name, **settings}, SHARED)
    task = draw_task(made, crops=CROPS, pool=POOL)
    images, found, seconds = pictures(task), [], []
    for device in (CPU, other):
        extractor = FeatureExtractor(SHARED.features, device)
        here = replace(task, features=ComputedFeatures(task.pixels, extractor))
        with tempfile.TemporaryDirectory() as folder:
            env = FitEnvironment(device, Path(folder))
            voters, spent = timed(lambda here=here, env=env: made.fit(here, env), device)
        team = Team(
            task.classes, voters, made.transform, device, extractor if made.on_features else None
        )
        found.append(team.score(images))
        seconds.append(spent)
    difference = float(np.abs(found[0] - found[1]).mean())
    done = CROPS if name == "probe" else STEPS * 32
    return Row(name, difference, allowed, "crops", rates(done, seconds))


def scoring(other: Device) -> Row:
    """Probabilities of one network: the largest difference."""
    made = open_learner({"name": "finetune"}, SHARED)
    task = draw_task(made, crops=CROPS)
    images, found, seconds = pictures(task), [], []
    for device in (CPU, other):
        torch.manual_seed(0)
        voter = made.build(task.classes, made.groups(task.classes)[0])
        team = Team(task.classes, [voter], made.transform, device)
        team.score(images[:32])
        values, spent = timed(lambda team=team: team.score(images), device)
        found.append(values)
        seconds.append(spent)
    difference = float(np.abs(found[0] - found[1]).max())
    return Row("scoring", difference, 0.01, "crops", rates(len(images), seconds))


def detector(other: Device) -> Row:
    """Raw outputs of a torchvision detector's backbone: the largest difference, in deviations."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    model: Any = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    frames = torch.rand(8, 3, 320, 320)
    found, seconds = [], []
    with torch.inference_mode():
        for device in (CPU, other):
            trunk = model.backbone.to(device.torch)
            given = frames.to(device.torch)
            trunk(given[:1])
            outputs, spent = timed(lambda trunk=trunk, given=given: trunk(given), device)
            found.append(torch.cat([one.flatten().float().cpu() for one in outputs.values()]))
            seconds.append(spent)
    difference = float(((found[0] - found[1]).abs() / found[0].std()).max())
    return Row("detector's network", difference, 0.02, "frames", rates(len(frames), seconds))


def rates(count: int, seconds: list[float]) -> tuple[float, float]:
    """Items a second, on both devices."""
    return count / seconds[0], count / seconds[1]


def main() -> int:
    """Compare, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU on this machine: nothing was compared")
        return 0
    if asked.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    other = Device(torch.device(asked.device), bf16=False)
    rows = [
        features(other),
        learner("probe", 0.01, other),
        # Rounding grows with every step of training: the probabilities must agree in the mean.
        learner("finetune", 0.05, other, steps=STEPS),
        learner("consistency", 0.05, other, steps=STEPS),
        scoring(other),
        detector(other),
    ]
    table = Table("", "difference", "allowed", "processor, a second", f"{asked.device}, a second")
    for row in rows:
        speeds = [f"{rate:,.0f} {row.unit}" for rate in row.rates]
        table.add_row(row.name, f"{row.difference:.1e}", f"{row.allowed:g}", *speeds)
    Console().print(table)
    outside = [row.name for row in rows if not row.difference <= row.allowed]
    if outside:
        print(f"outside the tolerance: {', '.join(outside)}", file=sys.stderr)
    return int(bool(outside))


if __name__ == "__main__":
    sys.exit(main())
