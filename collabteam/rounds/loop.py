"""The loop: bring a camera to a round.

Round 0 trains on a human-verified sample, i0. Round k lets the team of round k-1 vote on the pool,
adds a random draw of what it is surest about, and trains on i0 + i1 + ... + ik. Each stage leaves
its result on disk before the next begins, so a killed command goes on where it was.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from collabteam.catalog import UNLABELLED, Catalog, CropIndex, LabelEvent
from collabteam.catalog.truth import read_truth
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.features.backbones import build_branch, check_picture_size
from collabteam.features.images import decode
from collabteam.learners.fit import fit_fold, set_threads
from collabteam.learners.folds import assign_folds
from collabteam.reporting.table1 import Round, read_rounds
from collabteam.reporting.wandb_runs import finish, fold_logger, log_recall
from collabteam.rounds import evaluation
from collabteam.rounds.initial import draw_initial, initial_rows, sample_file
from collabteam.rounds.oracle import oracle_answers
from collabteam.rounds.selection import select
from collabteam.rounds.state import (
    check_settings,
    digest,
    read_json,
    result_settings,
    roll_back,
    round_folder,
    training_digest,
    write_json,
)
from collabteam.rounds.tracked import track
from collabteam.settings import UNKNOWN, TrainConfig, check_train
from collabteam.team.predictions import PART, PredictionStore
from collabteam.team.team import Device, Team, branch_file
from collabteam.team.voting import ABSTAIN, vote

LOW_PRECISION = 0.95
"""A draw whose estimated precision is lower is announced: it may teach more wrong than right."""


def train_rounds(config: TrainConfig, listener: Listener | None = None) -> list[Round]:
    """Bring a camera to ``config.round``, doing every round that is missing.

    Args:
        config: All settings.
        listener: Where progress and warnings go; silent if None.

    Returns:
        The records (``round.json``) of rounds 0 to the last one finished.

    Raises:
        UserError: Something only the user can change; nothing that was there is lost.
    """
    listener = listener or Listener()
    check_train(config)
    check_picture_size(config.team, config.data.image_size)
    catalog = Catalog.open(config.root, config.camera.name)
    catalog.set_classes(config.camera.classes)
    # The catalog's order stands, however the command names the classes.
    config = replace(config, camera=replace(config.camera, classes=catalog.classes))
    with catalog.lock("train"):
        if config.rollback is not None:
            _roll_back(catalog, config.rollback, listener)
        done = read_rounds(catalog.folder)
        if done and config.rollback is None:
            check_settings(done[-1], config)
        if len(done) <= config.round:
            build_branch(config.team)  # a wrong name should show before anything is drawn
        # What a kill kept from being logged, or an earlier command was told not to log.
        track(config.logger, catalog, done)
        while len(done) <= config.round:
            done.append(_Making(config, catalog, done, listener).run())
            catalog.push()
            listener.say(headline(done[-1]))
            track(config.logger, catalog, done)
        return done


def _roll_back(catalog: Catalog, to: int, listener: Listener) -> None:
    # Folders first: if a kill comes in between, rounds beyond ``to`` are unfinished, and their
    # draws are recognised as another team's and voided before anything is drawn again.
    moved = roll_back(catalog.folder, to)
    catalog.push()
    index = catalog.index()
    if (index.increment_round > to).any():
        catalog.append_labels([LabelEvent("", "", source="rollback", round=to)])
    if moved:
        listener.say(
            f"took back rounds {min(moved)} to {max(moved)} of {catalog.name}; "
            f"their files are in {catalog.place}/rolled-back"
        )


@dataclass
class _TrainingSet:
    """Crops that train: N rows of the index, what they are called, and who said so."""

    rows: NDArray[np.int64]
    crop_id: NDArray[np.str_]
    labels: NDArray[np.int64]  # class, -1 for none of the classes
    human: NDArray[np.bool_]
    digest: str


@dataclass
class _Making:
    """One round in the making."""

    config: TrainConfig
    catalog: Catalog
    done: list[Round]
    listener: Listener
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.number = len(self.done)
        self.classes = list(self.config.camera.classes)
        self.folder = round_folder(self.catalog.folder, self.number)
        self.folder.mkdir(parents=True, exist_ok=True)
        set_threads(self.config.trainer.threads)
        self.device = Device.of(self.config.trainer)

    def run(self) -> Round:
        """Do every stage that is not done yet and write the record last."""
        self.seconds |= {"sample": 0.0, "select": 0.0}
        with self._timed("select" if self.number else "sample"):
            increment = self._extend() if self.number else self._sample()
        index = self.catalog.index()
        with self._timed("read"):
            training = self._training_set(index)
            images = self._read(index, training.rows)
        # Of all that makes the round: a fold that anything else trained counts for nothing.
        self.fingerprint = digest(
            [
                result_settings(self.config),
                training.digest,
                self.done[-1]["fingerprint"] if self.done else "",
            ]
        )
        folds = self._folds(index, training)
        with self._timed("train"):
            outcomes = self._train(training, images, folds, increment)
        del images
        voting = self._elect(training, outcomes)
        team = Team.from_branches(
            self.folder, self.classes, voting, self.config.team,
            self.config.data.image_size, self.device,
        )  # fmt: skip
        record = self._record(index, training, outcomes, voting, increment)
        with self._timed("score"):
            record |= self._measure_pool(index, team)
        with self._timed("evaluate"):
            record |= self._measure_test(index, team)
            record |= self._measure_against_truth(index, training, increment)
        record["seconds"] = {stage: round(float(s), 2) for stage, s in self.seconds.items()}
        record["peak_memory_mb"] = _peak_memory_mb()
        record["finished"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self.config.team.init == "scratch":
            self._prune(voting)
        write_json(self.folder / "round.json", record)
        return record

    # -- which crops ---------------------------------------------------------------------------

    def _sample(self) -> dict[str, Any]:
        """Draw i0 once, and make sure that it is verified."""
        config = self.config
        draw_initial(self.catalog, config, self.listener)
        index = self.catalog.index()
        rows = initial_rows(self.catalog.folder, index)
        missing = rows[~index.verified()[rows]]
        if config.reviewer == "oracle":
            self.listener.say(
                "reviewer=oracle: a simulated reviewer answers from hidden truth, in i0 with "
                f"{config.oracle_error:.1%} errors; no person is asked"
            )
            self.catalog.append_labels(
                oracle_answers(
                    self.catalog, index, missing, config.oracle_error, config.seed, "seed"
                )
            )
        elif missing.size:
            counts = zip(*np.unique(index.proposed[missing], return_counts=True), strict=True)
            per_class = ", ".join(f"{count} {name or 'unproposed'}" for name, count in counts)
            raise UserError(
                f"{missing.size} of the {rows.size} crops of i0 are not verified yet "
                f"({per_class}): verify them with 'python -m collabteam.review "
                f"camera={self.catalog.name}', or bring labels from elsewhere ('ingest ... "
                "labels=person' with a Parquet file of the columns crop_id and label; the ids are "
                f"in {sample_file(self.catalog.folder)}), or let reviewer=oracle answer from "
                "hidden truth, then run this again"
            )
        return {}

    def _extend(self) -> dict[str, Any]:
        """Draw this round's increment once, from the votes of the team of the round before."""
        config, index, before = self.config, self.catalog.index(), self.done[-1]
        file = self.folder / "increment.json"
        drawn = index.increment_round == self.number
        foreign = drawn & (index.increment_by != before["fingerprint"])
        beyond = index.increment_round > self.number
        lost = drawn.any() and not file.exists()
        if foreign.any() or beyond.any() or lost:
            self.catalog.append_labels(
                [LabelEvent("", "", source="rollback", round=self.number - 1)]
            )
            file.unlink(missing_ok=True)
            index = self.catalog.index()
            drawn = np.zeros(len(index.crop_id), dtype=bool)
        if file.exists() and drawn.any():
            return dict(read_json(file))
        used = self._used(index)
        rows, prob = self._score_before(index, index.pool(used))
        verdicts = vote(prob, config.team.joint)
        # One object, one row: a track that trains already would only add near copies.
        fresh = ~np.isin(index.track_code[rows], index.track_code[used])
        verdicts.branch[~fresh] = ABSTAIN
        increments = select(
            verdicts, index.track_code[rows], len(self.classes), config.increment_per_class,
            config.quantile, [config.seed, self.number],
        )  # fmt: skip
        expected = before["expected_precision"]
        report: dict[str, Any] = {}
        events = []
        for name, branch in zip(self.classes, increments, strict=True):
            guess = expected[name]["share"]
            report[name] = {
                "candidates": branch.candidates,
                "taken": len(branch.taken),
                "shortfall": branch.shortfall,
                "expected_precision": guess,
            }
            if branch.shortfall:
                self.listener.warn(
                    f"round {self.number}, class {name}: {len(branch.taken)} of "
                    f"{config.increment_per_class} crops; its {branch.candidates} candidates show "
                    "no more objects"
                )
            if guess is None:
                self.listener.warn(
                    f"round {self.number}, class {name}: how right such a draw would be cannot be "
                    "told, the team is sure of no human-labelled fold crop of it"
                )
            elif guess < LOW_PRECISION:
                count = expected[name]["crops"]
                low = evaluation.wilson_lower(guess, count)
                self.listener.warn(
                    f"round {self.number}, class {name}: only {guess:.0%} of such a draw would be "
                    f"right, judged on {count} human-labelled fold crops (at least {low:.0%} with "
                    "95% confidence); wrong labels teach the team its own mistakes: verify more "
                    "crops (seed_per_class), train longer (optim.epochs), or raise quantile"
                )
            events += [
                LabelEvent(
                    str(index.crop_id[rows[position]]),
                    name,
                    source="team",
                    purpose="increment",
                    round=self.number,
                    confidence=float(verdicts.confidence[position]),
                    by=before["fingerprint"],
                )
                for position in branch.taken
            ]
        # The file goes first: without the labels it counts for nothing, and the draw that follows
        # a kill in between is the same.
        write_json(file, report)
        if events:
            self.catalog.append_labels(events)
        else:
            self.listener.warn(f"round {self.number} adds nothing: the team is sure of no crop")
        return report

    def _used(self, index: CropIndex) -> NDArray[np.bool_]:
        """Crops that train in this round or trained before it."""
        used = (index.increment_round >= 1) & (index.increment_round <= self.number)
        # What an earlier team did not know and a person then said teaches from here on.
        verified = (index.unsure_round >= 0) & index.verified()
        used |= verified & (index.unsure_round < self.number)
        used[initial_rows(self.catalog.folder, index)] = True
        return used

    def _training_set(self, index: CropIndex) -> _TrainingSet:
        rows = np.flatnonzero(self._used(index) & index.trainable())
        # A word that was withdrawn since then leaves its crop without a label.
        rows = rows[index.targets(rows, self.classes) != UNLABELLED]
        called, labels = index.training_labels(rows), index.targets(rows, self.classes)
        folds = self.config.data.folds
        for branch, name in enumerate(self.classes):
            count = len(np.unique(index.track[rows[labels == branch]]))
            if count < folds:
                raise UserError(
                    f"class {name} has {count} verified objects, {folds} folds need at least "
                    f"{folds}: verify more (seed_per_class) or set data.folds lower"
                )
        return _TrainingSet(
            rows,
            index.crop_id[rows].astype(str),
            labels,
            index.verified()[rows],
            training_digest(index.crop_id[rows], called),
        )

    def _read(self, index: CropIndex, rows: NDArray[np.int64]) -> torch.Tensor:
        """All training crops, decoded once: (N, 3, S, S) uint8."""
        size = self.config.data.image_size
        out = torch.empty((len(rows), 3, size, size), dtype=torch.uint8)
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, len(rows), PART):
                chunk = rows[start : start + PART]
                out[start : start + len(chunk)] = decode(self.catalog.images(chunk), size, pool)
        return out

    # -- train ---------------------------------------------------------------------------------

    def _folds(self, index: CropIndex, training: _TrainingSet) -> NDArray[np.int64]:
        known: dict[str, int] = {}
        if self.number:
            known = read_json(round_folder(self.catalog.folder, self.number - 1) / "folds.json")
        tracks = index.track[training.rows]
        folds = assign_folds(
            training.labels, tracks, self.config.data.folds, self.config.seed, known
        )
        assigned = dict(zip(map(str, tracks), folds.tolist(), strict=True))
        write_json(self.folder / "folds.json", assigned)
        return folds

    def _train(
        self,
        training: _TrainingSet,
        images: torch.Tensor,
        folds: NDArray[np.int64],
        increment: dict[str, Any],
    ) -> dict[int, NDArray[np.float32]]:
        """Out-of-fold probabilities (V, B) of every trained fold; finished folds are read back."""
        config = self.config
        later = self.number > 0
        epochs = (config.optim.epochs_later if later else 0) or config.optim.epochs
        start_from = self._start_from()
        outcomes = {}
        for fold in config.data.train_folds:
            file = self.folder / f"fold-{fold}.npz"
            if (kept := self._trained(file)) is not None:
                outcomes[fold] = kept
                continue
            logger = fold_logger(
                config.logger, self.folder, config.camera.name, self.number, fold,
                {**result_settings(config), "round": self.number, "fold": fold,
                 "train_size": len(training.rows), "increment": increment},
            )  # fmt: skip
            steps = max(1, int((folds != fold).sum()) // config.data.batch_size)
            total = steps * min(config.data.batch_size, int((folds != fold).sum())) * epochs
            title = f"round {self.number}, fold {fold}: {len(training.rows)} crops, {epochs} epochs"
            try:
                with self.listener.stage(title, total, "crops") as advance:
                    outcome = fit_fold(
                        self.folder, self.classes, images, training.labels, folds, fold,
                        team=config.team, data=config.data, optim=config.optim, later=later,
                        start_from=start_from,
                        seed=int(digest([config.seed, self.number, fold])[:8], 16),
                        device=self.device, logger=logger, advance=advance,
                    )  # fmt: skip
                extra = {
                    f"increment/{name}/{key}": float(value)
                    for name, row in increment.items()
                    for key, value in row.items()
                    if value is not None
                }
                recall = evaluation.branch_recall(
                    outcome.prob, training.labels[folds == fold], self.classes
                )
                log_recall(logger, self.number, recall, extra)
            finally:
                finish(logger)
            part = file.with_suffix(".part.npz")
            np.savez(
                part,
                prob=outcome.prob,
                crop_id=training.crop_id[folds == fold],
                fingerprint=self.fingerprint,
                seconds=outcome.seconds,
            )
            part.replace(file)
            outcomes[fold] = outcome.prob
        self.fold_of = folds
        return outcomes

    def _start_from(self) -> Path | None:
        """Folder of the round whose networks these ones go on from."""
        if not self.number or self.config.team.init == "scratch":
            return None
        # A rollback lets settings change, but not the networks that are to go on.
        old, new = self.done[-1]["settings"]["team"], asdict(self.config.team)
        other = [n for n in ("backbone", "attention", "stem") if old[n] != new[n]]
        if other:
            raise UserError(
                f"team.init=previous cannot go on from round {self.number - 1}: "
                + "; ".join(f"team.{n} {old[n]} -> {new[n]}" for n in other)
                + "; use team.init=scratch, or rollback=-1 to begin anew"
            )
        return round_folder(self.catalog.folder, self.number - 1)

    def _trained(self, file: Path) -> NDArray[np.float32] | None:
        """Out-of-fold probabilities of a fold that this very round trained before a kill."""
        if not file.exists():
            return None
        try:
            with np.load(file) as kept:
                if str(kept["fingerprint"]) != self.fingerprint:
                    return None
                self.seconds["train"] = self.seconds.get("train", 0.0) + float(kept["seconds"])
                prob: NDArray[np.float32] = kept["prob"]
                return prob
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            self.listener.warn(f"{file} is broken ({error}): the fold is trained again")
            return None

    def _elect(
        self, training: _TrainingSet, outcomes: dict[int, NDArray[np.float32]]
    ) -> dict[str, list[int]]:
        """Per branch, the folds whose networks vote, judged on human-labelled crops alone."""
        if self.config.team.vote_with == "mean":
            return {name: list(outcomes) for name in self.classes}
        recalls = {}
        for fold, prob in outcomes.items():
            here = self.fold_of == fold
            human = training.human[here]
            recalls[fold] = evaluation.branch_recall(
                prob[human], training.labels[here][human], self.classes
            )
        return {
            name: [max(recalls, key=lambda fold: (evaluation.balanced(recalls[fold][name]), -fold))]
            for name in self.classes
        }

    # -- measure -------------------------------------------------------------------------------

    def _record(
        self,
        index: CropIndex,
        training: _TrainingSet,
        outcomes: dict[int, NDArray[np.float32]],
        voting: dict[str, list[int]],
        increment: dict[str, Any],
    ) -> Round:
        config = self.config
        settings = result_settings(config)
        folds, human_folds, human_prob, human_labels = [], [], [], []
        for fold, prob in outcomes.items():
            here = self.fold_of == fold
            labels, human = training.labels[here], training.human[here]
            folds.append(evaluation.branch_recall(prob, labels, self.classes))
            human_folds.append(evaluation.branch_recall(prob[human], labels[human], self.classes))
            human_prob.append(prob[human])
            human_labels.append(labels[human])
        estimates = evaluation.expected_precision(
            np.concatenate(human_prob), np.concatenate(human_labels),
            len(self.classes), config.team.joint, config.quantile,
        )  # fmt: skip
        names = [*self.classes, "unknown"]
        sample = initial_rows(self.catalog.folder, index)
        # From the labels themselves: a person may go on where the oracle answered before.
        simulated = (index.human_source[training.rows] == "oracle").any()
        self.recall = {
            "validation": evaluation.mean_recall(folds),
            "human": evaluation.mean_recall(human_folds),
            "folds": [
                {"fold": fold, **recall} for fold, recall in zip(outcomes, folds, strict=True)
            ],
        }
        return {
            "schema": 1,
            "camera": config.camera.name,
            "round": self.number,
            "fingerprint": self.fingerprint,
            "classes": self.classes,
            "train_size": len(training.rows),
            "train_counts": {
                name: int((training.labels == (b if b < len(self.classes) else -1)).sum())
                for b, name in enumerate(names)
            },
            "train_unsure": int((index.unsure_round[training.rows] >= 0).sum()),
            "training_digest": training.digest,
            "reviewer": {
                "kind": "oracle" if simulated else "person",
                "error_rate": config.oracle_error if simulated else 0.0,
                "answers": int(index.verified()[sample].sum()),
            },
            "expected_precision": {
                name: {"share": share, "crops": count}
                for name, (share, count) in zip(self.classes, estimates, strict=True)
            },
            "increment": increment,
            "voting": voting,
            "settings": settings,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("collabteam", "torch", "lightning", "timm")},
            },
        }

    def _measure_pool(self, index: CropIndex, team: Team) -> Round:
        pool = index.pool(self._used(index))
        scores = PredictionStore(self.folder / "scores", self.fingerprint, self.classes)
        self._score(index, pool, scores, team, self.number)
        rows, prob = scores.of(index, pool)
        verdicts = vote(prob, self.config.team.joint)
        self.pool_rows, self.pool_verdict = rows, verdicts.branch
        share = evaluation.coverage(verdicts)
        return {
            "pool_size": len(rows),
            "coverage": share,
            "abstain_rate": None if share is None else 1 - share,
        }

    def _measure_test(self, index: CropIndex, team: Team) -> Round:
        unverified = np.flatnonzero(index.test & ~index.verified())
        if self.config.reviewer == "oracle" and unverified.size:
            # Without errors: a test set is what figures are measured against.
            self.catalog.append_labels(
                oracle_answers(self.catalog, index, unverified, 0.0, self.config.seed, "test")
            )
            index = self.catalog.index()
        elif unverified.size:
            self.listener.warn(
                f"{unverified.size} of the {index.test.sum()} crops of the frozen test set are not "
                "verified and left out: verify them with 'python -m collabteam.review "
                f"camera={self.catalog.name} queue=test', or ingest labels with labels=person"
            )
        rows = np.flatnonzero(index.test_set())
        blank: Round = {
            "test_size": len(rows), "coverage_test": None, "consensus_accuracy_test": None
        }  # fmt: skip
        self.test_recall: evaluation.Recall | None = None
        if not rows.size:
            return blank
        batches = list(team.score_rows(self.catalog, rows, self.config.trainer.score_batch_size))
        prob = np.concatenate(batches)
        labels = index.targets(rows, self.classes)
        verdicts = vote(prob, self.config.team.joint)
        self.test_recall = evaluation.branch_recall(prob, labels, self.classes)
        return blank | {
            "coverage_test": evaluation.coverage(verdicts),
            "consensus_accuracy_test": evaluation.consensus_accuracy(verdicts, labels),
        }

    def _measure_against_truth(
        self, index: CropIndex, training: _TrainingSet, increment: dict[str, Any]
    ) -> Round:
        """Label quality, where hidden truth is known; nothing here feeds back into the loop."""
        truth = read_truth(self.catalog)
        known = np.array([truth.get(str(crop_id), "") for crop_id in index.crop_id], dtype=object)
        new = index.increment_round == self.number
        rows = {}
        for name, row in increment.items():
            judged = new & (index.increment_label == name) & (known != "")
            right = known[judged] == name
            rows[name] = row | {"precision": float(right.mean()) if judged.any() else None}
        called = np.array([*self.classes, UNKNOWN], dtype=object)[training.labels]
        actual = known[training.rows]
        judged = actual != ""
        # A class that this team does not have is none of its classes.
        outside = ~np.isin(actual.astype(str), self.classes)
        wrong = np.where(outside, called != UNKNOWN, called != actual)[judged]
        scored = np.flatnonzero(np.isin(np.arange(len(known)), self.pool_rows))
        stranger = (known[scored] != "") & ~np.isin(known[scored].astype(str), self.classes)
        unknown = None
        taken = new & (known != "") & ~np.isin(known.astype(str), self.classes)
        if stranger.any() or taken.any():
            abstained = self.pool_verdict[stranger] == ABSTAIN
            unknown = {
                "pool": int(stranger.sum()),
                "abstain_rate": float(abstained.mean()) if stranger.any() else None,
                "increment": int(taken.sum()),
            }
        return {
            "recall": {**self.recall, "test": self.test_recall},
            "increment": rows,
            "label_noise": float(wrong.mean()) if judged.any() else None,
            "unknown": unknown,
        }

    # -- scores --------------------------------------------------------------------------------

    def _score_before(
        self, index: CropIndex, pool: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Votes of the team of the round before; crops that came since then are scored now."""
        before = self.done[-1]
        folder = round_folder(self.catalog.folder, self.number - 1)
        scores = PredictionStore(folder / "scores", before["fingerprint"], self.classes)
        if scores.missing(index.crop_id[pool]).any():
            # With the settings that it was trained with, which a rollback lets change.
            team = Team.load(folder, self.config.trainer)
            self._score(index, pool, scores, team, self.number - 1)
        return scores.of(index, pool)

    def _score(
        self,
        index: CropIndex,
        pool: NDArray[np.bool_],
        scores: PredictionStore,
        team: Team,
        number: int,
    ) -> None:
        scores.fill(
            self.catalog, index, np.flatnonzero(pool), team,
            self.config.trainer.score_batch_size, self.listener,
            f"round {number}, the team votes on {{}} crops",
        )  # fmt: skip

    def _prune(self, voting: dict[str, list[int]]) -> None:
        """Networks that neither vote nor start the next round are only in the way."""
        kept = {branch_file(self.folder, name, f) for name in voting for f in voting[name]}
        for file in (self.folder / "branches").glob("*.safetensors"):
            if file not in kept:
                file.unlink()

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began


def _peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def headline(record: Round) -> str:
    """One line on a finished round."""
    test = record["recall"]["test"]
    parts = [
        f"round {record['round']} of {record['camera']}: {record['train_size']} training crops"
    ]
    if test is not None:
        sides = [value for row in test.values() for value in row.values() if value is not None]
        parts.append(f"mean recall on the frozen test set {np.mean(sides):.1%}")
    if record["coverage"] is not None:
        parts.append(f"coverage {record['coverage']:.1%}")
    rates = [row["precision"] for row in record["increment"].values()]
    if rates and all(rate is not None for rate in rates):
        parts.append(f"increment right {min(rates):.1%} or better")
    return ", ".join(parts)
