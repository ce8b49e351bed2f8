"""The team that votes: its voters, their files and their probabilities."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from collabteam.catalog import Catalog
from collabteam.errors import UserError
from collabteam.features.devices import Device, one_thread
from collabteam.features.extractor import FeatureExtractor
from collabteam.features.images import ImageReader, Transform, decoded_batches
from collabteam.features.store import FeatureStore
from collabteam.storage.files import damaged, file_digest, make_folder, parse_json, replacing_path
from collabteam.storage.layout import RoundFiles
from collabteam.team.strangers import HeadsWithDistance

_ZOOM = 16
"""The nearer view leaves out this part of the side, at each edge."""


class Voter(nn.Module, ABC):
    """A network that gives the probabilities of some of the team's classes.

    Args:
        network: Maps (N, 3, S, S) normalised pictures to its outputs.
        columns: The K classes that it votes on, as indices of the team's classes.
    """

    def __init__(self, network: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.network, self.columns = network, tuple(columns)

    @abstractmethod
    def probabilities(self, outputs: Tensor) -> Tensor:
        """Turn the network's outputs (N, ...) into probabilities of *true* (N, K), 0 to 1."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities of *true* (N, K) from normalised pictures (N, 3, S, S)."""
        return self.probabilities(self.network(pixels).float())


class OneVsRest(Voter):
    """A network with two outputs for one class: *false* and *true*."""

    def probabilities(self, outputs: Tensor) -> Tensor:  # noqa: D102
        return outputs.softmax(dim=1)[:, 1:]


class OneOfMany(Voter):
    """A network with an output for each class, and a last one for *none of these*."""

    def probabilities(self, outputs: Tensor) -> Tensor:  # noqa: D102
        return outputs.softmax(dim=1)[:, : len(self.columns)]


class MultiLabel(Voter):
    """A network with one output for each class, the log odds of *true*.

    Further outputs are log odds that the crop shows none of the classes. They lower the
    probabilities of all classes, so that votes, joint confidence, calibration and thresholds
    take account of them.
    """

    def probabilities(self, outputs: Tensor) -> Tensor:  # noqa: D102
        classes = len(self.columns)
        prob = outputs[:, :classes].sigmoid()
        for none in range(classes, outputs.shape[1]):
            prob = prob * (-outputs[:, none, None]).sigmoid()
        return prob


class OneVsRestHeads(MultiLabel):
    """Linear heads, one for each class, on the features of a frozen backbone.

    It takes features (N, D) where other voters take pictures.

    Args:
        dim: Length D of a feature vector.
        columns: The K classes that it votes on.
        digest: Hash of the backbone, as :class:`collabteam.features.extractor.FeatureExtractor`
            has it; ``""`` until it is trained.
        strangers: ``off``: a head for each class; ``none``: one more, for *none of these*;
            ``distance``: also the distance to the classes.
    """

    def __init__(
        self, dim: int, columns: Sequence[int], digest: str = "", strangers: str = "off"
    ) -> None:
        network: nn.Module
        if strangers == "distance":
            network = HeadsWithDistance(dim, len(columns))
        else:
            network = nn.Linear(dim, len(columns) + (strangers == "none"))
        super().__init__(network, columns)
        self.digest = digest


def voter_file(
    files: RoundFiles, classes: Sequence[str], columns: Sequence[int], fold: int
) -> Path:
    """Name the file of a voter in its round's folder.

    Args:
        files: The round's files.
        classes: Names of all of the team's classes.
        columns: The classes that the voter votes on, as indices.
        fold: The fold that it did not train on.
    """
    # A voter on all classes needs no name, and all names together could be too long for a file.
    names = [classes[column] for column in columns] if len(columns) < len(classes) else []
    return files.branch("+".join(names), fold)


