"""i0: the crops that a person verifies before a team can learn.

The draw is saved in a file, so that review and training use the same crops,
whichever runs first. :mod:`collabteam.rounds.stages.sample` draws it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import CropIndex
from collabteam.storage.files import damaged, read_json
from collabteam.storage.workspace import Workspace

_KINDS = {
    "crops": list, "seed": int, "seed_per_class": int, "seed_unknown": int, "reviewer": str,
    "drawn_from": int, "classes": list,
}  # fmt: skip
_NEEDED = ("crops", "seed", "seed_per_class", "seed_unknown", "reviewer")


def initial_rows(workspace: Workspace, index: CropIndex) -> NDArray[np.int64]:
    """Rows of the crops of i0, ascending.

    Raises:
        UserError: i0 is not drawn, or the draw's file is damaged.
    """
    rows = index.crop_id.find(read_sample(workspace)["crops"])
    return np.unique(rows[rows >= 0])


def read_sample(workspace: Workspace) -> dict[str, Any]:
    """Read the draw of i0: ``crops``, and the settings of the draw.

    Raises:
        UserError: i0 is not drawn, or the draw's file is damaged.
    """
    return read_draw(workspace.round(0).sample)


def read_draw(file: Path) -> dict[str, Any]:
    """Read a draw of i0, which may have been rolled back.

    Raises:
        UserError: The file is missing or damaged.
    """
    remedy = (
        "restore it from a backup; if no round is finished, delete it, and i0 is drawn again "
        "around the crops that are verified"
    )
    drawn = read_json(file, remedy)
    for name, kind in _KINDS.items():
        if name in drawn and type(drawn[name]) is not kind:
            raise damaged(file, f"a draw of i0 with {name}", f"{drawn[name]!r:.40}", remedy)
    lacking = [name for name in _NEEDED if name not in drawn]
    if lacking or not all(type(crop) is str for crop in drawn["crops"]):
        found = f"no {lacking[0]}" if lacking else "crops that are no names"
        raise damaged(file, "a draw of i0", found, remedy)
    return drawn
