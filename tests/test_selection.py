"""Which crops join: candidates, the draw of an increment, and i0."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from collabteam.rounds.selection import draw, sample_initial
from collabteam.rounds.selection_rules.quantile import Quantile
from collabteam.team.voting import ABSTAIN, Verdicts

CLASSES = 3


def _verdicts(pairs: list[tuple[int, float]]) -> Verdicts:
    return Verdicts(
        np.array([branch for branch, _ in pairs], dtype=np.int64),
        np.array([confidence for _, confidence in pairs], dtype=np.float64),
    )


# Few distinct confidences, so that ties are the rule.
PAIRS = st.lists(
    st.tuples(
        st.integers(ABSTAIN, CLASSES - 1),
        st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]) | st.floats(0.125, 1),
    ),
    max_size=60,
)


# -- candidates ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(PAIRS, st.floats(0, 1))
def test_candidates_are_the_top_of_their_own_class(
    pairs: list[tuple[int, float]], quantile: float
) -> None:
    for branch in range(CLASSES):
        positions = Quantile(quantile=quantile).candidates(_verdicts(pairs), branch)
        own = sorted(c for b, c in pairs if b == branch)
        if not own:
            assert positions.size == 0
            continue
        assert positions.size >= 1
        threshold = min(pairs[place][1] for place in positions)
        assert positions.tolist() == sorted(positions.tolist())
        # Every crop of the class at the threshold or above it, ties included, and no other.
        assert positions.tolist() == [
            place for place, (b, c) in enumerate(pairs) if b == branch and c >= threshold
        ]
        # No more of the class below the threshold than the quantile asks for.
        below = sum(c < threshold for c in own)
        assert below <= math.ceil(quantile * (len(own) - 1) + 1e-9)
        assert sum(c <= threshold for c in own) >= quantile * (len(own) - 1)


def test_a_quarter_without_ties() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.permutation(np.linspace(0.2, 0.9, 1000))
    verdicts = Verdicts(np.zeros(1000, dtype=np.int64), confidence)
    positions = Quantile().candidates(verdicts, 0)
    assert len(positions) in (249, 250, 251)
    assert set(positions) == set(np.argsort(-confidence)[: len(positions)])


def test_the_quantile_is_of_the_class_and_not_of_all() -> None:
    verdicts = _verdicts([(0, 0.90 + n / 1000) for n in range(80)] + [(1, 0.3)] * 4)
    assert len(Quantile().candidates(verdicts, 1)) == 4
    assert len(Quantile().candidates(verdicts, 0)) == 20


def test_quantile_0_is_all_and_1_the_ties_of_the_maximum() -> None:
    verdicts = _verdicts([(0, 0.5), (0, 0.9), (1, 1.0), (0, 0.9), (0, 0.8), (ABSTAIN, 0.95)])
    assert Quantile(quantile=0.0).candidates(verdicts, 0).tolist() == [0, 1, 3, 4]
    assert Quantile(quantile=1.0).candidates(verdicts, 0).tolist() == [1, 3]


def test_ties_at_the_quantile_are_all_kept() -> None:
    verdicts = _verdicts([(0, 0.7)] * 9 + [(0, 0.6)])
    assert len(Quantile(quantile=0.75).candidates(verdicts, 0)) == 9


# -- draw ------------------------------------------------------------------------------------------

POOL = st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=50)


@settings(deadline=None)
@given(POOL, st.integers(0, 20), st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_draw_is_a_seeded_subset_with_one_crop_of_a_track(
    pool: list[tuple[int, bool]], count: int, seed: int, random: object
) -> None:
    tracks = np.array([f"t{track}" for track, _ in pool], dtype=np.str_)
    given_positions = [place for place, (_, offered) in enumerate(pool) if offered]
    taken = draw(
        np.array(given_positions, dtype=np.int64), tracks, count, np.random.default_rng(seed)
    )
    assert set(taken) <= set(given_positions)
    assert taken.tolist() == sorted(set(taken.tolist()))
    assert len(set(tracks[taken])) == len(taken)
    assert len(taken) == min(count, len(set(tracks[given_positions])))
    random.shuffle(given_positions)  # type: ignore[attr-defined]
    again = draw(
        np.array(given_positions, dtype=np.int64), tracks, count, np.random.default_rng(seed)
    )
    assert again.tolist() == taken.tolist()


def _chi_square(counts: NDArray[np.int64]) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def test_every_crop_and_every_track_has_the_same_chance() -> None:
    alone = np.array([f"t{n}" for n in range(20)])
    positions = np.arange(20)
    counts = np.zeros(20, dtype=np.int64)
    for seed in range(600):
        counts[draw(positions, alone, 5, np.random.default_rng(seed))] += 1
    assert counts.sum() == 3000
    assert _chi_square(counts) < 50  # 19 degrees of freedom: beyond 1 in 10,000

    pairs = np.repeat(np.array([f"t{n}" for n in range(5)]), 2)
    within = np.zeros(10, dtype=np.int64)
    for seed in range(600):
        within[draw(np.arange(10), pairs, 5, np.random.default_rng(seed))] += 1
    assert within.sum() == 3000
    assert _chi_square(within) < 34  # 9 degrees of freedom


# -- select ----------------------------------------------------------------------------------------

TRACKED = st.lists(
    st.tuples(
        st.integers(ABSTAIN, CLASSES - 1), st.sampled_from([0.5, 0.7, 0.9]), st.integers(0, 15)
    ),
    max_size=60,
)


@settings(deadline=None)
@given(TRACKED, st.integers(0, 8), st.sampled_from([0.0, 0.5, 0.75, 1.0]), st.integers(0, 3))
def test_an_increment_keeps_its_promises(
    rows: list[tuple[int, float, int]], count: int, quantile: float, seed: int
) -> None:
    verdicts = _verdicts([(branch, confidence) for branch, confidence, _ in rows])
    tracks = np.array([f"t{track}" for *_, track in rows], dtype=np.str_)
    rule = Quantile(quantile=quantile)
    increments = rule.select(verdicts, tracks, CLASSES, count, seed)
    assert len(increments) == CLASSES

    offered = [rule.candidates(verdicts, branch) for branch in range(CLASSES)]
    claims = [set(tracks[positions]) for positions in offered]
    for branch, increment in enumerate(increments):
        others = set().union(*(claims[b] for b in range(CLASSES) if b != branch))
        clear = {p for p in offered[branch].tolist() if tracks[p] not in others}
        assert set(increment.taken.tolist()) <= clear
        assert (verdicts.branch[increment.taken] == branch).all()
        assert increment.candidates == len(clear)
        assert increment.shortfall == count - len(increment.taken)
        assert len(increment.taken) == min(count, len({tracks[p] for p in clear}))
    taken = np.concatenate([increment.taken for increment in increments])
    assert len(set(tracks[taken])) == len(taken)  # no crop, and no object, in two classes
    assert (verdicts.branch[taken] != ABSTAIN).all()

    again = rule.select(verdicts, tracks, CLASSES, count, seed)
    assert [i.taken.tolist() for i in again] == [i.taken.tolist() for i in increments]


def test_a_disputed_track_belongs_to_neither_class() -> None:
    verdicts = _verdicts([(0, 0.9), (1, 0.9), (0, 0.9), (1, 0.9)])
    first, second = Quantile().select(verdicts, ["both", "both", "a", "b"], 2, 5)
    assert first.taken.tolist() == [2]
    assert second.taken.tolist() == [3]
    assert (first.candidates, first.shortfall) == (1, 4)


def test_a_class_without_consensus_gives_nothing() -> None:
    verdicts = _verdicts([(0, 0.9), (ABSTAIN, 1.0)])
    _, empty = Quantile().select(verdicts, ["a", "b"], 2, 7)
    assert (empty.taken.size, empty.candidates, empty.shortfall) == (0, 0, 7)


def test_what_is_excluded_does_not_count() -> None:
    verdicts = _verdicts([(0, 0.9), (0, 0.8), (0, 0.7), (1, 0.9)])
    excluded = np.array([True, False, False, False])
    first, second = Quantile().select(verdicts, ["a", "b", "c", "a"], 2, 5, excluded=excluded)
    assert first.taken.tolist() == [1]  # the quantile is of the others
    assert second.taken.tolist() == [3]
    assert verdicts.branch.tolist() == [0, 0, 0, 1]


def test_an_empty_pool_gives_nothing() -> None:
    for increment in Quantile().select(_verdicts([]), [], 2, 3):
        assert (increment.taken.size, increment.shortfall) == (0, 3)


def test_each_seed_and_each_class_draws_its_own_way() -> None:
    verdicts = _verdicts([(n % 2, 0.9) for n in range(200)])
    tracks = [f"t{n}" for n in range(200)]
    draws = {
        tuple((increment.taken // 2).tolist())
        for seed in ([0, 1], [0, 2], [1, 1])
        for increment in Quantile().select(verdicts, tracks, 2, 10, seed=seed)
    }
    assert len(draws) == 6


# -- i0 --------------------------------------------------------------------------------------------

NAMES = ["walker", "rider"]
STRATA = st.lists(
    st.tuples(st.sampled_from([*NAMES, "car", ""]), st.booleans(), st.integers(0, 6)),
    max_size=30,
)


def _columns(
    rows: list[tuple[str, bool, int]],
) -> tuple[NDArray[np.str_], NDArray[np.bool_], NDArray[np.str_]]:
    return (
        np.array([name for name, _, _ in rows], dtype=np.str_),
        np.array([verified for _, verified, _ in rows], dtype=np.bool_),
        np.array([f"t{track}" for *_, track in rows], dtype=np.str_),
    )


@settings(deadline=None, max_examples=300)
@given(STRATA, st.integers(0, 8), st.integers(0, 3))
def test_i0_keeps_its_promises(rows: list[tuple[str, bool, int]], count: int, seed: int) -> None:
    strata, verified, tracks = _columns(rows)
    chosen = sample_initial(strata, verified, tracks, NAMES, count, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    again = sample_initial(strata, verified, tracks, NAMES, count, seed)
    assert again.tolist() == chosen.tolist()

    groups = [(np.flatnonzero(strata == name), count) for name in NAMES]
    if not any(group.size for group, _ in groups):
        groups = [(np.flatnonzero(strata == ""), count * len(NAMES))]
    assert set(chosen) <= {place for group, _ in groups for place in group}
    for group, wanted in groups:
        taken = np.intersect1d(chosen, group)
        assert len(taken) == min(wanted, len(group))
        known, fresh = taken[verified[taken]], taken[~verified[taken]]
        all_known = group[verified[group]]
        # No click is asked for twice: new crops come in when the verified ones are used up.
        assert len(known) == min(wanted, len(all_known))
        assert len(set(tracks[known])) == min(len(known), len(set(tracks[all_known])))
        # A second crop of an object comes in when there is no further object.
        if len(known) == len(all_known):
            unseen = set(tracks[group]) - set(tracks[known])
            new = set(tracks[fresh]) - set(tracks[known])
            assert len(new) == min(len(fresh), len(unseen))


def test_an_object_that_is_verified_already_waits_behind_new_objects() -> None:
    strata = np.array(["walker"] * 4)
    verified = np.array([True, False, False, False])
    tracks = np.array(["a", "a", "a", "b"])
    for seed in range(20):
        assert sample_initial(strata, verified, tracks, NAMES, 2, seed).tolist() == [0, 3]


def test_verified_crops_are_of_many_objects_first() -> None:
    strata = np.array(["walker"] * 6)
    verified = np.array([True, True, False, False, True, False])
    tracks = np.array(["a", "a", "a", "a", "b", "b"])
    for seed in range(20):
        chosen = sample_initial(strata, verified, tracks, NAMES, 2, seed)
        assert verified[chosen].all()
        assert set(tracks[chosen]) == {"a", "b"}


def test_each_class_of_i0_is_sampled_at_random() -> None:
    strata = np.array(["walker", "rider"] * 100)
    tracks = np.array([f"t{n}" for n in range(200)])
    verified = np.zeros(200, dtype=bool)
    draws = {
        tuple((chosen[strata[chosen] == name] // 2).tolist())
        for seed in (0, 1, [0, 5])
        for chosen in [sample_initial(strata, verified, tracks, NAMES, 10, seed)]
        for name in NAMES
    }
    assert len(draws) == 6
    assert all(len(places) == 10 for places in draws)


def test_i0_falls_back_to_crops_that_nobody_proposed() -> None:
    strata = np.array([""] * 30 + ["car"] * 5, dtype="U8")
    tracks = np.array([f"t{n}" for n in range(35)])
    chosen = sample_initial(strata, np.zeros(35, dtype=bool), tracks, NAMES, 4)
    assert len(chosen) == 8
    assert (strata[chosen] == "").all()
    strata[33] = "walker"
    assert sample_initial(strata, np.zeros(35, dtype=bool), tracks, NAMES, 4).tolist() == [33]


def test_verified_strangers_come_along_and_proposed_ones_where_asked_for() -> None:
    strata = np.array(["a"] * 4 + ["b"] * 4 + ["unknown"] * 6, dtype=object)
    verified = np.zeros(14, dtype=bool)
    verified[8:11] = True
    tracks = np.arange(14)
    taken = sample_initial(strata, verified, tracks, ["a", "b"], 4, seed=0)
    assert taken.tolist() == [*range(8), 8, 9, 10]
    assert (strata[sample_initial(strata, verified, tracks, ["a", "b"], 2)] == "unknown").sum() == 2
    for wanted, count in ((2, 3), (5, 5), (9, 6)):
        taken = sample_initial(strata, verified, tracks, ["a", "b"], 4, 0, unknown=wanted)
        assert taken[:8].tolist() == [*range(8)]
        assert len(taken) == 8 + count
        assert {8, 9, 10} <= set(taken.tolist())  # the verified ones first
    few = {
        tuple(sample_initial(strata, verified & False, tracks, ["a", "b"], 4, seed, 2)[8:].tolist())
        for seed in range(20)
    }
    assert len(few) > 1
