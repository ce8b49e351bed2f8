"""Benchmark a sweep's launchers: two cameras in parallel against one after the other.

    python benchmarks/sweep.py [--cameras 2] [--crops 1500] [--launchers joblib,submitit_local,ray]

Simulated cameras are trained to round 1, each time from scratch: with the basic launcher (one job
after the other, each with all cores) and with each launcher named (one job per core in parallel). A
ratio below 1 is a gain. The number of threads affects floating-point rounding, so increments may
differ; with trainer.threads=1 for all they are the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from collabteam import Catalog

TRAIN = (
    "experiment=scratch", "round=1", "reviewer=oracle", "seed_per_class=100", "seed_unknown=0",
    "increment_per_class=50", "optim.epochs=6", "optim.epochs_later=6", "data.image_size=64",
    "logger=none", "camera=glob(*)",
)  # fmt: skip


def command(name: str, root: Path, *settings: str) -> float:
    """Run a command and return its seconds."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", f"collabteam.{name}", f"root={root}", *settings],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def increments(root: Path) -> list[tuple[str, str]]:
    """Return the increments of round 1 of all cameras."""
    found = []
    for file in sorted(root.glob("*/camera.yaml")):
        index = Catalog.open(root, file.parent.name).index()
        drawn = index.increment_round == 1
        pairs = zip(index.crop_id[drawn], index.increment_label[drawn], strict=True)
        found += [(str(crop), str(label)) for crop, label in pairs]
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--crops", type=int, default=1500)
    parser.add_argument("--launchers", default="joblib,submitit_local,ray")
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool"
        for number in range(given.cameras):
            settings = (f"camera=c{number}", f"crops={given.crops}", f"seed={number}")
            command("simulate", pool, *settings)
        names = ["basic", *given.launchers.split(",")]
        for turn in range(given.turns):
            seconds, made = {}, {}
            for name in names:
                root = Path(folder) / name
                shutil.copytree(pool, root)
                seconds[name] = command("train", root, "-m", *TRAIN, f"hydra/launcher={name}")
                made[name] = increments(root)
                shutil.rmtree(root)
            for name in names:
                same = "same increments" if made[name] == made["basic"] else "other increments"
                ratio = seconds[name] / seconds["basic"]
                print(f"turn {turn}: {name:15} {seconds[name]:6.1f} s  {ratio:4.2f}  {same}")
    print(f"{given.cameras} cameras, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
