"""Tracks of footage: the votes on single crops against ways to combine those of a track.

    python benchmarks/tracks.py outputs street vtest=pedestrian two_wheeler2=motorcyclist
    python benchmarks/tracks.py outputs simulated simulated=truth

The first camera's team votes on the crops of the others, such as ``ingest source=video`` makes.
Every object of such a camera is of the class that is named; ``proposed`` takes the detector's
class, ``truth`` the hidden truth. Tracks of which a person verified a crop are left out.

*Logits, r* adds the log-odds of n crops and divides them by 1 + (n - 1) r, as ``label
correlation=r`` does; r = 1 is their mean. *Conflicts out* is what ``label`` does: a track gets no
label if two of its crops have a consensus on different classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, class_numbers
from collabteam.catalog.truth import read_truth
from collabteam.learners.teams import load_team
from collabteam.rounds.records import read_rounds
from collabteam.settings import TrainerConfig
from collabteam.team.voting import ABSTAIN, VotePolicy, combine_tracks


def mean_of_tracks(prob: NDArray[np.float64], tracks: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean probability over the crops of a track, for each of them."""
    count = np.bincount(tracks)
    mean = np.stack([np.bincount(tracks, column) / count for column in prob.T], axis=1)
    return mean[tracks]


def ways(
    prob: NDArray[np.float64], tracks: NDArray[np.int64], policy: VotePolicy
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Class and joint confidence of each crop by each way."""
    single = policy.vote(prob)
    found = {"single crops": (single.branch, single.confidence)}
    for correlation in (0.0, 0.5, 1.0):
        together, conflict = combine_tracks(prob, tracks, correlation, policy)
        said = policy.vote(together)
        found[f"logits, r = {correlation}, conflicts out"] = (
            np.where(conflict, ABSTAIN, said.branch), said.confidence,
        )  # fmt: skip
        found[f"logits, r = {correlation}"] = said.branch, said.confidence
    said = policy.vote(mean_of_tracks(prob, tracks))
    found["mean probability"] = said.branch, said.confidence
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("team")
    parser.add_argument("footage", nargs="+", help="CAMERA=CLASS, CAMERA=proposed or CAMERA=truth")
    asked = parser.parse_args()
    own = Catalog.open(asked.root, asked.team)
    record = read_rounds(own.workspace)[-1]
    team = load_team(own.workspace.round(record.round), TrainerConfig(threads=1))
    print("| camera | crops, tracks | way | labelled | right of these | right of all |")
    print("|---|---|---|---|---|---|")
    for one in asked.footage:
        name, _, called = one.partition("=")
        catalog = Catalog.open(asked.root, name)
        index = catalog.index()
        seen = np.unique(index.track_code[index.verified()])
        rows = np.flatnonzero(~np.isin(index.track_code, seen))
        prob = np.concatenate(list(team.score_rows(catalog, rows, 256))).astype(np.float64)
        if called == "truth":
            truth = read_truth(catalog, index.crop_id)[rows]
        else:
            truth = index.proposed[rows] if called == "proposed" else np.full(len(rows), called)
        labels = class_numbers(truth, record.classes)
        _, tracks = np.unique(index.track_code[rows], return_inverse=True)
        for way, (branch, _) in ways(prob, tracks, record.policy).items():
            given, right = branch != ABSTAIN, (branch == labels) & (labels >= 0)
            share = f"{right[given].mean():.1%}" if given.any() else ""
            print(
                f"| {name} | {len(rows)}, {len(np.unique(tracks))} | {way} | {given.mean():.1%} | "
                f"{share} | {right.mean():.1%} |"
            )


if __name__ == "__main__":
    main()
