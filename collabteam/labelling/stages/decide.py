"""Stages that decide on every crop and write the verdicts into the log."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import LabelEvent
from collabteam.events import Listener
from collabteam.labelling.plan import LabellingPlan
from collabteam.stages import Stage
from collabteam.team.voting import ABSTAIN, Verdicts, VotePolicy, combine_tracks

_EVENTS = 16_384
"""Verdicts in one commit."""


@dataclass(frozen=True, eq=False)
class Decision:
    """Verdicts on N crops.

    Attributes:
        verdicts: Of the crops, with the word of their tracks.
        is_conflict: (N,) whether a crop's track contradicts itself or a person.
    """

    verdicts: Verdicts
    is_conflict: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Decide(Stage[Decision]):
    """Decide on every crop.

    Attributes:
        plan: The labelling.
        policy: With the thresholds, if there are any.
        rows: (N,) rows of the crops.
        prob_NB: (N, B) calibrated probability of *true*.
    """

    plan: LabellingPlan
    policy: VotePolicy
    rows: NDArray[np.int64]
    prob_NB: NDArray[np.float64]
    name = "decide"

    def compute(self, listener: Listener) -> Decision:
        """Return the verdicts."""
        config, rows, prob = self.plan.config, self.rows, self.prob_NB
        if not len(rows):
            nothing = np.zeros(0)
            return Decision(Verdicts(nothing.astype(np.int64), nothing), nothing.astype(np.bool_))
        decided, conflicts = self.policy.vote(prob), np.zeros(len(rows), dtype=np.bool_)
        if config.tracks == "combine":
            _, tracks = np.unique(self.plan.index.track_code[rows], return_inverse=True)
            single = self.plan.policy
            together, conflicts = combine_tracks(prob, tracks, config.correlation, single)
            # A threshold is a promise about single crops and their own confidence: what the track
            # adds could only be taken on trust. A conflict still takes away.
            if self.policy.thresholds is None:
                decided = single.vote(together)
            conflicts |= self._contradicts_a_person(decided.branch)
        branch = np.where(conflicts, ABSTAIN, decided.branch)
        return Decision(Verdicts(branch, decided.confidence), conflicts)

    def _contradicts_a_person(self, branch: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a person called another crop of the track, outside the test set, otherwise."""
        index, classes = self.plan.index, self.plan.classes
        said = np.flatnonzero(index.judged() & ~index.test)
        called = index.targets(said, classes)
        size = int(index.track_code.max(initial=-1)) + 1
        lowest, highest = np.full(size, len(classes)), np.full(size, -2)
        np.minimum.at(lowest, index.track_code[said], called)
        np.maximum.at(highest, index.track_code[said], called)
        low, high = lowest[index.track_code[self.rows]], highest[index.track_code[self.rows]]
        is_known = high > -2
        conflict: NDArray[np.bool_] = (
            is_known & (branch != ABSTAIN) & ((low != branch) | (high != branch))
        )
        return conflict


@dataclass(frozen=True, eq=False)
class WriteVerdicts(Stage[int]):
    """Append to the log the verdicts that it does not hold already.

    Part by part: a verdict is its own artefact, so a command that was killed appends the rest.

    Attributes:
        plan: The labelling.
        rows: (N,) rows of the crops.
        verdicts: On these crops.
        run: Name of the team with these settings.
    """

    plan: LabellingPlan
    rows: NDArray[np.int64]
    verdicts: Verdicts
    run: str
    name = "write"

    def compute(self, listener: Listener) -> int:
        """Return how many verdicts were new."""
        plan, index, rows = self.plan, self.plan.index, self.rows
        branch, confidence = self.verdicts.branch, self.verdicts.confidence
        names = np.array([*plan.classes, ""], dtype=object)[branch]
        same = (
            (index.verdict_run[rows] == self.run)
            & (index.verdict[rows] == names)
            & (np.abs(index.verdict_confidence[rows] - confidence) < 1e-9)
        )
        new = np.flatnonzero(~same)
        with listener.stage(f"writing {len(new)} verdicts", len(new), "crops") as advance:
            for start in range(0, len(new), _EVENTS):
                now = time.time()
                part = new[start : start + _EVENTS]
                plan.catalog.append_labels(
                    [
                        LabelEvent(
                            str(index.crop_id[rows[n]]), str(names[n]), "team", "verdict",
                            round=plan.team.round, confidence=float(confidence[n]),
                            by=plan.team.fingerprint, commit=self.run, time=now,
                        )
                        for n in part
                    ]
                )  # fmt: skip
                advance(len(part))
        return len(new)
