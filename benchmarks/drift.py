"""Measure how often the report warns of drift, without drift and with it.

    python benchmarks/drift.py             # 8 simulated cameras, about 11 minutes on one core

Each camera is simulated for a day and trained for three rounds with the real commands. Then later
crops follow: two days without change, and in three variants the last half day of four in which the
simulation drifts (drift=0.25, 0.5, 1). Street and people differ between cameras; for one camera,
the drifting days have the same people as the days without drift. The later crops are divided into
segments that share no object. Each segment is compared with the first day, as the report does it.

The segments of a camera share their reference, so they are not independent: the intervals (95%,
Clopper and Pearson) are rather too short. Therefore the rates of the cameras are printed as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import binomtest

from collabteam import Catalog
from collabteam.monitoring.drift import ALPHA, comparable, compare, find_drift
from collabteam.monitoring.windows import last_verdicts
from collabteam.simulator import CLASSES, SimulatedCrop, SimulationConfig, _draw_tracks, plan_slots

# The demo's recipe with a smaller network, smaller pictures and fewer crops.
RECIPE = (
    "round=2", "experiment=demo", "reviewer=oracle", "logger=none", "trainer.threads=1",
    "team.backbone=test_resnet", "data.image_size=32", "optim.epochs=24", "optim.epochs_later=6",
    "seed_per_class=150", "seed_unknown=40", "increment_per_class=60",
)  # fmt: skip
DRIFTS = (0.0, 0.25, 0.5, 1.0)
SIZES = (60, 100, 300)
"""Objects in a segment."""


def footage(config: SimulationConfig, seed: int, begin: float, end: float) -> list[SimulatedCrop]:
    """Draw the crops of a part of a simulation; ``begin`` and ``end`` are shares of its span."""
    slots = [s for s in plan_slots(config, seed) if begin <= s.before / config.crops < end]
    return _draw_tracks(config, seed, slots)


def write(crops: list[SimulatedCrop], name: str, to: Path, has_test: bool) -> Path:
    """Write a Parquet file for `ingest`; ``name`` makes the names of videos distinct."""
    rows = [
        {
            "image": crop.jpeg, "proposed": crop.proposed, "truth": crop.truth,
            "video": f"{name}/{crop.video}", "track": crop.track, "time": crop.time,
            "split": crop.split if has_test else "pool",
        }
        for crop in crops
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), to / f"{name}.parquet")
    return to / f"{name}.parquet"


def command(name: str, root: Path, *settings: str) -> None:
    """Run a command in a process with one thread, with its output in a file."""
    with (root.parent / "commands.log").open("a") as log:
        subprocess.run(
            [sys.executable, "-m", f"collabteam.{name}", f"root={root}", "camera=c", *settings],
            check=True, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def train_camera(folder: Path, crops: int, seed: int) -> Catalog:
    """Train a camera on its first day, add the later days and label all crops."""
    still = SimulationConfig(crops=4 * crops, crops_per_track=2, hours=96, drift=0)
    root = folder / "outputs"
    first = write(footage(still, seed, 0, 0.25), "first", folder, has_test=True)
    command("ingest", root, f"path={first}", f"camera.classes=[{','.join(CLASSES)}]")
    command("train", root, *RECIPE)
    for drift in DRIFTS:
        began, ended = (0.25, 0.75) if drift == 0 else (0.875, 1)
        later = footage(replace(still, drift=drift), seed, began, ended)
        path = write(later, f"drift-{drift:g}", folder, has_test=False)
        command("ingest", root, f"path={path}")
    command("label", root, "trainer.threads=1", "trainer.precision=fp32")
    return Catalog.open(root, "c")


def compare_segments(
    catalog: Catalog, seed: int
) -> dict[tuple[float, int], list[tuple[bool, float]]]:
    """For each drift and segment size: whether each segment is an alarm, and its p-value."""
    index = catalog.index()
    verdicts = last_verdicts(index)
    objects = comparable(index, verdicts)
    where = np.array([str(video).split("/")[0] for video in index.video[objects.rows]])
    reference = where == "first"
    whole = find_drift(catalog.workspace, index)
    assert whole is not None
    assert whole.stretch == "arrived"
    assert whole.before == reference.sum()
    found = defaultdict(list)
    rng = np.random.default_rng(seed)
    for drift in DRIFTS:
        mine = rng.permutation(np.flatnonzero(where == f"drift-{drift:g}"))
        for size in SIZES:
            for start in range(0, len(mine) - size + 1, size):
                segment: NDArray[np.int64] = mine[start : start + size]
                late = np.zeros(int(index.track_code.max()) + 1, dtype=bool)
                late[index.track_code[objects.rows[segment]]] = True
                both = reference.copy()
                both[segment] = True
                told = compare(index, objects.only(both), verdicts, late, 2, "arrived")
                # Too few crops to compare: no alarm.
                p = 1.0 if told.p is None else told.p
                found[drift, size].append((bool(told.alarm), p))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument(
        "--crops", type=int, default=2400, help="crops on the first day of a camera"
    )
    parser.add_argument("--seed", type=int, default=100, help="seed of the first camera")
    given = parser.parse_args()
    cameras = []
    for seed in range(given.seed, given.seed + given.cameras):
        with tempfile.TemporaryDirectory() as folder:
            cameras.append(compare_segments(train_camera(Path(folder), given.crops, seed), seed))
        print(f"camera {len(cameras)} of {given.cameras} is done", file=sys.stderr)
    print(f"alarm at p < {ALPHA}; {given.cameras} cameras of {given.crops} crops")
    print("drift  objects   segments  alarms        95%   p < 0.05  by camera")
    for drift in DRIFTS:
        for size in SIZES:
            each = [camera[drift, size] for camera in cameras]
            every = [look for camera in each for look in camera]
            alarms = sum(alarm for alarm, _ in every)
            low, high = binomtest(alarms, len(every)).proportion_ci(0.95)
            rates = " ".join(f"{np.mean([alarm for alarm, _ in camera]):.0%}" for camera in each)
            print(
                f"{drift:5g}  {size:7}  {len(every):9}  {alarms / len(every):6.1%}  "
                f"{low:4.1%}-{high:5.1%}  {np.mean([p < 0.05 for _, p in every]):8.1%}  {rates}"
            )


if __name__ == "__main__":
    main()
