"""Appearance embeddings of objects, from a re-identification network or from colour histograms."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collabteam.errors import UserError, first_line

NETWORK_DISTANCE = 0.35
"""Cosine distance at or above which two vectors of a re-identification network are taken for two
objects. With OSNet x0.25 on PETS2009 S2.L1, 94% of the pairs of one person 1 to 5 s apart are below
it, and 3% of the pairs of two persons. boxmot's default for StrongSORT is 0.4."""

COLOUR_DISTANCE = 0.2
"""The same threshold for :class:`ColourHistograms`; the shares are 93% and 9%."""


class Appearance(Protocol):
    """Computes appearance embeddings of objects.

    Attributes:
        max_distance: Cosine distance, 0 to 2, at or above which two vectors are taken for two
            objects.
    """

    max_distance: float

    def embed(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed the objects of one frame.

        Args:
            image: (H, W, 3), RGB.
            box: (N, 4): left, top, right, bottom in pixels; may reach beyond the frame.

        Returns:
            (N, D) unit vectors; D may be 0 if N is 0.
        """
        ...


class ColourHistograms:
    """Histograms of luma and of two chroma channels in six stripes from head to feet.

    The outer fifth on either side is left out because the background shows there. Colours are ITU-R
    BT.601's Y, Cb and Cr; chroma enters as its square root, because that of clothes is small. Each
    value is split between its two nearest bins, so that a small change of light changes the
    histogram little. The square roots of the counts make the cosine a Bhattacharyya coefficient
    (Comaniciu et al., "Kernel-based object tracking", 2003). On PETS2009 S2.L1, two pictures of one
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
    """Spread (N, count) pixel positions evenly from low to high, clipped to a frame's size."""
    share = (np.arange(count, dtype=np.float32) + 0.5) / count
    places = low[:, None] + share * (high - low)[:, None]
    pixels: NDArray[np.int64] = np.clip(places, 0, size - 1).astype(np.int64)
    return pixels


class OnnxNetwork:
    """A re-identification network in ONNX format, run on the CPU.

    Pictures are scaled to the network's input size and normalised with ImageNet's mean and standard
    deviation, as for OSNet (Zhou et al., "Omni-scale feature learning for person
    re-identification", 2019).

    Args:
        path: A network with one input (batch, 3, height, width) and one output (batch, D).

    Raises:
        UserError: The file does not hold such a network, or the package onnxruntime is missing.
    """

    max_distance = NETWORK_DISTANCE

    _MEAN = np.array([0.485, 0.456, 0.406], np.float32)
    _DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

    def __init__(self, path: Path) -> None:
        # boxmot can read such files too, but it calls pip to install one version of onnxruntime.
        if find_spec("onnxruntime") is None:
            raise UserError(f"reid={path} needs onnxruntime: pip install 'collabteam[video]'")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Threads that spin while they wait for the next frame would slow down the detector.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has an exception class for every status
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
        """Run the network in one batch, or in batches of its fixed size."""
        size = self._batch or len(pictures)
        found = []
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            filled = np.concatenate([part, np.zeros_like(pictures[:1]).repeat(size - len(part), 0)])
            found.append(self._session.run(None, {self._input: filled})[0][: len(part)])
        return np.concatenate(found)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise (N, D) vectors to length 1; non-finite or zero vectors get equal components."""
    vectors = np.where(np.isfinite(vectors), vectors, 0).astype(np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    same = np.float32(1 / max(vectors.shape[1], 1) ** 0.5)
    return np.where(length > 1e-12, vectors / np.maximum(length, 1e-12), same).astype(np.float32)
