"""What a person is asked to verify: queues of crops, each for a purpose of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.audits.audit import Record, command, open_audit, read_audit
from collabteam.catalog import Catalog, CropIndex, LabelEvent
from collabteam.catalog.records import seeded_hash
from collabteam.catalog.texts import TextColumn
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.reporting.table1 import read_rounds
from collabteam.rounds.initial import initial_rows
from collabteam.rounds.selection import draw
from collabteam.rounds.stages.sample import DrawSample
from collabteam.settings import UNKNOWN, ReviewConfig, TrainConfig
from collabteam.stages import Runner
from collabteam.storage.files import read_json
from collabteam.team.predictions import PredictionStore
from collabteam.team.voting import ABSTAIN, vote

TITLES = {
    "seed": "i0: what the team learns from",
    "test": "the frozen test set",
    "audit": "audit of the team's labels",
    "unsure": "what the team does not know",
    "conflict": "where reviewers disagree",
}
"""Every queue of the review page, by the purpose that its answers have in the log."""


@dataclass(frozen=True)
class Queue:
    """Crops to verify, in the order in which they are shown.

    Attributes:
        name: One of ``TITLES``.
        rows: Shape ``(Q,)``: row numbers of the catalog's index, each once.
        suggested: Q labels that are asked about, ``""`` where nothing is proposed.
        round: The round whose team is asked about, -1 for none.
        next: The command that follows when all are verified.
        since: Events that were in the log before; of ``audit``, what was said there does not count.
    """

    name: str
    rows: NDArray[np.int64]
    suggested: Sequence[str]
    round: int
    next: str
    since: int = 0


def prepare(catalog: Catalog, config: ReviewConfig, listener: Listener) -> None:
    """Draw what the queue ``config.queue`` needs, if it is not drawn yet.

    Args:
        catalog: The camera.
        config: The queue and the sizes of the draws.
        listener: For warnings.

    Raises:
        UserError: There is nothing to draw from; or another command holds the camera just now.
    """
    if config.queue == "seed" and not _initial_stands(catalog, config):
        wanted = TrainConfig(
            seed=config.seed,
            seed_per_class=_or(config.seed_per_class, TrainConfig.seed_per_class),
            seed_unknown=_or(config.seed_unknown, TrainConfig.seed_unknown),
        )
        with catalog.workspace.transaction("review"):
            Runner(listener).run(DrawSample(catalog, wanted))
    if config.queue == "test":
        with catalog.workspace.transaction("review"):
            _draw_test(catalog, config, listener)


def build(catalog: Catalog, index: CropIndex, name: str, config: ReviewConfig) -> Queue:
    """The crops of a queue as things stand, verified ones included where they count as done.

    Nothing is drawn or written; a queue whose draw was never made is empty.

    Args:
        catalog: The camera.
        index: Its crops.
        name: One of ``TITLES`` but ``conflict``, which the reviewers' words alone make.
        config: The sizes of the draws.

    Raises:
        UserError: Something that an earlier stage wrote is broken.
    """
    workspace = catalog.workspace
    round_, since, then = -1, 0, next_training(catalog)
    suggested: TextColumn | NDArray[np.object_] = index.proposed
    if name == "seed":
        rows = np.zeros(0, dtype=np.int64)
        if workspace.round(0).sample.exists():
            rows = initial_rows(workspace, index)
    elif name == "test":
        rows = np.flatnonzero(index.test)
    elif name == "audit" and (number := open_audit(workspace)):
        record = read_audit(workspace, number)
        rows, suggested = _frozen_sample(index, record)
        since, then = record["log_events"], command(record)
    elif name == "audit":
        suggested, rows = index.increment_label, _audit_rows(index, config)
        then = f"python -m collabteam.report camera={catalog.name}"
    else:
        rows, suggested, round_ = _unsure(catalog, index)
        return Queue(name, rows, [str(suggested[row]) for row in rows], round_, then)
    rows = _by_class(rows, suggested, catalog.classes, [config.seed, *name.encode()])
    return Queue(name, rows, [str(suggested[row]) for row in rows], round_, then, since)


def next_training(catalog: Catalog) -> str:
    """The command that trains on what was verified.

    Raises:
        UserError: A round's record or the draw of i0 is broken.
    """
    done = len(read_rounds(catalog.workspace))
    command = f"python -m collabteam.train camera={catalog.name} round={done}"
    file = catalog.workspace.round(0).sample
    if not done and file.exists():
        # All of them, since an experiment may ask for others: else i0 would be drawn anew.
        drawn = read_json(file)
        command += f" seed={drawn['seed']}" if drawn["seed"] else ""
        command += f" seed_per_class={drawn['seed_per_class']} seed_unknown={drawn['seed_unknown']}"
    return command


def why_empty(name: str, camera: str) -> str:
    """Why a queue may have no crops, and what brings some.

    Args:
        name: One of ``TITLES``.
        camera: The camera's name.
    """
    return {
        "seed": "i0 is not drawn yet, or there are no crops: "
        f"'python -m collabteam.review camera={camera} queue=seed' draws it",
        "test": "no test set is drawn yet: "
        f"'python -m collabteam.review camera={camera} queue=test' draws one",
        "audit": "no team has labelled a crop yet: "
        f"'python -m collabteam.train camera={camera} round=1' and 'collabteam.label' do",
        "unsure": "no team has voted yet: "
        f"'python -m collabteam.train camera={camera} round=0' makes one",
        "conflict": "no two reviewers differ; double=0.1 lets a second one verify a tenth again",
    }[name]


# -- i0 ----------------------------------------------------------------------------------------


def _initial_stands(catalog: Catalog, config: ReviewConfig) -> bool:
    """Whether there is a draw of i0 that serves: training's own, unless this one asks for more."""
    file = catalog.workspace.round(0).sample
    if not file.exists():
        return False
    if catalog.workspace.round(0).record.exists():
        return True
    drawn = read_json(file)
    return drawn["reviewer"] == "person" and all(
        asked is None or asked == drawn[name]
        for name, asked in (
            ("seed_per_class", config.seed_per_class), ("seed_unknown", config.seed_unknown)
        )
    )  # fmt: skip