def save_voter(
    voter: Voter, to: Path, classes: Sequence[str], transform: Transform, made_by: Mapping[str, str]
) -> None:
    """Write the weights of a voter atomically.

    Args:
        voter: The voter.
        to: See :func:`voter_file`.
        classes: Names of all of the team's classes.
        transform: How crops become its input.
        made_by: Further entries of the file's metadata.
    """
    metadata = {
        "classes": json.dumps([classes[column] for column in voter.columns]),
        "transform": json.dumps(asdict(transform), sort_keys=True),
        **made_by,
    }
    if isinstance(voter, OneVsRestHeads):
        metadata["backbone"] = voter.digest
    tensors = {name: tensor.contiguous() for name, tensor in voter.network.state_dict().items()}
    make_folder(to.parent)
    with replacing_path(to) as part:
        save_file(tensors, part, metadata)


def load_weights(network: nn.Module, file: Path) -> None:
    """Put the weights of a voter into a network of the same kind.

    Raises:
        UserError: The file is missing or damaged, or the weights belong to another network.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise ValueError("weights that are no finite numbers")
    except (OSError, SafetensorError, ValueError) as error:
        raise _damaged(file, error) from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{file} holds another network than team.backbone, team.attention and team.stem, or "
            "features.backbone, describe: set them as they were, or team.init=scratch"
        ) from error


def check_voter(file: Path, digest: str) -> None:
    """Compare the file of a voter with the hash that its round recorded.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        if file_digest(file) != digest:
            raise ValueError("other bytes than its round recorded")
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error


