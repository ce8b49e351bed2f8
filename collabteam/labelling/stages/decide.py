"""Stages that decide on every crop and write the verdicts to the log."""

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
"""The largest number of verdicts in one commit."""


@dataclass(frozen=True, eq=False)
class Decision:
    """Verdicts on N crops.

    Attributes:
        verdicts: The final verdicts, which take the crops' tracks into account.
        is_conflict: (N,) whether a crop's track contradicts itself or a person.
    """

    verdicts: Verdicts
    is_conflict: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Decide(Stage[Decision]):
    """Decide on every crop.

    Attributes:
        plan: The labelling.
        policy: The vote policy, with the thresholds if there are any.
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
        if config.tracks != "apart":
            _, tracks = np.unique(self.plan.index.track_code[rows], return_inverse=True)
            single, averaged = self.plan.policy, config.tracks == "average"
            correlation = 1.0 if averaged else config.correlation
            together, conflicts = combine_tracks(prob, tracks, correlation, single)
            if averaged:
                conflicts = np.zeros(len(rows), dtype=np.bool_)
            # A threshold bounds the risk of single crops by their own confidence, so tracks add no
            # labels here. Conflicts still remove labels.
            if self.policy.thresholds is None:
                decided = single.vote(together)
            conflicts |= self._contradicts_a_person(decided.branch)
        branch = np.where(conflicts, ABSTAIN, decided.branch)
        return Decision(Verdicts(branch, decided.confidence), conflicts)

    def _contradicts_a_person(self, branch: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether a person labelled another non-test crop of the track differently."""
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
    """Append the verdicts that the log does not hold yet.

    They are appended in parts; after a kill, the next command appends the rest.

    Attributes:
        plan: The labelling.
        rows: (N,) rows of the crops.
        verdicts: Verdicts on these crops.
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
