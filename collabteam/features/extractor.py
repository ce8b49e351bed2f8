"""Features of crops: what frozen pretrained backbones say about a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collabteam.errors import UserError
from collabteam.features.backbones import Backbone
from collabteam.features.devices import Device
from collabteam.features.images import Pixels, Transform
from collabteam.settings import FeaturesConfig

_CHUNK = 256
"""Crops that are decoded before their features are computed."""
_PART = 32
"""Crops per forward pass of one thread."""


class Features(Protocol):
    """Feature vectors by row of the camera, computed or stored."""

    @property
    def dim(self) -> int:
        """Length D of a feature vector."""

    @property
    def digest(self) -> str:
        """Hash of the backbones' weights and transforms, in hexadecimal."""

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, D) float32 of these rows, in this order, on the processor."""


class FrozenBackbone:
    """A backbone that only computes features.

    It computes in fp32 on every machine, and on a processor each thread takes crops of its own, so
    that a crop's features do not depend on the number of threads.

    Args:
        backbone: The backbone; its network is built at once.
        device: Where to compute.
        decoded: How its pictures are decoded, if not with its own transform.

    Attributes:
        name: timm's name of the model.
        dim: Length D of a feature vector.
        network: Its network, which maps (N, 3, S, S) normalised pictures to (N, D).
        digest: Hash of the weights and of the transform, in hexadecimal.

    Raises:
        UserError: The weights cannot be had.
    """

    def __init__(
        self, backbone: Backbone, device: Device, decoded: Transform | None = None
    ) -> None:
        self.name, self.dim, self.transform = backbone.name, backbone.dim, backbone.transform
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for layers that the weights lack
            network = backbone.network(0).eval().requires_grad_(False)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps(asdict(self.transform), sort_keys=True).encode())
        if decoded is not None and _decoding(decoded) != _decoding(self.transform):
            digest.update(json.dumps(_decoding(decoded)).encode())
        for name, tensor in network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
        self.digest = digest.hexdigest()
        self.network = network.to(device.torch).to(memory_format=torch.channels_last)
        self._device = device.torch

    def __call__(self, images: Tensor) -> Tensor:
        """Compute features.

        Args:
            images: (n, 3, S, S) uint8.

        Returns:
            (n, D) float32, on the processor.
        """
        if not len(images):
            return torch.zeros(0, self.dim)
        if self._device.type != "cpu":
            return torch.cat([self._forward(part) for part in _parts(images, _CHUNK)])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                return torch.cat(list(pool.map(self._forward, _parts(images, _PART))))
        finally:
            torch.set_num_threads(threads)

    def _forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            pixels = self.transform.normalize(images.to(self._device))
            found: Tensor = self.network(pixels).float().cpu()
        return found.clone()  # not one that only inference may use


def _parts(images: Tensor, size: int) -> list[Tensor]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def _decoding(transform: Transform) -> list[object]:
    """What decoding depends on; normalisation comes after it."""
    return [transform.size, *transform.pad, transform.interpolation]


class FeatureExtractor:
    """The frozen backbones that the settings name, side by side as one.

    Crops are decoded once, with the first backbone's transform; each backbone has its own mean and
    deviation.

    Args:
        config: Names, weights, picture size.
        device: Where to compute.

    Attributes:
        backbones: The backbones. Their networks are built at the first use.
        transform: How crops are decoded.

    Raises:
        UserError: timm has no such model, or it takes only pictures of another size.
    """

    def __init__(self, config: FeaturesConfig, device: Device) -> None:
        self.backbones = backbones_of(config)
        self.transform = self.backbones[0].transform
        self._device = device

    @cached_property
    def dim(self) -> int:
        """Length D of a feature vector, the sum over the backbones."""
        return sum(backbone.dim for backbone in self.backbones)

    @cached_property
    def parts(self) -> list[FrozenBackbone]:
        """The frozen backbones.

        Raises:
            UserError: Weights cannot be had.
        """
        return [FrozenBackbone(one, self._device, self.transform) for one in self.backbones]

    @property
    def digest(self) -> str:
        """Hash of the weights and the transforms, in hexadecimal."""
        if len(self.parts) == 1:
            return self.parts[0].digest
        joined = "+".join(part.digest for part in self.parts)
        return hashlib.blake2b(joined.encode(), digest_size=16).hexdigest()

    def __call__(self, images: Tensor) -> Tensor:
        """Compute features.

        Args:
            images: (n, 3, S, S) uint8, decoded with ``transform``.

        Returns:
            (n, D) float32, on the processor.
        """
        return torch.cat([part(images) for part in self.parts], dim=1)


def backbones_of(config: FeaturesConfig) -> list[Backbone]:
    """The pretrained backbones that the settings name.

    Raises:
        UserError: timm has no such model, or it takes only pictures of another size.
    """
    weights: Sequence[str] = config.weights or [""] * len(config.backbone)
    if len(weights) != len(config.backbone):
        raise UserError(
            f"features.weights names {len(weights)} files and features.backbone "
            f"{len(config.backbone)} models: expected one file for each, in the same order"
        )
    return [
        Backbone(name, config.image_size, pretrained=True, weights=file, group="features")
        for name, file in zip(config.backbone, weights, strict=True)
    ]


class ComputedFeatures:
    """Features of crops by row, computed on request.

    Args:
        pixels: Pictures by row, decoded with the extractor's transform.
        extractor: The frozen backbones.
    """

    def __init__(self, pixels: Pixels, extractor: FeatureExtractor) -> None:
        self._pixels, self._extractor = pixels, extractor

    @property
    def dim(self) -> int:
        """Length D of a feature vector."""
        return self._extractor.dim

    @property
    def digest(self) -> str:
        """Hash of the weights and the transforms, in hexadecimal."""
        return self._extractor.digest

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, D) float32 of these rows, in this order, on the processor."""
        parts = [torch.zeros(0, self.dim)]
        for start in range(0, len(rows), _CHUNK):
            parts.append(self._extractor(self._pixels[rows[start : start + _CHUNK]]))
        return torch.cat(parts)
