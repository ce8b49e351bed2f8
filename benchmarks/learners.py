"""Right labels over clicks, for learners side by side, on a camera whose truth is known.

    python -m collabteam.ingest camera=cifar path=cifar-vehicles.parquet
    python -m collabteam.ingest camera=cifar path=cifar-vehicles.parquet labels=truth
    python benchmarks/learners.py outputs cifar --clicks 75 300 --learners probe finetune \
        --seeds 0 1 --to learners.jsonl
    python benchmarks/learners.py --figure learners.png --to learners.jsonl

Each line of ``--to`` is one run of ``collabteam.train`` in a process of its own, on a copy of the
camera: round 0, a simulated reviewer without errors. A run that the file has is not repeated.

A *click* is a verified crop of a class; ``--unknown`` verified crops of no class come on top.
*Right at c* is the share of right labels among the c of the pool that the team is surest about: the
label is the class of the highest probability, the order that of the joint confidence. Crops of no
class are left out of the pool there (their share that gets a class by consensus stands apart).
``self-training`` and ``label spreading`` are scikit-learn's, on the features of ``features.*``.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from collabteam.catalog import Catalog, CropIndex
from collabteam.catalog.index import class_numbers
from collabteam.catalog.truth import read_truth
from collabteam.rounds.initial import initial_rows

ONE_FOLD = ("data.train_folds=[0]", "data.batch_size=32", "data.augment=affine")
SOFTMAX = (
    *ONE_FOLD, "learner=softmax", "team.backbone=tf_efficientnet_lite0", "team.attention=none",
    "team.pretrained=true", "data.image_size=96", "optim.lr=0.02", "optim.warmup=0.25",
)  # fmt: skip
RECIPES: dict[str, tuple[str, ...]] = {
    "probe": ("learner=probe", "team.vote_with=mean"),
    "finetune": (*ONE_FOLD, "learner=finetune"),
    "finetune, separate trunks": (*ONE_FOLD, "learner=finetune", "learner.trunk=separate"),
    "consistency": (*ONE_FOLD, "learner=consistency", "data.folds=10", "team.views=mirror"),
    "softmax": SOFTMAX,
    "scratch": ("experiment=scratch",),
}
"""Settings of a learner; ``--also`` adds more. Softmax takes as many steps as finetune."""
REFERENCES = ("self-training", "label spreading")
STEPS = 300


def run(
    root: Path, camera: str, name: str, clicks: int, seed: int, asked: argparse.Namespace
) -> dict[str, Any]:
    """Train round 0 once; the figures of the run."""
    recipe = list(RECIPES[name])
    if name == "softmax":
        steps = max(1, clicks * 4 // 5 // 32)
        recipe.append(f"optim.epochs={max(1, round(STEPS / steps))}")
    words = [
        sys.executable, "-m", "collabteam.train", f"root={root}", f"camera={camera}", "round=0",
        "reviewer=oracle", "logger=none", f"seed={seed}", f"seed_unknown={asked.unknown}",
        f"seed_per_class={clicks // asked.classes}", f"trainer.threads={asked.threads}",
        *recipe, *asked.also,
    ]  # fmt: skip
    before, began = processor_seconds(), time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    wall = time.perf_counter() - began
    record = json.loads((root / camera / "round-0" / "round.json").read_text())
    return {
        **figures(root, camera, 0),
        "wall": round(wall, 1), "core": round(processor_seconds() - before, 1),
        "seconds": record["seconds"],
    }  # fmt: skip


def processor_seconds() -> float:
    """Seconds of a core that all commands took which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def figures(root: Path, camera: str, number: int) -> dict[str, float]:
    """What a round is worth: its recall on the test set, and its labels of the pool."""
    folder = root / camera / f"round-{number}"
    record = json.loads((folder / "round.json").read_text())
    table = pq.ParquetDataset(sorted((folder / "scores").glob("part-*.parquet"))).read()
    catalog = Catalog.open(root, camera)
    index = catalog.index()
    place = {crop_id: row for row, crop_id in enumerate(index.crop_id)}
    rows = np.array([place[crop_id] for crop_id in table["crop_id"].to_pylist()])
    prob = np.stack([table[c].to_numpy() for c in table.column_names if c != "crop_id"], axis=1)
    # What earlier teams took for training has their label.
    drawn = np.flatnonzero((index.increment_round >= 1) & (index.human == ""))
    said = class_numbers(index.increment_label[drawn], catalog.classes)
    rows = np.concatenate([rows, drawn])
    prob = np.concatenate([prob, np.eye(prob.shape[1], dtype=prob.dtype)[said]])
    sides = [v for row in record["recall"]["test"].values() for v in row.values()]
    return {"recall": float(np.mean(sides)), **judged(catalog, index, rows, prob)}


