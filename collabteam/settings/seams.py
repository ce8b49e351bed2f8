"""Registries of the seams that settings of ``collabteam.train`` name."""

from __future__ import annotations

from typing import Any

from collabteam.registry import Registry

VOTES: Registry[Any] = Registry(
    "vote", "collabteam.team.voting:VotePolicy", "collabteam.team.votes"
)
"""Vote policies."""
SELECTION_RULES: Registry[Any] = Registry(
    "selection rule",
    "collabteam.rounds.selection:SelectionRule",
    "collabteam.rounds.selection_rules",
)
"""Selection rules."""
