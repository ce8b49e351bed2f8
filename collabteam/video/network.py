"""What the trained networks of different packages have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Raw = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""What a network says of one image: (N, 4) boxes in pixels of it, (N,) scores, (N,) numbers of
kinds."""


class Network(Protocol):
    """A trained network, as :mod:`.yolo` and :mod:`.detection` wrap it."""

    names: dict[int, str]
    """The kinds of objects that it knows, by its own numbers."""

    def predict(self, images: Sequence[NDArray[np.uint8]], numbers: list[int]) -> list[Raw]:
        """What is seen in images of one size, from the confidence that is asked for.

        Boxes may reach beyond the image. Kinds other than ``numbers`` may be left out.
        """