def judged(
    catalog: Catalog, index: CropIndex, rows: NDArray[np.int64], prob: NDArray[np.floating]
) -> dict[str, float]:
    """Hold a team's probabilities of the pool against the truth."""
    truth = class_numbers(read_truth(catalog, index.crop_id)[rows], catalog.classes)
    claimed, chosen = prob > 0.5, prob.argmax(axis=1)
    mine = np.arange(prob.shape[1]) == chosen[:, None]
    joint = np.where(mine, prob, 1 - prob).prod(axis=1)
    of_class, consensus = truth >= 0, claimed.sum(axis=1) == 1
    right = (chosen == truth)[of_class][np.argsort(-joint[of_class], kind="stable")]
    found = {
        "coverage": float(consensus[of_class].mean()),
        "consensus": float((chosen == truth)[of_class & consensus].mean()),
        **{f"at{c}": float(right[: len(right) * c // 100].mean()) for c in (80, 90, 100)},
    }
    if (~of_class).any():
        found["strangers"] = float(consensus[~of_class].mean())
    return found


def reference(root: Path, camera: str, name: str) -> dict[str, Any]:
    """scikit-learn on the features and clicks of a run of ``probe`` that stands in the root."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler, normalize
    from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

    from collabteam.features.devices import Device
    from collabteam.features.extractor import FeatureExtractor
    from collabteam.features.store import FeatureStore
    from collabteam.settings import TrainConfig, TrainerConfig, from_record

    record = json.loads((root / camera / "round-0" / "round.json").read_text())
    catalog = Catalog.open(root, camera)
    index = catalog.index()
    config = from_record(TrainConfig, record["settings"])
    store = FeatureStore(catalog, FeatureExtractor(config.features, Device.of(TrainerConfig())))
    human = class_numbers(index.human.astype(str), catalog.classes)
    i0 = np.sort(initial_rows(catalog.workspace, index))
    i0 = i0[human[i0] >= 0]
    pool = np.setdiff1d(np.flatnonzero(~index.held_out), i0)
    test = np.flatnonzero(index.test)
    began = time.process_time()
    scale = StandardScaler().fit(store[i0].numpy())
    known, rest, held = (scale.transform(store[rows].numpy()) for rows in (i0, pool, test))
    targets = np.concatenate([human[i0], np.full(len(pool), -1)])
    if name == "self-training":
        # Without the balance, and with a threshold alone, one class soon takes the whole pool.
        one = LogisticRegression(C=1e-3, max_iter=300, class_weight="balanced")
        model = SelfTrainingClassifier(one, criterion="k_best", k_best=len(pool) // 20, max_iter=10)
    else:
        # Euclidean neighbours of vectors of length 1 are those of the cosine. A crop that is
        # connected with no labelled one gets no probability from scikit-learn, but a division by 0.
        known, rest, held = (normalize(part) for part in (known, rest, held))
        model = LabelSpreading(kernel="knn", n_neighbors=30, alpha=0.8, max_iter=100, tol=1e-4)
    with np.errstate(invalid="ignore"):
        model.fit(np.concatenate([known, rest]), targets)
        of_held, of_rest = (
            np.nan_to_num(model.predict_proba(part), nan=1 / len(catalog.classes))
            for part in (held, rest)
        )
    recalls = []
    voted = of_held > 0.5
    actual = class_numbers(read_truth(catalog, index.crop_id)[test], catalog.classes)
    for branch in range(len(catalog.classes)):
        true = actual == branch
        recalls += [voted[true, branch].mean(), (~voted[~true, branch]).mean()]
    return {
        "recall": float(np.mean(recalls)),
        **judged(catalog, index, pool, of_rest),
        "core": round(time.process_time() - began, 1),
    }


def measure(asked: argparse.Namespace) -> None:
    """Do every run that the file lacks."""
    done = {key(row) for row in lines(asked.to)}
    asked.classes = len(Catalog.open(asked.root, asked.camera).classes)
    for seed in asked.seeds:
        for clicks in asked.clicks:
            for name in asked.learners:
                row = {
                    "camera": asked.camera, "learner": name, "clicks": clicks, "seed": seed,
                    "unknown": asked.unknown, "also": asked.also,
                }  # fmt: skip
                if key(row) in done:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    root = Path(folder) / "outputs"
                    shutil.copytree(asked.root / asked.camera, root / asked.camera)
                    trained = "probe" if name in REFERENCES else name
                    found = run(root, asked.camera, trained, clicks, seed, asked)
                    if name in REFERENCES:
                        found = reference(root, asked.camera, name)
                    keep_features(root / asked.camera, asked.root / asked.camera)
                with asked.to.open("a") as file:
                    print(json.dumps({**row, **found}), file=file)


def keep_features(made: Path, camera: Path) -> None:
    """Keep features that a run computed, so that the next one reads them."""
    for table in made.glob("features-*"):
        if not (camera / table.name).exists():
            shutil.copytree(table, camera / table.name)


def lines(file: Path) -> list[dict[str, Any]]:
    """The runs in a file; none if it is not there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a run another one."""
    names = ("camera", "learner", "clicks", "seed", "unknown")
    return (*(row[name] for name in names), tuple(row["also"]))


def spread(values: list[float], digits: int = 1) -> str:
    """The mean, and the lowest and highest value of several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def by_learner(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Runs that differ in the seed alone."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        also = " ".join(row["also"])
        name = f"{row['learner']} {also}".strip()
        groups[row["camera"], row["clicks"], row["unknown"], name].append(row)
    return groups


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(
        "camera", "clicks", "learner", "seeds", "mean recall", "consensus", "right", "at 80 %",
        "at 90 %", "strangers", "core s",
    )  # fmt: skip
    for (camera, clicks, unknown, name), group in sorted(by_learner(rows).items()):
        cells = [
            spread([100 * row[figure] for row in group]) if figure in group[0] else ""
            for figure in ("recall", "coverage", "consensus", "at80", "at90", "strangers")
        ]
        number = f"{clicks} + {unknown}" if unknown else str(clicks)
        core = spread([row["core"] for row in group], 0)
        table.add_row(camera, number, name, str(len(group)), *cells, core)
    Console(width=200).print(table)


def figure(rows: list[dict[str, Any]], to: Path) -> None:
    """Draw right labels at 80 % of the pool over clicks, a line for each learner.

    A learner's runs with different ``--also`` are one line.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    groups = by_learner([{**row, "also": []} for row in rows])
    cameras = sorted({camera for camera, *_ in groups})
    drawing, axes = pyplot.subplots(
        1, len(cameras), figsize=(5.4 * len(cameras), 3.8), squeeze=False, layout="constrained"
    )
    styles = ["o-", "s-", "^-", "D-", "v--", "x--", "+--", "*--"]
    for axis, camera in zip(axes[0], cameras, strict=True):
        names = list(dict.fromkeys(name for where, *_, name in groups if where == camera))
        for style, name in zip(styles, names, strict=False):
            points = sorted(
                (clicks, 100 * statistics.mean(row["at80"] for row in group))
                for (where, clicks, _, called), group in groups.items()
                if (where, called) == (camera, name)
            )
            axis.plot(*zip(*points, strict=True), style, label=name, markersize=5)
        axis.set_xscale("log")
        ticks = sorted({clicks for where, clicks, *_ in groups if where == camera})
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("crops that a person verified")
        axis.set_ylabel("right labels in %, surest 80 % of the pool")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    drawing.savefig(to, dpi=150)


def main() -> None:
    """Measure, print the table, and draw the figure if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("camera", nargs="?")
    parser.add_argument("--clicks", type=int, nargs="+", default=[75, 300])
    parser.add_argument("--unknown", type=int, default=0)
    parser.add_argument("--learners", nargs="+", choices=[*RECIPES, *REFERENCES], default=["probe"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--also", nargs="+", default=[], help="further settings of every run")
    parser.add_argument("--to", type=Path, default=Path("learners.jsonl"))
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    if asked.root is not None:
        measure(asked)
    rows = lines(asked.to)
    show(rows)
    if asked.figure is not None:
        figure(rows, asked.figure)
        print(asked.figure)


if __name__ == "__main__":
    main()
