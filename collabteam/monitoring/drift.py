"""Drift: is new footage labelled less confidently than the crops that the team learned from?

The test uses only the team's own verdicts, so the warning needs no verification by people.

**Which objects.** One crop of each track: crops of one object are near copies. The *stretch* is
everything after the last crop that trained the team; if either side of that crop has too few
objects, it is the newest tenth by time. The *reference* is everything before the stretch that the
same team labelled. The choice of the tracks in it matters more than the statistic:

- Tracks with a crop that a person verified are left out. Their crops trained the team, or are near
  copies of crops that did, so the team is overconfident on them. i0 is drawn at random by proposed
  class, so the remaining tracks differ only in the mix of classes and the lengths of tracks (a long
  track is drawn more often), and both are strata of the test. An audit is a random draw that trains
  no team: its crops stay.
- Increments stay although they trained: they were drawn *because* the team was confident, and
  leaving them out would make any new footage look more confident than the rest. Training on them
  raises their confidence a little; ``benchmarks/drift.py`` measures the false alarms that this
  causes.
- Crops that a person verified because the team was unsure (``queue=unsure``) count as "I don't
  know".

**Which statistic.** The stratified rank-sum test of van Elteren (1960, Bulletin de l'Institut
International de Statistique 37), one-sided: among objects of one proposed class and length of
track, are new ones ranked lower? So neither a changed mix of classes nor longer tracks alone is an
alarm. "I don't know" ranks below every label and ties with itself, because its confidence has no
direction (it is high both for a confident "none of these" and for two confident claims).

**When it is an alarm.** At ``p < ALPHA`` *and* a difference of ``LEAST_EFFECT``: with ten thousand
objects, the bias from the increments would be significant, too. ALPHA holds for one look; daily
looks at the same reference are many looks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import CropIndex
from collabteam.machine import utc_stamp, utc_time
from collabteam.monitoring.windows import last_verdicts
from collabteam.rounds.initial import read_draw
from collabteam.storage.workspace import Workspace

ALPHA = 0.01
"""Share of looks at footage without drift that may raise an alarm."""
LEAST_EFFECT = 0.03
"""How far :attr:`RankTest.lower` must be above one half."""
LEAST_OBJECTS = 50
"""Objects that a test needs in the stretch, and as many before it."""
_LONGEST = 4
"""Tracks of at least this many crops form one stratum."""


@dataclass(frozen=True)
class RankTest:
    """Whether late scores rank lower than early ones within strata.

    Attributes:
        p: One-sided p-value, 0 to 1; 1 if nothing can be compared.
        lower: Chance that a late score is lower than an early one of the same stratum, 0 to 1;
            ties count half, 0.5 is no difference.
        late: Number of late scores compared: those whose stratum has early ones, too.
        early: Number of early scores compared.
    """

    p: float
    lower: float
    late: int
    early: int


def rank_test(
    score: NDArray[np.floating], late: NDArray[np.bool_], stratum: NDArray[Any]
) -> RankTest:
    """Test late scores against early ones by ranks within strata (van Elteren).

    Each stratum's rank sum is weighted by ``1 / (N + 1)``, which is locally most powerful if the
    shift is the same in all. Mean and variance are those over all permutations of the stratum's
    ranks, ties included, so they are exact; only the sum over strata is approximated as normal.

    Args:
        score: Shape ``(N,)``.
        late: Shape ``(N,)``.
        stratum: Shape ``(N,)``, names or numbers.

    Returns:
        The test; ``p`` and ``lower`` do not depend on monotone transformations of the scores.

    Raises:
        ValueError: A score is NaN.

    Example:
        >>> import numpy as np
        >>> late = np.arange(40) % 2 == 1
        >>> found = rank_test(np.arange(40) - 20 * late, late, np.zeros(40))
        >>> round(found.lower, 3), found.p < 0.01, found.late, found.early
        (0.863, True, 20, 20)
    """
    from scipy.stats import norm, rankdata  # takes more than a second, and is often not needed

    if np.isnan(score).any():
        raise ValueError("expected scores, got NaN among them")
    strata, at = np.unique(stratum, return_inverse=True)
    values, order = np.unique(score, return_inverse=True)
    n = np.bincount(at, minlength=len(strata))
    n_late = np.bincount(at[late], minlength=len(strata))
    # All scores are ranked at once, stratum after stratum; subtracting the mean centres the ranks.
    rank = rankdata(at * len(values) + order)
    centred = rank - (np.cumsum(n) - n + (n + 1) / 2)[at]
    both = (n_late > 0) & (n_late < n)
    n, n_late = n[both], n_late[both]
    sums = np.bincount(at[late], centred[late], len(strata))[both]
    squares = np.bincount(at, centred**2, len(strata))[both]
    below = -float((sums / (n + 1)).sum())
    weight = float((n_late * (n - n_late) / (n + 1)).sum())
    variance = float((n_late * (n - n_late) / (n * (n - 1)) * squares / (n + 1) ** 2).sum())
    p = float(norm.sf(below / math.sqrt(variance))) if variance > 0 else 1.0
    lower = 0.5 + (below / weight if weight else 0.0)
    return RankTest(p, lower, int(n_late.sum()), int((n - n_late).sum()))


@dataclass(frozen=True)
class Mix:
    """How often each class is proposed, for information.

    Attributes:
        p: p-value of a chi-square test that both mixes are the same, 0 to 1; None with fewer than
            two classes.
        before: Share of tracks by proposed class, 0 to 1.
        stretch: The same in the stretch.
    """

    p: float | None
    before: dict[str, float]
    stretch: dict[str, float]


@dataclass(frozen=True)
class Drift:
    """The finding about the newest stretch of a camera.

    Attributes:
        stretch: ``arrived`` after the team's last training crop, or the ``newest`` tenth by time.
        round: The team's round.
        alarm: Whether the stretch is labelled less confidently; None: too few objects to tell.
        objects: Objects in the stretch.
        before: Objects in the reference.
        since: Unix seconds of the stretch's first object; None if unknown.
        p: See :class:`RankTest`; None if there was no test.
        lower: See :class:`RankTest`; None if there was no test.
        compared: Objects of the stretch whose stratum also has objects in the reference.
        coverage: Share of these with a label, 0 to 1; None if there was no test.
        coverage_before: Share expected from the reference's coverage of each stratum.
        mix: Proposed classes of all tracks; None if there was no test.
    """

    stretch: Literal["arrived", "newest"]
    round: int
    alarm: bool | None
    objects: int
    before: int
    since: float | None
    p: float | None = None
    lower: float | None = None
    compared: int = 0
    coverage: float | None = None
    coverage_before: float | None = None
    mix: Mix | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dumps``: the attributes, ``since`` in ISO 8601."""
        since = None if self.since is None else utc_stamp(self.since)
        return {**asdict(self), "since": since}

    def in_words(self, camera: str) -> str:
        """The message for a person, in one or two sentences."""
        since = "" if self.since is None else f" (since {utc_time(self.since):%Y-%m-%d %H:%M} UTC)"
        newest = f"the newest {self.objects:,} objects{since}"
        if self.alarm is None:
            return (
                f"too few objects to detect drift: {self.objects:,} in the newest stretch{since} "
                f"and {self.before:,} before it can be compared, {LEAST_OBJECTS} of each are needed"
            )
        assert self.p is not None
        assert self.lower is not None
        assert self.coverage is not None
        assert self.coverage_before is not None
        p = f"p = {self.p:.2g}" if self.p >= 0.0001 else "p < 0.0001"
        coverage = (
            f"coverage {self.coverage:.1%} against {self.coverage_before:.1%} of their like before"
            f", and in {self.lower:.0%} of pairs of like objects the newer one is less confident"
        )
        learned = (
            f"the {self.before:,} that the team of round {self.round} learned from"
            if self.stretch == "arrived"
            else f"the {self.before:,} before them"
        )
        if self.alarm:
            said = (
                f"{newest} are labelled less confidently than {learned} ({p}): {coverage}; "
                f"verify some of them: python -m collabteam.review camera={camera} "
                "queue=unsure, then train"
            )
        elif self.p < ALPHA:
            said = (
                f"{newest} are labelled a little less confidently than {learned} ({p}), too "
                f"little to matter: {coverage}"
            )
        else:
            said = (
                f"no sign of drift: {newest} are labelled as confidently as {learned} ({p}): "
                f"{coverage}"
            )
        return said + self._mix_in_words()

    def _mix_in_words(self) -> str:
        if self.mix is None or self.mix.p is None or self.mix.p >= ALPHA:
            return ""
        moves = {
            name: self.mix.stretch[name] - share
            for name, share in self.mix.before.items()
            if name in self.mix.stretch
        }
        most = max(moves, key=lambda name: (abs(moves[name]), name))
        return (
            f"; the mix has changed, which is not an alarm: {self.mix.stretch[most]:.1%} proposed "
            f"as {most or 'nothing'} against {self.mix.before[most]:.1%}"
        )


