"""Settings of a simulated camera."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.settings.fields import setting


@dataclass
class SimulationConfig:
    """A simulated camera's view."""

    crops: int = setting(6000, ge=1, le=100_000_000, help="number of crops, exactly")
    crops_per_track: int = setting(
        3, ge=1, le=10_000, help="mean number of crops of one object, which has 1 to 2 * mean - 1"
    )
    hours: float = setting(24.0, ge=0.01, le=10_000, help="simulated span")
    drift: float = setting(
        0.3,
        ge=0,
        le=1,
        help="0: a constant view; 1: from a clear summer morning of walkers, large and from "
        "the side, to a wet night of motorcyclists, small, from front and rear",
    )
    proposal_error: float = setting(
        0.08,
        ge=0,
        le=0.6,
        help="share of wrong proposals; always includes half of the crops of no class",
    )
    unknown_share: float = setting(
        0.06, ge=0, le=0.9, help="share of crops that show none of the classes"
    )
    hard_share: float = setting(
        0.15,
        ge=0,
        le=1,
        help="share of hard cases: pushed bicycles, occlusion, tiny, dark, blurred, two together",
    )
    test_share: float = setting(
        0.15, ge=0, le=0.9, help="share of objects set apart as the frozen test set"
    )
