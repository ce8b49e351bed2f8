"""Street crops with objects of no class: a Parquet file, or how well teams tell them apart.

The pictures come from several sources and are numbered within each; neighbours often show the same
vehicle. So the frozen test set is the middle of every fifth group of ten neighbours rather than a
random sample; two crops at either end of such a group are left out. The groups are not used as
tracks, because then only one crop in ten could be drawn. As a result, folds separate neighbours and
the fold scores are too optimistic.

    python benchmarks/street.py FOLDER/crops/street street.parquet
    python -m collabteam.ingest camera=street path=street.parquet
    python -m collabteam.train camera=street round=2 experiment=scratch reviewer=oracle \
        seed_per_class=200 increment_per_class=100

Without a second path it trains a learner with each value of ``learner.strangers``, with and
without verified ``unknown`` crops, and measures on the frozen test set:

    python benchmarks/street.py FOLDER/crops/street --seeds 0 1 --fifths 4 1
    python benchmarks/street.py FOLDER/crops/street --learner finetune --unknown 100

A *near* stranger resembles a class: the three-wheelers, which the source of the motorcyclists took
for them. Cars, minibuses, trucks and pickups are *far*. *At 90 %* is where 90 % of the objects of
the classes are labelled, those that the team is surest about; a label of a stranger is wrong.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collabteam.catalog import Catalog, Crop
from collabteam.learners.teams import load_team
from collabteam.rounds.loop import train_rounds
from collabteam.settings import (
    CameraConfig,
    DataConfig,
    FeaturesConfig,
    TeamConfig,
    TrainConfig,
    TrainerConfig,
)
from collabteam.sources.crops import ingest_crops
from collabteam.team.voting import ABSTAIN, team_policy

CLASSES = ["cyclist", "motorcyclist", "pedestrian"]
WAYS = ("off", "none", "distance")


def numbered(path: Path) -> tuple[str, list[int]]:
    """Return a picture's source and its number within the source."""
    source, _, rest = path.stem.partition("__")
    return source, [int(digits) for digits in re.findall(r"\d+", rest)]


def crops(folder: Path, fifth: int) -> Iterator[tuple[Path, bool]]:
    """The pictures, and whether each is in the test set."""
    for directory in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(directory.glob("*.jpg"), key=numbered)
        for _, group in groupby(files, key=lambda path: numbered(path)[0]):
            for position, file in enumerate(group):
                is_test = position // 10 % 5 == fifth
                if not is_test or 2 <= position % 10 < 8:
                    yield file, is_test


def write(folder: Path, to: Path, fifth: int = 4) -> None:
    """Make the Parquet file; ``fifth`` of each five groups is the test set."""
    rows = [
        {
            "image": file.read_bytes(),
            "proposed": file.parent.name,
            "truth": file.parent.name,
            "split": "test" if is_test else "pool",
        }
        for file, is_test in crops(folder, fifth)
    ]
    pq.write_table(pa.Table.from_pylist(rows), to)
    print(f"{to}: {len(rows)} crops")


def train(root: Path, seed: int, unknown: int, way: str, asked: argparse.Namespace) -> float:
    """Train round 0 anew; returns seconds."""
    began, heads = time.perf_counter(), asked.learner == "probe"
    train_rounds(
        TrainConfig(
            camera=CameraConfig("street", CLASSES), root=str(root), seed=seed, rollback=-1,
            reviewer="oracle", seed_per_class=asked.clicks // 3, seed_unknown=unknown,
            learner={"name": asked.learner, "strangers": way},
            team=TeamConfig(vote_with="mean") if heads else TeamConfig(views="mirror"),
            data=DataConfig()
            if heads
            else DataConfig(folds=10, train_folds=[0], augment="affine", batch_size=32),
            features=FeaturesConfig(backbone=asked.backbone, image_size=asked.image_size),
            trainer=TrainerConfig(threads=1),
        )
    )  # fmt: skip
    return time.perf_counter() - began


