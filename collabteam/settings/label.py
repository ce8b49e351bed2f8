"""Settings of ``collabteam.label``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from collabteam.errors import UserError
from collabteam.settings.camera import CommandConfig
from collabteam.settings.fields import group, setting
from collabteam.settings.machine import RuntimeConfig, TrainerConfig

MOST_SAMPLES = 24
"""Crops of each kind that ``label`` lists for a person to look at."""

MOST_DISAGREEMENT = 0.005
"""Largest share of verdicts in which an engine may differ from torch in fp32."""


def risk_of(threshold: str) -> float | None:
    """Read the risk from ``threshold=risk:0.05``; None for ``paper``.

    Raises:
        UserError: It is neither.
    """
    if threshold == "paper":
        return None
    kind, _, share = threshold.partition(":")
    try:
        risk = float(share)
    except ValueError:
        risk = math.nan
    if kind != "risk" or not 0 < risk < 1:
        raise UserError(
            f"threshold={threshold}: expected 'paper', or 'risk:' and a share between 0 and 1, "
            "such as risk:0.05"
        )
    return risk


@dataclass
class LabelConfig(CommandConfig):
    """Settings of ``collabteam.label``."""

    seed: int = setting(
        0, ge=0, help="seed of the samples that check an engine and choose a threshold"
    )
    round: int | None = setting(
        None, ge=0, metavar="K", help="the round whose team labels; else the last"
    )
    engine: str = setting(
        "torch",
        choices={"torch": "CPU or GPU", "openvino": "the extra 'openvino'; CPU only"},
        help="library that runs the networks",
    )
    precision: str = setting(
        "auto",
        choices={
            "auto": "bf16 where the processor has it, else fp32",
            "fp32": "",
            "bf16": "",
            "int8": "OpenVINO's, calibrated on the camera's own crops",
        },
        help="arithmetic",
    )
    weights: list[str] = setting(
        [],
        affects="place",
        metavar="FILE",
        is_path=True,
        help="files with the weights of the frozen backbones, where train was given "
        "features.weights",
    )
    check: int = setting(
        1000,
        ge=1,
        help="crops on which the engine is compared with torch in fp32 first; it is "
        f"refused if more than {MOST_DISAGREEMENT:.1%} of the verdicts differ",
    )
    threshold: str = setting(
        "paper",
        metavar="paper",
        help="paper: every consensus is a label; risk:0.05: only consensus confident enough that "
        "at most this share of a class's labels is wrong",
    )
    confidence: float = setting(
        0.95, ge=0.5, le=0.9999, help="chance that the bound of threshold=risk holds"
    )
    tracks: str = setting(
        "combine",
        choices={
            "combine": "the crops of one track are one object with one label, or none if two of "
            "them have different ones",
            "average": "the same by the mean log-odds of the crops, whatever single ones say",
            "apart": "each crop gets its own label",
        },
        help="whether tracks or crops get labels",
    )
    correlation: float = setting(
        0.5,
        ge=0,
        le=1,
        help="with combine, how alike the crops of one track are: 0, each adds evidence; 1, no "
        "further one does",
    )
    calibrate: bool = setting(
        True, help="calibrate confidences on human-labelled crops that did not train"
    )
    trainer: TrainerConfig = group(TrainerConfig, help="hardware")
    runtime: RuntimeConfig = group(RuntimeConfig, preset="core", help="one job of a sweep")

    def check_together(self) -> None:
        """Raise unless the threshold can be read.

        Raises:
            UserError: It is neither ``paper`` nor a risk.
        """
        super().check_together()
        risk_of(self.threshold)
