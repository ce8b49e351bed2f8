"""i0: the crops that a person verifies before a team can learn.

The draw is saved in a file, so that review and training use the same crops,
whichever runs first. :mod:`collabteam.rounds.stages.sample` draws it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import CropIndex
from collabteam.storage.files import read_json
from collabteam.storage.workspace import Workspace


def initial_rows(workspace: Workspace, index: CropIndex) -> NDArray[np.int64]:
    """Rows of the crops of i0, ascending.

    Raises:
        UserError: i0 is not drawn, or the draw's file is broken.
    """
    rows = index.crop_id.find(read_json(workspace.round(0).sample)["crops"])
    return np.unique(rows[rows >= 0])