# -- the frozen test set -----------------------------------------------------------------------


def _draw_test(catalog: Catalog, config: ReviewConfig, listener: Listener) -> None:
    """Set crops apart for good, until there are ``test_per_class`` of each proposed class.

    One crop of a track, and of no track that trains, trained, or may train because a person
    verified it.
    """
    index = catalog.index()
    trains = (index.increment_round >= 0) | index.verified()
    if catalog.workspace.round(0).sample.exists():
        trains[initial_rows(catalog.workspace, index)] = True
    free = ~index.held_out & ~np.isin(index.track_code, index.track_code[trains])
    events: list[LabelEvent] = []
    present = [*catalog.classes, UNKNOWN, ""]
    if not (index.proposed == "").all():
        present.remove("")  # what no detector proposed stays out while others can be chosen
    for number, name in enumerate(present):
        of_class = index.proposed == name
        there = len(np.unique(index.track_code[of_class & index.test]))
        rng = np.random.default_rng([config.seed, *b"test", number])
        wanted = config.test_per_class * (len(catalog.classes) if name == "" else 1)
        # For good: what a small camera gives here can never train.
        most = len(np.unique(index.track_code[of_class])) // 2
        if name in catalog.classes and there < wanted and wanted > most:
            raise UserError(
                f"test_per_class={config.test_per_class} would take more than half of the "
                f"{name} objects of camera {catalog.name} out of training for good: "
                f"ingest more crops, or set test_per_class={max(1, most // 2)}"
            )
        wanted = min(wanted, max(there, most))
        taken = draw(np.flatnonzero(free & of_class), index.track_code, max(0, wanted - there), rng)
        if name in catalog.classes and there + len(taken) < wanted:
            listener.warn(
                f"class {name}: {there + len(taken)} objects in the test set instead of "
                f"test_per_class={wanted}; the camera has no more that did not train"
            )
        free &= ~np.isin(index.track_code, index.track_code[taken])
        events += [
            LabelEvent(str(crop_id), "", source="ingest", purpose="test")
            for crop_id in index.crop_id[taken]
        ]
    catalog.append_labels(events)


# -- what the team said ------------------------------------------------------------------------


