"""i0: the crops that a person verifies before a team can learn.

The draw is a file, ``round-0/sample.json``, so that reviewing and training mean the same crops,
whichever comes first. :mod:`collabteam.rounds.stages.sample` draws it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import CropIndex
from collabteam.rounds.state import read_json, round_folder


def sample_file(folder: Path) -> Path:
    """Where the draw of i0 stands, by the camera's folder."""
    return round_folder(folder, 0) / "sample.json"


def initial_rows(folder: Path, index: CropIndex) -> NDArray[np.int64]:
    """Rows of the crops of i0, ascending.

    Raises:
        UserError: i0 is not drawn, or the draw's file is broken.
    """
    rows = index.crop_id.find(read_json(sample_file(folder))["crops"])
    return np.unique(rows[rows >= 0])
