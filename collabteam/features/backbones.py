"""Backbones: any timm model, with the transform that its weights were trained with."""

from __future__ import annotations

import difflib
import warnings
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from collabteam.errors import UserError
from collabteam.features.devices import Device
from collabteam.features.images import Pixels, Transform
from collabteam.settings import TeamConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # timm uses a deprecated torch API
    import timm
    from timm.data.config import resolve_data_config

_CHUNK = 256
"""Crops per forward pass when features are computed."""


class Backbone:
    """The timm model that the settings name.

    The paper's backbone is a ResNet-18 with CBAM in every residual block and Kaiming initialisation
    (section 3.1; He et al. 2015, Woo et al. 2018). timm's ResNet initialises every convolution that
    way and sets the last batch norm's weight of each block to zero.

    Args:
        config: Backbone, attention, stem, pretrained.
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
        try:
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
            # An unknown tag after the dot, weights that do not exist, or a hub out of reach.
            if not pretrained and "pretrained" not in str(error):
                raise
            raise UserError(f"team.backbone={self.name}: {error}") from error


class Features(Protocol):
    """Feature vectors by row of the camera, computed or stored.

    Attributes:
        dim: Length D of a feature vector.
    """

    dim: int

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, D) float32 of these rows, in this order, on the processor."""


class BackboneFeatures:
    """Features of crops by row, computed by a frozen backbone on request.

    Args:
        pixels: Pictures by row, decoded with the backbone's transform.
        backbone: The backbone; its network is built at the first use.
        device: Where to compute.

    Attributes:
        dim: Length D of a feature vector.
    """

    def __init__(self, pixels: Pixels, backbone: Backbone, device: Device) -> None:
        self._pixels, self._backbone, self._device = pixels, backbone, device
        self.dim = backbone.dim

    @cached_property
    def _network(self) -> nn.Module:
        network = self._backbone.network(0).eval()
        return network.to(self._device.torch).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, D) float32 of these rows, in this order, on the processor."""
        kind, parts = self._device.torch.type, [torch.zeros(0, self.dim)]
        with torch.autocast(kind, torch.bfloat16, enabled=self._device.bf16):
            for start in range(0, len(rows), _CHUNK):
                images = self._pixels[rows[start : start + _CHUNK]].to(self._device.torch)
                found = self._network(self._pixels.transform.normalize(images))
                parts.append(found.float().cpu())
        return torch.cat(parts)


def _small_stem(network: nn.Module, backbone: str) -> None:
    """Halve the picture once instead of four times, as small pictures need (He et al., 4.2)."""
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise UserError(f"team.stem=small needs a ResNet's stem, {backbone} has none: use standard")
    network.conv1 = nn.Conv2d(3, stem.out_channels, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