def find_drift(workspace: Workspace, index: CropIndex, seed: int = 0) -> Drift | None:
    """Compare the newest stretch of a camera with the crops that its team learned from.

    Args:
        workspace: The camera's files, for the draw of i0.
        index: The camera's crops.
        seed: Seed of the choice of one crop of each track.

    Returns:
        The finding; None without verdicts.

    Raises:
        UserError: The draw of i0 is damaged.
    """
    verdicts = last_verdicts(index)
    if not verdicts.any():
        return None
    number = int(index.verdict_round[np.flatnonzero(verdicts)[0]])
    objects = comparable(index, verdicts, seed)
    # A crop without verdict or answer is in neither mix.
    seen = verdicts | index.verified() | index.test
    first = np.full(int(index.track_code.max()) + 1, len(index), dtype=np.int64)
    np.minimum.at(first, index.track_code, np.arange(len(index)))
    arrived = first >= learned_until(workspace, index, number)
    count = int(arrived[index.track_code[objects.rows]].sum())
    if min(count, len(objects.rows) - count) >= LEAST_OBJECTS:
        return compare(index, objects, seen, arrived, number, "arrived")
    began = index.time[first]
    dated = objects.only(np.isfinite(began[index.track_code[objects.rows]]))
    time = np.sort(began[index.track_code[dated.rows]])
    size = min(len(time), max(LEAST_OBJECTS, math.ceil(len(time) / 10)))
    # An undated crop is not later than any other; equal times stay together.
    newest = began >= (time[-size] if size else math.inf)
    return compare(index, dated, seen, newest, number, "newest")


