"""What rounds bring: the paper's increments, and clicks on what the team does not know.

    python benchmarks/rounds.py outputs cifar --clicks 300 --learners probe finetune --seeds 0 1

The camera needs hidden truth (see learners.py). Each way ends with the same number of clicks of a
simulated reviewer without errors:

- ``one draw``: all clicks in i0, round 0 alone;
- ``increments``: the same, then two rounds that each add ``--increment`` crops a class, which the
  team is surest about and labels itself;
- ``half on doubts``: half of the clicks in i0, a quarter after round 0 and a quarter after round 1
  on crops on which the team abstains, as the review queue ``unsure`` orders them.

Figures are those of learners.py, of the last round, over all crops that no person verified; a crop
that trains with a label of the team counts among the surest. Core seconds hold all rounds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from learners import RECIPES, figures, keep_features, lines, processor_seconds, spread
from rich.console import Console
from rich.table import Table

from collabteam.catalog import Catalog, LabelEvent
from collabteam.catalog.truth import read_truth
from collabteam.reviewing.queues.unsure import Unsure
from collabteam.reviewing.review_queue import ReviewState
from collabteam.settings import CameraConfig, ReviewConfig

WAYS = ("one draw", "increments", "half on doubts")


def train(
    root: Path, number: int, clicks: int, each: int, recipe: tuple[str, ...], asked: Any, seed: int
) -> float:
    """Bring the camera to a round by the command; the seconds of a core that it took."""
    words = [
        sys.executable, "-m", "collabteam.train", f"root={root}", f"camera={asked.camera}",
        f"round={number}", "reviewer=oracle", "logger=none", f"seed={seed}",
        f"seed_unknown={asked.unknown}", f"seed_per_class={clicks // asked.classes}",
        f"increment_per_class={each}", f"trainer.threads={asked.threads}", *recipe,
    ]  # fmt: skip
    before = processor_seconds()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    return processor_seconds() - before


def verify_doubts(root: Path, camera: str, count: int) -> int:
    """Answer the first crops of the queue ``unsure`` with the truth; how many there were."""
    catalog = Catalog.open(root, camera)
    config = ReviewConfig(root=str(root), camera=CameraConfig(camera, list(catalog.classes)))
    state = ReviewState(catalog, catalog.index(), catalog.annotations().answers(), config)
    queued = Unsure().crops(state)
    rows = queued.rows[~state.index.verified()[queued.rows]][:count]
    names = state.index.crop_id[rows]
    truth = read_truth(catalog, state.index.crop_id)[rows]
    catalog.append_labels(
        [
            LabelEvent(
                str(name), str(label), source="person", purpose="unsure", round=queued.round,
                by="oracle",
            )
            for name, label in zip(names, truth, strict=True)
        ]
    )  # fmt: skip
    return len(rows)


def follow(root: Path, way: str, clicks: int, learner: str, seed: int, asked: Any) -> Any:
    """Go one way to its end; the figures of the last round."""
    recipe, core, doubts = RECIPES[learner], 0.0, 0
    if way == "half on doubts":
        # One crop a class: the least that a round may add by itself.
        for number in range(2):
            core += train(root, number, clicks // 2, 1, recipe, asked, seed)
            doubts += verify_doubts(root, asked.camera, clicks // 4)
        number = 2
        core += train(root, number, clicks // 2, 1, recipe, asked, seed)
    else:
        number = 2 if way == "increments" else 0
        core += train(root, number, clicks, asked.increment, recipe, asked, seed)
    return {**figures(root, asked.camera, number), "core": round(core, 1), "doubts": doubts}


def main() -> None:
    """Go every way that the file lacks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("camera")
    parser.add_argument("--clicks", type=int, default=300)
    parser.add_argument("--unknown", type=int, default=0)
    parser.add_argument("--increment", type=int, default=300)
    parser.add_argument("--learners", nargs="+", choices=list(RECIPES), default=["probe"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--to", type=Path, default=Path("rounds.jsonl"))
    asked = parser.parse_args()
    asked.classes = len(Catalog.open(asked.root, asked.camera).classes)
    for seed in asked.seeds:
        for learner in asked.learners:
            for way in asked.ways:
                row = {
                    "camera": asked.camera, "learner": learner, "way": way, "clicks": asked.clicks,
                    "unknown": asked.unknown, "increment": asked.increment, "seed": seed,
                }  # fmt: skip
                if any(row.items() <= one.items() for one in lines(asked.to)):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    root = Path(folder) / "outputs"
                    shutil.copytree(asked.root / asked.camera, root / asked.camera)
                    found = follow(root, way, asked.clicks, learner, seed, asked)
                    keep_features(root / asked.camera, asked.root / asked.camera)
                with asked.to.open("a") as file:
                    print(json.dumps({**row, **found}), file=file)
    show(lines(asked.to))


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(
        "camera", "clicks", "learner", "way", "seeds", "mean recall", "consensus", "right",
        "at 80 %", "at 90 %", "core s",
    )  # fmt: skip
    for camera, clicks, learner, way in dict.fromkeys(
        (row["camera"], row["clicks"], row["learner"], row["way"]) for row in rows
    ):
        group = [
            row for row in rows
            if (row["camera"], row["clicks"], row["learner"], row["way"])
            == (camera, clicks, learner, way)
        ]  # fmt: skip
        cells = [
            spread([100 * row[figure] for row in group])
            for figure in ("recall", "coverage", "consensus", "at80", "at90")
        ]
        core = spread([row["core"] for row in group], 0)
        table.add_row(camera, str(clicks), learner, way, str(len(group)), *cells, core)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
