"""Run a command of collabteam with a hand-made detector in the place of torchvision's SSD.

    python colours.py ingest camera=... detector.kind=torchvision detector.model=ssd300_vgg16 ...

The detector finds the rectangles that ``freeze.py`` draws by their colours. It computes with whole
numbers, so its boxes are the same on every machine. Its weights are an empty state dict.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torchvision import models

NAME = "ssd300_vgg16"
_COCO_NUMBERS = (1, 2, 4)
"""COCO's numbers of a person (red), a bicycle (green) and a motorcycle (blue)."""


class _Size:
    min_size: tuple[int, ...] = (0,)
    max_size = 0


class Colours(nn.Module):
    """Takes (3, H, W) pictures from 0 to 1 and answers as torchvision's detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = _Size()
        self.score_thresh = 0.0

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [self._one(image) for image in images]

    @staticmethod
    def _one(image: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = (image * 255).round().to(torch.int32).permute(1, 2, 0).cpu().numpy()
        boxes: list[tuple[int, int, int, int]] = []
        numbers: list[int] = []
        for channel, number in enumerate(_COCO_NUMBERS):
            others = [other for other in range(3) if other != channel]
            strong = pixels[..., channel] - pixels[..., others].max(axis=2) > 60
            found = cv2.connectedComponentsWithStats(strong.astype(np.uint8))
            for left, top, width, height, count in found[2][1:].tolist():
                if count > 150:
                    boxes.append((left, top, left + width, top + height))
                    numbers.append(number)
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "scores": torch.full((len(boxes),), 0.875),
            "labels": torch.tensor(numbers, dtype=torch.int64),
        }


def run(arguments: list[str]) -> None:
    """Run a command as ``python -m collabteam.<command> [setting=value ...]`` does."""
    original = models.get_model

    def get_model(name: str, **settings: Any) -> nn.Module:
        return Colours() if name == NAME else original(name, **settings)

    models.get_model = get_model
    sys.argv = arguments
    runpy.run_module(f"collabteam.{arguments[0]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run(sys.argv[1:])