def learned_until(workspace: Workspace, index: CropIndex, number: int) -> int:
    """Find the row after the last crop that the team of a round can have learned from.

    i0 was drawn from all crops of that time, and each increment from all crops of a later time; so
    the last crop that any of these took shows how far the camera was. Crops that arrived after it
    but before the training, and were not drawn, count as new.

    Args:
        workspace: The camera's files.
        index: The camera's crops.
        number: The round, 0 or more.

    Returns:
        0 (nothing is known) to N.

    Raises:
        UserError: The draw of i0 is damaged.
    """
    file = workspace.round(0).sample
    drawn_from = int(read_draw(file).get("drawn_from", 0)) if file.exists() else 0
    trained = (index.increment_round >= 1) & (index.increment_round <= number)
    trained |= (index.unsure_round >= 0) & (index.unsure_round < number)
    return max(drawn_from, int(np.flatnonzero(trained).max(initial=-1)) + 1)


@dataclass(frozen=True)
class Objects:
    """One crop of each object that may be compared.

    Attributes:
        rows: Shape ``(M,)``: rows of the index.
        score: Shape ``(M,)``: confidence of the verdict, 0 to 1; -1 for "I don't know".
        stratum: Shape ``(M,)``: proposed class and number of crops of the track, as a number.
    """

    rows: NDArray[np.int64]
    score: NDArray[np.float64]
    stratum: NDArray[np.int64]

    def only(self, chosen: NDArray[np.bool_]) -> Objects:
        """Some of them; ``chosen`` has the shape ``(M,)``."""
        return Objects(self.rows[chosen], self.score[chosen], self.stratum[chosen])


