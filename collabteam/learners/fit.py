"""Train the team of one fold and keep what it says about the crops it has not seen."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from torch import Tensor

from collabteam.features.images import CropDataModule
from collabteam.learners.modules import TeamModule, branch_weights
from collabteam.machine import processors
from collabteam.settings import DataConfig, OptimConfig, TeamConfig
from collabteam.storage.layout import RoundFiles
from collabteam.team.team import Device, Team, load_weights, save_branch


@dataclass(frozen=True)
class FoldOutcome:
    """What a trained fold says about its own validation crops.

    Attributes:
        prob: (V, B) probability of *true*, 0 to 1, in the order of the training set.
        seconds: Time of the fit.
    """

    prob: NDArray[np.float32]
    seconds: float


class _Advance(pl.Callback):
    """Tell how many crops went through, batch by batch."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self.advance(len(batch[1]))


def set_threads(threads: int) -> int:
    """Give torch its CPU threads; 0 means every core this process may use."""
    count = threads or processors()
    torch.set_num_threads(count)
    return count


def fit_fold(
    files: RoundFiles,
    classes: Sequence[str],
    images: Tensor,
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    fold: int,
    *,
    team: TeamConfig,
    data: DataConfig,
    optim: OptimConfig,
    later: bool,
    start_from: RoundFiles | None,
    seed: int,
    device: Device,
    logger: Logger | None,
    advance: Callable[[int], None],
) -> FoldOutcome:
    """Train every branch on all folds but one and score that one.

    Args:
        files: The round; its branches are written, each atomically.
        classes: Names of the classes.
        images: (N, 3, S, S) uint8 training set.
        labels: (N,) class of each crop, -1 for none of them.
        folds: (N,) fold in which each crop validates.
        fold: The fold to validate on.
        team: Network settings.
        data: Batch sizes and augmentation.
        optim: Optimiser settings.
        later: Whether this is a round k > 0, which may have its own epochs and rate.
        start_from: Round whose branches of the same fold are the start, or None.
        seed: Of the initial weights, the order and the augmentation.
        device: Where to compute.
        logger: Lightning logger for the curves, or None.
        advance: Called with the number of crops of each finished batch.

    Returns:
        The out-of-fold probabilities.
    """
    began = time.perf_counter()
    epochs = (optim.epochs_later if later else 0) or optim.epochs
    torch.manual_seed(seed)
    target = torch.from_numpy(labels)
    weights = branch_weights(target[torch.from_numpy(folds != fold)], len(classes))
    module = TeamModule(classes, team, optim, weights)
    if start_from is not None:
        for name, network in zip(classes, module.networks(), strict=True):
            load_weights(network, start_from.branch(name, fold))
    module.to(memory_format=torch.channels_last)
    augmentation = (data.augment_later if later else "") or data.augment
    batches = CropDataModule(
        images, target, torch.from_numpy(folds), fold, data, augmentation, seed
    )
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if device.torch.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if device.bf16 else "32-true",
            max_epochs=epochs,
            logger=logger if logger is not None else False,
            callbacks=[_Advance(advance)],
            check_val_every_n_epoch=min(5, epochs),
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1_000_000,
            deterministic="warn" if device.torch.type == "cuda" else None,
        )
        trainer.fit(module, batches)
    files.branches.mkdir(parents=True, exist_ok=True)
    for name, network in zip(classes, module.networks(), strict=True):
        save_branch(network, files.branch(name, fold), team, name, data.image_size)
    # Scored by the very path that will score the pool, so its numbers are comparable.
    voters = Team(classes, [[network] for network in module.networks()], data.image_size, device)
    rows = np.flatnonzero(folds == fold)
    prob = [
        voters.score(images[torch.from_numpy(rows[start : start + 256])])
        for start in range(0, len(rows), 256)
    ]
    return FoldOutcome(np.concatenate(prob), time.perf_counter() - began)


class _quiet:
    """Keep Lightning's hints about hardware and workers out of the output of every fold."""

    def __enter__(self) -> None:
        self._logs = [logging.getLogger(f"lightning.{n}") for n in ("pytorch", "fabric")]
        self._levels = [log.level for log in self._logs]
        for log in self._logs:
            log.setLevel(logging.ERROR)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")

    def __exit__(self, *error: object) -> None:
        self._warnings.__exit__(None, None, None)
        for log, level in zip(self._logs, self._levels, strict=True):
            log.setLevel(level)
