"""Backbones side by side: what linear heads on their features get right, how fast, how large.

    python benchmarks/backbones.py cifar-vehicles.parquet

Measured are the backbones whose packages are installed (``pip install 'collabteam[backbones]'``)
at each size, without a camera: crops of the split ``train`` are drawn once for each seed, the same
number of each class, ``learner=probe`` fits its five folds on them, and the mean of their votes is
held against crops of the split ``test``. *Recall* is the mean of the recalls of *true* and of
*false* of all classes; *right at 80 %* is the share of right labels among the 80 % that the heads
are surest about. *Projected* is the recall with ``features.projection=256``. Features come from
OpenVINO where it is installed, else from torch. Both are timed on one batch of decoded crops, in
turns, so that other work on the machine meets both.

Others of timm's models are listed with their licence, which timm knows, and their size alone.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from collabteam.features.compiled import has_openvino
from collabteam.features.devices import Device, set_threads
from collabteam.features.extractor import ComputedFeatures, FeatureExtractor
from collabteam.features.images import CropPixels, Pixels
from collabteam.features.projection import fit_projection
from collabteam.features.weights import installed
from collabteam.learners.base import FitEnvironment, FoldTask, SharedSettings
from collabteam.learners.choice import CrossValidation, choose, cross_validate
from collabteam.learners.folds import assign_folds
from collabteam.learners.methods.probe import ProbeLearner
from collabteam.settings import FeaturesConfig
from collabteam.team.team import probabilities

FOLDS = 5
PROJECTION = 256
OTHERS = (
    "mobilenetv4_conv_small.e2400_r224_in1k", "repvit_m0_9.dist_450e_in1k",
    "convnext_femto.d1_in1k", "tiny_vit_5m_224.dist_in22k_ft_in1k",
    "vit_small_patch14_dinov2.lvd142m", "fastvit_t8.apple_in1k",
    "convnextv2_atto.fcmae_ft_in1k", "vit_small_patch16_dinov3.lvd1689m",
)  # fmt: skip
CPU = Device(torch.device("cpu"), bf16=False)


@dataclass(frozen=True)
class Crops:
    """Encoded crops with their labels, as a catalog hands them out."""

    encoded: list[bytes]
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]
    classes: list[str]

    @classmethod
    def read(cls, file: Path) -> Crops:
        table = pq.read_table(file, columns=["image", "label", "split"])
        names = np.array(table["label"].to_pylist())
        classes = sorted(set(names.tolist()))
        labels = np.searchsorted(np.array(classes), names)
        return cls(
            table["image"].to_pylist(), labels, np.array(table["split"].to_pylist()), classes
        )

    def images(self, rows: NDArray[np.int64]) -> list[bytes]:
        return [self.encoded[row] for row in rows.tolist()]

    def draw(self, split: str, count: int, seed: int) -> NDArray[np.int64]:
        """So many crops of a split, the same number of each class."""
        rng, each = np.random.default_rng(seed), count // len(self.classes)
        here = [
            np.flatnonzero((self.splits == split) & (self.labels == c))
            for c in range(len(self.classes))
        ]
        return np.sort(np.concatenate([rng.choice(rows, each, replace=False) for rows in here]))


@dataclass(frozen=True)
class Known:
    """Features by row that are there already."""

    rows: NDArray[np.int64]
    values: torch.Tensor
    digest: str = ""

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    def __getitem__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        return self.values[torch.from_numpy(np.searchsorted(self.rows, rows))]


def judged(
    crops: Crops, known: Known, train: NDArray[np.int64], test: NDArray[np.int64], seed: int
) -> tuple[float, float, CrossValidation]:
    """Recall and share right at 80 % of the probe, and its cross-validation."""
    labels = crops.labels[train]
    folds = assign_folds(labels, train.astype(str), FOLDS, seed)
    learner = ProbeLearner(ProbeLearner.Settings(), SharedSettings())
    voters = []
    for fold in range(FOLDS):
        task = FoldTask(
            tuple(crops.classes), train, labels, np.ones(len(train), np.float32),
            np.ones(len(train), bool), folds, fold, cast(Pixels, None), known, seed,
        )  # fmt: skip
        voters += learner.fit(task, FitEnvironment(CPU, Path("nowhere")))
    with torch.inference_mode():
        prob = probabilities(voters, known[test], len(crops.classes)).numpy()
    truth = crops.labels[test][:, None] == np.arange(len(crops.classes))
    sides = [(prob > 0.5)[truth[:, c], c].mean() for c in range(prob.shape[1])]
    sides += [(prob <= 0.5)[~truth[:, c], c].mean() for c in range(prob.shape[1])]
    chosen = prob.argmax(axis=1)
    joint = np.where(np.arange(prob.shape[1]) == chosen[:, None], prob, 1 - prob).prod(axis=1)
    right = (chosen == crops.labels[test])[np.argsort(-joint, kind="stable")]
    found = cross_validate(known[train], labels, folds, len(crops.classes))
    return float(np.mean(sides)), float(right[: len(right) * 8 // 10].mean()), found


def speeds(extractors: dict[str, FeatureExtractor], images: torch.Tensor, turns: int) -> Any:
    """Crops a second of each engine, one figure for each turn."""
    taken: dict[str, list[float]] = {name: [] for name in extractors}
    for turn in range(turns + 1):
        for name, one in extractors.items():
            began = time.perf_counter()
            one(images)
            if turn:  # the first one prepares
                taken[name].append(len(images) / (time.perf_counter() - began))
    return taken


def spread(values: list[float], form: str) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):{form}} ({low:{form}} to {high:{form}})"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    best = next((one for one in ("avx512_bf16", "avx512f", "avx2") if one in flags.split()), "")
    return f"{named[0] if named else platform.processor()}, {best}"


def licences() -> Table:
    table = Table("backbone", "licence", "million weights", "features", "made for, px")
    for name in [*installed(), *OTHERS]:
        known = timm.get_pretrained_cfg(name)
        if known is None:
            continue
        with torch.device("meta"):
            model: Any = timm.create_model(name, num_classes=0)
        weights = sum(one.numel() for one in model.parameters()) / 1e6
        dim = getattr(model, "head_hidden_size", model.num_features)
        told = known.license or "not stated by timm"
        table.add_row(name, told, f"{weights:.1f}", str(dim), str(known.input_size[-1]))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crops", type=Path, help="Parquet: image, label, split (train, test)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128])
    parser.add_argument("--clicks", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--test", type=int, default=900)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    threads = set_threads(asked.threads)
    crops = Crops.read(asked.crops)
    test = crops.draw("test", asked.test, 99)
    drawn = {seed: crops.draw("train", asked.clicks, seed) for seed in asked.seeds}
    pool = np.unique(np.concatenate(list(drawn.values())))  # as a projection is fitted
    rows = np.unique(np.concatenate([pool, test]))
    console = Console(width=150)
    print(
        f"{processor()}, {threads} thread(s); {len(rows)} crops, {asked.clicks} clicks, seeds "
        f"{asked.seeds}, {len(test)} test crops, {asked.turns} turns of {64 * threads} crops"
    )
    table = Table("backbone", "px", "recall, %", "right at 80 %", "projected", "torch, crops/s",
                  "OpenVINO, crops/s", "bytes a crop")  # fmt: skip
    found: dict[tuple[int, int], dict[str, CrossValidation]] = {}
    for size in asked.sizes:
        for name in installed():
            config = FeaturesConfig([name], [], size)
            extractors = {"torch": FeatureExtractor(config, CPU)}
            if has_openvino():
                extractors["openvino"] = FeatureExtractor(replace(config, engine="openvino"), CPU)
            *_, quickest = extractors.values()
            pixels = CropPixels(crops, quickest.transform)
            fast = speeds(extractors, pixels[rows[: 64 * threads]], asked.turns)
            values = ComputedFeatures(pixels, quickest)[rows].half().float()
            known = Known(rows, values)
            small = fit_projection(known[pool], PROJECTION).layer()(values).half().float()
            figures = []
            for seed, train in drawn.items():
                recall, right, cross = judged(crops, known, train, test, seed)
                projected, *_ = judged(crops, Known(rows, small), train, test, seed)
                figures.append([100 * recall, 100 * right, 100 * projected])
                found.setdefault((size, seed), {})[name] = cross
            row = (
                name, str(size),
                *(spread(list(column), ".1f") for column in zip(*figures, strict=True)),
                *(spread(fast[e], ".0f") if e in fast else "" for e in ("torch", "openvino")),
                f"{2 * values.shape[1]:,} (projected {2 * PROJECTION})",
            )  # fmt: skip
            table.add_row(*row)
            print("done:", *row, flush=True)
    console.print(table)
    for (size, seed), those in found.items():
        recalls = ", ".join(f"{name} {one.recall:.1%}" for name, one in those.items())
        chosen = choose(those, np.arange(asked.clicks // len(crops.classes) * len(crops.classes)))
        print(f"features.backbone=auto at {size} px, seed {seed}: {chosen} ({recalls})")
    console.print(licences())


if __name__ == "__main__":
    main()
