"""Labelling: a team gives every crop that no person has judged its label, or none.

    pool -> probabilities (part by part) -> calibrated -> one voice a track -> verdicts -> log

What it says is a function of the stored probabilities and the settings; the log gets what differs
from what it says already. So a killed command goes on where it was, and crops that come later are
all that the next one has to look at.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import NONE, Catalog, LabelEvent, class_numbers
from collabteam.catalog.texts import TextColumn
from collabteam.catalog.truth import read_truth
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.labelling.calibration import (
    Reliability,
    RiskCoverage,
    RiskThreshold,
    apply_temperatures,
    expected_calibration_error,
    fit_temperatures,
    reliability,
    risk_coverage,
    risk_thresholds,
)
from collabteam.learners.fit import set_threads
from collabteam.machine import utc_stamp
from collabteam.reporting.table1 import Round, read_rounds
from collabteam.rounds import evaluation
from collabteam.rounds.state import digest
from collabteam.settings import MOST_SAMPLES, LabelConfig, check, risk_of
from collabteam.storage.files import read_json, write_json
from collabteam.team.engines import Disagreement, check_engine, open_engine
from collabteam.team.predictions import PredictionStore
from collabteam.team.team import Engine, Team
from collabteam.team.voting import ABSTAIN, Verdicts, combine_tracks, vote

_EVENTS = 16_384
"""Verdicts in one commit."""
_BINS = 10
_CURVE = 101
"""Most points of the risk over the coverage in ``label.json``."""


@dataclass(frozen=True)
class OutOfFold:
    """Crops that a person judged and the networks that scored them never saw.

    Attributes:
        prob_NB: (N, B) probability of *true*, uncalibrated.
        labels_N: (N,) class, -1 for none of them.
        tracks_N: (N,) track.
    """

    prob_NB: NDArray[np.float64]
    labels_N: NDArray[np.int64]
    tracks_N: NDArray[np.int64]


@dataclass(frozen=True)
class LabelQuality:
    """What the team's confidence is worth on the frozen test set.

    Attributes:
        before: Reliability per class, uncalibrated.
        after: The same, calibrated.
        curve: Risk over coverage of single crops, calibrated.
    """

    before: dict[str, Reliability]
    after: dict[str, Reliability]
    curve: RiskCoverage


@dataclass(frozen=True)
class LabelResult:
    """What came of labelling.

    Attributes:
        record: The content of ``label.json``.
        quality: On the frozen test set; None if there is none.
        new: Verdicts that the log did not have.
    """

    record: dict[str, Any]
    quality: LabelQuality | None
    new: int


def label_pool(config: LabelConfig, listener: Listener | None = None) -> LabelResult:
    """Label every crop of a camera that no person has judged and that is not in the test set.

    Args:
        config: All settings.
        listener: Where progress and warnings go; silent if None.

    Returns:
        What came of it, which is also on record in the camera's folder.

    Raises:
        UserError: There is no such round, the engine is missing or differs too much, or the disk is
            full; what was done is kept.
    """
    listener = listener or Listener()
    check(config)
    catalog = Catalog.open(config.root, config.camera.name)
    with catalog.workspace.transaction("label"):
        rounds = read_rounds(catalog.workspace)
        number = len(rounds) - 1 if config.round is None else config.round
        if not 0 <= number < len(rounds):
            raise UserError(
                f"camera {catalog.name} has no finished round{'' if number < 0 else f' {number}'}: "
                f"python -m collabteam.train camera={catalog.name} round={max(number, 0)}"
            )
        set_threads(config.trainer.threads)
        return _Labelling(config, catalog, rounds[number], listener).run()


class _Labelling:
    """One run of one team over one camera."""

    def __init__(
        self, config: LabelConfig, catalog: Catalog, team: Round, listener: Listener
    ) -> None:
        self.config, self.catalog, self.team, self.listener = config, catalog, team, listener
        self.classes: list[str] = team["classes"]
        self.files = catalog.workspace.round(team["round"])
        self.joint: str = team["settings"]["team"]["joint"]
        self.index = catalog.index()
        self.seconds: dict[str, float] = {}

    def run(self) -> LabelResult:
        """Score, decide, write."""
        index = self.index
        pool = index.unverified()
        judged = index.test_set()
        began = time.perf_counter()
        rows, prob, check = self._score(np.flatnonzero(pool | judged))
        self.seconds["score"] = time.perf_counter() - began
        unseen = self._unseen()
        temperatures = self._temperatures(unseen)
        thresholds = self._thresholds(unseen, temperatures)
        raw, prob = prob, apply_temperatures(prob, temperatures) if len(rows) else prob
        verdicts, conflicts = self._decide(rows, prob, thresholds)
        settings = {
            "threshold": self.config.threshold, "confidence": self.config.confidence,
            "tracks": self.config.tracks, "correlation": self.config.correlation,
            "calibrate": self.config.calibrate, "engine": check["kind"],
            "precision": check["precision"],
        }  # fmt: skip
        run = f"label-{digest([self.team['fingerprint'], settings])}"
        began = time.perf_counter()
        mine = pool[rows]
        new = self._write(
            rows[mine], Verdicts(verdicts.branch[mine], verdicts.confidence[mine]), run
        )
        self.seconds["write"] = time.perf_counter() - began
        quality, on_test = self._measure(rows, raw, prob, verdicts, judged[rows])
        truth = read_truth(self.catalog, index.crop_id)
        counts = np.bincount(verdicts.branch[mine] + 1, minlength=len(self.classes) + 1)
        record = {
            "schema": 1,
            "camera": self.catalog.name,
            "round": self.team["round"],
            "team": self.team["fingerprint"],
            "run": run,
            "settings": settings,
            "check": check,
            "pool": int(mine.sum()),
            "labelled": {
                name: int(count) for name, count in zip(self.classes, counts[1:], strict=True)
            },
            "abstained": int(counts[0]),
            "conflicts": int(conflicts[mine].sum()),
            "coverage": float(1 - counts[0] / mine.sum()) if mine.any() else None,
            "temperatures": dict(zip(self.classes, temperatures.tolist(), strict=True)),
            "thresholds": None
            if thresholds is None
            else {
                name: {**asdict(found), "threshold": _finite(found.threshold)}
                for name, found in zip(self.classes, thresholds, strict=True)
            },
            "test": on_test,
            "samples": self._samples(rows, prob, verdicts, mine, judged[rows], truth),
            "measured": self._against_truth(rows[mine], verdicts.branch[mine], truth),
            "new": new,
            "seconds": {stage: round(taken, 2) for stage, taken in self.seconds.items()},
            "finished": utc_stamp(),
        }
        write_json(self.catalog.workspace.label_record, record)
        return LabelResult(record, quality, new)

    # -- probabilities -------------------------------------------------------------------------

    def _score(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], dict[str, Any]]:
        """Rows, their uncalibrated probabilities (n, B), and how these were computed."""
        config = self.config
        try:
            engine, name, check = self._engine(config.precision, rows)
        except Disagreement as error:
            if config.precision != "auto" or config.trainer.precision != "auto":
                raise
            # Nobody asked for bf16; a team with many close calls needs the digits.
            self.listener.warn(f"{error}; fp32 it is")
            engine, name, check = self._engine("fp32", rows)
        scores = PredictionStore(
            self.files.scores(name), self.team["fingerprint"], self.classes, self.index
        )
        scores.fill(
            self.catalog, rows, engine, config.trainer.score_batch_size, self.listener,
            f"the team of round {self.team['round']} looks at {{}} crops ({engine.kind}, "
            f"{engine.precision})",
        )  # fmt: skip
        return rows, scores.of(rows).astype(np.float64), check

    def _engine(
        self, precision: str, rows: NDArray[np.int64]
    ) -> tuple[Engine, str, dict[str, Any]]:
        """An engine that was compared, the name of its scores, and what the comparison said.

        Raises:
            UserError: It is missing, or differs too much.
        """
        config = self.config
        engine = open_engine(
            self.files, config.engine, precision, config.trainer, self._calibration_crops
        )
        # What training scored already, in the arithmetic of its machine, need not be scored again.
        trained = config.engine == "torch" and {precision, config.trainer.precision} == {"auto"}
        name = "" if trained else f"{engine.kind}-{engine.precision}"
        return engine, name, self._check(engine, self.files.scores_check(name), rows)

    def _check(self, engine: Engine, file: Path, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Compare the engine with torch in fp32 on a sample, once for each team and engine.

        Raises:
            UserError: More than ``MOST_DISAGREEMENT`` of the verdicts differ.
        """
        said: dict[str, Any] = {
            "team": self.team["fingerprint"], "kind": engine.kind, "precision": engine.precision
        }  # fmt: skip
        if file.exists() and (known := read_json(file)).items() >= said.items():
            return dict(known)
        if not len(rows) or (engine.kind, engine.precision) == ("torch", "fp32"):
            return said | {"crops": 0, "disagreement": 0.0, "largest_difference": 0.0}
        rng = np.random.default_rng([self.config.seed, *b"check"])
        sample = np.sort(rng.choice(rows, min(self.config.check, len(rows)), replace=False))
        exact = Team.load(self.files, replace(self.config.trainer, precision="fp32"))
        batch = self.config.trainer.score_batch_size
        with self.listener.stage(
            f"comparing {engine.kind} in {engine.precision} with torch in fp32", len(sample),
            "crops",
        ) as advance:  # fmt: skip
            found = check_engine(engine, exact, self.catalog, sample, batch, advance)
        self.listener.say(
            f"{engine.kind} in {engine.precision} and torch in fp32 differ in "
            f"{found.disagreement:.2%} of {found.crops} verdicts"
        )
        said |= asdict(found)
        write_json(file, said)
        return said

    def _calibration_crops(self, count: int) -> list[bytes]:
        """Pictures of the camera for an engine that measures the range of its numbers on them."""
        rng = np.random.default_rng([self.config.seed, *b"calibration"])
        rows = rng.choice(len(self.index), min(count, len(self.index)), replace=False)
        return self.catalog.images(np.sort(rows))

    # -- calibration ---------------------------------------------------------------------------

    def _unseen(self) -> dict[int, OutOfFold]:
        """By fold: what a person judged and that fold's networks did not train on.

        Empty where an earlier version trained the round and left no names of the crops.
        """
        found = {}
        for fold, file in self.files.all_fold_predictions().items():
            try:
                with np.load(file) as kept:
                    names, prob = kept["crop_id"], kept["prob"].astype(np.float64)
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                continue
            rows = self.index.crop_id.find(names.tolist())
            judged = (rows >= 0) & self.index.judged()[rows]
            found[fold] = OutOfFold(
                prob[judged],
                self.index.targets(rows[judged], self.classes),
                self.index.track_code[rows[judged]],
            )
        return found

    def _temperatures(self, unseen: dict[int, OutOfFold]) -> NDArray[np.float64]:
        """(B,) of each branch, from what its own voting networks did not see."""
        temperatures = np.ones(len(self.classes))
        if not self.config.calibrate:
            return temperatures
        if not unseen:
            self.listener.warn(
                f"round {self.team['round']} kept no crops to calibrate on: confidences stay as "
                "the networks give them; training the round again keeps them"
            )
        for branch, name in enumerate(self.classes):
            folds = [unseen[fold] for fold in self.team["voting"][name] if fold in unseen]
            if folds:
                prob = np.concatenate([one.prob_NB for one in folds])
                labels = np.concatenate([one.labels_N for one in folds])
                temperatures[branch] = fit_temperatures(prob, labels)[branch]
        return temperatures

    def _thresholds(
        self, unseen: dict[int, OutOfFold], temperatures: NDArray[np.float64]
    ) -> list[RiskThreshold] | None:
        """Per class, for ``threshold=risk:...``; None for the paper's rule."""
        risk = risk_of(self.config.threshold)
        if risk is None:
            return None
        if not unseen:
            raise UserError(
                f"threshold={self.config.threshold}: round {self.team['round']} kept no crops to "
                "choose a threshold on: train it again, or use threshold=paper"
            )
        folds = list(unseen.values())
        prob = np.concatenate([one.prob_NB for one in folds])
        thresholds = risk_thresholds(
            vote(apply_temperatures(prob, temperatures), self.joint),
            np.concatenate([one.labels_N for one in folds]),
            np.concatenate([one.tracks_N for one in folds]),
            len(self.classes), risk, self.config.confidence, self.config.seed,
        )  # fmt: skip
        for name, found in zip(self.classes, thresholds, strict=True):
            if not np.isfinite(found.threshold):
                self.listener.warn(
                    f"class {name}: nothing can be labelled at a risk of {risk:g}: {found.errors} "
                    f"of {found.crops} human-labelled crops that did not train were wrong; verify "
                    "more (queue=unsure), train on, or allow more risk"
                )
        return thresholds

    # -- verdicts ------------------------------------------------------------------------------

    def _decide(
        self,
        rows: NDArray[np.int64],
        prob: NDArray[np.float64],
        thresholds: Sequence[RiskThreshold] | None,
    ) -> tuple[Verdicts, NDArray[np.bool_]]:
        """The verdict of every row, and whether its track contradicts itself or a person."""
        if not len(rows):
            nothing = np.zeros(0)
            return Verdicts(nothing.astype(np.int64), nothing), nothing.astype(bool)
        own = vote(prob, self.joint)
        conflicts = np.zeros(len(rows), dtype=bool)
        decided = own
        if self.config.tracks == "combine":
            _, tracks = np.unique(self.index.track_code[rows], return_inverse=True)
            together, conflicts = combine_tracks(prob, tracks, self.config.correlation)
            decided = vote(together, self.joint)
        if thresholds is not None:
            # The promise is about single crops and their own confidence: what the track adds could
            # only be taken on trust. A conflict still takes away.
            least = np.array([found.threshold for found in thresholds] + [np.inf])
            branch = np.where(own.confidence >= least[own.branch], own.branch, ABSTAIN)
            decided = Verdicts(branch, own.confidence)
        if self.config.tracks == "combine":
            conflicts |= self._contradicts_a_person(rows, decided.branch)
        return Verdicts(np.where(conflicts, ABSTAIN, decided.branch), decided.confidence), conflicts

    def _contradicts_a_person(
        self, rows: NDArray[np.int64], branch: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether a person called another crop of the track, outside the test set, otherwise."""
        index = self.index
        said = np.flatnonzero(index.judged() & ~index.test)
        called = index.targets(said, self.classes)
        size = int(index.track_code.max(initial=-1)) + 1
        lowest, highest = np.full(size, len(self.classes)), np.full(size, -2)
        np.minimum.at(lowest, index.track_code[said], called)
        np.maximum.at(highest, index.track_code[said], called)
        low, high = lowest[index.track_code[rows]], highest[index.track_code[rows]]
        known = high > -2
        conflict: NDArray[np.bool_] = (
            known & (branch != ABSTAIN) & ((low != branch) | (high != branch))
        )
        return conflict

    def _write(self, rows: NDArray[np.int64], verdicts: Verdicts, run: str) -> int:
        """Append what the log does not say already; returns how many."""
        index = self.index
        names = np.array([*self.classes, ""], dtype=object)[verdicts.branch]
        same = (
            (index.verdict_run[rows] == run)
            & (index.verdict[rows] == names)
            & (np.abs(index.verdict_confidence[rows] - verdicts.confidence) < 1e-9)
        )
        new = np.flatnonzero(~same)
        with self.listener.stage(f"writing {len(new)} verdicts", len(new), "crops") as advance:
            for start in range(0, len(new), _EVENTS):
                now = time.time()
                part = new[start : start + _EVENTS]
                self.catalog.append_labels(
                    [
                        LabelEvent(
                            str(index.crop_id[rows[n]]), str(names[n]), "team", "verdict",
                            self.team["round"], float(verdicts.confidence[n]),
                            self.team["fingerprint"], run, now,
                        )
                        for n in part
                    ]
                )  # fmt: skip
                advance(len(part))
        return len(new)

    # -- what it is worth ----------------------------------------------------------------------

    def _measure(
        self,
        rows: NDArray[np.int64],
        raw: NDArray[np.float64],
        prob: NDArray[np.float64],
        verdicts: Verdicts,
        judged: NDArray[np.bool_],
    ) -> tuple[LabelQuality | None, dict[str, Any] | None]:
        """On the frozen test set: calibration, risk over coverage, what the labels are worth."""
        if not judged.any():
            self.listener.warn(
                "the camera has no verified test set, so nothing says how right these labels are: "
                f"python -m collabteam.review camera={self.catalog.name} queue=test"
            )
            return None, None
        labels = self.index.targets(rows[judged], self.classes)
        raw, calibrated = raw[judged], prob[judged]
        before, after, errors = {}, {}, {}
        for branch, name in enumerate(self.classes):
            true = labels == branch
            before[name] = reliability(raw[:, branch], true, _BINS)
            after[name] = reliability(calibrated[:, branch], true, _BINS)
            errors[name] = {
                "before": expected_calibration_error(raw[:, branch], true, _BINS),
                "after": expected_calibration_error(calibrated[:, branch], true, _BINS),
            }
        alone = vote(calibrated, self.joint)
        curve = risk_coverage(alone, labels)
        as_labelled = Verdicts(verdicts.branch[judged], verdicts.confidence[judged])
        record = {
            "crops": len(labels),
            "calibration_error": errors,
            "reliability": {
                name: {"before": _bins(before[name]), "after": _bins(after[name])}
                for name in self.classes
            },
            "risk_coverage": _thinned(curve),
            "risk_coverage_area": curve.area,
            "apart": _worth(alone, labels, self.classes),
            "as_labelled": _worth(as_labelled, labels, self.classes),
        }
        return LabelQuality(before, after, curve), record

    def _samples(
        self,
        rows: NDArray[np.int64],
        prob: NDArray[np.float64],
        verdicts: Verdicts,
        mine: NDArray[np.bool_],
        judged: NDArray[np.bool_],
        truth: TextColumn,
    ) -> dict[str, list[dict[str, Any]]]:
        """Crops to look at, one of a track: the surest of each class, unsure ones, wrong ones.

        Those that nobody knows (``unsure``) are a seeded random draw. Wrong is what a person called
        otherwise, on the test set, or what hidden truth contradicts; the surest of them come first.
        """
        index, branch = self.index, verdicts.branch
        surest = np.argsort(-verdicts.confidence, kind="stable")
        # Dealt out in turn, so that the first few show every class.
        dealt = [
            self._one_of_a_track(rows, surest[mine[surest] & (branch[surest] == number)])
            for number in range(len(self.classes))
        ]
        sure = [some[k] for k in range(MOST_SAMPLES) for some in dealt if k < len(some)]
        rng = np.random.default_rng([self.config.seed, *b"samples"])
        unsure = rng.permutation(np.flatnonzero(mine & (branch == ABSTAIN)))
        names = np.array([*self.classes, ""], dtype=object)
        actual = truth[rows]
        actual[judged] = index.human[rows[judged]]
        is_wrong = (branch != ABSTAIN) & (actual != "") & (actual != names[branch])
        wrong = surest[is_wrong[surest]]

        def crop(k: int) -> dict[str, Any]:
            return {
                "crop_id": str(index.crop_id[rows[k]]),
                "label": str(names[branch[k]]),
                "confidence": float(verdicts.confidence[k]),
            }

        return {
            "sure": [crop(k) for k in sure[:MOST_SAMPLES]],
            "unsure": [
                {
                    "crop_id": str(index.crop_id[rows[k]]),
                    "claimed_by": [str(name) for name in names[:-1][prob[k] > 0.5]],
                }
                for k in self._one_of_a_track(rows, unsure)
            ],
            "wrong": [
                crop(k) | {
                    "actual": str(actual[k]),
                    "source": str(index.human_source[rows[k]]) if judged[k] else "truth",
                }
                for k in self._one_of_a_track(rows, wrong)
            ],
        }  # fmt: skip

    def _one_of_a_track(self, rows: NDArray[np.int64], chosen: Iterable[int]) -> list[int]:
        """The first ``MOST_SAMPLES`` of them, without a second crop of any track."""
        kept: dict[int, int] = {}
        for k in chosen:
            kept.setdefault(int(self.index.track_code[rows[k]]), int(k))
            if len(kept) == MOST_SAMPLES:
                break
        return list(kept.values())

    def _against_truth(
        self, rows: NDArray[np.int64], branch: NDArray[np.int64], truth: TextColumn
    ) -> dict[str, Any] | None:
        """How right the labels are where hidden truth is known; nothing here feeds back."""
        known = truth[rows]
        if not (known != "").any():
            return None
        actual = class_numbers(known, self.classes)
        has = known != ""
        stranger = has & (actual == NONE)
        return {
            **_worth(Verdicts(branch[has], np.ones(int(has.sum()))), actual[has], self.classes),
            "strangers": int(stranger.sum()),
            "strangers_labelled": int((branch[stranger] != ABSTAIN).sum()),
        }


def _worth(verdicts: Verdicts, labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Coverage, share of right labels, and that of each class; None where there is nothing."""
    per_class = {}
    for branch, name in enumerate(classes):
        called = verdicts.branch == branch
        right = float((labels[called] == branch).mean()) if called.any() else None
        per_class[name] = {"labelled": int(called.sum()), "precision": right}
    return {
        "coverage": evaluation.coverage(verdicts),
        "accuracy": evaluation.consensus_accuracy(verdicts, labels),
        "classes": per_class,
    }


def _bins(found: Reliability) -> dict[str, list[float]]:
    """The bins that hold crops, as :class:`Reliability` has them."""
    held = found.count > 0
    return {
        "confidence": found.confidence[held].tolist(),
        "share": found.share[held].tolist(),
        "count": found.count[held].tolist(),
    }


def _thinned(curve: RiskCoverage) -> dict[str, list[float]]:
    """The curve at about evenly spaced coverages, both ends among them."""
    points = len(curve.coverage)
    at = np.unique(np.linspace(0, points - 1, _CURVE).round().astype(np.int64))[:points]
    return {"coverage": curve.coverage[at].tolist(), "risk": curve.risk[at].tolist()}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