def check_backbone(file: Path, digest: str) -> None:
    """Compare the frozen backbone that voters were trained on with the one that there is now.

    Args:
        file: The voters' file.
        digest: Hash of the present backbone.

    Raises:
        UserError: They differ, or the file is missing or damaged.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            recorded = (opened.metadata() or {}).get("backbone", "")
    except (OSError, SafetensorError) as error:
        raise _damaged(file, error) from error
    if recorded != digest:
        raise UserError(
            f"{file} was trained on features of other weights than there are now: set "
            "features.weights to the file that it was trained with, or start over with rollback=-1"
        )


def load_transform(file: Path, image_size: int) -> Transform:
    """Read how crops become the input of a voter.

    Args:
        file: The voter's file.
        image_size: Side of the pictures for older files that do not record it; at that time all
            networks took pictures normalised with ImageNet's mean and deviation.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        if "transform" not in metadata:
            return Transform(image_size)
        found = parse_json(metadata["transform"])
        mean, std = (tuple(map(float, found[name])) for name in ("mean", "std"))
        if not (len(mean) == len(std) == 3 and min(std) > 0 and 1 <= found["size"] <= 4096):
            raise ValueError(f"a transform of {metadata['transform'][:60]}")
        return Transform(found["size"], mean, std, found["interpolation"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> UserError:
    remedy = "train that round again ('train ... rollback=K' with K the round before it)"
    return damaged(file, "the weights of a branch", error, remedy)


class Engine(ABC):
    """Computes a team's probabilities.

    Attributes:
        kind: The library, ``torch`` or ``openvino``.
        precision: The arithmetic, ``fp32``, ``bf16`` or ``int8``.
        classes: Names of the classes.
        transform: How crops become pictures.
    """

    kind: str
    precision: str
    classes: list[str]
    transform: Transform

    @abstractmethod
    def score(self, images: Tensor) -> NDArray[np.float32]:
        """Probability of *true* per crop and class.

        Args:
            images: (N, 3, S, S) uint8, letterboxed.

        Returns:
            (N, B) float32, 0 to 1.
        """

    def score_rows(
        self, reader: ImageReader, rows: NDArray[np.int64], batch_size: int
    ) -> Iterator[NDArray[np.float32]]:
        """Score crops as a stream: the next batch is read and decoded during this one's scoring.

        Memory holds two batches, whatever the number of rows.

        Yields:
            (n, B) probabilities of the next ``n <= batch_size`` rows.
        """
        for images in decoded_batches(reader, rows, self.transform, batch_size):
            yield self.score(images)


class Team(Engine):
    """Voters that score crops together.

    A class's probability is the mean of all voters that vote on it.

    Args:
        classes: Names of the classes.
        voters: The voters, ordered by their classes; each class needs one or more.
        transform: The transform from crops to their input.
        device: Where to compute.
        extractor: The frozen backbones, for voters that take their features.
        views: Views of a crop that voters on pictures see: ``plain``, ``mirror`` or ``zoom``.
    """

    kind = "torch"

    def __init__(
        self,
        classes: Sequence[str],
        voters: Sequence[Voter],
        transform: Transform,
        device: Device,
        extractor: FeatureExtractor | None = None,
        views: str = "plain",
    ) -> None:
        self.views = views
        self.classes, self.transform, self.device = list(classes), transform, device
        self.extractor = extractor
        self.precision = "bf16" if device.bf16 and extractor is None else "fp32"
        self.voters = [
            voter.eval().to(device.torch).to(memory_format=torch.channels_last) for voter in voters
        ]

    def score(self, images: Tensor) -> NDArray[np.float32]:  # noqa: D102
        if self.extractor is not None:
            return self.score_features(self.extractor(images))
        with torch.inference_mode():
            pixels = self.transform.normalize(images.to(self.device.torch))
            with torch.autocast(self.device.torch.type, torch.bfloat16, enabled=self.device.bf16):
                prob = mean_of_views(self.voters, pixels, len(self.classes), self.views)
            return prob.cpu().numpy()

    @torch.inference_mode()
    def score_features(self, features: Tensor) -> NDArray[np.float32]:
        """Probability of *true* from features of the frozen backbones.

        Args:
            features: (N, D) float32.

        Returns:
            (N, B) float32, 0 to 1.
        """
        # On several threads, the sums of a linear layer may have another order.
        with one_thread():
            prob = probabilities(self.voters, features.to(self.device.torch), len(self.classes))
            return prob.cpu().numpy()

    def score_rows(  # noqa: D102
        self, reader: ImageReader, rows: NDArray[np.int64], batch_size: int
    ) -> Iterator[NDArray[np.float32]]:
        if self.extractor is not None and isinstance(reader, Catalog):
            store = FeatureStore(reader, self.extractor)
            if not store.missing:
                for start in range(0, len(rows), batch_size):
                    yield self.score_features(store[rows[start : start + batch_size]])
                return
        yield from super().score_rows(reader, rows, batch_size)


def mean_of_views(voters: Sequence[Voter], pixels: Tensor, classes: int, views: str) -> Tensor:
    """Probability of *true* per crop and class: the mean over views of a crop.

    Args:
        voters: The voters.
        pixels: (N, 3, S, S) normalised pictures.
        classes: Number of classes B.
        views: ``plain``, ``mirror`` or ``zoom``.

    Returns:
        (N, B) float32, 0 to 1.
    """
    seen = [pixels]
    if views in ("mirror", "zoom"):
        seen.append(pixels.flip(3))
    if views == "zoom":
        side = pixels.shape[-1]
        edge = max(1, side // _ZOOM)
        inside = pixels[:, :, edge:-edge, edge:-edge]
        seen.append(nn.functional.interpolate(inside, size=(side, side), mode="bilinear"))
    given = [probabilities(voters, view, classes) for view in seen]
    return given[0] if len(given) == 1 else torch.stack(given).mean(dim=0)


def probabilities(voters: Sequence[Voter], pixels: Tensor, classes: int) -> Tensor:
    """Probability of *true* per crop and class: the mean of the voters on a class.

    Args:
        voters: The voters.
        pixels: (N, 3, S, S) normalised pictures, or (N, D) features.
        classes: Number of classes B.

    Returns:
        (N, B) float32, 0 to 1.
    """
    of_class: list[list[Tensor]] = [[] for _ in range(classes)]
    for voter in voters:
        given = voter(pixels)
        for position, column in enumerate(voter.columns):
            of_class[column].append(given[:, position])
    return torch.stack([torch.stack(given).mean(dim=0) for given in of_class], dim=1)