def figures(root: Path, near: set[str]) -> dict[str, float]:
    """Measure the team of round 0 on the test set; shares in %."""
    catalog = Catalog.open(root, "street")
    index = catalog.index()
    rows = np.flatnonzero(index.test_set())
    files = catalog.workspace.round(0)
    prob = np.concatenate(list(load_team(files).score_rows(catalog, rows, 256))).astype(np.float64)
    labels = index.targets(rows, CLASSES)
    policy = team_policy(TeamConfig())
    given = policy.vote(prob).branch != ABSTAIN
    # The class that leads, also where it is not alone: coverage of 90 % can always be reached.
    leads = prob.argmax(axis=1)
    mine = np.arange(len(CLASSES)) == leads[:, None]
    sure = np.where(mine, prob, 1 - prob).prod(axis=1)
    objects, is_near = labels >= 0, np.isin(index.crop_id[rows].tolist(), list(near))
    labelled = sure >= np.quantile(sure[objects], 0.1)
    true = prob > 0.5
    sides = [
        share
        for branch in range(len(CLASSES))
        for of_class in (labels == branch,)
        for share in (true[of_class, branch].mean(), 1 - true[~of_class, branch].mean())
    ]  # fmt: skip
    found = {
        "mean of six recalls": np.mean(sides),
        "coverage": given[objects].mean(),
        "strangers labelled": given[~objects].mean(),
        "near": given[~objects & is_near].mean(),
        "far": given[~objects & ~is_near].mean(),
        "right at 90 %": (leads == labels)[labelled].mean(),
        "strangers labelled at 90 %": labelled[~objects].mean(),
    }
    return {name: 100 * float(share) for name, share in found.items()}


def measure(asked: argparse.Namespace) -> None:
    """Print a table: each figure as its mean over the runs, and their range."""
    unknown = asked.folder / "unknown"
    near = {Crop(file.read_bytes()).crop_id for file in unknown.glob("tiny__*.jpg")}
    runs: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    for fifth in asked.fifths:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            write(asked.folder, root / "street.parquet", fifth)
            catalog = Catalog.register(root, "street", CLASSES)
            ingest_crops(catalog, root / "street.parquet", "proposed")
            for seed in asked.seeds:
                for clicks in asked.unknown:
                    for way in asked.ways:
                        seconds = train(root, seed, clicks, way, asked)
                        found = figures(root, near)
                        runs[clicks, way].append(found)
                        said = ", ".join(f"{key} {value:.1f}" for key, value in found.items())
                        print(
                            f"{fifth} {seed} {clicks} {way}: {said} ({seconds:.0f} s)", flush=True
                        )
    names = list(next(iter(runs.values()))[0])
    print(f"| `unknown` clicks | `learner.strangers` | {' | '.join(names)} |")
    print("|---|---|" + "---|" * len(names))
    for (clicks, way), each in runs.items():
        cells = []
        for name in names:
            values = [one[name] for one in each]
            cells.append(f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        print(f"| {clicks} | {way} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("to", type=Path, nargs="?", help="the Parquet file to make")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--fifths", type=int, nargs="+", default=[4, 1], help="test sets, 0 to 4")
    parser.add_argument("--clicks", type=int, default=300, help="verified crops of the classes")
    parser.add_argument("--unknown", type=int, nargs="+", default=[100, 0])
    parser.add_argument("--learner", choices=("probe", "finetune", "consistency"), default="probe")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=None)
    parser.add_argument("--backbone", nargs="+", default=["tf_efficientnet_lite0"])
    parser.add_argument("--image-size", type=int, default=128)
    asked = parser.parse_args()
    if asked.ways is None:
        asked.ways = WAYS if asked.learner == "probe" else WAYS[:2]
    if asked.to is not None:
        write(asked.folder, asked.to)
    else:
        measure(asked)


if __name__ == "__main__":
    main()
