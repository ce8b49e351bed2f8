"""The out-of-fold predictions of a round's folds, ``fold-<f>.npz``, and how they are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collabteam.storage.files import damaged, read_npz, write_npz

_REMEDY = "restore it from a backup, or train that round again"


@dataclass(frozen=True, eq=False)
class SavedFold:
    """What a fold's file holds.

    Attributes:
        prob_VB: (V, B) probability of *true*, 0 to 1.
        crop_id: (V,) names of the crops; None in a file of an earlier version.
        fingerprint: Fingerprint of the round.
        seconds: Time of the fit.
    """

    prob_VB: NDArray[np.float32]
    crop_id: NDArray[np.str_] | None
    fingerprint: str
    seconds: float


def write_fold(file: Path, fold: SavedFold) -> None:
    """Write the predictions of a fold; the file marks the fold as trained."""
    assert fold.crop_id is not None
    arrays: dict[str, ArrayLike] = {
        "prob": fold.prob_VB, "crop_id": fold.crop_id,
        "fingerprint": fold.fingerprint, "seconds": fold.seconds,
    }  # fmt: skip
    write_npz(file, arrays)


def read_fold(file: Path, classes: int) -> SavedFold:
    """Read the predictions of a fold.

    Args:
        file: The file.
        classes: Number of the team's classes.

    Raises:
        UserError: The file is missing or damaged.
    """
    found = read_npz(file, ("prob", "crop_id", "fingerprint", "seconds"), _REMEDY)
    problem = ""
    for name, kinds, shape in (
        ("prob", "f", (None, classes)), ("fingerprint", "U", ()), ("seconds", "fiu", ()),
        ("crop_id", "U", (None,)),
    ):  # fmt: skip
        if name not in found:
            problem = problem or ("" if name == "crop_id" else f"no {name}")
            continue
        array = found[name]
        is_shaped = array.ndim == len(shape) and all(
            want is None or want == have for want, have in zip(shape, array.shape, strict=True)
        )
        # A fold without crops has names of no kind.
        if not is_shaped or (array.dtype.kind not in kinds and array.size):
            problem = problem or f"{name} of {array.dtype} in the shape {array.shape}"
    # The mean of several networks may leave 0 to 1 by what it rounds.
    if not problem and not ((found["prob"] > -0.001) & (found["prob"] < 1.001)).all():
        problem = "probabilities that are none"
    if not problem and "crop_id" in found and len(found["crop_id"]) != len(found["prob"]):
        problem = f"{len(found['crop_id'])} crops with {len(found['prob'])} probabilities"
    if problem:
        raise damaged(file, "out-of-fold predictions", problem, _REMEDY)
    return SavedFold(
        found["prob"], found.get("crop_id"), str(found["fingerprint"]), float(found["seconds"])
    )


def fold_digest(file: Path) -> str:
    """Hash of the predictions in a fold's file, in hexadecimal; the time of the fit is left out.

    Raises:
        UserError: The file is missing or damaged.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, array in read_npz(file, ("prob", "crop_id", "fingerprint"), _REMEDY).items():
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
