"""Two checkouts side by side: the time of the commands, as ratios of one run.

    git worktree add --detach ../older d13fd55
    python benchmarks/versions.py ../older . --turns 3

Each turn runs every command with both checkouts, in alternating order, on copies of one camera that
the older checkout made. Seconds are processor time of a command and its children, with one thread;
the wall clock stands beside them. ``training`` and ``scoring`` are the seconds of these stages in
the round's record.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

RECIPE = (
    "reviewer=oracle", "data.image_size=48", "optim.epochs=2",
    "seed_per_class=300", "seed_unknown=50", "increment_per_class=100", "trainer.threads=1",
    "trainer.precision=fp32", "logger=none",
)  # fmt: skip


def recipe(checkout: Path) -> tuple[str, ...]:
    """The settings of a small round; older checkouts call the recipe ``quick``."""
    scratch = (checkout / "conf" / "experiment" / "scratch.yaml").exists()
    return (f"experiment={'scratch' if scratch else 'quick'}", *RECIPE)


def run(checkout: Path, root: Path, name: str, *settings: str) -> tuple[float, float]:
    """Run a command with a checkout; its processor seconds and its wall-clock seconds."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"collabteam.{name}", f"root={root}", "camera=sim", *settings],
        cwd=checkout, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        sys.exit(f"{checkout}: {name}: {done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall


def turn(checkout: Path, root: Path, crops: Path, work: Path) -> dict[str, tuple[float, float]]:
    """Run all commands once; seconds by name."""
    times = {"ingest": run(checkout, work / "new", "ingest", f"path={crops}")}
    shutil.copytree(root, work / "outputs")
    times["train, round 0"] = run(checkout, work / "outputs", "train", "round=0", *recipe(checkout))
    record = json.loads((work / "outputs" / "sim" / "round-0" / "round.json").read_text())
    for stage, title in (("train", "training"), ("score", "scoring")):
        times[title] = (record["seconds"][stage],) * 2
    precision = ("trainer.precision=fp32", "trainer.threads=1")
    times["label"] = run(checkout, work / "outputs", "label", *precision)
    times["report"] = run(checkout, work / "outputs", "report")
    to = f"to={work / 'dataset'}"
    times["export"] = run(checkout, work / "outputs", "export", "format=imagefolder", to)
    return times


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("older", type=Path)
    parser.add_argument("newer", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--crops", type=int, default=3000)
    asked = parser.parse_args()
    checkouts = {"older": asked.older.resolve(), "newer": asked.newer.resolve()}
    found: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "outputs"
        run(checkouts["older"], root, "simulate", f"crops={asked.crops}", "crops_per_track=1")
        crops = Path(folder) / "dataset"
        trained = Path(shutil.copytree(root, Path(folder) / "trained"))
        run(checkouts["older"], trained, "train", "round=0", *recipe(checkouts["older"]))
        precision = ("trainer.precision=fp32", "trainer.threads=1")
        run(checkouts["older"], trained, "label", *precision)
        run(checkouts["older"], trained, "export", "format=imagefolder", f"to={crops}")
        for number in range(asked.turns):
            order = list(checkouts.items())[:: -1 if number % 2 else 1]
            for name, checkout in order:
                work = Path(folder) / f"{name}-{number}"
                found[name].append(turn(checkout, root, crops / "train", work))
                shutil.rmtree(work)
    table = Table("", "older, s", "newer, s", "ratio of medians", "wall clock, s")
    for step in found["older"][0]:
        cpu = {name: [one[step][0] for one in turns] for name, turns in found.items()}
        wall = {name: [one[step][1] for one in turns] for name, turns in found.items()}
        middle = {name: statistics.median(values) for name, values in cpu.items()}
        table.add_row(
            step,
            *(f"{middle[name]:.2f} ({min(cpu[name]):.2f} to {max(cpu[name]):.2f})" for name in cpu),
            f"{middle['newer'] / middle['older']:.3f}",
            " / ".join(f"{statistics.median(values):.2f}" for values in wall.values()),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
