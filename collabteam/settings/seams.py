"""Registries of the implementations that settings name; they rank below the implementations."""

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
REVIEW_QUEUES: Registry[Any] = Registry(
    "review queue", "collabteam.reviewing.review_queue:ReviewQueue", "collabteam.reviewing.queues"
)
"""Review queues."""
