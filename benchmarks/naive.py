"""The team's labels against the naive policy: argmax of one network on the same verified crops.

    python benchmarks/naive.py outputs cifar          # root, camera; hidden truth is needed

The one network is a plain ResNet-18 with an output per class, trained with the recipe of round 0
(``round-0/round.json``) on all of i0's verified crops of the classes, for as many times the epochs
as the team has branches: as many passes through a network as round 0 took. It labels every crop; at
equal coverage only its surest ones count. Beside it stands what ``python -m collabteam.label`` put
into ``label.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from collabteam import Catalog
from collabteam.catalog import class_numbers
from collabteam.catalog.truth import read_truth
from collabteam.features.images import augment, decode, normalize
from collabteam.learners.modules import warmup_cosine
from collabteam.rounds.initial import initial_rows


def train(
    images: torch.Tensor, labels: torch.Tensor, classes: int, settings: dict, passes: int
) -> torch.nn.Module:
    """One network of ``classes`` outputs, with the settings of a round."""
    data, optim = settings["data"], settings["optim"]
    torch.manual_seed(settings["seed"])
    network = timm.create_model("resnet18", num_classes=classes)
    network = network.to(memory_format=torch.channels_last)
    counts = torch.bincount(labels, minlength=classes)
    loss = torch.nn.CrossEntropyLoss(
        counts.sum() / (classes * counts), label_smoothing=optim["label_smoothing"]
    )
    sgd = torch.optim.SGD(
        network.parameters(), lr=optim["lr"], momentum=optim["momentum"],
        nesterov=optim["nesterov"], weight_decay=optim["weight_decay"],
    )  # fmt: skip
    epochs, batch = optim["epochs"] * passes, data["batch_size"]
    steps = max(1, len(labels) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        sgd, warmup_cosine(epochs * steps, optim["warmup"])
    )
    generator = torch.Generator().manual_seed(settings["seed"])
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            pixels = normalize(images[chosen])
            if data["augment"] != "none":
                pixels = augment(pixels, data["augment"], generator)
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(network(pixels).float(), labels[chosen])
            sgd.zero_grad()
            value.backward()
            sgd.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1} of {epochs}", flush=True)
    return network.eval()


def worth(name: str, called: NDArray, actual: NDArray, classes: list[str], total: int) -> None:
    """One row: coverage, and per class the share of right labels."""
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
    torch.set_num_threads(arguments.threads)
    catalog = Catalog.open(arguments.root, arguments.camera)
    index = catalog.index()
    truth = read_truth(catalog, index.crop_id)
    record = json.loads((catalog.folder / "round-0" / "round.json").read_text())
    labelled = json.loads((catalog.folder / "label.json").read_text())
    classes, size = record["classes"], record["settings"]["data"]["image_size"]
    place = {name: number for number, name in enumerate(classes)}
    human = np.array([place.get(label, -1) for label in index.human])
    i0 = initial_rows(catalog.workspace, index)
    i0 = i0[human[i0] >= 0]
    # The same crops that the team labelled.
    pool = np.flatnonzero(index.verdict_round >= 0)
    pool = pool[truth[pool] != ""]
    actual = class_numbers(truth[pool], classes)
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        images = decode(catalog.images(i0), size, threads)
        network = train(
            images, torch.from_numpy(human[i0]), len(classes), record["settings"], len(classes)
        )
        prob = []
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for start in range(0, len(pool), 256):
                batch = decode(catalog.images(pool[start : start + 256]), size, threads)
                prob.append(network(normalize(batch)).float().softmax(dim=1).numpy())
    surest = np.concatenate(prob)
    print(f"{len(i0)} verified crops, {len(pool)} in the pool, {time.perf_counter() - began:.0f} s")
    print(f"| labels of {arguments.camera} | coverage | right | {' | '.join(classes)} |")
    print("|---|---|---|" + "---|" * len(classes))
    team = np.array([place.get(label, -1) for label in index.verdict[pool]])
    worth(f"team, round {labelled['round']}", team, actual, classes, len(pool))
    naive = surest.argmax(axis=1)
    worth("one network, argmax", naive, actual, classes, len(pool))
    keep = np.argsort(-surest.max(axis=1))[: int((team >= 0).sum())]
    least = np.full(len(pool), -1)
    least[keep] = naive[keep]
    worth("the same, the surest at the team's coverage", least, actual, classes, len(pool))
    strangers = actual < 0
    if strangers.any():
        given = (team[strangers] >= 0).mean(), 1.0, (least[strangers] >= 0).mean()
        print(
            f"of {strangers.sum()} objects of no class, labelled all the same: team "
            f"{given[0]:.1%}, argmax {given[1]:.1%}, the surest {given[2]:.1%}"
        )


if __name__ == "__main__":
    main()
