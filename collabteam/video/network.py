"""The common interface of detection networks from different packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Raw = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""A network's output for one image: (N, 4) boxes in pixels of the image, (N,) scores, (N,) class
numbers."""


class Network(Protocol):
    """A trained detection network, as wrapped by :mod:`.yolo` and :mod:`.detection`."""

    names: dict[int, str]
    """The kinds of objects that the network knows, by class number."""

    def predict(self, images: Sequence[NDArray[np.uint8]], numbers: list[int]) -> list[Raw]:
        """Detect objects in images of one size, down to the configured confidence.

        Args:
            images: Each (H, W, 3) uint8, RGB, all of one size.
            numbers: Class numbers to find; others may be left out of the result.

        Returns:
            The output for each image. Boxes may reach beyond the image.
        """
