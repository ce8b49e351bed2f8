"""The team that votes: its networks on disk, and the probabilities that they give."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from collabteam.errors import UserError
from collabteam.features.backbones import build_branch, processor_has_bf16
from collabteam.features.images import decode, normalize
from collabteam.settings import TeamConfig, TrainerConfig, from_record
from collabteam.storage.files import replacing_path
from collabteam.storage.layout import RoundFiles


class ImageReader(Protocol):
    """Something that hands out encoded crops by row, such as a catalog."""

    def images(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Encoded crops of these rows, in this order."""


@dataclass(frozen=True)
class Device:
    """Where and in which arithmetic a team computes.

    Attributes:
        torch: The device.
        bf16: Whether matrix products run in bfloat16 (weights and sums stay fp32).
    """

    torch: torch.device
    bf16: bool

    @classmethod
    def of(cls, config: TrainerConfig) -> Device:
        """Resolve ``auto``.

        Raises:
            UserError: The accelerator is not there.
        """
        wanted = config.accelerator
        kind = {"auto": "cuda" if torch.cuda.is_available() else "cpu", "gpu": "cuda"}.get(
            wanted, wanted
        )
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise UserError(
                f"trainer.accelerator={wanted}: not on this machine; use auto, cpu or gpu"
            )
        device = torch.device(kind)
        has = processor_has_bf16(device)
        return cls(device, config.precision == "bf16" or (config.precision == "auto" and has))


def save_branch(
    network: nn.Module, to: Path, team: TeamConfig, label: str, image_size: int
) -> None:
    """Write one branch atomically, with what is needed to build it again."""
    metadata = {
        "team": json.dumps(asdict(team), sort_keys=True),
        "class": label,
        "image_size": str(image_size),
    }
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with replacing_path(to) as part:
        save_file(tensors, part, metadata)


def load_weights(network: nn.Module, file: Path) -> None:
    """Put the weights of a branch into a network of the same kind.

    Raises:
        UserError: The file is missing or broken, or the weights are of another network.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{file}: expected the weights of a branch, got {error}: train that round again "
            "('train ... rollback=K' with K the round before it)"
        ) from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{file} holds another network than team.backbone, team.attention and team.stem "
            "describe: set them as they were, or team.init=scratch"
        ) from error


class Engine(ABC):
    """What gives a team's probabilities, whatever computes them.

    Attributes:
        kind: What computes, ``torch`` or ``openvino``.
        precision: The arithmetic, ``fp32``, ``bf16`` or ``int8``.
        classes: Names of the classes.
        image_size: Side of the letterboxed square in pixels.
    """

    kind: str
    precision: str
    classes: list[str]
    image_size: int

    @abstractmethod
    def score(self, images: Tensor) -> NDArray[np.float32]:
        """Probability of *true* per crop and branch.

        Args:
            images: (N, 3, S, S) uint8, letterboxed.

        Returns:
            (N, B) float32, 0 to 1.
        """

    def score_rows(
        self, reader: ImageReader, rows: NDArray[np.int64], batch_size: int
    ) -> Iterator[NDArray[np.float32]]:
        """Score crops as a stream: the next batch is read and decoded while this one computes.

        Memory holds two batches, whatever the number of rows.

        Yields:
            (n, B) probabilities of the next ``n <= batch_size`` rows.
        """
        batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]

        def load(batch: NDArray[np.int64], pool: ThreadPoolExecutor) -> Tensor:
            return decode(reader.images(batch), self.image_size, pool)

        with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(load, batch, pool) for batch in batches[:1]]
            for following in [*batches[1:], None]:
                if not coming:
                    return
                images = coming.pop().result()
                if following is not None:
                    coming.append(ahead.submit(load, following, pool))
                yield self.score(images)


class Team(Engine):
    """n branches that score crops; a branch may be the mean of several networks.

    Args:
        classes: Names of the classes.
        networks: Per class, the networks whose mean probability is the branch's.
        image_size: Side of the letterboxed square in pixels.
        device: Where to compute.
    """

    kind = "torch"

    def __init__(
        self,
        classes: Sequence[str],
        networks: Sequence[Sequence[nn.Module]],
        image_size: int,
        device: Device,
    ) -> None:
        self.classes, self.image_size, self.device = list(classes), image_size, device
        self.precision = "bf16" if device.bf16 else "fp32"
        self.networks = [
            [
                network.eval().to(device.torch).to(memory_format=torch.channels_last)
                for network in branch
            ]
            for branch in networks
        ]

    @classmethod
    def load(cls, files: RoundFiles, trainer: TrainerConfig | None = None) -> Team:
        """Load the voting team of a finished round.

        Args:
            files: The round, such as ``catalog.workspace.round(2)``.
            trainer: Device, threads and precision.

        Raises:
            UserError: The round is not finished, or a file is missing or broken.
        """
        try:
            record = json.loads(files.record.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{files.folder}: expected a finished round, got {error}") from error
        team = from_record(TeamConfig, record["settings"]["team"])
        return cls.from_branches(
            files, record["classes"], record["voting"], team,
            record["settings"]["data"]["image_size"], Device.of(trainer or TrainerConfig()),
        )  # fmt: skip

    @classmethod
    def from_branches(
        cls,
        files: RoundFiles,
        classes: Sequence[str],
        voting: dict[str, list[int]],
        team: TeamConfig,
        image_size: int,
        device: Device,
    ) -> Team:
        """Build the team of a round's networks; ``voting`` lists folds by class."""
        plain = TeamConfig(**{**asdict(team), "pretrained": False})
        networks = []
        for name in classes:
            branch = []
            for fold in voting[name]:
                network = build_branch(plain)
                load_weights(network, files.branch(name, fold))
                branch.append(network)
            networks.append(branch)
        return cls(classes, networks, image_size, device)

    @torch.inference_mode()
    def score(self, images: Tensor) -> NDArray[np.float32]:  # noqa: D102
        pixels = normalize(images.to(self.device.torch))
        with torch.autocast(self.device.torch.type, torch.bfloat16, enabled=self.device.bf16):
            prob = [
                torch.stack([n(pixels).float().softmax(dim=1)[:, 1] for n in branch]).mean(dim=0)
                for branch in self.networks
            ]
        return torch.stack(prob, dim=1).cpu().numpy()
