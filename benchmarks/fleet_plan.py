"""Estimate the cost of the paper's fleet: 193 cameras, 50,000 hours, 3.5 million objects.

    python benchmarks/fleet_plan.py                      # measures and prints the plan
    python benchmarks/fleet_plan.py --train S --score S  # with figures measured before

Two figures are measured here, in seconds of one core: training one crop for one epoch, and scoring
one crop, both for a team of three with the settings of `experiment=paper`. The crops are noise,
which costs the same as real pictures. ``MEASURED`` lists other measured figures with their sources;
``ASSUMED`` lists figures that were not measured here. docs/fleet-plan.md explains the output.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from collabteam.features.devices import Device, set_threads
from collabteam.features.extractor import ComputedFeatures, FeatureExtractor
from collabteam.features.images import Transform
from collabteam.learners.base import FitEnvironment, FoldTask
from collabteam.learners.teams import fit_fold, learner_for
from collabteam.settings import DataConfig, FeaturesConfig, OptimConfig, TrainConfig, TrainerConfig
from collabteam.storage.layout import RoundFiles
from collabteam.team.team import Team

CAMERAS, HOURS, OBJECTS, CLASSES = 193, 50_000, 3_500_000, 3
ROUNDS = 4
"""i0 and three increments."""
MEASURED = {
    "seconds of a core per analysed frame": 92.7 / 795,
    "bytes of a picture": 3093,
    "bytes of the catalog per crop, without the picture": 144,
    "bytes of a round's team": 136e6,
}
ASSUMED = {
    "seconds of a person per crop": 1.0,
    "bit/s of footage": 2e6,
    "analysed frames per second": 10.0,
    "crops of an object": 1.0,
    "times that a GPU is faster than a core": 100.0,
}


class Noise:
    """Pictures of noise by row."""

    def __init__(self, count: int) -> None:
        self.transform = Transform(DataConfig().image_size)
        side = self.transform.size
        self.images = torch.randint(0, 255, (count, 3, side, side), dtype=torch.uint8)

    def __getitem__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        return self.images[torch.from_numpy(rows)]


def training() -> float:
    """Measure the core seconds to train a team of three on one crop for one epoch."""
    rng = np.random.default_rng(0)
    count, pixels = 320, Noise(320)
    device = Device.of(TrainerConfig())
    task = FoldTask(
        classes=("a", "b", "c"),
        rows=np.arange(count),
        labels=rng.integers(0, CLASSES, count),
        weights=np.ones(count, np.float32),
        human=np.ones(count, bool),
        folds=np.arange(count) % 5,
        fold=0,
        pixels=pixels,
        features=ComputedFeatures(pixels, FeatureExtractor(FeaturesConfig(), device)),
    )
    spent = []
    for epochs in (1, 2):
        began = time.process_time()
        learner = learner_for(TrainConfig(optim=OptimConfig(epochs=epochs)))
        with tempfile.TemporaryDirectory() as folder:
            env = FitEnvironment(device, Path(folder) / "unfinished")
            fit_fold(learner, task, env, RoundFiles(Path(folder)))
        spent.append(time.process_time() - began)
    # The difference of the two is one epoch, without the fixed cost of a fit.
    return (spent[1] - spent[0]) / (count * 4 / 5)


def scoring() -> float:
    """Measure the core seconds to score one decoded crop."""
    names, learner, images = ["a", "b", "c"], learner_for(TrainConfig()), Noise(256).images
    voters = [learner.build(names, columns) for columns in learner.groups(names)]
    team = Team(names, voters, learner.transform, Device.of(TrainerConfig()))
    team.score(images[:32])
    began = time.process_time()
    team.score(images)
    return (time.process_time() - began) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", type=float, help="core seconds per crop and epoch")
    parser.add_argument("--score", type=float, help="core seconds per crop")
    given = parser.parse_args()
    set_threads(1)
    train, score = given.train or training(), given.score or scoring()
    print(f"training: {train:.4f} s of a core per crop and epoch; scoring: {score:.4f} s per crop")
    for name, value, unit in plan(train, score):
        print(f"{name:58} {value:12,.0f} {unit}")


def plan(train: float, score: float) -> list[tuple[str, float, str]]:
    """Compute the plan: each task, its amount and the unit."""
    measured, assumed = MEASURED, ASSUMED
    data, optim = DataConfig(), OptimConfig()
    fits = CAMERAS * ROUNDS * len(data.train_folds)
    # A round trains on 1,000 crops a class more than the one before, four fifths in each fold.
    per_camera = sum(
        1000 * CLASSES * number * (1 - 1 / data.folds) * optim.epochs * len(data.train_folds)
        for number in range(1, ROUNDS + 1)
    )
    crops = OBJECTS * assumed["crops of an object"]
    training_hours = CAMERAS * per_camera * train / 3600
    # Each round scores the pool, and the labelling at the end uses the last scores.
    scoring_hours = crops * ROUNDS * score / 3600
    frames = HOURS * 3600 * assumed["analysed frames per second"]
    footage_hours = frames * measured["seconds of a core per analysed frame"] / 3600
    bytes_crops = crops * (
        measured["bytes of a picture"]
        + measured["bytes of the catalog per crop, without the picture"]
    )
    faster = assumed["times that a GPU is faster than a core"]
    verified = CAMERAS * 1000 * CLASSES
    tested = CAMERAS * 200 * CLASSES
    person = assumed["seconds of a person per crop"]
    bytes_teams = CAMERAS * ROUNDS * measured["bytes of a round's team"]
    bytes_footage = HOURS * 3600 * assumed["bit/s of footage"] / 8
    gpu_hours = (training_hours + scoring_hours) / faster
    return [
        ("fits: cameras x rounds x folds", fits, "fits of a team of three"),
        ("of one branch each", fits * CLASSES, "networks"),
        ("footage: hours x 3600 x frames/s x s/frame", footage_hours, "core hours"),
        ("training: crops x epochs x s", training_hours, "core hours"),
        ("scoring: crops x rounds x s", scoring_hours, "core hours"),
        ("training and scoring, GPU by assumption", gpu_hours, "GPU hours"),
        ("crops on disk", bytes_crops / 1e9, "GB"),
        ("teams on disk: cameras x rounds", bytes_teams / 1e9, "GB"),
        ("footage over the network: hours x bit/s", bytes_footage / 1e12, "TB"),
        ("crops over the network, cut at the camera", bytes_crops / 1e9, "GB"),
        ("verified for i0: cameras x 1000 x classes", verified, "crops"),
        ("verified for the test sets: cameras x 200 x classes", tested, "crops"),
        ("verifying", (verified + tested) * person / 3600, "hours of persons"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
