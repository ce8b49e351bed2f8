"""A simulated reviewer who answers from hidden truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, CropIndex, LabelEvent
from collabteam.catalog.truth import read_truth
from collabteam.errors import UserError
from collabteam.settings import UNKNOWN


def oracle_answers(
    catalog: Catalog,
    index: CropIndex,
    rows: NDArray[np.int64],
    error_rate: float,
    seed: int,
    purpose: str,
) -> list[LabelEvent]:
    """Answers of the oracle for crops that no person has verified.

    A wrong answer is one of the other labels (a class or "none of these") at random. The error of
    a crop depends on the seed and the crop alone, so asking again gives the same answer.

    Args:
        catalog: The camera's catalog.
        index: Its crops.
        rows: Which crops to answer for.
        error_rate: Share of wrong answers, 0 to 1.
        seed: Seed of the errors.
        purpose: Queue that the crops belong to: ``seed`` or ``test``.

    Returns:
        One event per crop.

    Raises:
        UserError: A crop has no hidden truth.
    """
    truth = read_truth(catalog, index.crop_id)[rows]
    ids = index.crop_id[rows].tolist()
    if blind := int((truth == "").sum()):
        raise UserError(
            f"reviewer=oracle needs the hidden truth of {len(ids)} crops, {blind} have none: "
            "ingest them with labels=truth, or verify them and use reviewer=person"
        )
    answers = []
    possible = [*catalog.classes, UNKNOWN]
    for crop_id, label in zip(ids, truth.tolist(), strict=True):
        rng = np.random.default_rng([seed, int(crop_id[:12], 16)])
        if rng.random() < error_rate:
            label = str(rng.choice([other for other in possible if other != label]))
        answers.append(LabelEvent(crop_id, label, source="oracle", purpose=purpose, by="oracle"))
    return answers
