"""The layout of ultralytics' classification datasets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from collabteam.exporting.base import WriteReport
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.formats.imagefolder import ImageFolder
from collabteam.exporting.selection import TRAIN, VAL, Selection, validation_part

_VALIDATION = 0.1
"""Share of the crops of ``train`` that become ``val``."""
_SMALLEST = 10
"""Smallest side in pixels; ultralytics ignores smaller pictures."""


class Yolo(ImageFolder):
    """An image folder with ``train/``, ``val/`` and perhaps ``test/``."""

    name = "yolo"
    layout = (
        "`train/<class>/<crop>.jpg`, `val/`, `test/`, for ultralytics' classification; "
        "`metadata.csv`"
    )
    notes = (
        "`yolo classify train model=... data={to}`: train and val share no track; about a tenth "
        "of each class is val, by the hash of the track's name and `seed`.",
    )
    as_png = (".gif", ".ppm")

    def arrange(self, selection: Selection, seed: int) -> Selection:
        """Move a part of the training crops, in whole tracks, to ``val``."""
        trains = np.flatnonzero(selection.split == TRAIN)
        tracks = selection.index.track[selection.rows[trains]]
        part = validation_part(selection.label[trains], tracks, _VALIDATION, seed)
        split = selection.split.copy()
        split[trains[part]] = VAL
        return replace(selection, split=split)

    def splits(self, selection: Selection) -> list[str]:
        """Return the names of the splits that get a folder."""
        # Without val/, ultralytics would validate on test/.
        return sorted({TRAIN, VAL, *selection.split.tolist()})

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the pictures and the table, and count the pictures that are too small."""
        small = 0

        def counted() -> Iterator[ExportedCrop]:
            nonlocal small
            for crop in crops:
                small += min(crop.width, crop.height) < _SMALLEST
                yield crop

        report = super().write(counted(), folder, selection, camera)
        if small:
            report.remarks.append(
                f"Pictures with a side of less than {_SMALLEST} px, which ultralytics passes "
                f"over: {small}."
            )
        return report
