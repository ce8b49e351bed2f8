"""A camera's labelled crops as a PyTorch dataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from collabteam.catalog import Catalog
from collabteam.errors import UserError
from collabteam.exporting.selection import HELD_OUT, TEST, TRAIN, select_labels
from collabteam.pictures import UndecodablePicture, decode


class LabelledCrops(Dataset[tuple[Any, int]]):
    """The crops that ``python -m collabteam.export`` would write, as a PyTorch dataset.

    Use it in your own training::

        crops = LabelledCrops("outputs", "S10-08", split="train", transform=to_tensor)
        loader = DataLoader(crops, batch_size=64, shuffle=True)

    Creating the object fixes the crops and their labels; each picture is read from the catalog when
    its item is accessed. Pictures are stored in Lance, which cannot be read from a forked process:
    use ``num_workers=0``, or workers that are spawned
    (``DataLoader(..., num_workers=2, multiprocessing_context="spawn")``).

    Args:
        root: Folder that holds one folder per camera.
        camera: The camera's name.
        split: ``train``; ``test``, the frozen test set; ``held-out``, other crops of objects that
            the test set shows; None for all of them.
        certified: Whether to take only the crops that the newest certificate covers.
        min_confidence: Lowest confidence of the team's labels, 0 to 1; others are left out.
        unknown: Whether to include ``unknown`` crops, objects of none of the classes.
        transform: Called with each picture.

    Attributes:
        classes: Names by index: the camera's classes in order, and ``unknown`` last if it is
            included. Classes without crops are listed too.
        labels: Shape ``(K,)``, int64: index of each crop's class.
        crop_ids: K names of crops, in the order of the items.
        splits: K splits: ``train``, ``test`` or ``held-out``.
        sources: K sources: ``person``, ``import``, ``oracle`` (simulated) or ``team``.

    Raises:
        UserError: There is no such camera, split or certificate.

    Example:
        >>> LabelledCrops("outputs", "S10-08", split="tset")
        Traceback (most recent call last):
        collabteam.errors.UserError: split='tset': expected train, test, held-out or None
    """

    def __init__(
        self,
        root: str | Path,
        camera: str,
        split: str | None = None,
        certified: bool = False,
        min_confidence: float = 0.0,
        unknown: bool = False,
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        if split not in (None, TRAIN, TEST, HELD_OUT):
            raise UserError(f"split={split!r}: expected {TRAIN}, {TEST}, {HELD_OUT} or None")
        self._catalog: Catalog | None = Catalog.open(root, camera)
        self._workspace = self._catalog.workspace
        self._process = os.getpid()
        selection = select_labels(self._catalog, certified, min_confidence, unknown)
        chosen = np.flatnonzero((selection.split == split) | (split is None))
        self.classes = selection.classes
        number_of = {name: number for number, name in enumerate(self.classes)}
        self._rows = selection.rows[chosen]
        self.labels = np.array([number_of[name] for name in selection.label[chosen]], np.int64)
        self.crop_ids: list[str] = selection.index.crop_id[self._rows].tolist()
        self.splits: list[str] = selection.split[chosen].tolist()
        self.sources: list[str] = selection.source[chosen].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> tuple[Any, int]:
        """Read one crop.

        Returns:
            The picture and the index of its class. The picture is RGB and upright, with transparent
            parts on the background colour that the team sees, and passed through ``transform``.

        Raises:
            IndexError: There is no such item.
            RuntimeError: This is a forked process.
            UserError: The catalog is damaged, or the picture cannot be decoded.
        """
        (image,) = self._open().images([self._rows[item]])
        try:
            picture = decode(image)
        except UndecodablePicture as error:
            raise UserError(f"the picture of crop {self.crop_ids[item]} {error}") from error
        return (self.transform(picture) if self.transform else picture), int(self.labels[item])

    def _open(self) -> Catalog:
        if self._catalog is None:  # in a process that received this object
            self._catalog, self._process = Catalog(self._workspace), os.getpid()
        if os.getpid() != self._process:
            raise RuntimeError(
                "crops cannot be read from a forked process: give the DataLoader num_workers=0 or "
                "multiprocessing_context='spawn'"
            )
        return self._catalog

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_catalog": None}
