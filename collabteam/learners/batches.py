"""Batches of a fold's crops: decoded once, held as bytes, in an order that can be resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from collabteam.features.images import Transform, augment
from collabteam.settings import DataConfig

Batch = tuple[Tensor, Tensor, Tensor]
"""Pictures (N, 3, S, S), labels (N,) int (class, or ``NONE``), and weights (N,) float."""


class _Crops(Dataset[Batch]):
    """Indexing with a list of positions gives the whole batch in one gather."""

    def __init__(self, images: Tensor, labels: Tensor, weights: Tensor) -> None:
        self.images, self.labels, self.weights = images, labels, weights

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, positions: list[int]) -> Batch:
        return self.images[positions], self.labels[positions], self.weights[positions]


class _Shuffled(Sampler[list[int]]):
    """Batches of positions in random order; a short last batch is left out if there are others.

    It can resume the state of another sampler of the same positions and seed, even within an epoch.
    """

    def __init__(self, positions: Tensor, batch_size: int, seed: int) -> None:
        self.positions, self.batch_size = positions, batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self._epoch, self._given, self._skip = self.generator.get_state(), 0, 0

    def __len__(self) -> int:
        return max(1, len(self.positions) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        self._epoch = self.generator.get_state()
        order = self.positions[torch.randperm(len(self.positions), generator=self.generator)]
        first, self._skip = self._skip, 0
        for start in range(first, len(self)):
            self._given = start + 1
            yield order[start * self.batch_size : (start + 1) * self.batch_size].tolist()

    def state_dict(self) -> dict[str, Any]:
        if self._given == len(self):  # the next epoch begins
            return {"epoch": self.generator.get_state(), "given": 0}
        return {"epoch": self._epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["epoch"])
        self._epoch, self._given, self._skip = state["epoch"], state["given"], state["given"]


class _InOrder(Sampler[list[int]]):
    def __init__(self, positions: Tensor, batch_size: int) -> None:
        self.positions, self.batch_size = positions, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.positions) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.positions), self.batch_size):
            yield self.positions[start : start + self.batch_size].tolist()


class CropBatches(pl.LightningDataModule):
    """The labelled crops of one fold, held in memory as bytes.

    18,000 crops of 64 px are 221 MB; nothing is copied per worker or per branch, because there are
    no workers and every branch gets the same batch.

    Args:
        images: (N, 3, S, S) uint8.
        labels: (N,) int, index of the class or ``NONE``.
        weights: (N,) float.
        training: (n,) int, positions of the crops that train.
        validation: (m,) int, positions of the crops that validate.
        transform: Normalises the pictures.
        config: Batch sizes.
        augmentation: ``none``, ``affine`` or ``strong``.
        seed: Seed of the order and the augmentation.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        weights: Tensor,
        training: Tensor,
        validation: Tensor,
        transform: Transform,
        config: DataConfig,
        augmentation: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.dataset = _Crops(images, labels, weights)
        self.validation, self.transform = validation, transform
        self.config, self.augmentation = config, augmentation
        self.order = _Shuffled(training, config.batch_size, seed)
        self.generator = torch.Generator().manual_seed(seed + 1)

    @property
    def crops_per_epoch(self) -> int:
        """Number of crops that an epoch trains on."""
        return len(self.order) * min(self.config.batch_size, len(self.order.positions))

    @property
    def crops_of_epoch(self) -> int:
        """Number of crops that the unfinished epoch has trained on."""
        return int(self.order.state_dict()["given"]) * self.config.batch_size

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training folds."""
        return self._loader(self.order)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the validation fold, in order."""
        return self._loader(_InOrder(self.validation, self.config.eval_batch_size))

    def _loader(self, sampler: Sampler[list[int]]) -> DataLoader[Batch]:
        # A loader draws a seed for workers even without workers. It must not come from the global
        # generator: a resumed fit makes more loaders than an uninterrupted one.
        return DataLoader(
            self.dataset, sampler=sampler, batch_size=None, generator=torch.Generator()
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise, and augment while training, on the device that uses the batch."""
        images, labels, weights = batch
        images = self.transform.normalize(images)
        training = self.trainer is not None and self.trainer.training
        if self.augmentation != "none" and training:
            images = augment(images, self.augmentation, self.generator)
        return images, labels, weights

    def state_dict(self) -> dict[str, Any]:
        """State of the order and of the augmentation."""
        return {"order": self.order.state_dict(), "augmentation": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume the state of another module of the same crops."""
        self.order.load_state_dict(state_dict["order"])
        self.generator.set_state(state_dict["augmentation"])
