"""Settings of ``collabteam.audit``."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.settings.camera import CommandConfig
from collabteam.settings.fields import group, setting
from collabteam.settings.machine import RuntimeConfig


@dataclass
class AuditConfig(CommandConfig):
    """Settings of ``collabteam.audit``."""

    seed: int = setting(0, ge=0, help="seed of the sample")
    precision: float = setting(
        0.95, ge=0.5, le=0.9999, help="share of right labels to certify, of each class"
    )
    confidence: float = setting(
        0.95,
        ge=0.5,
        le=0.9999,
        help="chance that all certificates of the camera hold, over all classes and audits",
    )
    expected_error: float = setting(
        0.01,
        ge=0,
        le=1,
        help="share of wrong labels that you expect; it decides how many crops to look at",
    )
    power: float = setting(
        0.8, ge=0.01, le=0.9999, help="chance that a class passes if your expectation is right"
    )
    reviewer: str = setting(
        "person",
        choices={
            "person": "on the review page, queue=audit",
            "oracle": "simulated, answers from hidden truth",
        },
        help="who verifies the sample",
    )
    oracle_error: float = setting(
        0.0, ge=0, le=1, help="share of the oracle's answers that are wrong"
    )
    new: bool = setting(
        False,
        affects="place",
        help="begin another audit, of the present labels; each audit makes the next one need more "
        "crops",
    )
    runtime: RuntimeConfig = group(RuntimeConfig, preset="core", help="one job of a sweep")
