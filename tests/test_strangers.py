"""Objects of no class: their head, the distance to the classes, and what neither may see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from collabteam.catalog.records import NONE
from collabteam.features.devices import Device
from collabteam.learners.base import FitEnvironment, FoldTask
from collabteam.learners.methods.probe import FEWEST_UNKNOWN, ProbeLearner
from collabteam.learners.strangers import BEYOND, fit_distance
from collabteam.settings.records import result_settings
from collabteam.team.team import MultiLabel, OneVsRestHeads
from collabteam.testing.learners import check_learner, draw_task, small_settings

DIM = 24


class Table:
    """Features by row, which keeps the rows that were asked for."""

    digest = "table"

    def __init__(self, vectors: Tensor) -> None:
        self.vectors, self.asked = vectors, set[int]()

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        self.asked |= set(rows.tolist())
        return self.vectors[torch.from_numpy(rows)]


def clusters(count: int, seed: int, kinds: int = 4) -> tuple[Tensor, NDArray[np.int64]]:
    """Features of ``count`` crops around the centres of classes 0, 1, and so on."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(kinds, DIM, generator=torch.Generator().manual_seed(99))
    kind = np.arange(count) % kinds
    return centres[torch.from_numpy(kind)] + torch.randn(count, DIM, generator=generator), kind


def task(strangers: bool = True, seed: int = 0) -> tuple[FoldTask, ProbeLearner, Table]:
    """Three classes; crops of a fourth kind are verified as none of them, if ``strangers``."""
    learner = ProbeLearner(ProbeLearner.Settings(strangers="distance"), small_settings("features"))
    vectors, kind = clusters(480, seed)
    drawn = draw_task(learner, crops=480)
    labels = np.where(kind == 3, NONE, kind)
    kept = np.flatnonzero((kind < 3) | strangers)
    table = Table(vectors)
    return (
        replace(
            drawn, rows=kept, labels=labels[kept], folds=(kept // 4) % 5, fold=2,
            weights=np.ones(len(kept), np.float32), human=np.ones(len(kept), bool),
            features=table,
        ),
        learner,
        table,
    )  # fmt: skip


def fit(learner: ProbeLearner, one: FoldTask, tmp_path: Path) -> Any:
    env = FitEnvironment(Device(torch.device("cpu"), bf16=False), tmp_path)
    return learner.fit(one, env)[0]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-30, 30)] * 2, *[st.floats(-30, 30)] * 2), min_size=1, max_size=20
    )
)
def test_doubt_lowers_every_class_and_changes_no_order(rows: list[tuple[float, ...]]) -> None:
    outputs = torch.tensor(rows)
    voter = MultiLabel(nn.Identity(), (0, 1))
    plain = voter.probabilities(outputs[:, :2])
    assert torch.equal(plain, outputs[:, :2].sigmoid())
    doubted = voter.probabilities(outputs)
    assert ((doubted >= 0) & (doubted <= plain)).all()
    assert ((plain[:, 0] < plain[:, 1]) | (doubted[:, 0] >= doubted[:, 1])).all()
    more = voter.probabilities(torch.cat([outputs[:, :3], outputs[:, 3:] + 1], dim=1))
    assert (more <= doubted).all()


def test_a_share_of_new_crops_of_the_classes_and_all_others_lie_beyond_the_limit() -> None:
    vectors, kind = clusters(1200, 1)
    known = torch.from_numpy(kind < 3)
    folds = np.arange(1200) // 4 % 4
    weights = torch.ones(int(known.sum()))
    found = fit_distance(vectors[known], kind[kind < 3], weights, folds[kind < 3], 3)
    assert found is not None
    later, kind = clusters(4000, 2)
    beyond = found(later)[:, 0].numpy() > 0
    assert beyond[kind < 3].mean() == pytest.approx(BEYOND, abs=0.015)
    assert beyond[kind == 3].all()


