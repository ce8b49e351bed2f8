"""What objects look like, as vectors that can be compared: by a network, or by colours alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collabteam.errors import UserError, first_line

NETWORK_DISTANCE = 0.35
"""Cosine distance from which on two vectors of a re-identification network show two objects: with
OSNet x0.25 on PETS2009 S2.L1, 94% of the pairs of one person 1 to 5 s apart are below it, and 3%
of the pairs of two persons. boxmot's default for StrongSORT is 0.4."""

COLOUR_DISTANCE = 0.2
"""The same of :class:`ColourHistograms`: 93% and 9%."""


class Appearance(Protocol):
    """Turns objects into vectors.

    Attributes:
        max_distance: Cosine distance from which on two vectors show two objects, 0 to 2.
    """

    max_distance: float

    def embed(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
        """Look at the objects of one frame.

        Args:
            image: (H, W, 3), RGB.
            box: (N, 4): left, top, right, bottom in pixels; may reach beyond the frame.

        Returns:
            (N, D) unit vectors; D may be 0 if N is.
        """
        ...


class ColourHistograms:
    """Histograms of lightness and of two colour differences in six stripes from head to feet.

    The outer fifth on either side is left out, where the background shows. Colours are ITU-R
    BT.601's Y, Cb and Cr; the differences enter as square roots, as those of clothes are small.
    Values count for their two nearest bins, so that a change of light by less than a bin changes
    little, and the roots of the counts make the cosine a Bhattacharyya coefficient (Comaniciu et
    al., "Kernel-based object tracking", 2003). On PETS2009 S2.L1, two pictures of one
    person 1 to 5 s apart are nearer than pictures of two persons in 97% of all draws; with OSNet
    x0.25, in 99%.
    """

    max_distance = COLOUR_DISTANCE

    _STRIPES, _ROWS, _COLUMNS, _TRIM = 6, 48, 16, 0.2
    _BINS = (24, 24, 24)
    _YCBCR = np.array(
        [[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]],
        np.float32,
    )

    def embed(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`Appearance`; D is 432."""
        count = len(box)
        width = box[:, 2] - box[:, 0]
        left, right = box[:, 0] + self._TRIM * width, box[:, 2] - self._TRIM * width
        x = _spread(left, right, self._COLUMNS, image.shape[1])
        y = _spread(box[:, 1], box[:, 3], self._ROWS, image.shape[0])
        pixels = image[y[:, :, None], x[:, None, :]].astype(np.float32) / 255
        values = pixels @ self._YCBCR
        colours = values[..., 1:]
        values[..., 1:] = 0.5 + np.sign(colours) * np.sqrt(np.abs(colours) / 2)
        stripe = np.arange(count * self._STRIPES).repeat(
            self._ROWS * self._COLUMNS // self._STRIPES
        )
        parts = []
        for channel, bins in enumerate(self._BINS):
            place = np.clip(values[..., channel].ravel() * (bins - 1), 0, bins - 1 - 1e-4)
            lower = place.astype(np.int64)
            share = place - lower
            at, size = stripe * bins + lower, count * self._STRIPES * bins
            histogram = np.bincount(at, 1 - share, size) + np.bincount(at + 1, share, size)
            parts.append(histogram.reshape(count, self._STRIPES * bins))
        root = np.sqrt(np.concatenate(parts, axis=1))
        return unit(root.astype(np.float32))


def _spread(
    low: NDArray[np.float32], high: NDArray[np.float32], count: int, size: int
) -> NDArray[np.int64]:
    """(N, count) pixels spread evenly from low to high, inside a frame of that size."""
    share = (np.arange(count, dtype=np.float32) + 0.5) / count
    places = low[:, None] + share * (high - low)[:, None]
    pixels: NDArray[np.int64] = np.clip(places, 0, size - 1).astype(np.int64)
    return pixels


class OnnxNetwork:
    """A re-identification network in ONNX format, on the processor.

    Pictures are scaled to the network's input and normalised by ImageNet's mean and deviation, as
    OSNet's are (Zhou et al., "Omni-scale feature learning for person re-identification", 2019).

    Args:
        path: A network of one input (batch, 3, height, width) and one output (batch, D).

    Raises:
        UserError: The file is no such network, or the package onnxruntime is missing.
    """

    max_distance = NETWORK_DISTANCE

    _MEAN = np.array([0.485, 0.456, 0.406], np.float32)
    _DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

    def __init__(self, path: Path) -> None:
        # boxmot can read such files too, but would call pip for one exact version of onnxruntime.
        if find_spec("onnxruntime") is None:
            raise UserError(f"reid={path} needs onnxruntime: pip install 'collabteam[video]'")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Threads that wait for the next frame would take the cores away from the detector.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class of errors for every status
            raise UserError(
                f"reid={path}: expected a network in ONNX format: {first_line(error)}"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        size = [side for side in shape[2:] if isinstance(side, int)]
        if len(outputs) != 1 or len(shape) != 4 or shape[1] != 3 or len(size) != 2:
            raise UserError(
                f"reid={path}: expected one input (batch, 3, height, width) and one output, got "
                f"{[one.shape for one in inputs]} and {len(outputs)} outputs"
            )
        self._input, self._height, self._width = inputs[0].name, size[0], size[1]
        self._batch = shape[0] if isinstance(shape[0], int) else 0

    def embed(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
        """See :class:`Appearance`."""
        import cv2

        if not len(box):
            return np.zeros((0, 0), np.float32)
        high, wide = image.shape[:2]
        corners = np.rint(box).astype(np.int64)
        left, top = corners[:, 0].clip(0, wide - 1), corners[:, 1].clip(0, high - 1)
        right = np.maximum(corners[:, 2].clip(0, wide), left + 1)
        bottom = np.maximum(corners[:, 3].clip(0, high), top + 1)
        pictures = np.empty((len(box), 3, self._height, self._width), np.float32)
        for row in range(len(box)):
            crop = image[top[row] : bottom[row], left[row] : right[row]]
            scaled = cv2.resize(crop, (self._width, self._height)).astype(np.float32) / 255
            pictures[row] = ((scaled - self._MEAN) / self._DEVIATION).transpose(2, 0, 1)
        return unit(self._run(pictures).reshape(len(box), -1))

    def _run(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """All at once, or in the batches of a network that takes no other."""
        size = self._batch or len(pictures)
        found = []
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            filled = np.concatenate([part, np.zeros_like(pictures[:1]).repeat(size - len(part), 0)])
            found.append(self._session.run(None, {self._input: filled})[0][: len(part)])
        return np.concatenate(found)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) vectors at a length of 1; what is not finite, or of length 0, as all the same."""
    vectors = np.where(np.isfinite(vectors), vectors, 0).astype(np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    same = np.float32(1 / max(vectors.shape[1], 1) ** 0.5)
    return np.where(length > 1e-12, vectors / np.maximum(length, 1e-12), same).astype(np.float32)
