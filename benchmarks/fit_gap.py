"""Compare a team's recall on crops that it trained on and on others: does it lack capacity?

python benchmarks/fit_gap.py outputs cifar 1        # root, camera, round; needs hidden truth
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam import Catalog, load_team
from collabteam.catalog import class_numbers
from collabteam.catalog.truth import read_truth
from collabteam.rounds.evaluation import branch_recall
from collabteam.rounds.records import RoundRecord


def main(root: Path, camera: str, number: int) -> None:
    catalog = Catalog.open(root, camera)
    index = catalog.index()
    files = catalog.workspace.round(number)
    team, fold_of = load_team(files), json.loads(files.folds.read_text())
    labels = class_numbers(read_truth(catalog, index.crop_id)[:], team.classes)
    fold = np.array([fold_of.get(track, -1) for track in index.track])
    held_out = RoundRecord.read(files.record, "train it again").recall.folds[0].fold
    drawn = index.increment_round > 0
    for name, chosen in (
        ("trained on, human-labelled", (fold >= 0) & (fold != held_out) & ~drawn),
        ("trained on, increments", (fold >= 0) & (fold != held_out) & drawn),
        ("fold not trained on, human-labelled", (fold == held_out) & ~drawn),
    ):
        rows: NDArray[np.int64] = np.flatnonzero(chosen)
        if rows.size:
            prob = np.concatenate(list(team.score_rows(catalog, rows, 256)))
            recall = branch_recall(prob, labels[rows], team.classes)
            sides = [side for row in recall.values() for side in row.values() if side is not None]
            print(f"{name}: {rows.size} crops, mean recall {np.mean(sides):.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
