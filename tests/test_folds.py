"""Folds: whole tracks, kept for good, and even."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from collabteam.errors import UserError
from collabteam.learners.folds import assign_folds

# Label and number of crops of each track.
TRACKS = st.lists(st.tuples(st.integers(-1, 2), st.integers(1, 6)), min_size=1, max_size=40)


def _crops(
    tracks: list[tuple[int, int]], shuffle: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    labels = np.array([label for label, size in tracks for _ in range(size)], dtype=np.int64)
    names = np.array([f"t{n}" for n, (_, size) in enumerate(tracks) for _ in range(size)])
    order = np.random.default_rng(shuffle).permutation(len(labels))
    return labels[order], names[order]


def _known(names: NDArray[np.str_], folds: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(map(str, names), folds.tolist(), strict=True))


@settings(deadline=None)
@given(TRACKS, st.integers(2, 6), st.integers(0, 3))
def test_a_track_never_straddles_folds(
    tracks: list[tuple[int, int]], count: int, seed: int
) -> None:
    labels, names = _crops(tracks)
    folds = assign_folds(labels, names, count, seed)
    assert folds.shape == labels.shape
    assert ((folds >= 0) & (folds < count)).all()
    for name in set(names):
        assert len(set(folds[names == name])) == 1
    assert len(set(folds)) == min(count, len(tracks))  # none stays empty for no reason


@settings(deadline=None)
@given(TRACKS, TRACKS, st.integers(2, 6), st.integers(0, 3))
def test_a_track_keeps_its_fold_when_the_set_grows(
    tracks: list[tuple[int, int]], more: list[tuple[int, int]], count: int, seed: int
) -> None:
    labels, names = _crops(tracks)
    known = _known(names, assign_folds(labels, names, count, seed))
    grown_labels, grown_names = _crops(tracks + more, shuffle=1)
    grown = _known(grown_names, assign_folds(grown_labels, grown_names, count, seed + 1, known))
    assert {name: grown[name] for name in known} == known
    assert set(grown.values()) <= set(range(count))


@settings(deadline=None)
@given(TRACKS, st.integers(2, 6), st.integers(0, 3))
def test_the_order_of_the_crops_does_not_matter(
    tracks: list[tuple[int, int]], count: int, seed: int
) -> None:
    labels, names = _crops(tracks)
    first = _known(names, assign_folds(labels, names, count, seed))
    labels, names = _crops(tracks, shuffle=1)
    assert _known(names, assign_folds(labels, names, count, seed)) == first
    assert _known(names, assign_folds(labels, names.tolist(), count, seed)) == first


@settings(deadline=None)
@given(st.lists(st.integers(-1, 2), min_size=1, max_size=80), st.integers(2, 6))
def test_single_crops_are_dealt_evenly(single: list[int], count: int) -> None:
    labels, names = _crops([(label, 1) for label in single])
    folds = assign_folds(labels, names, count, 0)
    for label in set(single):
        per_fold = np.bincount(folds[labels == label], minlength=count)
        assert np.ptp(per_fold) <= 1
    assert np.ptp(np.bincount(folds, minlength=count)) <= len(set(single))


@settings(deadline=None)
@given(TRACKS, st.integers(2, 6))
def test_tracks_of_many_sizes_differ_by_one_track_at_most(
    tracks: list[tuple[int, int]], count: int
) -> None:
    labels, names = _crops(tracks)
    folds = assign_folds(labels, names, count, 0)
    for label in {label for label, _ in tracks}:
        largest = max(size for kind, size in tracks if kind == label)
        assert np.ptp(np.bincount(folds[labels == label], minlength=count)) <= largest


def test_the_largest_tracks_are_dealt_first() -> None:
    labels, names = _crops([(0, 1)] * 10 + [(0, 10)])
    for seed in range(5):
        assert np.bincount(assign_folds(labels, names, 2, seed)).tolist() == [10, 10]


def test_growth_evens_out_what_was_uneven() -> None:
    old = {f"t{n}": 0 for n in range(10)}
    labels, names = _crops([(0, 1)] * 50)
    folds = assign_folds(labels, names, 5, 0, old)
    assert np.bincount(folds).tolist() == [10] * 5


def test_the_seed_decides_who_goes_where() -> None:
    labels, names = _crops([(0, 1)] * 60)
    dealt = {tuple(assign_folds(labels, names, 5, seed)) for seed in range(4)}
    assert len(dealt) == 4


def test_fewer_folds_than_before_is_refused() -> None:
    labels, names = _crops([(0, 1)] * 10)
    known = {"t1": 4}
    with pytest.raises(UserError, match=r"data\.folds=3.*at least 5"):
        assign_folds(labels, names, 3, 0, known)
