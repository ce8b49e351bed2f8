"""The network of one branch."""

from __future__ import annotations

import difflib
import warnings

import torch
from torch import nn

from collabteam.errors import UserError
from collabteam.settings import TeamConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # what timm says to torch is not for our users
    import timm


def build_branch(config: TeamConfig) -> nn.Module:
    """Build the binary network of one branch: two logits, *false* first.

    The paper's branch is a ResNet-18 with CBAM in every residual block and Kaiming initialisation
    (section 3.1; He et al. 2015, Woo et al. 2018). timm's ResNet initialises every convolution that
    way and sets the last batch norm's weight of each block to zero.

    Args:
        config: Backbone, attention, stem, pretrained.

    Returns:
        A module that maps (N, 3, S, S) float pictures to (N, 2) logits.

    Raises:
        UserError: timm has no such model or weights, the model takes no such attention layer, or
            the small stem is asked for where there is none to replace.
    """
    if not timm.is_model(config.backbone):
        near = difflib.get_close_matches(config.backbone.lower(), timm.list_models(), n=5)
        hint = f"; near it: {', '.join(near)}" if near else " (timm.list_models() lists them)"
        raise UserError(f"team.backbone={config.backbone}: timm has no such model{hint}")
    block_args = None if config.attention == "none" else {"attn_layer": config.attention}
    try:
        if block_args is None:
            network = timm.create_model(
                config.backbone, pretrained=config.pretrained, num_classes=2
            )
        else:
            network = timm.create_model(
                config.backbone,
                pretrained=config.pretrained,
                num_classes=2,
                block_args=block_args,
            )
    except (TypeError, AssertionError) as error:
        raise UserError(
            f"team.backbone={config.backbone} takes no team.attention={config.attention} "
            f"({error}): set team.attention=none"
        ) from error
    except Exception as error:
        # An unknown tag after the dot, weights that do not exist, or a hub out of reach.
        if not config.pretrained and "pretrained" not in str(error):
            raise
        raise UserError(f"team.backbone={config.backbone}: {error}") from error
    if config.stem == "small":
        _small_stem(network, config.backbone)
    return network


def check_picture_size(config: TeamConfig, image_size: int) -> None:
    """Raise if the model takes pictures of one size only, and not of this one.

    Raises:
        UserError: Names the size that it takes.
    """
    known = timm.get_pretrained_cfg(config.backbone) if timm.is_model(config.backbone) else None
    if known is not None and known.fixed_input_size and known.input_size[-1] != image_size:
        raise UserError(
            f"team.backbone={config.backbone} takes pictures of {known.input_size[-1]} px only: "
            f"set data.image_size={known.input_size[-1]} (it is {image_size})"
        )


def _small_stem(network: nn.Module, backbone: str) -> None:
    """Halve the picture once instead of four times, as small pictures need (He et al., 4.2)."""
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise UserError(f"team.stem=small needs a ResNet's stem, {backbone} has none: use standard")
    network.conv1 = nn.Conv2d(3, stem.out_channels, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def processor_has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (emulation is slower than fp32)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