def test_a_crop_of_half_the_weight_counts_half() -> None:
    vectors, kind = clusters(160, 1, kinds=2)
    folds = np.arange(160) // 2 % 4
    once = fit_distance(vectors, kind, torch.ones(160), folds, 2)
    twice = fit_distance(
        torch.cat([vectors, vectors]), np.tile(kind, 2), torch.full((320,), 0.5),
        np.tile(folds, 2), 2,
    )  # fmt: skip
    assert once is not None
    assert twice is not None
    later, _ = clusters(100, 2)
    torch.testing.assert_close(once(later), twice(later), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("folds", [np.zeros(8, np.int64), np.arange(8)])
def test_too_few_or_equal_crops_give_no_distance(folds: NDArray[np.int64]) -> None:
    same = torch.ones(8, DIM)
    assert fit_distance(same, np.arange(8) % 2, torch.ones(8), folds, 2) is None


def test_strangers_that_nobody_verified_get_no_class(tmp_path: Path) -> None:
    one, learner, _ = task(strangers=False)
    voter = fit(learner, one, tmp_path)
    later, kind = clusters(800, 5)
    prob = voter(later).detach().numpy()
    plain = voter.network.heads(later)[:, :3].sigmoid().detach().numpy()
    assert ((prob > 0.5).sum(axis=1) == 0)[kind == 3].mean() > 0.95
    assert ((plain > 0.5).sum(axis=1) == 0)[kind == 3].mean() < 0.9
    assert ((prob > 0.5).argmax(axis=1) == kind)[kind < 3].mean() > 0.95


def test_neither_the_validation_fold_nor_other_crops_reach_the_distances(tmp_path: Path) -> None:
    one, learner, table = task()
    voter = fit(learner, one, tmp_path)
    assert table.asked == set(one.rows[one.trains].tolist())
    # Whatever the crops of the validation fold look like and are called, the voter is the same.
    other = table.vectors.clone()
    hidden = one.rows[one.validates]
    other[torch.from_numpy(hidden)] = 100 * torch.randn(len(hidden), DIM)
    labels = np.where(one.validates, NONE, one.labels)
    again = fit(learner, replace(one, labels=labels, features=Table(other)), tmp_path)
    for name, tensor in voter.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_labels_of_a_team_do_not_move_the_distances(tmp_path: Path) -> None:
    one, learner, _ = task(strangers=False)
    # A team took objects of no class for the first class.
    taken = np.arange(3, 480, 4)
    more = replace(
        one,
        rows=np.concatenate([one.rows, taken]),
        labels=np.concatenate([one.labels, np.zeros(len(taken), np.int64)]),
        weights=np.ones(480, np.float32),
        human=np.arange(480) < len(one.rows),
        folds=np.concatenate([one.folds, taken // 4 % 5]),
    )
    alone, with_team = fit(learner, one, tmp_path), fit(learner, more, tmp_path)
    for name, tensor in alone.network.distance.state_dict().items():
        assert torch.equal(tensor, with_team.network.distance.state_dict()[name]), name


@pytest.mark.parametrize("count", [FEWEST_UNKNOWN - 1, FEWEST_UNKNOWN])
def test_a_head_for_none_needs_some_verified_crops(tmp_path: Path, count: int) -> None:
    one, _, _ = task()
    learner = ProbeLearner(ProbeLearner.Settings(strangers="none"), small_settings("features"))
    keep = one.labels != NONE
    keep[np.flatnonzero(one.trains & (one.labels == NONE))[:count]] = True
    fewer = replace(
        one, rows=one.rows[keep], labels=one.labels[keep], folds=one.folds[keep],
        weights=one.weights[keep], human=one.human[keep],
    )  # fmt: skip
    head = fit(learner, fewer, tmp_path).network.weight[-1]
    assert bool((head != 0).any()) == (count >= FEWEST_UNKNOWN)


def test_without_the_setting_voters_and_records_are_as_before() -> None:
    voter = OneVsRestHeads(DIM, (0, 1))
    assert {name: tuple(one.shape) for name, one in voter.network.state_dict().items()} == {
        "weight": (2, DIM), "bias": (2,),
    }  # fmt: skip
    assert result_settings(ProbeLearner.Settings()) == {"penalty": 0.0}
    assert result_settings(ProbeLearner.Settings(strangers="none"))["strangers"] == "none"


def test_a_learner_with_distances_conforms() -> None:
    check_learner(ProbeLearner, ProbeLearner.Settings(strangers="distance"))
