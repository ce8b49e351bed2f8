"""Benchmark labelling by engine and precision, against a plain loop over timm networks.

python benchmarks/label.py ROOT CAMERA ROUND [--crops 2000] [--turns 5] [--threads 0]
    [--batch-size 256] [--only torch-bf16,openvino-int8]

All of them turn encoded crops into probabilities. Ours reads the catalog and writes the same files
as ``label``. The plain loop is the obvious first version: torchvision's ImageFolder over the same
crops as files, a DataLoader, and the same timm networks one after the other, fp32 in eval mode. All
take turns in one process. A ratio compares rates of the same turn, so unlike a single rate it is
valid on a busy machine. The one-time preparation of a team (conversion, calibration) is timed
separately.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from collabteam import Catalog, load_team
from collabteam.features.devices import set_threads
from collabteam.rounds.records import RoundRecord
from collabteam.settings import TrainerConfig
from collabteam.storage.layout import RoundFiles
from collabteam.team.engines import Engine, disagreement, open_engine
from collabteam.team.predictions import PART, PredictionStore
from collabteam.team.team import load_weights
from collabteam.team.votes.consensus import Consensus

ENGINES = ("torch-fp32", "torch-bf16", "openvino-fp32", "openvino-bf16", "openvino-int8")


def plain_loop(folder: Path, images: Path, workers: int, batch_size: int) -> Callable[[], object]:
    """Run the team's timm networks over a folder of images."""
    record = RoundRecord.read(RoundFiles(folder).record, "train the round again")
    team, side = record.settings["team"], record.image_size
    if team["stem"] != "standard":
        raise SystemExit("the plain loop takes networks as timm makes them: team.stem=standard")
    attention = None if team["attention"] == "none" else {"attn_layer": team["attention"]}
    networks: list[nn.Module] = []
    for name, folds in record.voting.items():
        for fold in folds:
            network = timm.create_model(team["backbone"], num_classes=2, block_args=attention)
            load_weights(network, RoundFiles(folder).branch(name, fold))
            networks.append(network.eval())
    ready = transforms.Compose(
        [
            transforms.Resize((side, side)),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    # Workers are spawned, because Lance does not support fork; persistent, to exclude their start.
    loader = DataLoader(
        ImageFolder(images, ready),
        batch_size,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
    )

    def run() -> object:
        found = []
        with torch.inference_mode():
            for batch, _ in loader:
                found.append([network(batch).softmax(dim=1)[:, 1] for network in networks])
        return found

    return run


def ours(engine: Engine, catalog: Catalog, rows: NDArray[np.int64], batch_size: int) -> object:
    """Score crops from the catalog to files, as ``label`` does; return the probabilities."""
    index, found = catalog.index(), []
    with tempfile.TemporaryDirectory() as folder:
        scores = PredictionStore(Path(folder) / "scores", "benchmark", engine.classes, index)
        for start in range(0, len(rows), PART):
            chunk = rows[start : start + PART]
            prob = np.concatenate(list(engine.score_rows(catalog, chunk, batch_size)))
            scores.add(chunk, prob)
            found.append(prob)
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("camera")
    parser.add_argument("round", type=int)
    parser.add_argument("--crops", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--only", default=",".join(ENGINES), help="engines to measure; default: %(default)s"
    )
    given = parser.parse_args()

    trainer = TrainerConfig(
        accelerator="cpu", threads=given.threads, score_batch_size=given.batch_size
    )
    threads = set_threads(given.threads)
    catalog = Catalog.open(given.root, given.camera)
    folder = catalog.folder / f"round-{given.round}"
    count = len(catalog.index())
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(count, min(given.crops, count), replace=False))

    def calibration(wanted: int) -> list[bytes]:
        rng = np.random.default_rng(1)
        return catalog.images(np.sort(rng.choice(count, min(wanted, count), replace=False)))

    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "crops"
        images.mkdir()
        for row, image in zip(rows, catalog.images(rows), strict=True):
            (images / f"{row:08d}.jpg").write_bytes(image)
        lines: dict[str, Callable[[], object]] = {
            f"plain, workers={n}": plain_loop(folder, Path(scratch), n, given.batch_size)
            for n in (0, 2)
        }
        for name in given.only.split(","):
            began = time.perf_counter()
            kind, _, precision = name.partition("-")
            files = RoundFiles(folder)
            load = partial(load_team, files)
            engine = open_engine(load, files, kind, precision, trainer, calibration)
            taken = time.perf_counter() - began
            print(f"{name}: opened in {taken:.1f} s, margins {getattr(engine, 'margins', '-')}")
            lines[name] = lambda engine=engine: ours(engine, catalog, rows, given.batch_size)
        report(lines, len(rows), given.turns)
        print(f"{len(rows)} crops, {threads} threads, batches of {given.batch_size}")
        print(f"load average {os.getloadavg()[0]:.1f} at the end")
        exact = load_team(RoundFiles(folder), TrainerConfig(accelerator="cpu", precision="fp32"))
        reference = ours(exact, catalog, rows, given.batch_size)
        for name in given.only.split(","):
            prob = lines[name]()
            print(
                f"{name}: {disagreement(reference, prob, Consensus()):.2%} of verdicts differ from "
                "torch-fp32, "
                f"largest difference {np.abs(prob - reference).max():.4f}"
            )


def report(lines: dict[str, Callable[[], object]], crops: int, turns: int) -> None:
    """Time all in turns after one warm-up turn; print rates and ratios to the plain loops."""
    rates: dict[str, list[float]] = {name: [] for name in lines}
    for turn in range(turns + 1):
        for name, line in lines.items():
            began = time.perf_counter()
            line()
            if turn:
                rates[name].append(crops / (time.perf_counter() - began))
    plain = list(lines)[:2]
    print(f"\n{'':20} {'crops/s':>8} {'(range)':>13}" + "".join(f"{'/ ' + p:>24}" for p in plain))
    for name, found in rates.items():
        row = (
            f"{name:20} {statistics.median(found):8.0f} {f'{min(found):.0f}-{max(found):.0f}':>13}"
        )
        for other in plain:
            ratios = [ours / theirs for ours, theirs in zip(found, rates[other], strict=True)]
            said = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            row += f"{said:>24}"
        print(row)
    print()


if __name__ == "__main__":
    main()