def comparable(index: CropIndex, verdicts: NDArray[np.bool_], seed: int = 0) -> Objects:
    """Select the objects whose verdicts show the team's confidence on crops unknown to it.

    Args:
        index: The camera's crops.
        verdicts: Shape ``(N,)``: which verdicts count.
        seed: Seed of the choice of one crop of each track.
    """
    said = index.verified() & ~index.test
    unsure = said & (index.unsure_round >= 0)
    tracks = int(index.track_code.max(initial=-1)) + 1
    taught, doubted = np.zeros(tracks, dtype=bool), np.zeros(tracks, dtype=bool)
    taught[index.track_code[said & ~unsure & ~index.audited]] = True
    doubted[index.track_code[unsure]] = True
    pool = np.flatnonzero((verdicts | unsure) & ~taught[index.track_code])
    shuffled = np.random.default_rng([seed, *b"drift"]).permutation(pool)
    _, at = np.unique(index.track_code[shuffled], return_index=True)
    rows = np.sort(shuffled[at])
    known = verdicts[rows] & (index.verdict[rows] != "") & ~doubted[index.track_code[rows]]
    _, proposed = np.unique(index.proposed[rows].astype(str), return_inverse=True)
    length = np.bincount(index.track_code, minlength=1)[index.track_code[rows]].clip(max=_LONGEST)
    score = np.where(known, index.verdict_confidence[rows], -1.0)
    return Objects(rows, score, proposed * (_LONGEST + 1) + length)


def compare(
    index: CropIndex,
    objects: Objects,
    seen: NDArray[np.bool_],
    late: NDArray[np.bool_],
    number: int,
    stretch: Literal["arrived", "newest"],
) -> Drift:
    """Compare late objects with the others.

    Args:
        index: The camera's crops.
        objects: The objects to compare.
        seen: Shape ``(N,)``: crops whose tracks count for the mix.
        late: Whether a track is in the stretch, by track number.
        number: The team's round.
        stretch: Kind of the stretch, see :attr:`Drift.stretch`.
    """
    late_M = late[index.track_code[objects.rows]]
    time = index.time[objects.rows[late_M]]
    since = float(np.nanmin(time)) if np.isfinite(time).any() else None
    n, before = int(late_M.sum()), int((~late_M).sum())
    test = rank_test(objects.score, late_M, objects.stratum)
    if min(test.late, test.early) < LEAST_OBJECTS:
        few = (test.late, test.early) if min(n, before) >= LEAST_OBJECTS else (n, before)
        return Drift(stretch, number, None, *few, since)
    alarm = test.p < ALPHA and test.lower >= 0.5 + LEAST_EFFECT
    coverage, expected = _coverage(objects, late_M)
    return Drift(
        stretch, number, alarm, n, before, since, test.p, test.lower, test.late,
        coverage, expected, _mix(index, seen, late),
    )  # fmt: skip


def _coverage(objects: Objects, late_M: NDArray[np.bool_]) -> tuple[float, float]:
    """Coverage of the compared late objects, and the coverage expected from early ones."""
    labelled = objects.score >= 0
    seen = expected = count = 0.0
    for one in np.unique(objects.stratum):
        here = objects.stratum == one
        new, old = here & late_M, here & ~late_M
        if new.any() and old.any():
            seen += float(labelled[new].sum())
            expected += float(labelled[old].mean()) * int(new.sum())
            count += int(new.sum())
    return seen / count, expected / count


def _mix(index: CropIndex, seen: NDArray[np.bool_], late: NDArray[np.bool_]) -> Mix:
    """Mix of all tracks, verified ones included: the crops that i0 took were there, too."""
    from scipy.stats import chi2_contingency

    rows = np.flatnonzero(seen)
    track, first = np.unique(index.track_code[rows], return_index=True)
    row, late = rows[first], late[track]
    names, proposed = np.unique(index.proposed[row].astype(str), return_inverse=True)
    table = np.stack([np.bincount(proposed[side], minlength=len(names)) for side in (~late, late)])
    shares = table / table.sum(axis=1, keepdims=True).clip(min=1)
    p = None
    if len(names) > 1 and (table.sum(axis=1) > 0).all():
        p = float(chi2_contingency(table, correction=False).pvalue)
    before, stretch = (dict(zip(map(str, names), side.tolist(), strict=True)) for side in shares)
    return Mix(p, before, stretch)
