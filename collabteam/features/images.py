"""From encoded crops to batches: decode once, keep bytes, serve every branch."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from collabteam.learners.modules import Batch
from collabteam.settings import DataConfig

PAD = (124, 116, 104)
"""Colour of the letterbox: ImageNet's mean, so the border is near zero after normalisation."""
_MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
_STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


def letterbox(image: bytes, size: int) -> NDArray[np.uint8]:
    """Decode a crop and fit it into a square without changing its shape.

    Args:
        image: Encoded picture (JPEG, PNG, ...).
        size: Side of the square in pixels.

    Returns:
        (3, size, size) uint8, RGB, the picture centred on the mean colour.
    """
    with Image.open(io.BytesIO(image)) as opened:
        opened.draft("RGB", (size, size))  # JPEG decodes at 1/2, 1/4 or 1/8 where that suffices
        picture = _upright_rgb(opened)
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if width != height:
        square = Image.new("RGB", (size, size), PAD)
        square.paste(picture, ((size - width) // 2, (size - height) // 2))
        picture = square
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _upright_rgb(opened: Image.Image) -> Image.Image:
    """Turn as the camera that took it says; lay transparent parts on the letterbox's colour."""
    picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    ground = Image.new("RGBA", picture.size, (*PAD, 255))
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def decode(images: Sequence[bytes], size: int, pool: ThreadPoolExecutor) -> Tensor:
    """Letterbox many crops at once; Pillow lets go of the interpreter while it decodes.

    Returns:
        (N, 3, size, size) uint8.
    """
    out = np.empty((len(images), 3, size, size), np.uint8)
    for position, picture in enumerate(pool.map(lambda image: letterbox(image, size), images)):
        out[position] = picture
    return torch.from_numpy(out)


def normalize(images: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) to float, zero mean and unit deviation on ImageNet, channels last."""
    scaled = (images.float() - _MEAN.to(images.device)) / _STD.to(images.device)
    return scaled.contiguous(memory_format=torch.channels_last)


def augment(
    images: Tensor, strength: str = "affine", generator: torch.Generator | None = None
) -> Tensor:
    """Change each crop its own way, with one resampling for all.

    ``affine`` mirrors, rotates, scales and shifts, mildly: a team that begins from scratch has not
    the steps on a CPU to learn from wide ranges. ``strong`` has these, and changes of brightness
    and contrast and a blanked square (DeVries and Taylor, "Improved Regularization of Convolutional
    Neural Networks with Cutout", 2017): for rounds that go on from a trained team.

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
    turn, shift = (0.15, 0.2) if strong else (0.05, 0.12)  # in radians, in half sides
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


class _Batches(Dataset[Batch]):
    """Indexing with a list of positions gives the whole batch in one gather."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, positions: list[int]) -> Batch:
        return self.images[positions], self.labels[positions]


class _Shuffled(Sampler[list[int]]):
    """Batches of positions in random order; a short last batch is left out if there are others."""

    def __init__(self, positions: Tensor, batch_size: int, seed: int) -> None:
        self.positions, self.batch_size = positions, batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return max(1, len(self.positions) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.positions[torch.randperm(len(self.positions), generator=self.generator)]
        for start in range(len(self)):
            yield order[start * self.batch_size : (start + 1) * self.batch_size].tolist()


class _InOrder(Sampler[list[int]]):
    def __init__(self, positions: Tensor, batch_size: int) -> None:
        self.positions, self.batch_size = positions, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.positions) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.positions), self.batch_size):
            yield self.positions[start : start + self.batch_size].tolist()


class CropDataModule(pl.LightningDataModule):
    """One fold of a camera's training crops, held in memory as bytes.

    18,000 crops of 64 px are 221 MB; nothing is copied per worker or per branch, because there are
    no workers and every branch gets the same batch.

    Args:
        images: (N, 3, S, S) uint8, see :func:`decode`.
        labels: (N,) int, index of the class or -1.
        folds: (N,) int, the fold in which each crop validates.
        fold: The fold to validate on; all others train.
        config: Batch sizes.
        augmentation: ``none``, ``affine`` or ``strong``.
        seed: Of the order and the augmentation.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        folds: Tensor,
        fold: int,
        config: DataConfig,
        augmentation: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.dataset = _Batches(images, labels)
        self.training = torch.nonzero(folds != fold).flatten()
        self.validation = torch.nonzero(folds == fold).flatten()
        self.config, self.augmentation = config, augmentation
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed + 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training folds."""
        sampler = _Shuffled(self.training, self.config.batch_size, self.seed)
        return DataLoader(self.dataset, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the validation fold, in order."""
        sampler = _InOrder(self.validation, self.config.eval_batch_size)
        return DataLoader(self.dataset, sampler=sampler, batch_size=None)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise, and augment while training, where the batch will be used."""
        images, labels = batch
        images = normalize(images)
        training = self.trainer is not None and self.trainer.training
        if self.augmentation != "none" and training:
            images = augment(images, self.augmentation, self.generator)
        return images, labels