def _frozen_sample(
    index: CropIndex, record: Record
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """The sample of an audit that was begun: its rows, and every row's label as it was frozen."""
    drawn = {crop: name for name, row in record["classes"].items() for crop in row["sample"]}
    rows = index.crop_id.find(list(drawn))
    suggested = np.full(len(index), "", dtype=object)
    suggested[rows[rows >= 0]] = np.array(list(drawn.values()), dtype=object)[rows >= 0]
    return np.flatnonzero(suggested != ""), suggested


def _audit_rows(index: CropIndex, config: ReviewConfig) -> NDArray[np.int64]:
    """A simple random sample, per class, of the crops that a team labelled.

    Crops are ordered by a seeded hash of their names and the first ones are taken, so a crop that
    was audited before the team labelled more is still the sample's if chance has it so.
    """
    chosen = []
    of_team = (index.increment_round >= 0) & ~index.held_out
    for name in np.unique(index.increment_label[of_team]):
        rows = np.flatnonzero(of_team & (index.increment_label == name))
        ranks = np.array([seeded_hash(str(index.crop_id[row]), config.seed) for row in rows])
        chosen.append(rows[np.argsort(ranks)[: config.audit_per_class]])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def _unsure(
    catalog: Catalog, index: CropIndex
) -> tuple[NDArray[np.int64], NDArray[np.object_], int]:
    """Where the last team abstained: rows, most informative first, and its leading guess.

    How informative a crop is: the sum of the entropies of the branches' probabilities (uncertainty
    sampling, Settles 2009, section 3.1). One crop of a track, the most informative one.
    """
    suggested = np.full(len(index), "", dtype=object)
    records = read_rounds(catalog.workspace)
    nothing = np.zeros(0, dtype=np.int64)
    if not records:
        return nothing, suggested, -1
    number = len(records) - 1
    folder = catalog.workspace.round(number).scores()
    if not folder.exists():
        return nothing, suggested, number
    scores = PredictionStore(folder, records[-1]["fingerprint"], records[-1]["classes"], index)
    rows = np.flatnonzero(index.trainable())
    prob_NB = scores.of(rows)
    scored = ~np.isnan(prob_NB).any(axis=1)
    rows, prob_NB = rows[scored], prob_NB[scored].astype(np.float64)
    abstains = vote(prob_NB).branch == ABSTAIN if len(rows) else np.zeros(0, dtype=bool)
    rows, prob_NB = rows[abstains], prob_NB[abstains]
    clipped = prob_NB.clip(1e-7, 1 - 1e-7)
    entropy = -(clipped * np.log(clipped) + (1 - clipped) * np.log(1 - clipped)).sum(axis=1)
    classes = np.array(records[-1]["classes"], dtype=object)
    suggested[rows] = classes[prob_NB.argmax(axis=1)]
    order = np.lexsort((index.crop_id[rows].astype(str), -entropy))
    rows = rows[order]
    # What was verified as unsure stays, as done; of tracks that a person knows or that train,
    # nothing.
    settled = (index.verified() & (index.unsure_round < 0)) | (index.increment_round >= 0)
    known = np.isin(index.track_code[rows], index.track_code[settled])
    rows = rows[~known]
    done = index.verified()[rows]
    rows = np.concatenate([rows[done], rows[~done]])
    _, first = np.unique(index.track_code[rows], return_index=True)
    return rows[np.sort(first)], suggested, number


# -- order -------------------------------------------------------------------------------------


def _by_class(
    rows: NDArray[np.int64],
    suggested: TextColumn | NDArray[np.object_],
    classes: list[str],
    seed: list[int],
) -> NDArray[np.int64]:
    """Class by class, because a page asks about one; shuffled within, so that tracks scatter."""
    rank = {name: number for number, name in enumerate([*classes, UNKNOWN])}
    ranks = np.array([rank.get(str(name), len(rank)) for name in suggested[rows]], dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    return rows[np.lexsort((shuffled, ranks))]


def share_of(crop_id: str, share: float, seed: int) -> bool:
    """Whether a crop belongs to a random share of all crops, the same at every call.

    Args:
        crop_id: The crop.
        share: 0 to 1.
        seed: Of the draw.
    """
    return seeded_hash(crop_id, seed) < share * 2.0**64


def _or(asked: int | None, default: int) -> int:
    return default if asked is None else asked
