"""From encoded crops to tensors: decoding, normalisation, augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from collabteam.errors import UserError
from collabteam.features.devices import cpu_threads
from collabteam.pictures import GROUND, UndecodablePicture, decode
from collabteam.settings import UNUSABLE

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PAD = GROUND
"""Colour of the letterbox: ImageNet's mean, so the border is near zero after normalisation."""
_CHUNK = 4096
"""Encoded crops held in memory at once."""


class ImageReader(Protocol):
    """Returns encoded crops by row, such as a catalog."""

    def images(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Encoded crops of these rows, in this order."""


def letterbox(
    image: bytes,
    size: int,
    pad: tuple[int, int, int] = PAD,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> NDArray[np.uint8]:
    """Decode a crop and fit it into a square without changing its shape.

    Args:
        image: Encoded picture (JPEG, PNG, ...).
        size: Side of the square in pixels.
        pad: Colour of the rest of the square, RGB, 0 to 255.
        resampling: Interpolation.

    Returns:
        (3, size, size) uint8, RGB, the picture in the middle.

    Raises:
        UndecodablePicture: It is damaged, or of an unknown format.
    """
    picture = decode(image, size)
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), resampling, reducing_gap=2.0)
    if width != height:
        square = Image.new("RGB", (size, size), pad)
        square.paste(picture, ((size - width) // 2, (size - height) // 2))
        picture = square
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


@dataclass(frozen=True)
class Transform:
    """How encoded crops become the input of a network.

    Attributes:
        size: Side of the letterboxed square in pixels.
        mean: Mean per channel that normalisation subtracts, 0 to 1.
        std: Deviation per channel that normalisation divides by, above 0.
        interpolation: Name of Pillow's resampling, such as ``bicubic``.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"

    @property
    def pad(self) -> tuple[int, int, int]:
        """Colour of the letterbox, RGB, 0 to 255: near zero after normalisation."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    def decode(self, images: Sequence[bytes], pool: Executor) -> Tensor:
        """Letterbox many crops at once; Pillow releases the GIL while it decodes.

        Args:
            images: N encoded pictures.
            pool: Threads that decode, see :func:`decoding_threads`.

        Returns:
            (N, 3, size, size) uint8.
        """
        pad, resampling = self.pad, Image.Resampling[self.interpolation.upper()]
        out = np.empty((len(images), 3, self.size, self.size), np.uint8)

        def one(image: bytes) -> NDArray[np.uint8]:
            return letterbox(image, self.size, pad, resampling)

        for position, picture in enumerate(pool.map(one, images)):
            out[position] = picture
        return torch.from_numpy(out)

    def normalize(self, images: Tensor) -> Tensor:
        """Scale pictures to zero mean and unit deviation.

        Args:
            images: (N, 3, S, S) uint8.

        Returns:
            The same shape in float32, channels last.
        """
        mean, std = (
            torch.tensor([255 * value for value in values], device=images.device).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def decode_rows(
    reader: ImageReader, rows: NDArray[np.int64], transform: Transform, pool: Executor
) -> Tensor:
    """Read and decode crops.

    Args:
        reader: Returns encoded crops by row.
        rows: N rows.
        transform: How to decode them.
        pool: Threads that decode, see :func:`decoding_threads`.

    Returns:
        (N, 3, S, S) uint8.

    Raises:
        UserError: A picture cannot be decoded.
    """
    images = reader.images(rows)
    try:
        return transform.decode(images, pool)
    except UndecodablePicture:
        for row, image in zip(rows.tolist(), images, strict=True):
            try:
                decode(image, transform.size)
            except UndecodablePicture as error:
                raise UserError(
                    f"the picture of crop number {row} {error}: give the crop the label "
                    f"'{UNUSABLE}' with the command review, and repeat this command"
                ) from error
        raise


def decoded_batches(
    reader: ImageReader, rows: NDArray[np.int64], transform: Transform, batch_size: int
) -> Iterator[Tensor]:
    """Decode crops as a stream: the next batch is read and decoded while this one is used.

    Memory holds two batches, whatever the number of rows.

    Args:
        reader: Returns encoded crops by row.
        rows: N rows.
        transform: How to decode them.
        batch_size: Crops per batch.

    Yields:
        (n, 3, S, S) uint8, the next ``n <= batch_size`` rows.

    Raises:
        UserError: A picture cannot be decoded.
    """
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    with decoding_threads() as pool, ThreadPoolExecutor(1) as ahead:
        coming = [
            ahead.submit(decode_rows, reader, batch, transform, pool) for batch in batches[:1]
        ]
        for following in [*batches[1:], None]:
            if not coming:
                return
            images = coming.pop().result()
            if following is not None:
                coming.append(ahead.submit(decode_rows, reader, following, transform, pool))
            yield images


def decoding_threads() -> ThreadPoolExecutor:
    """Threads that decode pictures: as many as torch computes with."""
    return ThreadPoolExecutor(cpu_threads())


class Pixels(Protocol):
    """Pictures by row of the camera, read on request.

    Attributes:
        transform: Decodes them, and normalises them later.
    """

    transform: Transform

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Decoded pictures (n, 3, S, S) uint8 of these rows, in this order."""


class CropPixels:
    """Pictures of a camera, decoded on request.

    Args:
        reader: Returns encoded crops by row.
        transform: How to decode them.
        kept: Rows, ascending, whose pictures stay in memory after the first request: crops that
            train are needed in each epoch of each fold. 18,000 crops of 64 px are 221 MB.
    """

    def __init__(
        self, reader: ImageReader, transform: Transform, kept: NDArray[np.int64] | None = None
    ) -> None:
        self.transform = transform
        self._reader = reader
        self._kept = np.zeros(0, np.int64) if kept is None else kept
        self._memory: Tensor | None = None

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Decoded pictures (n, 3, S, S) uint8 of these rows, in this order.

        A request for exactly the kept rows returns the memory itself, not a copy.
        """
        kept = np.isin(rows, self._kept, assume_unique=False)
        if not kept.any():
            return self._decode(rows)
        if self._memory is None:
            self._memory = self._decode(self._kept)
        if np.array_equal(rows, self._kept):
            return self._memory
        out = torch.empty((len(rows), *self._memory.shape[1:]), dtype=torch.uint8)
        out[torch.from_numpy(kept)] = self._memory[
            torch.from_numpy(np.searchsorted(self._kept, rows[kept]))
        ]
        out[torch.from_numpy(~kept)] = self._decode(rows[~kept])
        return out

    def _decode(self, rows: NDArray[np.int64]) -> Tensor:
        side = self.transform.size
        out = torch.empty((len(rows), 3, side, side), dtype=torch.uint8)
        with decoding_threads() as pool:
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                decoded = decode_rows(self._reader, chunk, self.transform, pool)
                out[start : start + len(chunk)] = decoded
        return out


def augment(
    images: Tensor, strength: str = "affine", generator: torch.Generator | None = None
) -> Tensor:
    """Augment each crop independently, with a single resampling for all changes.

    ``affine`` mirrors, rotates, scales and shifts mildly: on a CPU, training from scratch has too
    few steps to learn from wide ranges. ``strong`` uses wider ranges, changes brightness and
    contrast, and blanks a square (DeVries and Taylor, "Improved Regularization of Convolutional
    Neural Networks with Cutout", 2017); it suits rounds that continue from a trained team.

    Args:
        images: (N, 3, S, S) float, normalised.
        strength: ``affine`` or ``strong``, see :class:`~collabteam.settings.DataConfig`.
        generator: Source of randomness on the CPU; the global one if None.

    Returns:
        The changed pictures, same shape.
    """

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(len(images), generator=generator) * (high - low) + low

    strong = strength == "strong"
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    scale = uniform(0.75, 1.15) if strong else uniform(0.9, 1.1)
    turn, shift = (0.15, 0.2) if strong else (0.05, 0.12)  # radians; half sides
    angle = uniform(-turn, turn)
    shift_x, shift_y = uniform(-shift, shift), uniform(-shift, shift)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    row_x = torch.stack([cos * mirror, -sin, shift_x], dim=1)
    row_y = torch.stack([sin * mirror, cos, shift_y], dim=1)
    matrix = torch.stack([row_x, row_y], dim=1).to(images.device)
    grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(
        images, grid, padding_mode="reflection", align_corners=False
    )
    if strong:
        side = images.shape[-1]
        contrast, brightness = uniform(0.75, 1.25), uniform(-0.3, 0.3)
        moved = moved * _per_crop(contrast, moved) + _per_crop(brightness, moved)
        places = torch.arange(side)
        near_x = (places - uniform(0, side)[:, None]).abs() < side / 5
        near_y = (places - uniform(0, side)[:, None]).abs() < side / 5
        blank = near_x[:, None, :] & near_y[:, :, None] & (uniform(0, 1) < 0.5)[:, None, None]
        moved = moved.masked_fill(blank[:, None].to(moved.device), 0.0)
    return moved.contiguous(memory_format=torch.channels_last)


def _per_crop(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(images.device)
