"""Supervised learning by gradient descent, the base of learners that use labelled crops alone."""

from __future__ import annotations

import logging
import math
import time
import warnings
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torchmetrics
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from collabteam.environment import isolated
from collabteam.events import Advance
from collabteam.features.backbones import Backbone
from collabteam.features.devices import Device
from collabteam.features.images import Transform
from collabteam.learners.base import FitEnvironment, FoldTask, Learner
from collabteam.learners.batches import Batch, CropBatches
from collabteam.settings import OptimConfig
from collabteam.storage.files import make_folder, replacing_path
from collabteam.team.team import Voter, load_weights, voter_file

_MEASURED = 8
"""Crops of the steps from which the time of a fit is estimated."""


class SupervisedLearner(Learner):
    """Trains voters on the labelled crops by SGD; it ignores the pool.

    Loss: cross-entropy weighted by class, with label smoothing (paper, section 3.1).
    """

    @abstractmethod
    def targets(self, columns: tuple[int, ...], labels: Tensor) -> Tensor:
        """Map each label to an output of a voter.

        Args:
            columns: The voter's classes.
            labels: (N,) int, index of the class or ``NONE``.

        Returns:
            (N,) int, indices of the network's outputs.
        """

    @property
    def backbone(self) -> Backbone:
        """The backbone of each voter."""
        return Backbone.of(self.shared.team, self.shared.data.image_size)

    @property
    def transform(self) -> Transform:  # noqa: D102
        return self.backbone.transform

    def epochs(self, later: bool, batches: int) -> int:
        """Epochs of a fit.

        Args:
            later: Whether this is a round k > 0.
            batches: Training steps of an epoch.
        """
        optim = self.shared.optim
        return (optim.epochs_later if later else 0) or optim.epochs

    def estimate(self, classes: Sequence[str], crops: int, device: Device) -> float:
        """Estimate the time of a fit of round 0 here, from two small training steps.

        Args:
            classes: Names of the classes.
            crops: Crops that train.
            device: Where to compute.

        Returns:
            Seconds.
        """
        data, size = self.shared.data, self.transform.size
        batches = max(1, crops // data.batch_size)
        passes = self.epochs(False, batches) * batches * data.batch_size
        images = torch.zeros(_MEASURED, 3, size, size, device=device.torch)
        images = images.contiguous(memory_format=torch.channels_last)
        spent = 0.0
        with torch.random.fork_rng(devices=[]):
            for columns in self.groups(classes):
                network = self.build(classes, columns, fetch=False).network.to(device.torch)
                network.to(memory_format=torch.channels_last)
                for _ in range(2):  # the first step prepares kernels
                    began = time.perf_counter()
                    with torch.autocast(device.torch.type, torch.bfloat16, enabled=device.bf16):
                        loss = network(images).float().square().mean()
                    loss.backward()
                    last = time.perf_counter() - began
                spent += last
        return passes * spent / _MEASURED

    def start(self, task: FoldTask) -> list[Voter]:
        """Build the voters that training starts from, in the order of :meth:`groups`."""
        voters = []
        for columns in self.groups(task.classes):
            voter = self.build(task.classes, columns, fetch=task.start_from is None)
            if task.start_from is not None:
                file = voter_file(task.start_from, task.classes, columns, task.fold)
                load_weights(voter.network, file)
            voters.append(voter)
        return voters

    def module(self, task: FoldTask, voters: Sequence[Voter]) -> SupervisedModule:
        """Make the module that trains the voters."""
        return SupervisedModule(task.classes, voters, self.targets, self.shared.optim)

    def fit(self, task: FoldTask, env: FitEnvironment) -> list[Voter]:  # noqa: D102
        data = self.shared.data
        torch.manual_seed(task.seed)
        labelled = np.flatnonzero(task.trains | task.validates)
        labels = torch.from_numpy(task.labels[labelled])
        weights = torch.from_numpy(task.weights[labelled])
        training = torch.from_numpy(np.flatnonzero(task.trains[labelled]))
        module = self.module(task, self.start(task))
        module.count(labels[training], weights[training])
        module.to(memory_format=torch.channels_last)
        later = data.augment_later if task.later else ""
        batches = CropBatches(
            task.pixels[task.rows[labelled]], labels, weights, training,
            torch.from_numpy(np.flatnonzero(task.validates[labelled])),
            task.pixels.transform, data, later or data.augment, task.seed,
        )  # fmt: skip
        fit_module(module, batches, self.epochs(task.later, len(batches.order)), env)
        return module.result()


class SupervisedModule(pl.LightningModule):
    """Voters that train side by side.

    They share no parameters, so one SGD on the summed loss equals n independent ones (a test checks
    this). Nothing that couples them, such as clipping the global gradient norm, may be
    switched on in the Trainer.

    Args:
        classes: Names of the classes.
        voters: The voters.
        targets: See :meth:`SupervisedLearner.targets`.
        optim: Optimiser settings.
    """

    def __init__(
        self,
        classes: Sequence[str],
        voters: Sequence[Voter],
        targets: Callable[[tuple[int, ...], Tensor], Tensor],
        optim: OptimConfig,
    ) -> None:
        super().__init__()
        self.classes, self.targets, self.optim = list(classes), targets, optim
        self.voters = list(voters)
        self.networks = nn.ModuleList(voters)  # registers their parameters
        self.recalls = nn.ModuleList(
            torchmetrics.Recall(task="multiclass", num_classes=2, average="none") for _ in classes
        )
        self.class_weights: list[Tensor] = []
        self.weighted = False

    def count(self, labels: Tensor, weights: Tensor) -> None:
        """Balance the loss by the training crops' own counts.

        Args:
            labels: (n,) int, index of the class or ``NONE``.
            weights: (n,) float, above 0.
        """
        self.weighted = bool((weights != weights[:1]).any())
        for voter in self.voters:
            outputs = self._outputs(voter)
            self.class_weights.append(
                class_weights(self.targets(voter.columns, labels), weights, outputs)
            )

    def result(self) -> list[Voter]:
        """The voters, once they are trained."""
        return self.voters

    def _outputs(self, voter: Voter) -> int:
        return 1 + int(self.targets(voter.columns, torch.arange(-1, len(self.classes))).max())

    def loss(self, number: int, batch: Batch) -> Tensor:
        """Weighted, smoothed cross-entropy of one voter on a batch (scalar)."""
        images, labels, weights = batch
        voter, balance = self.voters[number], self.class_weights[number]
        outputs = voter.network(images).float()
        target = self.targets(voter.columns, labels)
        smoothing = self.optim.label_smoothing
        if not self.weighted:
            return nn.functional.cross_entropy(outputs, target, balance, label_smoothing=smoothing)
        each = nn.functional.cross_entropy(
            outputs, target, balance, reduction="none", label_smoothing=smoothing
        )
        return (each * weights).sum() / (balance[target] * weights).sum()

    def on_fit_start(self) -> None:
        """Move the weights of the loss to where it is computed."""
        self.class_weights = [weights.to(self.device) for weights in self.class_weights]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Summed loss of one batch."""
        losses = [self.loss(number, batch) for number in range(len(self.voters))]
        for voter, loss in zip(self.voters, losses, strict=True):
            self.log(f"loss/{self._name(voter)}", loss.detach(), on_step=False, on_epoch=True)
        return torch.stack(losses).sum()

    def _name(self, voter: Voter) -> str:
        return "+".join(self.classes[column] for column in voter.columns)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count the votes on one batch."""
        images, labels, _ = batch
        for voter in self.voters:
            votes = voter(images) > 0.5
            for position, column in enumerate(voter.columns):
                recall: Any = self.recalls[column]
                recall.update(votes[:, position].long(), (labels == column).long())

    def on_validation_epoch_end(self) -> None:
        """Log the recall of true and of false per class, 0 to 1."""
        for name, recall in zip(self.classes, self.recalls, strict=True):
            metric: Any = recall
            of_false, of_true = metric.compute()
            self.log_dict({f"val/{name}/true": of_true, f"val/{name}/false": of_false})
            metric.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """SGD, momentum, weight decay and cosine annealing to zero, stepped per batch."""
        optim = self.optim
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=optim.lr,
            momentum=optim.momentum,
            nesterov=optim.nesterov,
            weight_decay=optim.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps, optim.warmup))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def class_weights(targets: Tensor, weights: Tensor, outputs: int) -> Tensor:
    """Weights of the cross-entropy per output, from the training crops' own counts.

    Each output weighs as much as the others in sum: ``N / (outputs * count)``, 0 for an output
    without crops.

    Args:
        targets: (N,) int, index of the output.
        weights: (N,) float, how much each crop counts.
        outputs: Number of outputs.

    Returns:
        (outputs,) float.
    """
    counts = torch.zeros(outputs).index_add_(0, targets, weights)
    # A product with the reciprocal, whose last digit the rounds of older cameras depend on.
    each = weights.sum() * (outputs * counts).reciprocal()
    return torch.where(counts > 0, each, torch.zeros(()))


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor on the peak rate by step: linear from 1/25 up, then half a cosine down to zero.

    Args:
        steps: Steps of the whole fit.
        warmup: Share of the steps that rise, 0 to 0.5.

    Returns:
        A function of the step, for ``LambdaLR``.
    """
    rising = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rising:
            return 0.04 + 0.96 * step / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return factor


def fit_module(
    module: pl.LightningModule, batches: CropBatches, epochs: int, env: FitEnvironment
) -> None:
    """Train a Lightning module with checkpoints and progress, and no other Lightning features.

    Learners that write a module of their own share this.

    Args:
        module: The module.
        batches: Its crops.
        epochs: Epochs.
        env: Device, folder and listener; ``env.folder`` holds the checkpoint.
    """
    file = env.folder / "fit.ckpt"
    resumes = _is_readable(file, env)
    total = batches.crops_per_epoch * epochs
    title = f"{env.title}: {len(batches.dataset)} crops, {epochs} epochs"
    with isolated(), _quiet(), env.listener.stage(title, total, "crops") as advance:
        trainer = pl.Trainer(
            accelerator="gpu" if env.device.torch.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if env.device.bf16 else "32-true",
            max_epochs=epochs,
            logger=env.logger if env.logger is not None else False,
            callbacks=[_Advance(advance, batches), _Checkpoints(file, env.checkpoint_seconds)],
            # Without it, Lightning looks for a cluster and wants a process of ours on each node.
            plugins=[_WholeFiles(), LightningEnvironment()],
            check_val_every_n_epoch=min(5, epochs),
            limit_val_batches=None if len(batches.validation) else 0,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1_000_000,
            deterministic="warn" if env.device.torch.type == "cuda" else None,
        )
        trainer.fit(
            module, datamodule=batches, ckpt_path=file if resumes else None, weights_only=True
        )


_STATE = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch"}


def _is_readable(file: Path, env: FitEnvironment) -> bool:
    """Whether there is a checkpoint to continue from; deletes a damaged one."""
    if not file.exists():
        return False
    try:
        with zipfile.ZipFile(file) as archive:  # torch does not compare the checksums
            if (torn := archive.testzip()) is not None:
                raise ValueError(f"another checksum of {torn}")
        kept = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(kept, dict) or not kept.keys() >= _STATE:
            raise ValueError("not the state of a fit")
    except (
        *(OSError, RuntimeError, EOFError, ValueError, UnpicklingError),
        *(zipfile.BadZipFile, zlib.error, NotImplementedError),
    ) as error:
        env.listener.warn(f"{file} is damaged ({error}): {env.title} starts over")
        file.unlink()
        return False
    return True


class _Advance(pl.Callback):
    """Reports the number of crops trained on after each batch."""

    def __init__(self, advance: Advance, batches: CropBatches) -> None:
        self.advance, self.batches = advance, batches

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        epochs = trainer.current_epoch * self.batches.crops_per_epoch
        if done := epochs + self.batches.crops_of_epoch:
            self.advance(done)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self.advance(len(batch[1]))


class _Checkpoints(Checkpoint):
    """Saves the state of a fit between two batches or two epochs.

    Lightning saves networks, optimiser, schedule and loops, and asks the batches for the state of
    order and augmentation. This class adds the global generators, which networks with dropout use.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.seconds = file, seconds
        self._last = time.monotonic()
        self._generators: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._generators = state_dict

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save_if_due(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        if self._generators:
            torch.set_rng_state(self._generators["cpu"])
            if self._generators["cuda"]:
                torch.cuda.set_rng_state_all(self._generators["cuda"])
            self._generators = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        # Validation follows the last batch, so the state is saved at the end of the epoch instead.
        if index + 1 < trainer.num_training_batches:
            self._save_if_due(trainer)

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        if time.monotonic() - self._last >= self.seconds:
            trainer.save_checkpoint(self.file)
            self._last = time.monotonic()


class _WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, without a copy of it in memory."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        file = Path(path)
        make_folder(file.parent)
        with replacing_path(file) as part:
            torch.save(checkpoint, part)


class _quiet:
    """Silence Lightning's hints about hardware and workers, which would repeat for every fold."""

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
