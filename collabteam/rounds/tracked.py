"""What of finished rounds is worth a look elsewhere: for the boards that log it.

All of it is read from the disk, so that a round can be logged at any time after it was finished.
"""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from collabteam.catalog import Catalog, CropIndex
from collabteam.features.images import letterbox
from collabteam.reporting.table1 import Round
from collabteam.reporting.wandb_runs import RoundRun, Sample, log_rounds
from collabteam.settings import UNKNOWN, LoggerConfig
from collabteam.team.voting import ABSTAIN, vote

SAMPLES = 8
"""Crops of each kind that a round shows: surest, unsure, wrong."""
UNSURE = "I don't know"


def track(config: LoggerConfig, catalog: Catalog, rounds: list[Round]) -> None:
    """Log the finished rounds of a camera that are not logged yet.

    Args:
        config: Which logger.
        catalog: The camera.
        rounds: Records of rounds 0 to the last finished one.

    Raises:
        UserError: W&B is to be used online and refuses; the rounds are logged by a later command.
    """
    log_rounds(config, catalog.workspace, rounds, partial(_made, catalog, rounds))


def _made(catalog: Catalog, rounds: list[Round], record: Round) -> RoundRun:
    number, index = record["round"], catalog.index()
    return RoundRun(
        team=_voters(catalog, record),
        team_before=_voters(catalog, rounds[number - 1]) if number else [],
        increment=_increment(catalog, index, number) if number else [],
        samples=_samples(catalog, index, record),
    )


def _voters(catalog: Catalog, record: Round) -> list[Path]:
    """Files of the networks that vote, of those that are still there."""
    files = catalog.workspace.round(record["round"])
    return [
        file
        for name, folds in record["voting"].items()
        for fold in folds
        if (file := files.branch(name, fold)).exists()
    ]


def _increment(catalog: Catalog, index: CropIndex, number: int) -> list[tuple[str, str, float]]:
    """Crop id, label and confidence of what joined in a round."""
    log = catalog.log(("crop_id", "purpose", "round", "confidence"))
    mine = pc.and_(pc.equal(log["purpose"], "increment"), pc.equal(log["round"], number))
    log = log.filter(mine)
    # In the order of the log: a draw that was repeated after a rollback has the last word.
    confidence = dict(zip(log["crop_id"].to_pylist(), log["confidence"].to_pylist(), strict=True))
    rows = np.flatnonzero(index.increment_round == number)
    ids = [str(crop_id) for crop_id in index.crop_id[rows]]
    labels = [str(label) for label in index.increment_label[rows]]
    return [(name, label, confidence[name]) for name, label in zip(ids, labels, strict=True)]


def _samples(catalog: Catalog, index: CropIndex, record: Round) -> list[Sample]:
    """The surest of the right verdicts, the closest calls and the surest of the wrong ones.

    Of crops that a person judged, each by the networks of the fold that did not train on it.
    """
    files, classes = catalog.workspace.round(record["round"]), record["classes"]
    row_of = {str(crop_id): row for row, crop_id in enumerate(index.crop_id)}
    names, probs = [], []
    for file in files.all_fold_predictions().values():
        try:
            with np.load(file) as kept:
                names.append(kept["crop_id"])
                probs.append(kept["prob"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            continue
    if not names:
        return []
    rows = np.array([row_of.get(str(name), -1) for name in np.concatenate(names)], dtype=np.int64)
    judged = (rows >= 0) & index.judged()[rows]
    rows = rows[judged]
    verdicts = vote(np.concatenate(probs)[judged], record["settings"]["team"]["joint"])
    said = np.array([*classes, UNSURE], dtype=object)[verdicts.branch]
    person = np.where(np.isin(index.human[rows].astype(str), classes), index.human[rows], UNKNOWN)
    decided, right = verdicts.branch != ABSTAIN, said == person
    found = []
    for kind, chosen, order in (
        ("surest", decided & right, -verdicts.confidence),
        ("unsure", ~decided, verdicts.confidence),
        ("wrong", decided & ~right, -verdicts.confidence),
    ):
        ranked = np.argsort(order, kind="stable")
        for at in ranked[chosen[ranked]][:SAMPLES]:
            found.append((kind, at))
    pictures = catalog.images([rows[at] for _, at in found])
    side = record["settings"]["data"]["image_size"]
    return [
        Sample(
            kind, str(index.crop_id[rows[at]]), str(person[at]), str(said[at]),
            float(verdicts.confidence[at]), letterbox(picture, side),
        )
        for (kind, at), picture in zip(found, pictures, strict=True)
    ]  # fmt: skip
