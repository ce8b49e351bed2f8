"""Compare the team's labels with a naive policy: argmax of one network on the same verified crops.

    python benchmarks/naive.py outputs cifar          # root, camera; needs hidden truth

The network is ``learner=softmax`` with a plain ResNet-18, trained with the recipe of round 0
(``round-0/round.json``) on all verified crops of the classes in i0. The number of epochs is
multiplied by the number of branches, so it takes as many passes through a network as round 0. It
labels every crop; the comparison at equal coverage uses only its most confident labels. The team's
figures come from the ``label.json`` of ``python -m collabteam.label``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam import Catalog
from collabteam.catalog import class_numbers
from collabteam.catalog.truth import read_truth
from collabteam.features.devices import Device, set_threads
from collabteam.features.extractor import ComputedFeatures, FeatureExtractor
from collabteam.features.images import CropPixels
from collabteam.learners.base import FitEnvironment, FoldTask
from collabteam.learners.teams import learner_for
from collabteam.reporting.terminal import Terminal
from collabteam.rounds.initial import initial_rows
from collabteam.settings import TeamConfig, TrainConfig, TrainerConfig, from_record
from collabteam.team.team import Team


def train(catalog: Catalog, rows: NDArray, labels: NDArray, settings: dict, device: Device) -> Team:
    """Train one network on all of these crops, with the settings of a round."""
    config = from_record(TrainConfig, settings)
    classes = config.camera.classes
    config = replace(
        config,
        team=TeamConfig(attention="none"),
        learner={"name": "softmax", "passes": len(classes)},
    )
    learner = learner_for(config)
    pixels = CropPixels(catalog, learner.transform, rows)
    task = FoldTask(
        classes=tuple(classes),
        rows=rows,
        labels=labels,
        weights=np.ones(len(rows), np.float32),
        human=np.ones(len(rows), bool),
        folds=np.zeros(len(rows), np.int64),
        fold=-1,  # nothing is held out
        pixels=pixels,
        features=ComputedFeatures(pixels, FeatureExtractor(config.features, device)),
        seed=config.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        env = FitEnvironment(device, Path(folder), "one network", Terminal())
        return Team(classes, learner.fit(task, env), learner.transform, device)


def table_row(name: str, called: NDArray, actual: NDArray, classes: list[str], total: int) -> None:
    """Print one row: coverage, and the share of correct labels in all and per class."""
    cells = []
    for number, _ in enumerate(classes):
        mine = called == number
        cells.append(f"{(actual[mine] == number).mean():.1%}" if mine.any() else "-")
    decided = called >= 0
    right = (called[decided] == actual[decided]).mean()
    print(f"| {name} | {decided.sum() / total:.1%} | {right:.2%} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("camera")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    catalog = Catalog.open(arguments.root, arguments.camera)
    index = catalog.index()
    truth = read_truth(catalog, index.crop_id)
    record = json.loads((catalog.folder / "round-0" / "round.json").read_text())
    labelled = json.loads((catalog.folder / "label.json").read_text())
    classes = record["classes"]
    place = {name: number for number, name in enumerate(classes)}
    human = np.array([place.get(label, -1) for label in index.human])
    i0 = np.sort(initial_rows(catalog.workspace, index))
    i0 = i0[human[i0] >= 0]
    # The same crops that the team labelled.
    pool = np.flatnonzero(index.verdict_round >= 0)
    pool = pool[truth[pool] != ""]
    actual = class_numbers(truth[pool], classes)
    began = time.perf_counter()
    network = train(catalog, i0, human[i0], record["settings"], Device.of(TrainerConfig()))
    confidence = np.concatenate(list(network.score_rows(catalog, pool, 256)))
    print(f"{len(i0)} verified crops, {len(pool)} in the pool, {time.perf_counter() - began:.0f} s")
    print(f"| labels of {arguments.camera} | coverage | right | {' | '.join(classes)} |")
    print("|---|---|---|" + "---|" * len(classes))
    team = np.array([place.get(label, -1) for label in index.verdict[pool]])
    table_row(f"team, round {labelled['round']}", team, actual, classes, len(pool))
    naive = confidence.argmax(axis=1)
    table_row("one network, argmax", naive, actual, classes, len(pool))
    keep = np.argsort(-confidence.max(axis=1))[: int((team >= 0).sum())]
    least = np.full(len(pool), -1)
    least[keep] = naive[keep]
    table_row(
        "the same, the most confident at the team's coverage", least, actual, classes, len(pool)
    )
    strangers = actual < 0
    if strangers.any():
        given = (team[strangers] >= 0).mean(), 1.0, (least[strangers] >= 0).mean()
        print(
            f"wrongly labelled of {strangers.sum()} objects of no class: team "
            f"{given[0]:.1%}, argmax {given[1]:.1%}, the most confident {given[2]:.1%}"
        )


if __name__ == "__main__":
    main()
