"""Benchmark logging to W&B: the same training with logger=none and logger=wandb, in turns.

    python benchmarks/tracking.py --turns 3

The script draws a simulated camera of 1,500 crops and trains rounds 0 to 3 of a small team on it,
each time from scratch. It prints the medians of the whole command's wall-clock and processor
seconds, per round.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 4
SMALL = (
    "experiment=scratch", "reviewer=oracle", "team.backbone=test_resnet", "data.image_size=32",
    "optim.epochs=8", "optim.epochs_later=4", "seed_per_class=150", "seed_unknown=0",
    "increment_per_class=30", "trainer.threads=1",
)  # fmt: skip


def call(name: str, root: Path, *settings: str) -> tuple[float, float]:
    """Run a command; return its wall-clock and processor seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    arguments = [sys.executable, "-m", f"collabteam.{name}", f"root={root}", "camera=sim"]
    subprocess.run([*arguments, *settings], check=True, capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    seconds: dict[str, list[tuple[float, float]]] = {"none": [], "wandb": []}
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "fresh"
        call("simulate", fresh, "crops=1500")
        for _ in range(turns):
            for logger, found in seconds.items():
                root = Path(shutil.copytree(fresh, Path(folder) / "outputs"))
                found.append(call("train", root, *SMALL, f"round={ROUNDS - 1}", f"logger={logger}"))
                shutil.rmtree(root)
    for logger, found in seconds.items():
        wall, processor = (statistics.median(part) / ROUNDS for part in zip(*found, strict=True))
        every = ", ".join(f"{one[0] / ROUNDS:.2f}" for one in found)
        print(f"{logger:6} {wall:.2f} s a round ({every}), processor {processor:.2f} s")


if __name__ == "__main__":
    main()
