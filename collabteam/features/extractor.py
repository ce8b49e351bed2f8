"""Features of crops: what frozen pretrained backbones say about a picture."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from collabteam.errors import UserError
from collabteam.features.backbones import Backbone
from collabteam.features.compiled import Compiled, convert, has_openvino, import_quietly
from collabteam.features.devices import Device, one_thread
from collabteam.features.images import Pixels, Transform
from collabteam.features.projection import Projection, read_projection
from collabteam.settings import FeaturesConfig
from collabteam.storage.layout import CameraFiles

_CHUNK = 256
"""Crops that are decoded before their features are computed."""
_PART = 32
"""Crops per forward pass of one thread."""
TOLERANCE = 1e-4
"""Most that features of OpenVINO and torch may differ, as a share of the largest one: half of what
half precision rounds off that. Measured: 5e-6."""


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
        engine: ``torch``, or ``openvino``, which computes on the processor whatever the device.

    Attributes:
        name: timm's name of the model.
        dim: Length D of a feature vector.
        network: Its network, which maps (N, 3, S, S) normalised pictures to (N, D).
        digest: Hash of the weights, the transform, the engine and the projection, in hexadecimal.

    Raises:
        UserError: The weights or the engine cannot be had.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: Device,
        decoded: Transform | None = None,
        engine: str = "torch",
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
        if engine != "torch":
            digest.update(engine.encode())
        self.digest = digest.hexdigest()
        self._device = device.torch if engine == "torch" else torch.device("cpu")
        self.network = network.to(self._device).to(memory_format=torch.channels_last)
        self._engine, self._compiled = engine, dict[int, Compiled]()
        if engine == "openvino" and not has_openvino():
            raise UserError(
                "features.engine=openvino needs openvino (Apache-2.0): pip install "
                "'collabteam[openvino]', or start over with features.engine=torch and rollback=-1"
            )

    def projected(self, projection: Projection) -> FrozenBackbone:
        """The same backbone with a projection behind it."""
        if projection.weight.shape[1] != self.dim:
            raise ValueError(f"a projection of {projection.weight.shape[1]} features")
        made = copy.copy(self)
        both = nn.Sequential(self.network, projection.layer().to(self._device))
        made.network, made.dim = both.eval(), len(projection.weight)
        joined = f"{self.digest}+{projection.digest}"
        made.digest = hashlib.blake2b(joined.encode(), digest_size=16).hexdigest()
        made._compiled = {}
        return made

    def __call__(self, images: Tensor) -> Tensor:
        """Compute features.

        Args:
            images: (n, 3, S, S) uint8.

        Returns:
            (n, D) float32, on the processor.

        Raises:
            UserError: OpenVINO gives other features than torch.
        """
        if not len(images):
            return torch.zeros(0, self.dim)
        if self._device.type != "cpu":
            return torch.cat([self._forward(part) for part in _parts(images, _CHUNK)])
        if self._engine == "openvino":
            return torch.from_numpy(self._compile(images)(images.numpy()))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool, one_thread():
            return torch.cat(list(pool.map(self._forward, _parts(images, _PART))))

    def _forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            pixels = self.transform.normalize(images.to(self._device))
            found: Tensor = self.network(pixels).float().cpu()
        return found.clone()  # not one that only inference may use

    def _compile(self, images: Tensor) -> Compiled:
        """The network as OpenVINO computes it, compared with torch when it is made."""
        threads = torch.get_num_threads()
        if threads in self._compiled:
            return self._compiled[threads]
        side = self.transform.size
        # A thread computes each part alone, as with torch, so sums keep their order.
        made = Compiled(
            import_quietly("openvino").Core(), convert(_Normalised(self), side), side, self.dim,
            crops=_PART, arithmetic="f32", threads=threads, streams=threads,
        )  # fmt: skip
        sample = images[:_PART]
        with one_thread():
            exact = self._forward(sample)
        off = float((torch.from_numpy(made(sample.numpy())) - exact).abs().max())
        if not off <= TOLERANCE * float(exact.abs().max()):
            raise Disagreement(
                f"OpenVINO computes other features with {self.name} than torch: they differ by "
                f"{off:.2g} where the largest is {float(exact.abs().max()):.2g}, expected at most "
                f"{TOLERANCE:g} of that: use features.engine=torch"
            )
        self._compiled[threads] = made
        return made


class Disagreement(UserError):
    """Features of OpenVINO differ too much from those of torch."""


class _Normalised(nn.Module):
    """(N, 3, S, S) uint8 to (N, D) features, as :class:`FrozenBackbone` computes them."""

    def __init__(self, frozen: FrozenBackbone) -> None:
        super().__init__()
        self.network, self.transform = frozen.network, frozen.transform

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(self.transform.normalize(images))
        return found


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
        config: Names, weights, picture size, engine, settled (neither is ``auto``). The projection
            is left out: it belongs to a camera, see :func:`camera_extractor`.
        device: Where to compute.

    Attributes:
        backbones: The backbones. Their networks are built at the first use.
        transform: How crops are decoded.

    Raises:
        UserError: timm has no such model, or it takes only pictures of another size.
    """

    def __init__(self, config: FeaturesConfig, device: Device) -> None:
        self.config, self.backbones = replace(config, projection=0), backbones_of(config)
        self.transform = self.backbones[0].transform
        self._device = device

    @cached_property
    def dim(self) -> int:
        """Length D of a feature vector, the sum over the backbones."""
        return dim_of(self.config)

    @cached_property
    def parts(self) -> list[FrozenBackbone]:
        """The frozen backbones.

        Raises:
            UserError: Weights cannot be had.
        """
        return [
            FrozenBackbone(one, self._device, self.transform, self.config.engine)
            for one in self.backbones
        ]

    def projected(self, projections: Sequence[Projection]) -> FeatureExtractor:
        """The same backbones, each with a projection behind it.

        Args:
            projections: One for each backbone, of the size that ``features.projection`` names.
        """
        made = copy.copy(self)
        made.config = replace(self.config, projection=len(projections[0].weight))
        made.__dict__.pop("dim", None)
        made.__dict__["parts"] = [
            part.projected(one) for part, one in zip(self.parts, projections, strict=True)
        ]
        return made

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


def dim_of(config: FeaturesConfig) -> int:
    """Length of a feature vector with these settings."""
    if config.projection:
        return config.projection * len(config.backbone)
    return sum(backbone.dim for backbone in backbones_of(config))


def camera_extractor(
    config: FeaturesConfig, device: Device, files: CameraFiles
) -> FeatureExtractor:
    """The backbones that the settings name, with the projections that the camera keeps.

    Args:
        config: See :class:`FeatureExtractor`.
        device: Where to compute.
        files: The camera's files.

    Raises:
        UserError: Weights cannot be had, or a projection is missing or damaged.
    """
    return with_projections(FeatureExtractor(config, device), config.projection, files)


def with_projections(whole: FeatureExtractor, size: int, files: CameraFiles) -> FeatureExtractor:
    """Put the projections that a camera keeps behind the backbones.

    Args:
        whole: The backbones without a projection.
        size: Setting ``features.projection``; 0 for none.
        files: The camera's files.

    Raises:
        UserError: Weights cannot be had, or a projection is missing or damaged.
    """
    if not size:
        return whole
    kept = [(files.projection(projection_key(part, size)), part.digest) for part in whole.parts]
    return whole.projected([read_projection(file, digest, size) for file, digest in kept])


def projection_key(frozen: FrozenBackbone, size: int) -> str:
    """Name a projection by the backbone before it and its size."""
    return f"{frozen.digest}-{size}"


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
